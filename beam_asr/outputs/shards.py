"""Names, numbers and encodes shards."""

from __future__ import annotations

import json
import posixpath
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from beam_asr.errors import LostRowsError
from beam_asr.records import json_numbers
from beam_asr.settings import RECORDS_A_SHARD
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

TRANSCRIPTS = "transcripts"
FAILURES = "failures"
FILTERED = "filtered"
KINDS = (TRANSCRIPTS, FAILURES, FILTERED)
# The name of a shard; of a run that appends (`row_index`), with its number.
SHARD = re.compile(
    rf"({'|'.join(KINDS)})(?:-append(?P<part>\d{{5}}))?-\d{{5}}-of-\d{{5}}\.jsonl"
    r"(?:\.gz|\.zst)?"
)
EXTENSIONS = {None: ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}  # by compression

_ENCODER = json.JSONEncoder(ensure_ascii=False)  # which json.dumps would make for each record


def shard_name(
    kind: str, shard: int, shards: int, compression: str | None = None, part: int = 0
) -> str:
    return f"{numbered(kind, shard, shards, part)}{EXTENSIONS[compression]}"


def numbered(stem: str, shard: int, shards: int, part: int = 0) -> str:
    """Returns the name of a shard without its extension.

    Args:
        part: the number of the run, of those that append; 0 for the first.
    """
    appended = f"-append{part:05d}" if part else ""
    return f"{stem}{appended}-{shard:05d}-of-{shards:05d}"


def compression_of(name: str) -> str | None:
    """Returns the compression of the shard with this name."""
    return next(kind for kind, extension in EXTENSIONS.items() if name.endswith(extension))


def part_of(name: str) -> int:
    """Returns the number of the run that has written the shard with this name; 0 for the first."""
    shard = SHARD.fullmatch(name)
    return int(shard["part"] or 0) if shard else 0


def shard_count(kind: str, records: int, num_shards: int | None = None) -> int:
    """Returns the number of shards of a kind of record; ``num_shards`` is that of transcripts."""
    if kind == TRANSCRIPTS and num_shards is not None:
        return num_shards
    return max(1, -(-records // RECORDS_A_SHARD))


def shard_of(line: bytes, shards: int) -> int:
    """Returns the shard of a record: the same in every attempt, whatever the order of records."""
    return zlib.crc32(line) % shards


def encode(record: dict[str, Any]) -> bytes:
    """Encodes a record as a line of JSON in UTF-8, with characters that are not escaped."""
    try:
        return json_numbers.dumps(record, _ENCODER.encode).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair: only an escape can hold it
        return json_numbers.dumps(record).encode() + b"\n"


def compressed(lines: Iterable[bytes], compression: str | None) -> Iterable[bytes]:
    """Returns the content of a shard, bit for bit the same in every attempt.

    Args:
        compression: ``gzip``, ``zstd`` or None.
    """
    return lines if compression is None else _compressed(lines, compression)


def _compressed(lines: Iterable[bytes], compression: str) -> Iterator[bytes]:
    compressor: Any
    if compression == "gzip":
        compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)  # a gzip member, without a time
    else:
        import zstandard

        compressor = zstandard.ZstdCompressor().compressobj()
    yield from filter(None, map(compressor.compress, lines))
    yield compressor.flush()


def delete_stale(storage: Storage, folder: str, written: Iterable[str], part: int = 0) -> None:
    """Deletes shards of an earlier run, or attempt, that this run has not written again.

    Args:
        part: the number of the run. One that appends deletes only its own.
    """
    for name in set(storage.list_names(folder)) - set(written):
        shard = SHARD.fullmatch(name)
        if shard is not None and (not part or int(shard["part"] or 0) == part):
            storage.delete(join(folder, name))


def check_once(folder: str, written: Iterable[str]) -> None:
    """Checks that no shard was written twice, in place of itself.

    A runner that closes a window before all its rows are there writes it again with the others.

    Raises:
        LostRowsError: one was.
    """
    twice = [name for name, times in Counter(written).items() if times > 1]
    if twice:
        raise LostRowsError(
            f"{join(folder, twice[0])} was written twice, and holds only the rows of the second "
            "time: the runner has divided them. The output has no _SUCCESS and must not be used; "
            "`resume` does its rows again"
        )


def check_present(storage: Storage, folder: str, written: Iterable[str]) -> None:
    """Checks that the files that a job has written are still there, at its end.

    Args:
        written: their paths, relative to the folder.

    Raises:
        LostRowsError: somebody has deleted some.
    """
    names = set(written)
    folders = {posixpath.dirname(name) for name in names}
    listed = {
        join(below, name) for below in folders for name in storage.list_names(join(folder, below))
    }
    # A listing may be late.
    gone = [name for name in sorted(names - listed) if not storage.exists(join(folder, name))]
    if gone:
        raise LostRowsError(
            f"{len(gone)} of {len(names)} files that the job has written are no longer in "
            f"{folder!r}, as {gone[0]}: somebody has deleted them. `resume` writes them again"
        )
