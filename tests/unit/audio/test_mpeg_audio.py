"""MP3 whose length no header states, or whose length is only a guess: all of it is read."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio.reading import can_seek, probe_duration
from tests.support.audio_files import RATE, check_error, chirp, encode, lag_and_error, read

VARIABLE = {"flags": "+qscale", "global_quality": "590"}
PADDING = 3 * 1152  # of an encoder and of whole frames


def quiet_then_loud(seconds: float = 6.0, rate: int = RATE) -> np.ndarray:
    """Samples of which the first frames say little of the bit rate."""
    samples = chirp(seconds, rate)
    samples[: len(samples) // 2] *= 1e-3
    return samples


def without_header(path, samples, *, rate=RATE, layout="mono", stream_options=VARIABLE) -> bytes:
    """An MP3 without tags or a Xing header."""
    encode(
        path, samples, codec="mp3", rate=rate, layout=layout, container="mp3",
        options={"write_xing": "0", "id3v2_version": "0"}, stream_options=stream_options,
    )  # fmt: skip
    return path.read_bytes()


def id3(size: int) -> bytes:
    """A tag with a picture of that many bytes."""
    body = b"APIC" + struct.pack(">IH", size, 0) + np.random.default_rng(0).bytes(size)
    return b"ID3\3\0\0" + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + body


def with_vbri(content: bytes, frames: int) -> bytes:
    """An MP3 of mono at 16 kHz with the header of Fraunhofer's encoder in a frame of its own."""
    lengths = struct.pack(">4sHHHII", b"VBRI", 1, 0, 75, len(content), frames)
    frame = bytes.fromhex("fff348c4") + bytes(32) + lengths  # 32 kbit/s: 144 bytes
    return frame + bytes(144 - len(frame)) + content


def check_whole_and_ranges(path, samples) -> None:
    """All of the samples are read, in their places, and a range is the slice of the whole."""
    whole = read(path)
    assert 0 <= len(whole) - len(samples) <= PADDING
    lag, error = lag_and_error(whole, samples)
    assert 0 <= lag <= 1152 + 529 + 1
    assert error < 0.15
    for offset, duration in ((0.0, 1.0), (0.7, 0.5), (2.6, 1.0), (4.4, None)):
        part = read(path, offset=offset, duration=duration)
        start = round(offset * RATE)
        assert len(part) == (len(whole) - start if duration is None else round(duration * RATE))
        np.testing.assert_allclose(part, whole[start : start + len(part)], atol=1e-6)


@pytest.mark.parametrize("seconds", [(6.0, "quiet first"), (6.0, "loud first")])
def test_an_mp3_of_a_variable_bit_rate_without_a_header_is_read_whole(tmp_path, seconds):
    samples = quiet_then_loud(seconds[0])
    samples = samples[::-1].copy() if seconds[1] == "loud first" else samples
    path = tmp_path / "clip.mp3"
    without_header(path, samples)

    check_whole_and_ranges(path, samples)
    assert probe_duration(str(path)) is None  # it promises none
    assert not can_seek(str(path))


@pytest.mark.parametrize(
    ("name", "container"), [("a.wav", "wav"), ("a.w64", "w64"), ("a.avi", "avi")]
)
@pytest.mark.parametrize("stream_options", [{"b": "48000"}, VARIABLE], ids=["constant", "variable"])
def test_mp3_in_another_container_is_read_whole(tmp_path, name, container, stream_options):
    path = tmp_path / name
    encode(path, quiet_then_loud(), codec="mp3", container=container, stream_options=stream_options)

    check_whole_and_ranges(path, quiet_then_loud())
    assert can_seek(str(path)) == (container == "avi")  # a WAV has no places of frames


@pytest.mark.parametrize("size", [4_000, 200_000])
@pytest.mark.parametrize("header", ["a Xing header", "no header"])
def test_a_cover_picture_is_no_sound(tmp_path, size, header):
    path = tmp_path / "clip.mp3"
    if header == "no header":
        content = without_header(path, chirp(6), stream_options={"b": "48000"})
    else:
        encode(path, chirp(6), codec="mp3", options={"id3v2_version": "0"})
        content = path.read_bytes()
    path.write_bytes(id3(size) + content)

    check_whole_and_ranges(path, chirp(6))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (id3(100) + id3(2_000), b""),
        (b"", b"TAG" + bytes(125)),
        (b"", b"TAG" + b"\xff\xfb\x90\x64 in a title".ljust(125, b"\0")),
        (b"", bytes(100_000)),
        (b"", b"APETAGEX" + struct.pack("<IIII", 2000, 92, 1, 0) + bytes(8) + bytes(60)),
        (b"", id3(300)),
    ],
)
def test_tags_and_padding_are_no_damage(tmp_path, before, after):
    path = tmp_path / "clip.mp3"
    content = without_header(path, chirp(6))
    path.write_bytes(before + content + after)

    check_whole_and_ranges(path, chirp(6))


def test_pieces_that_were_joined_with_their_tags_are_read_whole(tmp_path):
    path = tmp_path / "clip.mp3"
    first = without_header(path, chirp(3))
    path.write_bytes(id3(100) + first + id3(100) + without_header(path, chirp(2)))

    assert 0 <= len(read(path)) - 5 * RATE <= 2 * PADDING


def test_a_recording_that_begins_and_ends_within_a_frame_is_read(tmp_path):
    path = tmp_path / "clip.mp3"
    content = without_header(path, chirp(6))
    path.write_bytes(content[77:-50])

    lag, error = lag_and_error(read(path), chirp(6))
    assert abs(lag) < 2 * 1152
    assert error < 0.2


def test_a_vbri_header_is_a_promise(tmp_path):
    path = tmp_path / "clip.mp3"
    content = without_header(path, quiet_then_loud())
    whole = with_vbri(content, 6 * RATE // 576 + 3)
    path.write_bytes(whole)

    check_whole_and_ranges(path, quiet_then_loud())
    assert probe_duration(str(path)) == pytest.approx(6.0, abs=0.2)
    path.write_bytes(whole[: len(whole) * 3 // 4])
    check_error(path, errors.TruncatedAudioError)


@pytest.mark.parametrize("codec", ["constant", "variable"])
@pytest.mark.parametrize("picture", [0, 200_000])
def test_an_mp3_that_ends_before_its_xing_header_says_is_truncated(tmp_path, codec, picture):
    path = tmp_path / "clip.mp3"
    options = VARIABLE if codec == "variable" else {"b": "48000"}
    encode(path, chirp(6), codec="mp3", options={"id3v2_version": "0"}, stream_options=options)
    content = path.read_bytes()
    assert b"Xing" in content[:200] or b"Info" in content[:200]
    path.write_bytes((id3(picture) if picture else b"") + content[: len(content) * 3 // 4])

    check_error(path, errors.TruncatedAudioError)


@pytest.mark.parametrize("rate", [24_000, 16_000])
@pytest.mark.parametrize("header", ["a Xing header", "no header"])
def test_a_change_of_rate_or_channels_is_named(tmp_path, rate, header):
    path = tmp_path / "clip.mp3"
    stereo = np.stack([chirp(3, rate)] * 2, axis=1)
    second = without_header(path, stereo, rate=rate, layout="stereo")
    first = without_header(path, chirp(3))
    if header == "a Xing header":
        encode(path, chirp(3), codec="mp3", options={"id3v2_version": "0"})
        first = bytearray(path.read_bytes())
        place = max(first.find(b"Xing"), first.find(b"Info"))
        (frames,) = struct.unpack_from(">I", first, place + 8)
        struct.pack_into(">I", first, place + 8, frames + 100)
    path.write_bytes(bytes(first) + second)

    check_error(path, errors.CorruptAudioError, "change", "Split or convert")


@pytest.mark.parametrize("name", ["clip.sln", "clip.raw", "clip.wav", "clip"])
@pytest.mark.parametrize("begin", [b"\xff\xfb\x90\x64", b"\xff\xf3\x48\xc4", b"\xff\xfe\xff\xff"])
def test_samples_that_begin_like_an_mp3_are_not_taken_for_one(tmp_path, capfd, name, begin):
    path = tmp_path / name
    path.write_bytes(begin + (chirp(3) * 3000).astype("<i2").tobytes())

    with pytest.raises(errors.AudioError):
        read(path)
    assert capfd.readouterr().err == ""  # libmpg123 would write lines there


def test_what_libsndfile_and_ffmpeg_read_of_one_mp3_is_the_same(tmp_path):
    path = tmp_path / "clip.mp3"
    soundfile.write(path, chirp(6), RATE)
    by_libsndfile = read(path)
    content = bytearray(path.read_bytes())
    place = max(content.find(b"Xing"), content.find(b"Info"))
    content[place + 8 : place + 12] = bytes(4)  # the encoder could not go back to fill it in
    path.write_bytes(content)
    by_ffmpeg = read(path)

    np.testing.assert_allclose(by_ffmpeg[: len(by_libsndfile)], by_libsndfile, atol=1e-4)
