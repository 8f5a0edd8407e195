"""Batch speech recognition on Apache Beam with NVIDIA NeMo models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_asr.bigquery import WriteTranscriptsToBigQuery
    from beam_asr.documents import Document
    from beam_asr.journal import Journal
    from beam_asr.manifest import Row
    from beam_asr.model_handler import NemoModelHandler
    from beam_asr.read_manifest import ReadManifest
    from beam_asr.score_transcripts import ScoreTranscripts
    from beam_asr.to_documents import ToDocuments
    from beam_asr.transcribe import Transcribe, Transcribed
    from beam_asr.write_manifest import WriteManifest

__version__ = "0.1.0"
__all__ = [
    "Document",
    "Journal",
    "NemoModelHandler",
    "ReadManifest",
    "Row",
    "ScoreTranscripts",
    "ToDocuments",
    "Transcribe",
    "Transcribed",
    "WriteManifest",
    "WriteTranscriptsToBigQuery",
]

_HOMES = {
    "Document": "beam_asr.documents",
    "Journal": "beam_asr.journal",
    "NemoModelHandler": "beam_asr.model_handler",
    "ReadManifest": "beam_asr.read_manifest",
    "Row": "beam_asr.manifest",
    "ScoreTranscripts": "beam_asr.score_transcripts",
    "ToDocuments": "beam_asr.to_documents",
    "Transcribe": "beam_asr.transcribe",
    "Transcribed": "beam_asr.transcribe",
    "WriteManifest": "beam_asr.write_manifest",
    "WriteTranscriptsToBigQuery": "beam_asr.bigquery",
}


def __getattr__(name: str) -> Any:
    # Importing Beam takes seconds, which --help need not pay.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'beam_asr' has no attribute {name!r}")
