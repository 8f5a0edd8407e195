"""The summary of a run, and the check that no row is lost."""

from __future__ import annotations

from collections import Counter

import pytest

from beam_asr.errors import LostRowsError
from beam_asr.outputs.summary import Failures, check_complete, summarize
from beam_asr.records.statistics import Statistics


def test_lost_and_doubled_rows_are_told_with_the_numbers():
    check_complete(10, 7, 3)
    with pytest.raises(LostRowsError, match=r"10 rows went in, but 6 .* 3 .* 1 rows"):
        check_complete(10, 6, 3)
    with pytest.raises(LostRowsError, match="2 rows"):
        check_complete(10, 9, 3)


def test_a_summary_gives_ratios_of_its_sums():
    part = {
        "audio_seconds": 3600.0,
        "padded_seconds": 4000.0,
        "model_seconds": 36.0,
        "wait_seconds": 2.0,
        "batches": 3,
        "models": frozenset([(("model", "m"),)]),
    }
    statistics = sum(
        [
            Statistics(rows_in=5),
            Statistics(**part),
            Statistics(**part),
            Statistics(resumed_rows=2, resumed_seconds=1800.0),
        ],
        Statistics(),
    )
    failures = Failures()
    failures.add({"B": 1, "A": 1}, {"A": "why"})
    summary = summarize(statistics, 3, failures, Counter(), 100.0, {"options": {"x": 1}})
    assert summary["rows_in"] == 5
    assert summary["failed"] == 2
    assert summary["failed_by_type"] == {"A": 1, "B": 1}
    assert summary["failure_examples"] == {"A": "why"}
    assert summary["audio_hours"] == 2.5
    assert summary["resumed"] == 2
    assert summary["rtfx_end_to_end"] == 72
    assert summary["rtfx_model"] == 100
    assert summary["model_wait_share"] == pytest.approx(4 / 76, abs=1e-4)
    assert summary["padding_efficiency"] == 0.9
    assert summary["models"] == [{"model": "m"}]
    assert summary["options"] == {"x": 1}


def test_a_summary_of_nothing_divides_by_nothing():
    summary = summarize(Statistics(), 0, Failures(), Counter(), 1.0, {})
    assert summary["rtfx_model"] is None
    assert summary["padding_efficiency"] is None
    assert summary["model_wait_share"] is None
