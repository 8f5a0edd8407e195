"""What the name of a file says."""

from __future__ import annotations

import pytest

from beam_asr.storage.file_kinds import is_audio


@pytest.mark.parametrize(
    ("name", "audio"),
    [
        ("gs://b/a.FLAC", True),
        ("https://h/a.mp3?token=x.json", True),
        ("a.jsonl", False),
        ("wav", False),
        ("a.wav.txt", False),
    ],
)
def test_audio_is_known_by_its_name(name, audio):
    assert is_audio(name) == audio
