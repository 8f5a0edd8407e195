"""Defines a model that costs nothing and says its own name, and chunks for jobs of a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from beam_asr.audio import clip_reader
from beam_asr.models import engine
from beam_asr.models.serving import batcher, pool
from beam_asr.records.outcome import Recognition
from beam_asr.transforms import chunk_recognizer, transcribe

RATE = 16_000


class NamingRecognizer:
    """Recognizes its own name in everything."""

    sample_rate = RATE
    default_batch_seconds, batch_overhead_seconds = 4.0, 0.0
    max_clip_seconds = longest_seconds = segment_seconds = 40.0
    weight_bytes, prompt_fields = 0, frozenset()

    def __init__(self, name: str):
        self.name = name

    def warm_up(self, batch_size: int) -> None:
        pass

    def encode(self, waveforms: list[np.ndarray], _prompt: Any) -> Any:
        return len(waveforms)

    def decode(self, encoded: Any) -> list[Recognition]:
        return [Recognition(self.name)] * encoded

    def describe(self) -> dict[str, str]:
        return {"model": self.name}


def install(patch: pytest.MonkeyPatch, recognizer: type = NamingRecognizer) -> None:
    """Has every model be one of these, and chunks of three seconds."""
    for module in (chunk_recognizer, transcribe):
        patch.setattr(module, "CHUNK_SECONDS", 3)
    patch.setattr(batcher, "FIRST_SECONDS", 2)
    patch.setattr(batcher, "MAX_SECONDS", 3)
    patch.setattr(clip_reader, "UNKNOWN_SECONDS", 1)
    load_models_as(recognizer, patch)


def load_models_as(recognizer: type, patch: pytest.MonkeyPatch) -> None:
    """Has every model be one of these, and none of those that other tests have loaded."""
    patch.setattr(engine, "load", lambda spec, *_: recognizer(spec.model_name))
    patch.setattr(pool, "pool", pool.ModelPool())
