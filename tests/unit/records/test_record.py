"""Output records: the row unchanged, and the text or the reason of its failure."""

from __future__ import annotations

import json

import pytest

from beam_asr.records import parsing
from beam_asr.records.record import Failure, FilteredRow, Transcript, error_of, failure
from beam_asr.records.row import Row


def test_a_transcript_is_the_row_unchanged_and_the_text():
    line = '{"z": 1, "audio_filepath": "/a", "n": 1e-7, "i": 12345678901234567890, "l": [1, {}]}'
    record = Transcript(Row(line), {"said": "hello"}, 1.0).record()
    assert list(record.items()) == [*json.loads(line).items(), ("said", "hello")]


def test_a_failure_carries_the_row_and_why():
    record = failure(Row('{"audio_filepath": "/a", "k": "é"}'), KeyError("x"), 3, "audio")
    assert record == {
        "audio_filepath": "/a",
        "k": "é",
        "error": {"stage": "audio", "type": "KeyError", "message": "'x'", "attempts": 3},
    }


def test_a_failed_line_that_is_no_row_keeps_its_text_and_its_place():
    row = Row("{oops", "gs://b/m.jsonl", 17)
    record = failure(row, ValueError("no"), stage="manifest")
    assert record["line"] == "{oops"
    assert (record["manifest"], record["line_number"]) == ("gs://b/m.jsonl", 17)


def test_a_failure_message_is_short_and_on_one_line():
    record = failure(Row("{}"), RuntimeError("x\n" * 5000), stage="model")
    assert "\n" not in record["error"]["message"]
    assert len(record["error"]["message"]) <= 500


def test_a_failure_that_comes_in_again_loses_its_old_error_but_a_users_own_field_stays():
    failed = failure(Row('{"audio_filepath": "/a"}'), ValueError("no"), stage="audio")
    row = parsing.parse(Row.of(failed)).row
    assert Transcript(row, {"pred_text": "x"}, 1.0).record() == {
        "audio_filepath": "/a",
        "pred_text": "x",
    }
    own = Row.of({"audio_filepath": "/a", "error": "mine"})
    assert Transcript(own, {"pred_text": "x"}, 1.0).record()["error"] == "mine"


def test_a_failed_row_keeps_an_error_field_of_its_own_and_gets_it_back_when_it_comes_in_again():
    row = Row('{"audio_filepath": "/a", "error": {"code": 7}, "z": 1}')
    failed = failure(row, ValueError("no"), stage="audio")
    assert failed["error"] == {
        "stage": "audio",
        "type": "ValueError",
        "message": "no",
        "attempts": 1,
        "replaced": {"code": 7},
    }
    again = Transcript(Row.of(failed), {"pred_text": "x"}, 1.0).record()
    assert list(again.items()) == [*json.loads(row.line).items(), ("pred_text", "x")]
    assert failure(Row.of(failed), ValueError("no"), stage="audio") == failed


def test_a_long_message_keeps_its_beginning_and_its_end():
    error = ValueError(f"/{'a' * 5000}: no such file. Correct the path.")
    message = failure(Row("{}", "/m.jsonl", 3), error, stage="manifest")["error"]["message"]
    assert message.startswith("/m.jsonl:3: /aaa")
    assert message.endswith("no such file. Correct the path.")
    assert len(message) <= 500


def test_a_rows_own_fields_are_kept_where_the_job_writes_its_own():
    own = {"audio_filepath": "/a", "words": "by hand", "n": 0, "pred_text": "old", "model": None}
    record = Transcript(Row.of(own), {"pred_text": "new", "words": [], "model": "m"}, 1.0).record()
    assert record == {
        **own,
        "pred_text": "new",
        "words": [],
        "model": "m",
        "replaced": {"pred_text": "old", "words": "by hand"},  # a null is no value
    }
    again = Transcript(Row.of(record), {"pred_text": "new", "words": [1]}, 1.0).record()
    assert again["replaced"] == {"words": [], "replaced": record["replaced"]}


def test_a_row_without_such_fields_keeps_a_field_replaced_of_its_own():
    row = Row.of({"audio_filepath": "/a", "replaced": 1})
    assert Transcript(row, {"pred_text": "x"}, 1.0).record() == {
        "audio_filepath": "/a",
        "replaced": 1,
        "pred_text": "x",
    }


def test_a_failure_keeps_a_model_of_the_rows_own():
    row = Row.of({"audio_filepath": "/a", "model": "T-1000", "error": "mine"})
    record = Failure(row, error_of(row, ValueError("no")), "m").record()
    assert (record["model"], record["replaced"]) == ("m", {"model": "T-1000"})
    assert record["error"]["replaced"] == "mine"


@pytest.mark.parametrize("by", ["audio", "keep"])
def test_a_filtered_row_keeps_its_own_error_and_filtered(by):
    row = Row.of({"audio_filepath": "/a", "error": {"code": 7}, "filtered": True, "words": 2})
    filtered = FilteredRow(row, {"words": []}, {"by": by})
    if by == "audio":
        filtered = FilteredRow.refused(row, error_of(row, ValueError("no")), "m")
    record = filtered.record()
    assert record["error"] == {"code": 7}
    assert record["filtered"]["by"] == by
    assert record["replaced"]["filtered"] is True
    assert record["replaced"].get("words", record["words"]) == 2
