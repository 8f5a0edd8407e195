"""The look at the first rows of inputs before a job starts."""

from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import parquet

from beam_asr.errors import WrongInputError
from beam_asr.inputs import discovery, first_rows, readers
from beam_asr.storage.storage import Storage

KEY = "audio_filepath"
RIGHT = '{"audio_filepath": "a.wav"}\n'


def refused(pattern, key=KEY):
    """The message with which an input is refused; empty if it is not."""
    storage = Storage()
    try:
        first_rows.check(first_rows.look(storage, discovery.check(storage, str(pattern)), key), key)
    except WrongInputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.jsonl", '{"path": "a.wav", "n": 1}\n' * 30, "first 20 rows .*'path', 'n'.*=path`"),
        ("m.jsonl", '{"audio": {"path": "a.wav"}}\n', "the first row .* 'audio'.*`filepath_key`"),
        (
            "m.json",
            '[{"path": "a.wav"},\n {"path": "b.wav"}]',
            "first 2 rows .*`filepath_key=path`",
        ),
        ("m.json", json.dumps({"rows": [RIGHT]}, indent=1), "The fields are: 'rows'"),
        ("list.txt", "/x/a.wav\n/x/b c.wav\n", "seem to be paths of audio"),
        ("wav.scp", "u1 /x/a.wav\nu2 /x/b.wav\n", "Kaldi's wav.scp.*lhotse kaldi import"),
        ("m.txt", "audio_filepath,text\na.wav,one\nb.wav,two\n", "with commas: end .* in .csv"),
        ("m.jsonl", "audio_filepath;text\na.wav;one\n", "with semicolons: end .* in .csv"),
        ("m", "audio_filepath\ttext\na.wav\tone, two\n", "with tabs: end .* in .tsv"),
        ("m.jsonl", '["a.wav"]\n["b.wav"]\n', "no JSON object.*a list"),
        ("m.jsonl", "{'audio_filepath': 'a.wav'}\n" * 2, "no JSON object.*double quotes"),
        ("m.jsonl", '{"audio_filepath": {"bytes": "", "path": "a"}}\n' * 2, "no path or URI"),
        ("m.jsonl", '{"audio_filepath": "a", "a": 1, "a": 2}\n' * 2, 'the key "a" 2 times'),
        ("m.csv", "file_name,text\na.wav,one\n", "'file_name', 'text'.*`filepath_key=file_name`"),
        ("m.tsv", "path\ttext\na.wav\tone\n", "'path', 'text'"),
        ("m.csv", RIGHT * 2, "end the file's name in .jsonl"),
        ("m.csv", "audio_filepath,,text\na,b,c\n", "column 2 .* has no name"),
        ("m.parquet", "audio_filepath,text\n", "cannot be read as Parquet"),
    ],
)
def test_a_file_without_any_right_row_is_refused_with_what_it_is(tmp_path, name, content, said):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(WrongInputError, match=said) as caught:
        first_rows.check(first_rows.look(Storage(), [str(file)], KEY), KEY)
    assert len(str(caught.value)) < 450


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"file": ["a.wav"] * 3}, "The fields are: 'file'"),
        ({"audio": [{"bytes": b"x", "path": "a.wav"}]}, "'audio' holds bytes"),
        ({KEY: ["a.wav"], "thumbnail": [b"x"]}, "'thumbnail' holds bytes"),
        ({KEY: ["a.wav"]}, ""),
        ({KEY: ["a.wav", "b.wav"], "thumbnail": [b"x", None]}, ""),
        ({"file": pyarrow.array([], pyarrow.string())}, ""),
    ],
)
def test_a_parquet_table_is_looked_at_by_its_columns(tmp_path, columns, said):
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    message = refused(tmp_path / "m.parquet")
    assert said in message
    assert bool(message) == bool(said)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n \n",
        RIGHT + '{"path": "b.wav"}\n' * 30,
        "damaged\n" * 19 + RIGHT,
        'no json\n["a list"]\n{"audio": "a.wav"}\n',  # wrong, but each in a way of its own
        '{"audio_filepath": "a.wav", "duration": 0}\n' * 30,  # as sorted by the duration
        '{"audio_filepath": null}\n' * 30,
        '{"audio_filepath": "a.wav", "x": 1e400}\n' * 30,
        '{"type": "MonoCut", "id": "a", "start": 0, "duration": 1, "recording": {}}\n',
    ],
)
def test_a_manifest_whose_rows_may_be_right_is_transcribed(tmp_path, content):
    (tmp_path / "m.jsonl").write_text(content)
    assert refused(tmp_path / "m.jsonl") == ""


def test_one_wrong_row_in_a_file_of_its_own_is_no_wrong_input(tmp_path):
    for name, content in (("a", "no json\n"), ("b", RIGHT), ("c", RIGHT)):
        (tmp_path / f"{name}.jsonl").write_text(content)
    assert refused(tmp_path / "*.jsonl") == ""
    (tmp_path / "a.jsonl").write_text("no json\n" * 2)
    assert "a.jsonl" in refused(tmp_path / "*.jsonl")
    for name in "abc":
        (tmp_path / f"{name}.jsonl").write_text("no json\n")
    assert "a.jsonl" in refused(tmp_path / "*.jsonl")


def test_what_is_no_manifest_is_not_looked_at(tmp_path, monkeypatch):
    from tests.support.audio_files import wav_bytes

    def read(*_):
        pytest.fail("its rows are read")

    other = readers.Reader(suffixes=(".rows",), read=read, is_in_folders=False)
    monkeypatch.setattr(readers, "_named_reader", lambda _: other)
    (tmp_path / "m.rows").write_text("x")
    assert refused(tmp_path / "m.rows") == ""
    monkeypatch.undo()
    (tmp_path / "call").write_bytes(wav_bytes())  # audio without an extension
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "a.tar").write_bytes(b"")
    for pattern in ("call", "tars", "tars/*.tar"):
        assert refused(tmp_path / pattern) == ""


def test_few_files_are_looked_at_and_little_of_each(http_server):
    content = (RIGHT * 200_000).encode()
    for number in range(5):
        http_server.files[f"m{number}.jsonl"] = content
    files = [http_server.url(f"m{number}.jsonl") for number in range(5)]
    looks = first_rows.look(Storage(), files, KEY)
    assert [len(looked.rows) for looked in looks] == [first_rows.ROWS] * first_rows.FILES
    assert len(http_server.requests) <= 2 * first_rows.FILES
    assert http_server.bytes_sent < len(content)
