"""How much audio a device takes best in one forward pass, found by trying."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MEMORY_SHARE = 0.7  # of the free memory that a batch may take: real ones differ from those tried
MIN_GAIN = 1.03  # in speed, for which twice as large a batch is tried
NEAR_BEST = 0.95  # of the best speed, which the smallest such batch is as good as


class BatchTrial(NamedTuple):
    """What a forward pass took.

    Attributes:
        seconds: of time.
        memory: bytes, at the most.
    """

    seconds: float
    memory: float


class Budget(NamedTuple):
    """What suits a device and a model.

    Attributes:
        batch_seconds: padded seconds of a batch.
        overhead_seconds: seconds of audio that it transcribes in the time that any batch costs.
    """

    batch_seconds: float
    overhead_seconds: float


def find(
    attempt: Callable[[int], BatchTrial | None],
    clip_seconds: float,
    free_memory: float,
    most_clips: int,
) -> Budget | None:
    """Tries batches of 1, 2, 4, ... clips, until they are no faster or the memory would not do.

    Args:
        attempt: makes a pass of so many clips; None if they are too many for the memory.
        clip_seconds: length of each of them.
        free_memory: bytes.
        most_clips: that a batch may have.

    Returns:
        None if not even one clip fits.
    """
    trials: list[tuple[int, BatchTrial]] = []
    clips, best = 1, 0.0
    while (trial := attempt(clips)) is not None:
        trials.append((clips, trial))
        rate = clips / trial.seconds
        twice = min(2 * clips, most_clips)
        too_much = trial.memory * twice / clips > MEMORY_SHARE * free_memory
        if twice == clips or too_much or rate < MIN_GAIN * best:
            break
        clips, best = twice, rate
    if not trials:
        return None
    best = max(clips / trial.seconds for clips, trial in trials)
    enough = next(clips for clips, trial in trials if clips / trial.seconds >= NEAR_BEST * best)
    return Budget(enough * clip_seconds, _overhead(trials) * clip_seconds)


def _overhead(trials: list[tuple[int, BatchTrial]]) -> float:
    """In clips: where the line through the times meets no time, by least squares of their ratios.

    A small device may show none.
    """
    if len(trials) == 1:
        return math.inf  # then batches are filled as far as they go
    clips = np.array([clips for clips, _ in trials], float)
    times = np.array([trial.seconds for _, trial in trials])
    slope, fixed = np.polyfit(clips, times, 1, w=1 / times)
    return math.inf if slope <= 0 else max(0.0, fixed / slope)


class BatchLimit:
    """How large a batch may be for the memory, learnt from those that were too much for it.

    It is searched between the largest batch that held and the smallest that did not. A limit is
    no limit for ever: memory may be short for a moment, and then a batch fails, and its halves,
    down to the smallest. So after many passes in a row that held, it is put to the test by larger
    batches; the more rarely, the more often it stood. Clips alone are passed whatever the limit,
    and count for neither side.
    """

    PATIENCE = 300  # passes
    DOUBLINGS = 10  # of the limit when it is tested, at the most
    NEAR = 0.1  # of the limit, which is no longer worth another failure

    def __init__(self) -> None:
        self._held = 0.0
        self._failed = math.inf
        self._in_a_row = 0
        self._patience = self.PATIENCE

    @property
    def padded_seconds(self) -> float:
        if math.isinf(self._failed):
            return math.inf
        if self._tested:
            return self._failed * 2.0 ** min(self._in_a_row // self._patience, self.DOUBLINGS)
        if self._failed - self._held <= self.NEAR * self._failed:
            return self._held
        return (self._held + self._failed) / 2

    def hold(self, clips: int, padded_seconds: float) -> None:
        """Takes note of a batch that the memory held."""
        tested, self._in_a_row = self._tested, self._in_a_row + 1
        if clips == 1:
            return
        if padded_seconds < self._failed:
            self._held = max(self._held, padded_seconds)
        elif tested:
            self._held, self._failed = padded_seconds, math.inf

    def fail(self, clips: int, padded_seconds: float) -> None:
        """Takes note of a batch that was too much for the memory."""
        if clips == 1:
            return
        if self._tested:
            self._patience *= 2
        self._in_a_row = 0
        self._failed = min(self._failed, padded_seconds)
        if self._held >= self._failed:  # there was more memory then
            self._held = 0.0

    @property
    def _tested(self) -> bool:
        return self._in_a_row >= self._patience
