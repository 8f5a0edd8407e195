"""Which fields of a record are the row's own, and which the job has made; where its audio is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from beam_asr.errors import ManifestError
from beam_asr.records import lhotse_cuts

JOB_FIELDS = frozenset(
    """words segments chars confidence n_best no_speech segments_failed model exports
    wer cer substitutions deletions insertions
    chars_per_second words_per_second compression_ratio longest_word most_repeats""".split()
)


def input_fields(record: Mapping[str, Any], pred_text_key: str = "pred_text") -> dict[str, Any]:
    """Returns the fields of the row itself: all but `JOB_FIELDS` and the transcript."""
    return {
        key: value
        for key, value in record.items()
        if key not in JOB_FIELDS and key != pred_text_key
    }


def cut_audio(record: Mapping[str, Any], filepath_key: str) -> lhotse_cuts.CutAudio | None:
    """The audio of a record that is a cut of Lhotse's; None of any other one."""
    fields = dict(record)
    if fields.get(filepath_key) is not None or not lhotse_cuts.is_cut(fields):
        return None
    try:
        return lhotse_cuts.audio_of(fields)
    except ManifestError:
        return None


def is_text(value: Any) -> bool:
    """Whether a value is text that UTF-8 can hold: none with half of a surrogate pair."""
    return isinstance(value, str) and (value.isascii() or as_unicode(value) == value)


def is_float(value: Any) -> bool:
    """Whether a value is a number that a float of 64 bits can hold as it is."""
    if isinstance(value, float):
        return math.isfinite(value)
    try:
        return type(value) is int and float(value) == value
    except OverflowError:
        return False


def is_integer(value: Any) -> bool:
    """Whether a value is a whole number of 64 bits."""
    return type(value) is int and -(2**63) <= value < 2**63


def as_unicode(text: str) -> str:
    """A text with ``?`` for each half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def as_json(fields: Mapping[str, Any]) -> str:
    """Fields as JSON that UTF-8 can hold, with text as it is written in its language."""
    text = json.dumps(fields, ensure_ascii=False)
    return text if is_text(text) else json.dumps(fields)
