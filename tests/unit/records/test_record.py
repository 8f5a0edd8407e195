"""Output records: the row unchanged, and the text or the reason of its failure."""

from __future__ import annotations

import json

from beam_asr.records import parsing
from beam_asr.records.record import Transcript, failure
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
