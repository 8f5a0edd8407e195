"""Runs a bounded number of reads at one time in a process, each within a time limit."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

GRACE_SECONDS = 5.0  # a read that watches its own deadline ends with a better reason


class StalledError(TimeoutError):
    """A read exceeded its time limit; its thread is abandoned."""


class ReadPool:
    """Reads in threads. A thread that is stuck in a read is abandoned, and another replaces it.

    Args:
        size: maximum number of reads at one time.
    """

    def __init__(self, size: int):
        self._reads: queue.SimpleQueue[Read[Any]] = queue.SimpleQueue()
        for _ in range(size):
            self.add_thread()

    def start(self, function: Callable[[], Result]) -> Read[Result]:
        """Calls a function as soon as a thread is free."""
        read = Read(function, self)
        self._reads.put(read)
        return read

    def add_thread(self) -> None:
        """Starts one more thread."""
        # Daemons: a thread that is stuck for ever must not keep the process from ending.
        threading.Thread(target=self._work, name="beam-asr-read", daemon=True).start()

    def _work(self) -> None:
        while self._reads.get().run():
            pass


class Read(Generic[Result]):
    """A read that is queued, running or done.

    Attributes:
        seconds: wall time that it took; 0 until it is done.
    """

    def __init__(self, function: Callable[[], Result], pool: ReadPool):
        self._function = function
        self._pool = pool
        self._lock = threading.Lock()
        self._started: float | None = None
        self._done = threading.Event()
        self._outcome: Result | Exception | None = None
        self.seconds = 0.0

    def result(self, seconds: float) -> Result | Exception:
        """Waits for the result or exception; StalledError after this and `GRACE_SECONDS`."""
        seconds += GRACE_SECONDS
        while not self._done.wait(self._remaining(seconds)):
            late = self._remaining(seconds) <= 0
            if late and self._finish(StalledError("the read has not come back")):
                self._pool.add_thread()
        assert self._outcome is not None
        return self._outcome

    def run(self) -> bool:
        """Reads; returns whether the caller still waited for it."""
        self._started = time.monotonic()
        try:
            outcome: Result | Exception = self._function()
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # otherwise it holds what was read so far
            outcome = error
        return self._finish(outcome)

    def _remaining(self, seconds: float) -> float:
        """Returns the remaining seconds; all of them before the read has started."""
        if self._started is None:
            return seconds
        return max(0.0, self._started + seconds - time.monotonic())

    def _finish(self, outcome: Result | Exception) -> bool:
        with self._lock:
            if self._done.is_set():
                return False
            self._outcome = outcome
            self.seconds = time.monotonic() - (self._started or time.monotonic())
            self._done.set()
            return True


_pools: dict[int, ReadPool] = {}
_pools_lock = threading.Lock()


def pool(size: int) -> ReadPool:
    """Returns the process's pool of this size."""
    with _pools_lock:
        if size not in _pools:
            _pools[size] = ReadPool(size)
        return _pools[size]
