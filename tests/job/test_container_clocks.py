"""Recordings with holes and late sound: words and captions are when a player plays them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile

from tests.support.job_files import SAMPLE_MODEL, read_records, write_manifest
from tests.support.timed_files import Track, write

RATE = 16_000
FIRST, SECOND = 4.0, 22.0  # s, where the phrases begin; sound and picture begin at 0
TRACKS = {
    "clip.mp4": ("aac", 44_100, None),
    "clip.mkv": ("libopus", 48_000, None),
    "clip.wmv": ("wmav2", 44_100, "asf"),
    "clip.ts": ("mp2", 44_100, "mpegts"),
}
PHRASES = ("vm-newpassword.flac", "conf-now-unmuted.flac")
OFFSET = 15.0  # in the hole


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    return soxr.resample(samples, RATE, rate)


@pytest.fixture(scope="module")
def recognized(prompts, tmp_path_factory):
    """The records of each file, whole and from a place in its hole, by their ids."""
    from beam_asr.cli import main

    folder = tmp_path_factory.mktemp("clocks")
    one, two = (soundfile.read(prompts / name, dtype="float32")[0] for name in PHRASES)
    for name, (codec, rate, container) in TRACKS.items():
        pieces = [(FIRST, resampled(one, rate)), (SECOND, resampled(two, rate))]
        track = Track(pieces, codec, rate, bit_rate=64_000 if codec == "wmav2" else None)
        write(folder / name, track, container=container, picture=(0, 26, "mpeg4"))
    plain = np.zeros(round((SECOND + 1) * RATE) + len(two), np.float32)
    for start, samples in ((FIRST, one), (SECOND, two)):
        plain[round(start * RATE) :][: len(samples)] = samples
    soundfile.write(folder / "plain.wav", plain, RATE)
    # FFmpeg ends a page of Ogg after a hole, not before, unless it is full: then a second is too.
    full = np.pad(resampled(one, 48_000), (0, -3 * len(one) % 48_000))
    pieces = [(0, full), (SECOND - FIRST, resampled(two, 48_000))]
    write(folder / "sound.ogg", Track(pieces, "libopus", 48_000))
    names = [*TRACKS, "plain.wav"]
    rows = [{"id": name, "audio_filepath": name} for name in [*names, "sound.ogg"]]
    rows += [{"id": f"{name} part", "audio_filepath": name, "offset": OFFSET} for name in names]
    offset = OFFSET - FIRST
    rows += [{"id": "sound.ogg part", "audio_filepath": "sound.ogg", "offset": offset}]
    out = folder / "out"
    manifest = write_manifest(folder / "m.jsonl", rows)
    flags = ["--timestamps=word,segment", "--formats=srt", "--max_segment_seconds=12"]
    where = [f"--input={manifest}", f"--output={out}", f"--model_name={SAMPLE_MODEL}"]
    assert main.main(["transcribe", *where, *flags]) == 0
    return out, {each["id"]: each for each in read_records(out, "transcripts")}


@pytest.mark.parametrize("part", ["", " part"])
@pytest.mark.parametrize("name", [*TRACKS, "sound.ogg"])
def test_words_are_recognized_when_a_player_plays_them(recognized, name, part):
    alone = name == "sound.ogg"  # without the picture that begins before
    expected = recognized[1]["plain.wav" + part]

    record = recognized[1][name + part]

    assert len(record["words"]) > 3
    if not alone:  # without the silence before it, the model hears one word otherwise
        assert record["pred_text"] == expected["pred_text"]
    words = list(zip(reversed(record["words"]), reversed(expected["words"]), strict=not alone))
    for word, other in words[:4] if alone else words:
        start = other["start"] - (FIRST if alone else 0)
        assert word["word"] == other["word"]
        assert word["start"] == pytest.approx(start, abs=0.17)  # two frames of the model


def test_captions_are_shown_when_a_player_plays_them(recognized):
    captions = sorted(recognized[0].glob("**/*clip*.srt"))
    assert len(captions) == 2 * len(TRACKS)
    for path in captions:
        hours, minutes, seconds = re.match(
            r"1\n(\d+):(\d+):([\d,]+) -->", path.read_text()
        ).groups()
        first = 3600 * int(hours) + 60 * int(minutes) + float(seconds.replace(",", "."))
        assert any(start < first < start + 1 for start in (FIRST, SECOND))
