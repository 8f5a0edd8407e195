"""Manifests that are no JSON lines: lists in JSON, and JSON over several lines."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc

import fsspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_asr.errors import DamagedInputError, TableError
from beam_asr.inputs import json_documents, json_lines, readers
from beam_asr.inputs.readers import FileRange
from beam_asr.storage.storage import Storage

COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
ROWS = [
    {
        "audio_filepath": f"{n}.wav",
        "duration": 1.50,
        "text": f"é [{{ \\ \u2028 {n}",
        "x": [{"y": n}],
    }
    for n in range(5)
]
SHAPES = {
    "list": json.dumps,
    "list over lines": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
    "list of lines": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "objects over lines": lambda rows: "\n".join(json.dumps(row, indent="\t") for row in rows),
    "lists": lambda rows: "".join(json.dumps([row], indent=1) for row in rows),
}


def rows_of(file):
    pieces = readers.split_file(Storage(), str(file))
    return [
        row for piece in pieces for row in readers.read_rows(Storage(), piece, "audio_filepath")
    ]


def fields_of(rows):
    return [dict(row.fields) for row in rows]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.json.gz", "m.jsonl.bz2", "m.xz", "m.zst"])
def test_the_objects_are_the_rows_whatever_the_files_name(tmp_path, shape, name):
    file = tmp_path / name
    compress = COMPRESSORS.get(file.suffix, bytes)
    file.write_bytes(compress(b"\xef\xbb\xbf \r\n" + SHAPES[shape](ROWS).encode()))
    rows = rows_of(file)
    assert fields_of(rows) == ROWS
    assert {"\n" in row.line for row in rows} == {False}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_list_in_a_store_is_read(shape):
    with fsspec.open("memory://lists/m.json", "wb") as file:
        file.write(SHAPES[shape](ROWS).encode())
    assert fields_of(rows_of("memory://lists/m.json")) == ROWS


def test_numbers_are_those_of_lines_or_else_of_places(tmp_path):
    numbers = {}
    for shape, write in SHAPES.items():
        file = tmp_path / "m.json"
        file.write_text(write(ROWS[:3]))
        numbers[shape] = [row.line_number for row in rows_of(file)]
    assert numbers == {
        "list": [1, 2, 3],
        "list over lines": [2, 12, 22],
        "list of lines": [2, 3, 4],
        "objects over lines": [1, 11, 21],
        "lists": [2, 13, 24],
    }


def test_what_is_no_row_fails_alone_and_a_single_object_is_a_row(tmp_path):
    file = tmp_path / "m.json"
    file.write_text('[{"audio_filepath": "a"}, 3, "x", [1], {"a": 1, "a": 2}, {"b": NaN}]')
    assert [row.line for row in rows_of(file)[1:4]] == ["3", '"x"', "[1]"]
    assert len(rows_of(file)) == 6
    file.write_text('{\n  "audio_filepath":\n    "a"\n}')
    assert fields_of(rows_of(file)) == [{"audio_filepath": "a"}]


@pytest.mark.parametrize(
    "content",
    [
        '{"audio_filepath": "a"}\n{"audio_filepath":\n"b"}\n',
        '{"audio_filepath": "a",\n{"audio_filepath": "b"}\n',
        '{"audio_filepath": "a\n{"audio_filepath": "b"}\n',
        '{\n{"audio_filepath": "b"}\n',
        '["a"]\n{"audio_filepath": "b"}\n',
        "[]\n",
        '[\n"a"\n]\n',
        '{"audio_filepath": "a"} {\n}\n',
    ],
)
def test_lines_of_which_one_is_broken_stay_lines(tmp_path, content):
    file = tmp_path / "m.json"
    file.write_text(content)
    assert [row.line for row in rows_of(file)] == content.splitlines()


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('[{"a": 1},\n {"a": 2}\n', 3, "a ',' or the end of the list is missing"),
        ('[{"a": 1},\n {"a": 2}\n {"a": 3}]', 3, "a ',' or the end"),
        ('[{"a": 1},\n {"a" 2},\n {"a": 3}]', 2, "Expecting ':'"),
        ('[{"a": 1},\n]', 2, "Expecting value"),
        ('{\n"a": 1\n}\n{\n"a": 1,\n}\n', 6, "(?:Expecting property name|Illegal trailing comma)"),
        ('{\n"a": 1\n}\n{\n"a": "x\n', 5, "(?:Invalid control|Unterminated)"),
        ('{\n"a": 1\n}\nnext', 4, "Expecting value"),
        ('[{"a":\n "' + "x" * 99999 + '"}, "\udcff"]', 2, "it is not UTF-8: .* save it as UTF-8"),
        ('[{"a": 1},\n' + "[" * 100_000, 2, "it nests too deep"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_damaged_document_is_one_message_with_its_line(tmp_path, content, line, reason, ending):
    file = tmp_path / f"m.json{ending}"
    file.write_bytes(COMPRESSORS[ending](content.encode(errors="surrogateescape")))
    with pytest.raises(TableError, match=rf"m\.json.*from line {line} on \({reason}.*as one line"):
        rows_of(file)


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
def test_a_list_whose_compressed_data_are_cut_is_damaged(tmp_path, ending):
    file = tmp_path / f"m.json{ending}"
    content = SHAPES["list"](ROWS * 10_000).encode()
    file.write_bytes(COMPRESSORS[ending](content)[:-200])
    with pytest.raises(DamagedInputError):
        rows_of(file)


def test_a_long_list_is_read_whole_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 2**20)
    file = tmp_path / "m.json"
    rows = 30_000
    with file.open("w") as out:
        out.write('[{"audio_filepath": "0.wav"}')
        out.writelines(
            f', {{"audio_filepath": "{n}.wav", "t": "{"x" * 80}"}}' for n in range(1, rows)
        )
        out.write("]")
    assert readers.split_file(Storage(), str(file)) == [FileRange(str(file))]
    tracemalloc.start()
    found = sum(1 for _ in readers.read_rows(Storage(), FileRange(str(file)), "x"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == rows
    assert peak < 2**21


def test_a_row_of_a_document_may_be_as_long_as_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE_BYTES", 300_000)
    file = tmp_path / "m.json"
    file.write_text(json.dumps([{"t": "x" * 250_000}, {"t": "y" * 250_000}]))
    assert [len(row.line) for row in rows_of(file)] == [250_009] * 2
    file.write_text(json.dumps([{"t": "x"}, {"t": "y" * 500_000}]))
    with pytest.raises(TableError, match="more than 300000 characters"):
        rows_of(file)


WRAPPERS = {
    "alone": lambda rows: {"data": rows},
    "behind fields": lambda rows: {"version": "1.0", "info": {"by": ["x"]}, "n": 1, "rows": rows},
    "before fields": lambda rows: {"utterances": rows, "version": None, "info": {"by": ["x"]}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("count", [1, 5, 2_000])
@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.json.gz"])
def test_the_rows_may_be_the_list_of_an_object(tmp_path, monkeypatch, wrapper, indent, count, name):
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 2**17)  # 2,000 rows are above it
    rows = [{**ROWS[n % 5], "n": n} for n in range(count)]
    content = json.dumps(WRAPPERS[wrapper](rows), indent=indent).encode()
    (tmp_path / name).write_bytes(COMPRESSORS[".gz" if name.endswith(".gz") else ""](content))

    found = rows_of(tmp_path / name)

    assert fields_of(found) == rows
    assert [row.line_number for row in found] == sorted({row.line_number for row in found})


@pytest.mark.parametrize(
    "line",
    [
        {"audio_filepath": "a.wav", "parts": [{"path": "b.wav"}]},
        {"parts": [{"path": "b.wav"}], "audio_filepath": "a.wav"},
        {"words": [{"word": "a", "start": 0.0}], "audio_filepath": "a.wav"},
        {"id": "a", "supervisions": [{"recording_id": "a.wav", "text": "b"}], "recording": {}},
        {"data": []},
        {"data": ["a.wav"]},
        {"data": [[{"audio_filepath": "a.wav"}]]},
        {"data": {"audio_filepath": "a.wav"}},
    ],
)
@pytest.mark.parametrize("times", [1, 3])
def test_a_row_that_has_a_list_stays_a_row(tmp_path, line, times):
    file = tmp_path / "m.json"
    file.write_text((json.dumps(line) + "\n") * times)
    assert [row.line for row in rows_of(file)] == [json.dumps(line)] * times
    file.write_text((json.dumps(line, indent=1) + "\n") * times)
    assert fields_of(rows_of(file)) == [line] * times


def test_lines_that_each_have_a_list_stay_lines(tmp_path):
    file = tmp_path / "m.json"
    file.write_text('{"data": [{"audio_filepath": "a.wav"}]}\n' * 2)
    assert len(rows_of(file)) == 2


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('{"data": [\n{"path": "a"}\n{"path": "b"}]}', 3, "a ',' or the end of the list"),
        ('{"data": [\n{"path": "a"}]\n, "path": "b"}', 3, "'path' beside 'data', the list of rows"),
        ('{"data": [\n{"path": "a"}]\n, "more": [{"a": 1}]}', 3, "'more' beside 'data'"),
        ('{"data": [\n{"path": "a"}],\n3}', 3, "a name is missing"),
        ('{"data": [\n{"path": "a"}],\n"a" 3}', 3, "a ':' is missing"),
        ('{"data": [\n{"path": "a"}]\n', 3, "a ',' or the end of the object is missing"),
        ('{"data": [\n{"path": "a"}]}\n{"data": 1}', 3, "something follows the object of which"),
    ],
)
def test_what_is_wrong_beside_a_list_is_one_message(tmp_path, content, line, reason):
    file = tmp_path / "m.json"
    file.write_text(content.replace("[\n", "[\n" + '{"path": "x"},' * 10_000, 1))
    with pytest.raises(TableError, match=rf"from line {line} on \(.*{reason}"):
        rows_of(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


class SlowFile(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def read(self, size=-1):
        return super().read(min(size, 40))


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), JSON), min_size=1),
    st.sampled_from(sorted(SHAPES)),
    st.booleans(),
)
def test_any_objects_come_out_as_they_went_in(rows, shape, ascii_only):
    content = SHAPES[shape](rows).encode()
    if not ascii_only:
        content = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if json_documents.is_document(content, is_whole=True):
        found = list(json_documents.read_objects(SlowFile(content), "m.json", 10**6))
        assert [json.loads(text) for _, text in found] == rows
        numbers = [number for number, _ in found]
        assert numbers == sorted(set(numbers))
    else:  # objects that are empty are on one line
        assert shape == "objects over lines"
        assert not rows[0]
