"""The output folder: names of its files, the shards' lines, the summary, and what may be there."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from beam_asr.records import row_ids
from beam_asr.storage.storage import PART, Storage, join
from beam_asr.transcripts import scoring
from beam_asr.transcripts.scoring import Score

SUCCESS = "_SUCCESS"
SUMMARY = "summary.json"
TRANSCRIPTS = "transcripts"
FAILURES = "failures"
FILTERED = "filtered"
SHARD = re.compile(rf"({TRANSCRIPTS}|{FAILURES}|{FILTERED})-\d{{5}}-of-\d{{5}}\.jsonl(\.gz|\.zst)?")
EXTENSIONS = {None: ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}  # by compression

JOURNAL = "_journal"
LOCK = "lock.json"  # in the journal's folder
RUN = "run.json"  # there

RECORDS_A_SHARD = 50_000
MOST_SHARDS = 99_999  # that five digits can number
EXAMPLES = 10
MANY_FAILURES = 100  # fewer never fail a job, whatever their share


class OutputExistsError(ValueError):
    """The output folder is not empty, and nobody said what to do with what is there."""


class LostRowsError(RuntimeError):
    """The records that came out are not as many as the rows that went in."""


class TooManyFailuresError(RuntimeError):
    """So many rows failed that something is wrong with the job rather than with the rows."""


@dataclasses.dataclass
class Statistics:
    """Sums over a part of the job; ``+`` joins two.

    Attributes:
        rows_in: lines and rows that came in.
        rows_digest: the sum of the numbers of their groups (`row_ids`), and of those of tars.
        rows_invalid: of them, those that failed before any audio was read.
        example_invalid: why one of them did.
        tars: inputs whose rows are counted as they are read.
        resumed_rows: rows that an earlier run had done.
        resumed_seconds: of their audio.
        audio_seconds: of the clips that the model got.
        padded_seconds: clips x longest clip, over all batches.
        model_seconds: wall time of the forward passes and their decoding.
        wait_seconds: wall time in which the model had nothing to do, from a bundle's start to
            its last batch.
        batches: forward passes.
        long_rows: rows that were cut into segments.
        segments: that they were cut into.
        segments_failed: of them.
        unheard_seconds: of them, that were not given to the model, since nobody speaks.
        no_speech: rows in which nobody speaks.
        inputs: the files that the rows come from, of an input without an end.
        models: descriptions of the models that were used.
        members_without_row: files in tars of a tarred data set that no row is about.
        examples_without_row: some of them.
        tars_without_rows: tars of which no row is; they are not read.
        model_loads: models that were loaded, over all worker processes.
        model_evictions: models that had to make room for others.
        scores: sums over rows that are kept, by what they are sums of and its value.
        scored_by: the field of the reference, and the normalizer.
        without_reference: rows that are kept, and have no reference.
    """

    rows_in: int = 0
    rows_digest: int = 0
    rows_invalid: int = 0
    example_invalid: str = ""
    tars: int = 0
    resumed_rows: int = 0
    resumed_seconds: float = 0.0
    audio_seconds: float = 0.0
    padded_seconds: float = 0.0
    model_seconds: float = 0.0
    wait_seconds: float = 0.0
    batches: int = 0
    long_rows: int = 0
    segments: int = 0
    segments_failed: int = 0
    unheard_seconds: float = 0.0
    no_speech: int = 0
    inputs: frozenset[str] = frozenset()
    models: frozenset[tuple[tuple[str, str], ...]] = frozenset()
    members_without_row: int = 0
    examples_without_row: tuple[str, ...] = ()
    tars_without_rows: int = 0
    model_loads: int = 0
    model_evictions: int = 0
    scores: dict[tuple[str, str], Score] = dataclasses.field(default_factory=dict)
    scored_by: frozenset[tuple[str, str]] = frozenset()
    without_reference: int = 0

    def __add__(self, other: Statistics) -> Statistics:
        examples = sorted({*self.examples_without_row, *other.examples_without_row})
        return Statistics(
            self.rows_in + other.rows_in,
            (self.rows_digest + other.rows_digest) % row_ids.MODULUS,
            self.rows_invalid + other.rows_invalid,
            self.example_invalid or other.example_invalid,
            self.tars + other.tars,
            self.resumed_rows + other.resumed_rows,
            self.resumed_seconds + other.resumed_seconds,
            self.audio_seconds + other.audio_seconds,
            self.padded_seconds + other.padded_seconds,
            self.model_seconds + other.model_seconds,
            self.wait_seconds + other.wait_seconds,
            self.batches + other.batches,
            self.long_rows + other.long_rows,
            self.segments + other.segments,
            self.segments_failed + other.segments_failed,
            self.unheard_seconds + other.unheard_seconds,
            self.no_speech + other.no_speech,
            self.inputs | other.inputs,
            self.models | other.models,
            self.members_without_row + other.members_without_row,
            tuple(examples[:EXAMPLES]),
            self.tars_without_rows + other.tars_without_rows,
            self.model_loads + other.model_loads,
            self.model_evictions + other.model_evictions,
            {
                key: self.scores.get(key, Score()) + other.scores.get(key, Score())
                for key in self.scores.keys() | other.scores.keys()
            },
            self.scored_by | other.scored_by,
            self.without_reference + other.without_reference,
        )

    def add_member_without_row(self, name: str) -> None:
        self.members_without_row += 1
        if len(self.examples_without_row) < EXAMPLES:
            self.examples_without_row += (name,)


def total(parts: Iterable[Statistics]) -> Statistics:
    return sum(parts, Statistics())


def shard_name(kind: str, shard: int, shards: int, compression: str | None = None) -> str:
    return f"{kind}-{shard:05d}-of-{shards:05d}{EXTENSIONS[compression]}"


def shard_count(kind: str, records: int, num_shards: int | None = None) -> int:
    """How many shards the records of a kind make; ``num_shards`` are those of transcripts."""
    if kind == TRANSCRIPTS and num_shards is not None:
        return num_shards
    return max(1, -(-records // RECORDS_A_SHARD))


def shard_of(line: bytes, shards: int) -> int:
    """Where a record goes: the same in every try, whatever the order of records."""
    return zlib.crc32(line) % shards


def encode(record: dict[str, Any]) -> bytes:
    """A record as a line of JSON, with text as it is written in its language."""
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(record).encode() + b"\n"


def compressed(lines: Iterable[bytes], compression: str | None) -> Iterator[bytes]:
    """The content of a shard, bit for bit the same in every try.

    Args:
        compression: ``gzip``, ``zstd`` or None.
    """
    if compression is None:
        yield from lines
        return
    compressor: Any
    if compression == "gzip":
        compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)  # a gzip member, without a time
    else:
        import zstandard

        compressor = zstandard.ZstdCompressor().compressobj()
    yield from filter(None, map(compressor.compress, lines))
    yield compressor.flush()


def encode_readable(record: dict[str, Any]) -> bytes:
    """A record over several lines, for a file that people read."""
    return json.dumps(record, ensure_ascii=False, indent=2).encode() + b"\n"


def check_may_write(
    storage: Storage, folder: str, overwrite: bool = False, resume: bool = False
) -> None:
    """Refuses an output folder that holds anything, unless it is to be replaced or gone on with.

    Args:
        overwrite: whether its results may be replaced.
        resume: whether an unfinished run there is to be gone on with.

    Raises:
        OutputExistsError: says what is there and what to do.
        StorageError: the storage cannot be written.
    """
    storage.check_writable(folder)
    there = [name for name in storage.names_in(folder) if not PART.fullmatch(name)]
    if JOURNAL in there and set(storage.names_in(join(folder, JOURNAL))) <= {LOCK}:
        there.remove(JOURNAL)  # of a job that is about to begin, or did not
    if not there or overwrite:
        return
    shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
    if not resume:
        raise OutputExistsError(
            f"the output folder {folder!r} is not empty ({shown}): choose another one, or "
            "--overwrite to replace its results, or --resume to go on with an unfinished run"
        )
    if JOURNAL not in there:
        raise OutputExistsError(
            f"the output folder {folder!r} holds no unfinished run to go on with, but is not empty "
            f"({shown}): choose another one, or --overwrite to replace its results"
        )


def is_finished(storage: Storage, folder: str) -> bool:
    """Whether the results there are whole, and no run has begun to replace them."""
    finished = SUCCESS in storage.names_in(folder)
    return finished and RUN not in storage.names_in(join(folder, JOURNAL))


def withdraw(storage: Storage, folder: str) -> None:
    """Makes a folder an unfinished one, before anything in it is replaced."""
    storage.delete(join(folder, SUCCESS))


def delete_stale(storage: Storage, folder: str, written: Iterable[str]) -> None:
    """Deletes shards of an earlier run that the present one has not written again."""
    for name in set(storage.names_in(folder)) - set(written):
        if SHARD.fullmatch(name):
            storage.delete(join(folder, name))


def check_complete(rows_in: int, transcribed: int, failed: int, filtered: int = 0) -> None:
    """Raises LostRowsError unless every row has ended as exactly one record."""
    if rows_in != transcribed + failed + filtered:
        apart = f", {filtered} filtered rows" if filtered else ""
        raise LostRowsError(
            f"{rows_in} rows went in, but {transcribed} transcripts{apart} and {failed} failures "
            f"came out: {abs(rows_in - transcribed - failed - filtered)} rows are lost or doubled. "
            "This is a defect of the job; the output has no _SUCCESS and must not be used"
        )


def too_many(failed: int, rows: int, max_failure_fraction: float) -> bool:
    """Whether so many failures fail a job."""
    return failed >= MANY_FAILURES and failed > max_failure_fraction * rows


def check_invalid(statistics: Statistics, max_failure_fraction: float) -> None:
    """Raises TooManyFailuresError if too many rows are not right, before any audio is read."""
    invalid = statistics.rows_invalid
    if too_many(invalid, statistics.rows_in, max_failure_fraction):
        raise TooManyFailuresError(
            f"{invalid} of {statistics.rows_in} rows are not right, more than "
            f"--max_failure_fraction={max_failure_fraction:g} allows, so no audio was read. One of "
            f"them: {statistics.example_invalid}"
        )


def kinds(failed_by_type: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in failed_by_type.most_common(3))


def check_failures(rows_in: int, failed_by_type: Counter[str], max_failure_fraction: float) -> None:
    """Raises TooManyFailuresError above the fraction, once enough rows have failed."""
    failed = sum(failed_by_type.values())
    if too_many(failed, rows_in, max_failure_fraction):
        raise TooManyFailuresError(
            f"{failed} of {rows_in} rows failed ({kinds(failed_by_type)}), more than "
            f"--max_failure_fraction={max_failure_fraction:g} allows. Read the failures in the "
            "output folder, mend the cause, or raise the fraction if they are to be expected"
        )


def summary(
    statistics: Statistics,
    transcribed: int,
    failed_by_type: Counter[str],
    filtered_by: Counter[str],
    wall_seconds: float | None,
    details: dict[str, Any],
) -> dict[str, Any]:
    """What ``summary.json`` says of a run.

    RTFx is seconds of audio a second of wall time: ``rtfx_end_to_end`` over the whole job,
    ``rtfx_model`` over the forward passes and their decoding alone, summed over workers. What an
    earlier run had done counts among the hours and the rows, and in nothing else. Silence that the
    model was spared counts among the hours, and end to end.
    """
    seconds = statistics.audio_seconds
    all_seconds = seconds + statistics.unheard_seconds
    return {
        "rows_in": statistics.rows_in,
        "transcribed": transcribed,
        "resumed": statistics.resumed_rows,
        "failed": sum(failed_by_type.values()),
        "failed_by_type": dict(sorted(failed_by_type.items())),
        "filtered": sum(filtered_by.values()),
        "filtered_by": dict(sorted(filtered_by.items())),
        "audio_hours": round((all_seconds + statistics.resumed_seconds) / 3600, 6),
        "wall_seconds": None if wall_seconds is None else round(wall_seconds, 3),
        "rtfx_end_to_end": _ratio(all_seconds, wall_seconds),
        "rtfx_model": _ratio(seconds, statistics.model_seconds),
        "model_seconds": round(statistics.model_seconds, 3),
        "model_wait_seconds": round(statistics.wait_seconds, 3),
        "model_wait_share": _ratio(
            statistics.wait_seconds, statistics.wait_seconds + statistics.model_seconds
        ),
        "batches": statistics.batches,
        "padding_efficiency": _ratio(seconds, statistics.padded_seconds),
        "long_rows": statistics.long_rows,
        "segments": statistics.segments,
        "segments_failed": statistics.segments_failed,
        "no_speech": statistics.no_speech,
        "unheard_hours": round(statistics.unheard_seconds / 3600, 6),
        "models": [dict(model) for model in sorted(statistics.models)],
        "model_loads": statistics.model_loads,
        "model_evictions": statistics.model_evictions,
        "members_without_row": statistics.members_without_row,
        "examples_without_row": list(statistics.examples_without_row),
        "tars_without_rows": statistics.tars_without_rows,
        **({"scores": _scores(statistics)} if statistics.scored_by else {}),
        **({"inputs": sorted(statistics.inputs)} if statistics.inputs else {}),
        **details,
    }


def _scores(statistics: Statistics) -> dict[str, Any]:
    """The sums of scores by what they are sums of."""
    ((reference_key, normalizer),) = statistics.scored_by
    made: dict[str, Any] = {
        "reference_key": reference_key,
        "normalizer": normalizer,
        "without_reference": statistics.without_reference,
        "corpus": scoring.summary(Score()),
    }
    for (of, value), score in sorted(statistics.scores.items()):
        if value:
            made.setdefault(of, {})[value] = scoring.summary(score)
        else:
            made[of] = scoring.summary(score)
    return made


def _ratio(value: float, over: float | None) -> float | None:
    return round(value / over, 4) if over else None
