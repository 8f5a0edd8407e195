"""Reads clips concurrently, each within a time limit, as waveforms or errors."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from beam_asr.audio import read_pool, reading
from beam_asr.audio.limits import check_duration, is_shorter_than_file
from beam_asr.audio.read_pool import Read, StalledError
from beam_asr.audio.reading import MAX_SECONDS, UNKNOWN_HEADER, AudioRequest
from beam_asr.audio.source import shown
from beam_asr.errors import (
    AudioMemoryError,
    AudioTimeoutError,
    CancelledChannelsError,
    TooLongAudioError,
)
from beam_asr.records.channels import chosen_channel
from beam_asr.records.work import Clip, SegmentGroup, TakenChannel
from beam_asr.settings import NO_LIMITS, AudioLimits
from beam_asr.storage.storage import Storage

AHEAD_SECONDS = 20 * 60  # of audio that is read ahead of the consumer
UNKNOWN_SECONDS = 15  # first estimate for a clip without a duration
LONG_SECONDS = 5 * 60  # of a clip without a duration; a longer one is not read ahead
CONTENTS_AHEAD = 8  # files of a tar that are in memory at a time


class Loaded(NamedTuple):
    """A clip that has been read.

    Attributes:
        waveform: float32 of shape ``(samples,)``.
        seconds: wall time of reading and decoding.
        shorter_than_file: as `is_shorter_than_file`.
    """

    clip: Clip
    waveform: np.ndarray
    seconds: float
    shorter_than_file: bool = False


class LoadedChannels(NamedTuple):
    """A clip whose channels have been read, each to be recognized.

    Attributes:
        waveforms: float32 of shape ``(samples, channels)``, of two channels or more.
        seconds, shorter_than_file: as in ``Loaded``.
    """

    clip: Clip
    waveforms: np.ndarray
    seconds: float
    shorter_than_file: bool = False

    def each(self) -> Iterator[np.ndarray]:
        """Yields the waveform of each channel, float32 of shape ``(samples,)``."""
        for channel in self.waveforms.T:
            yield np.ascontiguousarray(channel)


class Unreadable(NamedTuple):
    """A clip that could not be read, and the error; ``seconds`` as in ``Loaded``."""

    clip: Clip
    error: Exception
    seconds: float


class OverLimit(NamedTuple):
    """A clip above the maximum length, which must be cut; ``content`` is its file's bytes, if they
    are in memory."""

    clip: Clip
    content: bytes | None


ReadOutcome = Loaded | LoadedChannels | Unreadable | OverLimit


class _Audio(NamedTuple):
    """Holds what was read of a clip, which has the channel that was taken."""

    clip: Clip
    samples: np.ndarray
    shorter_than_file: bool


class _PendingRead(NamedTuple):
    """A clip, or a group of segments, that is being read ahead.

    Attributes:
        clip: the range of the file.
        expected: estimated seconds of audio.
        content: the file's bytes, if they are in memory.
        group: the segments in the range; None if it is a clip.
    """

    clip: Clip
    expected: float
    content: bytes | None
    group: SegmentGroup | None
    read: Read[_Audio]


@dataclasses.dataclass(frozen=True)
class ClipReader:
    """Reads the audio of rows.

    Attributes:
        storage: how storages are opened, and which may be.
        channel: the channel to take where a row names none, from 0; None averages them, and `EACH`
            takes every one.
        timeout_seconds: time limit of a file, and as much again for each further hour of audio.
        concurrency: maximum number of files that a process reads at one time.
        limits: what a row's audio must be like.
    """

    storage: Storage
    channel: int | str | None
    timeout_seconds: float
    concurrency: int
    limits: AudioLimits = NO_LIMITS

    def read(
        self, items: Iterable[Clip | SegmentGroup], sample_rate: int, longest: float = MAX_SECONDS
    ) -> Iterator[ReadOutcome]:
        """Yields each clip with its waveform, or with the error, in the order of the items.

        Clips are read ahead, up to a number of files and `AHEAD_SECONDS` of audio. One whose row
        states a duration above the limit is yielded at once, unread. A clip without a duration that
        turns out to be long is abandoned, and read again when it is its turn, so that only one such
        clip is in memory at a time. So is one for which there was not enough memory.

        Where channels cancel each other in their average, the clip is read again, of the loudest
        channel that has all of the sound. ``clip.taken`` says which channel was read.

        Args:
            items: clips, and groups, each of whose segments is yielded.
            sample_rate: of the waveforms, in Hz.
            longest: maximum seconds of a clip; a longer one, unless it is a segment, ends as
                ``OverLimit``. With `MAX_SECONDS`, which no clip may exceed, it ends as
                ``Unreadable``.
        """
        contents = ((item, None) for item in items)
        return self._run(contents, sample_rate, 2 * self.concurrency, longest)

    def decode(
        self,
        contents: Iterable[tuple[Clip | SegmentGroup, bytes]],
        sample_rate: int,
        longest: float = MAX_SECONDS,
    ) -> Iterator[ReadOutcome]:
        """Decodes as ``read``, clips whose files are in memory already."""
        return self._run(contents, sample_rate, CONTENTS_AHEAD, longest)

    def _run(
        self,
        items: Iterable[tuple[Clip | SegmentGroup, bytes | None]],
        sample_rate: int,
        max_pending: int,
        limit: float,
    ) -> Iterator[ReadOutcome]:
        pending: deque[_PendingRead] = deque()
        ahead = 0.0
        longest = float(UNKNOWN_SECONDS)  # what a clip without a duration may turn out to be
        channels = 1  # likewise, that are kept of a clip
        for item, content in items:
            group = item if isinstance(item, SegmentGroup) else None
            clip = item.whole() if isinstance(item, SegmentGroup) else item
            expected = min(longest, limit) if clip.duration is None else clip.duration
            if group is None and limit < MAX_SECONDS and expected > limit:
                yield OverLimit(clip, content)
                continue
            expected *= channels
            while pending and (len(pending) >= max_pending or ahead + expected > AHEAD_SECONDS):
                ahead -= pending[0].expected
                for outcome in self._finish(pending.popleft(), sample_rate, limit):
                    if isinstance(outcome, Loaded):
                        longest = max(longest, len(outcome.waveform) / sample_rate)
                    elif isinstance(outcome, LoadedChannels):
                        longest = max(longest, len(outcome.waveforms) / sample_rate)
                        channels = max(channels, outcome.waveforms.shape[1])
                    yield outcome
                    del outcome  # its waveform, before the next one is read
            read = self._start(clip, content, sample_rate, min(LONG_SECONDS, limit))
            pending.append(_PendingRead(clip, expected, content, group, read))
            ahead += expected
        while pending:
            yield from self._finish(pending.popleft(), sample_rate, limit)

    def _finish(
        self, pending: _PendingRead, sample_rate: int, limit: float
    ) -> Iterator[ReadOutcome]:
        """Yields the clip whose turn it is; reads it again if it was too large to read ahead."""
        clip, _, content, group, read = pending
        ahead_limit = min(LONG_SECONDS, limit)
        outcome = self._outcome(read, clip, ahead_limit)
        seconds = read.seconds
        is_long = clip.duration is None and isinstance(outcome, TooLongAudioError)
        if (is_long and ahead_limit < limit) or isinstance(outcome, MemoryError):
            read = self._start(clip, content, sample_rate, limit)
            outcome = self._outcome(read, clip, limit)
            seconds += read.seconds
        if isinstance(outcome, MemoryError):
            outcome = AudioMemoryError(
                f"{shown(clip.audio)}: twice there was no memory to read it ({outcome}). "
                "Give the worker more memory, or lower `max_concurrent_reads`."
            )
        del read
        if group is None:
            if isinstance(outcome, _Audio) and outcome.samples.ndim > 1:
                yield LoadedChannels(clip, outcome.samples, seconds, outcome.shorter_than_file)
            elif isinstance(outcome, _Audio):
                yield Loaded(outcome.clip, outcome.samples, seconds, outcome.shorter_than_file)
            elif isinstance(outcome, TooLongAudioError) and limit < MAX_SECONDS:
                yield OverLimit(clip, content)
            else:
                yield Unreadable(clip, outcome, seconds)
        elif isinstance(outcome, _Audio):
            yield from _cut(group, outcome.samples, sample_rate, seconds)
        elif len(group.segments) == 1 or isinstance(outcome, AudioTimeoutError):
            for part in group.clips():
                yield Unreadable(part, outcome, seconds / len(group.segments))
        else:  # what is wrong with one segment must not cost the others
            for number, segment in enumerate(group.segments, group.first):
                one = group._replace(first=number, segments=(segment,))
                read = self._start(one.whole(), content, sample_rate, limit)
                alone = _PendingRead(one.whole(), segment.end - segment.start, content, one, read)
                yield from self._finish(alone, sample_rate, limit)

    def _start(
        self, clip: Clip, content: bytes | None, sample_rate: int, longest: float
    ) -> Read[_Audio]:
        """Starts a read; ``longest`` is the maximum length if the row states no duration."""
        read = partial(self._read, clip, content, sample_rate, longest)
        return read_pool.pool(self.concurrency).start(read)

    def _outcome(self, read: Read[_Audio], clip: Clip, longest: float) -> _Audio | Exception:
        limit = self._time_limit(clip, longest)
        outcome = read.result(limit)
        if isinstance(outcome, StalledError):
            return AudioTimeoutError.stalled(shown(clip.audio), limit)
        return outcome

    def _time_limit(self, clip: Clip, longest: float) -> float:
        """Returns the seconds that reading may take, by the clip's length or the maximum."""
        hours = min(clip.duration or longest, MAX_SECONDS) / 3600
        return self.timeout_seconds * max(1.0, hours)

    def _read(self, clip: Clip, content: bytes | None, sample_rate: int, longest: float) -> _Audio:
        whole = clip.segment is None
        if whole and clip.duration is not None:
            check_duration(self.limits, clip.audio, clip.duration)
        request = AudioRequest(
            sample_rate=sample_rate,
            offset=clip.offset,
            duration=clip.duration,
            channel=chosen_channel(clip.channel, self.channel),
            # What is a part of a longer recording was planned with the whole of it.
            cancellation_allowed=not whole,
            max_seconds=longest if clip.duration is None else MAX_SECONDS,
            silence_allowed=not whole,
            limits=self.limits,
            version=clip.version,
        )
        headers = [UNKNOWN_HEADER]
        read = partial(
            reading.read_audio,
            clip.audio,
            storage=self.storage,
            deadline=time.monotonic() + self._time_limit(clip, longest),
            content=content,
            on_header=headers.append,
        )
        louder = False
        try:
            waveform = read(request)
        except CancelledChannelsError as error:
            if error.channel is None:
                raise
            louder, request = True, dataclasses.replace(request, channel=error.channel)
            waveform = read(request)
        if whole:
            check_duration(self.limits, clip.audio, len(waveform) / sample_rate)
        header = headers[-1]
        shorter = whole and is_shorter_than_file(clip, header.seconds)
        taken = with_taken(clip, request.channel, header.channels, louder)
        return _Audio(taken, waveform, shorter)


def with_taken(clip: Clip, channel: int | str | None, count: int, louder: bool) -> Clip:
    """Returns a clip with the channel that was read, unless the file has only one."""
    if not isinstance(channel, int) or count == 1:
        return clip
    return clip._replace(taken=TakenChannel(channel, count, louder))


def _cut(
    group: SegmentGroup, waveform: np.ndarray, sample_rate: int, seconds: float
) -> Iterator[ReadOutcome]:
    """Yields the segments of a group."""
    parts = group.clips()
    origin = group.segments[0].start
    for part, segment in zip(parts, group.segments, strict=True):
        start = round((segment.start - origin) * sample_rate)
        end = round((segment.end - origin) * sample_rate)
        # A copy: a view would keep the whole group, for as long as its last segment waits.
        yield Loaded(part, waveform[start:end].copy(), seconds / len(parts))
