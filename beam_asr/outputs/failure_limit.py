"""Fails a job if too many of its rows fail, while it runs or at its end."""

from __future__ import annotations

import threading
from collections import Counter

from beam_asr.errors import TooManyFailuresError
from beam_asr.outputs.summary import Failures
from beam_asr.records.record import Failure
from beam_asr.records.statistics import Statistics

# The fraction is of at least this number of rows, or of all if fewer: a manifest may begin with
# a folder that is missing, and the limit applies to the whole job.
MIN_SAMPLE_ROWS = 10_000
KEPT_FAILURES = 1000  # to be shown if the job ends early


class FailureWatch:
    """Counts the rows of one run in one process.

    Args:
        max_fraction: the fraction of the rows that may fail.
    """

    def __init__(self, max_fraction: float):
        self._max_fraction = max_fraction
        self._lock = threading.Lock()
        self._done = 0
        self._failed: Counter[str] = Counter()
        self._kept: list[Failure] = []

    @property
    def failures(self) -> list[Failure]:
        """Returns the first failures, at most `KEPT_FAILURES`."""
        with self._lock:
            return list(self._kept)

    def add(self, failure: Failure | None, rows: int | None, place: str = "") -> None:
        """Counts a row that has ended.

        Args:
            failure: the row as it failed; None if it was transcribed.
            rows: the number of rows of the whole job; None if unknown.
            place: path or URI of the file that will have the failures, for the message.

        Raises:
            TooManyFailuresError: the fraction is exceeded, for certain if all rows are counted
                here, else by a sample that is large enough.
        """
        with self._lock:
            self._done += 1
            if failure is None:
                return
            if len(self._kept) < KEPT_FAILURES:
                self._kept.append(failure)
            self._failed[failure.error["type"]] += 1
            failed = self._failed.total()
            sample = MIN_SAMPLE_ROWS if rows is None else min(rows, MIN_SAMPLE_ROWS)
            if not too_many(failed, max(self._done, sample), self._max_fraction):
                return
            last = f"{failure.error['message']}{f' See {place}.' if place else ''}"
            raise TooManyFailuresError.of_worker(
                failed, self._done, _list_types(self._failed), self._max_fraction, last
            )


_watches: dict[tuple[str, float], FailureWatch] = {}
_watches_lock = threading.Lock()


def watch(run: str, max_fraction: float) -> FailureWatch:
    """Returns the process's watch over a run."""
    with _watches_lock:
        return _watches.setdefault((run, max_fraction), FailureWatch(max_fraction))


MIN_FAILURES = 100  # fewer fail a job only if no row is left


def too_many(failed: int, rows: int, max_failure_fraction: float) -> bool:
    """Returns whether this number of failures fails a job while other rows may still succeed."""
    return failed >= MIN_FAILURES and failed > max_failure_fraction * rows


def check_invalid(statistics: Statistics, max_failure_fraction: float) -> None:
    """Raises TooManyFailuresError if too many rows are invalid, before any audio is read."""
    invalid = statistics.rows_invalid
    if too_many(invalid, statistics.rows_in, max_failure_fraction):
        raise TooManyFailuresError.of_manifest(
            invalid, statistics.rows_in, max_failure_fraction, statistics.example_invalid
        )


def _list_types(failed_by_type: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in failed_by_type.most_common(3))


def check_failures(
    rows_in: int,
    failures: Failures,
    max_failure_fraction: float,
    all_may_fail: bool = False,
) -> None:
    """Fails a job of which all rows have ended.

    Args:
        all_may_fail: whether every row may fail if they are fewer than `MIN_FAILURES`, as in a
            window of a stream. Of a job they may only if the fraction is 1.

    Raises:
        TooManyFailuresError: the fraction is exceeded by enough rows, or every row failed.
    """
    failed = failures.by_type.total()
    kinds = "; ".join(failures.reasons())
    if failed == rows_in > 0 and max_failure_fraction < 1 and not all_may_fail:
        raise TooManyFailuresError.of_all(failed, kinds)
    if too_many(failed, rows_in, max_failure_fraction):
        raise TooManyFailuresError.of_job(failed, rows_in, kinds, max_failure_fraction)
