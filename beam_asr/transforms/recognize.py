"""The step that has the model: windows of clips to records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import BoundedWindow

from beam_asr.audio.clip_reader import ClipReader, LoadedClip
from beam_asr.audio.limits import is_refusal
from beam_asr.audio.reading import MAX_SECONDS
from beam_asr.audio.segment_planner import Planner
from beam_asr.audio.vad import is_silence
from beam_asr.errors import TooLongAudioError
from beam_asr.inputs.tar_clips import TarReader
from beam_asr.models import prompts
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo.decoding import ModelLoadError
from beam_asr.models.prompts import PromptError
from beam_asr.models.routing import Routing
from beam_asr.models.serving import pool
from beam_asr.models.serving.batcher import Batch, Batcher
from beam_asr.outputs import failure_limit
from beam_asr.outputs.journal import Journal, JournalWriter, chunk_name
from beam_asr.records import parsing
from beam_asr.records import work as long_rows
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import failure
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import (
    Clip,
    LongClip,
    NemoTar,
    SegmentGroup,
    SegmentOutcome,
    SegmentRef,
    WebDatasetTar,
)
from beam_asr.settings import NO_PROMPT, Prompt, TranscriptFields
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage
from beam_asr.transcripts import transcript
from beam_asr.transforms import bundles, results
from beam_asr.transforms.prepare_rows import JobStart

NAMESPACE = "beam_asr"
CHUNK_SECONDS = 20 * 60  # of audio in a window


class RecognizeSettings(NamedTuple):
    """How windows are transcribed; ``Transcribe`` says what its arguments mean.

    Attributes:
        prompt: what rows leave open.
        routing: which model takes which row.
        route: the number of this step's model.
        filters: whether rows whose audio is refused are no failures.
        run: the id of this run of the job, the same in all its workers.
    """

    spec: ModelSpec
    reader: ClipReader
    tar_storage: Storage
    planner: Planner
    filepath_key: str
    asked: TranscriptFields
    prompt: Prompt
    routing: Routing
    route: int
    max_segment_seconds: float | None
    batch_size: int
    max_batch_seconds: float | None
    max_failure_fraction: float | None
    filters: bool
    journal: Journal | None
    run: str


class RecognizeChunk(beam.DoFn):
    """Reads the audio of windows and has the process's model transcribe it.

    The results of a window's clips come with later windows, or with the end of the bundle.

    Gives records to ``transcripts`` and ``failures``; to ``long`` the clips that are too long, to
    be planned; to ``segments`` what became of segments, and to ``rows`` what was planned of long
    rows in tars, both by their rows' keys; and to ``statistics`` sums.
    """

    def __init__(self, settings: RecognizeSettings):
        self._settings = settings
        self._leased = False
        self._model_loads = Metrics.counter(NAMESPACE, "model_loads")
        self._model_evictions = Metrics.counter(NAMESPACE, "model_evictions")
        self._batches = Metrics.counter(NAMESPACE, "batches")
        self._batch_milliseconds = Metrics.distribution(NAMESPACE, "batch_msec")
        self._wait_milliseconds = Metrics.distribution(NAMESPACE, "model_wait_msec")
        self._audio_milliseconds = Metrics.counter(NAMESPACE, "audio_msec")
        self._padded_milliseconds = Metrics.counter(NAMESPACE, "padded_msec")
        self._read_milliseconds = Metrics.distribution(NAMESPACE, "read_msec")

    def setup(self) -> None:
        settings = self._settings
        fraction = settings.max_failure_fraction
        self._watch = None if fraction is None else failure_limit.watch(settings.run, fraction)

    def start_bundle(self) -> None:
        settings = self._settings
        self._release()  # of a bundle that failed
        self._window: BoundedWindow | None = None
        self._statistics = Statistics()
        self._rows: int | None = None
        self._writer = None if settings.journal is None else JournalWriter(settings.journal)

    def process(
        self,
        work: list[Clip | SegmentGroup | WebDatasetTar | NemoTar],
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
        begun: JobStart | None = None,
    ) -> Iterator[Any]:
        if not work:  # BatchElements gives an empty window before an element above its target
            return
        if self._window is None or window != self._window:
            yield from self._end_window()
            self._window, self._timestamp = window, timestamp
        if not self._leased:
            self._lease()
        self._rows = begun.rows if begun is not None else None
        yield from self._clips([item for item in work if isinstance(item, Clip)])
        yield from self._stretches(item for item in work if isinstance(item, SegmentGroup))
        yield from self._tars(item for item in work if isinstance(item, (WebDatasetTar, NemoTar)))

    def finish_bundle(self) -> Iterator[Any]:
        yield from self._end_window()
        if self._writer is not None:
            self._writer.finish()
        self._release()

    def teardown(self) -> None:
        self._release()

    def _lease(self) -> None:
        """Takes the model, which a bundle without work never loads, until the bundle's end."""
        settings = self._settings
        self._host = host = pool.pool.lease(settings.spec)
        self._leased = True
        told = {name for name, value in settings.prompt._asdict().items() if value is not None}
        unknown = told - host.prompt_fields
        if unknown:
            raise ModelLoadError(
                f"the model {settings.spec.model_name!r} takes no "
                f"{', '.join(f'--{name}' for name in sorted(unknown))}: leave it out, or choose a "
                "model that is told by a prompt, as Canary"
            )
        host.warm_up(settings.batch_size)
        self._backlog = Batcher(host, settings.batch_size, settings.max_batch_seconds)

    def _release(self) -> None:
        if self._leased:
            self._leased = False
            pool.pool.release(self._settings.spec)

    def _end_window(self) -> Iterator[Any]:
        """What is left of the bundle's clips of a window of time."""
        if self._window is None or not self._leased:
            return
        last = chain.from_iterable(map(self._records, self._backlog.drain()))
        # The sums are complete when the last result has been taken.
        yield from bundles.at_window(last, self._window, self._timestamp)
        statistics = TaggedOutput("statistics", self._statistics)
        yield from bundles.at_window([statistics], self._window, self._timestamp)
        self._statistics = Statistics()

    def _clips(self, clips: list[Clip]) -> Iterator[Any]:
        done = self._done_before([clip.row.id for clip in clips])
        for clip in clips:
            if clip.row.id in done:
                yield self._resumed(clip.row, done[clip.row.id])
        clips = [clip for clip in clips if clip.row.id not in done]
        self._expect(clips)
        for heard in self._settings.reader.read(clips, self._host.sample_rate, self._longest):
            yield from self._take(heard)
            del heard  # its waveform, before the next one is read

    def _stretches(
        self, stretches: Iterable[SegmentGroup], content: bytes | None = None
    ) -> Iterator[Any]:
        """Segments of long rows; each stretch is a window of the journal."""
        left: list[SegmentGroup] = []
        for stretch in stretches:
            clips = stretch.clips()
            done = self._done_before([clip.row.id for clip in clips])
            for clip in clips:
                if clip.row.id in done:
                    outcome = done[clip.row.id]
                    self._statistics.resumed_seconds += outcome.seconds
                    yield _of_segment(clip, outcome, resumed=True)
            self._expect([clip for clip in clips if clip.row.id not in done])
            left += stretch.without(done)
        reader, rate = self._settings.reader, self._host.sample_rate
        if content is None:
            every = reader.read(left, rate)
        else:
            every = reader.decode(((stretch, content) for stretch in left), rate)
        for heard in every:
            yield from self._take(heard)
            del heard

    def _expect(self, clips: list[Clip]) -> None:
        if self._writer is not None:
            for clip in clips:
                self._writer.expect(clip.row.id)
            self._writer.close_chunk()

    def _tars(self, items: Iterator[WebDatasetTar | NemoTar]) -> Iterator[Any]:
        settings = self._settings
        routing = settings.routing
        route_of = routing.route_index if routing.is_multi_model else None
        tars = TarReader(settings.tar_storage, settings.filepath_key, route_of)
        contents = chain.from_iterable(map(tars.contents, items))
        seconds = 0.0
        for heard in settings.reader.decode(contents, self._host.sample_rate, self._longest):
            if self._is_too_long(heard):
                yield from self._long_in_tar(heard)
                continue
            if self._writer is not None:
                self._writer.expect(heard.clip.row.id)
                if not isinstance(heard.waveform, Exception):
                    seconds += len(heard.waveform) / self._host.sample_rate
                if seconds >= CHUNK_SECONDS:
                    self._writer.close_chunk()
                    seconds = 0.0
            yield from self._take(heard)
            del heard
        for unread in tars.unread:
            if self._writer is not None and unread.row.id:
                self._writer.expect(unread.row.id)
            yield self._failed(unread.row, unread.stage, unread.error, attempts_of(unread.error))
        if self._writer is not None:
            self._writer.close_chunk()
        for row, outcome in tars.done:
            yield self._resumed(row, outcome)
        self._statistics += tars.statistics

    def _long_in_tar(self, heard: LoadedClip) -> Iterator[Any]:
        """A long row is planned and transcribed here, where its content is."""
        if self._writer is not None:
            self._writer.close_chunk()
        try:
            row = self._settings.planner.plan(heard.clip, self._segment, heard.content)
        except Exception as error:
            if self._writer is not None:
                self._writer.expect(heard.clip.row.id)
            yield self._failed(heard.clip.row, "audio", error, attempts_of(error))
            return
        yield TaggedOutput("rows", (row.key, row))
        yield from self._stretches(long_rows.group_segments(row), heard.content)

    def _done_before(self, ids: list[str]) -> dict[str, Outcome]:
        """What an earlier attempt of the runner at this very window has left in the journal."""
        if self._settings.journal is None or not ids:
            return {}
        outcomes = self._settings.journal.read(chunk_name(ids))
        return {each.row_id: each for each in outcomes if each.error is None}

    @property
    def _longest(self) -> float:
        """Seconds that a clip may have."""
        if self._settings.planner.segmentation == "none":
            return MAX_SECONDS
        return self._settings.max_segment_seconds or self._host.max_clip_seconds

    @property
    def _segment(self) -> float:
        """Seconds that a segment may have."""
        return self._settings.max_segment_seconds or self._host.segment_seconds

    def _is_too_long(self, heard: LoadedClip) -> bool:
        """Whether it is to be cut into segments."""
        is_long = isinstance(heard.waveform, TooLongAudioError) and heard.clip.segment is None
        return is_long and self._longest < MAX_SECONDS

    def _take(self, heard: LoadedClip) -> Iterator[Any]:
        """Records: of a clip that cannot be read, or of earlier ones that are transcribed."""
        self._count_models()
        clip, waveform, seconds, _ = heard
        if self._is_too_long(heard):
            if self._writer is not None:
                self._writer.forget(clip.row.id)
            yield TaggedOutput("long", LongClip(clip, self._segment))
            return
        self._read_milliseconds.update(round(1000 * seconds))
        if isinstance(waveform, Exception):
            yield self._ended_as_failure(clip, "audio", waveform, attempts_of(waveform))
            return
        vad = self._settings.planner.segmentation == "vad"
        if vad and is_silence(waveform, self._host.sample_rate):
            length = len(waveform) / self._host.sample_rate
            self._statistics.unheard_seconds += length
            self._statistics.no_speech += clip.segment is None
            yield self._heard(clip, Outcome(clip.row.id, transcript.empty_result(length)))
            return
        try:
            prompt = self._prompt(clip)
        except PromptError as error:
            yield self._ended_as_failure(clip, "manifest", error, 1)
            return
        for batch in self._backlog.add(clip, waveform, prompt):
            yield from self._records(batch)

    def _prompt(self, clip: Clip) -> Prompt:
        taken = self._host.prompt_fields
        if not taken:
            return NO_PROMPT
        fields = parsing.parse_fields(clip.row.line)
        settings = self._settings
        prompt = prompts.of_row(fields, settings.prompt, settings.routing.lang_key, taken)
        self._host.check_prompt(prompt)
        return prompt

    def _records(self, batch: Batch) -> Iterator[Any]:
        self._count(batch)
        for clip, heard, attempts, waveform in batch.results:
            if isinstance(heard, Exception):
                yield self._ended_as_failure(clip, "model", heard, attempts)
                continue
            wanted = self._settings.asked.tokens or (
                clip.segment is not None and clip.segment.stitched
            )
            rate = self._host.sample_rate
            kept = transcript.to_stored(heard, waveform, rate, clip.offset, wanted)
            yield self._heard(clip, Outcome(clip.row.id, kept, seconds=len(waveform) / rate))

    def _heard(self, clip: Clip, outcome: Outcome) -> Any:
        self._ended(outcome, clip.segment)
        if clip.segment is not None:
            return _of_segment(clip, outcome)
        return results.tag_outcome(clip.row, outcome, self._settings.asked, clip.route)

    def _ended_as_failure(self, clip: Clip, stage: str, error: Exception, attempts: int) -> Any:
        if clip.segment is None:
            return self._failed(clip.row, stage, error, attempts)
        record = failure(clip.row, stage, error, attempts)
        outcome = Outcome(clip.row.id, error=record["error"])
        self._ended(outcome, clip.segment)
        return _of_segment(clip, outcome)

    def _failed(self, row: Row, stage: str, error: Exception, attempts: int) -> Any:
        record = failure(row, stage, error, attempts)
        self._ended(Outcome(row.id, error=record["error"]))
        settings = self._settings
        labelled = transcript.with_provenance(record, row, settings.asked, settings.route)
        return TaggedOutput("failures", labelled)

    def _resumed(self, row: Row, outcome: Outcome) -> Any:
        settings = self._settings
        self._statistics += results.resumed_statistics(outcome)
        return results.tag_outcome(row, outcome, settings.asked, settings.route)

    def _ended(self, outcome: Outcome, segment: SegmentRef | None = None) -> None:
        if self._writer is not None and outcome.row_id:
            self._writer.add(outcome)
        if self._watch is not None and segment is None:  # else its row is counted when it is whole
            filtered = self._settings.filters and is_refusal(outcome.error)
            self._watch.add(None if filtered else outcome.error, self._rows)

    def _count_models(self) -> None:
        loads, evictions = self._host.take_loads(), pool.pool.take_evictions()
        self._model_loads.inc(loads)
        self._model_evictions.inc(evictions)
        self._statistics.model_loads += loads
        self._statistics.model_evictions += evictions
        self._statistics.models |= {tuple(sorted(self._host.description.items()))}

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


def _of_segment(clip: Clip, outcome: Outcome, resumed: bool = False) -> TaggedOutput:
    assert clip.segment is not None
    ended = SegmentOutcome(clip.segment.number, outcome, resumed)
    return TaggedOutput("segments", (clip.segment.key, ended))
