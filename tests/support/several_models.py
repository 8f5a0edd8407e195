"""Jobs of several models in this process."""

from __future__ import annotations

import json
from pathlib import Path

from beam_asr.cli import main
from beam_asr.models.serving.pool import ModelPool


def job(manifest: Path, out: Path, *flags: str) -> dict:
    assert main.main(["transcribe", f"--input={manifest}", f"--output={out}", *flags]) == 0
    return json.loads((out / "summary.json").read_text())


def fresh(monkeypatch) -> ModelPool:
    """A process that has no model yet."""
    pool = ModelPool()
    monkeypatch.setattr("beam_asr.models.serving.pool.pool", pool)
    return pool
