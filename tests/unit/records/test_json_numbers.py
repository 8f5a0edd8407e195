"""Numbers of rows, from a line through all steps and formats to the output."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.errors import BadFieldError
from beam_asr.outputs import shards
from beam_asr.outputs.formats import documents, table
from beam_asr.outputs.formats.base import FieldKeys
from beam_asr.records import channels, json_numbers, parsing, row_ids
from beam_asr.records.record import FilteredRow, Transcript, error_of, failure
from beam_asr.records.row import Row

NUMBERS = """0.10 1E5 1e-400 -0 -0.0 0.1 1e5 1E+2 123456789012345678901234567890
    0.12345678901234567890123 100000000000000000000000.0 5e-324
    1.7976931348623157e308 0 7""".split()
LINE = '{"audio_filepath": "/a", "n": [' + ", ".join(NUMBERS) + '], "o": {"x": 0.10}}'


@pytest.mark.parametrize("kind", ["transcript", "failure", "audio", "keep", "channel"])
def test_numbers_come_out_as_they_went_in(kind):
    row = Row(LINE)
    filtered = FilteredRow(row, {}, {"by": "keep", "values": {"o": row.fields["o"]}})
    record = {
        "transcript": lambda: Transcript(row, {"pred_text": "x"}, 1.0).record(),
        "failure": lambda: failure(row, ValueError("no")),
        "audio": lambda: FilteredRow.refused(row, error_of(row, ValueError("no")), None).record(),
        "keep": filtered.record,
        "channel": lambda: channels.split_row(row, 1, 2, "channel", "audio_filepath").fields,
    }[kind]()
    text = shards.encode(dict(record)).decode()
    assert text.startswith(LINE[:-1])
    assert kind != "keep" or text.endswith('"values": {"o": {"x": 0.10}}}}\n')


def test_numbers_under_replaced_come_out_as_they_went_in():
    record = Transcript(Row('{"words": 0.10}'), {"words": []}, 1.0).record()
    assert shards.encode(record) == b'{"words": [], "replaced": {"words": 0.10}}\n'


def test_formats_of_many_transcripts_keep_the_digits():
    line = '{"audio_filepath": "/a", "pred_text": "x", "duration": 1.50, "n": 1e-400}\n'
    (document,) = documents.encode_shard([line.encode()], FieldKeys())
    assert '"n": 1e-400' in json.loads(document)["metadata"]
    row = table.row_of(json_numbers.loads(line))
    assert type(row["duration"]) is float
    assert row["other_fields"] == '{"n": 1e-400}'


def test_a_row_has_the_same_id_whatever_the_notation_of_its_numbers():
    lines = ['{"a": 0.10, "b": 1E5, "c": 1e-400}', '{"c": 0.0, "b": 100000.0, "a": 0.1}']
    assert len({row_ids.group_of(Row(line).fields, "/a") for line in lines}) == 1


def test_the_job_reads_such_numbers_as_any_other():
    row = Row('{"audio_filepath": "/a", "duration": 1.50, "offset": 1E1, "channel": 1.00}')
    clip = parsing.parse(row)
    assert (clip.duration, clip.offset, clip.channel) == (1.5, 10.0, 1)
    assert type(clip.duration) is type(clip.offset) is float


@pytest.mark.parametrize("number", ["1e400", "-1E999", "9" * 5000])
def test_a_number_beyond_what_can_be_read_is_refused(number):
    with pytest.raises(BadFieldError, match="put it in quotes"):
        Row(f'{{"n": {number}}}').fields  # noqa: B018


def test_a_number_crosses_processes_as_it_was_written():
    number = pickle.loads(pickle.dumps(json_numbers.read_float("0.10")))
    assert (number, number.text) == (0.1, "0.10")
    assert type(json_numbers.read_float("0.1")) is float  # the rule costs nothing


@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?\Z"))
def test_every_number_of_json_survives(text):
    assert json_numbers.dumps(json_numbers.loads(f'{{"n": [{text}]}}')) == f'{{"n": [{text}]}}'
