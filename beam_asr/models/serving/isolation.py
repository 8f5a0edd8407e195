"""Isolates failing items: halves a failed batch until each of them is alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def apply_bisecting(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], attempts: int = 1
) -> list[tuple[Result | Exception, int]]:
    """Applies a function to a batch so that an item that fails does so alone.

    Halving also solves exhausted memory: half a batch takes half the memory.

    Args:
        function: returns one result for each item, in their order.
        attempts: number of the first call.

    Returns:
        For each item, in order, its result or its exception, and the number of calls it was in.
    """
    if not items:
        return []
    try:
        results = function(items)
        return [(result, attempts) for result in results]
    except Exception as error:
        if len(items) == 1:
            return [(error, attempts)]
    half = len(items) // 2
    return [
        *apply_bisecting(function, items[:half], attempts + 1),
        *apply_bisecting(function, items[half:], attempts + 1),
    ]
