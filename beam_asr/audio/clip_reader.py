"""Clips to waveforms: many at a time, each within a time limit, and what failed told apart."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from beam_asr.audio import read_pool, reading
from beam_asr.audio.limits import check_duration
from beam_asr.audio.read_pool import Read, StalledError
from beam_asr.audio.reading import MAX_SECONDS, AudioRequest
from beam_asr.audio.source import shown
from beam_asr.errors import AudioMemoryError, AudioTimeoutError, TooLongAudioError
from beam_asr.records.work import Clip, SegmentGroup
from beam_asr.settings import NO_LIMITS, AudioLimits
from beam_asr.storage.storage import Storage

AHEAD_SECONDS = 20 * 60  # of audio that is read and not yet taken
UNKNOWN_SECONDS = 15  # that a clip without a duration is at first taken for
LONG_SECONDS = 5 * 60  # of a clip without a duration; a longer one is not read ahead
CONTENTS_AHEAD = 8  # files of a tar that are held at a time


class Loaded(NamedTuple):
    """A clip that has been read.

    Attributes:
        waveform: float32 of shape ``(samples,)``.
        seconds: that reading and decoding took.
    """

    clip: Clip
    waveform: np.ndarray
    seconds: float


class Unreadable(NamedTuple):
    """A clip that could not be read, and why; ``seconds`` as of ``Loaded``."""

    clip: Clip
    error: Exception
    seconds: float


class OverLimit(NamedTuple):
    """A clip that is longer than one may be, so that it is to be cut; ``content`` is that of its
    file, if that is here."""

    clip: Clip
    content: bytes | None


ReadOutcome = Loaded | Unreadable | OverLimit


class _PendingRead(NamedTuple):
    """A clip, or a stretch of one, that is read before its turn.

    Attributes:
        clip: the range of the file.
        expected: seconds of audio that it is taken for.
        content: of its file, if that is here.
        stretch: whose range it is; None if it is a clip.
    """

    clip: Clip
    expected: float
    content: bytes | None
    stretch: SegmentGroup | None
    read: Read[np.ndarray]


@dataclasses.dataclass(frozen=True)
class ClipReader:
    """How the audio of rows is read.

    Attributes:
        storage: how storages are opened, and which may be.
        channel: the channel to take where a row names none, from 0; None averages them.
        timeout_seconds: how long a file may take, and as long again for each further hour of audio.
        concurrency: most files that are read at one time in a process.
        limits: what a row's audio must be like.
    """

    storage: Storage
    channel: int | None
    timeout_seconds: float
    concurrency: int
    limits: AudioLimits = NO_LIMITS

    def read(
        self, items: Iterable[Clip | SegmentGroup], sample_rate: int, longest: float = MAX_SECONDS
    ) -> Iterator[ReadOutcome]:
        """Each clip with its waveform, or why it has none, in their order.

        They are read ahead of being taken, some number and some minutes of audio. One whose row
        says that it is too long is given at once, unread. A clip that is
        found to be long, of which its row says nothing, is given up and read again when it is its
        turn, so that of such clips there is one at a time; one for which there was no memory too.

        Args:
            items: clips, and stretches, of which each segment is given.
            sample_rate: of the waveforms, in Hz.
            longest: seconds that a clip may have; a longer one, unless it is a segment, ends as
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
        """As ``read``, of clips whose files are here already."""
        return self._run(contents, sample_rate, CONTENTS_AHEAD, longest)

    def _run(
        self,
        items: Iterable[tuple[Clip | SegmentGroup, bytes | None]],
        sample_rate: int,
        most: int,
        limit: float,
    ) -> Iterator[ReadOutcome]:
        begun: deque[_PendingRead] = deque()
        ahead = 0.0
        longest = float(UNKNOWN_SECONDS)  # what a clip without a duration may turn out to be
        for item, content in items:
            stretch = item if isinstance(item, SegmentGroup) else None
            clip = item.whole() if isinstance(item, SegmentGroup) else item
            expected = min(longest, limit) if clip.duration is None else clip.duration
            if stretch is None and limit < MAX_SECONDS and expected > limit:
                yield OverLimit(clip, content)
                continue
            while begun and (len(begun) >= most or ahead + expected > AHEAD_SECONDS):
                ahead -= begun[0].expected
                for heard in self._heard(begun.popleft(), sample_rate, limit):
                    if isinstance(heard, Loaded):
                        longest = max(longest, len(heard.waveform) / sample_rate)
                    yield heard
                    del heard  # its waveform, before the next one is read
            read = self._start(clip, content, sample_rate, min(LONG_SECONDS, limit))
            begun.append(_PendingRead(clip, expected, content, stretch, read))
            ahead += expected
        while begun:
            yield from self._heard(begun.popleft(), sample_rate, limit)

    def _heard(self, begun: _PendingRead, sample_rate: int, limit: float) -> Iterator[ReadOutcome]:
        """The clip, whose turn it is; read again if it was too much to be read before."""
        clip, _, content, stretch, read = begun
        before = min(LONG_SECONDS, limit)
        outcome = self._outcome(read, clip, before)
        seconds = read.seconds
        is_long = clip.duration is None and isinstance(outcome, TooLongAudioError)
        if (is_long and before < limit) or isinstance(outcome, MemoryError):
            read = self._start(clip, content, sample_rate, limit)
            outcome = self._outcome(read, clip, limit)
            seconds += read.seconds
        if isinstance(outcome, MemoryError):
            outcome = AudioMemoryError(
                f"{shown(clip.audio)}: twice there was no memory to read it ({outcome}). "
                "Give the worker more memory, or lower `max_concurrent_reads`."
            )
        del read
        if stretch is None:
            if isinstance(outcome, np.ndarray):
                yield Loaded(clip, outcome, seconds)
            elif isinstance(outcome, TooLongAudioError) and limit < MAX_SECONDS:
                yield OverLimit(clip, content)
            else:
                yield Unreadable(clip, outcome, seconds)
        elif isinstance(outcome, np.ndarray):
            yield from _cut(stretch, outcome, sample_rate, seconds)
        elif len(stretch.segments) == 1 or isinstance(outcome, AudioTimeoutError):
            for part in stretch.clips():
                yield Unreadable(part, outcome, seconds / len(stretch.segments))
        else:  # what is wrong with one segment must not cost the others
            for number, segment in enumerate(stretch.segments, stretch.first):
                one = stretch._replace(first=number, segments=(segment,))
                read = self._start(one.whole(), content, sample_rate, limit)
                alone = _PendingRead(one.whole(), segment.end - segment.start, content, one, read)
                yield from self._heard(alone, sample_rate, limit)

    def _start(
        self, clip: Clip, content: bytes | None, sample_rate: int, longest: float
    ) -> Read[np.ndarray]:
        """Has a clip read; ``longest`` is what it may be if its row does not say how long it is."""
        read = partial(self._read, clip, content, sample_rate, longest)
        return read_pool.pool(self.concurrency).start(read)

    def _outcome(
        self, read: Read[np.ndarray], clip: Clip, longest: float
    ) -> np.ndarray | Exception:
        limit = self._time_limit(clip, longest)
        outcome = read.result(limit)
        if isinstance(outcome, StalledError):
            return AudioTimeoutError.stalled(shown(clip.audio), limit)
        return outcome

    def _time_limit(self, clip: Clip, longest: float) -> float:
        """Seconds that it may take to read a clip of its length, or of the longest possible."""
        hours = min(clip.duration or longest, MAX_SECONDS) / 3600
        return self.timeout_seconds * max(1.0, hours)

    def _read(
        self, clip: Clip, content: bytes | None, sample_rate: int, longest: float
    ) -> np.ndarray:
        whole = clip.segment is None
        if whole and clip.duration is not None:
            check_duration(self.limits, shown(clip.audio), clip.duration)
        waveform = reading.read_audio(
            clip.audio,
            AudioRequest(
                sample_rate=sample_rate,
                offset=clip.offset,
                duration=clip.duration,
                channel=self.channel if clip.channel is None else clip.channel,
                max_seconds=longest if clip.duration is None else MAX_SECONDS,
                silence_allowed=not whole,  # of a longer recording
                limits=self.limits,
            ),
            storage=self.storage,
            deadline=time.monotonic() + self._time_limit(clip, longest),
            content=content,
        )
        if whole:
            check_duration(self.limits, shown(clip.audio), len(waveform) / sample_rate)
        return waveform


def _cut(
    stretch: SegmentGroup, waveform: np.ndarray, sample_rate: int, seconds: float
) -> Iterator[ReadOutcome]:
    """The segments of a stretch."""
    parts = stretch.clips()
    origin = stretch.segments[0].start
    for part, segment in zip(parts, stretch.segments, strict=True):
        start = round((segment.start - origin) * sample_rate)
        end = round((segment.end - origin) * sample_rate)
        # A copy: a view would keep the whole stretch, for as long as its last segment waits.
        yield Loaded(part, waveform[start:end].copy(), seconds / len(parts))
