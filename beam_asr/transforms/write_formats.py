"""Writes transcripts to files of other formats, one for each row, in a DoFn."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_asr.outputs.formats import exports_index, registry
from beam_asr.outputs.formats.base import FieldKeys
from beam_asr.outputs.formats.file_names import hashed_name, name_key, plain_name
from beam_asr.records.record import Record, Transcript, to_record, with_duration
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join
from beam_asr.transcripts.job_fields import job_fields
from beam_asr.transforms.bundles import at_window
from beam_asr.transforms.packing import PackedGroupByKey

WRITING_THREADS = 8
MAX_NEW = 4 * WRITING_THREADS  # records of a bundle, whose files are started together
MAX_PENDING = 4 * WRITING_THREADS  # further ones; each may be hours of words


class _NamedTranscript(NamedTuple):
    """Holds a transcript with its window and timestamp, and the name of its files.

    Attributes:
        record: the transcript as it is written.
        name: the name, without extension.
        is_plain: whether the name has no hash.
    """

    transcript: Transcript | Record
    record: Record
    name: str
    is_plain: bool
    window: Any
    timestamp: Any


class _PendingWrite(NamedTuple):
    """Holds a transcript whose files are being written, with its window and timestamp."""

    transcript: Transcript | Record
    window: Any
    timestamp: Any
    writes: list[Future[None]]


class WriteFormats(beam.DoFn):
    """Writes each record as ``FOLDER/FORMAT/NAME.EXTENSION`` in each format, then yields the record
    with the paths, relative to the folder, as ``exports``.

    The name is that of the audio, with a hash if several rows would have the same name. A record
    that is written again, by an equal row or in a bundle that is retried, has the same file. A
    failed write fails the bundle.

    Args:
        storage: how the folder's storage is opened.
        folder_of: returns the output folder of a window.
        formats: names of formats of a file for each transcript.
        keys: the fields of the audio, the text and the channel.
    """

    def __init__(
        self,
        storage: Storage,
        folder_of: Callable[[Any], str],
        formats: tuple[str, ...],
        keys: FieldKeys,
    ):
        self._storage = storage
        self._folder_of = folder_of
        self._formats = formats
        self._keys = keys

    def start_bundle(self) -> None:
        self._new: list[_NamedTranscript] = []
        self._pending: deque[_PendingWrite] = deque()

    def process(
        self,
        transcript: Transcript | Record,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
        shared: frozenset[int] | None = None,
    ) -> Iterator[Any]:
        """Yields the transcripts whose files are written.

        Args:
            shared: the keys of the names that several rows have (`SharedNames`); None if they are
                not known, as in a stream. Then each name has a hash.
        """
        transcript = with_duration(transcript)
        record = to_record(transcript)
        plain = plain_name(record, self._keys.audio)
        is_plain = shared is not None and plain != "" and name_key(plain) not in shared
        name = plain if is_plain else _hashed_name(record, self._keys)
        self._new.append(_NamedTranscript(transcript, record, name, is_plain, window, timestamp))
        if len(self._new) >= MAX_NEW:
            self._start_writes()
        while len(self._pending) > MAX_PENDING:
            yield from self._take_first()

    def finish_bundle(self) -> Iterator[Any]:
        self._start_writes()
        while self._pending:
            yield from self._take_first()

    def _start_writes(self) -> None:
        new, self._new = self._new, []
        formats = [(name, registry.transcript_format(name)) for name in self._formats]
        paths = [{name: format.path(entry.name) for name, format in formats} for entry in new]
        plain = [
            path
            for entry, exports in zip(new, paths, strict=True)
            if entry.is_plain
            for path in exports.values()
        ]
        if plain:  # of the global window alone, so there is one folder
            exports_index.start_files(self._storage, self._folder_of(new[0].window), plain)
        for entry, exports in zip(new, paths, strict=True):
            self._pending.append(self._start(entry, exports))

    def _start(self, entry: _NamedTranscript, exports: dict[str, str]) -> _PendingWrite:
        folder, transcript = self._folder_of(entry.window), entry.transcript
        seconds = transcript.seconds if isinstance(transcript, Transcript) else None
        writes = [
            _writers().submit(self._write, format, join(folder, path), entry.record, seconds)
            for format, path in exports.items()
        ]
        added = {"exports": exports}
        if isinstance(transcript, Transcript):
            transcript = transcript.adding(added)
        else:
            transcript = {**transcript, **added}
        return _PendingWrite(transcript, entry.window, entry.timestamp, writes)

    def _take_first(self) -> Iterator[Any]:
        """Yields the transcript that has waited longest, once its files are written."""
        first = self._pending.popleft()
        for write in first.writes:
            write.result()
        yield from at_window([first.transcript], first.window, first.timestamp)

    def _write(self, format: str, path: str, record: Record, seconds: float | None) -> None:
        keys = (self._keys.audio, self._keys.text, self._keys.channel)
        content = registry.render(format, record, *keys, seconds)
        self._storage.write(path, [content.encode("utf-8", "replace")])


class SharedNames(beam.PTransform):
    """Returns the keys of the names that a row may not have alone, as one ``frozenset``.

    Takes transcripts, in the global window.

    Args:
        taken: the keys of the names of files that exist, as a PCollection.
        keys: the fields of the audio and the text.
    """

    def __init__(self, taken: PCollection[int], keys: FieldKeys):
        super().__init__()
        self._taken = taken
        self._keys = keys

    def expand(self, transcripts: PCollection[Transcript | Record]) -> PCollection[frozenset[int]]:
        named = (transcripts | "Names" >> beam.FlatMap(_named, self._keys),)
        shared = named | PackedGroupByKey() | "Shared" >> beam.FlatMap(_shared)
        return (shared, self._taken) | beam.Flatten() | beam.CombineGlobally(_UnionFn())


def _named(transcript: Transcript | Record, keys: FieldKeys) -> Iterator[tuple[str, str]]:
    """Yields the key of a record's plain name, if it has one, and its name with a hash."""
    record = to_record(with_duration(transcript))
    plain = plain_name(record, keys.audio)
    if plain:
        yield str(name_key(plain)), _hashed_name(record, keys)


def _shared(names: dict[str, list[str]]) -> Iterator[int]:
    return (int(key) for key, hashed in names.items() if len(set(hashed)) > 1)


def _hashed_name(record: Record, keys: FieldKeys) -> str:
    """Returns the name with a hash of a record of a job."""
    return hashed_name(record, keys.audio, {*job_fields(), keys.text})


class _UnionFn(beam.CombineFn):
    """Unites elements to a ``frozenset``."""

    def create_accumulator(self) -> set[int]:
        return set()

    def add_input(self, accumulator: set[int], element: int) -> set[int]:
        accumulator.add(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[set[int]]) -> set[int]:
        return set().union(*accumulators)

    def extract_output(self, accumulator: set[int]) -> frozenset[int]:
        return frozenset(accumulator)


@functools.cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WRITING_THREADS, "beam-asr-exports")
