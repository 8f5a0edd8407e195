"""Writes each shard of transcripts as a Parquet file with the columns of `table`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from beam_asr.outputs.formats import table
from beam_asr.outputs.formats.base import FieldKeys, ShardFormat


def encode_shard(lines: Iterable[bytes], keys: FieldKeys) -> Iterator[bytes]:
    """Encodes the transcripts of a shard, each of which is a row."""
    return table.parquet(lines, keys.audio, keys.text)


FORMAT = ShardFormat(
    name="parquet", extension="parquet", stem="transcripts", encode_shard=encode_shard
)
