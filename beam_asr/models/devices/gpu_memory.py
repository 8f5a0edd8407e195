"""Measures, limits and frees the memory of a model's GPU.

A CPU's memory counts as infinite and unused here; `cpu_memory` measures it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from beam_asr import errors
from beam_asr.errors import ResourceError
from beam_asr.models.devices.resources import GIGABYTE

if TYPE_CHECKING:
    import torch


# The messages of torch, NVIDIA's libraries, C++ and Linux.
_EXHAUSTED = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory|std::bad_alloc|"
    r"ALLOC(ATION)?_FAILED",
    re.IGNORECASE,
)


def is_exhausted(error: BaseException) -> bool:
    """Tells whether a batch was too large for the memory of its device, or of its process."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return _EXHAUSTED.search(errors.shortened(error)) is not None


def total(device: str) -> float | None:
    """Returns the bytes of a device's memory; None if that is not known."""
    import torch

    return torch.cuda.mem_get_info(device)[1] if device.startswith("cuda") else None


def empty_cache() -> None:
    """Frees the memory that torch caches for reuse, in pieces that may be too small now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def limit_process_memory(
    device: torch.device, copies: int, gpu_memory_gb: float | None = None
) -> None:
    """Limits this process to its part of a GPU's memory.

    Args:
        copies: number of processes that share the GPU.
        gpu_memory_gb: the part of each, in units of 10^9 bytes; None for equal parts.

    Raises:
        ResourceError: the GPU has too little.
    """
    import torch

    if device.type != "cuda" or (copies == 1 and gpu_memory_gb is None):
        return
    index, part = _index(device), 1 / copies
    if gpu_memory_gb is not None:
        available, total_bytes = torch.cuda.mem_get_info(index)
        available += torch.cuda.memory_reserved(index)  # of another model of this process
        requested = gpu_memory_gb * GIGABYTE
        if requested * copies > total_bytes:
            shared = f" for each of {copies} processes" if copies > 1 else ""
            raise ResourceError(
                f"`gpu_memory_gb={gpu_memory_gb:g}`{shared} is more than the "
                f"{total_bytes / GIGABYTE:.2f} GB of this worker's GPU. Give less, or the worker a "
                "GPU with more memory"
            )
        if requested > available:
            raise ResourceError(
                f"`gpu_memory_gb={gpu_memory_gb:g}` is more than the {available / GIGABYTE:.2f} GB "
                f"that are free of the {total_bytes / GIGABYTE:.2f} GB of this worker's GPU. Give "
                "less, or end what else uses it (nvidia-smi)"
            )
        part = requested / total_bytes
    torch.cuda.set_per_process_memory_fraction(part, index)


def free(device: torch.device) -> float:
    """Returns the bytes that can be allocated; infinite for a CPU."""
    import torch

    if device.type == "cpu":
        return math.inf
    empty_cache()
    available, total_bytes = torch.cuda.mem_get_info(device)
    part = torch.cuda.get_per_process_memory_fraction(_index(device)) * total_bytes
    return min(available, part - torch.cuda.memory_reserved(device))


def reset_peak(device: torch.device) -> int:
    """Returns the bytes in use, and starts a new measurement of the peak."""
    import torch

    if device.type == "cpu":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak(device: torch.device) -> int:
    """Returns the most bytes in use since `reset_peak`."""
    import torch

    return 0 if device.type == "cpu" else torch.cuda.max_memory_allocated(device)


def _index(device: torch.device) -> int:
    """Returns the index of a GPU, which torch's functions for process fractions need."""
    import torch

    return torch.cuda.current_device() if device.index is None else device.index
