"""How many failures fail a job."""

from __future__ import annotations

from collections import Counter

import pytest

from beam_asr.errors import TooManyFailuresError
from beam_asr.outputs import failure_limit


def test_failures_fail_the_job_only_when_many_and_above_the_fraction():
    failure_limit.check_failures(99, Counter(a=99), 0.1)
    failure_limit.check_failures(1000, Counter(a=100), 0.1)
    with pytest.raises(TooManyFailuresError, match=r"101 of 1000 rows failed .*100 x a"):
        failure_limit.check_failures(1000, Counter(a=100, b=1), 0.1)
