"""Files that were joined by their bytes are an error, or all of them is read."""

from __future__ import annotations

import functools
import re
import struct

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio import source
from tests.support.audio_files import RATE, check_error, chirp, encode, read

BY_SNDFILE = {  # container, subtype
    "wav": ("WAV", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "au of G.721": ("AU", "G721_32"),
    "flac": ("FLAC", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "caf of ALAC": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_16"),
    "w64 of ADPCM": ("W64", "IMA_ADPCM"),
    "voc": ("VOC", "PCM_16"),
    "sphere": ("NIST", "PCM_16"),
    "svx": ("SVX", "PCM_16"),
}
BY_FFMPEG = {  # codec, container, rate, options
    "m4a": ("aac", "ipod", RATE, {}),
    "m4a for streaming": ("aac", "ipod", RATE, {"movflags": "faststart"}),
    "mp4 in fragments": ("aac", "mp4", RATE, {"movflags": "empty_moov", "frag_duration": "500000"}),
    "mov": ("aac", "mov", RATE, {}),
    "3gp": ("libopencore_amrnb", "3gp", 8_000, {}),
    "flac by FFmpeg": ("flac", "flac", RATE, {}),
    "caf by FFmpeg": ("pcm_s16le", "caf", RATE, {}),
    "voc by FFmpeg": ("pcm_s16le", "voc", RATE, {}),
    "flv": ("aac", "flv", 44_100, {}),
    "wma": ("wmav2", "asf", RATE, {}),
    "tta": ("tta", "tta", RATE, {}),
    "wtv": ("mp2", "wtv", 48_000, {}),
    "mka": ("aac", "matroska", RATE, {}),
    "webm": ("libopus", "webm", 48_000, {}),
    "live webm": ("libopus", "webm", 48_000, {"live": "1"}),
    "nut": ("aac", "nut", RATE, {}),
    "amr": ("libopencore_amrnb", "amr", 8_000, {}),
}
READ_WHOLE = {
    "adts": ("aac", "adts", RATE, {}),
    "latm": ("aac", "latm", RATE, {}),
    "ac3": ("ac3", "ac3", 48_000, {}),
    "mp2": ("mp2", "mp2", 48_000, {}),
    "avi": ("mp3", "avi", RATE, {}),
    "ts": ("aac", "mpegts", RATE, {}),
    "mpg": ("mp2", "mpeg", 48_000, {}),
}
ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 92, 1, 0) + bytes(8)
TAILS = {
    "an ID3v1 tag": ID3V1,
    "an APEv2 tag": bytes(60) + APE,
    "garbage": np.random.default_rng(0).bytes(100_000),
    "padding": bytes(100_000),
    "text that names formats": b"fLaC .snd ftyp moov caff FLV\1 #!AMR TTA1 RIFF WAVE" * 9,
}
AS_SOUND = ("w64", "w64 of ADPCM", "voc", "voc by FFmpeg", "sphere", "svx", "au of G.721")
NO_NOISE = ("amr", "nut")  # an error, unless a tag
NO_TAG = ("nut",)  # an error


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Returns a function of a name and of seconds, which returns the content of a file."""

    @functools.cache
    def content(name: str, seconds: float = 1.5) -> bytes:
        path = tmp_path_factory.mktemp("files") / "file"
        if name in BY_SNDFILE:
            container, subtype = BY_SNDFILE[name]
            soundfile.write(path, chirp(seconds), RATE, format=container, subtype=subtype)
        else:
            codec, container, rate, options = (BY_FFMPEG | READ_WHOLE)[name]
            encode(path, chirp(seconds, rate), codec=codec, container=container, rate=rate,
                   options=options)  # fmt: skip
        return path.read_bytes()

    return content


@pytest.mark.parametrize("name", [*BY_SNDFILE, *BY_FFMPEG])
def test_files_that_were_joined_are_an_error(written, name):
    first, second = written(name), written(name, 1.0)
    message = "were joined" if name == "live webm" else "files were joined"
    assert len(read(name, content=first)) == pytest.approx(1.5 * RATE, abs=2_100)

    check_error(name, errors.CorruptAudioError, message, content=first + ID3V1 + second)
    if name == "mp4 in fragments":
        message = ""  # their clock goes back, or a decoder fails
    check_error(name, errors.CorruptAudioError, message, content=first + second)


@pytest.mark.parametrize("name", [*BY_SNDFILE, *BY_FFMPEG])
def test_a_range_of_joined_files_is_an_error_or_right(written, name):
    first = written(name)
    joined, wanted = first + written(name, 1.0), {"offset": 0.4, "duration": 0.5}
    if name in ("flac", "flac by FFmpeg", "live webm"):  # no end is stated
        part = read(name, content=joined, **wanted)
        np.testing.assert_array_equal(part, read(name, content=first, **wanted))
    else:
        check_error(name, errors.CorruptAudioError, "were joined", content=joined, **wanted)


@pytest.mark.parametrize("name", READ_WHOLE)
def test_joined_files_without_a_stated_end_are_read_whole(written, name):
    whole = read(name, content=written(name) + written(name, 1.0))

    assert len(whole) == pytest.approx(2.5 * RATE, abs=2 * 2_100)


@pytest.mark.parametrize("name", [*BY_SNDFILE, *BY_FFMPEG])
@pytest.mark.parametrize("tail", TAILS)
def test_what_is_no_file_may_follow(written, name, tail):
    content, is_tag = written(name), tail.endswith("tag")
    alone = read(name, content=content)

    if name in (NO_TAG if is_tag else NO_NOISE):
        with pytest.raises(errors.CorruptAudioError) as caught:
            read(name, content=content + TAILS[tail])
        assert "joined" not in str(caught.value)
        return
    with_tail = read(name, content=content + TAILS[tail])
    if name in AS_SOUND:
        with_tail = with_tail[: len(alone)]
    np.testing.assert_allclose(with_tail, alone[: len(with_tail)], atol=1e-6)
    assert len(with_tail) == len(alone)


FRAGMENTS = {"movflags": "empty_moov+default_base_moof", "frag_duration": "200000"}


def in_fragments(path, seconds: float, options: dict[str, str]) -> bytes:
    encode(path, chirp(seconds), codec="aac", container="mp4", options=options)
    return path.read_bytes()


@pytest.mark.parametrize("seconds", [(0.2, 2.0), (1.5, 0.2), (3.0, 3.0)], ids=str)
@pytest.mark.parametrize("fragmented", [(True, True), (True, False), (False, True)], ids=str)
@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_joined_fragments_are_an_error(
    tmp_path, counting, monkeypatch, seconds, fragmented, remote
):
    pieces = [
        in_fragments(tmp_path / f"{number}.mp4", length, FRAGMENTS if is_fragmented else {})
        for number, (length, is_fragmented) in enumerate(zip(seconds, fragmented, strict=True))
    ]
    (tmp_path / "rec.mp4").write_bytes(b"".join(pieces))
    path = str(tmp_path / "rec.mp4")
    if remote:
        monkeypatch.setattr(source, "WHOLE_BYTES", 0)
        counting.content, path = b"".join(pieces), "counting://rec.mp4"

    check_error(path, errors.CorruptAudioError, "files were joined")


def test_fragments_that_repeat_the_header_are_read_whole(tmp_path):
    content = in_fragments(tmp_path / "clip.mp4", 3.0, FRAGMENTS)
    first, second, third = (match.start() - 4 for match in list(re.finditer(b"moof", content))[:3])
    header = content[:first]

    again = content[:second] + header + content[second:third] + header + content[third:]

    np.testing.assert_array_equal(read("a", content=again), read("a", content=content))
