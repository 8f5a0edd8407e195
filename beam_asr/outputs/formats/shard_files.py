"""Formats for the next pipeline, in which shards of transcripts are written too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from beam_asr.outputs.formats import documents, table
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

PARQUET, DOCUMENTS, NEMO = "parquet", "documents", "nemo"
FORMATS = (PARQUET, DOCUMENTS, NEMO)  # each has a folder of its name
# Of which each shard of transcripts makes one; NeMo's manifests may go by tars instead.
OF_SHARDS = (PARQUET, DOCUMENTS)
NAME = re.compile(
    r"(transcripts-\d{5}-of-\d{5}\.parquet|documents-\d{5}-of-\d{5}\.jsonl"
    r"|manifest(-\d{5}-of-\d{5}|_\d+)\.json)"
)


def path(format: str, shard: int, shards: int) -> str:
    """Of the file of a shard, relative to the output folder."""
    numbers = f"{shard:05d}-of-{shards:05d}"
    if format == PARQUET:
        return join(format, f"transcripts-{numbers}.parquet")
    if format == DOCUMENTS:
        return join(format, f"documents-{numbers}.jsonl")
    return join(format, f"manifest-{numbers}.json")


def path_of_tar(number: int) -> str:
    """Of NeMo's manifest of a tar, relative to the output folder."""
    return join(NEMO, f"manifest_{number}.json")


def is_of_tar(path: str) -> bool:
    """Whether a path is one of `path_of_tar`."""
    return re.fullmatch(rf"{NEMO}/manifest_\d+\.json", path) is not None


def content(
    format: str, lines: Iterable[bytes], filepath_key: str, pred_text_key: str, lang_key: str
) -> Iterator[bytes]:
    """The content of a shard.

    Args:
        format: one of ``OF_SHARDS``.
        lines: of its transcripts.
    """
    if format == PARQUET:
        yield from table.parquet(lines, filepath_key, pred_text_key)
        return
    for line in lines:
        record: Mapping[str, Any] = json.loads(line)
        yield documents.to_line(record, filepath_key, pred_text_key, lang_key)


def delete_stale(storage: Storage, folder: str) -> None:
    """Deletes what an earlier run has left."""
    for format in FORMATS:
        for name in storage.list_names(join(folder, format)):
            if NAME.fullmatch(name):
                storage.delete(join(folder, format, name))
