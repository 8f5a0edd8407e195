"""How many failures fail a job."""

from __future__ import annotations

from collections import Counter

import pytest

from beam_asr.errors import TooManyFailuresError
from beam_asr.outputs import failure_limit
from beam_asr.outputs.summary import Failures


def failures(**by_type: int) -> Failures:
    result = Failures()
    result.add(Counter(by_type), {kind: f"why {kind}" for kind in by_type})
    return result


def test_failures_fail_the_job_only_when_many_and_above_the_fraction():
    failure_limit.check_failures(100, failures(a=99), 0.1)
    failure_limit.check_failures(1000, failures(a=100), 0.1)
    with pytest.raises(TooManyFailuresError, match=r"101 of 1000 rows failed .*100 x a, as: why a"):
        failure_limit.check_failures(1000, failures(a=100, b=1), 0.1)


@pytest.mark.parametrize("rows", [1, 2, 99, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.99])
def test_a_job_without_any_transcript_fails_and_says_why(rows, fraction):
    with pytest.raises(TooManyFailuresError, match=f"failed .{rows} x a, as: why a") as raised:
        failure_limit.check_failures(rows, failures(a=rows), fraction)
    assert ("the only row failed" in str(raised.value)) == (rows == 1)
    assert "max_failure_fraction=1" in str(raised.value)


def test_every_row_may_fail_where_that_is_requested_and_in_a_small_window_of_a_stream():
    failure_limit.check_failures(3, failures(a=3), 1.0)
    failure_limit.check_failures(3, failures(a=3), 0.1, all_may_fail=True)
    failure_limit.check_failures(0, failures(), 0.1)
    with pytest.raises(TooManyFailuresError):
        failure_limit.check_failures(100, failures(a=100), 0.1, all_may_fail=True)


def test_the_most_frequent_reasons_come_first_and_the_example_depends_on_no_order():
    one, other = Failures(), Failures()
    parts = [({"a": 1, "b": 5}, {"a": "z", "b": "y"}), ({"a": 1, "c": 3, "d": 1}, {"a": "x"})]
    for part in parts:
        one.add(*part)
    for part in reversed(parts):
        other.add(*part)
    assert one.reasons() == ["5 x b, as: y", "3 x c", "2 x a, as: x"]
    assert sorted(other.reasons()) == sorted(one.reasons())
