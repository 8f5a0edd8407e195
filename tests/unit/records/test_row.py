"""A row, its fields, and what of it crosses a shuffle."""

import pickle

import pytest

from beam_asr.errors import NotJsonError
from beam_asr.records.row import Row

LINE = '{"audio_filepath": "a.wav", "n": 1}'


def test_a_row_is_parsed_once():
    row = Row(LINE)
    assert row.fields is row.fields
    assert row.fields == {"audio_filepath": "a.wav", "n": 1}
    assert row.with_id("x.0").fields is row.fields


def test_a_row_that_is_replaced_has_the_fields_of_its_own_line():
    row = Row(LINE)
    assert row.fields["n"] == 1
    assert row._replace(line='{"n": 2}').fields == {"n": 2}


def test_the_fields_do_not_cross_a_shuffle():
    row = Row(LINE, "m.jsonl", 3, id="x.0")
    before = pickle.dumps(row)
    assert row.fields
    assert pickle.dumps(row) == before
    again = pickle.loads(before)
    assert again == row
    assert type(again) is Row
    assert "fields" not in again.__dict__
    assert again.fields == row.fields


def test_a_line_that_is_no_json_has_no_fields():
    with pytest.raises(NotJsonError):
        _ = Row("{oops").fields
