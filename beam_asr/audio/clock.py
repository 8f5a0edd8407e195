"""Lays decoded frames on the clock of their container.

A container counts time itself: where packets were lost, or a recorder paused, its timestamps go on
although the samples do not. Players follow the timestamps, and so must the times of words.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from beam_asr.errors import CorruptAudioError

MAX_HOLES_S = 12 * 3600.0  # of a file; beyond it a timestamp is broken, or has overflowed
# Where pieces were encoded apart and joined, the padding of each, up to 0.1 s, overlaps the next.
MAX_OVERLAP_S = 0.25
# Of all samples; more, and the timestamps run slower than the samples, which no cut corrects.
_MAX_OVERLAPPING = 0.05
_ROUNDING_S = 0.0011  # most containers count milliseconds; some round, some cut off
_AHEAD = 16  # frames that decide whether a difference is a jump

T = TypeVar("T")


class Timed(NamedTuple):
    """A frame of samples.

    Attributes:
        stated: where its timestamp puts it, in samples on the clock; None if it has none.
        samples: their number.
    """

    stated: float | None
    samples: int


class Clock:
    """Lays the frames of one pass over a file.

    Timestamps are rounded, and those of live sources tremble. So a difference between a timestamp
    and the end of the frame before is a jump only as far as the next frames keep it. Differences do
    not add up, since each is taken to all samples before it.

    Args:
        name: the file's, for messages.
        rate: in Hz.
        tick: the unit of the timestamps, in seconds.
        may_restart: whether a clock that goes back goes on from where it was, as where transport
            streams were joined; otherwise that is an error, since seeks would go astray.
    """

    def __init__(self, name: str, rate: int, tick: float, may_restart: bool) -> None:
        self._name = name
        self._rate = rate
        self._tolerance = max(tick, _ROUNDING_S) * rate
        self._may_restart = may_restart
        self._shift = 0.0  # added to timestamps, in samples
        self._holes = 0.0  # in samples
        self._overlaps = 0.0  # in samples

    def lay(
        self, frames: Iterator[tuple[Timed, T]], position: float | None
    ) -> Iterator[tuple[int, T]]:
        """Yields each frame with the sample on the clock where it starts.

        It may start after the end of the frame before (a hole), or before it (an overlap).

        Args:
            frames: in the order of the file.
            position: where the first one starts if its timestamp does not differ; None takes the
                timestamp.

        Raises:
            CorruptAudioError: the clock goes back or is too slow, or holes are longer than 12 h.
        """
        ahead = _Ahead(frames)
        for timed, frame in ahead:
            if timed.stated is not None:
                stated = timed.stated + self._shift
                if position is None:
                    position = stated
                difference = stated - position
                if abs(difference) > self._tolerance:
                    following = ahead.differences(position + timed.samples - self._shift)
                    position += self._jump(position, difference, following)
            position = position or 0.0
            yield math.floor(position + 0.5), frame
            position += timed.samples

    def _jump(self, position: float, difference: float, following: list[float]) -> float:
        """Returns by how many samples the clock jumps: what the next frames keep of a difference.

        All of it is taken if they differ by the rounding only, so that errors do not remain.
        """
        kept = min if difference > 0 else max
        jump = kept([difference, *following])
        if abs(jump) <= self._tolerance or (jump > 0) != (difference > 0):
            return 0.0
        if abs(jump - difference) <= self._tolerance:
            jump = difference
        if jump < -MAX_OVERLAP_S * self._rate and self._may_restart:
            self._shift -= jump
            return 0.0
        self._holes += max(0.0, jump)
        self._overlaps -= min(0.0, jump)
        self._check(position, jump)
        return jump

    def _check(self, position: float, jump: float) -> None:
        """Raises if the clock cannot be right."""
        rate, name = self._rate, self._name
        if jump < -MAX_OVERLAP_S * rate:
            raise CorruptAudioError(
                f"{name}: its timestamps go back from {position / rate:.2f} s to "
                f"{(position + jump) / rate:.2f} s, as where recordings were joined. "
                "Convert it, for example to FLAC."
            )
        if self._overlaps > rate + _MAX_OVERLAPPING * position:
            raise CorruptAudioError(
                f"{name}: its timestamps are slower than its samples, by "
                f"{self._overlaps / rate:.2f} s up to {position / rate:.2f} s. "
                "Convert it, for example to FLAC."
            )
        if self._holes > MAX_HOLES_S * rate:
            raise CorruptAudioError(
                f"{name}: its timestamps leave out {self._holes / rate / 3600:.1f} h, the last of "
                f"it at {position / rate:.2f} s. More than {MAX_HOLES_S / 3600:.0f} h is taken for "
                "an error. Convert it, for example to FLAC."
            )


class _Ahead(Iterator[tuple[Timed, T]]):
    """Iterates over frames, and looks at the next ones where that is needed."""

    def __init__(self, frames: Iterator[tuple[Timed, T]]) -> None:
        self._frames = frames
        self._waiting: deque[tuple[Timed, T]] = deque()
        self._failure: Exception | None = None

    def __next__(self) -> tuple[Timed, T]:
        """Returns the next frame; an error that came while looking ahead is raised at its turn."""
        if self._waiting:
            return self._waiting.popleft()
        if self._failure is not None:
            raise self._failure
        return next(self._frames)

    def differences(self, position: float) -> list[float]:
        """Returns how far the next frames' timestamps are after the end of those before them.

        Args:
            position: the end of the last frame by its samples, on the clock of the timestamps.
        """
        while len(self._waiting) < _AHEAD and self._failure is None:
            try:
                self._waiting.append(next(self._frames))
            except Exception as error:  # StopIteration too
                self._failure = error
        differences = []
        for timed, _ in self._waiting:
            if timed.stated is not None:
                differences.append(timed.stated - position)
            position += timed.samples
        return differences
