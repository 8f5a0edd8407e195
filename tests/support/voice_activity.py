"""Detectors of voice activity, with Silero's network or by the level alone."""

from __future__ import annotations

import pytest

from beam_asr.audio import vad


def detector_of(method: str) -> vad.Detector:
    """Returns the ``silero`` detector, or ``energy``: the one of a machine without the network."""
    with pytest.MonkeyPatch.context() as patch:
        if method == "energy":
            patch.setattr(vad, "_session", lambda: None)
        return vad.Detector()
