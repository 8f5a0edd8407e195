"""Files of sound whose timestamps we choose, and FFmpeg's own decoding of any file."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import av
import numpy as np

VIDEO_RATE = 25


def murmur(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Wandering tones below 1.5 kHz, as in speech: every codec keeps them, and nothing repeats."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    sound = np.zeros(len(t))
    for pitch in (190, 310, 530, 870, 1310):
        steps = np.cumsum(random.standard_normal(len(t) // 200 + 2))
        phase = np.interp(np.arange(len(t)) / 200, np.arange(len(steps)), steps)
        level = 0.5 + 0.5 * np.sin(2 * np.pi * random.uniform(2, 5) * t + random.uniform(0, 6))
        sound += level * np.sin(2 * np.pi * pitch * t + 0.8 * phase)
    return (0.12 * sound).astype(np.float32)


class Track(NamedTuple):
    """Mono pieces of float32, each with the second at which it starts, and their codec."""

    pieces: Sequence[tuple[float, np.ndarray]]
    codec: str
    rate: int
    options: Mapping[str, str] = MappingProxyType({})
    bit_rate: int | None = None
    layout: str = "mono"


def write(
    path: Path,
    *tracks: Track,
    container: str | None = None,
    picture: tuple[float, float, str] | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Encodes tracks into one file, whatever gaps are between their pieces.

    Args:
        picture: of another stream, its first and last second, and its codec.
    """
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        video = output.add_stream(picture[2], rate=VIDEO_RATE) if picture else None
        streams = [
            output.add_stream(
                each.codec, rate=each.rate, layout=each.layout, options=dict(each.options)
            )
            for each in tracks
        ]
        packets = _picture(video, *picture[:2]) if picture else []
        for stream, track in zip(streams, tracks, strict=True):
            if track.bit_rate:
                stream.bit_rate = track.bit_rate
            packets += _encoded(stream, track)
        for packet in sorted(packets, key=lambda each: (each.dts or 0) * each.time_base):
            output.mux(packet)


def _encoded(stream: Any, track: Track) -> list[av.Packet]:
    stream.codec_context.open()
    size = stream.codec_context.frame_size or 1024
    converter = {"format": stream.codec_context.format, "layout": track.layout, "rate": track.rate}
    packets = []
    for start, samples in track.pieces:
        for place in range(0, len(samples), size):
            block = samples[place : place + size]
            if stream.codec_context.frame_size:
                block = np.pad(block, (0, size - len(block)))
            frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            frame.sample_rate = track.rate
            (frame,) = av.AudioResampler(**converter).resample(frame)
            frame.pts, frame.time_base = round(start * track.rate) + place, Fraction(1, track.rate)
            packets += stream.encode(frame)
    return packets + stream.encode(None)


def _picture(stream: Any, start: float, end: float) -> list[av.Packet]:
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    stream.codec_context.open()
    packets = []
    for number in range(round(start * VIDEO_RATE), round(end * VIDEO_RATE)):
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, VIDEO_RATE)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    for packet in packets:
        packet.time_base = packet.time_base or Fraction(1, VIDEO_RATE)
    return packets


def remux(
    source: Path,
    path: Path,
    edit: Callable[[int, av.Packet], av.Packet | None],
    container: str | None = None,
) -> None:
    """Copies the packets of a file as ``edit(number, packet)`` returns them; None drops one."""
    with av.open(str(source)) as input_, av.open(str(path), "w", format=container) as output:
        stream = output.add_stream_from_template(input_.streams.audio[0])
        packets = (packet for packet in input_.demux(audio=0) if packet.size)
        for number, packet in enumerate(packets):
            if (edited := edit(number, packet)) is not None:
                edited.stream = stream
                output.mux(edited)


def with_edit_list(content: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """Returns an MP4 with other edits (ISO/IEC 14496-12, 8.6.6): (duration in ms, media time)."""
    table = struct.pack(">II", 0, len(edits))
    table += b"".join(struct.pack(">IiHH", duration, time, 1, 0) for duration, time in edits)
    return _replaced(content, (b"moov", b"trak", b"edts", b"elst"), table)


def _replaced(boxes: bytes, path: Sequence[bytes], content: bytes) -> bytes:
    result, at = b"", 0
    while at < len(boxes):
        size, kind = struct.unpack_from(">I4s", boxes, at)
        box = boxes[at : at + size]
        if kind == path[0]:
            inner = _replaced(box[8:], path[1:], content) if path[1:] else content
            box = struct.pack(">I4s", 8 + len(inner), kind) + inner
        result, at = result + box, at + size
    return result


class Laid(NamedTuple):
    """FFmpeg's frames on its clock: each with its place in samples from the container's start."""

    rate: int
    frames: list[tuple[int, np.ndarray]]

    @property
    def end(self) -> int:
        return max(place + len(samples) for place, samples in self.frames)

    def lost(self, samples: np.ndarray, start: int = 0) -> list[float]:
        """Returns the times of the frames that are not within 1 ms of their place in ``samples``.

        Args:
            samples: what was read, from sample ``start`` on.
        """
        slack = self.rate // 1000
        inside = [
            (place - start, frame)
            for place, frame in self.frames
            if place - slack >= start and place + len(frame) + slack <= start + len(samples)
        ]
        if not inside:
            return []
        places, frames = zip(*inside, strict=True)
        lengths = np.array([len(frame) for frame in frames])
        expected = np.concatenate(frames)
        indices = np.concatenate([np.arange(p, p + n) for p, n in zip(places, lengths)])
        firsts = np.cumsum(lengths) - lengths
        level = np.sqrt(np.mean(expected**2))
        error = np.full(len(frames), np.inf)
        for lag in sorted(range(-slack, slack + 1), key=abs):
            squares = np.add.reduceat((expected - samples[indices + lag]) ** 2, firsts) / lengths
            error = np.minimum(error, np.sqrt(squares) / level)
            if error.max() < 0.01:
                break
        return [(places[i] + start) / self.rate for i in np.flatnonzero(error > 0.15)]

    def silent(self, length: int) -> np.ndarray:
        """Returns where no frame is, nor within 10 ms: bool of shape ``(length,)``."""
        slack = self.rate // 100
        free = np.ones(length, bool)
        for place, samples in self.frames:
            free[max(0, place - slack) : max(0, place + len(samples) + slack)] = False
        return free


def ffmpeg_decodes(path: Path) -> Laid:
    """Decodes a file with FFmpeg, as its timestamps say; where frames overlap, the later counts."""
    with av.open(str(path)) as container:
        stream = container.streams.best("audio")
        zero = Fraction(container.start_time or 0, av.time_base)
        frames, end = [], 0
        for frame in container.decode(stream):
            place = end
            if frame.pts is not None:
                place = round((frame.pts * stream.time_base - zero) * frame.sample_rate)
            rate, samples = frame.sample_rate, _mono(frame)
            if frames and frames[-1][0] + len(frames[-1][1]) - place > rate // 500:
                last, recognized = frames[-1]
                frames[-1] = last, recognized[: max(0, place - last)]
            frames.append((place, samples))
            end = place + len(samples)
    return Laid(rate, [(place, samples) for place, samples in frames if len(samples)])


def _mono(frame: av.AudioFrame) -> np.ndarray:
    data = frame.to_ndarray()
    data = data if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype.kind == "f":
        return data.mean(axis=0)
    zero = 128 if data.dtype == np.uint8 else 0
    return (data.astype(np.float64) - zero).mean(axis=0) / 2 ** (8 * data.dtype.itemsize - 1)
