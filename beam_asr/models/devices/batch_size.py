"""Measures how much audio suits a device in one forward pass, and limits it by memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MEMORY_SHARE = 0.7  # of the free memory that a batch may take: real batches differ from trials
MIN_GAIN = 1.03  # in speed, for which twice as large a batch is tried
NEAR_BEST = 0.95  # of the best speed; the smallest batch with as much is chosen


class BatchTrial(NamedTuple):
    """Holds the cost of a forward pass.

    Attributes:
        seconds: of time.
        memory: bytes at the peak.
    """

    seconds: float
    memory: float


class Budget(NamedTuple):
    """Holds what suits a device and a model.

    Attributes:
        batch_seconds: padded seconds of a batch.
        overhead_seconds: the fixed cost of a batch, as seconds of audio transcribed in that time.
    """

    batch_seconds: float
    overhead_seconds: float


def find_budget(
    attempt: Callable[[int], BatchTrial | None],
    clip_seconds: float,
    free_memory: float,
    max_clips: int,
) -> Budget | None:
    """Tries batches of 1, 2, 4, ... clips, until they are no faster or memory would not suffice.

    Args:
        attempt: runs a pass of a number of clips; None if they are too many for the memory.
        clip_seconds: length of each of them.
        free_memory: bytes.
        max_clips: of a batch.

    Returns:
        None if not even one clip fits.
    """
    trials: list[tuple[int, BatchTrial]] = []
    clips, best = 1, 0.0
    while (trial := attempt(clips)) is not None:
        trials.append((clips, trial))
        rate = clips / trial.seconds
        twice = min(2 * clips, max_clips)
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
    """Returns the overhead in clips: where the line through the times meets zero.

    The line is fitted by least squares of their ratios. A small device may have no overhead.
    """
    if len(trials) == 1:
        return math.inf  # then batches are filled as far as they go
    clips = np.array([clips for clips, _ in trials], float)
    times = np.array([trial.seconds for _, trial in trials])
    slope, fixed = np.polyfit(clips, times, 1, w=1 / times)
    return math.inf if slope <= 0 else max(0.0, fixed / slope)


class BatchLimit:
    """Learns how large a batch may be for the memory from the batches that were too large.

    It searches between the largest batch that fitted and the smallest that did not. A limit is not
    final: memory may be short for a moment, and then a batch fails, and its halves, down to the
    smallest. So after many passes in a row that fitted, larger batches test the limit, more rarely
    each time that it holds. Batches of one clip run whatever the limit, and teach it nothing.
    """

    PASSES_TO_TEST = 300
    MAX_DOUBLINGS = 10  # of the limit when it is tested
    NEAR = 0.1  # of the limit, which is no longer worth another failure

    def __init__(self) -> None:
        self._fitted = 0.0
        self._failed = math.inf
        self._in_a_row = 0
        self._passes_to_test = self.PASSES_TO_TEST

    @property
    def padded_seconds(self) -> float:
        """Returns the limit in padded seconds; infinite while no batch has failed."""
        if math.isinf(self._failed):
            return math.inf
        if self._tested:
            return self._failed * 2.0 ** min(
                self._in_a_row // self._passes_to_test, self.MAX_DOUBLINGS
            )
        if self._failed - self._fitted <= self.NEAR * self._failed:
            return self._fitted
        return (self._fitted + self._failed) / 2

    def record_success(self, clips: int, padded_seconds: float) -> None:
        """Records a batch that fitted into the memory."""
        tested, self._in_a_row = self._tested, self._in_a_row + 1
        if clips == 1:
            return
        if padded_seconds < self._failed:
            self._fitted = max(self._fitted, padded_seconds)
        elif tested:
            self._fitted, self._failed = padded_seconds, math.inf

    def record_failure(self, clips: int, padded_seconds: float) -> None:
        """Records a batch that was too large for the memory."""
        if clips == 1:
            return
        if self._tested:
            self._passes_to_test *= 2
        self._in_a_row = 0
        self._failed = min(self._failed, padded_seconds)
        if self._fitted >= self._failed:  # there was more memory then
            self._fitted = 0.0

    @property
    def _tested(self) -> bool:
        return self._in_a_row >= self._passes_to_test
