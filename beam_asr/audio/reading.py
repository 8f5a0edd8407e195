"""Audio files of any kind, anywhere, to mono float32 samples at one rate.

    path --storage--> bytes --libsndfile or FFmpeg--> blocks --mix, resample--> samples

The content of a file, never its name, chooses the decoder. libsndfile comes first: it is exact on
every seek and light. FFmpeg (through PyAV) gets what libsndfile does not know. The one exception
is G.722, which has no header at all and is known by its `.g722` extension alone.

Only a block of decoded audio is held beside the result, however much a header claims, so memory
grows with the samples a file really holds, up to a limit. Of FFmpeg, which knows hundreds of
formats, only those that recordings come in are let in, and it opens nothing but the bytes it is
given. All functions may be called from many threads at once.
"""

import ctypes
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from itertools import chain
from typing import Any, Protocol

import av
import av.codec.codec
import av.container.core
import av.error
import numpy as np
import soundfile
import soxr

from beam_asr.audio.limits import AudioChecks
from beam_asr.audio.source import Source, open_bytes, open_content, shown
from beam_asr.audio_errors import (
    AudioAccessError,
    AudioError,
    AudioMemoryError,
    AudioNotFoundError,
    AudioTimeoutError,
    ChannelError,
    CorruptAudioError,
    EmptyAudioError,
    NotAudioError,
    OffsetBeyondEndError,
    SilentAudioError,
    TooLongAudioError,
    TruncatedAudioError,
    WrongExtensionError,
    ZeroLengthAudioError,
)
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import extension, is_audio

__all__ = [
    "LONGEST_SECONDS",
    "AudioAccessError",
    "AudioError",
    "AudioMemoryError",
    "AudioNotFoundError",
    "AudioTimeoutError",
    "ChannelError",
    "CorruptAudioError",
    "EmptyAudioError",
    "NotAudioError",
    "OffsetBeyondEndError",
    "SilentAudioError",
    "TooLongAudioError",
    "TruncatedAudioError",
    "WrongExtensionError",
    "ZeroLengthAudioError",
    "can_seek",
    "probe_duration",
    "read_audio",
    "stream_audio",
]

LONGEST_SECONDS = 12 * 3600  # of one clip: 2.8 GB at 16 kHz

# Damaged clips are reported as errors with the file's name; FFmpeg's own lines lack it.
av.logging.set_level(None)

_BLOCK_SAMPLES = 2**18  # 1 MiB of float32, over all channels
_HEADER_BYTES = 2**16  # fetched first of a file of which a range is read
_SAMPLE_RATES_HZ = range(1_000, 1_000_001)
_MOST_CHANNELS = 1024  # libsndfile's own limit
_MOST_CHUNKS = 20_000  # of a WAV or AIFF before its samples
_LOUDEST = 2.0**32  # full scale is 1; some write 32-bit integers as floats
_OVERRUN_S = 0.5  # how far a manifest's rounded duration may run past the end of its file
_PREROLL_S = 0.5  # decoded before a seek's target and dropped: Opus needs 80 ms, AMR more
_MANY_PLANES = 8  # from which PyAV looks for the end of their list beyond it
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
    most_seconds: float = LONGEST_SECONDS,
    silence_allowed: bool = False,
    checks: AudioChecks | None = None,
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
      most_seconds: the most audio to read; a clip or range that holds more is refused as soon as
        that is known, from its header or while it is decoded.
      silence_allowed: whether all samples may be exactly zero.
      checks: what the file's own rate and channels must be.

    Returns:
      float32 array of shape (samples,), full scale ±1; not clipped, so float files may exceed it.

    Raises:
      AudioError: the clip cannot be read; see `beam_asr.audio_errors` for the subclasses.
      ValueError: sample_rate, offset or duration is out of its range.
      Exception: whatever the storage system raises when it is not the clip's fault.
    """
    samples, heard = _Samples(), False
    for block in stream_audio(
        path,
        sample_rate=sample_rate,
        offset=offset,
        duration=duration,
        channel=channel,
        storage=storage,
        deadline=deadline,
        content=content,
        most_seconds=most_seconds,
        checks=checks,
    ):
        heard = heard or bool(block.any())
        samples.add(block)
    name, count = shown(path), len(samples.array)
    if not count:
        raise ZeroLengthAudioError(
            f"{name}: its samples from {offset:.2f} s on make none at {sample_rate} Hz. Drop the "
            "row."
        )
    if not (heard or silence_allowed):
        raise SilentAudioError(
            f"{name}: all {count} samples from {offset:.2f} s on are exactly zero. No microphone "
            "gives that: the recording failed, or the channels cancel each other. Drop the row, or "
            "choose a channel."
        )
    return samples.array


def stream_audio(
    path: str,
    *,
    sample_rate: int,
    offset: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    storage: Storage | None = None,
    deadline: float | None = None,
    content: bytes | None = None,
    most_seconds: float = math.inf,
    checks: AudioChecks | None = None,
) -> Iterator[np.ndarray]:
    """As `read_audio`, block by block: only a block is held. Silence is not refused.

    What is wrong with a clip may show only after some of its blocks.

    Yields:
      float32 arrays of shape (samples,), some of which may be empty.
    """
    _check_request(sample_rate, offset, duration)
    opened: AbstractContextManager[Source]
    if content is not None:
        opened = open_content(path, content, deadline)
    else:
        opened = open_bytes(path, storage, deadline, _HEADER_BYTES if offset else None)
    with opened as source, _open_decoder(source) as decoder:
        if checks is not None:
            checks.check_file(source.shown, decoder.rate, decoder.channels)
        if channel is not None and not 0 <= channel < decoder.channels:
            raise ChannelError(
                f"{source.shown}: has no channel {channel}; it has {decoder.channels}, counted "
                "from 0."
            )
        start = _to_frames(offset, decoder.rate)
        count = None if duration is None else _to_frames(duration, decoder.rate)
        most = math.inf if math.isinf(most_seconds) else math.floor(most_seconds * decoder.rate)
        yield from _stream_range(source, decoder, start, count, channel, sample_rate, most)


def probe_duration(path: str, *, storage: Storage | None = None) -> float | None:
    """Length of a clip in seconds as its header states it; None where the header does not say.

    Raises:
      AudioError: as `read_audio`, as far as the header shows it.
    """
    with open_bytes(path, storage) as source, _open_decoder(source) as decoder:
        frames = decoder.stated_frames
        return None if frames is None else frames / decoder.rate


def can_seek(path: str, *, storage: Storage | None = None, content: bytes | None = None) -> bool:
    """Whether a range of a file is read without all that is before it.

    Raises:
      AudioError: as `read_audio`, as far as the header shows it.
    """
    opened: AbstractContextManager[Source]
    if content is not None:
        opened = open_content(path, content)
    else:
        opened = open_bytes(path, storage, first_block=_HEADER_BYTES)
    with opened as source, _open_decoder(source) as decoder:
        return decoder.can_seek


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


def _stream_range(
    source: Source,
    decoder: "_Decoder",
    start: int,
    count: int | None,
    channel: int | None,
    sample_rate: int,
    most: float,
) -> Iterator[np.ndarray]:
    """Mixes and resamples `count` frames from `start` on, block by block; `most` is the limit."""
    _check_length(source, decoder, start, count, most)
    resample = _resampler(decoder.rate, sample_rate)
    frames = 0
    try:
        for block in decoder.blocks(start, count):
            source.check_time()
            mono = _mixed(block, channel)
            if not -_LOUDEST <= mono.min() <= mono.max() <= _LOUDEST:  # nor is NaN
                raise CorruptAudioError(
                    f"{source.shown}: holds NaN, infinite or absurdly large samples, between "
                    f"{(start + frames) / decoder.rate:.2f} s and "
                    f"{(start + frames + len(block)) / decoder.rate:.2f} s. Write it again."
                )
            frames += len(block)
            if frames > most:
                raise _too_long(source, decoder, frames, most)
            yield resample(np.ascontiguousarray(mono), False)
        yield resample(np.empty(0, np.float32), True)
    except (soundfile.LibsndfileError, av.error.FFmpegError) as error:
        raise _decoding_failed(source, decoder, start + frames, error) from error
    _check_complete(source, decoder, start, count, frames)


def _mixed(block: np.ndarray, channel: int | None) -> np.ndarray:
    """One channel, or the average of all; infinite where that is too large."""
    if channel is not None or block.shape[1] == 1:
        return block[:, channel or 0]
    with np.errstate(all="ignore"):
        return block.mean(axis=1)


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
            f"{source.shown}: breaks off {where}, at the end of its {source.size} bytes "
            f"({_reason(error)}). Copy the file again from its origin."
        )
    return CorruptAudioError(
        f"{source.shown}: cannot be decoded {where} ({_reason(error)}). "
        "Copy the file again from its origin."
    )


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.removeprefix("Error : ").rstrip(".")


def _check_complete(
    source: Source, decoder: "_Decoder", start: int, count: int | None, frames: int
) -> None:
    """Raises if the `frames` that came are fewer than the header or the row promised."""
    rate, stated = decoder.rate, decoder.stated_frames
    end = (start + frames) / rate
    if stated is not None:
        promised = max(0, stated - start) if count is None else min(count, stated - start)
        if frames < promised - decoder.length_slack_s * rate:
            raise TruncatedAudioError(
                f"{source.shown}: the header promises {stated / rate:.2f} s of samples but from "
                f"{start / rate:.2f} s on only {frames / rate:.2f} s could be read. "
                "Copy the file again from its origin."
            )
    if frames == 0 and start == 0:
        raise _zero_length(source)
    if frames == 0:
        length = "" if stated is None else f" of {stated / rate:.2f} s"
        raise OffsetBeyondEndError(
            f"{source.shown}: the offset {start / rate:.2f} s is not before its end{length}. "
            "Correct the row's offset."
        )
    if count is not None and count - frames > _OVERRUN_S * rate:
        raise TruncatedAudioError(
            f"{source.shown}: ends at {end:.2f} s but the row asks for audio up to "
            f"{(start + count) / rate:.2f} s. Correct the row's duration or copy the file again."
        )


def _zero_length(source: Source) -> ZeroLengthAudioError:
    return ZeroLengthAudioError(
        f"{source.shown}: the header is valid but no samples follow. Drop the row."
    )


def _check_length(
    source: Source, decoder: "_Decoder", start: int, count: int | None, most: float
) -> None:
    """Raises if the header states that there is more to read than `most` frames."""
    if decoder.stated_frames is None:
        return
    stated = decoder.stated_frames - start
    stated = stated if count is None else min(count, stated)
    if stated > most:
        raise _too_long(source, decoder, stated, most)


def _too_long(source: Source, decoder: "_Decoder", frames: int, most: float) -> TooLongAudioError:
    seconds, most_seconds = frames / decoder.rate, most / decoder.rate
    return TooLongAudioError(
        f"{source.shown}: holds at least {seconds:.0f} s ({seconds / 3600:.1f} h) of audio to "
        f"read, and one clip may hold {most_seconds:.0f} s ({most_seconds / 3600:.1f} h) at most. "
        "Leave --segmentation=none out, or choose parts of it by offset and duration."
    )


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
_REST_BYTES, _REST_FRAMES = 8192, 4  # looked through for frames after the last; more than padding
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


def _foreign_error(source: Source, kind: str) -> NotAudioError:
    if is_audio(source.path):
        return WrongExtensionError(
            f"{source.shown}: is {kind} although it is named {extension(source.path)}. "
            "Put the recording in its place or drop the row."
        )
    return NotAudioError(f"{source.shown}: is {kind}. Correct the path in the manifest.")


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
        raise _zero_length(source)
    # Pipes cannot go back to fill in the size, and leave 0 or a number near 2**31 or 2**32; some
    # writers count the header (44 bytes or a little more) among the samples.
    placeholder = size == 0 or 0x7F000000 <= size < 2**31 or 0xFFFFF000 <= size < 2**32
    held = max(0, source.size - start)
    if not placeholder and size > held + 64:
        raise TruncatedAudioError(
            f"{source.shown}: the header promises {size} bytes of samples but the file holds "
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
    for _ in range(_MOST_CHUNKS):
        header = source.peek(position, 8)
        if len(header) < 8:
            return None
        tag, size = struct.unpack(order + "4sI", header)
        if tag in (b"data", b"SSND"):
            in_ds64 = size == 0xFFFFFFFF and size_64 is not None
            return position + 8, size_64 if in_ds64 and size_64 is not None else size
        if tag == b"ds64" and len(sizes := source.peek(position + 8, 16)) == 16:
            size_64 = struct.unpack("<QQ", sizes)[1]
        position += 8 + size + size % 2
    raise CorruptAudioError(
        f"{source.shown}: the header has more than {_MOST_CHUNKS} chunks before its samples. "
        "Write it again."
    )


_OGG_PAGE_FRAMES = 2**18  # in most of a page: 255 packets of at most 1024
_OGG_BEGINS = 2  # flag of a stream's first page


def _check_last_page(source: Source, head: bytes) -> None:
    """Raises if an Ogg file ends in the middle of a page, or of another stream than it begins with.

    libsndfile just stops, at the end of the first stream if several are chained. Format: RFC 3533,
    section 6. A live recording without an end-of-stream mark passes.
    """
    if not head.startswith(b"OggS"):
        return
    tail = source.peek(max(0, source.size - 65_307), 65_307)  # the largest page
    page = tail[tail.rfind(b"OggS") :]
    table = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(table) < page[26] or len(page) < 27 + len(table) + sum(table):
        raise TruncatedAudioError(
            f"{source.shown}: its {source.size} bytes end in the middle of an Ogg page. "
            "Copy the file again from its origin."
        )
    second = head[27 + head[26] + sum(head[27 : 27 + head[26]]) :]
    several_at_once = len(second) > 5 and second[5] & _OGG_BEGINS
    if page[14:18] != head[14:18] and not several_at_once:
        raise CorruptAudioError(
            f"{source.shown}: is a chain of Ogg streams, of which only the first would be heard. "
            "Convert it, for example to FLAC."
        )


# Decoders


class _Decoder(Protocol):
    """A file open for decoding."""

    rate: int  # Hz
    channels: int
    stated_frames: int | None  # what the header promises
    can_seek: bool  # without reading all that is before
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
        raise _foreign_error(source, kind)
    _check_chunk_sizes(source, head)
    _check_last_page(source, head)
    decoder = _find_decoder(source, head)
    try:
        if decoder.rate not in _SAMPLE_RATES_HZ or not 1 <= decoder.channels <= _MOST_CHANNELS:
            raise CorruptAudioError(
                f"{source.shown}: the header claims {decoder.channels} channels at {decoder.rate} "
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
                f"{source.shown}: {source.size} bytes that no audio format explains; they begin "
                f"with {head[:16]!r}. Put the recording in its place or drop the row."
            ) from error
        if empty:
            raise _zero_length(source) from error
        if isinstance(error, AudioError):
            raise
        raise CorruptAudioError(
            f"{source.shown}: the header cannot be read, or the file is cut short (libsndfile: "
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
        # An MP3's frame count may include encoder padding; to be exact to the sample, all frames
        # before a place are read.
        self.can_seek = self._file.format != "MP3"
        self.length_slack_s = 0.0 if self.can_seek else _OVERRUN_S

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        end = _UNKNOWN_LENGTH if self.stated_frames is None else self.stated_frames
        left = end - start if count is None else min(count, end - start)
        if start and left > 0 and not self._go_to(start, end):
            return
        while left > 0:
            size = min(left, max(1, _BLOCK_SAMPLES // self.channels))
            block = self._file.read(size, dtype="float32", always_2d=True)
            if not len(block):
                break
            left -= len(block)
            start += len(block)
            yield block
        if self._file.format == "MP3" and start >= end:
            self._check_rest(end)

    def _go_to(self, start: int, end: int) -> bool:
        """Goes to a frame before the end; says whether there is one."""
        if self._file.format != "OGG":
            self._file.seek(start)
            return True
        # Of an Ogg whose decoder could not be set up, a seek would crash where a read is empty.
        if not len(self._file.read(1)):
            return False
        # A seek into the last page may end elsewhere, and so may one that is not from the start.
        self._file.seek(0)
        sought = max(0, min(start - round(_PREROLL_S * self.rate), end - _OGG_PAGE_FRAMES))
        self._file.seek(sought)
        while sought < start and (dropped := len(self._file.read(min(start - sought, 2**16)))):
            sought += dropped
        return sought == start

    def _check_rest(self, end: int) -> None:
        """Raises if an MP3 goes on where libsndfile takes it to end.

        The length is its first frame's word, or is reckoned from the bit rate of that.
        """
        rest = self._source.read_on(_REST_BYTES)
        if max(map(rest.count, _MPEG_AUDIO)) >= _REST_FRAMES:
            raise CorruptAudioError(
                f"{self._source.shown}: goes on after the {end / self.rate:.2f} s "
                "that it states, as where files were joined, or no header was written for a "
                "variable bit rate. Convert it, for example to FLAC."
            )

    def exhausted(self) -> bool:
        return self._source.exhausted

    def close(self) -> None:
        self._file.close()


# The containers that recordings come in. Among the rest are playlists, which name other files,
# scripts that make sound without end, subtitles, and formats that no recorder has written in years.
_FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2 matroska,webm asf avi flv mpegts mpeg ogg rm dv mxf nut nsv wtv "
    "wav w64 aiff au caf flac mp3 aac loas ac3 eac3 dts dtshd truehd mlp amr amrnb amrwb ape wv "
    "tta tak mpc mpc8 shn dsf iff oma voc aa act dss qcp sbc codec2 g722 g729 g723_1 gsm xwma "
    "ircam nistsphere sox"
)


# Those with an index, or whose blocks have times by which a place is found.
_FFMPEG_SEEKABLE = frozenset("mov matroska asf avi mpegts ogg wav w64 aiff caf flac".split())


def _audio_decoders() -> Iterator[str]:
    for name in sorted(av.codecs_available):
        with suppress(av.codec.codec.UnknownCodecError):  # some only encode
            if av.Codec(name, "r").type == "audio":
                yield name


_FFMPEG_OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": _FFMPEG_FORMATS.replace(" ", ","),
    # Else a picture or a video would be decoded too, to see what it is.
    "codec_whitelist": ",".join(_audio_decoders()),
    "max_streams": "64",
}
# FFmpeg makes tables as long as a header claims, up to 2 GB each. Twelve hours of AAC need 52 MB.
_FFMPEG_LARGEST_BYTES = 2**26
ctypes.CDLL(av.container.core.__file__).av_max_alloc(ctypes.c_size_t(_FFMPEG_LARGEST_BYTES))


class _TableGuard:
    """A source for FFmpeg that fails once the tables of an MP4 state impossibly many samples.

    FFmpeg keeps 36 bytes for each sample that an MP4 states, and boxes of 20 bytes can state
    millions: `stsz` where all samples have one size, `trun` where it tells nothing about any of
    them (ISO/IEC 14496-12, 8.7.3.2 and 8.8.8). A sample has a byte at least. Boxes are looked for
    in all that FFmpeg reads, since it takes them wherever they stand; that samples look like more
    than one of them is as good as impossible.
    """

    _MOST_OF_A_BOX = 2**21  # beyond this the table of a track is above _FFMPEG_LARGEST_BYTES
    _MOST = 2 * _MOST_OF_A_BOX
    _FIELDS_BYTES = 16

    def __init__(self, source: Source) -> None:
        self._source = source
        self._end = 0
        self._tail = b""
        self._samples = 0

    def read(self, size: int) -> bytes:
        start = self._source.tell()
        data = self._source.read(size)
        if start != self._end:
            self._tail = b""
        if start < self._end:
            self._samples = 0
        self._check(self._tail + data)
        self._end = start + len(data)
        self._tail = (self._tail + data)[1 - self._FIELDS_BYTES :]
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def _check(self, seen: bytes) -> None:
        for tag in (b"stsz", b"trun"):
            position = seen.find(tag)
            while 0 <= position <= len(seen) - self._FIELDS_BYTES:
                first, second, third = struct.unpack_from(">III", seen, position + 4)
                if tag == b"stsz" and second:
                    self._add(third)
                elif tag == b"trun" and not first & 0xF00:
                    self._add(second)
                position = seen.find(tag, position + 4)

    def _add(self, samples: int) -> None:
        self._samples += min(samples, self._MOST_OF_A_BOX)
        if self._samples > max(self._MOST, self._source.size):
            raise CorruptAudioError(
                f"{self._source.shown}: its tables state more samples than its "
                f"{self._source.size} bytes can hold. Copy the file again from its origin."
            )


class _FFmpegDecoder:
    """What FFmpeg reads: M4A, MP4, WebM, AMR, WMA, raw AAC, G.722, video containers, ..."""

    length_slack_s = _OVERRUN_S  # containers count the codec's padding in or out
    can_seek: bool

    def __init__(self, source: Source, container_format: str | None) -> None:
        self._shown = source.shown
        self._packer: av.AudioResampler | None = None
        self._container = av.open(
            _TableGuard(source),
            mode="r",
            format=container_format,
            metadata_errors="ignore",
            options=_FFMPEG_OPTIONS,
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
            raise _foreign_error(source, f"a video without an audio stream ({kind})")
        if stream is None:
            raise _foreign_error(source, f"a file without an audio stream ({kind})")
        if stream.codec_context is None:
            raise CorruptAudioError(
                f"{source.shown}: no decoder knows the codec of this {kind} file. "
                "Convert it, for example to FLAC."
            )
        self._stream = stream
        first = next(self._decoded(), None)
        if first is None:
            raise _zero_length(source)
        # A header states half the rate of HE-AAC; its frames tell the truth.
        self._first, self.rate, self.channels = first, first.sample_rate, first.layout.nb_channels
        self.stated_frames = self._stated_frames()
        kinds = self._container.format.name.split(",")
        self.can_seek = not _FFMPEG_SEEKABLE.isdisjoint(kinds)

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
        try:
            yield from self._container.decode(self._stream)
        except IndexError as error:  # of a stream that PyAV did not see at the start
            raise CorruptAudioError(
                f"{self._shown}: another stream begins in the middle. Extract its audio."
            ) from error

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
        except (av.error.FFmpegError, OverflowError):
            pass  # no index, or one that points nowhere: below is slow and sure
        self._seek(self._first.pts)
        return self._decoded(), 0

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream, backward=True)

    def _to_block(self, frame: av.AudioFrame) -> np.ndarray:
        """float32 (frames, channels), full scale ±1, from any of FFmpeg's sample formats."""
        if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
            raise CorruptAudioError(
                f"{self._shown}: changes from {self.channels} channels at {self.rate} Hz to "
                f"{frame.layout.nb_channels} at {frame.sample_rate} Hz. Split or convert it."
            )
        if frame.format.is_planar and self.channels >= _MANY_PLANES:
            frame = self._packed(frame)
        try:
            data = frame.to_ndarray()
        except ValueError as error:
            raise CorruptAudioError(
                f"{self._shown}: holds samples that are not supported ({frame.format.name}). "
                "Convert it, for example to FLAC."
            ) from error
        data = data.T if frame.format.is_planar else data.reshape(-1, self.channels)
        if data.dtype.kind == "f":
            return data.astype(np.float32)
        zero = 128 if data.dtype == np.uint8 else 0
        return (data.astype(np.float32) - zero) / 2.0 ** (8 * data.dtype.itemsize - 1)

    def _packed(self, frame: av.AudioFrame) -> av.AudioFrame:
        """The same samples in one plane."""
        if self._packer is None:
            self._packer = av.AudioResampler(format="flt", layout=frame.layout, rate=self.rate)
        (packed,) = self._packer.resample(frame)
        return packed

    def exhausted(self) -> bool:
        try:
            return not any(packet.size for packet in self._container.demux(self._stream))
        except (av.error.FFmpegError, IndexError):
            return False

    def close(self) -> None:
        self._container.close()
