"""Which fields of a record are the row's own, and which the job has made."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from beam_asr.transcripts.post_processing import RECOGNIZED_TEXT
from beam_asr.transcripts.quality import SIGNALS

_FIXED = """words segments chars confidence n_best no_speech segments_failed model exports
    wer cer substitutions deletions insertions""".split()


@functools.cache
def job_fields() -> frozenset[str]:
    """Returns the fields that the job makes besides the text, whatever is requested.

    Signals that other packages add are among them, of which nothing is imported.
    """
    return frozenset([*_FIXED, RECOGNIZED_TEXT, *SIGNALS])


def input_fields(record: Mapping[str, Any], pred_text_key: str = "pred_text") -> dict[str, Any]:
    """Returns the fields of the row itself: all but `job_fields` and the transcript."""
    made = job_fields()
    return {key: value for key, value in record.items() if key not in made and key != pred_text_key}
