"""Assigns each worker process a GPU of its machine, so that processes spread evenly.

Runners start processes that know nothing of each other. So each process takes a slot of a GPU by
binding an abstract Unix socket with the slot's name: Linux lets one process only bind a name, and
frees it when that process ends, however it ends (unix(7)). Such names belong to a network
namespace, which the processes of a machine share, and the containers of a pod or of a Dataflow
machine.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence

logger = logging.getLogger(__name__)

# Seconds that a process waits for a slot when all are taken. A runner may start the next step's
# workers while those of the step before are still ending.
TIMEOUT_SECONDS = 10.0
_PAUSE = 0.1

_lock = threading.Lock()
_held: dict[str, socket.socket] = {}  # by the GPU's name


def visible() -> list[str]:
    """Returns the names of the GPUs that torch sees, in its order; the same in every process."""
    import torch

    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [str(getattr(gpu, "uuid", index)) for index, gpu in enumerate(properties)]


def take(devices: Sequence[str], gpus: int, copies: int, timeout: float = TIMEOUT_SECONDS) -> int:
    """Takes a GPU for this process, which holds it until it ends.

    Processes spread evenly over the first GPUs; where another job has those, the next ones are
    taken. If all slots are taken, the process shares a GPU with more processes than planned.

    Args:
        devices: the names of the machine's GPUs.
        gpus: number of GPUs that a job uses on a machine.
        copies: number of processes that are to share a GPU.
        timeout: seconds to wait while all slots are taken.

    Returns:
        The index of the GPU; the same one in every call, and 0 where the system has no abstract
        sockets.
    """
    with _lock:
        for index, gpu in enumerate(devices):
            if gpu in _held:
                return index
        try:
            index, _held[devices[index]] = _find_slot(devices, gpus, copies, timeout)
        except OSError as error:  # of another system than Linux, or of a sandbox
            logger.warning("Processes cannot tell each other which GPU they take: %s", error)
            return 0
        return index


def _find_slot(
    devices: Sequence[str], gpus: int, copies: int, timeout: float
) -> tuple[int, socket.socket]:
    if sys.platform != "linux":
        raise OSError("abstract sockets are Linux's alone")
    deadline = time.monotonic() + timeout
    while True:
        for index, slot in _slots(len(devices), gpus, copies):
            if holder := _bind(devices[index], slot):
                return index, holder
        if time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE)
    for slot in itertools.count(copies):
        for index, gpu in enumerate(devices):
            if holder := _bind(gpu, slot):
                logger.warning("GPU %d is shared by more than %d of our processes", index, copies)
                return index, holder
    raise AssertionError("there is always one more place")


def _slots(devices: int, gpus: int, copies: int) -> Iterator[tuple[int, int]]:
    """Yields the indices of GPUs and their slots, in the order in which they are taken."""
    for first in range(0, devices, gpus):
        group = range(first, min(first + gpus, devices))
        for slot, index in itertools.product(range(copies), group):
            yield index, slot


def _bind(gpu: str, slot: int) -> socket.socket | None:
    """Binds a slot's socket, which holds it while open; None if another process has it."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0beam-asr/{gpu}/{slot}".encode())
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return holder


def _reset_after_fork() -> None:
    """Resets a forked process: the GPU is its parent's, and so is the lock's owner."""
    global _lock
    _lock = threading.Lock()
    for holder in _held.values():
        holder.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
