"""Transcribes speech in batches on Apache Beam with NVIDIA NeMo models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from beam_asr._version import __version__

if TYPE_CHECKING:
    from beam_asr.cli.python_call import transcribe
    from beam_asr.outputs.formats.documents import Document
    from beam_asr.outputs.journal import Journal
    from beam_asr.outputs.output import Output
    from beam_asr.records.row import Row
    from beam_asr.transforms.bigquery import WriteTranscriptsToBigQuery
    from beam_asr.transforms.read_manifest import ReadManifest
    from beam_asr.transforms.results import Transcribed
    from beam_asr.transforms.run_inference import NemoModelHandler
    from beam_asr.transforms.score import ScoreTranscripts
    from beam_asr.transforms.to_documents import ToDocuments
    from beam_asr.transforms.transcribe import Transcribe
    from beam_asr.transforms.write_manifest import WriteManifest

__all__ = [
    "Document",
    "Journal",
    "NemoModelHandler",
    "Output",
    "ReadManifest",
    "Row",
    "ScoreTranscripts",
    "ToDocuments",
    "Transcribe",
    "Transcribed",
    "WriteManifest",
    "WriteTranscriptsToBigQuery",
    "__version__",
    "transcribe",
]

_MODULES = {
    "Document": "beam_asr.outputs.formats.documents",
    "Journal": "beam_asr.outputs.journal",
    "NemoModelHandler": "beam_asr.transforms.run_inference",
    "Output": "beam_asr.outputs.output",
    "ReadManifest": "beam_asr.transforms.read_manifest",
    "Row": "beam_asr.records.row",
    "ScoreTranscripts": "beam_asr.transforms.score",
    "ToDocuments": "beam_asr.transforms.to_documents",
    "Transcribe": "beam_asr.transforms.transcribe",
    "Transcribed": "beam_asr.transforms.transcribe",
    "WriteManifest": "beam_asr.transforms.write_manifest",
    "WriteTranscriptsToBigQuery": "beam_asr.transforms.bigquery",
    "transcribe": "beam_asr.cli.python_call",
}


def __getattr__(name: str) -> Any:
    # Importing Beam takes seconds, for which --help need not wait.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'beam_asr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
