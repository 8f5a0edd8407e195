"""Writes manifests that NeMo's Speech Data Explorer opens (``tools/speech_data_explorer``).

Its ``data_explorer.py`` divides by each row's ``duration``, compares ``pred_text`` with ``text`` by
a library that takes no empty reference, and stops at a row that lacks a number, or the
``pred_text``, which other rows have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FieldKeys, ShardFormat
from beam_asr.outputs.formats.file_names import audio_of
from beam_asr.records import json_numbers

REFERENCE = "text"


def encode_shard(lines: Iterable[bytes], keys: FieldKeys) -> Iterator[bytes]:
    """Encodes the transcripts of a shard that have a reference, with the text beside it.

    If none has one, the recognized text is in the reference's place. Rows whose duration is not
    known are left out.
    """
    compared = any(_has_reference(json_numbers.loads(line)) for line in lines)
    for line in lines:
        record = json_numbers.loads(line)
        audio = audio_of(record, keys.audio, keys.channel)
        if not audio.duration or not audio.name or (compared and not _has_reference(record)):
            continue
        text = str(record.get(keys.text) or "")
        texts = {"text": record[REFERENCE], "pred_text": text} if compared else {"text": text}
        place = {"audio_filepath": audio.name, "offset": audio.offset, "duration": audio.duration}
        yield shards.encode({**place, **texts})


def _has_reference(record: Mapping[str, Any]) -> bool:
    reference = record.get(REFERENCE)
    return isinstance(reference, str) and bool(reference.strip())


FORMAT = ShardFormat(name="sde", extension="json", stem="manifest", encode_shard=encode_shard)
