"""Separates the fields of a row from those that the job adds to its record."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from beam_asr.records.row import REPLACED
from beam_asr.settings import METRICS
from beam_asr.transcripts.post_processing import RECOGNIZED_TEXT
from beam_asr.transcripts.quality import SIGNALS

SCORES = ("wer", "cer", "substitutions", "deletions", "insertions")
# Of some rows only, whatever is requested.
OCCASIONAL = """no_speech segments_failed exports channels_cancel file_channels
    split_channels""".split()
# The settings without which no row has a field.
_REQUESTED = {
    "words": "timestamps=word",
    "segments": "timestamps=segment",
    "chars": "timestamps=char",
    "confidence": "confidence=row",
    "n_best": "n_best",
    "model": "models",
    RECOGNIZED_TEXT: "text_steps",
    **dict.fromkeys(SCORES, "reference_key"),
    **{name: f"metrics={name}" for name in METRICS},
}


@functools.cache
def job_fields() -> frozenset[str]:
    """Returns the fields that the job adds besides the text, whatever is requested.

    They include signals of other packages, which are not imported for it.
    """
    return frozenset([*_REQUESTED, *OCCASIONAL, *SIGNALS, REPLACED])


def setting_of(field: str) -> str | None:
    """Returns the setting that a field of the job needs, as ``quality`` or ``timestamps=word``.

    None for a field that is not the job's, or that no setting requests.
    """
    return "quality" if field in SIGNALS else _REQUESTED.get(field)


def input_fields(record: Mapping[str, Any], pred_text_key: str = "pred_text") -> dict[str, Any]:
    """Returns the fields of the row itself: all but `job_fields` and the transcript."""
    added = job_fields() | {pred_text_key}
    return {key: value for key, value in record.items() if key not in added}
