"""The files that an input stands for."""

from __future__ import annotations

import pytest

from beam_asr.errors import NoInputError
from beam_asr.inputs import discovery
from beam_asr.storage.storage import Storage


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("", ["deep/er/y.WAV", "x.flac"]),
        ("deep", ["deep/er/y.WAV"]),
        ("**/*.WAV", ["deep/er/y.WAV"]),
        ("x.flac", ["x.flac"]),
    ],
)
def test_an_input_stands_for_manifests_or_for_audio(input_folder, pattern, expected):
    found = discovery.find_files(Storage(), str(input_folder / pattern))
    assert found == [str(input_folder / name) for name in expected]


def test_an_input_that_stands_for_nothing_is_named(input_folder):
    for pattern, message in (("c.jsonl", "matches no file"), ("*.mp3", "matches no file")):
        with pytest.raises(NoInputError, match=message):
            discovery.find_files(Storage(), str(input_folder / pattern))
    (input_folder / "empty").mkdir()
    with pytest.raises(NoInputError, match="holds no audio files"):
        discovery.find_files(Storage(), str(input_folder / "empty"))


def test_braces_stand_for_all_their_files_and_a_missing_one_is_named(input_folder):
    for number in range(3):
        (input_folder / f"manifest_{number}.json").touch()
    storage, braces = Storage(), str(input_folder / "manifest__OP_0..2_CL_.json")
    expected = [str(input_folder / f"manifest_{number}.json") for number in range(3)]
    assert discovery.find_files(storage, braces) == expected
    assert discovery.find_files(storage, str(input_folder / "manifest_{0..2}.json")) == expected
    (input_folder / "manifest_1.json").unlink()
    with pytest.raises(NoInputError, match=r"3 files, of which 1 are missing: .*_1.json"):
        discovery.find_files(storage, braces)
    with pytest.raises(NoInputError, match=r"_1.json"):
        discovery.check(storage, braces)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(input_folder):
    (input_folder / "a[1].jsonl").touch()
    assert discovery.find_files(Storage(), str(input_folder / "a[1].jsonl")) == [
        str(input_folder / "a[1].jsonl")
    ]


def test_a_check_looks_no_further_than_to_the_first_file(input_folder, monkeypatch):
    monkeypatch.setattr(Storage, "find", lambda *_: pytest.fail("all were listed"))
    discovery.check(Storage(), str(input_folder))
    discovery.check(Storage(), str(input_folder / "**/*.flac"))
