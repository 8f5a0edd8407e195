"""The `Decoder` protocol and the limits that decoders share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

BLOCK_SAMPLES = 2**18  # 1 MiB of float32, over all channels
SAMPLE_RATES_HZ = range(1_000, 1_000_001)
MAX_CHANNELS = 1024  # libsndfile's own limit
OVERRUN_S = 0.5  # how far a manifest's rounded duration may run past the end of its file
PREROLL_S = 0.5  # decoded before a seek's target and dropped: Opus needs 80 ms, AMR more


def decoding_reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.removeprefix("Error : ").rstrip(".")


class Decoder(Protocol):
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
