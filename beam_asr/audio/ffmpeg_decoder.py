"""Decodes audio with FFmpeg, through PyAV."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

import av
import av.codec.codec
import av.container
import av.container.core
import av.error
import numpy as np

from beam_asr.audio import mpeg_audio
from beam_asr.audio.clock import Clock, Timed
from beam_asr.audio.decoder import BLOCK_SAMPLES, OVERRUN_S, PREROLL_S
from beam_asr.audio.signatures import foreign_error, zero_length_error
from beam_asr.audio.source import Source
from beam_asr.errors import (
    CorruptAudioError,
)

# Damaged clips are reported as errors with the file's name; FFmpeg's own lines lack it.
av.logging.set_level(None)
_MANY_PLANES = 8  # from which PyAV looks for the end of their list beyond it
# The containers that recordings come in. Among the rest are playlists, which name other files,
# scripts that make sound without end, subtitles, and formats that no recorder has written in years.
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2 matroska,webm asf avi flv mpegts mpeg ogg rm dv mxf nut nsv wtv "
    "wav w64 aiff au caf flac mp3 aac loas ac3 eac3 dts dtshd truehd mlp amr amrnb amrwb ape wv "
    "tta tak mpc mpc8 shn dsf iff oma voc aa act dss qcp sbc codec2 g722 g729 g723_1 gsm xwma "
    "ircam nistsphere sox"
)
# Formats with an index, or whose blocks have timestamps to seek by. Of the others, a transport
# stream may hold a time twice, where it was joined; and behind a hole of an Ogg, FFmpeg's
# timestamps after a seek differ from those without one, by a page.
_FFMPEG_SEEKABLE = frozenset("mov matroska asf avi caf flac".split())
# Those that count bytes, by which only samples of a whole number of bits are found: frames have a
# variable size, and FFmpeg takes blocks of ADPCM for samples of as many bits as one has on average.
_FFMPEG_CHUNKED = frozenset("wav w64 aiff".split())
_FFMPEG_BIT_ADPCM = frozenset("g722 g726 g726le".split())
_FFMPEG_MPEG_AUDIO = frozenset("mp1 mp1float mp2 mp2float mp3 mp3float".split())
# ADPCM of which each block begins with its state. That of the others is carried from the start on,
# and a decoder that begins elsewhere never finds it; G.722 and G.726 do, in half a second.
_FFMPEG_BLOCK_ADPCM = frozenset(
    "adpcm_ms adpcm_ima_wav adpcm_ima_qt adpcm_ima_dk3 adpcm_ima_dk4 adpcm_swf".split()
)
# Formats that state times. Of others, FFmpeg makes them up from the samples, or the bytes, before.
_FFMPEG_TIMED = frozenset("mov matroska asf avi flv mpegts mpeg ogg rm dv mxf nut nsv wtv".split())
_ENDLESS = 2**62  # frames
_SEEKS = 3  # for one place, each further back


def _audio_decoders() -> Iterator[str]:
    for name in sorted(av.codecs_available):
        with suppress(av.codec.codec.UnknownCodecError):  # some only encode
            if av.Codec(name, "r").type == "audio":
                yield name


_FFMPEG_OPTIONS = {
    "protocol_whitelist": "none",
    "format_whitelist": FFMPEG_FORMATS.replace(" ", ","),
    # Otherwise a picture or a video would be decoded too, to identify it.
    "codec_whitelist": ",".join(_audio_decoders()),
    "max_streams": "64",
}
# FFmpeg makes tables as long as a header claims, up to 2 GB each. Twelve hours of AAC need 52 MB.
_FFMPEG_MAX_BYTES = 2**26
ctypes.CDLL(av.container.core.__file__).av_max_alloc(ctypes.c_size_t(_FFMPEG_MAX_BYTES))


class _TableGuard:
    """A source for FFmpeg that fails once the tables of an MP4 state impossibly many samples.

    FFmpeg allocates 36 bytes for each sample that an MP4 states, and boxes of 20 bytes can state
    millions: `stsz` if all samples have one size, `trun` if it describes none of them
    (ISO/IEC 14496-12, 8.7.3.2 and 8.8.8). A sample has at least one byte. All that FFmpeg reads is
    searched for boxes, since it accepts them anywhere; it is practically impossible that samples
    look like more than one of them.
    """

    _MAX_BOX_SAMPLES = 2**21  # beyond this the table of a track is above _FFMPEG_MAX_BYTES
    _MAX_SAMPLES = 2 * _MAX_BOX_SAMPLES
    _FIELDS_BYTES = 16

    def __init__(self, source: Source) -> None:
        self._source = source
        self._end = 0
        self._tail = b""
        self._samples = 0

    def read(self, size: int) -> bytes:
        """Reads up to ``size`` bytes, and checks them.

        Raises:
            CorruptAudioError: the tables state more samples than the file can hold.
        """
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
        """Seeks in the source."""
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        """Returns the position in the source."""
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
        self._samples += min(samples, self._MAX_BOX_SAMPLES)
        if self._samples > max(self._MAX_SAMPLES, self._source.size):
            raise CorruptAudioError(
                f"{self._source.shown}: its tables state more samples than its "
                f"{self._source.size} bytes can hold. Copy the file again from its origin."
            )


class _Landing(NamedTuple):
    """Frames after a seek: those read so far, the rest, and how many samples too few the first are
    before the place that is sought."""

    before: list[tuple[int, av.AudioFrame]]
    rest: Iterator[tuple[int, av.AudioFrame]]
    missing: int


def _until_next(
    laid: Iterator[tuple[int, av.AudioFrame]],
) -> Iterator[tuple[int, av.AudioFrame, int]]:
    """Yields each frame with its place, and the number of its samples up to the next one's place.

    An error is raised after all frames before it.
    """
    failure: Exception | None = None
    following = next(laid, None)
    while following is not None:
        position, frame = following
        try:
            following = next(laid, None)
        except Exception as error:
            following, failure = None, error
        yield (
            position,
            frame,
            (frame.samples if following is None else min(frame.samples, following[0] - position)),
        )
    if failure is not None:
        raise failure


class FFmpegDecoder:
    """Decodes what FFmpeg reads: M4A, MP4, WebM, AMR, WMA, raw AAC, G.722, video containers, ..."""

    length_slack_s = OVERRUN_S  # containers count the codec's padding in or out
    can_seek: bool

    def __init__(self, source: Source, container_format: str | None) -> None:
        self._shown = source.shown
        self._packer: av.AudioResampler | None = None
        self._source = source
        self._format = container_format
        self._container = self._open()
        try:
            self._open_stream(source)
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> av.container.InputContainer:
        return av.open(
            _TableGuard(self._source),
            mode="r",
            format=self._format,
            metadata_errors="ignore",
            options=_FFMPEG_OPTIONS,
        )

    def _open_stream(self, source: Source) -> None:
        streams = self._container.streams
        # best() returns None if a header is impossible; then the first stream shows the reason.
        stream = streams.best("audio") or next(iter(streams.audio), None)
        kind = self._container.format.long_name
        if stream is None and streams.video:
            raise foreign_error(source, f"a video without an audio stream ({kind})")
        if stream is None:
            raise foreign_error(source, f"a file without an audio stream ({kind})")
        if stream.codec_context is None:
            raise CorruptAudioError(
                f"{source.shown}: no decoder knows the codec of this {kind} file. "
                "Convert it, for example to FLAC."
            )
        self._stream = stream
        first = self._first_frame()
        if first is None:
            raise zero_length_error(source)
        # A header states half the rate of HE-AAC; its frames have the right one.
        self._first, self.rate, self.channels = first, first.sample_rate, first.layout.nb_channels
        self._unit = float(stream.time_base * self.rate)  # a timestamp's, in samples
        kinds = self._container.format.name.split(",")
        self.can_seek = self._has_index(kinds)
        self._is_timed = not _FFMPEG_TIMED.isdisjoint(kinds)
        self._zero = self._start()
        self.stated_frames = self._stated_frames()

    def _first_frame(self) -> av.AudioFrame | None:
        try:
            return next(self._decoded(), None)
        except av.error.InvalidDataError as error:
            codec = self._stream.codec_context
            is_wav = not _FFMPEG_CHUNKED.isdisjoint(self._container.format.name.split(","))
            if not (is_wav and codec.name == "aac" and codec.extradata):
                raise
            raise CorruptAudioError(
                f"{self._shown}: holds frames of AAC one behind the other in a WAV, where nothing "
                "states how long each is. Encode it again from its origin, for example as M4A."
            ) from error

    def _has_index(self, kinds: list[str]) -> bool:
        if self._carries_state():
            return False
        if not _FFMPEG_CHUNKED.isdisjoint(kinds):
            name = self._stream.codec_context.name
            return name.startswith("pcm_") or name in _FFMPEG_BIT_ADPCM
        return not _FFMPEG_SEEKABLE.isdisjoint(kinds)

    def _carries_state(self) -> bool:
        name = self._stream.codec_context.name
        return name.startswith("adpcm_") and name not in _FFMPEG_BLOCK_ADPCM

    def _start(self) -> float:
        """Returns where players count from: the start of the first stream, sound or picture.

        In samples. An Ogg without a picture starts with its first sample, as libsndfile counts: the
        first packet of Vorbis, though it has a timestamp, has no samples.
        """
        stream, start = self._stream, self._container.start_time
        first = None if self._first.pts is None else self._first.pts * self._unit
        if start is None or not self._is_timed:
            return first or 0.0
        start *= self.rate / av.time_base
        if first is None:
            return start
        alone = self._container.format.name == "ogg" and (
            stream.start_time is None or stream.start_time * self._unit - start < 1
        )
        return first if alone else min(start, first)

    def _stated_frames(self) -> int | None:
        """Returns the frames up to the end of the sound that an MP4 or Matroska header states.

        For other formats FFmpeg guesses a duration from the bit rate, which is not reliable.
        """
        container, stream = self._container, self._stream
        if "mp4" in container.format.name and stream.duration:
            end = (stream.start_time or 0) + stream.duration
            return max(0, round(end * self._unit - self._zero))
        alone = len(container.streams) == 1  # Matroska states the longest stream's duration only
        if "matroska" in container.format.name and container.duration and alone:
            # Some count from the first timestamp, some from 0.
            end = container.duration * self.rate / av.time_base
            return max(0, round(end - max(0.0, self._zero)))
        return None

    def _decoded(self) -> Iterator[av.AudioFrame]:
        is_mpeg_audio = self._stream.codec_context.name in _FFMPEG_MPEG_AUDIO
        try:
            for packet in self._container.demux(self._stream):
                if not (is_mpeg_audio and packet.size and mpeg_audio.is_tag(bytes(packet))):
                    yield from packet.decode()
        except IndexError as error:  # of a stream that PyAV did not see at the start
            raise CorruptAudioError(
                f"{self._shown}: another stream begins in the middle. Extract its audio."
            ) from error

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        """Yields float32 blocks (frames, channels), up to `count` frames from frame `start` on.

        Frames are counted on the clock of the container, from its start. Where it has a hole the
        samples are zero; where frames overlap, the later one is used.
        """
        end = _ENDLESS if count is None else start + count
        reached = start  # what comes before is yielded, or not wanted
        for position, frame, samples in _until_next(self._laid(start)):
            if position > reached:
                yield from self._silence(min(position, end) - reached)
                reached = position
            block = self._to_block(frame)
            until = min(position + samples, end)
            if until > reached:
                yield block[reached - position : until - position]
                reached = until
            if reached >= end:
                return

    def _silence(self, frames: int) -> Iterator[np.ndarray]:
        """Yields blocks of zeros, one after the other, so that an hour of them needs no memory."""
        size = max(1, BLOCK_SAMPLES // self.channels)
        while frames > 0:
            yield np.zeros((min(frames, size), self.channels), np.float32)
            frames -= size

    def _laid(self, start: int) -> Iterator[tuple[int, av.AudioFrame]]:
        """Yields frames from sample `start` or earlier on, with the places where they start."""
        preroll = round(PREROLL_S * self.rate)
        lead, landing = start - preroll, None
        can_seek = self.can_seek and self._first.pts is not None
        frames: Iterator[av.AudioFrame] = chain([self._first], self._decoded())
        for _ in range(_SEEKS):
            if not can_seek or lead <= 0:
                landing = None
                break
            landing = self._land(lead, start, preroll)
            frames = self._from_start()
            if landing is None or landing.missing < preroll / 2:
                break
            # Behind a hole, decoders need what came before it.
            lead = min(lead, landing.before[0][0]) - landing.missing
        if landing is not None:
            return chain(landing.before, landing.rest)
        return self._clock().lay(self._timed(frames), 0.0)

    def _from_start(self) -> Iterator[av.AudioFrame]:
        """Yields all frames: after a seek to the first packet, some decoders would lose a frame."""
        index = self._stream.index
        self._container.close()
        self._source.seek(0)
        self._container = self._open()
        self._stream = self._container.streams[index]
        yield from self._decoded()

    def _land(self, lead: int, start: int, preroll: int) -> _Landing | None:
        """Seeks to a frame at sample `lead` or earlier; returns None where that fails.

        Then there is no index, or one that points nowhere; to read from the start is slow and sure.
        """
        before: list[tuple[int, av.AudioFrame]] = []
        missing = preroll
        try:
            self._seek(math.floor((lead + self._zero) / self._unit))
            frames = self._clock().lay(self._timed(self._decoded()), None)
            for position, frame in frames:
                if not before and (frame.pts is None or position > start):
                    return None
                before.append((position, frame))
                missing -= max(0, min(frame.samples, start - position))
                if missing <= 0 or position + frame.samples > start:
                    break
        except (av.error.FFmpegError, OverflowError):
            return None
        return _Landing(before, frames, missing) if before else None

    def _clock(self) -> Clock:
        tick = float(self._stream.time_base)
        return Clock(self._shown, self.rate, tick, may_restart=not self.can_seek)

    def _timed(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[Timed, av.AudioFrame]]:
        unit, zero, is_stated = self._unit, self._zero, True
        for frame in frames:
            pts = frame.pts if is_stated else None
            yield Timed(None if pts is None else pts * unit - zero, frame.samples), frame
            is_stated = self._is_timed  # of the others, only where a seek has ended

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream, backward=True)

    def _to_block(self, frame: av.AudioFrame) -> np.ndarray:
        """Converts any of FFmpeg's sample formats to float32 (frames, channels), full scale ±1."""
        if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
            raise CorruptAudioError(
                f"{self._shown}: changes from {self.channels} channels at {self.rate} Hz to "
                f"{frame.layout.nb_channels} at {frame.sample_rate} Hz. Split or convert it, for "
                "example to FLAC."
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
        """Returns the same samples in one plane."""
        if self._packer is None:
            self._packer = av.AudioResampler(format="flt", layout=frame.layout, rate=self.rate)
        (packed,) = self._packer.resample(frame)
        return packed

    def exhausted(self) -> bool:
        """Returns whether decoding failed at the end of the bytes."""
        try:
            return not any(packet.size for packet in self._container.demux(self._stream))
        except (av.error.FFmpegError, IndexError):
            return False

    def close(self) -> None:
        """Closes the container, not the source."""
        self._container.close()
