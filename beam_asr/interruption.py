"""Ctrl-C and SIGTERM, as a virtual machine gets it that is taken away: the process ends in seconds.

Python runs a signal's handler in its main thread, when that thread gets to run Python code. So it
only notes the signal, which the interpreter also writes to a socket at once; another thread reads
it there, and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from beam_asr import emergency_exit

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def ends_process(message: Callable[[str], str]) -> Iterator[None]:
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
            os._exit(emergency_exit.STATUS)

    def wait() -> None:
        number = noted.recv(1)
        if number and number[0] in SIGNALS:
            emergency_exit.exit_now(message(signal.Signals(number[0]).name))

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
