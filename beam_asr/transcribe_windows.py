"""The step that has the model: windows of clips to records."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import BoundedWindow

from beam_asr import failure_watch, manifest, model_host, rows_to_work
from beam_asr.backlog import Backlog, Batch
from beam_asr.clip_reader import ClipReader, Heard
from beam_asr.inputs import Tar
from beam_asr.journal import Journal, JournalWriter, window_name
from beam_asr.manifest import Clip, Row
from beam_asr.model_host import ModelSpec
from beam_asr.outcome import Outcome
from beam_asr.output import Statistics
from beam_asr.retrying import attempts_of
from beam_asr.rows_to_work import Begun
from beam_asr.storage import Storage
from beam_asr.tar_reader import Shard, TarReader

NAMESPACE = "beam_asr"
WINDOW_SECONDS = 20 * 60  # of audio in a window


class WindowSettings(NamedTuple):
    """How windows are transcribed; ``Transcribe`` says what its arguments mean.

    Attributes:
        run: the id of this run of the job, the same in all its workers.
    """

    spec: ModelSpec
    reader: ClipReader
    tar_storage: Storage
    filepath_key: str
    pred_text_key: str
    batch_size: int
    max_batch_seconds: float | None
    max_failure_fraction: float | None
    journal: Journal | None
    run: str


class TranscribeWindow(beam.DoFn):
    """Reads the audio of windows and has the process's model transcribe it.

    The results of a window's clips come with later windows, or with the end of the bundle.
    """

    def __init__(self, settings: WindowSettings):
        self._settings = settings
        self._model_loads = Metrics.counter(NAMESPACE, "model_loads")
        self._batches = Metrics.counter(NAMESPACE, "batches")
        self._batch_milliseconds = Metrics.distribution(NAMESPACE, "batch_msec")
        self._wait_milliseconds = Metrics.distribution(NAMESPACE, "model_wait_msec")
        self._audio_milliseconds = Metrics.counter(NAMESPACE, "audio_msec")
        self._padded_milliseconds = Metrics.counter(NAMESPACE, "padded_msec")
        self._read_milliseconds = Metrics.distribution(NAMESPACE, "read_msec")

    def setup(self) -> None:
        settings = self._settings
        self._host = model_host.host(settings.spec)
        self._host.warm_up(settings.batch_size)
        fraction = settings.max_failure_fraction
        self._watch = None if fraction is None else failure_watch.watch(settings.run, fraction)

    def start_bundle(self) -> None:
        settings = self._settings
        self._backlog = Backlog(self._host, settings.batch_size, settings.max_batch_seconds)
        self._window: BoundedWindow | None = None
        self._statistics = Statistics()
        self._rows: int | None = None
        self._writer = None if settings.journal is None else JournalWriter(settings.journal)

    def process(
        self,
        work: list[Clip | Tar | Shard],
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
        begun: Begun | None = None,
    ) -> Iterator[Any]:
        if not work:  # BatchElements gives an empty window before an element above its target
            return
        if self._window is None or window != self._window:
            yield from self._end_window()
            self._window, self._timestamp = window, timestamp
        self._rows = begun.rows if begun is not None else None
        yield from self._clips([item for item in work if isinstance(item, Clip)])
        yield from self._tars(item for item in work if not isinstance(item, Clip))

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._end_window()
        if self._writer is not None:
            self._writer.finish()

    def _end_window(self) -> Iterator[Any]:
        """What is left of the bundle's clips of a window of time."""
        if self._window is None:
            return
        last = chain.from_iterable(map(self._records, self._backlog.drain()))
        # The sums are complete when the last result has been taken.
        yield from rows_to_work.placed(last, self._window, self._timestamp)
        statistics = TaggedOutput("statistics", self._statistics)
        yield from rows_to_work.placed([statistics], self._window, self._timestamp)
        self._statistics = Statistics()

    def _clips(self, clips: list[Clip]) -> Iterator[Any]:
        done = self._done_before(clips)
        for clip in clips:
            if clip.row.id in done:
                yield self._resumed(clip.row, done[clip.row.id])
        clips = [clip for clip in clips if clip.row.id not in done]
        if self._writer is not None:
            for clip in clips:
                self._writer.expect(clip.row.id)
            self._writer.close_window()
        for heard in self._settings.reader.read(clips, self._host.sample_rate):
            yield from self._take(heard)
            del heard  # its waveform, before the next one is read

    def _tars(self, items: Iterator[Tar | Shard]) -> Iterator[Any]:
        tars = TarReader(self._settings.tar_storage, self._settings.filepath_key)
        contents = chain.from_iterable(map(tars.contents, items))
        seconds = 0.0
        for heard in self._settings.reader.decode(contents, self._host.sample_rate):
            if self._writer is not None:
                self._writer.expect(heard.clip.row.id)
                if not isinstance(heard.waveform, Exception):
                    seconds += len(heard.waveform) / self._host.sample_rate
                if seconds >= WINDOW_SECONDS:
                    self._writer.close_window()
                    seconds = 0.0
            yield from self._take(heard)
            del heard
        for unread in tars.unread:
            if self._writer is not None and unread.row.id:
                self._writer.expect(unread.row.id)
            yield self._failed(unread.row, unread.stage, unread.error, attempts_of(unread.error))
        if self._writer is not None:
            self._writer.close_window()
        for row, outcome in tars.done:
            yield self._resumed(row, outcome)
        self._statistics += tars.statistics

    def _done_before(self, clips: list[Clip]) -> dict[str, Outcome]:
        """What an earlier attempt of the runner at this very window has left in the journal."""
        if self._settings.journal is None or not clips:
            return {}
        name = window_name([clip.row.id for clip in clips])
        outcomes = self._settings.journal.read(name)
        return {each.row_id: each for each in outcomes if each.error is None}

    def _take(self, heard: Heard) -> Iterator[Any]:
        """Records: of a clip that cannot be read, or of earlier ones that are transcribed."""
        self._model_loads.inc(self._host.take_loads())
        self._statistics.models = frozenset([tuple(sorted(self._host.description.items()))])
        clip, waveform, seconds = heard
        self._read_milliseconds.update(round(1000 * seconds))
        if isinstance(waveform, Exception):
            yield self._failed(clip.row, "audio", waveform, attempts_of(waveform))
            return
        for batch in self._backlog.add(clip, waveform):
            yield from self._records(batch)

    def _records(self, batch: Batch) -> Iterator[Any]:
        self._count(batch)
        for clip, heard, attempts, seconds in batch.results:
            if isinstance(heard, Exception):
                yield self._failed(clip.row, "model", heard, attempts)
                continue
            outcome = Outcome(clip.row.id, {"text": heard.text}, seconds=seconds)
            self._ended(outcome)
            yield rows_to_work.record_of(clip.row, outcome, self._settings.pred_text_key)

    def _failed(self, row: Row, stage: str, error: Exception, attempts: int) -> Any:
        record = manifest.failure(row, stage, error, attempts)
        self._ended(Outcome(row.id, error=record["error"]))
        return TaggedOutput("failures", record)

    def _resumed(self, row: Row, outcome: Outcome) -> Any:
        self._statistics += rows_to_work.resumed(outcome)
        return rows_to_work.record_of(row, outcome, self._settings.pred_text_key)

    def _ended(self, outcome: Outcome) -> None:
        if self._writer is not None and outcome.row_id:
            self._writer.add(outcome)
        if self._watch is not None:
            self._watch.add(outcome.error, self._rows)

    def _count(self, batch: Batch) -> None:
        self._statistics.batches += 1
        self._statistics.audio_seconds += batch.audio_seconds
        self._statistics.padded_seconds += batch.padded_seconds
        self._batches.inc()
        self._audio_milliseconds.inc(round(1000 * batch.audio_seconds))
        self._padded_milliseconds.inc(round(1000 * batch.padded_seconds))
        for each in batch.passes:
            self._statistics.model_seconds += each.seconds
            self._statistics.wait_seconds += each.idle_seconds
            self._batch_milliseconds.update(round(1000 * each.seconds))
            self._wait_milliseconds.update(round(1000 * each.idle_seconds))
