"""Reads the results in an output folder: rows, failures and the summary."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from beam_asr.errors import UnfinishedError
from beam_asr.inputs.compression import open_decompressed
from beam_asr.outputs.folder import SUCCESS, SUMMARY, is_finished
from beam_asr.outputs.row_index import RowIndex
from beam_asr.outputs.shards import FAILURES, FILTERED, SHARD, TRANSCRIPTS, part_of
from beam_asr.records import json_numbers
from beam_asr.records.record import Record
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

if TYPE_CHECKING:
    import datasets
    import pandas as pd

KINDS = (TRANSCRIPTS, FAILURES, FILTERED)


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

    def __init__(self, folder: str, storage_options: Mapping[str, Mapping[str, Any]] | None = None):
        self.folder = folder
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
            rows = RowIndex(folder, self.storage).rows(part_of(name), name)
            with open_decompressed(self.storage, shard) as content:
                for row, line in zip(rows, content, strict=True):
                    yield row.row_id, json_numbers.loads(line)

    def lines(self, *kinds: str) -> Iterator[bytes]:
        """Yields the lines of kinds of shards, as they are stored, each with its end."""
        for shard in self.shards(*kinds):
            with open_decompressed(self.storage, shard) as content:
                yield from content

    def shards(self, *kinds: str) -> list[str]:
        """Returns the paths or URIs of the shards of these kinds; of all kinds by default."""
        return [
            join(folder, name)
            for folder in self.folders
            for kind in kinds or KINDS
            for name in sorted(self.storage.list_names(folder))
            if (shard := SHARD.fullmatch(name)) and shard[1] == kind
        ]

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
        """Returns the records of a kind as a table of pandas, in memory."""
        import pandas as pd

        return pd.DataFrame.from_records(list(self.records(kind)))

    def to_dataset(self, kind: str = TRANSCRIPTS) -> datasets.Dataset:
        """Returns the records of a kind as a ``datasets.Dataset``, which keeps them on disk.

        Raises:
            ImportError: the package `datasets` is not installed.
        """
        import datasets

        return datasets.Dataset.from_generator(self.records, gen_kwargs={"kinds": kind})

    def _finished_folders(self) -> list[str]:
        if is_finished(self.storage, self.folder):
            return [self.folder]
        windows = [
            join(self.folder, name)
            for name in sorted(self.storage.list_names(self.folder))
            if SUCCESS in self.storage.list_names(join(self.folder, name))
        ]
        if not windows:
            raise UnfinishedError(
                f"{self.folder!r} holds no finished results: it has no {SUCCESS}. "
                f"`beam-asr status {self.folder}` says what is there"
            )
        return windows
