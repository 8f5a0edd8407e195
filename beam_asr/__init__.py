"""Batch speech recognition on Apache Beam with NVIDIA NeMo models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_asr.journal import Journal
    from beam_asr.manifest import Row
    from beam_asr.read_manifest import ReadManifest
    from beam_asr.transcribe import Transcribe, Transcribed
    from beam_asr.write_manifest import WriteManifest

__version__ = "0.1.0"
__all__ = ["Journal", "ReadManifest", "Row", "Transcribe", "Transcribed", "WriteManifest"]

_HOMES = {
    "Journal": "beam_asr.journal",
    "ReadManifest": "beam_asr.read_manifest",
    "Row": "beam_asr.manifest",
    "Transcribe": "beam_asr.transcribe",
    "Transcribed": "beam_asr.transcribe",
    "WriteManifest": "beam_asr.write_manifest",
}


def __getattr__(name: str) -> Any:
    # Importing Beam takes seconds, which --help need not pay.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'beam_asr' has no attribute {name!r}")
