"""Which card (GPU) of its machine a worker process takes, so that processes do not crowd on one.

Runners start processes that know nothing of each other. So each process takes a place on a card by
binding an abstract Unix socket that is named after it: Linux gives a name to one process only, and
frees it when that process ends, however it ends (unix(7)). Such names belong to a network
namespace, which the processes of a machine share, and the containers of a pod or of one of
Dataflow's machines.
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

# Seconds that a process waits for a place when all are taken. A runner may start the next step's
# workers while those of the step before are still ending.
TIMEOUT_SECONDS = 10.0
_PAUSE = 0.1

_lock = threading.Lock()
_held: dict[str, socket.socket] = {}  # by the card


def visible() -> list[str]:
    """The names of the cards that torch sees, in its order; the same in every process."""
    import torch

    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [str(getattr(each, "uuid", index)) for index, each in enumerate(properties)]


def take(devices: Sequence[str], cards: int, copies: int, patience: float = TIMEOUT_SECONDS) -> int:
    """Takes a card for this process, which keeps it until it ends.

    The first cards are spread over evenly; where another job has them, the next ones are taken. If
    all are taken, the process shares one with more than it was meant to.

    Args:
        devices: the names of the cards that are there.
        cards: that a job uses of a machine.
        copies: processes that are to share a card.
        patience: seconds to wait while all are taken.

    Returns:
        The index of the card; the same one whenever the process asks again, and 0 where the system
        has no abstract sockets.
    """
    with _lock:
        for index, card in enumerate(devices):
            if card in _held:
                return index
        try:
            index, _held[devices[index]] = _find(devices, cards, copies, patience)
        except OSError as error:  # of another system than Linux, or of a sandbox
            logger.warning("Processes cannot tell each other which GPU they take: %s", error)
            return 0
        return index


def _find(
    devices: Sequence[str], cards: int, copies: int, patience: float
) -> tuple[int, socket.socket]:
    if sys.platform != "linux":
        raise OSError("abstract sockets are Linux's alone")
    deadline = time.monotonic() + patience
    while True:
        for index, place in _places(len(devices), cards, copies):
            if holder := _bound(devices[index], place):
                return index, holder
        if time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE)
    for place in itertools.count(copies):
        for index, card in enumerate(devices):
            if holder := _bound(card, place):
                logger.warning("GPU %d is shared by more than %d of our processes", index, copies)
                return index, holder
    raise AssertionError("there is always one more place")


def _places(devices: int, cards: int, copies: int) -> Iterator[tuple[int, int]]:
    """The indices of cards and the places on them, in the order in which they are taken."""
    for first in range(0, devices, cards):
        group = range(first, min(first + cards, devices))
        for place, index in itertools.product(range(copies), group):
            yield index, place


def _bound(card: str, place: int) -> socket.socket | None:
    """What holds the place while it is open; None if another process has it."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        holder.bind(f"\0beam-asr/{card}/{place}".encode())
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return holder


def _start_anew() -> None:
    """In a process that was forked off: the card is its parent's, and so is the lock's owner."""
    global _lock
    _lock = threading.Lock()
    for holder in _held.values():
        holder.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
