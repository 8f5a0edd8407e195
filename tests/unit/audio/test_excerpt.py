"""Excerpts of recordings, as MP3."""

from __future__ import annotations

import pytest

from beam_asr.audio.excerpt import SAMPLE_RATE, read_excerpt
from beam_asr.errors import AudioNotFoundError
from tests.support.audio_files import RATE, chirp, encode, lag_and_error, read


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "a.flac"
    encode(path, chirp(6.0), codec="flac")
    return str(path)


def test_an_excerpt_is_the_range_of_the_recording(recording):
    mp3, is_cut = read_excerpt(recording, offset=2.0, duration=3.0)
    recognized = read("excerpt.mp3", content=mp3)
    lag, error = lag_and_error(recognized, chirp(6.0)[2 * RATE : 5 * RATE])
    assert not is_cut
    assert len(recognized) == 3 * SAMPLE_RATE
    assert abs(lag) <= 1
    assert error < 0.1
    assert len(mp3) < 15_000


@pytest.mark.parametrize(("duration", "seconds"), [(None, 4.0), (4.5, 4.0), (3.5, 3.5)])
def test_a_long_range_is_cut_off(recording, duration, seconds):
    mp3, is_cut = read_excerpt(recording, offset=1.0, duration=duration, max_seconds=4.0)
    assert len(read("excerpt.mp3", content=mp3)) == seconds * SAMPLE_RATE
    assert is_cut == (seconds == 4.0)


def test_what_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(AudioNotFoundError):
        read_excerpt(str(tmp_path / "gone.wav"))
