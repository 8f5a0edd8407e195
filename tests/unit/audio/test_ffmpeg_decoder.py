"""What FFmpeg reads: formats, ranges and damage."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from beam_asr import errors
from beam_asr.audio.reading import AudioRequest, can_seek, read_audio
from tests.support.audio_files import (
    RATE,
    add_video,
    check_error,
    chirp,
    damage,
    encode,
    lag_and_error,
    read,
    wav_bytes,
)
from tests.support.ffmpeg import lengthen

FFMPEG_FORMATS = [
    # name, codec, rate, latest sample (encoder delay that the container may not declare), error
    ("clip.m4a", "aac", RATE, 1024, 0.1),
    ("clip.mp4", "aac", RATE, 1024, 0.1),
    ("clip.aac", "aac", RATE, 1024, 0.1),
    ("clip.ts", "aac", RATE, 1024, 0.1),
    ("alac.m4a", "alac", RATE, 0, 1e-3),
    ("clip.webm", "libopus", 48_000, 8, 0.1),
    ("clip.mka", "aac", RATE, 1024, 0.1),
    ("clip.amr", "libopencore_amrnb", 8_000, 160, 0.6),
    ("clip.g722", "g722", RATE, 24, 0.1),
]


@pytest.mark.parametrize(("name", "codec", "rate", "latest", "error"), FFMPEG_FORMATS)
def test_formats_of_ffmpeg_come_close_and_in_time(tmp_path, name, codec, rate, latest, error):
    path = tmp_path / name
    encode(path, chirp(rate=rate), codec=codec, rate=rate, video=name == "clip.mp4")

    samples = read(path)

    lag, measured = lag_and_error(samples, chirp())
    assert 0 <= lag <= latest
    assert measured < error
    assert 0 <= len(samples) - len(chirp()) <= 2048 * RATE / rate


def test_aac_in_a_file_named_wav_is_read_as_aac(tmp_path):
    encode(tmp_path / "clip.m4a", chirp(), codec="aac")
    (tmp_path / "clip.m4a").rename(tmp_path / "clip.wav")

    assert lag_and_error(read(tmp_path / "clip.wav"), chirp())[1] < 0.1


@pytest.mark.parametrize(
    ("name", "codec", "tolerance"),
    [
        ("stereo.mov", "alac", 2 / 2**15),
        ("stereo.mov", "pcm_s16le", 2 / 2**15),
        ("stereo.mka", "pcm_u8", 2 / 2**7),
    ],
)
def test_ffmpeg_channels_are_chosen_in_planar_and_packed_formats(tmp_path, name, codec, tolerance):
    stereo = np.stack([chirp(), 0.5 * chirp()[::-1]], axis=1)
    encode(tmp_path / name, stereo, codec=codec, layout="stereo")

    np.testing.assert_allclose(read(tmp_path / name, channel=1), stereo[:, 1], atol=tolerance)
    np.testing.assert_allclose(read(tmp_path / name), stereo.mean(axis=1), atol=tolerance)


@pytest.mark.parametrize(("name", "codec", "rate", "_latest", "_error"), FFMPEG_FORMATS)
@pytest.mark.parametrize(("offset", "duration"), [(0.3, 0.7), (7.77, 1.2345), (11.5, None)])
def test_an_ffmpeg_seek_lands_on_the_right_sample(
    tmp_path, name, codec, rate, _latest, _error, offset, duration
):
    path = tmp_path / name
    encode(path, chirp(12, rate), codec=codec, rate=rate)

    whole, part = (read_audio(str(path), AudioRequest(sample_rate=rate, **range_)) for range_ in (
        {}, {"offset": offset, "duration": duration}))  # fmt: skip

    start = round(offset * rate)
    expected = whole[start:] if duration is None else whole[start:][: round(duration * rate)]
    if name.endswith("webm"):  # its clock ticks in milliseconds: 48 samples
        lag, error = lag_and_error(part, expected)
        assert abs(lag) <= 48
        assert abs(len(part) - len(expected)) <= 48
        assert error < 0.2
    else:
        assert len(part) == len(expected)
        # Speech codecs carry state from before the seek; half a second of pre-roll settles it.
        np.testing.assert_allclose(part, expected, atol=1e-2 if name.endswith("amr") else 1e-5)


@pytest.mark.parametrize("codec", ["alac", "aac"])
def test_one_second_of_five_minutes_of_m4a_reads_little(counting, tmp_path, codec):
    encode(tmp_path / "ten_seconds.m4a", chirp(10), codec=codec)
    lengthen(str(tmp_path / "ten_seconds.m4a"), str(tmp_path / "clip.m4a"), 300.0)
    counting.content = (tmp_path / "clip.m4a").read_bytes()
    assert len(counting.content) > 2**20

    assert len(read("counting://clip.m4a", offset=201.0, duration=1.0)) == RATE

    assert counting.bytes_read < len(counting.content) / 5


def test_a_video_without_sound(tmp_path):
    with av.open(str(tmp_path / "clip.mp4"), "w") as output:
        add_video(output)
    (tmp_path / "clip.mp4").rename(tmp_path / "clip.m4a")
    check_error(tmp_path / "clip.m4a", errors.WrongExtensionError, "without an audio stream")


@pytest.mark.parametrize("codec", ["aac", "alac"])
def test_an_m4a_damaged_in_the_middle(tmp_path, codec):
    encode(tmp_path / "clip.m4a", chirp(12), codec=codec)
    (tmp_path / "clip.m4a").write_bytes(damage((tmp_path / "clip.m4a").read_bytes()))
    check_error(tmp_path / "clip.m4a", errors.CorruptAudioError)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("clip.webm", "libopus", 48_000), ("clip.amr", "libopencore_amrnb", 8_000)],
)
def test_a_truncated_file_of_ffmpeg(tmp_path, name, codec, rate):
    encode(tmp_path / name, chirp(12, rate), codec=codec, rate=rate)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2 + 1])
    check_error(tmp_path / name, errors.TruncatedAudioError)


def test_a_truncated_m4a_has_no_index(tmp_path):
    encode(tmp_path / "clip.m4a", chirp(12), codec="aac")
    content = (tmp_path / "clip.m4a").read_bytes()
    (tmp_path / "clip.m4a").write_bytes(content[: len(content) // 2])
    check_error(tmp_path / "clip.m4a", errors.CorruptAudioError, "cut short")


def test_ffmpeg_stays_quiet(tmp_path, capfd):
    encode(tmp_path / "clip.m4a", chirp(12), codec="aac")
    Path(tmp_path / "clip.m4a").write_bytes(damage((tmp_path / "clip.m4a").read_bytes()))
    check_error(tmp_path / "clip.m4a", errors.CorruptAudioError)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "codec", "rate", "seekable"),
    [
        ("clip.wav", "adpcm_yamaha", 8_000, False),
        ("clip.avi", "adpcm_yamaha", 8_000, False),
        ("clip.wav", "g726", 8_000, True),
        ("clip.w64", "g726", 8_000, True),
        ("clip.wav", "g722", RATE, True),
        ("clip.w64", "adpcm_ms", 8_000, True),
    ],
)
def test_a_range_of_adpcm_equals_the_slice(tmp_path, name, codec, rate, seekable):
    """A decoder that carries its state from the start on is not started in the middle."""
    path = tmp_path / name
    encode(path, chirp(20, rate), codec=codec, rate=rate)
    whole = read(path, sample_rate=rate)

    for offset, duration in ((0.3, 0.5), (5.5, 1.0), (12.345, 2.0), (19.0, None)):
        part = read(path, offset=offset, duration=duration, sample_rate=rate)
        start = round(offset * rate)
        count = len(whole) - start if duration is None else round(duration * rate)
        np.testing.assert_allclose(part, whole[start : start + count], atol=1e-3)
    assert can_seek(str(path)) is seekable


@pytest.mark.parametrize("code", [0x00FF, 0x1600, 0x1610, 0x706D, 0xA106])
def test_aac_in_a_wav_is_read_by_its_adts_headers(tmp_path, code):
    encode(tmp_path / "clip.aac", chirp(), codec="aac", container="adts")
    content = (tmp_path / "clip.aac").read_bytes()
    (tmp_path / "clip.wav").write_bytes(wav_bytes(content, code=code))

    lag, error = lag_and_error(read(tmp_path / "clip.wav"), chirp())

    assert lag <= 1024
    assert error < 0.1


def test_aac_in_a_wav_without_headers_is_named(tmp_path):
    encode(tmp_path / "clip.wav", chirp(), codec="aac", container="wav")
    check_error(tmp_path / "clip.wav", errors.CorruptAudioError, "AAC", "as M4A")
