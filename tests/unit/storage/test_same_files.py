"""Which names are of one file, and which files are in a folder."""

from __future__ import annotations

import pytest

from beam_asr.storage.same_files import is_within, place_of, target_of


@pytest.fixture
def tree(tmp_path, monkeypatch):
    (tmp_path / "f").mkdir()
    (tmp_path / "f/x.jsonl").touch()
    (tmp_path / "f/link.jsonl").symlink_to("x.jsonl")
    (tmp_path / "alias").symlink_to("f")
    (tmp_path / "f/loop.jsonl").symlink_to("loop.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_spellings_of_a_path_have_one_place_and_a_link_its_own(tree):
    place = f"{tree.resolve()}/f/x.jsonl"
    for name in ("f/x.jsonl", "./f//x.jsonl", "alias/x.jsonl", "f/../f/x.jsonl", f"file://{place}"):
        assert place_of(name) == target_of(name) == place
    assert place_of("f/link.jsonl") == f"{tree.resolve()}/f/link.jsonl"
    assert target_of("alias/link.jsonl") == place
    assert target_of("f/loop.jsonl").endswith("loop.jsonl")


def test_uris_of_a_store_have_one_place_only_if_it_is_certain():
    assert place_of("gcs://b/x") == place_of("gs://b/x")
    assert place_of("s3://b/x") != place_of("s3://b//x")  # two keys
    assert place_of("http://h/x") != place_of("https://h/x")
    assert place_of("zip://x::/f/a.zip") == "zip://x::/f/a.zip"


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("f/x.jsonl", True),
        ("f", True),
        ("f/", True),
        ("alias/x.jsonl", True),
        ("zip://x::f/a.zip", True),
        ("fx/x.jsonl", False),
        ("", False),
        (".", False),
        ("into.jsonl", True),
        ("f/out.jsonl", True),
        ("gs://f/x.jsonl", False),
    ],
)
def test_a_file_is_in_a_folder_by_its_name_or_by_a_link(tree, name, inside):
    (tree / "into.jsonl").symlink_to("f/x.jsonl")
    (tree / "elsewhere.jsonl").touch()
    (tree / "f/out.jsonl").symlink_to(tree / "elsewhere.jsonl")
    assert is_within(name, "f") == is_within(name, f"{tree}/alias/") == inside


def test_an_object_is_in_a_folder_by_its_key():
    assert is_within("gcs://b/out/x.jsonl", "gs://b/out")
    assert is_within("zip://x::gs://b/out/x.zip", "gs://b/out/")
    assert not is_within("gs://b/output/x.jsonl", "gs://b/out")
