"""Keeps what a page needs of any number of rows in bounded memory."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


class Scale(NamedTuple):
    """Divides a range of values into bins.

    Attributes:
        start, end: of the range; what is beyond is counted in the last bin.
        bins: their number; the first begins at the start.
        logarithmic: whether each bin is wider than the one before, by the same factor.
    """

    start: float
    end: float
    bins: int
    logarithmic: bool = False

    def bin_of(self, value: float) -> int:
        """Returns the number of the bin of a value."""
        if self.logarithmic:
            share = math.log(max(value, self.start) / self.start) / math.log(self.end / self.start)
        else:
            share = (value - self.start) / (self.end - self.start)
        # Rates lie on the edges: what is a hair below one is meant to be on it.
        return min(max(int(share * self.bins + 1e-9), 0), self.bins - 1)

    def edge(self, number: int) -> float:
        """Returns the lower edge of a bin."""
        share = number / self.bins
        if self.logarithmic:
            return self.start * (self.end / self.start) ** share
        return self.start + (self.end - self.start) * share


class Histogram:
    """Counts values in the bins of a scale."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.counts = [0] * scale.bins
        self.rows = 0
        self.total = 0.0
        self.least, self.greatest = math.inf, -math.inf

    def add(self, value: float, bin_: int | None = None) -> None:
        """Counts a value; its bin may be given, where it is known."""
        self.counts[self.scale.bin_of(value) if bin_ is None else bin_] += 1
        self.rows += 1
        self.total += value
        if value < self.least:
            self.least = value
        if value > self.greatest:
            self.greatest = value

    @property
    def mean(self) -> float:
        """Returns the mean of all values; there must be one."""
        return self.total / self.rows

    def quantile(self, share: float) -> float:
        """Returns the value that this share of the values is up to, to the width of a bin."""
        wanted = share * self.rows
        seen = 0
        for number, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                # The lower edge: most rates lie on it, as 0 does.
                return min(max(self.scale.edge(number), self.least), self.greatest)
        return self.greatest

    def bars(self, most: int = 32) -> list[tuple[float, float, int]]:
        """Returns bars to draw: lower edge, upper edge and count, between the values' extremes.

        The few values beyond the 99.9th percentile are in the last bar, whose upper edge is then
        infinite.
        """
        first = self.scale.bin_of(self.least)
        last = self.scale.bin_of(max(self.quantile(0.999), self.least))
        width = max(1, -(-(last - first + 1) // most))
        bars = []
        for start in range(first, last + 1, width):
            count = sum(self.counts[start : start + width])
            bars.append((self.scale.edge(start), self.scale.edge(start + width), count))
        beyond = sum(self.counts[first + width * len(bars) :])
        if beyond:
            lower, _, count = bars.pop()
            bars.append((lower, math.inf, count + beyond))
        return bars


class Highest(Generic[Item]):
    """Keeps the items with the highest values; of equal ones the first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int, Item]] = []
        self._number = itertools.count(0, -1)

    def add(self, value: float, item: Item) -> None:
        """Keeps an item if its value is among the highest."""
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (value, next(self._number), item))
        elif value > self._heap[0][0]:
            heapq.heapreplace(self._heap, (value, next(self._number), item))

    def items(self) -> list[tuple[float, Item]]:
        """Returns the values and items, highest first."""
        return [(value, item) for value, _, item in sorted(self._heap, reverse=True, key=_order)]


def _order(entry: tuple[float, int, Any]) -> tuple[float, int]:
    return entry[:2]


class FairSample(Generic[Item]):
    """Keeps a sample in which each item is with the same chance; the same in every run."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._random = random.Random(0)
        self._seen = 0
        self.items: list[Item] = []

    def add(self, item: Item) -> None:
        """Keeps an item by chance."""
        self._seen += 1
        if len(self.items) < self._most:
            self.items.append(item)
            return
        place = self._random.randrange(self._seen)
        if place < self._most:
            self.items[place] = item


class BoundedCounter(Generic[Key]):
    """Counts what is frequent among keys of any number.

    Above the limit it forgets the keys with the lowest counts, so what is rare may be counted too
    low, by at most `forgotten`.
    """

    def __init__(self, limit: int = 500_000) -> None:
        self.counts: Counter[Key] = Counter()
        self.forgotten = 0
        self._limit = limit

    def update(self, keys: Iterable[Key]) -> None:
        """Counts keys."""
        self.counts.update(keys)
        if len(self.counts) > self._limit:
            floor = sorted(self.counts.values())[len(self.counts) // 2]
            self.forgotten += floor
            self.counts = Counter(
                {key: count for key, count in self.counts.items() if count > floor}
            )
