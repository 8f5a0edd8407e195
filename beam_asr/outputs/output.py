"""Reads the results in an output folder: rows, failures and the summary."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from beam_asr.errors import UnfinishedError
from beam_asr.inputs.compression import open_decompressed
from beam_asr.outputs import record_tables
from beam_asr.outputs.folder import SUCCESS, SUMMARY, WINDOW, is_finished
from beam_asr.outputs.row_index import RowIndex
from beam_asr.outputs.shards import FAILURES, FILTERED, KINDS, SHARD, TRANSCRIPTS, part_of
from beam_asr.records import json_numbers
from beam_asr.records.record import Record
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

if TYPE_CHECKING:
    import datasets
    import pandas as pd


class Output:
    """Reads the results of a finished job, lazily, shard by shard.

    For the results of a job without an end, whose windows have folders of their own, it reads
    those of all windows that are finished.

    Args:
        folder: the output folder, on any storage.
        storage_options: for each protocol the arguments of its fsspec file system.

    Raises:
        UnfinishedError: the folder holds no finished results.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        self.folder = os.fspath(folder)
        self.storage = Storage(storage_options or {})
        self.folders = self._finished_folders()

    def transcripts(self) -> Iterator[Record]:
        """Yields the rows that were transcribed, in the order of the shards, not of the input."""
        return self.records(TRANSCRIPTS)

    def failures(self) -> Iterator[Record]:
        """Yields the rows that failed, each with its ``error``."""
        return self.records(FAILURES)

    def filtered(self) -> Iterator[Record]:
        """Yields the rows that a filter kept apart, each with the reason in ``filtered``."""
        return self.records(FILTERED)

    def records(self, *kinds: str) -> Iterator[Record]:
        """Yields the records of kinds of shards: ``transcripts``, ``failures``, ``filtered``."""
        for line in self.lines(*kinds):
            yield json_numbers.loads(line)

    def with_row_ids(self, *kinds: str) -> Iterator[tuple[str, Record]]:
        """Yields the records of kinds of shards, each with the id of its row (`records.row_ids`).

        Raises:
            ResumeError: the folder's index of rows is damaged.
        """
        for shard in self.shards(*kinds):
            folder, name = posixpath.split(shard)
            for row, line in RowIndex(folder, self.storage).lines(part_of(name), name):
                yield row.row_id, json_numbers.loads(line)

    def lines(self, *kinds: str) -> Iterator[bytes]:
        """Yields the lines of kinds of shards, as they are stored, each with its end."""
        for shard in self.shards(*kinds):
            with open_decompressed(self.storage, shard) as content:
                yield from content

    def shards(self, *kinds: str) -> list[str]:
        """Returns the paths or URIs of the shards of these kinds; of all kinds by default."""
        found: list[str] = []
        for folder in self.folders:
            shards = sorted(filter(SHARD.fullmatch, self.storage.list_names(folder)))
            for kind in kinds or KINDS:
                found += [join(folder, name) for name in shards if name.startswith(f"{kind}-")]
        return found

    @property
    def summary(self) -> dict[str, Any]:
        """Returns the content of ``summary.json``.

        Raises:
            UnfinishedError: the folder is that of a job without an end, which has one a window.
        """
        (first, *others) = self.summaries()
        if others:
            raise UnfinishedError(
                f"{self.folder!r} is of a job without an end, with a summary for each of its "
                f"{len(others) + 1} windows: `summaries()` gives all"
            )
        return first

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Yields the summary of the job; of one without an end, the summary of each window."""
        for folder in self.folders:
            yield json.loads(self.storage.read(join(folder, SUMMARY)))

    def to_pandas(self, kind: str = TRANSCRIPTS) -> pd.DataFrame:
        """Returns the records of a kind as a table of pandas, in memory.

        A column has the whole numbers of a field to the digit, also where some are missing.
        """
        return record_tables.to_frame(list(self.records(kind)))

    def to_dataset(self, kind: str = TRANSCRIPTS) -> datasets.Dataset:
        """Returns the records of a kind as a ``datasets.Dataset``, which keeps them on disk.

        It has a column for each field of any record. One whose values have no type in common, or
        that are whole numbers of more than 64 bits, has their JSON. The shards are read twice, one
        record at a time.

        Raises:
            ImportError: the package `datasets` is not installed.
        """
        import datasets

        types = record_tables.types_of(self.records(kind))
        return datasets.Dataset.from_generator(
            _fitted_records,
            features=record_tables.features(types),
            # It finds what it has stored of an earlier call by these, so they tell runs apart.
            gen_kwargs={"output": self, "kind": kind, "types": types, "run": self._digest()},
        )

    def _digest(self) -> str:
        """Returns a digest of the summaries, which no two runs have in common."""
        summaries = (self.storage.read(join(folder, SUMMARY)) for folder in self.folders)
        return hashlib.sha256(b"".join(summaries)).hexdigest()

    def _finished_folders(self) -> list[str]:
        if is_finished(self.storage, self.folder):
            return [self.folder]
        windows = [
            join(self.folder, name)
            for name in sorted(self.storage.list_names(self.folder))
            if WINDOW.fullmatch(name) and is_finished(self.storage, join(self.folder, name))
        ]
        if not windows:
            raise UnfinishedError(
                f"{self.folder!r} holds no finished results: it has no {SUCCESS}. "
                f"`beam-asr status {self.folder}` says what is there"
            )
        return windows


def _fitted_records(
    output: Output,
    kind: str,
    types: dict[str, record_tables.Type],
    run: str,  # noqa: ARG001
) -> Iterator[Record]:
    return record_tables.fitted(output.records(kind), types)
