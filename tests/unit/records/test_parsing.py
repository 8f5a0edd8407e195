"""Lines of manifests: the audio that they name, and what is wrong with them."""

from __future__ import annotations

import pytest

from beam_asr import errors
from beam_asr.records import parsing
from beam_asr.records.record import failure
from beam_asr.records.row import Row
from beam_asr.records.work import Clip


def test_a_row_gives_its_audio_beside_its_manifest_with_offset_and_duration():
    row = Row('{"audio_filepath": "a/b.wav", "offset": 1.5, "duration": 2}', "/data/m.jsonl", 3)
    assert parsing.parse(row) == Clip(row, "/data/a/b.wav", 1.5, 2.0)


@pytest.mark.parametrize(
    ("audio", "where", "expected"),
    [
        ("b.wav", "/data/m.jsonl", "/data/b.wav"),
        ("../b.wav", "/data/sub/m.jsonl", "/data/b.wav"),
        ("/abs/b.wav", "/data/m.jsonl", "/abs/b.wav"),
        ("b.wav", "gs://bucket/data/m.jsonl", "gs://bucket/data/b.wav"),
        ("../b.wav", "s3://bucket/data/m.jsonl", "s3://bucket/b.wav"),
        ("gs://other/b.wav", "/data/m.jsonl", "gs://other/b.wav"),
        ("gs://other/b.wav", "gs://bucket/m.jsonl", "gs://other/b.wav"),
        ("zip://b.wav::s3://bucket/c.zip", "/m.jsonl", "zip://b.wav::s3://bucket/c.zip"),
        ("b.wav", "", "b.wav"),
        ("a::b.wav", "/data/m.jsonl", "/data/a::b.wav"),
        ("a::b.wav", "s3://bucket/m.jsonl", "s3://bucket/a::b.wav"),
        ("/data/a::b.wav", "gs://bucket/m.jsonl", "/data/a::b.wav"),
        ("~x.wav", "/data/m.jsonl", "/data/~x.wav"),
        ("~x.wav", "gs://bucket/m.jsonl", "gs://bucket/~x.wav"),
        ("is it?.wav", "gs://bucket/m.jsonl", "gs://bucket/is it?.wav"),
        ("b.wav", "gs://bucket/is it?/m.jsonl", "gs://bucket/is it?/b.wav"),
        ("b.wav", "https://host/lists/m.jsonl?sig=a/b", "https://host/lists/b.wav"),
        ("50%25.wav", "/data/m.jsonl", "/data/50%25.wav"),
        ("50%25.wav", "file:///data/two%20words/m.jsonl", "/data/two words/50%25.wav"),
        ("file:///a%20b.wav", "gs://bucket/m.jsonl", "file:///a%20b.wav"),
        ("file:/a%20b.wav", "/data/m.jsonl", "file:/a%20b.wav"),
        ("b.wav", "zip://in/m.jsonl::gs://b/c.zip", "zip://in/b.wav::gs://b/c.zip"),
        ("b.wav", "simplecache::gs://b/in/m.jsonl", "simplecache::gs://b/in/b.wav"),
    ],
)
def test_audio_is_relative_to_its_manifest_wherever_that_lies(audio, where, expected):
    assert parsing.resolve(audio, where) == expected


def test_audio_relative_to_the_working_folder_is_found_as_nemo_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/b.wav").touch()
    (tmp_path / "lists").mkdir()
    listed = str(tmp_path / "lists/m.jsonl")
    assert parsing.resolve("clips/b.wav", listed) == str(tmp_path / "clips/b.wav")
    (tmp_path / "lists/clips").mkdir()
    (tmp_path / "lists/clips/b.wav").touch()
    assert parsing.resolve("clips/b.wav", listed) == str(tmp_path / "lists/clips/b.wav")


def test_a_tilde_is_home_unless_a_file_beside_the_manifest_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    listed = str(tmp_path / "m.jsonl")
    assert parsing.resolve("~/b.wav", listed) == "/home/somebody/b.wav"
    assert parsing.resolve("~/b.wav", "gs://bucket/m.jsonl") == "/home/somebody/b.wav"
    assert parsing.resolve("~root/b.wav", listed).endswith("root/b.wav")
    (tmp_path / "~root").mkdir()
    (tmp_path / "~root/b.wav").touch()
    assert parsing.resolve("~root/b.wav", listed) == str(tmp_path / "~root/b.wav")


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("{", errors.NotJsonError, "one JSON object"),
        ('["a.wav"]', errors.NotAnObjectError, "a list"),
        ('"a.wav"', errors.NotAnObjectError, "a string"),
        ("null", errors.NotAnObjectError, "null"),
        ('{"audio": "a.wav"}', errors.MissingAudioError, "'audio_filepath'"),
        ('{"audio_filepath": null}', errors.MissingAudioError, "'audio_filepath'"),
        ('{"audio_filepath": 3}', errors.BadFieldError, "a number (3)"),
        ('{"audio_filepath": " "}', errors.BadFieldError, "'audio_filepath'"),
        (
            '{"audio_filepath": "a", "offset": "3"}',
            errors.BadFieldError,
            "'offset' is a string",
        ),
        ('{"audio_filepath": "a", "offset": -1}', errors.BadFieldError, "'offset' is -1"),
        ('{"audio_filepath": "a", "offset": true}', errors.BadFieldError, "a boolean"),
        (
            '{"audio_filepath": "a", "duration": NaN}',
            errors.BadFieldError,
            "'duration' is nan",
        ),
        (
            '{"audio_filepath": "a", "duration": 0}',
            errors.BadFieldError,
            "'duration' is 0",
        ),
        ('{"audio_filepath": "a", "duration": Infinity}', errors.BadFieldError, "is inf"),
        ('{"audio_filepath": "a", "offset": 1.7e308}', errors.BadFieldError, "is 1.7e+308"),
        (f'{{"audio_filepath": "a", "offset": 1{"0" * 400}}}', errors.BadFieldError, "is 1000"),
    ],
)
def test_a_wrong_line_says_what_is_wrong_with_it(line, error, message):
    with pytest.raises(error) as raised:
        parsing.parse(Row(line))
    assert message in str(raised.value)
    assert len(str(raised.value)) < 300


def test_another_field_may_name_the_audio():
    assert parsing.parse(Row('{"path": "/a.wav"}'), "path").audio == "/a.wav"


def test_a_failed_row_of_a_manifest_says_where_it_stands():
    row = Row('{"audio": "a.wav"}', "gs://b/m.jsonl", 17)
    with pytest.raises(errors.MissingAudioError) as raised:
        parsing.parse(row)
    record = failure(row, raised.value)
    assert record["audio"] == "a.wav"
    assert record["error"]["message"].startswith("gs://b/m.jsonl:17: the row has no")


def test_a_row_that_is_broken_fails_with_its_own_error_and_keeps_what_was_read():
    error = errors.LineTooLongError("too long", '{"audio_filepath": "/a"}')
    row = Row.broken(error, "/m.jsonl", 9)
    with pytest.raises(errors.LineTooLongError, match="too long"):
        parsing.parse(row)
    record = failure(row, error)
    assert record["line"] == '{"audio_filepath": "/a"}'
    assert (record["manifest"], record["line_number"]) == ("/m.jsonl", 9)
    assert "audio_filepath" not in record


def test_a_row_whose_problem_has_no_class_is_a_bad_record():
    with pytest.raises(errors.BadRecordError, match="the cells"):
        parsing.parse(Row("", "/t.csv", 2, "the cells"))
