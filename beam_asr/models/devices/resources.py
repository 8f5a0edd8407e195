"""What a worker may use of its machine: its GPUs and their memory, and its CPUs.

A machine uses some cards (GPUs), and each card is shared by some copies of the model: worker
processes with a model of their own. Runners are told so by `runners.apply_runner_defaults`, a
process takes its card by `cards.take`, and its part of the card's memory by
`device_memory.limit_process_memory`.
"""

from __future__ import annotations

import os

from beam_asr.errors import ResourceError, SetupError
from beam_asr.settings import Resources

GIGABYTE = 1e9  # as cards are sold: of 16 GB, CUDA tells some 15.8


def check(resources: Resources, device: str) -> None:
    """Checks what was asked for against the device that was chosen.

    Raises:
        SetupError: they do not go together.
    """
    if device == "cpu" and resources.asked_gpu:
        raise SetupError(
            f"{resources.asked_gpu} asks for a GPU, and `device=cpu` for none: leave one of them "
            "out"
        )


def available_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_cpus(cpus: int) -> None:
    """Has torch and OpenMP's other users in this process compute in so many threads.

    It is for the thread that drives the model, before torch is imported if that can be: OpenMP
    reads its variable but once.

    Raises:
        ResourceError: there are not so many CPUs.
    """
    available = available_cpus()
    if cpus > available:
        raise ResourceError(
            f"`cpus={cpus}` was requested, but this worker may run on {available}. Give fewer, or "
            "the worker a larger machine"
        )
    os.environ["OMP_NUM_THREADS"] = str(cpus)
    import torch

    torch.set_num_threads(cpus)


SHARE_GPU = "use_nvidia_mps"


def accelerator_hint(accelerator: str | None, model_copies: int) -> str | None:
    """The resource hint ``accelerator`` of the model's step, or None for no hint."""
    if accelerator is None or model_copies == 1:
        return accelerator
    return shares_gpu(accelerator)


def shares_gpu(spec: str) -> str:
    return spec if SHARE_GPU in spec.split(";") else f"{spec};{SHARE_GPU}"
