"""Fails a job while it runs, if so many rows fail that something is wrong with the job."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from beam_asr.errors import TooManyFailuresError
from beam_asr.outputs import failure_limit
from beam_asr.records.statistics import Statistics

# Rows by which a share is judged, or all rows if they are fewer: a manifest may begin with a folder
# that is missing, and the share is meant to be of all.
ENOUGH_ROWS = 10_000


class FailureWatch:
    """Counts the rows of one run in one process.

    Args:
        max_fraction: of the rows that may fail.
    """

    def __init__(self, max_fraction: float):
        self._max_fraction = max_fraction
        self._lock = threading.Lock()
        self._done = 0
        self._failed: Counter[str] = Counter()

    def add(self, error: Mapping[str, Any] | None, rows: int | None) -> None:
        """Counts a row that has ended.

        Args:
            error: of its failure record; None if it was transcribed.
            rows: of the whole job; None if that is not known.

        Raises:
            TooManyFailuresError: the fraction is exceeded, for certain if all rows are counted
                here, else by a sample that is large enough.
        """
        with self._lock:
            self._done += 1
            if error is None:
                return
            self._failed[error["type"]] += 1
            failed = self._failed.total()
            enough = ENOUGH_ROWS if rows is None else min(rows, ENOUGH_ROWS)
            if not failure_limit.too_many(failed, max(self._done, enough), self._max_fraction):
                return
            kinds = failure_limit.kinds(self._failed)
            raise TooManyFailuresError.of_worker(
                failed, self._done, kinds, self._max_fraction, error["message"]
            )


_watches: dict[tuple[str, float], FailureWatch] = {}
_watches_lock = threading.Lock()


def watch(run: str, max_fraction: float) -> FailureWatch:
    """The process's watch over a run."""
    with _watches_lock:
        return _watches.setdefault((run, max_fraction), FailureWatch(max_fraction))


MANY_FAILURES = 100  # fewer never fail a job, whatever their share


def too_many(failed: int, rows: int, max_failure_fraction: float) -> bool:
    """Whether so many failures fail a job."""
    return failed >= MANY_FAILURES and failed > max_failure_fraction * rows


def check_invalid(statistics: Statistics, max_failure_fraction: float) -> None:
    """Raises TooManyFailuresError if too many rows are not right, before any audio is read."""
    invalid = statistics.rows_invalid
    if too_many(invalid, statistics.rows_in, max_failure_fraction):
        raise TooManyFailuresError.of_manifest(
            invalid, statistics.rows_in, max_failure_fraction, statistics.example_invalid
        )


def kinds(failed_by_type: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in failed_by_type.most_common(3))


def check_failures(rows_in: int, failed_by_type: Counter[str], max_failure_fraction: float) -> None:
    """Raises TooManyFailuresError above the fraction, once enough rows have failed."""
    failed = sum(failed_by_type.values())
    if too_many(failed, rows_in, max_failure_fraction):
        raise TooManyFailuresError.of_job(
            failed, rows_in, kinds(failed_by_type), max_failure_fraction
        )
