"""Files that are no audio are named, and headers that claim too much are not believed."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio import source
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


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("WAV", "GSM610"),
     ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16"), ("AIFF", "PCM_16")],
)  # fmt: skip
def test_a_recorder_that_fixed_only_the_size_of_the_file(tmp_path, container, subtype, size):
    path = tmp_path / "clip"
    with soundfile.SoundFile(path, "w", RATE, 1, format=container, subtype=subtype) as file:
        file.write(chirp(6.4))
    whole = read(path)
    content = bytearray(path.read_bytes())
    place = max(content.find(b"data"), content.find(b"SSND"))
    content[place + 4 : place + 8] = struct.pack("<I", size)
    path.write_bytes(content)

    samples = read(path)

    assert abs(len(samples) - len(whole)) < 1024  # of a codec's last block
    np.testing.assert_allclose(samples[: len(whole)], whole[: len(samples)], atol=1e-4)
    np.testing.assert_array_equal(read(path, offset=2.5, duration=1.0), samples[40_000:56_000])


def rf64_sizes(content: bytearray, size: int) -> None:
    content[20:44] = struct.pack("<QQQ", size, size, 0)  # of the file, the samples, their number


def au_size(content: bytearray, size: int) -> None:
    content[8:12] = struct.pack(">I", size & 0xFFFFFFFF)


@pytest.mark.parametrize("size", [0, 2**64 - 1])
@pytest.mark.parametrize(
    ("container", "subtype", "put"),
    [("RF64", "PCM_16", rf64_sizes), ("RF64", "FLOAT", rf64_sizes), ("AU", "PCM_16", au_size),
     ("AU", "ULAW", au_size), ("AU", "G721_32", au_size)],
)  # fmt: skip
@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_an_rf64_or_au_of_a_recorder_that_was_stopped(
    tmp_path, counting, monkeypatch, container, subtype, put, size, remote
):
    path = tmp_path / "clip"
    with soundfile.SoundFile(path, "w", RATE, 1, format=container, subtype=subtype) as file:
        file.write(chirp(6.4))
    whole = read(path)
    content = bytearray(path.read_bytes())
    put(content, size)
    path.write_bytes(content)
    if remote:
        monkeypatch.setattr(source, "WHOLE_BYTES", 0)
        counting.content, path = bytes(content), "counting://clip"

    np.testing.assert_array_equal(read(path), whole)
    np.testing.assert_array_equal(read(path, offset=2.5, duration=1.0), whole[40_000:56_000])


@pytest.mark.parametrize("put", [rf64_sizes, au_size])
@pytest.mark.parametrize("size", [0, 2**64 - 1])
def test_an_rf64_or_au_that_was_stopped_before_its_samples(tmp_path, put, size):
    path = tmp_path / "clip"
    soundfile.write(path, chirp(1)[:1], RATE, format="RF64" if put is rf64_sizes else "AU")
    content = bytearray(path.read_bytes()[:-2])
    put(content, size)
    path.write_bytes(content)

    check_error(path, errors.ZeroLengthAudioError)


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        ("a.ulaw", "ulaw", "ffmpeg -f mulaw -ar 8000 -ac 1 -i in.ulaw out.wav"),
        ("a.UL", "ulaw", "ffmpeg -f mulaw -ar 8000 -ac 1 -i in.ul out.wav"),
        ("a.alaw", "ulaw", "ffmpeg -f alaw -ar 8000"),
        ("a.sln", "pcm", "ffmpeg -f s16le -ar 8000 -ac 1"),
        ("a.sln16", "pcm", "ffmpeg -f s16le -ar 16000 -ac 1"),
        ("a.sln44", "pcm", "-ar 44100"),
        ("a.vox", "ulaw", "sox -t vox -r 8000 in.vox out.wav"),
        ("a.raw", "pcm", "ffmpeg -f s16le -ar RATE -ac CHANNELS -i in.raw out.wav"),
        ("a.pcm", "pcm", "ffmpeg -f s16le"),
        ("a.g726-24", "ulaw", "ffmpeg -f g726 -code_size 3"),
        ("a.g729", "ulaw", "ffmpeg -f g729"),
        ("a.f32", "pcm", "ffmpeg -f f32le"),
    ],
)
@pytest.mark.parametrize("begin", [b"", b"\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"\0\0\1\xba"])
def test_samples_without_a_header_are_named_with_the_command_that_converts_them(
    tmp_path, capfd, name, content, command, begin
):
    samples = (chirp(3) * 3_000).astype("<i2")
    data = samples.tobytes() if content == "pcm" else (samples >> 8).astype("i1").tobytes()
    (tmp_path / name).write_bytes(begin + data)
    check_error(tmp_path / name, errors.NotAudioError, "without a header", command)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a.raw", "a.ulaw", "a.vox", "a.g722"])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "OGG"])
def test_a_file_with_a_header_is_read_under_the_name_of_one_without(tmp_path, name, container):
    soundfile.write(tmp_path / name, chirp(), RATE, format=container)
    assert lag_and_error(read(tmp_path / name), chirp())[1] < 0.1


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
    (tmp_path / "clip.wav").write_bytes(wav_bytes(b"", riff=36))
    check_error(tmp_path / "clip.wav", errors.ZeroLengthAudioError)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "GSM610"), ("AIFF", "PCM_16")],
)
def test_files_that_were_joined_by_their_bytes(tmp_path, container, subtype):
    path = tmp_path / "rec"
    with soundfile.SoundFile(path, "w", RATE, 1, format=container, subtype=subtype) as file:
        file.write(chirp(2.0)[:-1])
    content = path.read_bytes()
    path.write_bytes(content + content)
    check_error(path, errors.CorruptAudioError, "files were joined")
    check_error(path, errors.CorruptAudioError, "files were joined", duration=1.0)
    path.write_bytes(content + b"LIST" + bytes(100))  # of what is no part of it, all is well
    assert abs(len(read(path)) - 2 * RATE) < 400
