"""Detects channels that cancel each other in their average.

Where one channel is the other with its sign reversed, as of a balanced line that was wired as two
channels, the average of both holds nothing of what each holds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FRAME_SECONDS = 0.1
WINDOW_FRAMES = 10  # a second
# Frames of a second that must cancel: a short word. A click fills one, or two.
MIN_FRAMES = 3
# Speech has most of its energy below. What a codec keeps of a cancelled voice is mostly above:
# Vorbis, and Opus at a low rate, change the phases there.
BAND_HZ = 1000
TAPS = 5  # samples of the low band in one of the filtered one
# Energy of the sum of the channels, as a part of the sum of their energies: the number of channels
# if they are equal, about 1 if they are independent (0.94 at least in frames of two talkers), and
# 0 if they cancel. Coded by MP3, AAC, Vorbis and Opus, an inverted voice stays below 0.1.
MAX_KEPT = 0.1
# Frames that are quieter than the loud ones by more than 30 dB are pauses, where the hum of a line
# may well cancel.
PAUSE = 1e-3
LOUD_PERCENTILE = 95
QUIETER = 0.1  # a channel with less of the loudest one's energy lacks what is in that one
EQUAL = 0.8  # of the loudest channel's energy; of equal ones the first is taken


class Cancellation(NamedTuple):
    """A part of a recording in which channels cancel.

    Attributes:
        start: of the first such part, in seconds from where reading began.
        end: of the last one, likewise.
        channel: the loudest channel that lacks nothing that another one has; None if each does.
    """

    start: float
    end: float
    channel: int | None


class CancellationDetector:
    """Compares the energy of channels with that of their sum, in frames of a tenth of a second.

    Energies are those of the third difference of the samples below `BAND_HZ`, added to the one
    before: a band around 700 Hz, in which 60 Hz is 50 dB down. The hum of a line, or an offset, is
    often opposite in two channels, and must not hide speech.

    Args:
        rate: of the samples, in Hz.
    """

    def __init__(self, rate: int):
        self._step = max(1, round(rate / (2 * BAND_HZ)))
        self._frame = max(1, round(FRAME_SECONDS * rate / self._step))
        self._frame_seconds = self._frame * self._step / rate
        self._rest: np.ndarray | None = None
        self._low: np.ndarray | None = None
        self._sums: list[np.ndarray] = []
        self._energies: list[np.ndarray] = []

    def add(self, block: np.ndarray) -> None:
        """Adds float32 samples of shape (samples, channels)."""
        if self._rest is not None and len(self._rest):
            block = np.concatenate([self._rest, block])
        channels, steps = block.shape[1], len(block) // self._step
        self._rest = block[steps * self._step :].copy()
        with np.errstate(all="ignore"):  # of infinite samples, which reading refuses
            parts = block[: steps * self._step].reshape(steps, self._step, channels)
            low = np.einsum("spc->sc", parts)  # several times as fast as sum()
            if self._low is not None:
                low = np.concatenate([self._low, low])
            frames = max(0, len(low) - TAPS + 1) // self._frame
            self._measure(low[: frames * self._frame + TAPS - 1], frames)
            self._low = low[frames * self._frame :].copy()

    def _measure(self, low: np.ndarray, frames: int) -> None:
        if not frames:
            return
        difference = np.diff(low, n=3, axis=0)
        band = (difference[1:] + difference[:-1]).reshape(frames, -1, low.shape[1])
        total = np.einsum("fsc->fs", band)
        self._energies.append(np.einsum("fsc,fsc->fc", band, band))
        self._sums.append(np.einsum("fs,fs->f", total, total))

    def finish(self) -> Cancellation | None:
        """Returns where channels cancel; None if they do nowhere."""
        if not self._sums and self._low is not None and len(self._low) >= TAPS:
            self._measure(self._low, 1)  # audio that is shorter than a frame
        if not self._sums:
            return None
        sums, energies = np.concatenate(self._sums), np.concatenate(self._energies)
        loudest = energies.max(axis=1)
        # Of frames with any sound: in a long recording, holes and muted lines may be nearly all.
        sounding = loudest[loudest > 0]
        if not len(sounding):
            return None
        active = loudest > PAUSE * np.percentile(sounding, LOUD_PERCENTILE)
        enough = min(MIN_FRAMES, max(1, int(active.sum())))
        cancels = active & (sums < MAX_KEPT * energies.sum(axis=1))
        if not _is_dense(cancels, enough):
            return None
        lacking = active[:, None] & (energies < QUIETER * loudest[:, None])
        whole = [
            channel
            for channel in range(energies.shape[1])
            if not _is_dense(lacking[:, channel], enough)
        ]
        places = np.flatnonzero(cancels)
        start, end = (float(frame * self._frame_seconds) for frame in (places[0], places[-1] + 1))
        return Cancellation(start, end, _loudest(energies.sum(axis=0), whole))


def _is_dense(marks: np.ndarray, enough: int) -> bool:
    """Returns whether enough frames within some second are marked."""
    return bool(np.convolve(marks, np.ones(WINDOW_FRAMES)).max() > enough - 0.5)


def _loudest(energies: np.ndarray, channels: list[int]) -> int | None:
    if not channels:
        return None
    most = max(energies[channel] for channel in channels)
    return next(channel for channel in channels if energies[channel] >= EQUAL * most)
