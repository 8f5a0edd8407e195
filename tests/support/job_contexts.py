"""What steps of a job have in common, for a test of one of them."""

from __future__ import annotations

from typing import Any

from beam_asr.models import routing
from beam_asr.transcripts.transcript import TranscriptFields
from beam_asr.transforms.job_context import JobContext


def job_context(**changes: Any) -> JobContext:
    """The context of a job with one model and no journal, with these attributes changed."""
    plain = {
        "run": "run",
        "journal": None,
        "filepath_key": "audio_filepath",
        "transcript_fields": TranscriptFields(),
        "routing": routing.single(routing.ModelRoute.of(model_name="any")),
        "keep_partial": False,
        "filter_refused": False,
        "max_failure_fraction": None,
    }
    return JobContext(**{**plain, **changes})
