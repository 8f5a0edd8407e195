"""What libsndfile reads: formats, ranges and damage."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio import source
from beam_asr.audio.clip_reader import ClipReader, Loaded
from beam_asr.audio.reading import AudioRequest, can_seek, probe_duration, read_audio
from beam_asr.audio.segment_planner import Planner
from beam_asr.records import work
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, group_segments
from beam_asr.storage.storage import Storage
from tests.support.audio_files import (
    RATE,
    check_error,
    chirp,
    damage,
    lag_and_error,
    read,
    wav_bytes,
)


@pytest.mark.parametrize(
    ("container", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 1 / 127),
        ("WAV", "PCM_16", 1 / 2**15),
        ("WAV", "PCM_24", 1 / 2**22),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAV", "ULAW", 0.02),
        ("WAV", "ALAW", 0.02),
        ("WAVEX", "PCM_16", 1 / 2**15),
        ("RF64", "PCM_16", 1 / 2**15),
        ("AIFF", "PCM_16", 1 / 2**15),
        ("AIFF", "PCM_24", 1 / 2**22),
        ("AU", "PCM_16", 1 / 2**15),
        ("NIST", "PCM_16", 1 / 2**15),
        ("FLAC", "PCM_16", 1 / 2**15),
        ("FLAC", "PCM_24", 1 / 2**22),
    ],
)
def test_lossless_formats_give_the_samples_that_were_written(
    tmp_path, container, subtype, tolerance
):
    path = tmp_path / "clip"
    soundfile.write(path, chirp(), RATE, format=container, subtype=subtype)

    samples = read(path)

    assert samples.dtype == np.float32
    assert samples.shape == chirp().shape
    np.testing.assert_allclose(samples, chirp(), rtol=0, atol=tolerance)
    assert probe_duration(str(path)) == 3.0


@pytest.mark.parametrize(
    ("container", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
)
def test_lossy_formats_of_libsndfile_come_close_and_in_time(tmp_path, container, subtype):
    path = tmp_path / "clip"
    soundfile.write(path, chirp(), RATE, format=container, subtype=subtype)

    samples = read(path)

    lag, error = lag_and_error(samples, chirp())
    assert abs(lag) <= 1
    assert error < 0.1
    assert len(samples) == len(chirp())


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(100_000)])
def test_an_mp3_with_a_tag_or_padding_at_its_end_is_read(tmp_path, tail):
    soundfile.write(tmp_path / "clip.mp3", chirp(), RATE)
    content = (tmp_path / "clip.mp3").read_bytes()
    (tmp_path / "tail.mp3").write_bytes(content + tail)

    np.testing.assert_array_equal(read(tmp_path / "tail.mp3"), read(tmp_path / "clip.mp3"))


def test_a_flac_written_to_a_pipe_is_read_to_its_end(tmp_path):
    path = tmp_path / "pipe.flac"
    soundfile.write(path, chirp(20), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of total samples: 0 is "unknown"
    content[22:26] = bytes(4)
    path.write_bytes(content)

    np.testing.assert_allclose(read(path), chirp(20), atol=1 / 2**15)
    assert probe_duration(str(path)) is None


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize(
    ("offset", "duration"),
    [(0, 0.5), (0.33333, 1.23456), (1 / RATE, 1 / RATE), (2.5, None), (17.9, 1.0), (18.7, 1.5)],
)
def test_a_range_equals_the_slice_of_the_whole(tmp_path, container, offset, duration):
    path = tmp_path / "clip"
    soundfile.write(path, chirp(20), RATE, format=container)  # several blocks

    whole, part = read(path), read(path, offset=offset, duration=duration)

    start = round(offset * RATE)
    stop = len(whole) if duration is None else start + round(duration * RATE)
    assert len(part) == min(stop, len(whole)) - start
    np.testing.assert_allclose(
        part, whole[start:stop], atol=0 if container in ("WAV", "FLAC") else 1e-6
    )


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("seconds", [3, 4, 5, 30, 40])
def test_a_range_near_an_end_of_an_ogg_equals_the_slice(tmp_path, subtype, seconds):
    soundfile.write(tmp_path / "clip.ogg", chirp(seconds), RATE, subtype=subtype)
    whole = read(tmp_path / "clip.ogg")

    for offset in (0.3, 0.7, seconds / 3, seconds - 1.0, seconds - 0.1):
        part = read(tmp_path / "clip.ogg", offset=offset, duration=0.1)
        start = round(offset * RATE)
        np.testing.assert_allclose(part, whole[start : start + len(part)], atol=1e-6)


TELEPHONY = [  # container, subtype, whether libsndfile can seek
    ("WAV", "GSM610", False),
    ("WAV", "G721_32", False),
    ("WAV", "NMS_ADPCM_16", False),
    ("WAV", "NMS_ADPCM_24", False),
    ("WAV", "NMS_ADPCM_32", False),
    ("WAV", "IMA_ADPCM", True),
    ("WAV", "MS_ADPCM", True),
    ("WAV", "ULAW", True),
    ("W64", "GSM610", False),
    ("W64", "IMA_ADPCM", True),
    ("AIFF", "GSM610", False),
    ("AIFF", "IMA_ADPCM", True),
    ("AIFF", "DWVW_16", False),  # of which libsndfile says that it can
    ("AU", "G721_32", False),
    ("AU", "G723_24", False),
    ("AU", "G723_40", False),
]


@pytest.mark.parametrize(("container", "subtype", "seekable"), TELEPHONY)
@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_a_range_of_a_telephony_codec_equals_the_slice(
    tmp_path, counting, container, subtype, seekable, remote
):
    path = str(tmp_path / "call")
    samples = chirp(10.123, 8_000)
    with soundfile.SoundFile(path, "w", 8_000, 1, format=container, subtype=subtype) as file:
        file.write(samples)
    if remote:
        counting.content, path = (tmp_path / "call").read_bytes(), "counting://call"
    at_8_khz = {"sample_rate": 8_000}

    whole = read(path, **at_8_khz)

    assert 0 <= len(whole) - len(samples) < 1024  # codecs fill their last block
    assert lag_and_error(whole, samples)[1] < 0.3
    assert can_seek(path) is seekable
    for offset, duration in ((0.0, 0.5), (0.31, 1.0), (3.777, 3.0), (7.0, None), (9.9, 0.2)):
        part = read(path, offset=offset, duration=duration, **at_8_khz)
        start = round(offset * 8_000)
        count = len(whole) - start if duration is None else round(duration * 8_000)
        np.testing.assert_array_equal(part, whole[start : start + count])


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "ULAW", "PCM_16"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_range_of_a_wav_without_a_size_equals_the_slice(tmp_path, subtype, channels):
    if (subtype, channels) == ("GSM610", 2):
        return  # GSM is mono
    path = tmp_path / "call.wav"
    samples = np.stack([chirp(100, 8_000), chirp(100, 8_000)[::-1]], axis=1)[:, :channels]
    soundfile.write(path, samples, 8_000, subtype=subtype)
    content = bytearray(path.read_bytes())
    size = content.find(b"data") + 4
    content[size : size + 4] = bytes(4)  # as of a recorder that was stopped
    path.write_bytes(content)
    at_8_khz = {"sample_rate": 8_000, "channel": channels - 1}

    whole = read(path, **at_8_khz)

    assert lag_and_error(whole, samples[:, channels - 1])[1] < 0.3
    for offset, duration in ((6.932, 2.0), (67.163, None), (92.81, 0.4)):
        part = read(path, offset=offset, duration=duration, **at_8_khz)
        start = round(offset * 8_000)
        count = len(whole) - start if duration is None else round(duration * 8_000)
        np.testing.assert_allclose(part, whole[start : start + count], atol=1e-6)


@pytest.mark.parametrize("container", ["FLAC", "WAV", "AIFF"])
@pytest.mark.parametrize("tag_bytes", [1_000, 400_000])
def test_a_range_behind_a_tag_equals_the_slice(tmp_path, container, tag_bytes):
    path = tmp_path / "clip"
    soundfile.write(path, chirp(20), RATE, format=container, subtype="PCM_16")
    length = bytes(tag_bytes >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\4\0\0" + length + bytes(tag_bytes) + path.read_bytes())

    whole = read(path)

    assert len(whole) == len(chirp(20))
    assert probe_duration(str(path)) == 20.0
    for offset, duration in ((0.3, 0.5), (12.357, None), (17.707, 0.4), (19.9, 0.1)):
        part = read(path, offset=offset, duration=duration)
        start = round(offset * RATE)
        count = len(whole) - start if duration is None else round(duration * RATE)
        np.testing.assert_array_equal(part, whole[start : start + count])


@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "GSM610"), ("W64", "GSM610"), ("WAV", "NMS_ADPCM_32")],
)
def test_all_segments_of_a_long_call_are_read(tmp_path, monkeypatch, container, subtype):
    monkeypatch.setattr(work, "GROUP_SECONDS", 10.0)
    path = str(tmp_path / "call")
    samples = chirp(120, 8_000)
    with soundfile.SoundFile(path, "w", 8_000, 1, format=container, subtype=subtype) as file:
        file.write(samples)
    planner = Planner(Storage(), None, 600.0, "fixed", keep_parts=False)

    (plan,) = planner.plan(Clip(Row("{}"), path, 0.0, None), 5.0)
    groups = list(group_segments(plan))

    assert not plan.can_seek  # so each group is read with all that is before it, and they are few
    assert 5 < len(groups) < len(list(group_segments(plan._replace(can_seek=True))))
    whole = read(path, sample_rate=8_000)
    reader = ClipReader(Storage(), None, 600.0, 2)
    segments = list(plan.segments)
    for outcome in reader.read(groups, 8_000):
        assert isinstance(outcome, Loaded), outcome
        segment = segments.pop(0)
        length = len(outcome.waveform)
        assert length == pytest.approx((segment.end - segment.start) * 8_000, abs=1)
        start = round(segment.start * 8_000)
        assert any(  # halves of a sample are rounded twice
            np.array_equal(outcome.waveform, whole[start + lag : start + lag + length])
            for lag in (0, 1, -1)
        )
    assert segments == []


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "GSM610"), ("AU", "G721_32")])
def test_an_offset_beyond_the_end_of_what_cannot_be_sought(tmp_path, container, subtype):
    path = tmp_path / "call"
    with soundfile.SoundFile(path, "w", 8_000, 1, format=container, subtype=subtype) as file:
        file.write(chirp(3, 8_000))
    check_error(path, errors.OffsetBeyondEndError, offset=3.5)
    check_error(path, errors.TruncatedAudioError, offset=1.0, duration=4.0)


@pytest.mark.parametrize(
    "header",
    [
        {"rate": 0},
        {"rate": 1},
        {"rate": 2_000_000},
        {"rate": 4_000_000_000},
        {"channels": 0},
        {"channels": 5_000},
        {"channels": 65_535},
        {"bits": 0},
        {"code": 0x55},
        {"code": 0x9999},
    ],
)
def test_impossible_headers(tmp_path, header):
    (tmp_path / "clip.wav").write_bytes(wav_bytes(**header))
    check_error(tmp_path / "clip.wav", errors.CorruptAudioError)


@pytest.mark.parametrize("length", [5, 20, 40])
def test_a_header_that_breaks_off(tmp_path, length):
    (tmp_path / "clip.wav").write_bytes(wav_bytes()[:length])
    check_error(tmp_path / "clip.wav", errors.CorruptAudioError)


def test_a_flac_damaged_in_the_middle(tmp_path):
    soundfile.write(tmp_path / "clip.flac", chirp(12), RATE)
    (tmp_path / "clip.flac").write_bytes(damage((tmp_path / "clip.flac").read_bytes()))
    check_error(tmp_path / "clip.flac", errors.CorruptAudioError)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_bytes_in_memory_are_read_the_same_without_files_in_memory(tmp_path, monkeypatch, name):
    samples = np.sin(np.arange(48_000) * 0.05).astype(np.float32) / 2
    soundfile.write(tmp_path / name, samples, 16_000)
    content = (tmp_path / name).read_bytes()
    from_disk = read_audio(str(tmp_path / name), AudioRequest(sample_rate=16_000))
    by_descriptor = read_audio(name, AudioRequest(sample_rate=16_000), content=content)

    def refused(_):
        raise PermissionError("a sandbox")

    monkeypatch.setattr(source.os, "memfd_create", refused)
    by_callback = read_audio(name, AudioRequest(sample_rate=16_000), content=content)
    assert len(from_disk) >= 48_000
    assert np.array_equal(from_disk, by_descriptor)
    assert np.array_equal(from_disk, by_callback)


def test_a_disk_that_fails_is_no_truncated_file(tmp_path, monkeypatch):
    """libsndfile takes a failed read for the end; the disk's error is the better reason."""
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 48_000), 16_000)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.TruncatedAudioError):
        read_audio(str(tmp_path / "a.flac"), AudioRequest(sample_rate=16_000))

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(source.os, "pread", fails)
    with pytest.raises(OSError, match="Input/output error"):
        read_audio(str(tmp_path / "a.flac"), AudioRequest(sample_rate=16_000))


@pytest.mark.parametrize(("extension", "expected"), [("flac", True), ("ogg", True), ("mp3", False)])
def test_a_range_of_an_mp3_is_known_to_take_all_that_is_before_it(tmp_path, extension, expected):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 32_000), 16_000)
    assert can_seek(str(path)) is expected
    assert can_seek("elsewhere", content=path.read_bytes()) is expected
