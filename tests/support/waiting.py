"""Waiting for other threads and processes, for as long as they take."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

MAX_SECONDS = 1800.0  # what takes longer hangs, on however busy a machine


def wait_until(
    is_so: Callable[[], object],
    otherwise: Callable[[], str] = lambda: "it never came to it",
    interval: float = 0.02,
) -> None:
    """Waits until something is so.

    Args:
        otherwise: gives what to fail with when it never will be.
        interval: seconds between two looks.
    """
    deadline = time.monotonic() + MAX_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(otherwise())
        time.sleep(interval)
