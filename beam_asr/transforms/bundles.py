"""Batches the elements of a bundle, for streams, whose bundles end after a moment.

Beam's ``BatchElements`` can keep elements for longer, as state. But it emits what remains at the
very end of the window, when the next step may have closed it: rows would be lost, or the job fail
(on Flink: "TimestampCombiner moved element to earlier time"). And within a bundle it emits a batch
with the time of the window's end. This one takes the time of the batch's first element, which holds
the window open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.windowed_value import WindowedValue


class BatchWithinBundle(beam.DoFn):
    """Yields lists of elements of a bundle, each of one window.

    Args:
        size_of: returns the size of an element.
        max_size: of the sizes in a list, summed; an element of that size or more is alone.
    """

    def __init__(self, size_of: Callable[[Any], int], max_size: int):
        self._size_of = size_of
        self._max_size = max_size

    def start_bundle(self) -> None:
        self._batches: dict[BoundedWindow, _WindowBatch] = {}

    def process(
        self,
        element: Any,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[WindowedValue]:
        size = self._size_of(element)
        batch = self._batches.get(window)
        if batch is not None and batch.size + size > self._max_size:
            yield batch.windowed(window)
            batch = None
        if batch is None:
            batch = self._batches[window] = _WindowBatch(timestamp)
        batch.elements.append(element)
        batch.size += size

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window, batch in self._batches.items():
            yield batch.windowed(window)


class _WindowBatch:
    def __init__(self, timestamp: Any):
        self.timestamp = timestamp
        self.elements: list[Any] = []
        self.size = 0

    def windowed(self, window: BoundedWindow) -> WindowedValue:
        return WindowedValue(self.elements, self.timestamp, [window])


def at_window(
    outputs: Iterable[Any], window: BoundedWindow, timestamp: Any = None
) -> Iterator[Any]:
    """Yields outputs of a bundle's end, which belong to no element, in a window.

    Args:
        timestamp: of an element of the bundle and the window, which holds the window open until
            then; None is the window's end.
    """
    for output in outputs:
        tagged = isinstance(output, TaggedOutput)
        value = output.value if tagged else output
        windowed_value = WindowedValue(value, timestamp or window.max_timestamp(), [window])
        yield TaggedOutput(output.tag, windowed_value) if tagged else windowed_value
