"""Windows of clips in a stream: what came in a bundle, which ends by itself after a moment.

Beam's ``BatchElements`` can keep elements for longer, as state. But its rests come at the very end
of their window of time, when what follows may have closed it: rows would be lost, or the job fail
(on Flink: "TimestampCombiner moved element to earlier time"). And within a bundle it gives a window
of clips the time of the window's end, where this gives that of its first clip, which holds the
window of time open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import BoundedWindow
from apache_beam.utils.windowed_value import WindowedValue


class BatchWithinBundle(beam.DoFn):
    """Gives lists of elements of a bundle, each of one window of time.

    Args:
        size_of: the size of an element.
        most: of the sizes in a list; an element of that size or more is alone.
    """

    def __init__(self, size_of: Callable[[Any], int], most: int):
        self._size_of = size_of
        self._most = most

    def start_bundle(self) -> None:
        self._gathered: dict[BoundedWindow, _Gathered] = {}

    def process(
        self,
        element: Any,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[WindowedValue]:
        size = self._size_of(element)
        gathered = self._gathered.get(window)
        if gathered is not None and gathered.size + size > self._most:
            yield gathered.windowed(window)
            gathered = None
        if gathered is None:
            gathered = self._gathered[window] = _Gathered(timestamp)
        gathered.elements.append(element)
        gathered.size += size

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for window, gathered in self._gathered.items():
            yield gathered.windowed(window)


class _Gathered:
    def __init__(self, timestamp: Any):
        self.timestamp = timestamp
        self.elements: list[Any] = []
        self.size = 0

    def windowed(self, window: BoundedWindow) -> WindowedValue:
        return WindowedValue(self.elements, self.timestamp, [window])


def at_window(
    outputs: Iterable[Any], window: BoundedWindow, timestamp: Any = None
) -> Iterator[Any]:
    """Outputs of a bundle's end, which belong to no element, in a window.

    Args:
        timestamp: of an element of the bundle and the window, before which the window has not
            passed; None is its end.
    """
    for output in outputs:
        tagged = isinstance(output, TaggedOutput)
        value = output.value if tagged else output
        placed = WindowedValue(value, timestamp or window.max_timestamp(), [window])
        yield TaggedOutput(output.tag, placed) if tagged else placed
