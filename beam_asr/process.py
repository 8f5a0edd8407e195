"""Ends this process on a signal, or at once after a fault, and saves results first."""

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
    """Holds results that must not be lost with the process."""

    def save(self) -> None:
        """Saves the results; called from any thread, maybe while another one uses the object."""


_savers: weakref.WeakSet[Saver] = weakref.WeakSet()
_lock = threading.Lock()


def register(saver: Saver) -> None:
    """Registers a saver, to be called before the process ends; holds only a weak reference."""
    with _lock:
        _savers.add(saver)


def save_all(seconds: float = SECONDS_TO_SAVE) -> None:
    """Calls all savers, for at most ``seconds`` in all."""
    with _lock:
        savers = list(_savers)
    threads = [threading.Thread(target=_save, args=(saver,), daemon=True) for saver in savers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds / len(threads))


_wording: Callable[[str], str] = str


def set_wording(wording: Callable[[str], str]) -> None:
    """Sets the function that words the messages of `exit_now`."""
    global _wording
    _wording = wording


def exit_now(message: str) -> NoReturn:
    """Saves results, reports the reason, and ends the process; callable from any thread."""
    try:
        message = _wording(message)
        end_children()
        save_all()
        logger.critical("%s", message)
        print(f"beam-asr: {message}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    finally:
        os._exit(STATUS)


def end_children() -> None:
    """Ends the workers and servers that this process has started, which would otherwise run on."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)


def _save(saver: Saver) -> None:
    try:
        saver.save()
    except Exception as error:  # the others must still be saved
        logger.error("could not save what was done: %s: %s", type(error).__name__, error)


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def exit_on_signals(message: Callable[[str], str]) -> Iterator[None]:
    """Makes SIGINT and SIGTERM save results and end the process, within the context.

    A second signal ends it at once. In a thread other than the main one it changes nothing.

    Args:
        message: returns the message for the name of a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    received = 0

    def handle(*_: Any) -> None:
        nonlocal received
        received += 1
        if received > 1:
            os._exit(STATUS)

    def wait() -> None:
        number = receiver.recv(1)
        if number and number[0] in SIGNALS:
            exit_now(message(signal.Signals(number[0]).name))

    handlers_before = {number: signal.signal(number, handle) for number in SIGNALS}
    fd_before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=wait, name="beam-asr-signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd_before)
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        sender.close()
        watcher.join()
        receiver.close()
