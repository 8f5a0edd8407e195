"""Lists which files belong to which audio, for formats with a file for each transcript."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FieldKeys, ShardFormat
from beam_asr.outputs.formats.file_names import audio_of
from beam_asr.records import json_numbers


def encode_shard(lines: Iterable[bytes], keys: FieldKeys) -> Iterator[bytes]:
    """Encodes the transcripts of a shard: a line for each, with its audio and its files."""
    for line in lines:
        record = json_numbers.loads(line)
        audio = audio_of(record, keys.audio, keys.channel)
        fields = {"audio_filepath": audio.name, "offset": audio.offset, "channel": audio.channel}
        yield shards.encode({**fields, "files": record.get("exports", {})})


INDEX = ShardFormat(name="exports", extension="jsonl", stem="index", encode_shard=encode_shard)
