"""Which clips go together through the model.

The cost of a batch is its padded seconds: number of clips x longest clip. Clips of like length go
together, the longest first, so that the first batch is also the one that needs most memory.
"""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(
    seconds: Sequence[float], max_batch_seconds: float, batch_size: int
) -> list[list[int]]:
    """Splits clips into batches.

    Args:
        seconds: the length of each clip.
        max_batch_seconds: most padded seconds in a batch. A longer clip goes alone.
        batch_size: most clips in a batch.

    Returns:
        Indices into ``seconds``, each exactly once: batches of descending length.
    """
    batches: list[list[int]] = []
    longest = 0.0
    for index in sorted(range(len(seconds)), key=lambda i: (-seconds[i], i)):
        batch = batches[-1] if batches else []
        fits = len(batch) < batch_size and (len(batch) + 1) * longest <= max_batch_seconds
        if batch and fits:
            batch.append(index)
        else:
            batches.append([index])
            longest = seconds[index]
    return batches


def padded_seconds(seconds: Sequence[float]) -> float:
    """The cost of one batch of clips of these lengths."""
    return len(seconds) * max(seconds, default=0.0)
