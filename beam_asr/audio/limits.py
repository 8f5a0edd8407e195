"""What audio must be like to be given to a model at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_asr.audio_errors import (
    AboveMaxDurationError,
    BelowMinDurationError,
    ChannelCountError,
    SampleRateError,
)

# A job can take what they refuse for filtered, and not for failed.
REFUSALS = (BelowMinDurationError, AboveMaxDurationError, SampleRateError, ChannelCountError)
REFUSAL_TYPES = frozenset(each.__name__ for each in REFUSALS)


class AudioChecks(NamedTuple):
    """None checks nothing.

    Attributes:
        min_duration: seconds that a row's audio has at least.
        max_duration: seconds that it has at most.
        sample_rate: of its file, in Hz.
        channels: of its file.
    """

    min_duration: float | None = None
    max_duration: float | None = None
    sample_rate: int | None = None
    channels: int | None = None

    def check_file(self, name: str, sample_rate: int, channels: int) -> None:
        """Raises SampleRateError or ChannelCountError."""
        if self.sample_rate is not None and sample_rate != self.sample_rate:
            raise SampleRateError(
                f"{name}: its sample rate is {sample_rate} Hz, and "
                f"--required_sample_rate={self.sample_rate} refuses all others."
            )
        if self.channels is not None and channels != self.channels:
            raise ChannelCountError(
                f"{name}: has {channels} {'channel' if channels == 1 else 'channels'}, and "
                f"--required_channels={self.channels} refuses all others."
            )

    def check_duration(self, name: str, seconds: float) -> None:
        """Raises BelowMinDurationError or AboveMaxDurationError."""
        if self.min_duration is not None and seconds < self.min_duration:
            raise BelowMinDurationError(
                f"{name}: has {seconds:.3f} s, and --min_duration={self.min_duration:g} refuses "
                "less."
            )
        if self.max_duration is not None and seconds > self.max_duration:
            raise AboveMaxDurationError(
                f"{name}: has {seconds:.3f} s, and --max_duration={self.max_duration:g} refuses "
                "more."
            )


NO_CHECKS = AudioChecks()


def is_refusal(error: Mapping[str, Any] | None) -> bool:
    """Whether the ``error`` of a failure record says that audio was refused by these checks."""
    return error is not None and error.get("type") in REFUSAL_TYPES
