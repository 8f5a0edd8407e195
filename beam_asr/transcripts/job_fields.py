"""Separates the fields of a row from those that the job adds to its record."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from beam_asr.transcripts.post_processing import RECOGNIZED_TEXT
from beam_asr.transcripts.quality import SIGNALS

_FIXED = """words segments chars confidence n_best no_speech segments_failed model exports
    wer cer substitutions deletions insertions
    channels_cancel file_channels split_channels""".split()


@functools.cache
def job_fields() -> frozenset[str]:
    """Returns the fields that the job adds besides the text, whatever is requested.

    They include signals of other packages, which are not imported for it.
    """
    return frozenset([*_FIXED, RECOGNIZED_TEXT, *SIGNALS])


def input_fields(record: Mapping[str, Any], pred_text_key: str = "pred_text") -> dict[str, Any]:
    """Returns the fields of the row itself: all but `job_fields` and the transcript."""
    added = job_fields() | {pred_text_key}
    return {key: value for key, value in record.items() if key not in added}
