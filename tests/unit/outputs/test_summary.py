"""The summary of a run, and the check that no row is lost."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from beam_asr.errors import LostRowsError
from beam_asr.outputs.summary import Failures, Outcomes, check_complete, summarize
from beam_asr.records.statistics import Score, Statistics, from_json, to_json


def outcomes(transcribed: int, failed: int = 0) -> Outcomes:
    failures = Failures()
    failures.add({"E": failed}, {})
    return Outcomes(transcribed, failures, Counter())


def test_lost_and_doubled_rows_are_told_with_the_numbers():
    ten = Statistics(rows_in=10)
    check_complete(ten, outcomes(7, 3))
    with pytest.raises(LostRowsError, match=r"10 rows went in, but 6 .* 3 .* 1 rows"):
        check_complete(ten, outcomes(6, 3))
    with pytest.raises(LostRowsError, match="2 rows"):
        check_complete(ten, outcomes(9, 3))


def test_rows_that_the_folder_has_already_need_no_record():
    statistics = Statistics(rows_in=10, rows_in_folder=4)
    check_complete(statistics, outcomes(5, 1))
    with pytest.raises(LostRowsError, match="10 rows went in, 4 of them in the folder already"):
        check_complete(statistics, outcomes(6, 1))


def test_statistics_come_out_of_json_as_they_went_in():
    statistics = Statistics(
        rows_in=3,
        audio_seconds=1.5,
        ignored_files={".jpg": 2},
        examples_ignored=("a.jpg",),
        models=frozenset([(("model", "m"), ("device", "cpu"))]),
        scores={("corpus", ""): Score(rows=2, words=7), ("by_language", "en"): Score(rows=1)},
        scored_by=frozenset([("text", "basic")]),
    )
    written = json.dumps(to_json(statistics))
    assert from_json(json.loads(written)) == statistics
    assert from_json({"rows_in": 3, "of_a_later_release": 1}) == Statistics(rows_in=3)


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
    summary = summarize(statistics, Outcomes(3, failures, Counter()), 100.0, {"options": {"x": 1}})
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
    summary = summarize(Statistics(), outcomes(0), 1.0, {})
    assert summary["rtfx_model"] is None
    assert summary["padding_efficiency"] is None
    assert summary["model_wait_share"] is None
