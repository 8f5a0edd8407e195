"""A folder of inputs."""

from __future__ import annotations

import pytest


@pytest.fixture
def input_folder(tmp_path):
    for name in ("a.jsonl", "b.jsonl", "x.flac", "deep/er/y.WAV", "deep/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"audio_filepath": "x.flac"}\n')
    return tmp_path
