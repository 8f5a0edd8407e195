"""Notices that a worker process has died, for which Beam's runner may wait for ever.

The FnApiRunner learns of it by the connection of the worker's data, if it happens to read from it.
Otherwise it waits for the worker's answer: the thread that reads the answers ends with gRPC's
error, and nobody tells those who wait (`ControlConnection._read` in Beam 2.77). The thread that
waits for the process does raise an error, which is seen here.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 10.0  # in which the runner may end by itself, and say why
_DEATH = re.compile(r"Worker subprocess exited with return code (-?\d+)")


class WorkerWatch:
    """Ends a job of which a worker has died.

    Args:
        end: is called with a message if the runner does not end by itself; must end the process.
    """

    def __init__(self, end: Callable[[str], object], seconds: float = PATIENCE_SECONDS):
        self._end = end
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running = False
        self._timer: threading.Timer | None = None
        self.death = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watches the workers of a job that runs within the context."""
        self._running = True
        try:
            yield
        finally:
            with self._lock:
                self._running = False
                if self._timer is not None:
                    self._timer.cancel()

    def thread_failed(self, raised: threading.ExceptHookArgs) -> None:
        """Reports the error of a thread, as ``threading.excepthook``, unless something else does.

        A connection that is lost is gRPC's error; the runner that ended says why.
        """
        died = _DEATH.fullmatch(str(raised.exc_value))
        if died:
            self._died(int(died[1]))
        elif not raised.exc_type.__module__.startswith("grpc"):
            threading.__excepthook__(raised)

    def _died(self, status: int) -> None:
        with self._lock:
            if self.death or not self._running:
                return
            self.death = f"a worker process {_how(status)}"
            self._timer = threading.Timer(self._seconds, self._give_up)
            self._timer.daemon = True
            self._timer.start()

    def _give_up(self) -> None:
        with self._lock:
            if self._running:
                self._end(self.death)


def _how(status: int) -> str:
    """Returns how a process has ended, by the status that it has, or its shell, or Python."""
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with status {status}; what it said is above"
    why = ""
    if number == signal.SIGKILL:
        why = ", as the system does without free memory: take a larger machine, or fewer processes"
    return f"was ended by {name}{why}"
