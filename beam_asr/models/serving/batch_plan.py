"""Which clips go together through the model.

A batch costs its padded seconds, clips x longest clip, and an overhead, whatever it holds. Some
plan of least cost cuts the sorted clips into runs: put the batches of any plan in descending order
of their longest clips, and deal the sorted clips out to batches of the same sizes. No batch's
longest clip grows, since all clips from that batch on were no longer; nor does a cost, and the
limits are kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class WaitingClip(NamedTuple):
    """A clip that waits for the model.

    Attributes:
        seconds: its length as the model takes it.
        kind: clips of different kinds are in different batches.
        overdue: whether it has waited so long that its batch is given in any case.
    """

    seconds: float
    kind: Hashable = None
    overdue: bool = False


class BatchLimits(NamedTuple):
    """What a batch may hold, and what it costs.

    Attributes:
        max_seconds: padded seconds; a longer clip goes alone.
        max_clips: clips.
        overhead_seconds: seconds of audio that the device would transcribe in the time that a
            batch takes whatever it holds.
    """

    max_seconds: float
    max_clips: int
    overhead_seconds: float


class BatchPlanner(Protocol):
    """Chooses which of the waiting clips go together through the model now."""

    def plan(
        self, clips: Sequence[WaitingClip], limits: BatchLimits, share: float
    ) -> list[list[int]]:
        """Returns batches of indices into the clips, in the order in which they are given.

        A clip is in at most one batch; those in none wait for more clips. With a share of 1 all
        clips are in one, and so are overdue ones always. A batch keeps the limits, and its clips
        are of one kind.

        Args:
            share: of the audio that waits, above 0, to be given at least.
        """


class LeastCostPlanner:
    """Gives the batches that cost least for the audio they hold: see `plan_most_efficient`."""

    def plan(
        self, clips: Sequence[WaitingClip], limits: BatchLimits, share: float
    ) -> list[list[int]]:
        return plan_most_efficient(
            [clip.seconds for clip in clips],
            share,
            limits.max_seconds,
            limits.max_clips,
            limits.overhead_seconds,
            {index for index, clip in enumerate(clips) if clip.overdue},
            [clip.kind for clip in clips],
        )


def plan_batches(
    seconds: Sequence[float],
    max_batch_seconds: float,
    batch_size: int,
    overhead_seconds: float = math.inf,
) -> list[list[int]]:
    """Splits clips into batches, at the least cost that the limits allow.

    A plan costs the sum of its batches' padded seconds, and ``overhead_seconds`` for each batch.

    Args:
        seconds: the length of each clip.
        max_batch_seconds: most padded seconds in a batch. A longer clip goes alone.
        batch_size: most clips in a batch.
        overhead_seconds: seconds of audio that the device would transcribe in the time that a
            batch takes whatever it holds. 0 tolerates no padding: only clips of equal length go
            together. Infinity fills each batch as far as it goes, which gives the fewest.

    Returns:
        Indices into ``seconds``, each exactly once: batches of descending length. The first need
        not be the one with the most padded seconds.
    """
    clips = sorted(range(len(seconds)), key=lambda i: (seconds[i], -i))
    counts = np.arange(len(clips), 0, -1.0)
    least = np.zeros(len(clips) + 1)  # cost of as many of the shortest clips
    begins = []  # for each clip, where the batch begins that it is the longest of
    begin = 0
    for end, clip in enumerate(clips, start=1):
        longest = seconds[clip]
        begin = max(begin, end - batch_size)
        while begin < end - 1 and (end - begin) * longest > max_batch_seconds:
            begin += 1
        costs = least[begin:end] + counts[begin - end :] * longest
        best = int(costs.argmin())  # of equal costs the first: the fullest batch
        least[end] = costs[best] + overhead_seconds
        # A longer longest clip makes each further clip dearer: the next batch begins no earlier.
        begin += best
        begins.append(begin)
    batches = []
    end = len(clips)
    while end:
        begin = begins[end - 1]
        batches.append(clips[begin:end][::-1])
        end = begin
    return batches


def plan_most_efficient(
    seconds: Sequence[float],
    share: float,
    max_batch_seconds: float,
    batch_size: int,
    overhead_seconds: float = math.inf,
    overdue: Collection[int] = (),
    kinds: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """The batches of a plan that cost least for the audio they hold, until they hold a share of it.

    What is left may be planned better together with clips that are not there yet.

    Args:
        share: of all seconds, above 0; 1 is the whole plan. At least one batch is given, if there
            are clips.
        overdue: clips whose batches are given in any case, and before all others.
        kinds: of the clips; those of different kinds are in different batches.

    Returns:
        As ``plan_batches``, which has the other arguments too.
    """
    alike: dict[Hashable, list[int]] = {}
    for index in range(len(seconds)):
        alike.setdefault(None if kinds is None else kinds[index], []).append(index)
    plan = [
        [indices[place] for place in batch]
        for indices in alike.values()
        for batch in plan_batches(
            [seconds[index] for index in indices], max_batch_seconds, batch_size, overhead_seconds
        )
    ]
    held = [sum(seconds[index] for index in batch) for batch in plan]
    costs = [
        (padded_seconds([seconds[index] for index in batch]) + overhead_seconds) / audio
        for batch, audio in zip(plan, held, strict=True)
    ]
    urgent = set(overdue)
    late = [not urgent.isdisjoint(batch) for batch in plan]
    chosen, left = set(), share * sum(seconds)
    for number in sorted(range(len(plan)), key=lambda each: (not late[each], costs[each])):
        if left <= 0 and share < 1 and not late[number]:
            break
        chosen.add(number)
        left -= held[number]
    return [batch for number, batch in enumerate(plan) if number in chosen]


def padded_seconds(seconds: Sequence[float]) -> float:
    """Clips x longest clip, of one batch of clips of these lengths."""
    return len(seconds) * max(seconds, default=0.0)


PLANNER: BatchPlanner = LeastCostPlanner()  # of every batcher
