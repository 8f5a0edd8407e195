"""A row, its fields, and what of it crosses a shuffle."""

import datetime
import json
import pickle
import uuid
from decimal import Decimal
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pytest

from beam_asr.errors import BadFieldError, NotJsonError
from beam_asr.records import parsing
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


DAY = datetime.date(2026, 11, 30)
NOON = datetime.datetime(2026, 11, 30, 12, 0, 1, 500, tzinfo=datetime.timezone.utc)
UUID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Path("/a/é.wav"), "/a/é.wav"),
        (PurePosixPath("b.wav"), "b.wav"),
        (np.float32(1.5), 1.5),
        (np.float64(0.1), 0.1),
        (np.int64(7), 7),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.array([[1, 2], [3, 4]], np.int16), [[1, 2], [3, 4]]),
        (np.array(2.5), 2.5),
        (np.array(["2026-11-30"], "datetime64[D]"), ["2026-11-30"]),
        (DAY, "2026-11-30"),
        (NOON, "2026-11-30T12:00:01.000500+00:00"),
        (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(minutes=1, milliseconds=5), 60.005),
        (np.datetime64("2026-11-30T12:00:00.000000001"), "2026-11-30T12:00:00.000000001"),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.datetime64("NaT"), None),
        (np.timedelta64("NaT"), None),
        (pd.Timestamp("2026-11-30 12:00:00.000000001"), "2026-11-30T12:00:00.000000001"),
        (pd.Timedelta("1.5s"), 1.5),
        (pd.NaT, None),
        (pd.NA, None),
        (Decimal("3.69"), 3.69),
        (Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        (UUID, str(UUID)),
        ((1, Path("x")), [1, "x"]),
    ],
)
def test_values_of_python_whose_meaning_is_plain_are_written(value, written):
    row = Row.of({"audio_filepath": "a.wav", "x": value, "deep": [{"y": value}]})
    fields = json.loads(row.line)
    assert fields == {"audio_filepath": "a.wav", "x": written, "deep": [{"y": written}]}
    assert type(fields["x"]) is type(written)
    assert row.fields == fields


def test_a_row_may_name_its_audio_by_a_path_and_times_by_numbers_of_numpy():
    times = {"offset": np.float32(0.5), "duration": np.int32(2)}
    clip = parsing.parse(Row.of({"audio_filepath": Path("/a.wav"), **times}))
    assert (clip.audio, clip.offset, clip.duration) == ("/a.wav", 0.5, 2.0)


class NoPath:
    def __fspath__(self):
        raise OSError("gone")


@pytest.mark.parametrize(
    ("value", "named"),
    [({1}, "set"), (b"x", "bytes"), (1j, "complex"), (np.complex64(1), "complex64")]
    + [
        (np.void(b"x"), "void"),
        (object(), "object"),
        (NoPath(), "NoPath: gone"),
        ({DAY: 1}, "date"),
    ],
)
def test_other_values_fail_with_what_can_be_given(value, named):
    with pytest.raises(BadFieldError, match=rf"{named}.*give texts, numbers.* are converted"):
        Row.of({"audio_filepath": "a.wav", "x": value})
