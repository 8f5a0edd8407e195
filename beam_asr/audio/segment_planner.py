"""Plans the segments of long rows, reading each row once, as a stream."""

from __future__ import annotations

import dataclasses
import math
import time
import uuid
from collections.abc import Callable, Iterator

import numpy as np

from beam_asr.audio import reading, segmentation
from beam_asr.audio.clip_reader import with_taken
from beam_asr.audio.limits import check_duration, is_shorter_than_file
from beam_asr.audio.reading import UNKNOWN_HEADER, AudioRequest, FileHeader
from beam_asr.audio.source import shown
from beam_asr.audio.vad import RATE, Detector
from beam_asr.errors import (
    AudioError,
    AudioTimeoutError,
    CancelledChannelsError,
    SilentAudioError,
)
from beam_asr.records.channels import chosen_channel
from beam_asr.records.record import error_of
from beam_asr.records.work import Clip, Segment, SegmentPlan
from beam_asr.settings import NO_LIMITS, AudioLimits
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage

UNKNOWN_HOURS = 24.0  # assumed of a recording whose row states no duration
MIN_SECONDS = 1.0  # before the place where a recording breaks off, to use that part


class _Channel:
    """Listens to the samples that are planned: one channel, or the average.

    Attributes:
        silent: whether all samples are exactly zero.
    """

    def __init__(self, segmentation: str) -> None:
        self.silent = True
        self._detector = Detector() if segmentation == "vad" else None

    def add(self, samples: np.ndarray) -> None:
        """Adds float32 of shape ``(samples,)``, at `RATE`."""
        self.silent = self.silent and not samples.any()
        if self._detector is not None:
            self._detector.add(samples)

    def segments(self, seconds: float, longest: float) -> list[Segment]:
        """Returns the segments, of at most ``longest`` seconds; none of silence."""
        if self.silent:
            return []
        if self._detector is not None:
            return segmentation.plan_by_pauses(self._detector.finish(), longest)
        return segmentation.plan_fixed(seconds, longest)


@dataclasses.dataclass(frozen=True)
class Planner:
    """Plans the segments of long rows.

    Attributes:
        storage: how storages are opened, and which may be.
        channel: the channel to take where a row names none, from 0; None averages them, and `EACH`
            takes every one.
        timeout_seconds: time limit of a file, and as much again for each further hour of audio.
        segmentation: ``vad`` cuts in pauses and leaves silence out, ``fixed`` cuts by the clock.
        keep_parts: whether the readable part of a recording that breaks off is used.
        limits: what a row's audio must be like.
    """

    storage: Storage
    channel: int | str | None
    timeout_seconds: float
    segmentation: str
    keep_parts: bool
    limits: AudioLimits = NO_LIMITS

    def plan(self, clip: Clip, longest: float, content: bytes | None = None) -> list[SegmentPlan]:
        """Plans a row: once, or with `EACH` for every channel of its file, in their order.

        Where channels cancel each other in their average, the loudest channel that has all of the
        sound is planned. ``clip.taken`` says which channel was read. A file that is replaced while
        it is read is planned again from its start, once; the plan is of one version of it.

        Args:
            longest: maximum seconds of a segment.
            content: the file's bytes, if they are in memory.

        Raises:
            AudioError: it cannot be read.
            ReplacedError: the file was replaced twice.
            Exception: whatever its storage raises when that is not the file's fault.
        """
        return reading.read_from_start(
            clip.audio, lambda: self._plan_loudest(clip, longest, content)
        )

    def _plan_loudest(self, clip: Clip, longest: float, content: bytes | None) -> list[SegmentPlan]:
        try:
            return self._plan(clip, longest, content)
        except CancelledChannelsError as error:
            if error.channel is None:
                raise
            clip = clip._replace(channel=error.channel)
            return self._plan(clip, longest, content, louder=True)

    def _plan(
        self, clip: Clip, longest: float, content: bytes | None, louder: bool = False
    ) -> list[SegmentPlan]:
        maximum = dataclasses.replace(self.limits, min_duration=None)
        if clip.duration is not None:
            check_duration(maximum, clip.audio, clip.duration)
        unreadable_tail = None
        samples, channels = 0, [_Channel(self.segmentation)]
        headers = [UNKNOWN_HEADER]
        try:
            for block in self._blocks(clip, content, headers.append):
                samples += len(block)
                check_duration(maximum, clip.audio, samples / RATE)
                if block.ndim == 1:
                    channels[0].add(block)
                    continue
                while len(channels) < block.shape[1]:
                    channels.append(_Channel(self.segmentation))
                for channel, one in zip(channels, block.T, strict=True):
                    channel.add(np.ascontiguousarray(one))
        except AudioError as error:
            seconds = samples / RATE
            is_whole = isinstance(error, (AudioTimeoutError, CancelledChannelsError))
            is_whole = is_whole or error.is_refusal
            if is_whole or not self.keep_parts or seconds < MIN_SECONDS:
                raise
            record = error_of(clip.row, error, attempts_of(error))
            unreadable_tail = (seconds, max(seconds, self._stated_seconds(clip)), record)
        seconds = samples / RATE
        check_duration(self.limits, clip.audio, seconds)
        if all(channel.silent for channel in channels):
            raise SilentAudioError.of(shown(clip.audio), f"{seconds:.0f} s", clip.offset)
        can_seek = reading.can_seek(clip.audio, storage=self.storage, content=content)
        channel_read, header = chosen_channel(clip.channel, self.channel), headers[-1]
        clip = clip._replace(version=header.version)
        clips = [with_taken(clip, channel_read, header.channels, louder)]
        if len(channels) > 1:
            clips = [clip._replace(channel=number) for number in range(len(channels))]
        shorter = is_shorter_than_file(clip, header.seconds)
        return [
            SegmentPlan(
                part.row.id or uuid.uuid4().hex,
                part,
                tuple(channel.segments(seconds, longest)),
                seconds,
                unreadable_tail,
                can_seek,
                shorter and number == 0,  # a row is counted once
            )
            for number, (part, channel) in enumerate(zip(clips, channels, strict=True))
        ]

    def _blocks(
        self, clip: Clip, content: bytes | None, on_header: Callable[[FileHeader], None]
    ) -> Iterator[np.ndarray]:
        """Yields the samples of a row at `RATE`, as `reading.stream_audio`."""
        return reading.stream_audio(
            clip.audio,
            AudioRequest(
                sample_rate=RATE,
                max_seconds=math.inf,
                offset=clip.offset,
                duration=clip.duration,
                channel=chosen_channel(clip.channel, self.channel),
                limits=self.limits,
            ),
            storage=self.storage,
            deadline=time.monotonic() + self.time_limit(clip),
            content=content,
            on_header=on_header,
        )

    def time_limit(self, clip: Clip) -> float:
        """Returns the seconds that planning may take."""
        hours = UNKNOWN_HOURS if clip.duration is None else clip.duration / 3600
        return self.timeout_seconds * max(1.0, hours)

    def _stated_seconds(self, clip: Clip) -> float:
        """Returns the length of a row as it or its file states; 0 if neither does."""
        if clip.duration is not None:
            return clip.duration
        try:
            return (reading.probe_duration(clip.audio, storage=self.storage) or 0.0) - clip.offset
        except Exception:  # of a file that is known to be broken
            return 0.0
