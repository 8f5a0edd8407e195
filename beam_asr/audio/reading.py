"""Reads audio files of any format, on any storage, as mono float32 samples at one rate.

    path --storage--> bytes --libsndfile or FFmpeg--> blocks --mix, resample--> samples

The content of a file, never its name, chooses the decoder. libsndfile comes first: it is exact on
every seek and light. FFmpeg (through PyAV) reads what libsndfile does not know. The one exception
is G.722, which has no header at all and is known by its `.g722` extension alone.

Only a block of decoded audio is in memory beside the result, however much a header claims, so
memory grows with the samples a file really holds, or leaves out, up to a limit. FFmpeg knows
hundreds of formats; only those of recordings are allowed, and it opens nothing but the bytes that
are passed to it.
All functions may be called from many threads at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import av
import av.codec.codec
import av.container.core
import av.error
import numpy as np
import soundfile
import soxr

from beam_asr.audio import mpeg_audio
from beam_asr.audio.cancellation import CancellationDetector
from beam_asr.audio.decoder import (
    MAX_CHANNELS,
    OVERRUN_S,
    SAMPLE_RATES_HZ,
    Decoder,
    decoding_reason,
)
from beam_asr.audio.ffmpeg_decoder import FFmpegDecoder
from beam_asr.audio.header_watch import HeaderWatch
from beam_asr.audio.joined_files import check_joined
from beam_asr.audio.limits import check_file
from beam_asr.audio.mpeg_audio import MpegStream
from beam_asr.audio.ogg_chains import check_chain
from beam_asr.audio.ogg_decoder import OggDecoder
from beam_asr.audio.signatures import (
    check_chunk_sizes,
    check_header,
    check_last_page,
    fill_in_size,
    foreign_error,
    has_several_streams,
    zero_length_error,
)
from beam_asr.audio.sndfile_decoder import SndfileDecoder
from beam_asr.audio.source import Source, open_bytes, open_content, shown
from beam_asr.audio.tags import leave_out_tags
from beam_asr.errors import (
    AudioError,
    CancelledChannelsError,
    ChannelError,
    CorruptAudioError,
    NotAudioError,
    OffsetBeyondEndError,
    ReplacedError,
    SilentAudioError,
    TooLongAudioError,
    TruncatedAudioError,
    ZeroLengthAudioError,
)
from beam_asr.records.channels import EACH
from beam_asr.settings import AudioLimits
from beam_asr.storage.file_kinds import AUDIO_SIGNATURES, MPEG_AUDIO, foreign_kind
from beam_asr.storage.retry import is_transient_locally, retry
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import extension, is_local

Result = TypeVar("Result")
MAX_SECONDS = 12 * 3600  # of one clip: 2.8 GB at 16 kHz
_HEADER_BYTES = 2**16  # fetched first if a range of a file is read
_NO_SAMPLES = "no samples"
_MAX_AMPLITUDE = 2.0**32  # full scale is 1; some write 32-bit integers as floats


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioRequest:
    """States which samples of a file to read, and what the file must be like.

    Attributes:
        sample_rate: of the result, in Hz.
        offset: where to start, in seconds from the file's start, as players count.
        duration: how much to read, in seconds; None reads to the end.
        channel: the channel to take, from 0; None averages all channels, and `EACH` keeps each of
            several, as samples of shape (samples, channels).
        cancellation_allowed: whether channels may cancel each other in their average.
        max_seconds: the maximum of audio to read; a longer clip or range is refused as soon as that
            is known, from its header or while it is decoded.
        silence_allowed: whether all samples may be exactly zero.
        limits: requirements on the file's sample rate and channels.
        version: that the file must have (`FileHeader`); empty is any.

    Raises:
        ValueError: sample_rate, offset or duration is out of its range.
    """

    sample_rate: int
    offset: float = 0.0
    duration: float | None = None
    channel: int | str | None = None
    cancellation_allowed: bool = False
    max_seconds: float = MAX_SECONDS
    silence_allowed: bool = False
    limits: AudioLimits | None = None
    version: str = ""

    def __post_init__(self) -> None:
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate={self.sample_rate} must be a positive number of Hz.")
        if not (math.isfinite(self.offset) and self.offset >= 0):
            raise ValueError(f"offset={self.offset} must be a finite number of seconds, 0 or more.")
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise ValueError(
                f"duration={self.duration} must be a finite number of seconds above 0."
            )


class FileHeader(NamedTuple):
    """Holds what a file's header says.

    Attributes:
        seconds: of the whole file; None if it states none.
        channels: their number.
        version: of the file, which another file in its place does not have; empty if unknown.
    """

    seconds: float | None
    channels: int
    version: str = ""


UNKNOWN_HEADER = FileHeader(None, 1)


def read_audio(
    path: str,
    request: AudioRequest,
    *,
    storage: Storage | None = None,
    deadline: float | None = None,
    content: bytes | None = None,
    on_header: Callable[[FileHeader], None] | None = None,
) -> np.ndarray:
    """Reads a clip, or a range of it, as mono samples.

    The range starts at sample round(offset * rate) and holds round(duration * rate) samples,
    halves up, in the file's sample rate; it is then resampled by itself (soxr HQ). This is
    lhotse's rounding, and so that of NeMo's `transcribe()`. A range of a lossless file equals the
    slice of the whole; a range of Matroska, WebM or WMA, which count time in milliseconds, may
    start up to 1 ms off. Time is the container's: where it has a hole, samples are zero (`clock`).
    A `duration` that runs at most 0.5 s past the end is cut to the end, as manifests round.
    A file that is replaced while it is read is read again from its start, once.

    Args:
      path: local path or any URI that fsspec opens: gs://, s3://, http://, memory://, ...
      storage: how storages are opened, and which may be.
      deadline: time of `time.monotonic()` after which reading fails.
      content: the file's bytes, if they are in memory already; `path` then only names it.
      on_header: is called with what the file's header says, before anything is decoded.

    Returns:
      float32 array of shape (samples,), full scale ±1; not clipped, so float files may exceed it.
      With `EACH`, of several channels, it has the shape (samples, channels).

    Raises:
      CancelledChannelsError: channels cancel each other in their average.
      AudioError: the clip cannot be read; see `beam_asr.errors` for the subclasses.
      ReplacedError: the file was replaced twice, or is not of the requested version.
      Exception: whatever the storage system raises when it is not the clip's fault.
    """
    stream = partial(
        stream_audio,
        path,
        request,
        storage=storage,
        deadline=deadline,
        content=content,
        on_header=on_header,
    )
    return read_from_start(path, lambda: _read(path, request, stream()))


def read_from_start(path: str, read: Callable[[], Result]) -> Result:
    """Reads a file by a function, and again from its start if that may help.

    A file that was replaced meanwhile is read once more; a local one whose file system asks for it,
    as NFS does by ESTALE, after a wait and a few times.

    Raises:
        ReplacedError: it was replaced again.
        Exception: of the last read.
    """
    if is_local(path):
        return retry(lambda: _read_one_version(read), may_retry=is_transient_locally)
    return _read_one_version(read)


def _read_one_version(read: Callable[[], Result]) -> Result:
    try:
        return read()
    except ReplacedError:
        try:
            return read()
        except ReplacedError as error:
            error.attempts = 2  # type: ignore[attr-defined]  # as `retry` counts them
            raise


def _read(path: str, request: AudioRequest, blocks: Iterator[np.ndarray]) -> np.ndarray:
    samples, has_sound = _Samples(), False
    for block in blocks:
        has_sound = has_sound or bool(block.any())
        samples.add(block)
    name, count = shown(path), len(samples.array)
    if not count:
        raise ZeroLengthAudioError(
            f"{name}: its samples from {request.offset:.2f} s on make none at "
            f"{request.sample_rate} Hz. Drop the row."
        )
    if not (has_sound or request.silence_allowed):
        raise SilentAudioError.of(name, f"{count} samples", request.offset)
    return samples.array


def stream_audio(
    path: str,
    request: AudioRequest,
    *,
    storage: Storage | None = None,
    deadline: float | None = None,
    content: bytes | None = None,
    on_header: Callable[[FileHeader], None] | None = None,
) -> Iterator[np.ndarray]:
    """Reads as `read_audio`, with only a block in memory at a time. Silence is not refused.

    An error may come only after some of a clip's blocks; that channels cancel each other, after the
    last one.

    Yields:
      float32 arrays of the shape that `read_audio` returns, some of which may be empty.
    """
    opened: AbstractContextManager[Source]
    if content is not None:
        opened = open_content(path, content, deadline)
    else:
        first_block = _HEADER_BYTES if request.offset else None
        opened = open_bytes(path, storage, deadline, first_block, request.version)
    whole = not request.offset and request.duration is None
    with opened as source, _open_decoder(source, whole) as decoder:
        if request.limits is not None:
            check_file(request.limits, source.shown, decoder.rate, decoder.channels)
        channel = request.channel
        if isinstance(channel, int) and not 0 <= channel < decoder.channels:
            raise ChannelError(
                f"{source.shown}: has no channel {channel}; it has {decoder.channels}, counted "
                "from 0. Correct the row's channel or the setting `channel`."
            )
        if on_header is not None:
            on_header(FileHeader(_stated_seconds(decoder), decoder.channels, source.version))
        yield from _stream_range(source, decoder, request)
        if whole and isinstance(source.watch, HeaderWatch):
            source.watch.read_rest()


def probe_duration(path: str, *, storage: Storage | None = None) -> float | None:
    """Returns the length of a clip in seconds as its header states it; None if it does not.

    Raises:
      AudioError: as `read_audio`, as far as the header shows it.
    """
    with open_bytes(path, storage) as source, _open_decoder(source) as decoder:
        return _stated_seconds(decoder)


def can_seek(path: str, *, storage: Storage | None = None, content: bytes | None = None) -> bool:
    """Returns whether a range of a file can be read without everything before it.

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


def is_replaced(path: str, version: str, *, storage: Storage | None = None) -> bool:
    """Returns whether a file is known to be no longer of a version; empty is any."""
    if not version:
        return False
    try:
        with open_bytes(path, storage, first_block=_HEADER_BYTES) as source:
            return source.version not in ("", version)
    except Exception:  # whoever reads the file meets it too
        return False


def _stated_seconds(decoder: Decoder) -> float | None:
    frames = decoder.stated_frames
    return None if frames is None else frames / decoder.rate


def _to_frames(seconds: float, rate: int) -> int:
    # round() first: 0.35 * 8000 * 1.0 and its like fall a hair below the half.
    return math.floor(round(seconds * rate, 8) + 0.5)


def _stream_range(source: Source, decoder: Decoder, request: AudioRequest) -> Iterator[np.ndarray]:
    """Mixes and resamples the frames of a request, block by block."""
    start = _to_frames(request.offset, decoder.rate)
    count = None if request.duration is None else _to_frames(request.duration, decoder.rate)
    limit = request.max_seconds
    max_frames = math.inf if math.isinf(limit) else math.floor(limit * decoder.rate)
    _check_length(source, decoder, start, count, max_frames)
    kept = decoder.channels if request.channel == EACH else 1
    resample = _resampler(decoder.rate, request.sample_rate, kept)
    detector = None
    if request.channel is None and decoder.channels > 1 and not request.cancellation_allowed:
        detector = CancellationDetector(decoder.rate)
    frames = 0
    try:
        for block in decoder.blocks(start, count):
            source.check_time()
            mono = _mixed(block, request.channel)
            if not -_MAX_AMPLITUDE <= mono.min() <= mono.max() <= _MAX_AMPLITUDE:  # nor is NaN
                raise CorruptAudioError(
                    f"{source.shown}: holds NaN, infinite or absurdly large samples, between "
                    f"{(start + frames) / decoder.rate:.2f} s and "
                    f"{(start + frames + len(block)) / decoder.rate:.2f} s. Write it again."
                )
            frames += len(block)
            if frames > max_frames:
                raise _too_long(source, decoder, frames, max_frames)
            if detector is not None:
                detector.add(block)
            yield resample(np.ascontiguousarray(mono), False)
        yield resample(np.empty(0 if kept == 1 else (0, kept), np.float32), True)
    except (soundfile.LibsndfileError, av.error.FFmpegError) as error:
        _check_cancellation(source, detector, start / decoder.rate)  # of what could be read
        raise _decoding_failed(source, decoder, start + frames, error) from error
    except CorruptAudioError:  # found by a decoder itself; the job may use the part before it
        _check_cancellation(source, detector, start / decoder.rate)
        raise
    _check_cancellation(source, detector, start / decoder.rate)
    _check_complete(source, decoder, start, count, frames)


def _mixed(block: np.ndarray, channel: int | str | None) -> np.ndarray:
    """Returns one channel, or the average of all, infinite where that is too large; or all."""
    if isinstance(channel, int) or block.shape[1] == 1:
        return block[:, channel if isinstance(channel, int) else 0]
    if channel == EACH:
        return block
    with np.errstate(all="ignore"):
        if block.shape[1] == 2:  # the same, several times as fast
            return (block[:, 0] + block[:, 1]) / 2
        return block.mean(axis=1)


def _check_cancellation(
    source: Source, detector: CancellationDetector | None, offset: float
) -> None:
    """Raises if the channels of what was read, from an offset in seconds on, cancel each other."""
    found = None if detector is None else detector.finish()
    if found is None:
        return
    remedy = "Choose a channel, or take each by `channel=each`."
    if found.channel is None:
        remedy = f"No channel alone has all of the sound. {remedy}"
    error = CancelledChannelsError(
        f"{source.shown}: its channels cancel each other in their average, first at "
        f"{offset + found.start:.1f} s and last until {offset + found.end:.1f} s. {remedy}"
    )
    error.channel = found.channel
    raise error


class _Samples:
    """Collects float32 in place; joining blocks would hold a clip twice."""

    def __init__(self) -> None:
        self._first = np.empty(0, np.float32)
        self._all = bytearray()

    def add(self, block: np.ndarray) -> None:
        """Appends float32 of shape (samples,) or (samples, channels)."""
        if not len(self._first):
            self._first = block  # the only one of most clips, which need no copy
        elif len(block):
            self._all = self._all or bytearray(self._first.tobytes())
            self._all += block.tobytes()

    @property
    def array(self) -> np.ndarray:
        """Returns float32 of the blocks' shape."""
        if not self._all:
            return self._first
        return np.frombuffer(self._all, dtype=np.float32).reshape(-1, *self._first.shape[1:])


def _resampler(rate: int, target: int, channels: int) -> Callable[[np.ndarray, bool], Any]:
    """Returns a function of a block, and of whether it is the last one."""
    if rate == target:
        return lambda block, _: block
    stream = soxr.ResampleStream(rate, target, channels, dtype="float32", quality="HQ")
    return stream.resample_chunk


def _decoding_failed(
    source: Source, decoder: Decoder, frame: int, error: Exception
) -> CorruptAudioError:
    """Returns the error of a failed decoder, by whether it had read to the end of the bytes."""
    where = f"somewhere after {frame / decoder.rate:.2f} s"
    if decoder.exhausted():
        return TruncatedAudioError(
            f"{source.shown}: breaks off {where}, at the end of its {source.size} bytes "
            f"({decoding_reason(error)}). Copy the file again from its origin."
        )
    return CorruptAudioError(
        f"{source.shown}: cannot be decoded {where} ({decoding_reason(error)}). "
        "Copy the file again from its origin."
    )


def _check_complete(
    source: Source, decoder: Decoder, start: int, count: int | None, frames: int
) -> None:
    """Raises if `frames` are fewer than the header or the row states."""
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
        raise zero_length_error(source)
    if frames == 0:
        length = "" if stated is None else f" of {stated / rate:.2f} s"
        raise OffsetBeyondEndError(
            f"{source.shown}: the offset {start / rate:.2f} s is not before its end{length}. "
            "Correct the row's offset."
        )
    if count is not None and count - frames > OVERRUN_S * rate:
        raise TruncatedAudioError(
            f"{source.shown}: ends at {end:.2f} s but the row asks for audio up to "
            f"{(start + count) / rate:.2f} s. Correct the row's duration or copy the file again."
        )


def _check_length(
    source: Source, decoder: Decoder, start: int, count: int | None, max_frames: float
) -> None:
    """Raises if the header states that there is more to read than `max_frames`."""
    if decoder.stated_frames is None:
        return
    stated = decoder.stated_frames - start
    stated = stated if count is None else min(count, stated)
    if stated > max_frames:
        raise _too_long(source, decoder, stated, max_frames)


def _too_long(source: Source, decoder: Decoder, frames: int, limit: float) -> TooLongAudioError:
    return TooLongAudioError.of_file(source.shown, frames / decoder.rate, limit / decoder.rate)


@contextmanager
def _open_decoder(source: Source, whole: bool = False) -> Iterator[Decoder]:
    """Opens a file with the first decoder that reads its format, and checks its header."""
    head = source.peek(0, 512)
    kind = foreign_kind(head)
    if kind is not None:
        raise foreign_error(source, kind)
    mpeg = mpeg_audio.find_stream(source, head)
    head = leave_out_tags(source, head, mpeg)
    chunk = check_chunk_sizes(source, head)
    if mpeg is None:
        check_joined(source, head, chunk)
    if chunk is not None:
        fill_in_size(source, chunk)
    check_last_page(source, head)
    check_chain(source, head, whole)
    decoder = _find_decoder(source, head, mpeg)
    try:
        if decoder.rate not in SAMPLE_RATES_HZ or not 1 <= decoder.channels <= MAX_CHANNELS:
            raise CorruptAudioError(
                f"{source.shown}: the header claims {decoder.channels} channels at {decoder.rate} "
                f"Hz; 1 to {MAX_CHANNELS} channels at {SAMPLE_RATES_HZ[0]} to "
                f"{SAMPLE_RATES_HZ[-1]} Hz are possible. Copy the file again from its origin."
            )
        yield decoder
    finally:
        decoder.close()


def _find_decoder(source: Source, head: bytes, mpeg: MpegStream | None) -> Decoder:
    """Opens a file with the first decoder that reads it.

    Args:
        head: the first bytes.
        mpeg: its first frame if it is MPEG audio.
    """
    known = any(head.startswith(signature, offset) for offset, signature in AUDIO_SIGNATURES)
    if not (known or mpeg):
        if extension(source.path) == ".g722":
            return FFmpegDecoder(source, "g722")
        check_header(source)
    opened = _open_with_sndfile(source, head, mpeg)
    if isinstance(opened, SndfileDecoder):
        return opened
    known = known or head.startswith(MPEG_AUDIO)
    source.seek(0)
    try:
        decoder = FFmpegDecoder(source, None)
        if mpeg is not None:
            decoder.stated_frames = mpeg.stated_frames
        return decoder
    except (av.error.FFmpegError, AudioError) as error:
        if not known:
            raise NotAudioError(
                f"{source.shown}: {source.size} bytes that no audio format explains; they begin "
                f"with {head[:16]!r}. Put the recording in its place or drop the row."
            ) from error
        if opened == _NO_SAMPLES:
            raise zero_length_error(source) from error
        if isinstance(error, AudioError):
            raise
        raise CorruptAudioError(
            f"{source.shown}: the header cannot be read, or the file is cut short (libsndfile: "
            f"{opened}; FFmpeg: {decoding_reason(error)}). Copy the file again from its origin."
        ) from error


def _open_with_sndfile(
    source: Source, head: bytes, mpeg: MpegStream | None
) -> SndfileDecoder | str:
    """Opens a file with libsndfile; returns the reason if FFmpeg is to open it.

    libsndfile takes all that begins as a frame of MPEG audio does for an MP3, and of an MP3 in
    which no Xing header states the length it reads no more than it guesses.
    """
    if mpeg is None and mpeg_audio.is_sync(head):
        return "no frames of MPEG audio"
    if mpeg is not None and not mpeg.has_xing:
        return "an MP3 without a Xing header"
    if has_several_streams(head):
        return "several streams at once"  # their clock starts with the first one
    try:
        decoder = (OggDecoder if head.startswith(b"OggS") else SndfileDecoder)(source)
    except soundfile.LibsndfileError as error:
        return decoding_reason(error)
    if decoder.stated_frames == 0:
        refusal = _NO_SAMPLES  # a WAV from a pipe is empty to libsndfile alone
    elif decoder.guesses_length(mpeg):
        refusal = "a length of MPEG audio that is a guess"
    else:
        return decoder
    decoder.close()
    return refusal
