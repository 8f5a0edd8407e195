"""The summary of a run, and the check that no row is lost."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from beam_asr.errors import LostRowsError
from beam_asr.outputs.summary import (
    Failures,
    Outcomes,
    check_complete,
    encode_readable,
    summarize,
)
from beam_asr.records.model_work import ModelWork, Span
from beam_asr.records.statistics import Score, Statistics, from_json, to_json


def outcomes(transcribed: int, failed: int = 0) -> Outcomes:
    failures = Failures()
    failures.add({"E": failed}, {})
    return Outcomes(transcribed, failures, Counter())


def test_lost_and_doubled_rows_are_reported_with_the_numbers():
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


def test_a_summary_has_the_figures_of_each_worker_and_span_of_time():
    statistics = Statistics()
    for worker, seconds in (("a:1", 60.0), ("b:2", 120.0), ("b:2", 60.0)):
        work = ModelWork(1, seconds, 2 * seconds, seconds / 10, seconds / 30)
        statistics.add_work(work, worker, Span.of(1_800_000_000 + seconds))
    summary = summarize(statistics, outcomes(1), 10.0, {})
    assert summary["workers"][0] == {
        "worker": "b:2", "batches": 2, "audio_hours": 0.05, "rtfx_model": 10.0,
        "model_wait_share": 0.25, "padding_efficiency": 0.5,
    }  # fmt: skip
    assert [(each["worker"], each["batches"]) for each in summary["workers"]] == [
        ("b:2", 2), ("a:1", 1),
    ]  # fmt: skip
    starts = [(each["start"], each["seconds"], each["batches"]) for each in summary["over_time"]]
    assert starts == [("2027-01-15T08:01Z", 60, 2), ("2027-01-15T08:02Z", 60, 1)]


def test_a_summary_has_small_values_in_a_line_and_is_the_same_json():
    summary = {
        "empty": {}, "text": "a {\n[ ]} \\n", "lists": [[1, 2], ["{", "a  b"]],
        "long": ["x" * 150, "y" * 150], "objects": [{"a": 1, "b": "]"}, {"c": None}],
    }  # fmt: skip
    content = encode_readable(summary)
    assert json.loads(content) == summary
    assert b'    {"c": null}\n' in content
    assert max(map(len, content.splitlines())) <= 200
