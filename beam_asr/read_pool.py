"""A bounded number of reads at one time in a process, each within a time limit."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key")
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
        self._size = size
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        for _ in range(size):
            self._start_thread()

    def run(
        self,
        reads: Iterable[tuple[Key, Callable[[], Result]]],
        seconds: float,
        ahead: int | None = None,
    ) -> Iterator[tuple[Key, Result | Exception]]:
        """Runs reads, many at a time, and gives each key with its result or exception, in order.

        Args:
            reads: taken as they are needed.
            seconds: how long a read may take from its start, beside the grace.
            ahead: most reads begun whose results have not been taken; by default twice the size.
        """
        begun: deque[tuple[Key, _Task[Result]]] = deque()
        for key, read in reads:
            task: _Task[Result] = _Task(read)
            self._tasks.put(task)
            begun.append((key, task))
            if len(begun) >= (ahead or 2 * self._size):
                key, task = begun.popleft()
                outcome = self._result_of(task, seconds + GRACE_SECONDS)
                yield key, outcome
        while begun:
            key, task = begun.popleft()
            outcome = self._result_of(task, seconds + GRACE_SECONDS)
            yield key, outcome

    def _result_of(self, task: _Task[Result], seconds: float) -> Result | Exception:
        while not task.done.wait(task.seconds_left(seconds)):
            if task.seconds_left(seconds) <= 0 and task.abandon():
                self._start_thread()
        assert task.outcome is not None
        return task.outcome[0]

    def _start_thread(self) -> None:
        # Daemons: a thread that is stuck for ever must not keep the process from ending.
        threading.Thread(target=self._work, name="beam-asr-read", daemon=True).start()

    def _work(self) -> None:
        while self._tasks.get().run():
            pass


class _Task(Generic[Result]):
    def __init__(self, read: Callable[[], Result]):
        self._read = read
        self._lock = threading.Lock()
        self._started: float | None = None
        self.done = threading.Event()
        self.outcome: tuple[Result | Exception] | None = None

    def run(self) -> bool:
        """Reads; says whether somebody still waited for it."""
        self._started = time.monotonic()
        try:
            outcome: Result | Exception = self._read()
        except Exception as error:
            outcome = error
        return self._finish(outcome)

    def abandon(self) -> bool:
        """Ends it without a result, unless it has just ended."""
        return self._finish(StalledError("the read has not come back"))

    def seconds_left(self, seconds: float) -> float:
        """How long it may still take; all of it before it has started."""
        if self._started is None:
            return seconds
        return max(0.0, self._started + seconds - time.monotonic())

    def _finish(self, outcome: Result | Exception) -> bool:
        with self._lock:
            if self.outcome is not None:
                return False
            self.outcome = (outcome,)
        self.done.set()
        return True


_pools: dict[int, ReadPool] = {}
_pools_lock = threading.Lock()


def pool(size: int) -> ReadPool:
    """The process's pool of this size."""
    with _pools_lock:
        if size not in _pools:
            _pools[size] = ReadPool(size)
        return _pools[size]
