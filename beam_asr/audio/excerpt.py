"""Encodes a part of a recording as a small MP3, which every browser plays."""

from __future__ import annotations

import io
import math

import av
import numpy as np

from beam_asr.audio.reading import AudioRequest, stream_audio
from beam_asr.storage.storage import Storage

SAMPLE_RATE = 16_000  # Hz
BIT_RATE = 32_000  # bits a second: 4 KB of speech, clear enough to check its words
EFFORT = {"compression_level": "7"}  # of LAME; its usual one takes twice as long


def read_excerpt(
    path: str,
    *,
    offset: float = 0.0,
    duration: float | None = None,
    channel: int | None = None,
    max_seconds: float = math.inf,
    storage: Storage | None = None,
    deadline: float | None = None,
) -> tuple[bytes, bool]:
    """Reads a range of an audio file as MP3, and tells whether it is cut off.

    Args:
        offset: the start of the range in the file, in seconds.
        duration: of the range, in seconds; None is to the end of the file.
        channel: from 0; None is the average of all.
        max_seconds: after which the range is cut off.
        deadline: time of `time.monotonic()` after which reading fails.

    Raises:
        AudioError: as `stream_audio`, which also raises errors of storages.
    """
    is_long = duration is not None and duration > max_seconds
    request = AudioRequest(
        sample_rate=SAMPLE_RATE,
        offset=offset,
        duration=max_seconds if is_long else duration,
        channel=channel,
        cancellation_allowed=True,
    )
    most = SAMPLE_RATE * max_seconds
    blocks, count = [], 0
    for block in stream_audio(path, request, storage=storage, deadline=deadline):
        blocks.append(block)
        count += len(block)
        if count > most:  # of a file whose length nobody stated
            break
    samples = np.concatenate(blocks)
    return _mp3(samples[: int(min(most, count))]), is_long or count > most


def _mp3(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as output:
        stream = output.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono", options=EFFORT)
        stream.bit_rate = BIT_RATE
        frame = av.AudioFrame.from_ndarray(samples.clip(-1, 1)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        stream.codec_context.open()
        to_frames = av.AudioResampler(
            format=stream.codec_context.format,
            layout="mono",
            rate=SAMPLE_RATE,
            frame_size=stream.codec_context.frame_size,
        )
        for each in [*to_frames.resample(frame), *to_frames.resample(None)]:
            output.mux(stream.encode(each))
        output.mux(stream.encode(None))
    return file.getvalue()
