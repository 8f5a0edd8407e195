"""The folders of windows of time, and what they say."""

from __future__ import annotations

import pytest

from beam_asr.outputs.folder import folder_name, inputs_done
from beam_asr.storage.storage import Storage
from tests.support.windows import window_folder


def test_a_folder_is_named_by_the_start_of_its_window_and_the_run():
    name = folder_name(1_700_000_000.0, "0123456789abcdef")
    assert name == "20231114T221320Z-01234567"
    assert folder_name(0.0, "fedcba98") == "19700101T000000Z-fedcba98"
    later = folder_name(1_700_000_600.0, "0123456789abcdef")
    assert later > name, "by name they are in the order of time"


def test_inputs_are_done_when_their_windows_are_whole(tmp_path):
    assert inputs_done(Storage(), str(tmp_path / "none")) == frozenset()
    window_folder(tmp_path, "one", ["a", "b"])
    window_folder(tmp_path, "two", ["c"], whole=False)
    window_folder(tmp_path, "three", ["b", "d"])
    (tmp_path / "notes.txt").write_text("of the user's")
    (tmp_path / "_journal").mkdir()
    (tmp_path / "_journal" / "lock.json").write_text("{}")
    assert inputs_done(Storage(), str(tmp_path)) == {"a", "b", "d"}


@pytest.mark.parametrize("summary", [None, "{", "[]", "{}"])
def test_a_folder_that_does_not_say_its_inputs_has_done_none(tmp_path, summary):
    """As one that is damaged, or of a job whose input had an end."""
    window_folder(tmp_path, "one", ["a"])
    damaged = window_folder(tmp_path, "two", ["b"])
    (damaged / "summary.json").unlink()
    if summary is not None:
        (damaged / "summary.json").write_text(summary)
    assert inputs_done(Storage(), str(tmp_path)) == {"a"}
