"""Records to shards, a summary and ``_SUCCESS``: a PTransform."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsList, AsSingleton, PCollection

from beam_asr import output
from beam_asr.output import Statistics
from beam_asr.storage import Storage, join
from beam_asr.transcribe import Record, Transcribed


class WriteManifest(beam.PTransform):
    """Writes records as shards of JSONL into a folder, then a summary, then ``_SUCCESS``.

    Takes the ``Transcribed`` of ``Transcribe``, of which it writes the failures too and checks that
    every row has ended as exactly one record; or any PCollection of dicts.

    Args:
        folder: the output folder, on any storage.
        overwrite: whether the results of an earlier run there may be replaced.
        max_failure_fraction: the job fails if a larger part of the rows, and at least 100, failed.
        details: what else is to stand in ``summary.json``.
        storage_options: for each protocol what its fsspec file system is opened with.

    Raises:
        OutputExistsError: when the graph is built, if the folder is not empty.
    """

    def __init__(
        self,
        folder: str,
        overwrite: bool = False,
        max_failure_fraction: float = 0.1,
        details: Record | None = None,
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        super().__init__()
        if not 0 <= max_failure_fraction <= 1:
            raise ValueError(f"max_failure_fraction is {max_failure_fraction}, not within 0 and 1")
        self._folder = folder
        self._overwrite = overwrite
        self._max_failure_fraction = max_failure_fraction
        self._details = details or {}
        self._storage = Storage(storage_options or {})

    def expand(self, records: Transcribed | PCollection[Record]) -> PCollection[Record]:
        output.check_may_write(self._storage, self._folder, self._overwrite)
        started = time.time()
        if not isinstance(records, Transcribed):
            none = records | "None" >> beam.Filter(lambda _: False)
            rows_in = (
                records
                | "CountRows" >> beam.combiners.Count.Globally()
                | "RowsIn" >> beam.Map(lambda count: Statistics(rows_in=count))
            )
            records = Transcribed(records, none, rows_in)
        start = records.transcripts.pipeline | "Start" >> beam.Create([self._folder])
        ready = start | "Withdraw" >> beam.Map(_withdraw, self._storage)
        written = [
            collection | f"Write_{kind}" >> _WriteShards(self._storage, self._folder, kind, ready)
            for kind, collection in (
                (output.TRANSCRIPTS, records.transcripts),
                (output.FAILURES, records.failures),
            )
        ]
        return start | "Finish" >> beam.Map(
            _finish,
            self._storage,
            started,
            self._max_failure_fraction,
            self._details,
            statistics=AsSingleton(
                records.statistics | "SumStatistics" >> beam.CombineGlobally(_sum_statistics)
            ),
            transcripts=AsList(written[0]),
            failures=AsList(written[1]),
        )


class _Shard(NamedTuple):
    """A shard that was written: its name and its records by type of error (none: ``""``)."""

    name: str
    records: Counter[str]


class _WriteShards(beam.PTransform):
    """Writes records as ``KIND-SSSSS-of-NNNNN.jsonl`` and gives a ``_Shard`` for each."""

    def __init__(self, storage: Storage, folder: str, kind: str, ready: PCollection):
        super().__init__()
        self._storage = storage
        self._folder = folder
        self._kind = kind
        self._ready = ready

    def expand(self, records: PCollection[Record]) -> PCollection[_Shard]:
        shards = (
            records
            | "Count" >> beam.combiners.Count.Globally()
            | "ShardCount" >> beam.Map(output.shard_count)
        )
        # Transcripts have at least one shard, so that a reader finds a file.
        every = [(0, None)] if self._kind == output.TRANSCRIPTS else []
        lines = records | "Shard" >> beam.Map(_keyed_by_shard, AsSingleton(shards))
        at_least = records.pipeline | "FirstShard" >> beam.Create(every)
        return (
            (lines, at_least)
            | "WithFirst" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
            | "Write"
            >> beam.Map(
                _write_shard,
                self._storage,
                self._folder,
                self._kind,
                shards=AsSingleton(shards),
                ready=AsIter(self._ready),
            )
        )


def _keyed_by_shard(record: Record, shards: int) -> tuple[int, tuple[str, bytes]]:
    line = output.encode(record)
    error = record.get("error")
    kind = error["type"] if isinstance(error, dict) and "type" in error else ""
    return output.shard_of(line, shards), (kind, line)


def _write_shard(
    keyed: tuple[int, Iterable[tuple[str, bytes] | None]],
    storage: Storage,
    folder: str,
    kind: str,
    shards: int,
    ready: Iterable[str],
) -> _Shard:
    shard, records = keyed
    list(ready)  # the folder is an unfinished one before the first file in it is replaced
    written: Counter[str] = Counter()

    def lines() -> Iterator[bytes]:
        for record in records:
            if record is not None:
                error_type, line = record
                written[error_type] += 1
                yield line

    name = output.shard_name(kind, shard, shards)
    storage.write(join(folder, name), lines())
    return _Shard(name, written)


def _withdraw(folder: str, storage: Storage) -> str:
    output.withdraw(storage, folder)
    return folder


def _finish(
    folder: str,
    storage: Storage,
    started: float,
    max_failure_fraction: float,
    details: Record,
    statistics: Statistics,
    transcripts: list[_Shard],
    failures: list[_Shard],
) -> Record:
    transcribed = sum(sum(shard.records.values()) for shard in transcripts)
    failed_by_type: Counter[str] = sum((shard.records for shard in failures), Counter())
    output.check_complete(statistics.rows_in, transcribed, sum(failed_by_type.values()))
    output.delete_stale(storage, folder, [shard.name for shard in (*transcripts, *failures)])
    wall_seconds = time.time() - started
    summary = output.summary(statistics, transcribed, failed_by_type, wall_seconds, details)
    storage.write(join(folder, output.SUMMARY), [output.encode_readable(summary)])
    output.check_failures(statistics.rows_in, failed_by_type, max_failure_fraction)
    storage.write(join(folder, output.SUCCESS), [])
    return summary


def _sum_statistics(parts: Iterable[Statistics]) -> Statistics:
    return sum(parts, Statistics())
