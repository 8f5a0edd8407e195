"""Stores which rows a finished folder holds, so that a later run can append to it.

    OUTPUT/_index/run-00000.json          what the first run was, and its sums
    OUTPUT/_index/rows-00000/SHARD.tsv    the rows of one of its shards: id, hash and reason

Each run that appends has the next number. Its files, as its shards, are its own: an earlier run's
stay as they are, but for failures of rows that came in again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beam_asr.inputs.compression import open_decompressed
from beam_asr.outputs.folder import INDEX
from beam_asr.outputs.shards import FAILURES, SHARD, compressed, compression_of
from beam_asr.outputs.summary import Failures, Outcomes
from beam_asr.records import row_ids
from beam_asr.records.statistics import Statistics, from_json, to_json, total
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join, without_secrets

HASH_BYTES = 8


class IndexedRow(NamedTuple):
    """Describes a record of a shard.

    Attributes:
        row_id: of its row (`row_ids`), or of one channel of it; the group of an invalid line.
        line: a hash of its line.
        why: the reason for its kind, as the type of a failure's error.
    """

    row_id: str
    line: str
    why: str

    @classmethod
    def of(cls, row_id: str, line: bytes, why: str) -> IndexedRow:
        """Describes a record with this line."""
        return cls(row_id, hashlib.blake2b(line, digest_size=HASH_BYTES).hexdigest(), why)


class FinishedRun(NamedTuple):
    """Describes a run that has finished in the folder.

    Attributes:
        identity: the run, its rows and what it has in common with runs that resume it, as the
            journal's.
        details: of its summary, such as the options of its command line.
        statistics: its sums.
        outcomes: its records.
        wall_seconds: how long it took.
    """

    identity: Mapping[str, Any]
    details: Mapping[str, Any]
    statistics: Statistics
    outcomes: Outcomes
    wall_seconds: float


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
        names = set(self.storage.list_names(self._folder))
        return next(part for part in range(len(names) + 1) if _run_name(part) not in names)

    def clear(self) -> None:
        """Deletes what an earlier attempt at this run has written; all of it for the first run."""
        if not self.part:
            self.storage.delete_folder(self._folder)
            return
        self.storage.delete(join(self._folder, _run_name(self.part)))
        self.storage.delete_folder(join(self._folder, _rows_name(self.part)))

    def write_rows(self, shard: str, rows: Iterable[IndexedRow]) -> None:
        """Writes the rows of a shard of this run, in the order of its lines."""
        self._write_rows(self.part, shard, rows)

    def row_files(self) -> list[tuple[int, str]]:
        """Returns the shards of earlier runs, each with the number of its run."""
        return [(part, shard) for part in range(self.part) for shard in self._shards(part)]

    def rows(self, part: int, shard: str) -> Iterator[IndexedRow]:
        """Yields the rows of a shard of a run, in the order of its lines."""
        path = join(self._folder, _rows_name(part), f"{shard}.tsv")
        for line in self.storage.read(path).decode().splitlines():
            yield IndexedRow(*line.split("\t"))

    def run(self, part: int) -> FinishedRun | None:
        """Returns what a run was; None if none with this number has finished."""
        try:
            fields = json.loads(self.storage.read(join(self._folder, _run_name(part))))
        except FileNotFoundError:
            return None
        failures = Failures()
        failures.add(fields["failures"], fields["failure_examples"])
        outcomes = Outcomes(fields["transcribed"], failures, Counter(fields["filtered_by"]))
        statistics = from_json(fields["statistics"])
        return FinishedRun(
            fields["identity"], fields["details"], statistics, outcomes, fields["wall_seconds"]
        )

    def add(self, run: FinishedRun) -> FinishedRun:
        """Adds this run; returns the sums over it and those before it, as if they were one run.

        A second call changes nothing, so an attempt that was interrupted can be made again.
        """
        if not self.part or run.outcomes.records:  # else the next run has this number
            self._write_run(self.part, run)
        if not self.part:
            return run
        self._drop_redone_failures()
        runs = [*filter(None, map(self.run, range(self.part))), run]
        statistics = total(each.statistics for each in runs)
        outcomes = functools.reduce(operator.add, (each.outcomes for each in runs))
        # Of a row that came in again, only the last record is left.
        statistics.rows_in = outcomes.records - statistics.further_channels
        statistics.rows_in_folder = run.statistics.rows_in_folder
        wall_seconds = sum(each.wall_seconds for each in runs)
        return run._replace(statistics=statistics, outcomes=outcomes, wall_seconds=wall_seconds)

    def _drop_redone_failures(self) -> None:
        """Removes the failures of earlier runs whose rows came in again in this one."""
        ids = {
            row_ids.without_channel(row.row_id)
            for shard in self._shards(self.part)
            for row in self.rows(self.part, shard)
        }
        for part in range(self.part):
            remaining: Counter[str] = Counter()
            shards = [shard for shard in self._shards(part) if shard.startswith(FAILURES)]
            for shard in shards:
                rows = list(self.rows(part, shard))
                kept = [row for row in rows if row_ids.without_channel(row.row_id) not in ids]
                remaining.update(row.why for row in kept)
                if len(kept) < len(rows):
                    self._rewrite(shard, kept)
                    self._write_rows(part, shard, kept)
            run = self.run(part)
            if run is not None and run.outcomes.failures.by_type != remaining:
                self._write_run(part, run._replace(outcomes=run.outcomes.with_failures(remaining)))

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
        self.storage.write(path, ("\t".join(row).encode() + b"\n" for row in rows))

    def _write_run(self, part: int, run: FinishedRun) -> None:
        fields = {
            "identity": run.identity,
            "details": run.details,
            "transcribed": run.outcomes.transcribed,
            "failures": run.outcomes.failures.by_type,
            "failure_examples": run.outcomes.failures.examples,
            "filtered_by": run.outcomes.filtered_by,
            "wall_seconds": run.wall_seconds,
            "statistics": to_json(run.statistics),
        }
        content = json.dumps(without_secrets(fields), indent=2).encode() + b"\n"
        self.storage.write(join(self._folder, _run_name(part)), [content])

    @property
    def _folder(self) -> str:
        return join(self.output, INDEX)


def _run_name(part: int) -> str:
    return f"run-{part:05d}.json"


def _rows_name(part: int) -> str:
    return f"rows-{part:05d}"
