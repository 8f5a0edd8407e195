"""Records of Parquet files."""

from __future__ import annotations

import io
import json
import os
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet

from beam_asr.errors import BadRecordError, TableError
from beam_asr.inputs.parquet_tables import parquet_records, parquet_row_groups


def written(table, **options):
    file = io.BytesIO()
    parquet.write_table(pa.table(table), file, **options)
    file.seek(0)
    return file


def read(table):
    """The fields of a Parquet file's records, which JSON must hold; errors as their messages."""
    found = [record for _, record in parquet_records(written(table), [0], "clips.parquet")]
    fields = [str(r) if isinstance(r, BadRecordError) else r for r in found]
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    return fields


def test_records_are_numbered_by_their_place_in_the_whole_file_whichever_groups_are_read():
    file = written({"path": [f"{n}.wav" for n in range(1, 8)]}, row_group_size=3)
    assert parquet_row_groups(file, "clips.parquet") == 3
    for groups, numbers in (([0, 1, 2], range(1, 8)), ([1], range(4, 7)), ([2, 0], [7, 1, 2, 3])):
        records = list(parquet_records(file, groups, "clips.parquet"))
        assert records == [(n, {"path": f"{n}.wav"}) for n in numbers]
    assert list(parquet_records(file, [], "clips.parquet")) == []


def test_numbers_texts_and_nulls_of_a_parquet_file_stay_what_they_are():
    table = {"path": ["a.wav", None], "duration": [1.5, None], "n": [7, None], "x": [True, None]}
    assert read(table) == [
        {"path": "a.wav", "duration": 1.5, "n": 7, "x": True},
        {"path": None, "duration": None, "n": None, "x": None},
    ]


MORNING = datetime(2024, 2, 29, 6, 30, 0, 250_000)


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (float("nan"), pa.float64(), None),
        (float("nan"), pa.float32(), None),
        (float("-inf"), pa.float64(), "-inf"),
        (1.5, pa.float16(), 1.5),
        (2**64 - 1, pa.uint64(), 2**64 - 1),
        (MORNING, pa.timestamp("us"), "2024-02-29T06:30:00.250000"),
        (MORNING, pa.timestamp("ns"), "2024-02-29T06:30:00.250000"),
        (
            MORNING.replace(tzinfo=timezone.utc),
            pa.timestamp("ms", "UTC"),
            "2024-02-29T06:30:00.250000+00:00",
        ),
        (date(2024, 2, 29), pa.date32(), "2024-02-29"),
        (time(6, 30), pa.time64("us"), "06:30:00"),
        (timedelta(seconds=1.5), pa.duration("ms"), 1.5),
        (Decimal("1.10"), pa.decimal128(10, 2), 1.1),
        (Decimal("12345678901234567.89"), pa.decimal128(20, 2), "12345678901234567.89"),
        (["a", None], pa.list_(pa.string()), ["a", None]),
        ([("en", 1)], pa.map_(pa.string(), pa.int64()), {"en": 1}),
        ([], pa.map_(pa.string(), pa.int64()), {}),
        ([(date(2024, 2, 29), 1)], pa.map_(pa.date32(), pa.int64()), {"2024-02-29": 1}),
        (
            {"spans": [{"at": date(2024, 2, 29), "score": float("nan")}]},
            pa.struct(
                {"spans": pa.list_(pa.struct({"at": pa.date32(), "score": pa.float64()}))}.items()
            ),
            {"spans": [{"at": "2024-02-29", "score": None}]},
        ),
        (b"\x12\x34" * 8, pa.uuid(), "12341234-1234-1234-1234-123412341234"),
    ],
)
def test_what_json_has_no_form_for_is_converted(value, type_, expected):
    (fields,) = read({"x": pa.array([value], type_)})
    assert fields == {"x": expected}
    assert type(fields["x"]) is type(expected)


@pytest.mark.parametrize(
    "audio",
    [
        pa.array([b"RIFF", None, b""]),
        pa.array([{"bytes": b"RIFF"}, {"bytes": None}, {"bytes": b""}]),
        pa.array([[b"RIFF"], [], [b""]]),
        pa.array([b"RIFF", None, b"RIFX"], pa.binary(4)),
    ],
)
def test_a_record_with_bytes_fails_alone_and_says_that_audio_is_read_by_path(audio):
    first, second, third = read({"path": ["a.wav", "b.wav", "c.wav"], "audio": audio})
    assert first == third
    assert first.startswith("the column 'audio' holds bytes")
    assert "by its path" in first
    assert second["path"] == "b.wav"


def test_a_value_that_python_has_none_for_costs_its_record_alone():
    broken = pa.array([b"a", b"\xff", b"c"]).view(pa.binary()).cast(pa.string(), safe=False)
    far = pa.array([0, 0, 2**62], pa.timestamp("us"))
    first, second, third = read({"text": broken, "at": far})
    assert first == {"text": "a", "at": "1970-01-01T00:00:00"}
    assert "the column 'text' holds a value that cannot be read" in second
    assert "the column 'at' holds a value that cannot be read" in third


class Watched(io.BytesIO):
    """A file that records the largest read."""

    largest = 0

    def read(self, size=-1):
        content = super().read(size)
        self.largest = max(self.largest, len(content))
        return content


def peak_of(file):
    """The most bytes that Arrow held while a file's records were read, and the largest read."""
    watched = Watched(file.getvalue())
    before, peak = pa.total_allocated_bytes(), 0
    for number, _ in parquet_records(watched, [0], "clips.parquet"):
        if number % 8 == 0:
            peak = max(peak, pa.total_allocated_bytes() - before)
    return peak, watched.largest


def test_a_large_row_group_is_read_piece_by_piece():
    text = os.urandom(2**24).hex()
    file = written({"text": [text[i : i + 64] for i in range(0, len(text), 64)]})
    held, fetched = peak_of(file)
    assert held < 2**24  # of 32 MiB
    assert fetched < 2**23


def test_large_cells_are_read_a_few_at_a_time():
    audio = {"audio": [os.urandom(2**16) for _ in range(1024)]}
    held, _ = peak_of(written(audio, write_batch_size=16, use_dictionary=False))
    assert held < 2**25  # of 64 MiB


def duplicated():
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), file)
    return file.getvalue()


GOOD = written({"path": ["a.wav"] * 1000, "n": list(range(1000))}).getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"path,text\n",
        b"PAR1" + b"\0" * 20 + b"PAR1",
        GOOD[:-100],
        GOOD[100:],
        GOOD[:4] + b"\xff" * 200 + GOOD[204:],
    ],
)
def test_a_file_that_is_not_parquet_or_damaged_fails_by_its_name(content):
    with pytest.raises(TableError, match=r"'clips\.parquet' cannot be read as Parquet \(.*again"):
        list(parquet_records(io.BytesIO(content), [0], "clips.parquet"))


@pytest.mark.parametrize("content", [GOOD, written({"n": list(range(1000))}).getvalue()])
def test_a_parquet_file_whose_numbers_of_rows_disagree_loses_none_silently(content):
    thousand = b"\xd0\x0f"  # as its metadata, which is Thrift, has the number
    places = [place for place in range(len(content)) if content.startswith(thousand, place)]
    failed = 0
    for place in places:
        damaged = content[:place] + b"\xd0\x07" + content[place + 2 :]
        try:
            assert len(list(parquet_records(io.BytesIO(damaged), [0], "clips.parquet"))) == 1000
        except TableError:
            failed += 1
    assert failed >= 3  # the file's number, the row group's, a column's


def test_parquet_columns_of_one_name_fail_the_table():
    with pytest.raises(TableError, match=r"'clips\.parquet' has more than one column 'a'"):
        list(parquet_records(io.BytesIO(duplicated()), [0], "clips.parquet"))


class Unreachable(io.BytesIO):
    def read(self, *_):
        raise PermissionError("no access to the bucket")


def test_an_error_of_the_storage_is_not_taken_for_one_of_the_table():
    with pytest.raises(PermissionError, match="no access to the bucket"):
        parquet_row_groups(Unreachable(GOOD), "clips.parquet")
