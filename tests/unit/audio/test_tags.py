"""Tags around a file of a format that knows none of them are no part of the file."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio import source
from beam_asr.audio.reading import can_seek, probe_duration
from tests.support.audio_files import RATE, check_error, chirp, encode, read

BY_SNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "caf": ("CAF", "ALAC_16"),
    "w64": ("W64", "PCM_16"),
    "voc": ("VOC", "PCM_16"),
    "sphere": ("NIST", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
BY_FFMPEG = {  # codec, container, rate
    "m4a": ("aac", "ipod", RATE),
    "mka": ("aac", "matroska", RATE),
    "wma": ("wmav2", "asf", RATE),
    "adts": ("aac", "adts", RATE),
    "latm": ("aac", "latm", RATE),
    "amr": ("libopencore_amrnb", "amr", 8_000),
    "ac3": ("ac3", "ac3", 48_000),
    "wavpack": ("wavpack", "wv", RATE),
    "tta": ("tta", "tta", RATE),
    "ts": ("aac", "mpegts", RATE),
    "flv": ("aac", "flv", 44_100),
}
WITHOUT_SEEKS = ("adts", "latm", "amr", "ac3", "wavpack", "tta", "ts", "flv")
ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")
ITEM = struct.pack("<II", 7, 0) + b"Artist\0nobody "
FIELDS = struct.pack("<III", 2000, 32 + len(ITEM), 1)
APE_HEADER = b"APETAGEX" + FIELDS + struct.pack("<I", 0xA0000000) + bytes(8)
APE = APE_HEADER + ITEM + b"APETAGEX" + FIELDS + struct.pack("<I", 0x80000000) + bytes(8)


def id3v2(size: int) -> bytes:
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


@pytest.fixture
def written(tmp_path):
    """Returns a function of a name, which writes that file and returns its content."""

    def content(name: str) -> bytes:
        path = tmp_path / "file"
        if name in BY_SNDFILE:
            container, subtype = BY_SNDFILE[name]
            soundfile.write(path, chirp(), RATE, format=container, subtype=subtype)
        else:
            codec, container, rate = BY_FFMPEG[name]
            encode(path, chirp(3.0, rate), codec=codec, container=container, rate=rate)
        return path.read_bytes()

    return content


@pytest.mark.parametrize("name", [*BY_SNDFILE, *BY_FFMPEG])
@pytest.mark.parametrize("size", [1_000, 80_000])
def test_a_file_behind_an_id3_tag_is_read_as_without(tmp_path, written, name, size):
    content = written(name)
    path = tmp_path / "tagged"
    path.write_bytes(id3v2(size) + content)

    whole, part = read(path), read(path, offset=1.2, duration=0.5)

    np.testing.assert_allclose(whole, read(name, content=content), atol=1e-6)
    expected = read(name, content=content, offset=1.2, duration=0.5)
    np.testing.assert_allclose(part, expected, atol=1e-6)
    assert can_seek(str(path)) == (name not in WITHOUT_SEEKS)
    (tmp_path / "bare").write_bytes(content)
    assert probe_duration(str(path)) == probe_duration(str(tmp_path / "bare"))


@pytest.mark.parametrize("name", ["flac", "vorbis", "caf", "m4a", "amr"])
def test_a_remote_file_behind_a_tag_is_read_as_without(monkeypatch, counting, written, name):
    monkeypatch.setattr(source, "WHOLE_BYTES", 0)
    content = written(name)
    counting.content = id3v2(80_000) + content

    for wanted in ({}, {"offset": 1.2, "duration": 0.5}):
        samples = read("counting://file", **wanted)
        np.testing.assert_allclose(samples, read(name, content=content, **wanted), atol=1e-6)


@pytest.mark.parametrize("name", ["wav", "flac", "vorbis", "m4a", "caf"])
def test_a_file_behind_a_tag_is_checked_as_without(written, name):
    content = written(name)
    error = errors.CorruptAudioError if name == "m4a" else errors.TruncatedAudioError
    check_error(name, error, content=id3v2(1_000) + content[: len(content) * 3 // 4])
    check_error(name, errors.CorruptAudioError, content=id3v2(1_000) + content + content)


@pytest.mark.parametrize("name", ["wavpack", "ac3", "amr", "latm", "flac", "m4a", "mka", "tta"])
@pytest.mark.parametrize("tags", [ID3V1, APE, APE + ID3V1], ids=["ID3v1", "APEv2", "both"])
def test_tags_at_the_end_are_no_sound(written, name, tags):
    content = written(name)

    samples = read(name, content=content + tags)

    np.testing.assert_array_equal(samples, read(name, content=content))


@pytest.mark.parametrize("start", [b"", id3v2(100)])
def test_a_tag_without_a_file_is_an_error(start):
    check_error("a.mp3", errors.CorruptAudioError, content=start + id3v2(5_000))
    check_error("a.mp3", errors.CorruptAudioError, content=start + id3v2(5_000)[:3_000])
