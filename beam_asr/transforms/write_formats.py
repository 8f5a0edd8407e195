"""Writes transcripts to files of other formats, one for each row, in a DoFn."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import apache_beam as beam

from beam_asr.outputs.formats import registry
from beam_asr.outputs.formats.file_names import name_of
from beam_asr.records.record import Record, Transcript, to_record, with_duration
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join
from beam_asr.transcripts.job_fields import job_fields
from beam_asr.transforms.bundles import at_window

WRITING_THREADS = 8
MAX_PENDING = 4 * WRITING_THREADS  # records of a bundle; each may be hours of words


class _PendingWrite(NamedTuple):
    """Holds a transcript whose files are being written, with its window and timestamp."""

    transcript: Transcript | Record
    window: Any
    timestamp: Any
    writes: list[Future[None]]


class WriteFormats(beam.DoFn):
    """Writes each record as ``FOLDER/FORMAT/NAME.EXTENSION`` in each format, then yields the record
    with the paths, relative to the folder, as ``exports``.

    A record that is written again, by an equal row or in a bundle that is retried, has the same
    file. A failed write fails the bundle.

    Args:
        storage: how the folder's storage is opened.
        folder_of: returns the output folder of a window.
        formats: names of formats of a file for each transcript.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
        channel_key: the field of the channel.
    """

    def __init__(
        self,
        storage: Storage,
        folder_of: Callable[[Any], str],
        formats: tuple[str, ...],
        filepath_key: str,
        pred_text_key: str,
        channel_key: str = "channel",
    ):
        self._storage = storage
        self._folder_of = folder_of
        self._formats = formats
        self._filepath_key = filepath_key
        self._pred_text_key = pred_text_key
        self._channel_key = channel_key

    def start_bundle(self) -> None:
        self._pending: deque[_PendingWrite] = deque()

    def process(
        self,
        transcript: Transcript | Record,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
        ready: Iterable[Any] = (),
    ) -> Iterator[Any]:
        list(ready)  # waits until the files of an earlier run are deleted
        folder = self._folder_of(window)
        transcript = with_duration(transcript)
        record = to_record(transcript)
        name = name_of(record, self._filepath_key, {*job_fields(), self._pred_text_key})
        paths = {
            format: join(format, f"{name}.{registry.FORMATS[format].extension}")
            for format in self._formats
        }
        seconds = transcript.seconds if isinstance(transcript, Transcript) else None
        writes = [
            _writers().submit(self._write, format, join(folder, path), record, seconds)
            for format, path in paths.items()
        ]
        exports = {"exports": paths}
        if isinstance(transcript, Transcript):
            transcript = transcript.adding(exports)
        else:
            transcript = {**transcript, **exports}
        self._pending.append(_PendingWrite(transcript, window, timestamp, writes))
        while len(self._pending) > MAX_PENDING:
            yield from self._take_first()

    def finish_bundle(self) -> Iterator[Any]:
        while self._pending:
            yield from self._take_first()

    def _take_first(self) -> Iterator[Any]:
        """Yields the transcript that has waited longest, once its files are written."""
        first = self._pending.popleft()
        for write in first.writes:
            write.result()
        yield from at_window([first.transcript], first.window, first.timestamp)

    def _write(self, format: str, path: str, record: Record, seconds: float | None) -> None:
        keys = (self._filepath_key, self._pred_text_key, self._channel_key)
        content = registry.render(format, record, *keys, seconds)
        self._storage.write(path, [content.encode("utf-8", "replace")])


@functools.cache
def _writers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(WRITING_THREADS, "beam-asr-exports")
