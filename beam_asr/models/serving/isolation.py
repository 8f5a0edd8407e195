"""One bad clip never costs its neighbours: a failed batch is halved until it is alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def apply_bisecting(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], attempts: int = 1
) -> list[tuple[Result | Exception, int]]:
    """Applies a function of a batch so that what fails in it fails alone.

    Out of memory is healed by the same halving: half a batch takes half the memory.

    Returns:
        For each item, in order, its result or its own exception, and the calls it took part in.
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
