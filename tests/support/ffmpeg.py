"""Audio encoded by FFmpeg's own encoders, for files of formats that libsndfile does not write."""

from __future__ import annotations

import itertools
from typing import Any

import av


def mux_audio(output: Any, stream: Any, frame: av.AudioFrame, rate: int, layout: str) -> None:
    """Encodes all of a frame, which begins at 0, into an open container."""
    frame.sample_rate, frame.pts = rate, 0
    converter = av.AudioResampler(
        format=stream.codec_context.format,
        layout=layout,
        rate=rate,
        frame_size=stream.codec_context.frame_size or 1024,
    )
    for each in [*converter.resample(frame), *converter.resample(None)]:
        output.mux(stream.encode(each))
    output.mux(stream.encode(None))


def lengthen(source: Any, path: Any, seconds: float, options: dict[str, str] | None = None) -> None:
    """Writes the packets of a file again and again, up to a length; to encode them takes long.

    Args:
        source, path: paths, or open files with a name.
    """
    with av.open(source) as input_, av.open(path, "w", options=options or {}) as output:
        stream = output.add_stream_from_template(input_.streams.audio[0])
        packets = [packet for packet in input_.demux(audio=0) if packet.size]
        place = 0
        for packet in itertools.cycle(packets):
            if place * packet.time_base >= seconds:
                break
            copy = av.Packet(bytes(packet))
            copy.pts = copy.dts = place
            copy.time_base, copy.duration, copy.stream = packet.time_base, packet.duration, stream
            output.mux(copy)
            place += packet.duration
