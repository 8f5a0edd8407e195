"""What a user of `read_audio` would notice, on real files of every kind.

Inputs are written here by soundfile and PyAV from signals that are known.
"""

import functools
import http.server
import io
import struct
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem

from beam_asr.audio import reading
from beam_asr.audio import source as audio_source
from beam_asr.audio.reading import can_seek, probe_duration, read_audio
from beam_asr.storage import retry
from tests.support.ffmpeg import mux_audio

RATE = 16_000


def chirp(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """200 Hz to 2 kHz with a little noise: no stretch of it resembles another."""
    t = np.arange(round(seconds * rate)) / rate
    sweep = 0.4 * np.sin(2 * np.pi * (200 * t + 900 / seconds * t**2))
    return (sweep + 0.001 * np.random.default_rng(1).standard_normal(len(t))).astype(np.float32)


def tone(rate: int, seconds: float = 2.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype("f4")


def encode(path, samples, *, codec, rate=RATE, layout="mono", video=False, container=None):
    """Writes int16 or float samples (frames,) or (frames, channels) with FFmpeg's encoders."""
    samples = samples.reshape(len(samples), -1)
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.open()
        if video:
            add_video(output)
        source = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T), format="fltp", layout=layout
        )
        mux_audio(output, stream, source, rate, layout)


def add_video(output, frames=25):
    stream = output.add_stream("mpeg4", rate=25)
    stream.width = stream.height = 32
    stream.pix_fmt = "yuv420p"
    noise = np.random.default_rng(0).integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8)
    for image in noise:
        output.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
    output.mux(stream.encode(None))


def lag_and_error(samples, reference):
    """Samples by which `samples` come late, and the RMS error, relative, once aligned."""
    size = 2 * max(len(samples), len(reference))
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(reference, size))
    lag = int(np.argmax(np.fft.irfft(spectrum, size)))
    lag = lag if lag < size // 2 else lag - size
    a, b = samples[max(0, lag) :], reference[max(0, -lag) :]
    length = min(len(a), len(b))
    a, b = a[:length], b[:length]
    return lag, float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def wav_bytes(
    samples=b"\1\0" * RATE, *, rate=RATE, channels=1, bits=16, code=1, size=None, riff=None
):
    """A WAV file whose header may say anything."""
    size = len(samples) if size is None else size
    frame = channels * bits // 8
    header = struct.pack(
        "<HHIIHH", code, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits
    )
    riff = min(36 + size, 0xFFFFFFFF) if riff is None else riff
    return (
        b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16) + header
        + b"data" + struct.pack("<I", size) + samples
    )  # fmt: skip


def read(path, **options):
    return read_audio(str(path), sample_rate=RATE, **options)


# Formats


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


@pytest.mark.parametrize("name", ["clip.wav", "clip.txt", "clip", "clip.g722"])
def test_content_not_the_name_chooses_the_decoder(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, chirp(), RATE, format="FLAC")

    np.testing.assert_allclose(read(path), chirp(), atol=1 / 2**15)


def test_aac_in_a_file_named_wav_is_read_as_aac(tmp_path):
    encode(tmp_path / "clip.m4a", chirp(), codec="aac")
    (tmp_path / "clip.m4a").rename(tmp_path / "clip.wav")

    assert lag_and_error(read(tmp_path / "clip.wav"), chirp())[1] < 0.1


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(tmp_path, size):
    content = (chirp() * 2**15).astype("<i2").tobytes()
    (tmp_path / "pipe.wav").write_bytes(wav_bytes(content, size=size, riff=size or 36))

    np.testing.assert_allclose(read(tmp_path / "pipe.wav"), chirp(), atol=1 / 2**15)


def test_a_flac_written_to_a_pipe_is_read_to_its_end(tmp_path):
    path = tmp_path / "pipe.flac"
    soundfile.write(path, chirp(20), RATE)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of total samples: 0 is "unknown"
    content[22:26] = bytes(4)
    path.write_bytes(content)

    np.testing.assert_allclose(read(path), chirp(20), atol=1 / 2**15)
    assert probe_duration(str(path)) is None


# Channels and rates


def test_channels_are_averaged_or_chosen(tmp_path):
    stereo = np.stack([chirp(), chirp()[::-1]], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, RATE, subtype="FLOAT")

    np.testing.assert_allclose(read(tmp_path / "stereo.wav"), stereo.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(read(tmp_path / "stereo.wav", channel=0), stereo[:, 0])
    np.testing.assert_array_equal(read(tmp_path / "stereo.wav", channel=1), stereo[:, 1])


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


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_pitch_level_and_length(tmp_path, rate):
    soundfile.write(tmp_path / "tone.wav", tone(rate), rate, subtype="FLOAT")

    samples = read(tmp_path / "tone.wav")

    assert len(samples) == 2 * RATE
    middle = slice(RATE // 10, -RATE // 10)  # the filter rings at the ends
    np.testing.assert_allclose(samples[middle], tone(RATE)[middle], atol=1e-4)


@pytest.mark.parametrize("frames", [44_099, 44_100, 44_101, 300_001])
def test_resampled_length_is_rounded_to_nearest(tmp_path, frames):
    soundfile.write(tmp_path / "tone.wav", tone(44_100, frames / 44_100), 44_100)

    assert len(read(tmp_path / "tone.wav")) == round(frames * RATE / 44_100)


# Ranges


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


@pytest.mark.parametrize(("name", "codec", "rate", "_latest", "_error"), FFMPEG_FORMATS)
@pytest.mark.parametrize(("offset", "duration"), [(0.3, 0.7), (7.77, 1.2345), (11.5, None)])
def test_an_ffmpeg_seek_lands_on_the_right_sample(
    tmp_path, name, codec, rate, _latest, _error, offset, duration
):
    path = tmp_path / name
    encode(path, chirp(12, rate), codec=codec, rate=rate)

    whole, part = (read_audio(str(path), sample_rate=rate, **range_) for range_ in (
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


def test_halves_round_up(tmp_path):
    soundfile.write(tmp_path / "clip.wav", chirp(), RATE, subtype="FLOAT")

    samples = read(tmp_path / "clip.wav", offset=2.5 / RATE, duration=4.5 / RATE)

    np.testing.assert_array_equal(samples, chirp()[3:8])


def test_a_range_is_counted_in_the_rate_of_the_file(tmp_path):
    soundfile.write(tmp_path / "clip.wav", tone(44_100), 44_100)

    samples = read(tmp_path / "clip.wav", offset=0.5, duration=1.0)

    assert len(samples) == RATE
    middle = slice(1600, -1600)
    np.testing.assert_allclose(samples[middle], tone(RATE)[8000:24_000][middle], atol=1e-3)


def test_a_duration_rounded_past_the_end_is_cut_to_what_is_there(tmp_path):
    soundfile.write(tmp_path / "clip.wav", chirp(3.0), RATE)

    assert len(read(tmp_path / "clip.wav", offset=1.0, duration=2.4)) == 2 * RATE


# Storage


class CountingFileSystem(MemoryFileSystem):
    """Files that are not wholly in memory as far as the reader can tell."""

    protocol = "counting"
    content = b""
    bytes_read = 0
    fail_after: int | None = None
    failure: Exception = ConnectionResetError("the line went dead")

    def _open(self, *_, **__):
        return CountingFile(self)


class CountingFile(io.RawIOBase):
    def __init__(self, owner):
        self._inner, self._owner = io.BytesIO(owner.content), owner

    def read(self, size=-1):
        data = self._inner.read(size)
        owner = type(self._owner)
        owner.bytes_read += len(data)
        if owner.fail_after is not None and owner.bytes_read > owner.fail_after:
            raise owner.failure
        return data

    def seek(self, offset, whence=0):
        return self._inner.seek(offset, whence)

    def tell(self):
        return self._inner.tell()


@pytest.fixture
def counting():
    fsspec.register_implementation("counting", CountingFileSystem, clobber=True)
    CountingFileSystem.bytes_read, CountingFileSystem.fail_after = 0, None
    CountingFileSystem.content = wav_bytes((np.tile(chirp(10), 60) * 2**15).astype("<i2").tobytes())
    return CountingFileSystem


def test_one_second_of_ten_minutes_reads_little(counting):
    samples = read("counting://clip.wav", offset=301.0, duration=1.0)

    np.testing.assert_allclose(samples, chirp(10)[RATE : 2 * RATE], atol=1 / 2**15)
    assert counting.bytes_read < len(counting.content) / 100


@pytest.mark.parametrize("codec", ["alac", "aac"])
def test_one_second_of_five_minutes_of_m4a_reads_little(counting, tmp_path, codec):
    encode(tmp_path / "clip.m4a", np.tile(chirp(10), 30), codec=codec)
    counting.content = (tmp_path / "clip.m4a").read_bytes()
    assert len(counting.content) > 2**20

    read("counting://clip.m4a", offset=201.0, duration=1.0)

    assert counting.bytes_read < len(counting.content) / 5


@pytest.mark.parametrize("kind", [ConnectionResetError, RuntimeError])
def test_a_storage_failure_is_not_taken_for_the_end_of_the_file(counting, kind, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    counting.fail_after, counting.failure = 5_000_000, kind("the line went dead")

    with pytest.raises(kind, match="the line went dead"):
        read("counting://clip.wav")


def test_any_fsspec_uri_is_read_by_many_threads_at_once(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, chirp(), RATE, format="FLAC")
    fsspec.filesystem("memory").pipe("/clips/clip.flac", buffer.getvalue())
    encode(tmp_path / "clip.m4a", chirp(), codec="alac")
    paths = ["memory://clips/clip.flac", f"file://{tmp_path}/clip.m4a"] * 50

    with ThreadPoolExecutor(8) as pool:
        for samples in pool.map(read, paths):
            np.testing.assert_allclose(samples, chirp(), atol=1 / 2**15)


def test_http_is_read_even_without_range_requests(tmp_path):
    pytest.importorskip("aiohttp")
    soundfile.write(tmp_path / "clip.wav", chirp(), RATE)
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        np.testing.assert_allclose(read(f"{url}/clip.wav"), chirp(), atol=1 / 2**15)
        with pytest.raises(reading.AudioNotFoundError):
            read(f"{url}/missing.wav")
        with pytest.raises(reading.AudioAccessError):
            read(f"{url}/forbidden.wav")
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def send_head(self):
        if "forbidden" in self.path:
            self.send_error(403)
            return None
        return super().send_head()

    def log_message(self, *_):
        pass


# Errors


def check_error(path, error, *words, **options):
    """The error is raised, is an AudioError, and names the file and what is wrong."""
    with pytest.raises(error) as caught:
        read(path, **options)
    assert isinstance(caught.value, reading.AudioError)
    assert caught.type is error
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_missing_file(tmp_path):
    check_error(tmp_path / "no.wav", reading.AudioNotFoundError)
    check_error("memory://no.wav", reading.AudioNotFoundError)
    assert issubclass(reading.AudioNotFoundError, FileNotFoundError)


@pytest.mark.parametrize(
    "refusal", [PermissionError(13, "Permission denied"), OSError("Forbidden: b/clip.wav")]
)
@pytest.mark.usefixtures("counting")
def test_a_refused_file(monkeypatch, refusal):  # root may read anything: no chmod
    def refuse(*_, **__):
        raise refusal

    monkeypatch.setattr(CountingFileSystem, "_open", refuse)
    check_error("counting://clip.wav", reading.AudioAccessError)
    assert issubclass(reading.AudioAccessError, PermissionError)


def test_a_folder(tmp_path):
    check_error(tmp_path, reading.NotAudioError, "folder")


def test_zero_bytes(tmp_path):
    (tmp_path / "clip.wav").write_bytes(b"")
    check_error(tmp_path / "clip.wav", reading.EmptyAudioError)


@pytest.mark.parametrize("size", [1, 100, 5_000, 100_000])
@pytest.mark.parametrize("seed", range(10))
def test_random_bytes_are_not_audio(tmp_path, size, seed):
    (tmp_path / "clip.wav").write_bytes(np.random.default_rng(seed).bytes(size))
    check_error(tmp_path / "clip.wav", reading.NotAudioError)


def test_text_is_not_audio(tmp_path):
    (tmp_path / "clip.wav").write_text("Mary had a little lamb.\n" * 100)
    check_error(tmp_path / "clip.wav", reading.NotAudioError, "Mary had")


def test_a_playlist_opens_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "secret.aac", chirp(), codec="aac")
    for name, text in [
        ("list.mp3", f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/secret.aac\n"),
        ("list.wav", "ffconcat version 1.0\nfile secret.aac\n"),
    ]:
        (tmp_path / name).write_text(text)
        check_error(tmp_path / name, reading.NotAudioError)


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
    check_error(tmp_path / "clip.wav", reading.WrongExtensionError, kind, ".wav")


def test_raw_g722_may_begin_like_text(tmp_path):
    encode(tmp_path / "clip.g722", chirp(), codec="g722")
    content = (tmp_path / "clip.g722").read_bytes()
    (tmp_path / "clip.g722").write_bytes(b"{" + content)

    assert lag_and_error(read(tmp_path / "clip.g722"), chirp())[1] < 0.1


def test_a_video_without_sound(tmp_path):
    with av.open(str(tmp_path / "clip.mp4"), "w") as output:
        add_video(output)
    (tmp_path / "clip.mp4").rename(tmp_path / "clip.m4a")
    check_error(tmp_path / "clip.m4a", reading.WrongExtensionError, "without an audio stream")


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
    check_error(tmp_path / "clip.wav", reading.CorruptAudioError)


@pytest.mark.parametrize("length", [5, 20, 40])
def test_a_header_that_breaks_off(tmp_path, length):
    (tmp_path / "clip.wav").write_bytes(wav_bytes()[:length])
    check_error(tmp_path / "clip.wav", reading.CorruptAudioError)


def damage(content: bytes, seed: int = 0) -> bytes:
    middle = len(content) // 2
    noise = np.random.default_rng(seed).bytes(400)
    return content[:middle] + noise + content[middle + 400 :]


def test_a_flac_damaged_in_the_middle(tmp_path):
    soundfile.write(tmp_path / "clip.flac", chirp(12), RATE)
    (tmp_path / "clip.flac").write_bytes(damage((tmp_path / "clip.flac").read_bytes()))
    check_error(tmp_path / "clip.flac", reading.CorruptAudioError)


@pytest.mark.parametrize("codec", ["aac", "alac"])
def test_an_m4a_damaged_in_the_middle(tmp_path, codec):
    encode(tmp_path / "clip.m4a", chirp(12), codec=codec)
    (tmp_path / "clip.m4a").write_bytes(damage((tmp_path / "clip.m4a").read_bytes()))
    check_error(tmp_path / "clip.m4a", reading.CorruptAudioError)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers(tmp_path, bad):
    samples = chirp()
    samples[20_000] = bad
    soundfile.write(tmp_path / "clip.wav", samples, RATE, subtype="FLOAT")
    check_error(tmp_path / "clip.wav", reading.CorruptAudioError, "NaN")


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "AIFF", "AU", "FLAC", "MP3", "OGG"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_truncated_file(tmp_path, container, share):
    path = tmp_path / "clip"
    soundfile.write(path, chirp(20), RATE, format=container)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    check_error(path, reading.TruncatedAudioError)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("clip.webm", "libopus", 48_000), ("clip.amr", "libopencore_amrnb", 8_000)],
)
def test_a_truncated_file_of_ffmpeg(tmp_path, name, codec, rate):
    encode(tmp_path / name, chirp(12, rate), codec=codec, rate=rate)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2 + 1])
    check_error(tmp_path / name, reading.TruncatedAudioError)


def test_a_truncated_m4a_has_no_index(tmp_path):
    encode(tmp_path / "clip.m4a", chirp(12), codec="aac")
    content = (tmp_path / "clip.m4a").read_bytes()
    (tmp_path / "clip.m4a").write_bytes(content[: len(content) // 2])
    check_error(tmp_path / "clip.m4a", reading.CorruptAudioError, "cut short")


def test_a_claim_of_ten_hours_allocates_nothing(tmp_path):
    ten_hours = 10 * 3600 * RATE
    path = tmp_path / "clip.flac"
    soundfile.write(path, chirp(1), RATE)
    content = bytearray(path.read_bytes())
    content[22:26] = struct.pack(">I", ten_hours)
    path.write_bytes(content)
    tracemalloc.start()
    check_error(path, reading.TruncatedAudioError)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**24
    (tmp_path / "clip.wav").write_bytes(wav_bytes(size=2 * ten_hours))
    check_error(tmp_path / "clip.wav", reading.TruncatedAudioError, str(2 * ten_hours))


@pytest.mark.usefixtures("counting")
def test_memory_holds_one_clip_and_a_block():
    tracemalloc.start()
    samples = read("counting://clip.wav")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1.25 * samples.nbytes + 2**22


def test_a_row_that_asks_for_more_than_there_is(tmp_path):
    soundfile.write(tmp_path / "clip.wav", chirp(3.0), RATE)
    check_error(
        tmp_path / "clip.wav", reading.TruncatedAudioError, "3.00 s", offset=1, duration=2.6
    )


@pytest.mark.parametrize("container", ["WAV", "RF64", "AIFF", "AU", "NIST"])
def test_a_header_without_samples(tmp_path, container):
    path = tmp_path / "clip"
    soundfile.write(path, np.zeros(0, np.float32), RATE, format=container)
    check_error(path, reading.ZeroLengthAudioError)


def test_an_empty_wav_with_a_comment_is_empty(tmp_path):
    comment = b"LIST" + struct.pack("<I", 100) + b"INFO" + b"\1\2\3\4" * 24
    content = wav_bytes(b"", riff=36 + len(comment)) + comment
    (tmp_path / "clip.wav").write_bytes(content)
    check_error(tmp_path / "clip.wav", reading.ZeroLengthAudioError)


def test_digital_silence(tmp_path):
    samples = np.concatenate([np.zeros(2 * RATE, "f4"), chirp(2)])
    soundfile.write(tmp_path / "half.wav", samples, RATE)
    soundfile.write(tmp_path / "all.wav", np.zeros(RATE, "f4"), RATE)

    check_error(tmp_path / "all.wav", reading.SilentAudioError)
    check_error(tmp_path / "half.wav", reading.SilentAudioError, duration=1.5)
    assert len(read(tmp_path / "half.wav")) == 4 * RATE


def test_a_quiet_recording_is_not_silence(tmp_path):
    samples = np.zeros(RATE, "<i2")
    samples[1234] = 1
    soundfile.write(tmp_path / "clip.wav", samples, RATE)

    assert np.count_nonzero(read(tmp_path / "clip.wav")) == 1


@pytest.mark.parametrize("offset", [3.0, 3.5, 1e9])
def test_an_offset_beyond_the_end(tmp_path, offset):
    soundfile.write(tmp_path / "clip.wav", chirp(3.0), RATE)
    check_error(tmp_path / "clip.wav", reading.OffsetBeyondEndError, "3.00 s", offset=offset)
    encode(tmp_path / "clip.m4a", chirp(3.0), codec="alac")
    check_error(tmp_path / "clip.m4a", reading.OffsetBeyondEndError, "3.00 s", offset=offset)


@pytest.mark.parametrize("channel", [2, -1])
def test_a_channel_the_file_lacks(tmp_path, channel):
    soundfile.write(tmp_path / "clip.wav", np.stack([chirp(), chirp()], axis=1), RATE)
    check_error(tmp_path / "clip.wav", reading.ChannelError, "it has 2", channel=channel)


@pytest.mark.parametrize(
    "options",
    [{"offset": -1}, {"offset": np.nan}, {"duration": 0}, {"duration": -1}, {"duration": np.inf}],
)
def test_an_impossible_range_is_the_callers_fault(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))) as caught:
        read(tmp_path / "any.wav", **options)
    assert not isinstance(caught.value, reading.AudioError)


def test_ffmpeg_stays_quiet(tmp_path, capfd):
    encode(tmp_path / "clip.m4a", chirp(12), codec="aac")
    Path(tmp_path / "clip.m4a").write_bytes(damage((tmp_path / "clip.m4a").read_bytes()))
    check_error(tmp_path / "clip.m4a", reading.CorruptAudioError)
    assert capfd.readouterr() == ("", "")


# Bytes by a descriptor


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_bytes_in_memory_are_read_the_same_without_files_in_memory(tmp_path, monkeypatch, name):
    samples = np.sin(np.arange(48_000) * 0.05).astype(np.float32) / 2
    soundfile.write(tmp_path / name, samples, 16_000)
    content = (tmp_path / name).read_bytes()
    from_disk = read_audio(str(tmp_path / name), sample_rate=16_000)
    by_descriptor = read_audio(name, sample_rate=16_000, content=content)

    def refused(_):
        raise PermissionError("a sandbox")

    monkeypatch.setattr(audio_source.os, "memfd_create", refused)
    by_callback = read_audio(name, sample_rate=16_000, content=content)
    assert len(from_disk) >= 48_000
    assert np.array_equal(from_disk, by_descriptor)
    assert np.array_equal(from_disk, by_callback)


def test_a_disk_that_fails_is_no_truncated_file(tmp_path, monkeypatch):
    """libsndfile takes a failed read for the end; the disk's error is the better reason."""
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 48_000), 16_000)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(reading.TruncatedAudioError):
        read_audio(str(tmp_path / "a.flac"), sample_rate=16_000)

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(audio_source.os, "pread", fails)
    with pytest.raises(OSError, match="Input/output error"):
        read_audio(str(tmp_path / "a.flac"), sample_rate=16_000)


@pytest.mark.parametrize(("extension", "expected"), [("flac", True), ("ogg", True), ("mp3", False)])
def test_a_range_of_an_mp3_is_known_to_take_all_that_is_before_it(tmp_path, extension, expected):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.1, 0.1, 32_000), 16_000)
    assert can_seek(str(path)) is expected
    assert can_seek("elsewhere", content=path.read_bytes()) is expected
