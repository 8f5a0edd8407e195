"""Files of audio from signals that are known, written by soundfile and PyAV."""

from __future__ import annotations

import functools
import io
import struct

import av
import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from beam_asr import errors
from beam_asr.audio.reading import AudioRequest, read_audio
from tests.support.ffmpeg import mux_audio

RATE = 16_000
_ALIGNED = 60 * RATE


def chirp(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """200 Hz to 2 kHz with a little noise: no stretch of it resembles another."""
    return _chirp(seconds, rate).copy()


@functools.lru_cache(maxsize=8)
def _chirp(seconds: float, rate: int) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    sweep = 0.4 * np.sin(2 * np.pi * (200 * t + 900 / seconds * t**2))
    return (sweep + 0.001 * np.random.default_rng(1).standard_normal(len(t))).astype(np.float32)


def tone(rate: int, seconds: float = 2.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype("f4")


BIT_RATES = {"libopencore_amrnb": 12_200, "wmav2": 64_000}  # of codecs that do not take the usual


def encode(
    path, samples, *, codec, rate=RATE, layout="mono", video=False, container=None, options=None,
    stream_options=None,
):  # fmt: skip
    """Writes int16 or float samples (frames,) or (frames, channels) with FFmpeg's encoders."""
    samples = samples.reshape(len(samples), -1)
    file = path if hasattr(path, "write") else str(path)
    with av.open(file, "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout, options=stream_options or {})
        if codec in BIT_RATES:
            stream.bit_rate = BIT_RATES[codec]
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
    """Samples by which `samples` come late, and the RMS error, relative, once aligned.

    The first minute is aligned; the error is that of all.
    """
    heads = samples[:_ALIGNED], reference[:_ALIGNED]
    size = 1 << (2 * max(map(len, heads)) - 1).bit_length()  # with others, FFT may be slow
    spectrum = np.fft.rfft(heads[0], size) * np.conj(np.fft.rfft(heads[1], size))
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


def read(path, storage=None, deadline=None, content=None, **request):
    """The samples of a file at `RATE`; the rest is of its ``AudioRequest``."""
    wanted = AudioRequest(**{"sample_rate": RATE, **request})
    return read_audio(str(path), wanted, storage=storage, deadline=deadline, content=content)


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


def check_error(path, error, *words, **options):
    """The error is raised, is an AudioError, and names the file and what is wrong."""
    with pytest.raises(error) as caught:
        read(path, **options)
    assert isinstance(caught.value, errors.AudioError)
    assert caught.type is error
    for word in (str(path), *words):
        assert word in str(caught.value)


def damage(content: bytes, seed: int = 0) -> bytes:
    middle = len(content) // 2
    noise = np.random.default_rng(seed).bytes(400)
    return content[:middle] + noise + content[middle + 400 :]
