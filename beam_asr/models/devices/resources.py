"""What a worker may use of its machine: its GPUs and their memory, and its CPUs.

A machine uses some cards (GPUs), and each card is shared by some copies of the model: worker
processes with a model of their own. Runners are told so by `runners.settle`, a process takes its
card by `cards.take`, and its part of the card's memory by `device_memory.take_part`.
"""

from __future__ import annotations

import dataclasses
import os

GIGABYTE = 1e9  # as cards are sold: of 16 GB, CUDA tells some 15.8

# How far 1/n may be from a fraction that stands for it, as 0.33 for a third.
FRACTION_ERROR = 0.05


class ResourceError(RuntimeError):
    """A worker has less than what was asked for; the message says of what, and what to do."""


@dataclasses.dataclass(frozen=True)
class Resources:
    """What was asked for. The fields are flags of the same names; None asks for nothing.

    Attributes:
        gpus: of a worker machine, each with a process and a model of its own; 1/n has n processes
            share one.
        cpus: that a worker process may use.
        gpu_memory_gb: of its GPU's memory, in units of 10^9 bytes, that a worker process may use.
        model_copies: processes that share a GPU.

    Raises:
        ValueError: one is out of its range, or two say different things.
    """

    gpus: float | None = None
    cpus: int | None = None
    gpu_memory_gb: float | None = None
    model_copies: int = 1

    def __post_init__(self) -> None:
        gpus = self.gpus
        if gpus is not None and not (_is_whole(gpus) if gpus >= 1 else _is_part(gpus)):
            raise ValueError(
                f"gpus is {gpus:g}, but must be a whole number, or a fraction such as 0.5 or 0.25"
            )
        if self.cpus is not None and self.cpus < 1:
            raise ValueError(f"cpus is {self.cpus}, but must be at least 1")
        if self.gpu_memory_gb is not None and not self.gpu_memory_gb > 0:
            raise ValueError(f"gpu_memory_gb is {self.gpu_memory_gb:g}, but must be above 0")
        if self.model_copies < 1:
            raise ValueError(f"model_copies is {self.model_copies}, but must be at least 1")
        if self.model_copies not in (1, self.copies):
            raise ValueError(
                f"gpus={gpus:g} has {self.copies} processes share a GPU, and "
                f"model_copies={self.model_copies} has {self.model_copies}: leave one of them out"
            )

    @property
    def cards(self) -> int:
        """GPUs of a machine that are used."""
        return 1 if self.gpus is None or self.gpus < 1 else round(self.gpus)

    @property
    def copies(self) -> int:
        """Processes that share a GPU."""
        if self.gpus is not None and self.gpus < 1:
            return round(1 / self.gpus)
        return self.model_copies

    @property
    def processes(self) -> int:
        """Processes of a machine."""
        return self.cards * self.copies

    @property
    def asked_processes(self) -> str:
        """The flags that say how many processes there are; empty if none does."""
        gpus = [] if self.gpus is None else [f"--gpus={self.gpus:g}"]
        copies = [f"--model_copies={self.model_copies}"] if self.model_copies > 1 else []
        return " ".join(gpus + copies)

    @property
    def asked_gpu(self) -> str:
        """The flags that mean nothing without a GPU; empty if none is given."""
        given = {"--gpus": self.gpus, "--gpu_memory_gb": self.gpu_memory_gb}
        return " ".join(f"{flag}={value:g}" for flag, value in given.items() if value is not None)


UNLIMITED = Resources()


def check(resources: Resources, device: str) -> None:
    """Checks what was asked for against the device that was chosen.

    Raises:
        ValueError: they do not go together.
    """
    if device == "cpu" and resources.asked_gpu:
        raise ValueError(
            f"{resources.asked_gpu} asks for a GPU, and --device=cpu for none: leave one of them "
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
            f"--cpus={cpus} was asked for, but this worker may run on {available}. Give fewer, or "
            "the worker a larger machine"
        )
    os.environ["OMP_NUM_THREADS"] = str(cpus)
    import torch

    torch.set_num_threads(cpus)


def _is_whole(number: float) -> bool:
    return number == round(number)


def _is_part(number: float) -> bool:
    return number > 0 and abs(1 / number - round(1 / number)) < FRACTION_ERROR
