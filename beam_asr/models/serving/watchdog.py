"""Ends the process when a forward pass takes too long."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence

from beam_asr import process

MAX_NAMES = 4  # of clips, in a message
NOTHING_LOST = (
    "No row was turned into a failure for it: the runner tries this work again, elsewhere if it "
    "can; where it gives up, the same command with `resume` goes on"
)


@dataclasses.dataclass(eq=False)
class Work:
    """Counts the time that the model has worked on a batch, without holding its audio.

    Attributes:
        names: of its clips.
        seconds: in calls that have ended.
    """

    names: Sequence[str]
    seconds: float = 0.0


class Watchdog:
    """Ends the process when the model has worked on a batch for too long.

    Its thread sleeps until then, or until the model starts something else.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._started = threading.Condition()
        self._works: tuple[Work, Work | None] | None = None
        self._closed = False
        threading.Thread(target=self._watch, name="beam-asr-watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watching(self, work: Work, beside: Work | None) -> Iterator[None]:
        """Counts the time within the context as work on a batch.

        Args:
            beside: the other batch that the model has started, which may be the one that is stuck.
        """
        started = time.perf_counter()
        with self._started:
            self._works = (work, beside)
            self._started.notify()
        try:
            yield
        finally:
            with self._started:
                self._works = None
            work.seconds += time.perf_counter() - started

    def close(self) -> None:
        """Ends the thread."""
        with self._started:
            self._closed = True
            self._started.notify()

    def _watch(self) -> None:
        with self._started:
            while not self._closed:
                works = self._works
                if works is None:
                    self._started.wait()
                    continue
                remaining = min(self._seconds - works[0].seconds, threading.TIMEOUT_MAX)
                if not self._started.wait(max(0.0, remaining)) and self._works is works:
                    break
            else:
                return
        work, beside = works
        others = f" (it has also started on {listed(beside.names)})" if beside else ""
        process.exit_now(
            f"a forward pass has worked for more than the {self._seconds:g} s that "
            f"`batch_timeout` allows, on {listed(work.names)}{others}. {NOTHING_LOST}. If the "
            "device is slow and not stuck, raise `batch_timeout` or lower `max_batch_seconds`"
        )


def listed(names: Sequence[str]) -> str:
    """Returns the first few names, and the number of the others."""
    if not names:
        return "a batch"
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
