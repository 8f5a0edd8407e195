"""Inspects the values of a record's fields, and finds its audio if it is a cut."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from beam_asr.errors import ManifestError
from beam_asr.records import json_numbers, lhotse_cuts

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def cut_audio(record: Mapping[str, Any], filepath_key: str) -> lhotse_cuts.CutAudio | None:
    """Returns the audio of a record that is a Lhotse cut; None for any other."""
    fields = dict(record)
    if fields.get(filepath_key) is not None or not lhotse_cuts.is_cut(fields):
        return None
    try:
        return lhotse_cuts.audio_of(fields)
    except ManifestError:
        return None


def is_text(value: Any) -> bool:
    """Returns whether a value is text that UTF-8 can hold, without half surrogate pairs."""
    return isinstance(value, str) and (value.isascii() or as_unicode(value) == value)


def is_float(value: Any) -> bool:
    """Returns whether a value is a number that a float of 64 bits holds exactly."""
    if isinstance(value, float):
        return math.isfinite(value)
    try:
        return type(value) is int and float(value) == value
    except OverflowError:
        return False


def is_integer(value: Any) -> bool:
    """Returns whether a value is a whole number of 64 bits."""
    return type(value) is int and -(2**63) <= value < 2**63


def as_unicode(text: str) -> str:
    """Returns a text with ``?`` for each half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def as_json(fields: Mapping[str, Any]) -> str:
    """Returns fields as JSON that UTF-8 can hold, without escapes for other alphabets."""
    text = json_numbers.dumps(fields, _ENCODER.encode)
    return text if is_text(text) else json_numbers.dumps(fields)
