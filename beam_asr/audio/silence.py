"""Whether somebody speaks in a clip that is so quiet that it may well be silence."""

from __future__ import annotations

import numpy as np
import soxr

from beam_asr.audio.vad import RATE, Detector

# Full scale is 1. Speech is hardly ever recorded so low; a louder clip goes to the model unheard,
# since to listen to all clips would cost more than it spares.
QUIET = 0.008
LOUD = 0.5  # what a quiet clip is raised to, since a detector knows speech at common levels
SPEECH = 0.5  # probability


def is_silence(waveform: np.ndarray, sample_rate: int) -> bool:
    """Whether a clip is quiet, and nobody speaks in it.

    Args:
        waveform: float32 of shape ``(samples,)``.
        sample_rate: in Hz.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    if not 0.0 < peak < QUIET:
        return False
    raised = waveform * np.float32(LOUD / peak)
    detector = Detector()
    detector.add(raised if sample_rate == RATE else soxr.resample(raised, sample_rate, RATE))
    return not (detector.finish().speech >= SPEECH).any()
