"""Recognizes chunks of work with a model, in a DoFn that yields transcripts and failures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import BoundedWindow

from beam_asr.models.serving import pool
from beam_asr.models.serving.batcher import Batch
from beam_asr.models.serving.host import ModelHost
from beam_asr.outputs.journal import JournalWriter
from beam_asr.outputs.progress import Counts
from beam_asr.records.events import (
    ChunkClosed,
    ClipRead,
    Done,
    Failed,
    Filtered,
    FoundInFolder,
    MemberWithoutRow,
    RowSplit,
    SampleFound,
    SegmentDone,
    SegmentFailed,
    Silent,
    Started,
    TarWithoutRows,
    TooLong,
)
from beam_asr.records.model_work import ModelWork, Span, worker_name
from beam_asr.records.statistics import Statistics
from beam_asr.transforms import bundles
from beam_asr.transforms.chunk_recognizer import ChunkRecognizer, Event, RecognizeSettings, Work
from beam_asr.transforms.prepare_rows import JobStart
from beam_asr.transforms.results import count_row, output_of

NAMESPACE = "beam_asr"


class RecognizeChunk(beam.DoFn):
    """Recognizes chunks with the process's model (`ChunkRecognizer`); counts and yields results.

    The results of a chunk's clips come with later chunks, or with the end of the bundle.

    Its outputs are rows in ``transcripts``, ``failures`` and ``filtered``; in ``long`` those that
    are too long, to be planned; in ``segments`` the outcomes of segments, and in ``rows`` the plans
    of long rows in tars, both by their rows' keys; and in ``statistics`` sums.
    """

    def __init__(self, settings: RecognizeSettings):
        self._settings = settings
        self._leased = False
        self._counter = _EventCounter()

    def start_bundle(self) -> None:
        self._release()  # the lease of a bundle that failed
        self._window: BoundedWindow | None = None
        self._rows: int | None = None
        self._counter.take_statistics()  # those of a bundle that failed
        journal = self._settings.context.journal
        self._writer = None if journal is None else JournalWriter(journal)

    def process(
        self,
        work: list[Work],
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
        start: JobStart | None = None,
    ) -> Iterator[Any]:
        if not work:  # BatchElements emits an empty chunk before an element above its target
            return
        if self._window is None or window != self._window:
            yield from self._end_window()
            self._window, self._timestamp = window, timestamp
        if not self._leased:
            self._lease()
        self._rows = None if start is None else start.rows
        yield from self._outputs(self._recognizer.recognize(work))

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._end_window()
        if self._writer is not None:
            self._writer.finish()
        if (reporter := self._settings.context.reporter) is not None:
            reporter.flush()
        self._release()

    def teardown(self) -> None:
        self._release()

    def _lease(self) -> None:
        """Leases the model until the bundle's end; a bundle without work never loads it."""
        self._host = pool.pool.lease(self._settings.spec)
        self._leased = True
        self._recognizer = ChunkRecognizer(self._settings, self._host)
        if (reporter := self._settings.context.reporter) is not None:
            reporter.model_loaded(self._host.description)

    def _release(self) -> None:
        if self._leased:
            self._leased = False
            pool.pool.release(self._settings.spec)

    def _end_window(self) -> Iterator[Any]:
        """Yields the results of the bundle's remaining clips of a window."""
        if self._window is None or not self._leased:
            return
        last = self._outputs(self._recognizer.drain())
        # The sums are complete when the last result has been counted.
        yield from bundles.at_window(last, self._window, self._timestamp)
        self._counter.count_models(self._host)
        statistics = TaggedOutput("statistics", self._counter.take_statistics())
        yield from bundles.at_window([statistics], self._window, self._timestamp)

    def _outputs(self, events: Iterable[Event]) -> Iterator[TaggedOutput]:
        """Yields events as outputs, once they are written to the journal and counted."""
        context, route = self._settings.context, self._settings.route
        for event in events:
            self._write_to_journal(event)
            self._counter.count(event, self._host)
            context.count(event, self._rows)
            if isinstance(event, Batch):
                context.report(_counts_of(event))
            output = output_of(event, context, route)
            if output is not None:
                yield output

    def _write_to_journal(self, event: Event) -> None:
        if self._writer is None:
            return
        match event:
            case Started(ids):
                for row_id in filter(None, ids):
                    self._writer.expect(row_id)
            case ChunkClosed():
                self._writer.close_chunk()
            case TooLong(clip):
                self._writer.forget(clip.row.id)
            case RowSplit(_, outcome, resumed):
                if outcome is not None and outcome.row_id and not resumed:
                    self._writer.add(outcome)
            case Done() | Failed() | Filtered() | SegmentDone() | SegmentFailed():
                if event.outcome.row_id and not event.resumed:
                    self._writer.add(event.outcome)


def _counts_of(batch: Batch) -> Counts:
    """Returns what a batch adds to the progress of the job."""
    return Counts(
        audio_seconds=batch.audio_seconds,
        model_seconds=batch.model_seconds,
        wait_seconds=batch.wait_seconds,
    )


class _EventCounter:
    """Derives metrics and statistics from the events."""

    def __init__(self) -> None:
        self._statistics = Statistics()
        self._description: Mapping[str, str] | None = None  # of the model of the last event
        self._models: frozenset[tuple[tuple[str, str], ...]] = frozenset()
        self._model_loads = Metrics.counter(NAMESPACE, "model_loads")
        self._model_evictions = Metrics.counter(NAMESPACE, "model_evictions")
        self._batches = Metrics.counter(NAMESPACE, "batches")
        self._batch_milliseconds = Metrics.distribution(NAMESPACE, "batch_msec")
        self._wait_milliseconds = Metrics.distribution(NAMESPACE, "model_wait_msec")
        self._audio_milliseconds = Metrics.counter(NAMESPACE, "audio_msec")
        self._padded_milliseconds = Metrics.counter(NAMESPACE, "padded_msec")
        self._read_milliseconds = Metrics.distribution(NAMESPACE, "read_msec")

    def take_statistics(self) -> Statistics:
        """Returns the sums since the last call."""
        statistics, self._statistics = self._statistics, Statistics()
        return statistics

    def count(self, event: Event, host: ModelHost) -> None:
        statistics = self._statistics
        match event:
            case ClipRead(seconds, shorter_than_file):
                statistics.rows_shorter_than_file += shorter_than_file
                self._read_milliseconds.update(round(1000 * seconds))
            case TooLong():
                self.count_models(host)
            case Batch():
                self.count_models(host)
                self._count_batch(event)
            case Silent(seconds, whole_row):
                statistics.skipped_silence_seconds += seconds
                statistics.no_speech += whole_row
            case Done(resumed=True) | Failed(resumed=True) | Filtered(resumed=True) | RowSplit():
                count_row(event, statistics)
            case SegmentDone(_, outcome, True):
                statistics.resumed_seconds += outcome.seconds
            case SampleFound():
                statistics.rows_in += 1
            case FoundInFolder():
                statistics.rows_in_folder += 1
            case MemberWithoutRow(name):
                statistics.add_member_without_row(name)
            case TarWithoutRows():
                statistics.tars_without_rows += 1

    def count_models(self, host: ModelHost) -> None:
        loads, evictions = host.take_loads(), pool.pool.take_evictions()
        if loads or evictions:
            self._model_loads.inc(loads)
            self._model_evictions.inc(evictions)
            self._statistics.model_loads += loads
            self._statistics.model_evictions += evictions
        if self._description is not host.description:
            self._description = host.description
            self._models = frozenset([tuple(sorted(host.description.items()))])
        if not self._models <= self._statistics.models:
            self._statistics.models |= self._models

    def _count_batch(self, batch: Batch) -> None:
        work = ModelWork(
            1,
            batch.audio_seconds,
            batch.padded_seconds,
            batch.model_seconds,
            batch.wait_seconds,
        )
        self._statistics.add_work(work, worker_name(), Span.of(time.time()))
        self._batches.inc()
        self._audio_milliseconds.inc(round(1000 * batch.audio_seconds))
        self._padded_milliseconds.inc(round(1000 * batch.padded_seconds))
        for forward_pass in batch.passes:
            self._batch_milliseconds.update(round(1000 * forward_pass.seconds))
            self._wait_milliseconds.update(round(1000 * forward_pass.idle_seconds))
