"""Lists which files belong to which audio, for formats with a file for each transcript.

Before a worker writes files, it lists their paths in ``exports/started-ID.jsonl``, so that another
attempt can delete them. The index takes the place of these lists when the output is complete.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FieldKeys, ShardFormat
from beam_asr.outputs.formats.file_names import audio_of
from beam_asr.records import json_numbers
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

STARTED = re.compile(r"started-[0-9a-f]{32}\.jsonl")


def encode_shard(lines: Iterable[bytes], keys: FieldKeys) -> Iterator[bytes]:
    """Encodes the transcripts of a shard: a line for each, with its audio and its files."""
    for line in lines:
        record = json_numbers.loads(line)
        audio = audio_of(record, keys.audio, keys.channel)
        fields = {"audio_filepath": audio.name, "offset": audio.offset, "channel": audio.channel}
        yield shards.encode({**fields, "files": record.get("exports", {})})


INDEX = ShardFormat(name="exports", extension="jsonl", stem="index", encode_shard=encode_shard)


def start_files(storage: Storage, folder: str, paths: Iterable[str]) -> None:
    """Records paths, relative to the output folder, of files that are about to be written."""
    name = f"started-{uuid.uuid4().hex}.jsonl"
    files = [shards.encode({"files": {"": path}}) for path in paths]
    storage.write(join(folder, INDEX.name, name), files)


def files_of_runs(storage: Storage, folder: str, part: int) -> set[str]:
    """Returns the paths of the files of earlier runs and attempts, relative to the output folder.

    Args:
        part: the number of the run. Of one that appends these are only its own attempts'.
    """
    below = join(folder, INDEX.name)
    files: set[str] = set()
    for name in storage.list_names(below):
        number = INDEX.part_of(name)
        if STARTED.fullmatch(name) or (number is not None and (not part or number == part)):
            for line in storage.read(join(below, name)).splitlines():
                files.update(json_numbers.loads(line)["files"].values())
    return files


def forget_started(storage: Storage, folder: str) -> None:
    """Deletes the lists of files that were about to be written."""
    below = join(folder, INDEX.name)
    for name in storage.list_names(below):
        if STARTED.fullmatch(name):
            storage.delete(join(below, name))
