"""Whatever a manifest holds, each of its lines ends as one transcript or one failure."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import json
import lzma
import re
import tarfile
import tracemalloc
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import zstandard
from apache_beam.coders import FastPrimitivesCoder
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pyarrow import parquet

from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.errors import (
    AudioError,
    BadRecordError,
    LineTooLongError,
    ManifestError,
    StorageError,
    TableError,
)
from beam_asr.inputs import compression, json_documents, json_lines, readers
from beam_asr.inputs.readers import FileRange
from beam_asr.inputs.tar_clips import TarClip, TarReader, UnreadRow
from beam_asr.outputs import shards
from beam_asr.records import lhotse_cuts, parsing
from beam_asr.records.events import SampleFound
from beam_asr.records.record import Transcript, failure
from beam_asr.records.row import Row
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage.file_kinds import RECORDING, content_kind
from beam_asr.storage.storage import Storage

RUNNER_FRAMES = 400  # that a runner may have on the stack: a generous number
COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
GOOD = b'{"audio_filepath": "/a.wav"}'


def rows_of(file):
    pieces = readers.split_file(Storage(), str(file))
    return [
        row for piece in pieces for row in readers.read_rows(Storage(), piece, "audio_filepath")
    ]


def from_deep(function, frames=RUNNER_FRAMES):
    """Calls a function from deep in the stack, as a runner does."""
    return from_deep(function, frames - 1) if frames else function()


def record_of(row):
    """The terminal record of a row, as the job makes it, and as it is after a shuffle."""
    try:
        parsing.parse(row)
    except ManifestError as error:
        failed = error
        record = from_deep(lambda: failure(row, failed, stage="manifest"))
        assert record["error"]["type"] == type(failed).__name__
        assert len(record["error"]["message"]) <= 500
        assert "\n" not in record["error"]["message"]
    else:
        record = from_deep(lambda: Transcript(row, {"pred_text": "hello"}, 1.0).record())
    coder = FastPrimitivesCoder()
    return from_deep(lambda: coder.decode(coder.encode(record)))


def written(record):
    """A record as a reader of the output gets it."""
    line = from_deep(lambda: shards.encode(record))
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    return json.loads(line)


def record_of_line(line, where=("/lists/m.jsonl", 7)):
    return written(record_of(Row(line, *where)))


def failure_of(line):
    """The class and message of the failure that a line ends as, and the record."""
    record = record_of_line(line)
    assert "pred_text" not in record
    return record["error"]["type"], record["error"]["message"], record


def is_row(line, number):
    text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    blank = not text.decode("utf-8", "backslashreplace").strip()
    return not blank or len(line) > json_lines.MAX_LINE_BYTES


def numbers_of_rows(content):
    """The numbers of the lines that are rows: those that are not blank, or too long."""
    return [n for n, line in enumerate(io.BytesIO(content), 1) if is_row(line, n)]


TOKENS = [
    *(b"\n", b"\r\n", b"\r", b" ", b"\0", b"\xff", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-0.0",
        b"9" * 4400,
    ),
    *(b'"audio_filepath"', b'"offset"', b'"duration"', b'"error"', b'"type"', b'"MonoCut"'),
    *(
        b'"/a.wav"',
        b'"~\\u0000"',
        b'"~\\ud800/a"',
        b'"::"',
        b"true",
        b"null",
        b"[" * 500,
        b'{"a":' * 99,
    ),
    *(GOOD, GOOD + b"\n", GOOD[:-1] + b', "text": "\xc5\xbelu\xc5\xa5"}\n'),
    *(b'{"audio_filepath": "/a", "x": ' + b"[" * n + b"]" * n + b"}" for n in (98, 99, 100, 300)),
]
CONTENTS = st.binary(max_size=60) | st.lists(
    st.sampled_from(TOKENS) | st.binary(max_size=4), max_size=12
).map(b"".join)


@given(CONTENTS)
@example(GOOD + b"\n" + GOOD)
@example(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n \n" + GOOD + b"\n\xef\xbb\xbf" + GOOD)
def test_any_bytes_are_a_record_for_each_line_that_is_not_blank(tmp_path_factory, content):
    assume(not json_documents.is_document(content, is_whole=True))
    file = tmp_path_factory.mktemp("m") / "m.jsonl"
    file.write_bytes(content)
    rows = rows_of(file)
    kind = content_kind(content)
    if kind is not None:  # no text: one failure for all of it, or the row of a recording
        assert len(rows) == 1
        assert bool(rows[0].problem) == (kind != RECORDING)
        return
    assert [row.line_number for row in rows] == numbers_of_rows(content)
    records = [written(record_of(row)) for row in rows]
    for row, record in zip(rows, records, strict=True):
        place = f"{file}:{row.line_number}: "
        assert "pred_text" in record or record["error"]["message"].startswith(place)


@given(CONTENTS, st.lists(st.integers(0, 120), max_size=6), st.integers(1, 60))
def test_rows_are_the_same_however_a_file_is_split(tmp_path_factory, content, places, longest):
    assume(not json_documents.is_document(content, is_whole=True))
    file = str(tmp_path_factory.mktemp("m") / "m.jsonl")
    with open(file, "wb") as out:
        out.write(content)
    bounds = sorted({0, len(content), *(place for place in places if place < len(content))})
    storage = Storage()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "MAX_LINE_BYTES", longest)
        patch.setattr(compression, "SKIPPED_BYTES", 7)
        whole = list(readers.read_rows(storage, FileRange(file), "audio_filepath"))
        in_pieces, before = [], 0
        for start, end in itertools.pairwise(bounds):
            piece = FileRange(file, start, end, before)
            in_pieces += readers.read_rows(storage, piece, "audio_filepath")
            before += json_lines.count_lines(storage, file, start, end)
        assert in_pieces == whole
        assert [row.line_number for row in whole] == numbers_of_rows(content)
        for row in whole:
            written(record_of(row))


# Long lines


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_line_that_is_too_long_fails_alone_with_its_beginning_and_its_place(tmp_path, ending):
    long = '{"audio_filepath": "/ž.wav", "x": "'.encode() + b"a" * 2**24
    file = tmp_path / f"m.jsonl{ending}"
    file.write_bytes(COMPRESSORS[ending](GOOD + b"\n" + long + b'"}\n\n' + GOOD + b"\n" + long))
    first, second, third, last = (written(record_of(row)) for row in rows_of(file))
    assert first == third == {"audio_filepath": "/a.wav", "pred_text": "hello"}
    for number, record in ((2, second), (5, last)):
        assert record["line"] == long[:1001].decode()  # a thousand characters
        assert (record["manifest"], record["line_number"]) == (str(file), number)
        assert record["error"]["type"] == "LineTooLongError"
        assert record["error"]["message"].startswith(f"{file}:{number}: the line is longer than 16")


def test_a_line_of_just_the_longest_length_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", len(GOOD) + 1)
    file = tmp_path / "m.jsonl"
    file.write_bytes(GOOD + b"\n" + GOOD + b" \n" + GOOD)
    assert [bool(row.problem) for row in rows_of(file)] == [False, True, False]


def test_a_line_whose_beginning_is_a_row_is_none_if_it_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 1000)
    file = tmp_path / "m.jsonl"
    file.write_bytes(GOOD + b" " * 5000 + b"garbage\n")
    (record,) = map(record_of, rows_of(file))
    assert record["line"].startswith(GOOD.decode())
    assert "audio_filepath" not in record


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["m.jsonl.gz", "m.jsonl.zst", "m.jsonl", "t.csv.gz"])
def test_a_line_of_hundreds_of_megabytes_takes_little_memory(tmp_path, name):
    file = tmp_path / name
    opened = {".gz": partial(gzip.open, compresslevel=1), ".zst": zstandard.open}
    with opened.get(file.suffix, open)(file, "wb") as out:
        out.write(b"audio_filepath,x\n" if "csv" in name else GOOD + b"\n")
        for _ in range(192):
            out.write(b"a" * 2**20)
        out.write(b"\n/c.wav,1\n" if "csv" in name else b"\n" + GOOD)
    found = []
    assert peak_of(lambda: found.extend(rows_of(file))) < 2**27
    file.unlink()
    assert [row.problem_type for row in found if row.problem] == ["LineTooLongError"]
    assert found[-1].line_number == 3
    assert not found[-1].problem


class CountedFile(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    taken = 0

    def open(self, _):
        """Stands for a storage with this one file."""
        self.seek(0)
        return contextlib.nullcontext(self)

    def readline(self, size=-1):
        line = super().readline(size)
        self.taken += len(line)
        return line


def test_the_pieces_of_a_long_line_are_not_each_read_to_its_end(monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 2**16)
    file = CountedFile(b"x" * 2**24)
    found = []
    for start, end in itertools.pairwise(range(0, 2**24 + 1, 2**19)):
        found += json_lines.read_lines(file, "m.jsonl", start, end)
    assert [type(line) for line in found] == [LineTooLongError]
    assert file.taken < 1.5 * 2**24


def test_a_million_blank_lines_are_no_rows_and_the_next_has_its_number(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_bytes(b"\n \r\n" * 500_000 + GOOD)
    assert rows_of(file) == [Row(GOOD.decode(), str(file), 1_000_001)]


# JSON that is no row


def nested(levels, opening, closing):
    return f'{{"audio_filepath": "/a", "text": "{{[", "x": {opening * levels}{closing * levels}}}'


@pytest.mark.parametrize("levels", [100, 101, 500, 990, 100_000])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":[', "]}"), ("[", ""), ('{"a":', "")]
)
def test_a_line_that_nests_too_deep_is_not_json_of_a_row(levels, opening, closing):
    line = nested(levels, opening, closing)
    kind, message, record = failure_of(line)
    assert kind == "NotJsonError"
    assert record["line"] == line
    if closing:
        assert "100 deep" in message


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":[', "]}")])
def test_a_row_that_nests_as_deep_as_is_allowed_is_transcribed(opening, closing):
    line = nested(99 // len(closing), opening, closing)
    assert record_of_line(line) == {**json.loads(line), "pred_text": "hello"}


def test_a_text_of_many_brackets_does_not_nest():
    line = json.dumps({"audio_filepath": "/a", "text": "[" * 5000 + "{" * 5000})
    assert record_of_line(line)["text"] == "[" * 5000 + "{" * 5000


@pytest.mark.parametrize(
    "line",
    [
        '{"audio_filepath": "/a", "text": "x", "text": "x"}',
        '{"audio_filepath": "/a", "text": "x", "b": 1, "b": 2, "\\u0074ext": "y", "text": 3}',
        '{"audio_filepath": "/a", "x": [{"y": {"text": 1, "text": 2}}]}',
    ],
)
def test_a_key_that_comes_twice_is_named(line):
    kind, message, record = failure_of(line)
    assert kind == "DuplicateKeyError"
    assert 'the key "text"' in message
    assert record["line"] == line


BadField = "BadFieldError"


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ('{"audio_filepath": "/a", "x": 1e999}', BadField, "the number 1e999"),
        ('{"audio_filepath": "/a", "x": [-1e400]}', BadField, "the number -1e400"),
        (f'{{"audio_filepath": "/a", "x": {"9" * 5000}}}', BadField, "too many digits"),
        ('{"audio_filepath": "/a", "x": "\\ud800"}', BadField, "surrogate"),
        ('{"audio_filepath": "/a", "x": ["\\uDFFF x"]}', BadField, "surrogate"),
        ('{"audio_filepath": "/a", "\\ude00\\ud83d": 1}', BadField, "surrogate"),
        ('{"audio_filepath": "/\\ud800"}', BadField, "surrogate"),
        (GOOD.decode() + ",", "NotJsonError", "Extra data at character 29"),
        (GOOD.decode() * 2, "NotJsonError", "Extra data at character 29"),
        (GOOD.decode() + "\r" + GOOD.decode(), "NotJsonError", "Extra data"),
        ("\ufeff" + GOOD.decode(), "NotJsonError", "byte order mark"),
        ("\0\0\0", "NotJsonError", "NUL"),
        ("{'audio_filepath': '/a'}", "NotJsonError", "character 2"),
        ('"a.wav"', "NotAnObjectError", 'a string ("a.wav")'),
        ("3", "NotAnObjectError", "a number (3)"),
        ("-Infinity", "NotAnObjectError", "a number (-Infinity)"),
        ("[" + "3," * 9000 + "3]", "NotAnObjectError", "a list ([3, 3"),
        ("true", "NotAnObjectError", "a boolean (true)"),
        ("null", "NotAnObjectError", "null (null)"),
    ],
)
def test_a_line_that_is_no_row_says_why_and_is_kept(line, kind, message):
    found, said, record = failure_of(line)
    assert found == kind
    assert message in said
    assert record["line"] == line
    assert (record["manifest"], record["line_number"]) == ("/lists/m.jsonl", 7)


@pytest.mark.parametrize(
    "line",
    [
        '{"audio_filepath": "/a", "x": [NaN, Infinity, -Infinity, -0.0, 1e-999, 5e-324]}',
        '{"audio_filepath": "/a", "x": "\\ud83d\\ude00 \\uac00 \\u0000 \\u2028 \\u0085"}',
        f'{{"audio_filepath": "/a", "x": {"9" * 4000}}}',
        '{"audio_filepath": "/a", "": {"": {}}, "side": "left", "line": [], "manifest": 7}',
        '{"audio_filepath": "/a", "offset": -0.0, "duration": null}',
        '{"audio_filepath": "../../etc/a", "offset": 5e-324, "duration": 1}',
    ],
)
def test_what_is_odd_but_can_be_kept_is_kept(line):
    record = record_of_line(line)
    assert repr(record) == repr({**json.loads(line), "pred_text": "hello"})  # NaN is not itself


BAD_SECONDS = ['"3"', "NaN", "Infinity", "-Infinity", "1e999", "-1", "-5e-324", "true", "[]", "{}"]
BAD_SECONDS += ["9" * 400, "9" * 5000, "1.7e308", "1e9999999999", '"\\ud800"', "1e10"]


@pytest.mark.parametrize("value", BAD_SECONDS)
@pytest.mark.parametrize("key", ["offset", "duration"])
def test_seconds_that_are_none_fail(key, value):
    kind, message, _ = failure_of(f'{{"audio_filepath": "/a", "{key}": {value}}}')
    assert kind == "BadFieldError"
    assert len(message) < 300


@pytest.mark.parametrize(
    "value",
    ["3", "NaN", "true", "[]", "{}", '""', '" \\t"', '"a\\u0000b"', '"~\\u0000/b"', '"~\\ud800/b"']
    + ['"gs://b/\\u0000"', f'["{"x" * 100_000}"]', "9" * 4000, '{"a": {"b": [1, 2, 3]}}'],
)
def test_what_cannot_be_a_path_fails(value):
    kind, message, _ = failure_of(f'{{"audio_filepath": {value}}}')
    assert kind == "BadFieldError"
    assert len(message) < 300


@pytest.mark.parametrize(
    "audio",
    ["/", ".", "..", "../../../etc/passwd", "/etc/passwd", "/dev/null", "~", "~nobody/x", "a\nb"]
    + ["foo://x", "FILE:///etc/passwd", "file://", "memory://x", "::", "a::b", "://", "*.wav"]
    + [
        "[",
        "{1..3}.wav",
        "C:\\x.wav",
        "s3:x",
        "data:audio/wav;base64,AAAA",
        "python://x",
        "\x1b[1m",
    ],
)
def test_an_odd_path_is_kept_and_reading_it_says_what_is_wrong(audio, tmp_path):
    row = Row(json.dumps({"audio_filepath": audio}), str(tmp_path / "m.jsonl"), 1)
    assert record_of(row)["audio_filepath"] == audio
    with pytest.raises((AudioError, StorageError)):
        read_audio(parsing.parse(row).audio, AudioRequest(sample_rate=16_000))


@pytest.mark.parametrize("length", [300, 100_000])
def test_a_long_path_is_kept(length, tmp_path):
    audio = "a" * length
    row = Row(json.dumps({"audio_filepath": audio}), str(tmp_path / "m.jsonl"), 1)
    assert parsing.parse(row).audio == str(tmp_path / audio)
    assert record_of(row)["audio_filepath"] == audio


READ = {"audio_filepath", "offset", "duration", "error", "type", "pred_text"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.text().filter(lambda key: key not in READ), JSON), st.booleans())
def test_any_other_fields_of_a_row_come_out_as_they_went_in(fields, ascii_only):
    line = json.dumps({**fields, "audio_filepath": "/a", "offset": 0}, ensure_ascii=ascii_only)
    expected = {**json.loads(line), "pred_text": "hello"}
    assert repr(record_of_line(line)) == repr(expected)  # NaN does not equal itself


ERRORS = JSON | st.fixed_dictionaries(
    dict.fromkeys(("stage", "type", "message"), JSON),
    optional=dict.fromkeys(("attempts", "replaced", "x"), JSON),
)


@given(ERRORS, st.integers(1, 3))
def test_an_error_field_of_any_shape_survives_failures_that_come_in_again(error, times):
    row = Row.of({"audio_filepath": "/a", "error": error, "z": 1})
    at_first = Transcript(row, {"pred_text": "hello"}, 1.0).record()
    for attempts in range(times):
        failed = failure(row, OSError("no"), attempts, "audio")
        row = Row(shards.encode(failed).decode())
    assert repr(Transcript(row, {"pred_text": "hello"}, 1.0).record()) == repr(at_first)


# Other encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_manifest_in_another_unicode_encoding_fails_with_the_remedy(tmp_path, encoding):
    file = tmp_path / "m.jsonl"
    file.write_text(GOOD.decode() + "\n" + '{"audio_filepath": "/ž.wav"}\n', encoding=encoding)
    (record,) = [written(record_of(row)) for row in rows_of(file)]
    assert record["error"]["type"] == "NotJsonError"
    assert "save it as UTF-8" in record["error"]["message"]


def test_rows_in_latin_1_fail_and_those_in_ascii_beside_them_do_not(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_bytes(GOOD + b"\n" + '{"audio_filepath": "/é"}\n'.encode("latin-1") + GOOD)
    first, second, last = (written(record_of(row)) for row in rows_of(file))
    assert first == last == {"audio_filepath": "/a.wav", "pred_text": "hello"}
    assert second["line"] == '{"audio_filepath": "/\\xe9"}'
    assert "0xe9" in second["error"]["message"]


def test_a_binary_file_is_one_failure_and_not_one_for_each_of_its_lines(tmp_path):
    file = tmp_path / "m.jsonl"
    content = np.random.default_rng(0).bytes(100_000)
    file.write_bytes(content)
    assert len(numbers_of_rows(content)) > 300
    (record,) = [written(record_of(row)) for row in rows_of(file)]
    assert record["error"]["type"] == "NotJsonError"
    assert "is no text" in record["error"]["message"]


# Rows that come from elsewhere


LOOP: dict = {}
LOOP["loop"] = LOOP
DEEP: list = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "fields",
    [{"x": 10**5000}, {"x": {1, 2}}, {(1, 2): 3}, {"x": b"bytes"}, {"x": object()}, LOOP]
    + [{"x": DEEP}, {1: "a", "1": "b"}, {"x": "\ud800"}],
)
def test_fields_that_json_cannot_hold_are_a_manifest_error(fields):
    with pytest.raises(ManifestError):
        parsing.parse(from_deep(lambda: Row.of({"audio_filepath": "/a", **fields})))


@pytest.mark.parametrize(
    ("x", "shown"),
    [({1}, "{'x': {1}}"), ([10**5000], "dict that cannot be shown"), (b"\0", "{'x': b'\\x00'}")],
)
def test_fields_that_json_cannot_hold_are_shown_by_their_failure(x, shown):
    with pytest.raises(ManifestError) as error:
        Row.of({"x": x})
    assert record_of(Row.broken(error.value))["line"] == shown


def test_a_record_of_a_table_fails_with_its_text(tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(b'audio_filepath,text\r\n/a.wav,one,two\r\n/b.wav,"x"y\r\n/c.wav,\xff\r\n')
    first, second, last = (written(record_of(row)) for row in rows_of(file))
    assert (first["line"], first["line_number"]) == ("/a.wav,one,two", 2)
    assert (second["line"], second["line_number"]) == ('/b.wav,"x"y', 3)
    assert {first["error"]["type"], second["error"]["type"]} == {"BadRecordError"}
    assert last == {"audio_filepath": "/c.wav", "text": "\\xff", "pred_text": "hello"}


@pytest.mark.parametrize("cell", ["x" * 300, '"' + "x\n" * 150 + 'x"', '"' + "x," * 150 + '"'])
def test_a_record_that_is_too_long_fails_with_its_beginning_and_the_next_line_is_read(
    tmp_path, monkeypatch, cell
):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 200)
    file = tmp_path / "t.csv"
    file.write_text(f"\ufeffaudio_filepath,text\n/a.wav,1\n/b.wav,{cell}\n/c.wav,3\n")
    records = [written(record_of(row)) for row in rows_of(file)]
    assert records[0] == {"audio_filepath": "/a.wav", "text": "1", "pred_text": "hello"}
    assert records[1]["error"]["type"] == "LineTooLongError"
    assert records[1]["line"].startswith("/b.wav,")
    assert records[1]["line_number"] == 3
    assert records[-1] == {"audio_filepath": "/c.wav", "text": "3", "pred_text": "hello"}


def test_a_header_of_very_many_columns_is_judged_and_its_message_is_short(tmp_path):
    file = tmp_path / "t.csv"
    names = [f"c{n}" for n in range(200_000)]
    file.write_text(",".join([*names, *names]) + "\n")
    with pytest.raises(TableError, match="more than one column 'c0'") as error:
        rows_of(file)
    assert len(str(error.value)) < 500


def test_a_long_cell_of_parquet_and_one_that_nests_deep_fail_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 2000)
    deep, type_ = 1, pa.int32()
    for _ in range(700):
        deep, type_ = [deep], pa.list_(type_)
    table = pa.table(
        {
            "audio_filepath": ["/a", "/b", "/c"],
            "text": ["1", "x" * 5000, "3"],
            "deep": pa.array([None, None, deep], type_),
        }
    )
    parquet.write_table(table, tmp_path / "t.parquet", store_schema=False)
    first, second, third = (written(record_of(row)) for row in rows_of(tmp_path / "t.parquet"))
    assert first["pred_text"] == "hello"
    assert second["error"]["type"] == "LineTooLongError"
    assert second["line"].startswith('{"audio_filepath": "/b", "text": "xxx')
    assert third["error"]["type"] == "BadRecordError"
    assert "'deep'" in third["error"]["message"]


def test_a_cut_of_very_many_channels_and_sources_is_judged():
    cut = {"type": "MonoCut", "id": "c", "start": 0, "duration": 1, "channel": [*range(300_000)]}
    cut["recording"] = {"sources": [{"channels": [400_000]}] * 300_000}
    with pytest.raises(BadRecordError, match="in 0 of the recording's 300000 sources"):
        lhotse_cuts.audio_of(cut)


def test_samples_that_cannot_be_used_cost_no_others_of_their_tar(tmp_path):
    audio = io.BytesIO()
    soundfile.write(audio, np.full(800, 0.5), 8000, format="WAV")
    bad = {
        "deep": b"[" * 500 + b"]" * 500,
        "deeper": b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}",
        "twice": b'{"x": 1, "x": 2}',
        "half": b'{"x": "\\ud800"}',
        "digits": b'{"x": ' + b"9" * 5000 + b"}",
        "a::b": b"{}",
    }
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, fields in {"first": b"{}", **bad, "last": b'{"x": 1}'}.items():
            for ending, content in ((".json", fields), (".wav", audio.getvalue())):
                member = tarfile.TarInfo(name + ending)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    reader = TarReader(Storage(), "audio_filepath")
    events = list(reader.events(WebDatasetTar(str(tmp_path / "t.tar"))))
    clips = [event.clip for event in events if isinstance(event, TarClip)]
    unread = [event for event in events if isinstance(event, UnreadRow)]
    assert [re.sub(".*: ", "", clip.audio) for clip in clips] == ["first.wav", "last.wav"]
    assert events.count(SampleFound()) == len(clips) + len(unread) == 8
    for (row, stage, error), name in zip(unread, bad, strict=True):
        assert isinstance(error, ManifestError)
        assert name in str(error)
        assert name in written(failure(row, error, stage=stage))["audio_filepath"]
