"""Checks audio against the job's limits on sample rate, channels and duration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_asr import errors
from beam_asr.audio.decoder import OVERRUN_S
from beam_asr.audio.source import shown
from beam_asr.errors import (
    AboveMaxDurationError,
    BelowMinDurationError,
    ChannelCountError,
    SampleRateError,
)
from beam_asr.records import lhotse_cuts
from beam_asr.records.work import Clip
from beam_asr.settings import AudioLimits

# A job can filter the rows that these errors refuse, instead of failing them.
REFUSAL_TYPES = frozenset(
    error_class.__name__ for error_class in errors.tree() if error_class.is_refusal
)


def check_file(limits: AudioLimits, name: str, sample_rate: int, channels: int) -> None:
    """Checks a file's rate in Hz and its channels.

    Raises:
        SampleRateError, ChannelCountError: it is not as required; the message states the value.
    """
    rate, count = limits.required_sample_rate, limits.required_channels
    if rate is not None and sample_rate != rate:
        raise SampleRateError(
            f"{name}: its sample rate is {sample_rate} Hz, and "
            f"`required_sample_rate={rate}` refuses all others."
        )
    if count is not None and channels != count:
        raise ChannelCountError(
            f"{name}: has {channels} {'channel' if channels == 1 else 'channels'}, and "
            f"`required_channels={count}` refuses all others."
        )


def is_shorter_than_file(clip: Clip, file_seconds: float | None) -> bool:
    """Returns whether a row ends its clip before its file ends, without choosing a part of it.

    That is a ``duration`` that is shorter than the file, by more than manifests round, and no
    ``offset``. NeMo's `transcribe()` reads the whole of such a file, and this job what the row
    states.

    Args:
        file_seconds: of the whole file, as its header states them; None if it does not.
    """
    if file_seconds is None or clip.duration is None or clip.offset:
        return False
    if file_seconds <= clip.duration + OVERRUN_S:
        return False
    fields = clip.row.fields
    return fields.get("offset") is None and not lhotse_cuts.is_cut(fields)


def check_duration(limits: AudioLimits, path: str, seconds: float) -> None:
    """Checks the length of a row's audio, in seconds.

    Args:
        path: of its file, for the message.

    Raises:
        BelowMinDurationError, AboveMaxDurationError: it is too short or too long.
    """
    if limits.min_duration is not None and seconds < limits.min_duration:
        raise BelowMinDurationError(
            f"{shown(path)}: has {seconds:.3f} s, and "
            f"`min_duration={limits.min_duration:g}` refuses less."
        )
    if limits.max_duration is not None and seconds > limits.max_duration:
        raise AboveMaxDurationError(
            f"{shown(path)}: has {seconds:.3f} s, and "
            f"`max_duration={limits.max_duration:g}` refuses more."
        )


def is_refusal(error: BaseException) -> bool:
    """Returns whether an error says that audio was refused by these checks."""
    return isinstance(error, errors.BeamAsrError) and error.is_refusal


def was_refusal(error: Mapping[str, Any]) -> bool:
    """Returns as ``is_refusal``, for the ``error`` of a failure record that is read again."""
    return error.get("type") in REFUSAL_TYPES
