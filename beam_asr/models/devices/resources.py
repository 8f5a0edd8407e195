"""Limits what a worker process uses of its machine: GPUs, GPU memory and CPUs.

A job uses some GPUs of a machine, and each GPU is shared by some copies of the model: worker
processes that each load the model. `runners.apply_runner_defaults` configures runners accordingly,
a process takes its GPU by `gpu_slots.take`, and its part of the GPU's memory by
`gpu_memory.limit_process_memory`.
"""

from __future__ import annotations

import os

from beam_asr.errors import ResourceError, SetupError
from beam_asr.settings import Resources

GIGABYTE = 1e9  # as GPUs are sold: of 16 GB, CUDA reports some 15.8


def check(resources: Resources, device: str) -> None:
    """Checks the requested resources against the chosen device.

    Raises:
        SetupError: they contradict each other.
    """
    if device == "cpu" and resources.requested_gpu:
        raise SetupError(
            f"{resources.requested_gpu} asks for a GPU, and `device=cpu` for none: leave one of "
            "them out"
        )


def available_cpus() -> int:
    """Returns the number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_cpus(cpus: int) -> None:
    """Sets the number of threads of torch and other users of OpenMP in this process.

    The thread that drives the model calls it, before torch is imported if possible: OpenMP reads
    its variable only once.

    Raises:
        ResourceError: there are fewer CPUs.
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
    """Returns the resource hint ``accelerator`` of the model's step, or None for no hint."""
    if accelerator is None or model_copies == 1:
        return accelerator
    return shares_gpu(accelerator)


def shares_gpu(spec: str) -> str:
    """Returns an accelerator's spec with NVIDIA MPS, by which processes share the GPU."""
    return spec if SHARE_GPU in spec.split(";") else f"{spec};{SHARE_GPU}"
