"""Recognizes chunks of work with a model, and yields what happens as events."""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from beam_asr.audio.clip_reader import (
    ClipReader,
    Loaded,
    LoadedChannels,
    OverLimit,
    ReadOutcome,
    Unreadable,
)
from beam_asr.audio.reading import MAX_SECONDS
from beam_asr.audio.segment_planner import Planner
from beam_asr.audio.vad import is_silence
from beam_asr.errors import ModelLoadError, PromptError
from beam_asr.inputs.tar_clips import DoneRow, TarClip, TarEvent, TarReader, UnreadRow
from beam_asr.models import prompts
from beam_asr.models.engine import ModelSpec
from beam_asr.models.serving.batcher import Batch, Batcher
from beam_asr.models.serving.host import ModelHost
from beam_asr.records.events import (
    ChunkClosed,
    ClipRead,
    Done,
    FoundInFolder,
    MemberWithoutRow,
    Planned,
    RowEnded,
    RowSplit,
    SampleFound,
    SegmentDone,
    SegmentEnded,
    SegmentFailed,
    Silent,
    Started,
    TarWithoutRows,
    TooLong,
)
from beam_asr.records.outcome import Outcome
from beam_asr.records.prompt import NO_PROMPT, Prompt
from beam_asr.records.record import error_of
from beam_asr.records.row import Row
from beam_asr.records.work import (
    ChannelRef,
    Clip,
    NemoTar,
    SegmentGroup,
    WebDatasetTar,
    group_segments,
)
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage
from beam_asr.transcripts import transcript
from beam_asr.transforms.job_context import JobContext

CHUNK_SECONDS = 20 * 60  # of audio in a chunk

Work = Clip | SegmentGroup | WebDatasetTar | NemoTar
# A `Batch` comes before the results of its clips.
Event = (
    RowEnded
    | RowSplit
    | SegmentEnded
    | TooLong
    | Planned
    | Started
    | ChunkClosed
    | ClipRead
    | Silent
    | Batch
    | SampleFound
    | FoundInFolder
    | MemberWithoutRow
    | TarWithoutRows
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecognizeSettings:
    """Holds how chunks are recognized with one model; ``Transcribe`` documents the settings.

    Attributes:
        prompt: the values of prompt fields that a row does not have.
        route: the number of the model.
    """

    context: JobContext
    spec: ModelSpec
    reader: ClipReader
    tar_storage: Storage
    planner: Planner
    prompt: Prompt
    route: int
    max_segment_seconds: float | None
    batch_size: int
    max_batch_seconds: float | None


class _OpenRow:
    """Holds a row whose channels are being recognized, and the outcomes of those that are done."""

    def __init__(self, row: Row, channels: int) -> None:
        self.row = row
        self.outcomes: list[Outcome | None] = [None] * channels

    def add(self, channel: int, outcome: Outcome) -> Outcome | None:
        """Adds the outcome of a channel; returns that of the row once all are there."""
        self.outcomes[channel] = outcome._replace(row_id="")  # of the row alone in the journal
        done = tuple(one for one in self.outcomes if one is not None)
        return Outcome(self.row.id, channels=done) if len(done) == len(self.outcomes) else None


class ChunkRecognizer:
    """Reads the audio of chunks and has a model recognize it.

    The results of a chunk's clips come with later chunks, or with ``drain``.

    Args:
        host: the model's host, which the caller leases and releases.

    Raises:
        ModelLoadError: the model does not take the fields of the prompt.
    """

    def __init__(self, settings: RecognizeSettings, host: ModelHost):
        self._settings = settings
        self._context = settings.context
        self._host = host
        requested = {name for name, value in settings.prompt._asdict().items() if value is not None}
        unknown = requested - host.prompt_fields
        if unknown:
            raise ModelLoadError(
                f"the model {settings.spec.model_name!r} takes no "
                f"{', '.join(f'--{name}' for name in sorted(unknown))}: leave it out, or choose a "
                "model that takes a prompt, such as Canary"
            )
        host.warm_up(settings.batch_size)
        self._batcher = Batcher(host, settings.batch_size, settings.max_batch_seconds)
        self._open_rows: dict[int, _OpenRow] = {}
        self._keys = itertools.count()

    def recognize(self, work: Iterable[Work]) -> Iterator[Event]:
        """Yields what happens as a chunk is read, and the results of earlier clips as they come."""
        work = list(work)
        yield from self._clips([item for item in work if isinstance(item, Clip)])
        yield from self._groups([item for item in work if isinstance(item, SegmentGroup)])
        yield from self._tars(item for item in work if isinstance(item, (WebDatasetTar, NemoTar)))

    def drain(self) -> Iterator[Event]:
        """Yields the results of all remaining clips."""
        for batch in self._batcher.drain():
            yield from self._results(batch)

    def _clips(self, clips: list[Clip]) -> Iterator[Event]:
        done = self._done_earlier(clips)
        for clip in clips:
            if clip.row.id in done:
                yield from self._context.row_resumed(clip.row, done[clip.row.id])
        clips = [clip for clip in clips if clip.row.id not in done]
        yield Started(tuple(clip.row.id for clip in clips))
        yield ChunkClosed()
        for read in self._settings.reader.read(
            clips, self._host.sample_rate, self._max_clip_seconds
        ):
            yield from self._take(read)
            del read  # its waveform, before the next one is read

    def _groups(
        self, groups: Iterable[SegmentGroup], content: bytes | None = None
    ) -> Iterator[Event]:
        """Recognizes segments of long rows; each group is a chunk of the journal."""
        remaining: list[SegmentGroup] = []
        for group in groups:
            clips = group.clips()
            done = self._done_earlier(clips)
            for clip in clips:
                if clip.segment is not None and clip.row.id in done:
                    yield SegmentDone(clip.segment, done[clip.row.id], resumed=True)
            yield Started(tuple(clip.row.id for clip in clips if clip.row.id not in done))
            yield ChunkClosed()
            remaining += group.without(done)
        reader, rate = self._settings.reader, self._host.sample_rate
        if content is None:
            reads = reader.read(remaining, rate)
        else:
            reads = reader.decode(((group, content) for group in remaining), rate)
        for read in reads:
            yield from self._take(read)
            del read

    def _tars(self, items: Iterable[WebDatasetTar | NemoTar]) -> Iterator[Event]:
        routing = self._context.routing
        route_of = routing.route_index if routing.is_multi_model else None
        reader = TarReader(
            self._settings.tar_storage,
            self._context.filepath_key,
            route_of,
            self._context.channel_key,
        )
        other_events: deque[TarEvent] = deque()  # that come while clips are read ahead

        def contents() -> Iterator[tuple[Clip, bytes]]:
            for item in items:
                for event in reader.events(item):
                    if isinstance(event, TarClip):
                        yield event
                    else:
                        other_events.append(event)

        seconds = 0.0
        clips = self._settings.reader.decode(
            contents(), self._host.sample_rate, self._max_clip_seconds
        )
        for read in clips:
            while other_events:
                yield from self._without_content(other_events.popleft())
            if isinstance(read, OverLimit):
                yield from self._long_in_tar(read)
                continue
            yield Started((read.clip.row.id,))
            if isinstance(read, Loaded):
                seconds += len(read.waveform) / self._host.sample_rate
            if seconds >= CHUNK_SECONDS:
                yield ChunkClosed()
                seconds = 0.0
            yield from self._take(read)
            del read
        while other_events:
            yield from self._without_content(other_events.popleft())
        yield ChunkClosed()

    def _without_content(self, event: TarEvent) -> Iterator[Event]:
        if isinstance(event, UnreadRow):
            yield Started((event.row.id,))
            attempts = attempts_of(event.error)
            yield self._context.row_failed(event.row, event.error, attempts, event.stage)
        elif isinstance(event, DoneRow):
            if event.outcome is None:
                yield FoundInFolder()
            else:
                yield from self._context.row_resumed(event.row, event.outcome)
        elif not isinstance(event, TarClip):
            yield event

    def _long_in_tar(self, read: OverLimit) -> Iterator[Event]:
        """Plans and recognizes a long row here, where its content is."""
        yield ChunkClosed()
        try:
            plans = self._settings.planner.plan(read.clip, self._max_segment_seconds, read.content)
        except Exception as error:
            yield Started((read.clip.row.id,))
            yield from self._failed(read.clip, error, attempts_of(error), "audio")
            return
        if len(plans) > 1:
            yield RowSplit(len(plans))
        for plan in self._context.split_plans(read.clip.row, plans):
            yield Planned(plan)
            yield from self._groups(group_segments(plan), read.content)

    def _done_earlier(self, clips: list[Clip]) -> dict[str, Outcome]:
        """Returns what an earlier attempt at this chunk has written to the journal."""
        journal = self._context.journal
        if journal is None or not clips:
            return {}
        outcomes = journal.read_chunk([clip.row.id for clip in clips])
        return {outcome.row_id: outcome for outcome in outcomes if not outcome.failed}

    @property
    def _max_clip_seconds(self) -> float:
        """Returns the maximum length of a clip, in seconds."""
        if self._settings.planner.segmentation == "none":
            return MAX_SECONDS
        return self._settings.max_segment_seconds or self._host.max_clip_seconds

    @property
    def _max_segment_seconds(self) -> float:
        """Returns the maximum length of a segment, in seconds."""
        return self._settings.max_segment_seconds or self._host.segment_seconds

    def _take(self, read: ReadOutcome) -> Iterator[Event]:
        """Queues a clip; yields what happens, and the results of earlier clips that are done."""
        if isinstance(read, OverLimit):
            yield TooLong(read.clip, self._max_segment_seconds)
            return
        shorter = not isinstance(read, Unreadable) and read.shorter_than_file
        yield ClipRead(read.seconds, shorter)
        if isinstance(read, Unreadable):
            yield from self._failed(read.clip, read.error, attempts_of(read.error), "audio")
        elif isinstance(read, Loaded):
            yield from self._queue(read.clip, read.waveform)
        else:
            yield from self._queue_channels(read)

    def _queue_channels(self, read: LoadedChannels) -> Iterator[Event]:
        key, count = next(self._keys), read.waveforms.shape[1]
        self._open_rows[key] = _OpenRow(read.clip.row, count)
        for number, waveform in enumerate(read.each()):
            row = self._context.row_of_channel(read.clip.row, number, count)
            part = ChannelRef(key, number)
            yield from self._queue(read.clip._replace(row=row, channel=number, part=part), waveform)

    def _queue(self, clip: Clip, waveform: np.ndarray) -> Iterator[Event]:
        seconds = len(waveform) / self._host.sample_rate
        vad = self._settings.planner.segmentation == "vad"
        unused = clip.part is not None and not waveform.any()  # a channel beside one with sound
        if unused or (vad and is_silence(waveform, self._host.sample_rate)):
            yield Silent(seconds, whole_row=clip.segment is None)
            stored = transcript.with_channel(transcript.empty_result(seconds), clip.taken)
            yield from self._ended(clip, Outcome(clip.row.id, stored))
            return
        try:
            prompt = self._prompt(clip)
        except PromptError as error:
            yield from self._failed(clip, error)
            return
        for batch in self._batcher.add(clip, waveform, prompt):
            yield from self._results(batch)

    def _prompt(self, clip: Clip) -> Prompt:
        supported = self._host.prompt_fields
        if not supported:
            return NO_PROMPT
        lang_key = self._context.routing.lang_key
        prompt = prompts.of_row(clip.row.fields, self._settings.prompt, lang_key, supported)
        self._host.check_prompt(prompt)
        return prompt

    def _results(self, batch: Batch) -> Iterator[Event]:
        yield batch
        rate = self._host.sample_rate
        for clip, recognition, attempts, waveform in batch.results:
            if isinstance(recognition, Exception):
                yield from self._failed(clip, recognition, attempts, "model")
                continue
            stitched = clip.segment is not None and clip.segment.stitched
            with_tokens = self._context.transcript_fields.tokens or stitched
            stored = transcript.to_stored(recognition, waveform, rate, clip.offset, with_tokens)
            stored = transcript.with_channel(stored, clip.taken)
            outcome = Outcome(clip.row.id, stored, seconds=len(waveform) / rate)
            yield from self._ended(clip, outcome)

    def _failed(
        self, clip: Clip, error: Exception, attempts: int = 1, stage: str = ""
    ) -> Iterator[Event]:
        if clip.segment is None and clip.part is None:
            yield self._context.row_failed(clip.row, error, attempts, stage)
            return
        outcome = Outcome(clip.row.id, error=error_of(clip.row, error, attempts, stage))
        yield from self._ended(clip, outcome)

    def _ended(self, clip: Clip, outcome: Outcome) -> Iterator[Event]:
        """Yields the event of a clip; of a channel of a row, once all channels have ended."""
        if clip.part is not None:
            key, channel = clip.part
            row = self._open_rows[key].row
            of_row = self._open_rows[key].add(channel, outcome)
            if of_row is not None:
                del self._open_rows[key]
                yield from self._context.channels_ended(row, of_row)
        elif clip.segment is None:
            yield Done(clip.row, outcome)
        elif outcome.error is None:
            yield SegmentDone(clip.segment, outcome)
        else:
            yield SegmentFailed(clip.segment, outcome)
