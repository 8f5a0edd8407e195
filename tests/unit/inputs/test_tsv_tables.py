"""Lines of TSV tables: each is a row, as it is written."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.errors import BadRecordError, LineTooLongError, TableError
from beam_asr.inputs import json_lines, readers
from beam_asr.inputs.readers import FileRange
from beam_asr.inputs.tsv_tables import tsv_records
from beam_asr.storage.storage import Storage

COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
SAID = [
    "No quote",
    '"An opening one',
    "in between",
    'and a closing one"',
    '"Both"',
    'four "4"',
    '"Said" he',
    '"',
    '""',
    '"""',
    '"He said ""no"""',
    "it's, as it is; \\t \\n",
    " spaces ",
    "",
]


def records_of(content):
    return list(tsv_records(io.BytesIO(content), "clips.tsv"))


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_is_a_row_whose_texts_are_as_they_are_written(tmp_path, compression, end):
    lines = ["client_id\tpath\tsentence\tduration"]
    lines += [f"c{n}\t{n}.mp3\t{text}\t1.5" for n, text in enumerate(SAID)]
    file = tmp_path / f"v.tsv{compression}"
    file.write_bytes(COMPRESSORS[compression](end.join(lines).encode()))
    rows = list(readers.read_rows(Storage(), FileRange(str(file)), "path"))
    assert [row.line_number for row in rows] == [*range(2, len(SAID) + 2)]
    assert [dict(row.fields) for row in rows] == [
        {"client_id": f"c{n}", "path": f"{n}.mp3", "sentence": text, "duration": 1.5}
        for n, text in enumerate(SAID)
    ]


# Without the ends of lines, among them those that only Python knows, a cell may hold anything.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n\r"), max_size=8)
QUOTES = st.text('"a, ', max_size=6)


@given(st.lists(st.tuples(CELLS | QUOTES, CELLS | QUOTES)), st.sampled_from(["\n", "\r\n"]))
def test_any_lines_are_rows(rows, end):
    content = "".join(f"{path}\t{text}{end}" for path, text in [("path", "text"), *rows])
    records = records_of(content.encode())
    assert records == [
        (number, {"path": path, "text": text}) for number, (path, text) in enumerate(rows, 2)
    ]


@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_for_each_line_that_is_not_blank(content):
    lines = io.BytesIO(content).readlines()
    texts = [line.decode("utf-8", "backslashreplace").rstrip("\r\n") for line in lines]
    assert [number for number, _ in records_of(b"a\tb\n" + content)] == [
        number for number, text in enumerate(texts, 2) if text.strip() or "\t" in text
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b.wav", "1 cells, where the header has 2"),
        ('b.wav\t"one\ttwo"', "quotes are characters; .* a name that ends with .csv"),
        ("b.wav\tone\rtwo", r"carriage return \(CR\)"),
    ],
)
def test_a_line_that_is_no_row_fails_alone_with_why(line, message):
    first, (number, error), last = records_of(f"path\ttext\na\t1\n{line}\nc\t3\n".encode())
    assert first == (2, {"path": "a", "text": "1"})
    assert number == 3
    assert isinstance(error, BadRecordError)
    assert error.line == line
    with pytest.raises(BadRecordError, match=message):
        raise error
    assert last == (4, {"path": "c", "text": "3"})


def test_a_line_that_is_too_long_fails_alone_with_its_beginning(monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 100)
    first, (number, error), last = records_of(b"a\tb\n1\t1\n2\t" + b"x" * 500 + b"\n3\t3\n")
    assert (first[0], number, last) == (2, 3, (4, {"a": "3", "b": "3"}))
    assert isinstance(error, LineTooLongError)
    assert error.line.startswith("2\txxx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\ta\n", "more than one column 'a'"),
        (b"a\t\tb\n", "column 2 of the table"),
        (b"\n \n", "names no columns"),
        (b"a\tb\r1\t2\r", "end with CR alone"),
        (b'"a"\t"b"\n"1"\t"2"\n', "in quotes; .* a name that ends with .csv"),
        ("a\tb\n1\t2\n".encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_a_header_that_does_not_name_each_column_once_fails_the_table(content, message):
    with pytest.raises(TableError, match=message) as error:
        records_of(content)
    assert "clips.tsv" in str(error.value)


def test_excels_first_line_is_no_header():
    assert records_of(b"sep=\t\r\na\tb\r\n1\t2\r\n") == [(3, {"a": "1", "b": "2"})]


def test_an_empty_table_has_no_rows():
    assert records_of(b"") == records_of(b"a\tb\n\n") == []


def test_a_table_that_looks_quoted_is_pointed_out_once(caplog):
    caplog.set_level(logging.WARNING)
    assert len(records_of(b'path\ttext\na\t"He ""said"" no"\nb\t"""Yes"""\n')) == 2
    (record,) = caplog.records
    assert "line 2" in record.getMessage()
    assert "ends with .csv" in record.getMessage()
    caplog.clear()
    records_of(b'path\ttext\na\t"An opening\nb\t"Both"\nc\t""Twice""\nd\ta "4"\n')
    assert not caplog.records
