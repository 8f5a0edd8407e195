"""Plans the segments of long rows, reading each row once, as a stream."""

from __future__ import annotations

import dataclasses
import math
import time
import uuid

from beam_asr.audio import reading, segmentation
from beam_asr.audio.limits import check_duration, is_shorter_than_file
from beam_asr.audio.reading import AudioRequest
from beam_asr.audio.source import shown
from beam_asr.audio.vad import RATE, Detector
from beam_asr.errors import AudioError, AudioTimeoutError, SilentAudioError
from beam_asr.records.record import error_of
from beam_asr.records.work import Clip, SegmentPlan
from beam_asr.settings import NO_LIMITS, AudioLimits
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage

UNKNOWN_HOURS = 24.0  # assumed of a recording whose row states no duration
MIN_SECONDS = 1.0  # before the place where a recording breaks off, to use that part


@dataclasses.dataclass(frozen=True)
class Planner:
    """Plans the segments of long rows.

    Attributes:
        storage: how storages are opened, and which may be.
        channel: the channel to take where a row names none, from 0; None averages them.
        timeout_seconds: time limit of a file, and as much again for each further hour of audio.
        segmentation: ``vad`` cuts in pauses and leaves silence out, ``fixed`` cuts by the clock.
        keep_parts: whether the readable part of a recording that breaks off is used.
        limits: what a row's audio must be like.
    """

    storage: Storage
    channel: int | None
    timeout_seconds: float
    segmentation: str
    keep_parts: bool
    limits: AudioLimits = NO_LIMITS

    def plan(self, clip: Clip, longest: float, content: bytes | None = None) -> SegmentPlan:
        """Plans a row.

        Args:
            longest: maximum seconds of a segment.
            content: the file's bytes, if they are in memory.

        Raises:
            AudioError: it cannot be read.
            Exception: whatever its storage raises when that is not the file's fault.
        """
        maximum = dataclasses.replace(self.limits, min_duration=None)
        if clip.duration is not None:
            check_duration(maximum, shown(clip.audio), clip.duration)
        unreadable_tail = None
        detector = Detector()
        samples, silent = 0, True
        stated: list[float | None] = [None]
        blocks = reading.stream_audio(
            clip.audio,
            AudioRequest(
                sample_rate=RATE,
                max_seconds=math.inf,
                offset=clip.offset,
                duration=clip.duration,
                channel=self.channel if clip.channel is None else clip.channel,
                limits=self.limits,
            ),
            storage=self.storage,
            deadline=time.monotonic() + self.time_limit(clip),
            content=content,
            on_header=stated.append,
        )
        try:
            for block in blocks:
                samples += len(block)
                check_duration(maximum, shown(clip.audio), samples / RATE)
                silent = silent and not block.any()
                if self.segmentation == "vad":
                    detector.add(block)
        except AudioError as error:
            seconds = samples / RATE
            is_whole = isinstance(error, AudioTimeoutError) or error.is_refusal
            if is_whole or not self.keep_parts or seconds < MIN_SECONDS:
                raise
            record = error_of(clip.row, error, attempts_of(error))
            unreadable_tail = (seconds, max(seconds, self._stated_seconds(clip)), record)
        seconds = samples / RATE
        check_duration(self.limits, shown(clip.audio), seconds)
        if silent:
            raise SilentAudioError.of(shown(clip.audio), f"{seconds:.0f} s", clip.offset)
        if self.segmentation == "vad":
            segments = segmentation.plan_by_pauses(detector.finish(), longest)
        else:
            segments = segmentation.plan_fixed(seconds, longest)
        key = clip.row.id or uuid.uuid4().hex
        can_seek = reading.can_seek(clip.audio, storage=self.storage, content=content)
        shorter = is_shorter_than_file(clip, stated[-1])
        return SegmentPlan(key, clip, tuple(segments), seconds, unreadable_tail, can_seek, shorter)

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
