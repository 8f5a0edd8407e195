"""Tests that the list of findings and the scripts agree, and that the scripts have the form."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))
_ROW = re.compile(r"^\| `([a-z0-9_]+)` \|", re.MULTILINE)
_INSTALLED = re.compile(r"pip\"? .*install(.*)")


def test_the_index_lists_each_script_once():
    listed = _ROW.findall((FOLDER / "INDEX.md").read_text(encoding="utf-8"))

    assert listed == [script.stem for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_executable_stops_at_errors_and_pins_versions(script):
    text = script.read_text(encoding="utf-8")

    assert os.access(script, os.X_OK)
    assert "\nset -e\n" in text
    packages = [
        word.strip("\"'")
        for line in _INSTALLED.findall(text)
        for word in line.split()
        if re.match(r"[\"']?[a-z]", word)
    ]
    assert packages
    assert all("==" in package for package in packages), packages
