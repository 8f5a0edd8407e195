"""Reads the rows of the inputs, as a PTransform."""

from __future__ import annotations

import hashlib
import heapq
import logging
import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput

from beam_asr.errors import SetupError
from beam_asr.inputs import contents, discovery, readers
from beam_asr.inputs.readers import FileRange
from beam_asr.records.row import Row
from beam_asr.records.statistics import EXAMPLES, Statistics
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage import patterns, same_files
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import without_query
from beam_asr.transforms import streaming

logger = logging.getLogger(__name__)

STATISTICS = "statistics"  # the tag of an output
FILES_A_PATTERN = 2**32  # more than any has: a file's number is the pattern's and its own in there


class ReadManifest(beam.PTransform):
    """Reads the rows of manifests and tables; finds audio files, and tars of them.

    A file that several patterns or names stand for is read once; with ``watch``, by each of its
    names. Rows are not checked here: an invalid line is a row too, which ``Transcribe`` fails; with
    ``watch`` so is a file that cannot be read, or that changes after it was found.

    Args:
        pattern: path, URI, glob, folder or brace expansion (``manifest__OP_0..127_CL_.json``,
            ``m_{0..127}.json``), or several, also as one comma-separated string. ``.csv``,
            ``.tsv`` and ``.parquet`` are tables whose columns are the fields; ``.tar`` is a
            WebDataset; audio files (``bucket/audio/**/*.flac``), and those of a folder, are a row
            each; anything else holds one JSON object a line, or a list of them, unless its first
            bytes show a recording. ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are decompressed.
        filepath_key: the field that names the audio, in the rows made of audio files.
        storage_options: for each protocol the arguments of its fsspec file system.
        watch: seconds between two polls for new files, for ever; None looks once. A row's time is
            then that at which its file was found. The rows of Pub/Sub messages
            (``pubsub://projects/PROJECT/subscriptions/NAME``) have no end either.
        resumed: with ``watch``, an output folder; the files of its finished windows are omitted.
        limit: takes a sample of so many rows of all inputs, the same in each run; None takes all.

    Raises:
        SetupError: an input is empty, or Pub/Sub is not the only input; or there is a limit, and
            the inputs have no end. When the job runs: there is a limit, and an input is a tar.
    """

    def __init__(
        self,
        pattern: str | Iterable[str],
        filepath_key: str = "audio_filepath",
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
        watch: float | None = None,
        resumed: str | None = None,
        limit: int | None = None,
    ):
        super().__init__()
        self._filepath_key = filepath_key
        self._storage = Storage(storage_options or {})
        texts = [pattern] if isinstance(pattern, str) else list(pattern)
        self._patterns = [part for text in texts for part in patterns.split_commas(text)]
        if not all(self._patterns):
            raise SetupError(f"the input {pattern!r} holds an empty path")
        self._watch = watch
        self._resumed = resumed
        self._messages = [
            streaming.ReadPubSub(part) for part in self._patterns if streaming.is_pubsub(part)
        ]
        if self._messages and len(self._patterns) > 1:
            raise SetupError(f"the input {pattern!r} is more than one topic or subscription")
        if limit is not None and (self._messages or watch is not None):
            raise SetupError(
                "`limit` takes a sample of all rows, and an input without an end has none"
            )
        self._limit = limit

    def expand(self, pbegin: Any) -> PCollection[Row | WebDatasetTar]:
        if self._messages:
            return pbegin | "PubSub" >> self._messages[0]
        if self._watch is None:
            numbered = list(enumerate(self._patterns))
            inputs = pbegin | "Patterns" >> beam.Create(numbered, reshuffle=False)
            found = inputs | "FindFiles" >> beam.FlatMap(_find_files, self._storage).with_outputs(
                STATISTICS, main="files"
            )
            once = (
                found.files
                | "ByFile" >> beam.GroupByKey()  # which spreads the files, too
                | "Distinct" >> beam.FlatMap(_distinct).with_outputs(STATISTICS, main="files")
            )
            files, statistics = once.files, [found[STATISTICS], once[STATISTICS]]
        else:
            inputs = pbegin | "Patterns" >> beam.Create(self._patterns, reshuffle=False)
            watched = inputs | "WatchFiles" >> streaming.WatchFiles(
                self._storage, self._watch, self._resumed
            )
            files, statistics = watched, []
        split_file = _split_numbered if self._watch is None else _split_watched
        split = files | "Split" >> beam.FlatMap(split_file, self._storage).with_outputs(
            STATISTICS, main="ranges"
        )
        rows = (
            split.ranges
            | "SpreadPieces" >> beam.Reshuffle()
            | "ReadRows"
            >> beam.FlatMap(
                _read_rows if self._watch is None else _read_watched,
                self._storage,
                self._filepath_key,
            ).with_output_types(Row | WebDatasetTar)
        )
        if self._limit is not None:
            rows |= "Sample" >> _Sample(self._limit)
        statistics.append(split[STATISTICS])
        rows.input_statistics = statistics | "FileStatistics" >> beam.Flatten().with_output_types(
            Statistics
        )
        return rows

    def read_here(self) -> Iterator[Row | WebDatasetTar]:
        """Yields the rows of files in this process, as the steps of ``expand`` do in workers."""
        if self._limit is None:
            yield from self._all_rows_here()
            return
        keyed = map(_with_sampling_key, self._all_rows_here())
        for _, row in heapq.nsmallest(self._limit, keyed, key=operator.itemgetter(0)):
            yield row

    def _all_rows_here(self) -> Iterator[Row | WebDatasetTar]:
        numbered = enumerate(self._patterns)
        named = [pair for part in numbered for pair in _find_files(part, self._storage)]
        files = defaultdict(list)
        for pair in named:
            if not isinstance(pair, TaggedOutput):
                files[pair[0]].append(pair[1])
        for same in files.values():
            for file in _distinct(("", same)):
                if isinstance(file, TaggedOutput):
                    continue
                for piece in _split_numbered(file, self._storage):
                    if not isinstance(piece, TaggedOutput):
                        yield from _read_rows(piece, self._storage, self._filepath_key)


class _Sample(beam.PTransform):
    """Takes some rows, of which each has the same chance, and the same rows in each run."""

    def __init__(self, rows: int):
        super().__init__()
        self._rows = rows

    def expand(self, rows: PCollection[Row | WebDatasetTar]) -> PCollection[Row]:
        return (
            rows
            | "SamplingKey" >> beam.Map(_with_sampling_key)
            | "Smallest" >> beam.combiners.Top.Smallest(self._rows, key=operator.itemgetter(0))
            | "Rows" >> beam.FlatMap(lambda keyed: [row for _, row in keyed]).with_output_types(Row)
            | "SpreadRows" >> beam.Reshuffle()
        )


def _with_sampling_key(row: Row | WebDatasetTar) -> tuple[bytes, Row]:
    """Returns a row with a hash of its line and place, by which rows are in random order."""
    if isinstance(row, WebDatasetTar):
        raise SetupError(
            f"`limit` takes a sample of all rows, and those of {without_query(row.file)!r} are "
            "known only when the tar is read: name a part of the tars instead"
        )
    place = f"{row.manifest}\n{row.line_number}\n{row.line}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(place, digest_size=16).digest(), row


class GivenRows(beam.PTransform):
    """Provides rows that are in memory, in place of ``ReadManifest``.

    They are a part of the graph, for which a remote runner has a limit (Dataflow's is 20 MB).
    """

    def __init__(self, rows: Iterable[Row]):
        super().__init__()
        self._rows = list(rows)

    def expand(self, pbegin: Any) -> PCollection[Row | WebDatasetTar]:
        return (
            pbegin
            | "Rows"
            >> beam.Create(
                [tuple(row._replace(input_number=n)) for n, row in enumerate(self._rows)]
            )
            | "ToRows" >> beam.MapTuple(Row).with_output_types(Row | WebDatasetTar)
        )

    def read_here(self) -> Iterator[Row | WebDatasetTar]:
        """Yields the rows in this process."""
        return iter(self._rows)


def input_statistics(rows: PCollection[Any]) -> PCollection[Statistics] | None:
    """Returns the statistics of the files that rows were read from, if they are known.

    They are of the PCollection that `ReadManifest` returns, and not of what other steps make of it.
    """
    return getattr(rows, "input_statistics", None)


def _find_files(numbered: tuple[int, str], storage: Storage) -> Iterator[Any]:
    """Yields the files of a pattern, by their targets, each with the pattern and its number."""
    index, pattern = numbered
    found = discovery.find(storage, pattern)
    yield TaggedOutput(STATISTICS, found.statistics)
    for number, file in enumerate(found.files, index * FILES_A_PATTERN):
        yield same_files.target_of(file), (pattern, file, number)


def _distinct(named: tuple[str, Iterable[tuple[str, str, int]]]) -> Iterator[Any]:
    """Yields a file once, with its first number, whatever number of patterns and names it has."""
    names = list(named[1])
    files, repeated = discovery.distinct([(pattern, file) for pattern, file, _ in names])
    if repeated:
        counts = Statistics(input_files=-len(repeated), repeated_files=len(repeated))
        counts.audio_files = -sum(readers.find_reader(file).is_row for file in repeated)
        counts.examples_repeated = tuple(map(without_query, repeated[:EXAMPLES]))
        yield TaggedOutput(STATISTICS, counts)
    for file in files:
        yield file, min(number for _, name, number in names if name == file)


def _split_numbered(numbered: tuple[str, int], storage: Storage) -> Iterator[Any]:
    file, number = numbered
    for piece in _split_file(file, storage):
        yield piece if isinstance(piece, TaggedOutput) else piece._replace(number=number)


def _split_file(file: str, storage: Storage, is_watched: bool = False) -> Iterator[Any]:
    if contents.is_source_code(storage, file):
        if is_watched:  # no summary has it
            logger.warning("%s is ignored: it is source code", without_query(file))
        # It was counted as an audio file, by its name.
        counts = Statistics(input_files=-1, audio_files=-1)
        counts.ignored_files = {contents.SOURCE_CODE: 1}
        counts.examples_ignored = (without_query(file),)
        yield TaggedOutput(STATISTICS, counts)
        return
    for piece in readers.split_file(storage, file):
        # A stream would try for ever to read a version that is gone.
        yield piece._replace(version="") if is_watched else piece


def _split_watched(found: FileRange, storage: Storage) -> Iterator[Any]:
    if found.problem:
        yield found
    else:
        try:
            yield from _split_file(found.file, storage, is_watched=True)
        except Exception as error:
            yield streaming.broken_file(found.file, streaming.unreadable(error))


def _read_rows(
    file_range: FileRange, storage: Storage, filepath_key: str
) -> Iterator[Row | WebDatasetTar]:
    rows = readers.read_rows(storage, file_range, filepath_key)
    if not file_range.number:
        return rows
    return (
        row._replace(input_number=file_range.number) if isinstance(row, Row) else row
        for row in rows
    )


def _read_watched(
    file_range: FileRange, storage: Storage, filepath_key: str
) -> Iterator[Row | WebDatasetTar]:
    try:
        yield from readers.read_rows(storage, file_range, filepath_key)
    except Exception as error:
        yield Row.broken(streaming.unreadable(error), file_range.file)
