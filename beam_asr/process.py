"""How this process ends: on a signal, or at once when the device is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol

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


_worded: Callable[[str], str] = str


def set_wording(worded: Callable[[str], str]) -> None:
    """Has `exit_now` say messages as this function words them, from now on."""
    global _worded
    _worded = worded


def exit_now(message: str) -> NoReturn:
    """Saves what is to be saved, says why, and ends the process; from any thread."""
    try:
        message = _worded(message)
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


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def exit_on_signals(message: Callable[[str], str]) -> Iterator[None]:
    """Within it, SIGINT and SIGTERM save what is done and end the process; a second one ends it at
    once. In a thread other than the main one it changes nothing.

    Args:
        message: gives what to say, for the name of the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted, written = socket.socketpair()
    written.setblocking(False)
    received = 0

    def handle(*_: Any) -> None:
        nonlocal received
        received += 1
        if received > 1:
            os._exit(STATUS)

    def wait() -> None:
        number = noted.recv(1)
        if number and number[0] in SIGNALS:
            exit_now(message(signal.Signals(number[0]).name))

    before = {each: signal.signal(each, handle) for each in SIGNALS}
    fd_before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=wait, name="beam-asr-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for each, handler in before.items():
            signal.signal(each, handler)
        written.close()
        watcher.join()
        noted.close()
