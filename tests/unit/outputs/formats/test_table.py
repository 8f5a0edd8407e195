"""The table of transcripts: one schema, whatever a row holds, and files of it."""

import io
import json
import tracemalloc

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.outputs import shards
from beam_asr.outputs.formats import table as tabular
from beam_asr.outputs.formats.table import columns, parquet, parquet_schema, row_of
from beam_asr.storage.storage import Storage
from tests.support.result_records import FULL, JSON, PLAIN


def file_of(*records: dict, **keys: str) -> bytes:
    return b"".join(parquet(map(shards.encode, records), **keys))


def table_of(*records: dict, **keys: str) -> pa.Table:
    return pq.read_table(io.BytesIO(file_of(*records, **keys)))


def test_each_field_is_in_its_column():
    (row,) = table_of(FULL).to_pylist()
    same = {key: value for key, value in FULL.items() if key not in ("segments_failed", "speaker")}
    failed = {"start": 1.0, "end": 2.0, "type": "RuntimeError", "message": "no"}
    other = json.dumps({"speaker": FULL["speaker"]}, ensure_ascii=False)
    assert row == {**same, "segments_failed": [failed], "other_fields": other}


def test_what_nobody_requested_is_null_and_what_is_empty_is_empty():
    (row,) = table_of({**PLAIN, "words": [], "lang": None}).to_pylist()
    given = {**PLAIN, "words": []}
    assert row == {**dict.fromkeys(column.name for column in columns()), **given}


def test_the_schema_is_one_whatever_is_in_a_file():
    schemas = [table_of(*records).schema for records in ([], [PLAIN], [FULL], [{"lang": 5}])]
    assert all(schema.equals(parquet_schema()) for schema in schemas)
    assert all(schema.equals(schemas[0], check_metadata=True) for schema in schemas)


def test_pandas_reads_it():
    frame = pd.read_parquet(io.BytesIO(file_of(FULL, PLAIN)))
    assert list(frame.columns) == [column.name for column in columns()]
    assert list(frame.pred_text) == ["ahoj světe 🌍"] * 2
    assert frame.words[0][0]["word"] == "ahoj"
    assert frame.words[1] is None
    assert frame.wer.mean() == 1.0


def test_columns_have_their_names_whatever_the_fields_are_called():
    record = {"path": "a.flac", "recognized": "yes", "pred_text": "old", "audio_filepath": None}
    row = row_of(record, "path", "recognized")
    assert (row["audio_filepath"], row["pred_text"]) == ("a.flac", "yes")
    assert json.loads(row["other_fields"]) == {"pred_text": "old", "audio_filepath": None}
    row = row_of({"audio_filepath": "a.flac", "text": "recognized"}, pred_text_key="text")
    assert (row["pred_text"], row["text"], row["other_fields"]) == ("recognized", None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lang", 5),
        ("lang", "\ud800"),
        ("duration", "x"),
        ("duration", True),
        ("duration", 10**300 + 1),
        ("duration", 2**53 + 1),
        ("insertions", 2**63),
        ("insertions", 1.5),
        ("no_speech", 1),
        ("words", "none"),
        ("words", [{"word": "a", "start": "x"}]),
        ("words", [{"word": "a", "speaker": 1}]),
        ("segments_failed", [{"start": 1.0, "end": 2.0, "error": "no"}]),
        ("other_fields", "of the row's own"),
    ],
)
def test_a_value_that_does_not_fit_is_among_the_other_fields(field, value):
    (row,) = table_of({**PLAIN, field: value}).to_pylist()
    assert field == "other_fields" or row[field] is None
    assert json.loads(row["other_fields"]) == {field: value}


def test_a_cut_has_its_audio():
    source = {"type": "file", "channels": [0], "source": "/a.wav"}
    cut = {"type": "MonoCut", "id": "c", "start": 1.0, "duration": 2.0, "channel": 0}
    row = row_of({**cut, "recording": {"sources": [source]}, "pred_text": "yes"})
    assert (row["audio_filepath"], row["offset"], row["duration"]) == ("/a.wav", 1.0, 2.0)
    assert json.loads(row["other_fields"])["recording"] == {"sources": [source]}


@given(st.lists(st.dictionaries(st.sampled_from([*FULL, "other_fields", "x"]), JSON), max_size=3))
def test_any_records_make_a_file_and_nothing_of_them_is_lost(records):
    table = table_of(*records)
    assert table.schema.equals(parquet_schema())
    for record, row in zip(records, table.to_pylist(), strict=True):
        other = json.loads(row.pop("other_fields") or "{}")
        for field, value in record.items():
            if field in other:
                assert other[field] == value
            elif field == "segments_failed" and value:
                times = [(each.get("start"), each.get("end")) for each in value]
                assert times == [(each["start"], each["end"]) for each in row[field]]
            elif isinstance(value, list):
                known = [{k: v for k, v in each.items() if v is not None} for each in row[field]]
                assert known == [{k: v for k, v in e.items() if v is not None} for e in value]
            else:
                assert row[field] == value


def test_the_same_lines_are_the_same_file():
    records = [{**FULL, "number": number} for number in range(10)]
    assert file_of(*records) == file_of(*records)
    assert file_of(*records) != file_of(*reversed(records))


def test_row_groups_are_of_a_thousand_rows_or_of_so_many_bytes(monkeypatch):
    def groups(*records):
        data = pq.ParquetFile(io.BytesIO(file_of(*records))).metadata
        return [data.row_group(index).num_rows for index in range(data.num_row_groups)]

    assert groups(*[PLAIN] * 2500) == [1000, 1000, 500]
    monkeypatch.setattr(tabular, "MAX_GROUP_BYTES", 3 * len(shards.encode(PLAIN)))
    assert groups(*[PLAIN] * 7, {**PLAIN, "pred_text": "long " * 1000}) == [3, 3, 1, 1]


def test_a_file_of_many_groups_takes_the_memory_of_few(tmp_path):
    def peak(rows: int) -> int:
        lines = (shards.encode({**PLAIN, "x": f"{number:0200}"}) for number in range(rows))
        tracemalloc.start()
        Storage().write(str(tmp_path / "a.parquet"), parquet(lines))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert pq.read_metadata(tmp_path / "a.parquet").num_rows == rows
        return most

    peak(1000)  # what is imported and kept
    assert peak(20_000) < 2 * peak(2000)
