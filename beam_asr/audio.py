"""Audio files of any kind, anywhere, to mono float32 samples at one rate.

    path --storage--> bytes --libsndfile or FFmpeg--> blocks --mix, resample--> samples

The content of a file, never its name, chooses the decoder. libsndfile comes first: it is exact on
every seek and light. FFmpeg (through PyAV) gets what libsndfile does not know. The one exception
is G.722, which has no header at all and is known by its `.g722` extension alone.

Only a block of decoded audio is held beside the result, however much a header claims, so memory
grows with the samples a file really holds. All functions may be called from many threads at once.
"""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import Any, Protocol

import av
import av.error
import numpy as np
import soundfile
import soxr

from beam_asr.audio_errors import (
    AudioAccessError,
    AudioError,
    AudioNotFoundError,
    AudioTimeoutError,
    ChannelError,
    CorruptAudioError,
    EmptyAudioError,
    NotAudioError,
    OffsetBeyondEndError,
    SilentAudioError,
    TruncatedAudioError,
    WrongExtensionError,
    ZeroLengthAudioError,
)
from beam_asr.audio_names import extension, is_audio
from beam_asr.audio_source import Source, open_bytes, open_content
from beam_asr.storage import Storage

__all__ = [
    "AudioAccessError",
    "AudioError",
    "AudioNotFoundError",
    "AudioTimeoutError",
    "ChannelError",
    "CorruptAudioError",
    "EmptyAudioError",
    "NotAudioError",
    "OffsetBeyondEndError",
    "SilentAudioError",
    "TruncatedAudioError",
    "WrongExtensionError",
    "ZeroLengthAudioError",
    "probe_duration",
    "read_audio",
]

# Damaged clips are reported as errors with the file's name; FFmpeg's own lines lack it.
av.logging.set_level(None)

_BLOCK_SAMPLES = 2**18  # 1 MiB of float32, over all channels
_HEADER_BYTES = 2**16  # fetched first of a file of which a range is read
_SAMPLE_RATES_HZ = range(1_000, 1_000_001)
_MOST_CHANNELS = 1024  # libsndfile's own limit
_OVERRUN_S = 0.5  # how far a manifest's rounded duration may run past the end of its file
_PREROLL_S = 0.5  # decoded before a seek's target and dropped: Opus needs 80 ms, AMR more
_UNKNOWN_LENGTH = 2**62  # libsndfile gives 2**63 - 1 frames where a header does not say


def read_audio(
    path: str,
    *,
    sample_rate: int,
    offset: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    storage: Storage | None = None,
    deadline: float | None = None,
    content: bytes | None = None,
) -> np.ndarray:
    """Reads a clip, or a range of it, as mono samples.

    The range starts at sample round(offset * rate) and holds round(duration * rate) samples,
    halves up, in the file's own rate; it is then resampled on its own (soxr HQ). This is the
    rounding of lhotse, and so of NeMo's `transcribe()`. A range of a lossless file equals the
    slice of the whole; a range of Matroska, WebM or WMA, which count time in milliseconds, may
    start up to 1 ms off. A `duration` that runs at most 0.5 s past the end is cut to what is
    there, as manifests round.

    Args:
      path: local path or any URI that fsspec opens: gs://, s3://, http://, memory://, ...
      sample_rate: of the result, in Hz.
      offset: where to start, in seconds from the file's first sample.
      duration: how much to read, in seconds; None reads to the end.
      channel: the channel to take, from 0; None averages all channels.
      storage: how storages are opened, and which may be.
      deadline: time of `time.monotonic()` after which reading fails.
      content: the file's bytes, if they are here already; `path` then only names it.

    Returns:
      float32 array of shape (samples,), full scale ±1; not clipped, so float files may exceed it.

    Raises:
      AudioError: the clip cannot be read; see `beam_asr.audio_errors` for the subclasses.
      ValueError: sample_rate, offset or duration is out of its range.
      Exception: whatever the storage system raises when it is not the clip's fault.
    """
    _check_request(sample_rate, offset, duration)
    if content is not None:
        opened = open_content(path, content)
    else:
        opened = open_bytes(path, storage, deadline, _HEADER_BYTES if offset else None)
    with opened as source, _open_decoder(source) as decoder:
        if channel is not None and not 0 <= channel < decoder.channels:
            raise ChannelError(
                f"{path}: has no channel {channel}; it has {decoder.channels}, counted from 0."
            )
        start = _to_frames(offset, decoder.rate)
        count = None if duration is None else _to_frames(duration, decoder.rate)
        return _read_range(source, decoder, start, count, channel, sample_rate)


def probe_duration(path: str, *, storage: Storage | None = None) -> float | None:
    """Length of a clip in seconds as its header states it; None where the header does not say.

    Raises:
      AudioError: as `read_audio`, as far as the header shows it.
    """
    with open_bytes(path, storage) as source, _open_decoder(source) as decoder:
        frames = decoder.stated_frames
        return None if frames is None else frames / decoder.rate


def _check_request(sample_rate: int, offset: float, duration: float | None) -> None:
    if sample_rate <= 0:
        raise ValueError(f"sample_rate={sample_rate} must be a positive number of Hz.")
    if not (math.isfinite(offset) and offset >= 0):
        raise ValueError(f"offset={offset} must be a finite number of seconds, 0 or more.")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration={duration} must be a finite number of seconds above 0.")


def _to_frames(seconds: float, rate: int) -> int:
    # round() first: 0.35 * 8000 * 1.0 and its like fall a hair below the half.
    return math.floor(round(seconds * rate, 8) + 0.5)


def _read_range(
    source: Source,
    decoder: "_Decoder",
    start: int,
    count: int | None,
    channel: int | None,
    sample_rate: int,
) -> np.ndarray:
    """Mixes and resamples the `count` frames from `start` on, block by block."""
    resample = _resampler(decoder.rate, sample_rate)
    samples = _Samples()
    frames, heard = 0, False
    try:
        for block in decoder.blocks(start, count):
            if not np.isfinite(block).all():
                raise CorruptAudioError(
                    f"{source.path}: holds NaN or infinite samples, between "
                    f"{(start + frames) / decoder.rate:.2f} s and "
                    f"{(start + frames + len(block)) / decoder.rate:.2f} s. Write it again."
                )
            if channel is None and decoder.channels > 1:
                mono = block.mean(axis=1)
            else:
                mono = block[:, channel or 0]
            heard = heard or bool(mono.any())
            frames += len(block)
            samples.add(resample(np.ascontiguousarray(mono), False))
        samples.add(resample(np.empty(0, np.float32), True))
    except (soundfile.LibsndfileError, av.error.FFmpegError) as error:
        raise _decoding_failed(source, decoder, start + frames, error) from error
    _check_complete(source.path, decoder, start, count, frames)
    if not heard:
        raise SilentAudioError(
            f"{source.path}: all {frames} samples from {start / decoder.rate:.2f} s on are exactly "
            "zero. No microphone gives that: the recording failed, or the channels cancel each "
            "other. Drop the row, or choose a channel."
        )
    if not len(samples.array):
        raise ZeroLengthAudioError(
            f"{source.path}: {frames} samples at {decoder.rate} Hz make none at {sample_rate} Hz. "
            "Drop the row."
        )
    return samples.array


class _Samples:
    """Mono float32 that grows in place, where joining blocks would hold a clip twice."""

    def __init__(self) -> None:
        self._first = np.empty(0, np.float32)
        self._all = bytearray()

    def add(self, block: np.ndarray) -> None:
        if not len(self._first):
            self._first = block  # all there is of most clips, which need no copy
        elif len(block):
            self._all = self._all or bytearray(self._first.tobytes())
            self._all += block.tobytes()

    @property
    def array(self) -> np.ndarray:
        return np.frombuffer(self._all, dtype=np.float32) if self._all else self._first


def _resampler(rate: int, wanted: int) -> Callable[[np.ndarray, bool], Any]:
    """A function of blocks, and of whether a block is the last one."""
    if rate == wanted:
        return lambda block, _: block
    return soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ").resample_chunk


def _decoding_failed(
    source: Source, decoder: "_Decoder", frame: int, error: Exception
) -> CorruptAudioError:
    """The error to raise where a decoder gave up: had it come to the end of the bytes or not?"""
    where = f"somewhere after {frame / decoder.rate:.2f} s"
    if decoder.exhausted():
        return TruncatedAudioError(
            f"{source.path}: breaks off {where}, at the end of its {source.size} bytes "
            f"({_reason(error)}). Copy the file again from its origin."
        )
    return CorruptAudioError(
        f"{source.path}: cannot be decoded {where} ({_reason(error)}). "
        "Copy the file again from its origin."
    )


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.removeprefix("Error : ").rstrip(".")


def _check_complete(
    path: str, decoder: "_Decoder", start: int, count: int | None, frames: int
) -> None:
    """Raises if the `frames` that came are fewer than the header or the row promised."""
    rate, stated = decoder.rate, decoder.stated_frames
    end = (start + frames) / rate
    if stated is not None:
        promised = max(0, stated - start) if count is None else min(count, stated - start)
        if frames < promised - decoder.length_slack_s * rate:
            raise TruncatedAudioError(
                f"{path}: the header promises {stated / rate:.2f} s of samples but from "
                f"{start / rate:.2f} s on only {frames / rate:.2f} s could be read. "
                "Copy the file again from its origin."
            )
    if frames == 0 and start == 0:
        raise _zero_length(path)
    if frames == 0:
        length = "" if stated is None else f" of {stated / rate:.2f} s"
        raise OffsetBeyondEndError(
            f"{path}: the offset {start / rate:.2f} s is not before its end{length}. "
            "Correct the row's offset."
        )
    if count is not None and count - frames > _OVERRUN_S * rate:
        raise TruncatedAudioError(
            f"{path}: ends at {end:.2f} s but the row asks for audio up to "
            f"{(start + count) / rate:.2f} s. Correct the row's duration or copy the file again."
        )


def _zero_length(path: str) -> ZeroLengthAudioError:
    return ZeroLengthAudioError(f"{path}: the header is valid but no samples follow. Drop the row.")


# Recognition

_FOREIGN = (  # (offset, signature, what it is); https://en.wikipedia.org/wiki/List_of_file_signatures
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b\x08", "gzip-compressed data"),
    (0, b"BZh", "bzip2-compressed data"),
    (0, b"\xfd7zXZ\x00", "xz-compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (257, b"ustar", "a tar archive"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it points to,"),
)
_FOREIGN_TEXT = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"<error", "an XML document"),
    (b"{", "a JSON document"),
    (b"[", "a JSON document"),
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r")
_AUDIO = (  # tell a damaged recording from something that never was one
    *((0, tag) for tag in (b"RIFF", b"RF64", b"RIFX", b"FORM", b".snd", b"fLaC", b"OggS", b"ID3")),
    *((0, tag) for tag in (b"#!AMR", b"NIST_1A", b"caff", b"FLV\x01")),
    *((0, tag) for tag in (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")),  # Matroska, ASF
    *((4, tag) for tag in (b"ftyp", b"moov", b"mdat")),
)
_MPEG_AUDIO = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9")


def _foreign_kind(head: bytes) -> str | None:
    """What a file that is certainly not audio is, by its first bytes."""
    for offset, signature, kind in _FOREIGN:
        if head.startswith(signature, offset):
            return kind
    if _CONTROLS.intersection(head):  # samples may well begin with a brace
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for start, kind in _FOREIGN_TEXT if text.startswith(start)), None)


def _foreign_error(path: str, kind: str) -> NotAudioError:
    if is_audio(path):
        return WrongExtensionError(
            f"{path}: is {kind} although it is named {extension(path)}. "
            "Put the recording in its place or drop the row."
        )
    return NotAudioError(f"{path}: is {kind}. Correct the path in the manifest.")


def _check_chunk_sizes(source: Source, head: bytes) -> None:
    """Raises if a WAV, RF64, AIFF or AU header promises more bytes of samples than there are.

    libsndfile reads such a file without a word, as far as it goes. Formats: "Multimedia
    Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech 3306 (RF64), "Audio
    Interchange File Format 1.3" (AIFF).
    """
    chunk = _sample_chunk(source, head)
    if chunk is None:
        return
    start, size = chunk
    if size == 0 and struct.unpack_from("<I", head, 4)[0] + 8 == source.size:
        raise _zero_length(source.path)
    # Pipes cannot go back to fill in the size, and leave 0 or a number near 2**31 or 2**32; some
    # writers count the header (44 bytes or a little more) among the samples.
    placeholder = size == 0 or 0x7F000000 <= size < 2**31 or 0xFFFFF000 <= size < 2**32
    held = source.size - start
    if not placeholder and size > held + 64:
        raise TruncatedAudioError(
            f"{source.path}: the header promises {size} bytes of samples but the file holds "
            f"{held}. Copy the file again from its origin."
        )


def _sample_chunk(source: Source, head: bytes) -> tuple[int, int] | None:
    """(offset, stated size) in bytes of the samples; None where there is no such chunk."""
    if head[:4] == b".snd" and len(head) >= 12:
        return struct.unpack_from(">II", head, 4)
    if head[8:12] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    order = ">" if head[:4] in (b"FORM", b"RIFX") else "<"
    position, size_64 = 12, None
    while len(header := source.peek(position, 8)) == 8:
        tag, size = struct.unpack(order + "4sI", header)
        if tag in (b"data", b"SSND"):
            in_ds64 = size == 0xFFFFFFFF and size_64 is not None
            return position + 8, size_64 if in_ds64 and size_64 is not None else size
        if tag == b"ds64" and len(sizes := source.peek(position + 8, 16)) == 16:
            size_64 = struct.unpack("<QQ", sizes)[1]
        position += 8 + size + size % 2
    return None


def _check_last_page(source: Source, head: bytes) -> None:
    """Raises if an Ogg file ends in the middle of a page, where libsndfile just stops.

    Format: RFC 3533, section 6. A live recording without an end-of-stream mark passes.
    """
    if not head.startswith(b"OggS"):
        return
    tail = source.peek(max(0, source.size - 65_307), 65_307)  # the largest page
    page = tail[tail.rfind(b"OggS") :]
    table = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(table) < page[26] or len(page) < 27 + len(table) + sum(table):
        raise TruncatedAudioError(
            f"{source.path}: its {source.size} bytes end in the middle of an Ogg page. "
            "Copy the file again from its origin."
        )


# Decoders


class _Decoder(Protocol):
    """A file open for decoding."""

    rate: int  # Hz
    channels: int
    stated_frames: int | None  # what the header promises
    length_slack_s: float  # how inexact that promise may be

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        """float32 blocks (frames, channels) of up to `count` frames from frame `start` on."""

    def exhausted(self) -> bool:
        """Whether decoding failed for want of more bytes."""

    def close(self) -> None: ...


@contextmanager
def _open_decoder(source: Source) -> Iterator[_Decoder]:
    """Opens a file with the first decoder that knows its content, and checks its header."""
    head = source.peek(0, 512)
    kind = _foreign_kind(head)
    if kind is not None:
        raise _foreign_error(source.path, kind)
    _check_chunk_sizes(source, head)
    _check_last_page(source, head)
    decoder = _find_decoder(source, head)
    try:
        if decoder.rate not in _SAMPLE_RATES_HZ or not 1 <= decoder.channels <= _MOST_CHANNELS:
            raise CorruptAudioError(
                f"{source.path}: the header claims {decoder.channels} channels at {decoder.rate} "
                f"Hz; 1 to {_MOST_CHANNELS} channels at {_SAMPLE_RATES_HZ[0]} to "
                f"{_SAMPLE_RATES_HZ[-1]} Hz are possible. Copy the file again from its origin."
            )
        yield decoder
    finally:
        decoder.close()


def _find_decoder(source: Source, head: bytes) -> _Decoder:
    known = any(head.startswith(signature, offset) for offset, signature in _AUDIO)
    if extension(source.path) == ".g722" and not known:
        return _FFmpegDecoder(source, "g722")
    empty = False
    try:
        decoder = _SndfileDecoder(source)
        empty = decoder.stated_frames == 0
        if not empty:
            return decoder
        decoder.close()  # a WAV from a pipe is empty to libsndfile alone
        refusal = "no samples"
    except soundfile.LibsndfileError as error:
        refusal = _reason(error)
    known = known or head.startswith(_MPEG_AUDIO)
    source.seek(0)
    try:
        return _FFmpegDecoder(source, None)
    except (av.error.FFmpegError, AudioError) as error:
        if not known:
            raise NotAudioError(
                f"{source.path}: {source.size} bytes that no audio format explains; they begin "
                f"with {head[:16]!r}. Put the recording in its place or drop the row."
            ) from error
        if empty:
            raise _zero_length(source.path) from error
        if isinstance(error, AudioError):
            raise
        raise CorruptAudioError(
            f"{source.path}: the header cannot be read, or the file is cut short (libsndfile: "
            f"{refusal}; FFmpeg: {_reason(error)}). Copy the file again from its origin."
        ) from error


class _QuietSoundFile(soundfile.SoundFile):
    """A SoundFile that does not seek by itself.

    soundfile seeks after each read to where it already is, which makes decoders of MP3 start
    afresh, in the middle of their bit reservoir, at each block. It asks this first.
    """

    def seekable(self) -> bool:
        return False


class _SndfileDecoder:
    """What libsndfile reads: WAV, AIFF, AU, FLAC, Ogg Vorbis and Opus, MP3, SPHERE, CAF, ..."""

    def __init__(self, source: Source) -> None:
        self._source = source
        if source.descriptor is None:
            self._file = _QuietSoundFile(source)
        else:
            self._file = _QuietSoundFile(source.descriptor, closefd=False)
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        frames = self._file.frames
        self.stated_frames: int | None = None if frames > _UNKNOWN_LENGTH else frames
        # An MP3's frame count may include encoder padding.
        self.length_slack_s = _OVERRUN_S if self._file.format == "MP3" else 0.0

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        end = _UNKNOWN_LENGTH if self.stated_frames is None else self.stated_frames
        left = end - start if count is None else min(count, end - start)
        if start and left > 0:
            self._file.seek(start)
        while left > 0:
            size = min(left, max(1, _BLOCK_SAMPLES // self.channels))
            block = self._file.read(size, dtype="float32", always_2d=True)
            if not len(block):
                return
            left -= len(block)
            yield block

    def exhausted(self) -> bool:
        return self._source.exhausted

    def close(self) -> None:
        self._file.close()


class _FFmpegDecoder:
    """What FFmpeg reads: M4A, MP4, WebM, AMR, WMA, raw AAC, G.722, video containers, ..."""

    length_slack_s = _OVERRUN_S  # containers count the codec's padding in or out

    def __init__(self, source: Source, container_format: str | None) -> None:
        self._path = source.path
        # A playlist or session description is content too: FFmpeg must not open what it names.
        self._container = av.open(
            source,
            mode="r",
            format=container_format,
            metadata_errors="ignore",
            options={"protocol_whitelist": "none"},
        )
        try:
            self._open_stream(source)
        except BaseException:
            self._container.close()
            raise

    def _open_stream(self, source: Source) -> None:
        streams = self._container.streams
        # None is best where a header is impossible; then the first one tells why.
        stream = streams.best("audio") or next(iter(streams.audio), None)
        kind = self._container.format.long_name
        if stream is None and streams.video:
            raise _foreign_error(source.path, f"a video without an audio stream ({kind})")
        if stream is None:
            raise _foreign_error(source.path, f"a file without an audio stream ({kind})")
        if stream.codec_context is None:
            raise CorruptAudioError(
                f"{source.path}: no decoder knows the codec of this {kind} file. "
                "Convert it, for example to FLAC."
            )
        self._stream = stream
        first = next(self._decoded(), None)
        if first is None:
            raise _zero_length(source.path)
        # A header states half the rate of HE-AAC; its frames tell the truth.
        self._first, self.rate, self.channels = first, first.sample_rate, first.layout.nb_channels
        self.stated_frames = self._stated_frames()

    def _stated_frames(self) -> int | None:
        """Elsewhere FFmpeg guesses a duration from the bit rate, which promises nothing."""
        container, stream = self._container, self._stream
        if "mp4" in container.format.name and stream.duration:
            return round(stream.duration * stream.time_base * self.rate)
        alone = len(container.streams) == 1  # Matroska states the longest stream's duration only
        if "matroska" in container.format.name and container.duration and alone:
            return round(container.duration / av.time_base * self.rate)
        return None

    def _decoded(self) -> Iterator[av.AudioFrame]:
        return self._container.decode(self._stream)

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        frames, position = self._frames_before(start)
        end = None if count is None else start + count
        for frame in frames:
            block = self._to_block(frame)
            from_, to = max(0, start - position), None if end is None else end - position
            position += len(block)
            if len(block := block[from_:to]):
                yield block
            if end is not None and position >= end:
                return

    def _frames_before(self, start: int) -> tuple[Iterator[av.AudioFrame], int]:
        """Decoded frames from at or before sample `start` on, and where the first one lies."""
        lead = start - round(_PREROLL_S * self.rate)
        if lead <= 0 or self._first.pts is None:
            return chain([self._first], self._decoded()), 0
        tick = Fraction(self._stream.time_base) * self.rate  # in samples
        try:
            self._seek(self._first.pts + math.floor(lead / tick))
            frames = self._decoded()
            frame = next(frames, None)
            if frame is not None and frame.pts is not None:
                position = max(0, round((frame.pts - self._first.pts) * tick))
                if position <= start:
                    return chain([frame], frames), position
        except av.error.FFmpegError:
            pass  # no index, or one that points nowhere: below is slow and sure
        self._seek(self._first.pts)
        return self._decoded(), 0

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream, backward=True)

    def _to_block(self, frame: av.AudioFrame) -> np.ndarray:
        """float32 (frames, channels), full scale ±1, from any of FFmpeg's sample formats."""
        if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
            raise CorruptAudioError(
                f"{self._path}: changes from {self.channels} channels at {self.rate} Hz to "
                f"{frame.layout.nb_channels} at {frame.sample_rate} Hz. Split or convert it."
            )
        data = frame.to_ndarray()
        data = data.T if frame.format.is_planar else data.reshape(-1, self.channels)
        if data.dtype.kind == "f":
            return data.astype(np.float32)
        zero = 128 if data.dtype == np.uint8 else 0
        return (data.astype(np.float32) - zero) / 2.0 ** (8 * data.dtype.itemsize - 1)

    def exhausted(self) -> bool:
        return not any(packet.size for packet in self._container.demux(self._stream))

    def close(self) -> None:
        self._container.close()
