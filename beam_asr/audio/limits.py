"""What audio must be like to be given to a model at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_asr.errors import (
    AboveMaxDurationError,
    BelowMinDurationError,
    ChannelCountError,
    SampleRateError,
)

# A job can take what they refuse for filtered, and not for failed.
REFUSALS = (BelowMinDurationError, AboveMaxDurationError, SampleRateError, ChannelCountError)
REFUSAL_TYPES = frozenset(each.__name__ for each in REFUSALS)


def is_refusal(error: BaseException) -> bool:
    """Whether an error says that audio was refused by these checks."""
    return isinstance(error, REFUSALS)


def was_refusal(error: Mapping[str, Any]) -> bool:
    """As ``is_refusal``, of the ``error`` of a failure record that is read again."""
    return error.get("type") in REFUSAL_TYPES
