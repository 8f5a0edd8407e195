"""Stores which rows a finished folder holds, so that a later run can append to it.

    OUTPUT/_index/run-00000.json          what the first run was, and its sums
    OUTPUT/_index/rows-00000/SHARD.tsv    the rows of one of its shards: id, hash, reason, seconds

Each run that appends has the next number. Its files, as its shards, are its own: an earlier run's
stay as they are, but for failures of rows that came in again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import operator
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from beam_asr.errors import ResumeError
from beam_asr.inputs.compression import open_decompressed
from beam_asr.outputs.folder import INDEX
from beam_asr.outputs.shards import FAILURES, SHARD, compressed, compression_of
from beam_asr.outputs.summary import Failures, Outcomes
from beam_asr.records import row_ids
from beam_asr.records.statistics import Statistics, from_json, to_json, total
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join, without_secrets

HASH_BYTES = 8
LISTING_THREADS = 16
RUN_FILE = re.compile(r"run-\d{5}\.json")


class IndexedRow(NamedTuple):
    """Describes a record of a shard.

    Attributes:
        row_id: of its row (`row_ids`), or of one channel of it; the group of an invalid line.
        line: a hash of its line.
        why: the reason for its kind, as the type of a failure's error.
        seconds: the measured length of its audio, which a record need not have; empty if unknown.
    """

    row_id: str
    line: str
    why: str
    seconds: str = ""

    @classmethod
    def of(cls, row_id: str, line: bytes, why: str, seconds: float | None = None) -> IndexedRow:
        """Describes a record with this line."""
        digest = hashlib.blake2b(line, digest_size=HASH_BYTES).hexdigest()
        return cls(row_id, digest, why, "" if seconds is None else repr(seconds))


class FinishedRun(NamedTuple):
    """Describes a run that has finished in the folder.

    Attributes:
        identity: the run, its rows and what it has in common with runs that resume it, as the
            journal's.
        details: of its summary, such as the options of its command line.
        statistics: its sums.
        outcomes: its records.
        wall_seconds: how long it took.
        lines: of each format with many transcripts in a file, its transcripts by why they have no
            line, and those that have one by "".
        failed_channels: the records of its failed rows beyond one for each.
    """

    identity: Mapping[str, Any]
    details: Mapping[str, Any]
    statistics: Statistics
    outcomes: Outcomes
    wall_seconds: float
    lines: Mapping[str, Counter[str]] = {}
    failed_channels: int = 0


@dataclasses.dataclass(frozen=True)
class RowIndex:
    """Reads and writes the index of an output folder.

    Attributes:
        output: the output folder.
        storage: how its storage is opened.
        part: the number of the run: 0, or that of one that appends.
    """

    output: str
    storage: Storage
    part: int = 0

    def next_part(self) -> int:
        """Returns the number of the next run that appends; 0 if none has finished."""
        names = filter(RUN_FILE.fullmatch, self.storage.list_names(self._folder))
        return max((int(name[4:9]) + 1 for name in names), default=0)

    def check(self) -> None:
        """Checks that what earlier runs have written is still there.

        Raises:
            ResumeError: somebody has deleted some of it.
        """
        names = {*self.storage.list_names(self.output), *self.storage.list_names(self._folder)}
        indexed = {shard for _, shard in self.row_files()}
        gone = sorted({*map(_run_name, range(self.part)), *indexed} - names)
        earlier = filter(self._is_earlier, names)
        gone += [f"{INDEX}/.../{shard}.tsv" for shard in sorted(earlier) if shard not in indexed]
        if gone:
            raise ResumeError(
                f"{len(gone)} of the files of earlier runs are no longer in {self.output!r}, as "
                f"{gone[0]}: somebody has deleted them, and their rows would be missing. Restore "
                "them, or start again with `overwrite`"
            )

    def clear(self) -> None:
        """Deletes what an earlier attempt at this run has written; all of it for the first run."""
        if not self.part:
            # Without its first run, a folder whose index is half deleted is none to append to.
            self.storage.delete(join(self._folder, _run_name(0)))
            self.storage.delete_folder(self._folder)
            return
        self.storage.delete(join(self._folder, _run_name(self.part)))
        self.storage.delete_folder(join(self._folder, _rows_name(self.part)))

    def write_rows(self, shard: str, rows: Iterable[IndexedRow]) -> None:
        """Writes the rows of a shard of this run, in the order of its lines."""
        self._write_rows(self.part, shard, rows)

    def row_files(self) -> list[tuple[int, str]]:
        """Returns the shards of earlier runs, each with the number of its run."""
        with ThreadPoolExecutor(LISTING_THREADS) as pool:
            shards = pool.map(self._shards, range(self.part))
            return [(part, shard) for part, names in enumerate(shards) for shard in names]

    def rows(self, part: int, shard: str) -> Iterator[IndexedRow]:
        """Yields the rows of a shard of a run, in the order of its lines."""
        path = join(self._folder, _rows_name(part), f"{shard}.tsv")
        content = self.storage.read(path)
        try:
            for line in content.decode().splitlines():
                yield IndexedRow(*line.split("\t"))
        except (ValueError, TypeError):
            raise self._damaged(path) from None

    def lines(self, part: int, shard: str) -> Iterator[tuple[IndexedRow, bytes]]:
        """Yields the lines of a shard of a run, each with its row."""
        with open_decompressed(self.storage, join(self.output, shard)) as content:
            for row, line in itertools.zip_longest(self.rows(part, shard), content):
                if row is None or line is None:
                    raise self._damaged(join(self._folder, _rows_name(part), f"{shard}.tsv"))
                yield row, line

    def run(self, part: int) -> FinishedRun | None:
        """Returns what a run was; None if none with this number has finished."""
        path = join(self._folder, _run_name(part))
        try:
            content = self.storage.read(path)
        except FileNotFoundError:
            return None
        try:
            return _run_of(json.loads(content))
        except (ValueError, TypeError, KeyError):
            raise self._damaged(path) from None

    def add(self, run: FinishedRun) -> FinishedRun:
        """Adds this run; returns the sums over it and those before it, as if they were one run.

        A second call changes nothing, so an attempt that was interrupted can be made again.
        """
        own = self._failed(self.part)
        run = run._replace(failed_channels=_further(rows for _, rows in own))
        if not self.part or run.outcomes.records:  # else the next run has this number
            self._write_run(self.part, run)
        if not self.part:
            return run
        ids = self._ids()
        return _as_one(
            [*filter(None, (self._without(part, ids) for part in range(self.part))), run]
        )

    def finished(self) -> FinishedRun | None:
        """Returns the sums over all runs that have finished in the folder; None without any."""
        runs = [run for part in range(self.next_part()) if (run := self.run(part)) is not None]
        return _as_one(runs) if runs else None

    def drop_redone_failures(self) -> None:
        """Removes the failures of earlier runs whose rows came in again in this one.

        It is for a run that is complete: one that ends before may go on with other rows.
        """
        ids = self._ids() if self.part else set()
        for part in range(self.part) if ids else ():
            shards = self._failed(part)
            run = self._without(part, ids)
            if run is not None and any(_redone(row, ids) for _, rows in shards for row in rows):
                self._write_run(part, run)
            for shard, rows in shards:
                kept = [row for row in rows if not _redone(row, ids)]
                if len(kept) < len(rows):
                    self._rewrite(shard, kept)
                    self._write_rows(part, shard, kept)

    def _without(self, part: int, ids: Collection[str]) -> FinishedRun | None:
        """Returns what a run was, without the failures of these rows."""
        run = self.run(part)
        if run is None:
            return None
        kept = [row for _, rows in self._failed(part) for row in rows if not _redone(row, ids)]
        further = _further([kept])
        statistics = run.statistics
        statistics.further_channels += further - run.failed_channels
        outcomes = run.outcomes.with_failures(Counter(row.why for row in kept))
        return run._replace(statistics=statistics, outcomes=outcomes, failed_channels=further)

    def _ids(self) -> set[str]:
        """Returns the ids of the rows of this run, and of the tars that it has samples of."""
        ids = {
            row_ids.without_channel(row.row_id)
            for shard in self._shards(self.part)
            for row in self.rows(self.part, shard)
        }
        return ids | {row_ids.id_of_tar(row_id) for row_id in ids}

    def _failed(self, part: int) -> list[tuple[str, list[IndexedRow]]]:
        """Returns the shards of the failures of a run, with their rows."""
        shards = [shard for shard in self._shards(part) if shard.startswith(FAILURES)]
        return [(shard, list(self.rows(part, shard))) for shard in shards]

    def _rewrite(self, shard: str, rows: list[IndexedRow]) -> None:
        """Writes a shard again, with the lines of these rows alone."""
        path = join(self.output, shard)
        counts = Counter(row.line for row in rows)
        lines = []
        with open_decompressed(self.storage, path) as content:
            for line in content:
                name = IndexedRow.of("", line, "").line
                if counts[name]:
                    counts[name] -= 1
                    lines.append(line)
        self.storage.write(path, compressed(lines, compression_of(shard)))

    def _shards(self, part: int) -> list[str]:
        names = self.storage.list_names(join(self._folder, _rows_name(part)))
        shards = (name.removesuffix(".tsv") for name in names)
        return sorted(shard for shard in shards if SHARD.fullmatch(shard))

    def _write_rows(self, part: int, shard: str, rows: Iterable[IndexedRow]) -> None:
        path = join(self._folder, _rows_name(part), f"{shard}.tsv")
        self.storage.write(path, ["\t".join(row).encode() + b"\n" for row in rows])

    def _write_run(self, part: int, run: FinishedRun) -> None:
        fields = {
            "identity": run.identity,
            "details": run.details,
            "transcribed": run.outcomes.transcribed,
            "failures": run.outcomes.failures.by_type,
            "failure_examples": run.outcomes.failures.examples,
            "filtered_by": run.outcomes.filtered_by,
            "wall_seconds": run.wall_seconds,
            "lines": run.lines,
            "failed_channels": run.failed_channels,
            "statistics": to_json(run.statistics),
        }
        content = json.dumps(without_secrets(fields), indent=2).encode() + b"\n"
        self.storage.write(join(self._folder, _run_name(part)), [content])

    def _is_earlier(self, name: str) -> bool:
        shard = SHARD.fullmatch(name)
        return shard is not None and int(shard["part"] or 0) < self.part

    def _damaged(self, path: str) -> ResumeError:
        return ResumeError(
            f"{path!r} is damaged, so what the folder holds is not known: restore it, or start "
            "again with `overwrite`"
        )

    @property
    def _folder(self) -> str:
        return join(self.output, INDEX)


def _run_of(fields: Mapping[str, Any]) -> FinishedRun:
    failures = Failures()
    failures.add(fields["failures"], fields["failure_examples"])
    return FinishedRun(
        fields["identity"],
        fields["details"],
        from_json(fields["statistics"]),
        Outcomes(fields["transcribed"], failures, Counter(fields["filtered_by"])),
        fields["wall_seconds"],
        {name: Counter(counts) for name, counts in fields["lines"].items()},
        fields["failed_channels"],
    )


def _as_one(runs: list[FinishedRun]) -> FinishedRun:
    """Returns the sums over runs, with what the last one says of itself."""
    last = runs[-1]
    statistics = total(each.statistics for each in runs).with_input_of(last.statistics)
    outcomes = functools.reduce(operator.add, (each.outcomes for each in runs))
    # Of a row that came in again, only the last record is left.
    statistics.rows_in = outcomes.records - statistics.further_channels
    lines = {
        name: sum((each.lines.get(name, Counter()) for each in runs), Counter())
        for name in last.lines
    }
    wall_seconds = sum(each.wall_seconds for each in runs)
    return last._replace(
        statistics=statistics, outcomes=outcomes, lines=lines, wall_seconds=wall_seconds
    )


def _redone(row: IndexedRow, ids: Collection[str]) -> bool:
    return row_ids.without_channel(row.row_id) in ids


def _further(shards: Iterable[Iterable[IndexedRow]]) -> int:
    """Returns the number of records beyond one for each of their rows, where channels have one."""
    ids = [row.row_id for rows in shards for row in rows]
    channels = [row_id for row_id in ids if row_ids.without_channel(row_id) != row_id]
    return len(channels) - len(set(map(row_ids.without_channel, channels)))


def _run_name(part: int) -> str:
    return f"run-{part:05d}.json"


def _rows_name(part: int) -> str:
    return f"rows-{part:05d}"
