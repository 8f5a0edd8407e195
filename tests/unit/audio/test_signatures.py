"""Files that are no audio are named, and headers that claim too much are not believed."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from tests.support.audio_files import (
    RATE,
    check_error,
    chirp,
    encode,
    lag_and_error,
    read,
    wav_bytes,
)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(tmp_path, size):
    content = (chirp() * 2**15).astype("<i2").tobytes()
    (tmp_path / "pipe.wav").write_bytes(wav_bytes(content, size=size, riff=size or 36))

    np.testing.assert_allclose(read(tmp_path / "pipe.wav"), chirp(), atol=1 / 2**15)


@pytest.mark.parametrize("size", [1, 100, 5_000, 100_000])
@pytest.mark.parametrize("seed", range(10))
def test_random_bytes_are_not_audio(tmp_path, size, seed):
    (tmp_path / "clip.wav").write_bytes(np.random.default_rng(seed).bytes(size))
    check_error(tmp_path / "clip.wav", errors.NotAudioError)


def test_text_is_not_audio(tmp_path):
    (tmp_path / "clip.wav").write_text("Mary had a little lamb.\n" * 100)
    check_error(tmp_path / "clip.wav", errors.NotAudioError, "Mary had")


def test_a_playlist_opens_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "secret.aac", chirp(), codec="aac")
    for name, text in [
        ("list.mp3", f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/secret.aac\n"),
        ("list.wav", "ffconcat version 1.0\nfile secret.aac\n"),
    ]:
        (tmp_path / name).write_text(text)
        check_error(tmp_path / name, errors.NotAudioError)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image although it is named .wav"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG image"),
        (b"GIF89a" + bytes(100), "a GIF image"),
        (b"%PDF-1.7\n" + bytes(100), "a PDF document"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (bytes(257) + b"ustar\x0000" + bytes(248), "a tar archive"),
        (b"PAR1" + bytes(100), "a Parquet file"),
        (b"\x7fELF" + bytes(100), "an ELF program"),
        (b"\n <!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "an XML document"),
        (b'\xef\xbb\xbf{"error": "not found"}', "a JSON document"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, content, kind):
    (tmp_path / "clip.wav").write_bytes(content)
    check_error(tmp_path / "clip.wav", errors.WrongExtensionError, kind, ".wav")


def test_raw_g722_may_begin_like_text(tmp_path):
    encode(tmp_path / "clip.g722", chirp(), codec="g722")
    content = (tmp_path / "clip.g722").read_bytes()
    (tmp_path / "clip.g722").write_bytes(b"{" + content)

    assert lag_and_error(read(tmp_path / "clip.g722"), chirp())[1] < 0.1


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "AIFF", "AU", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_truncated_file(tmp_path, container, share):
    path = tmp_path / "clip"
    soundfile.write(path, chirp(20), RATE, format=container)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    check_error(path, errors.TruncatedAudioError)


def test_a_claim_of_ten_hours_allocates_nothing(tmp_path):
    ten_hours = 10 * 3600 * RATE
    path = tmp_path / "clip.flac"
    soundfile.write(path, chirp(1), RATE)
    content = bytearray(path.read_bytes())
    content[22:26] = struct.pack(">I", ten_hours)
    path.write_bytes(content)
    tracemalloc.start()
    check_error(path, errors.TruncatedAudioError)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**24
    (tmp_path / "clip.wav").write_bytes(wav_bytes(size=2 * ten_hours))
    check_error(tmp_path / "clip.wav", errors.TruncatedAudioError, str(2 * ten_hours))


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF", "AU", "NIST"])
def test_a_header_without_samples(tmp_path, container):
    path = tmp_path / "clip"
    soundfile.write(path, np.zeros(0, np.float32), RATE, format=container)
    check_error(path, errors.ZeroLengthAudioError)


def test_an_empty_wav_with_a_comment_is_empty(tmp_path):
    comment = b"LIST" + struct.pack("<I", 100) + b"INFO" + b"\1\2\3\4" * 24
    content = wav_bytes(b"", riff=36 + len(comment)) + comment
    (tmp_path / "clip.wav").write_bytes(content)
    check_error(tmp_path / "clip.wav", errors.ZeroLengthAudioError)
