"""Audio encoded by FFmpeg's own encoders, for files of formats that libsndfile does not write."""

from __future__ import annotations

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
