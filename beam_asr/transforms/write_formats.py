"""Transcripts to files of other formats, one a row: a step of the pipeline."""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import apache_beam as beam

from beam_asr.outputs.formats import registry
from beam_asr.outputs.formats.file_names import HASH_DIGITS, name_of
from beam_asr.records.fields import JOB_FIELDS
from beam_asr.records.record import Record, Transcript, to_record, with_duration
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join
from beam_asr.transforms.bundles import at_window

WRITING_THREADS = 8
HASH = f"-[0-9a-f]{{{HASH_DIGITS}}}"
MAX_PENDING = 4 * WRITING_THREADS  # records of a bundle; each may be hours of words


class _PendingWrite(NamedTuple):
    """A transcript whose files are being written, and where in time it stands."""

    transcript: Transcript | Record
    window: Any
    timestamp: Any
    writes: list[Future[None]]


class WriteFormats(beam.DoFn):
    """Writes each record as ``FOLDER/FORMAT/NAME.EXTENSION`` in each format, and gives it with the
    paths, relative to the folder, as ``exports``, when they are written.

    A record that is written again, as equal rows are or a bundle that is tried again, is the same
    file. A write that fails fails the bundle.

    Args:
        storage: how the folder's storage is opened.
        folder_of: the output folder of a window of time.
        formats: of `exports.FORMATS`.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        durations: whether records get their measured ``duration``.
    """

    def __init__(
        self,
        storage: Storage,
        folder_of: Callable[[Any], str],
        formats: tuple[str, ...],
        filepath_key: str,
        pred_text_key: str,
        durations: bool = False,
    ):
        self._storage = storage
        self._folder_of = folder_of
        self._formats = formats
        self._filepath_key = filepath_key
        self._pred_text_key = pred_text_key
        self._durations = durations

    def start_bundle(self) -> None:
        self._waiting: deque[_PendingWrite] = deque()

    def process(
        self,
        transcript: Transcript | Record,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
        ready: Iterable[Any] = (),
    ) -> Iterator[Any]:
        list(ready)  # what an earlier run has left is gone
        folder = self._folder_of(window)
        if self._durations:
            transcript = with_duration(transcript)
        record = to_record(transcript)
        name = name_of(record, self._filepath_key, {*JOB_FIELDS, self._pred_text_key})
        paths = {
            format: join(format, f"{name}.{registry.EXTENSIONS[format]}")
            for format in self._formats
        }
        writes = [
            _writing().submit(self._write, format, join(folder, path), record)
            for format, path in paths.items()
        ]
        exports = {"exports": paths}
        if isinstance(transcript, Transcript):
            transcript = transcript.adding(exports)
        else:
            transcript = {**transcript, **exports}
        self._waiting.append(_PendingWrite(transcript, window, timestamp, writes))
        while len(self._waiting) > MAX_PENDING:
            yield from self._take_first()

    def finish_bundle(self) -> Iterator[Any]:
        while self._waiting:
            yield from self._take_first()

    def _take_first(self) -> Iterator[Any]:
        """The transcript that has waited longest, once its files are there."""
        first = self._waiting.popleft()
        for write in first.writes:
            write.result()
        yield from at_window([first.transcript], first.window, first.timestamp)

    def _write(self, format: str, path: str, record: Record) -> None:
        content = registry.render(format, record, self._filepath_key, self._pred_text_key)
        self._storage.write(path, [content.encode("utf-8", "replace")])


def delete_stale(storage: Storage, folder: str) -> None:
    """Deletes the exports of an earlier run, before the first one of this run is written.

    A folder that holds anything else is somebody's own, and of it only what has a name of ours
    goes.
    """
    for format, extension in registry.EXTENSIONS.items():
        path = join(folder, format)
        names = storage.list_names(path)
        ours = [name for name in names if re.fullmatch(rf".+{HASH}\.{extension}", name)]
        if ours and len(ours) == len(names):
            storage.delete_folder(path)
        else:
            for name in ours:
                storage.delete(join(path, name))


@functools.cache
def _writing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WRITING_THREADS, "beam-asr-exports")
