"""The memory of a model's device, and how large a batch may be for it.

Of a CPU nothing is known here: it has no end, and none is taken. (`cpu_memory` knows more.)
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


# What torch, NVIDIA's libraries, C++ and Linux call it.
_EXHAUSTED = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate memory|std::bad_alloc|"
    r"ALLOC(ATION)?_FAILED",
    re.IGNORECASE,
)


def is_exhausted(error: BaseException) -> bool:
    """Whether a batch was too much for the memory of its device, or of its process."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return _EXHAUSTED.search(errors.shortened(error)) is not None


def total(device: str) -> float | None:
    """Bytes of a device's memory; None if that is not known."""
    import torch

    return torch.cuda.mem_get_info(device)[1] if device.startswith("cuda") else None


def empty_cache() -> None:
    """Gives back what torch keeps for reuse, in pieces that may be too small now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def limit_process_memory(
    device: torch.device, copies: int, gpu_memory_gb: float | None = None
) -> None:
    """Leaves this process its part of a GPU's memory, and no more.

    Args:
        copies: processes that share the GPU.
        gpu_memory_gb: the part of each, in units of 10^9 bytes; None is an equal one.

    Raises:
        ResourceError: the GPU has not so much.
    """
    import torch

    if device.type != "cuda" or (copies == 1 and gpu_memory_gb is None):
        return
    index, part = _index(device), 1 / copies
    if gpu_memory_gb is not None:
        there, whole = torch.cuda.mem_get_info(index)
        there += torch.cuda.memory_reserved(index)  # of another model of this process
        wanted = gpu_memory_gb * GIGABYTE
        if wanted * copies > whole:
            shared = f" for each of {copies} processes" if copies > 1 else ""
            raise ResourceError(
                f"`gpu_memory_gb={gpu_memory_gb:g}`{shared} is more than the "
                f"{whole / GIGABYTE:.2f} GB of this worker's GPU. Give less, or the worker a GPU "
                "with more memory"
            )
        if wanted > there:
            raise ResourceError(
                f"`gpu_memory_gb={gpu_memory_gb:g}` is more than the {there / GIGABYTE:.2f} GB "
                f"that are free of the {whole / GIGABYTE:.2f} GB of this worker's GPU. Give less, "
                "or end what else uses it (nvidia-smi)"
            )
        part = wanted / whole
    torch.cuda.set_per_process_memory_fraction(part, index)


def free(device: torch.device) -> float:
    """Bytes that can be had."""
    import torch

    if device.type == "cpu":
        return math.inf
    empty_cache()
    there, whole = torch.cuda.mem_get_info(device)
    part = torch.cuda.get_per_process_memory_fraction(_index(device)) * whole
    return min(there, part - torch.cuda.memory_reserved(device))


def reset_peak(device: torch.device) -> int:
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


def _index(device: torch.device) -> int:
    """That of a GPU; torch's functions for the fraction of a process take no device without one."""
    import torch

    return torch.cuda.current_device() if device.index is None else device.index
