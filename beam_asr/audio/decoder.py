"""Defines the `Decoder` protocol, and the limits that all decoders share."""

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
    """Returns the reason that a decoder's error states, for a message."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.removeprefix("Error : ").rstrip(".")


class Decoder(Protocol):
    """Decodes one open file."""

    rate: int  # Hz
    channels: int
    stated_frames: int | None  # as the header states
    can_seek: bool  # without reading everything before the place
    length_slack_s: float  # tolerance of stated_frames

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        """Yields float32 blocks (frames, channels), up to `count` frames from frame `start` on."""

    def exhausted(self) -> bool:
        """Returns whether decoding failed at the end of the bytes."""

    def close(self) -> None:
        """Closes the decoder, not the source."""
