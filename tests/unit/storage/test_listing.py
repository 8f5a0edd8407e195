"""Local folders and globs: links are followed, and what is no file is named."""

from __future__ import annotations

import os

import pytest

from beam_asr.storage import listing
from beam_asr.storage.storage import Storage


@pytest.fixture
def tree(tmp_path):
    """A folder of files and links, beside another one that the links lead to."""
    folder, far = tmp_path / "in", tmp_path / "far"
    for path in (folder / "a.wav", folder / "deep/b.wav", far / "c.wav", far / "more/d.wav"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def entries(pattern) -> dict[str, str]:
    """The entries of a pattern, without the folder before ``in``, and their problems."""
    found = list(Storage().list_entries(str(pattern)))
    names = [entry.name.partition("/in/")[2] for entry in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, (entry.problem for entry in found), strict=True))


@pytest.mark.parametrize("pattern", ["", "**", "**/*.wav"])
def test_links_to_files_and_folders_are_followed(tree, pattern):
    (tree / "link.wav").symlink_to("../far/c.wav")
    (tree / "linked").symlink_to("../far")
    assert entries(tree / pattern) == dict.fromkeys(
        ["a.wav", "deep/b.wav", "link.wav", "linked/c.wav", "linked/more/d.wav"], ""
    )


@pytest.mark.parametrize("pattern", ["", "**/*.wav"])
def test_loops_end_and_no_folder_is_listed_twice(tree, pattern):
    (tree / "deep/up").symlink_to("..")
    (tree / "deep/self").symlink_to("self")
    (tree / "a folder first in the order").symlink_to("deep")
    (tree / "one").symlink_to("../far")
    (tree / "two").symlink_to("../far/../far")
    found = entries(tree / pattern)
    files = sorted(name for name, problem in found.items() if not problem)
    assert files == ["a.wav", "deep/b.wav", "one/c.wav", "one/more/d.wav"]
    twice = [name for name, problem in found.items() if problem == listing.LISTED_FOLDER]
    assert sorted(twice) == ["a folder first in the order", "deep/up", "two"]


def test_what_is_no_file_is_named(tree):
    (tree / "broken.wav").symlink_to("../far/none.wav")
    (tree / "self.wav").symlink_to("self.wav")
    os.mkfifo(tree / "pipe.wav")
    for pattern in ("", "*.wav"):
        found = entries(tree / pattern)
        assert found["broken.wav"] == found["self.wav"] == listing.BROKEN_LINK
        assert found["pipe.wav"] == listing.SPECIAL_FILE
    assert "broken.wav" not in entries(tree / "*.flac")


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch):
    def refusing(path, scandir=os.scandir):
        if path == str(tree / "deep"):  # root, as which tests may run, reads any folder
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    for pattern in ("", "**/*.wav"):
        assert entries(tree / pattern) == {"a.wav": "", "deep": listing.UNREADABLE_FOLDER}


def test_a_glob_goes_no_deeper_than_it_says(tree):
    (tree / "linked").symlink_to("../far")
    assert entries(tree / "*") == {"a.wav": "", "deep": "folder", "linked": "folder"}
    assert entries(tree / "*/*.wav") == {"deep/b.wav": "", "linked/c.wav": ""}
    assert entries(tree / "linked/*.wav") == {"linked/c.wav": ""}
    assert entries(tree / "none/*.wav") == {}
    assert entries(f"file://{tree}/d??p/[ab].wav") == {"deep/b.wav": ""}
