"""A model that records its calls, in place of any."""

from __future__ import annotations

import pytest

from beam_asr.models import engine
from tests.support.noting_model import Notes


@pytest.fixture
def model(monkeypatch):
    notes = Notes()
    monkeypatch.setattr(engine, "load", lambda *_, **__: notes)
    return notes
