"""How much audio a device takes best in one forward pass, found by trying."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

MEMORY_SHARE = 0.7  # of the free memory that a batch may take: real ones differ from those tried
LEAST_GAIN = 1.03  # in speed, for which twice as large a batch is tried
NEAR_BEST = 0.95  # of the best speed, which the smallest such batch is as good as


class Trial(NamedTuple):
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
    attempt: Callable[[int], Trial | None],
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
    trials: list[tuple[int, Trial]] = []
    clips, best = 1, 0.0
    while (trial := attempt(clips)) is not None:
        trials.append((clips, trial))
        rate = clips / trial.seconds
        twice = min(2 * clips, most_clips)
        too_much = trial.memory * twice / clips > MEMORY_SHARE * free_memory
        if twice == clips or too_much or rate < LEAST_GAIN * best:
            break
        clips, best = twice, rate
    if not trials:
        return None
    best = max(clips / trial.seconds for clips, trial in trials)
    enough = next(clips for clips, trial in trials if clips / trial.seconds >= NEAR_BEST * best)
    return Budget(enough * clip_seconds, _overhead(trials) * clip_seconds)


def _overhead(trials: list[tuple[int, Trial]]) -> float:
    """In clips: where the line through the times meets no time, by least squares of their ratios.

    A small device may show none.
    """
    if len(trials) == 1:
        return math.inf  # then batches are filled as far as they go
    clips = np.array([clips for clips, _ in trials], float)
    times = np.array([trial.seconds for _, trial in trials])
    slope, fixed = np.polyfit(clips, times, 1, w=1 / times)
    return math.inf if slope <= 0 else max(0.0, fixed / slope)
