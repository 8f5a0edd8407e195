"""A bounded number of reads at one time in a process, each within a time limit."""

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
    """A read did not come back in its time; its thread is left behind."""


class ReadPool:
    """Threads that read. One that is stuck in a read is left behind, and another takes its place.

    Args:
        size: most reads at one time.
    """

    def __init__(self, size: int):
        self._reads: queue.SimpleQueue[Read[Any]] = queue.SimpleQueue()
        for _ in range(size):
            self.add_thread()

    def start(self, function: Callable[[], Result]) -> Read[Result]:
        """Has a function called as soon as a thread is free."""
        read = Read(function, self)
        self._reads.put(read)
        return read

    def add_thread(self) -> None:
        # Daemons: a thread that is stuck for ever must not keep the process from ending.
        threading.Thread(target=self._work, name="beam-asr-read", daemon=True).start()

    def _work(self) -> None:
        while self._reads.get().run():
            pass


class Read(Generic[Result]):
    """A read that waits for its turn, is being made, or is done.

    Attributes:
        seconds: how long it took; 0 until it is done.
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
        """Its result or exception; StalledError if it takes longer than this and the grace."""
        seconds += GRACE_SECONDS
        while not self._done.wait(self._seconds_left(seconds)):
            late = self._seconds_left(seconds) <= 0
            if late and self._finish(StalledError("the read has not come back")):
                self._pool.add_thread()
        assert self._outcome is not None
        return self._outcome

    def run(self) -> bool:
        """Reads; says whether somebody still waited for it."""
        self._started = time.monotonic()
        try:
            outcome: Result | Exception = self._function()
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # else it keeps what was read so far
            outcome = error
        return self._finish(outcome)

    def _seconds_left(self, seconds: float) -> float:
        """How long it may still take; all of it before it has started."""
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
    """The process's pool of this size."""
    with _pools_lock:
        if size not in _pools:
            _pools[size] = ReadPool(size)
        return _pools[size]
