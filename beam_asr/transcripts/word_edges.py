"""Refines word boundaries by the pauses in the audio.

A model emits a token some 0 to 200 ms after its sound begins and before it ends. Where a word is
next to a pause, the pause is more exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from beam_asr.transcripts.words import Token, by_word, monotone

FRAME_SECONDS = 0.01
MIN_PAUSE_FRAMES = 8  # shorter ones are the closures of plosives
MAX_CLICK_FRAMES = 2  # a sound that is no longer does not end a pause
# A pause is BELOW_SPEECH_DB below the level of speech or, if that is higher, within ABOVE_FLOOR_DB
# of the floor; yet always MIN_BELOW_DB below speech.
BELOW_SPEECH_DB = 40.0
ABOVE_FLOOR_DB = 6.0
MIN_BELOW_DB = 6.0
SPEECH_QUANTILE = 0.9
SPEECH_FRAMES = 50  # or the level of the loudest 50, where most of a clip is not speech
FLOOR_QUANTILE = 0.02
SILENT_DB = -100.0  # below the noise of 16 bits

MAX_BACK = 0.6  # seconds that a start may move back
MAX_FORWARD = 0.8  # seconds that an end may move forward
MAX_LATE = 0.2  # seconds that a start may move forward, out of a pause


def refine(tokens: Sequence[Token], waveform: np.ndarray, sample_rate: int) -> list[Token]:
    """Moves the edges of words to where their sound begins and ends.

    The start of a word goes to the end of the pause before it, and its end to the start of the
    pause after it or, if there is none, to the next word, all within the limits above.

    Args:
        tokens: with the times of a model, in seconds of the waveform.
        waveform: mono, of shape ``(samples,)``.
        sample_rate: in Hz.

    Returns:
        The tokens with times that lie within the waveform and never go back.
    """
    duration = len(waveform) / sample_rate
    groups = by_word(tokens)
    pause_starts, pause_ends = find_pauses(waveform, sample_rate)
    starts = [group[0].start for group in groups]
    ends = [group[-1].end for group in groups]
    for index in range(len(groups) + 1):
        # The pauses between a word and the next: those that begin after the last token of the one
        # and before the first token of the other.
        spike = starts[index] if index < len(groups) else duration
        behind = bisect_right(pause_starts, spike)
        first = 0
        if index:
            last_spike = groups[index - 1][-1].start
            first = bisect_right(pause_starts, last_spike)
            if first and pause_ends[first - 1] > last_spike + MAX_LATE:
                first -= 1  # that token's sound is lost in the noise of the pause
            sound_ends = pause_starts[first] if first < behind else spike
            if ends[index - 1] < sound_ends <= ends[index - 1] + MAX_FORWARD:
                ends[index - 1] = sound_ends
        if index < len(groups) and first < behind:
            sound_begins = pause_ends[behind - 1]
            if spike - MAX_BACK <= sound_begins <= spike + MAX_LATE:
                starts[index] = sound_begins
    moved = []
    for group, start, end in zip(groups, starts, ends):
        group[0] = group[0]._replace(start=start)
        group[-1] = group[-1]._replace(end=end)
        moved += group
    return monotone(moved, 0.0, duration)


def find_pauses(waveform: np.ndarray, sample_rate: int) -> tuple[list[float], list[float]]:
    """Finds pauses: runs of frames far below the level of speech.

    Args:
        waveform: mono, of shape ``(samples,)``.
        sample_rate: in Hz.

    Returns:
        The starts and the ends, in order, in seconds.
    """
    samples = max(1, round(sample_rate * FRAME_SECONDS))
    levels = _levels(waveform, samples)
    ordered = np.sort(levels)
    noisy = ordered[ordered > SILENT_DB + 1]
    if not len(noisy):
        return ([0.0], [len(waveform) / sample_rate]) if len(levels) else ([], [])
    speech = ordered[max(int(SPEECH_QUANTILE * (len(ordered) - 1)), len(ordered) - SPEECH_FRAMES)]
    floor = noisy[int(FLOOR_QUANTILE * (len(noisy) - 1))]
    near_floor = min(floor + ABOVE_FLOOR_DB, speech - MIN_BELOW_DB)
    starts, ends = _runs(levels < max(speech - BELOW_SPEECH_DB, near_floor))
    # Sound between two pauses that is as short as a click is part of the pause.
    apart = starts[1:] - ends[:-1] > MAX_CLICK_FRAMES
    if len(starts):
        starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
    long = ends - starts >= MIN_PAUSE_FRAMES
    scale = samples / sample_rate
    return (starts[long] * scale).tolist(), (ends[long] * scale).tolist()


def _levels(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Returns the level of each frame, in dB of full scale.

    Args:
        waveform: of shape ``(samples,)``.
        samples: of a frame.

    Returns:
        Of shape ``(frames,)``.
    """
    frames = len(waveform) // samples
    cut = np.asarray(waveform[: frames * samples], dtype=np.float32).reshape(frames, samples)
    power = np.einsum("fs,fs->f", cut, cut) / samples
    return 10 * np.log10(np.maximum(power, 10 ** (SILENT_DB / 10)))


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the starts of the runs of true values, and their ends (exclusive)."""
    changes = np.diff(np.concatenate(([0], mask.view(np.int8), [0])))
    return np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)
