"""The memory of a model's device. Of a CPU nothing is known: it has no end, and none is taken."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def is_exhausted(error: BaseException) -> bool:
    """Whether a batch was too much for the memory of its device."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On a CPU torch raises a RuntimeError of these words.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def give_back() -> None:
    """Gives back what torch keeps for reuse, in pieces that may be too small now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free(device: torch.device) -> float:
    """Bytes that can be had."""
    import torch

    if device.type == "cpu":
        return math.inf
    give_back()
    return torch.cuda.mem_get_info(device)[0]


def begin_peak(device: torch.device) -> int:
    """Bytes that are taken; from now on the peak counts."""
    import torch

    if device.type == "cpu":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak(device: torch.device) -> int:
    """Most bytes that were taken since."""
    import torch

    return 0 if device.type == "cpu" else torch.cuda.max_memory_allocated(device)
