"""Ends the process at once where it cannot go on, with what was done left in order.

A GPU that is lost, a forward pass that is stuck and a signal have this in common: threads cannot be
waited for, and no exception must turn rows into failures. So the process ends without unwinding,
after some seconds for those who have something to save.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import weakref
from pathlib import Path
from typing import NoReturn, Protocol

logger = logging.getLogger(__name__)

SECONDS_TO_SAVE = 8.0
STATUS = 1


class Saver(Protocol):
    """Has something that must not be lost with the process."""

    def save(self) -> None:
        """Saves it; called from any thread, maybe while another one uses the object."""


_savers: weakref.WeakSet[Saver] = weakref.WeakSet()
_lock = threading.Lock()


def register(saver: Saver) -> None:
    """Has something saved before the process ends, for as long as it is referred to elsewhere."""
    with _lock:
        _savers.add(saver)


def save_all(seconds: float = SECONDS_TO_SAVE) -> None:
    """Has everything saved, for at most so many seconds."""
    with _lock:
        savers = list(_savers)
    threads = [threading.Thread(target=_save, args=(saver,), daemon=True) for saver in savers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds / len(threads))


def exit_now(message: str) -> NoReturn:
    """Saves what is to be saved, says why, and ends the process; from any thread."""
    try:
        end_children()
        save_all()
        logger.critical("%s", message)
        print(f"beam-asr: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    finally:
        os._exit(STATUS)


def end_children() -> None:
    """Ends the workers and servers that this process has started, which would go on alone."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)


def _save(saver: Saver) -> None:
    try:
        saver.save()
    except Exception as error:  # the others are to be saved all the same
        logger.error("could not save what was done: %s: %s", type(error).__name__, error)
