"""Which pieces of a long recording the model gets: cut in pauses, without long silences.

    probabilities of speech --hysteresis--> regions of speech, and the pauses between them
    regions --pauses of more than 2 s are left out--> stretches --cuts in pauses--> segments

A cut is made at the quietest place of a pause. Where nobody pauses, two segments overlap, around a
place where the level dips, as between words, if there is one; their texts have to be stitched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from beam_asr.audio.vad import FRAME_SAMPLES, RATE, Activity
from beam_asr.records.work import Segment

OVERLAP = 4.0  # s, at most a quarter of the longest segment
MIN_LIMIT = 1.0  # s
# Silero's own thresholds: speech begins at the one, and lasts while the other is kept.
_ON, _OFF = 0.5, 0.35


def _frames(seconds: float) -> int:
    return round(seconds * RATE / FRAME_SAMPLES)


# All that follow are in frames of 32 ms.
_SHORT_GAP = 3  # stops of a word's own sounds, such as before a t, are shorter
_CLICK = 3  # so short and so unlikely is no word
_LIKELY = 0.7
_PAD = _frames(0.25)  # of the pause is kept before and after speech: soft beginnings and ends
# A pause of up to 2 s costs the model less than a soft word in it would cost the user, so it stays
# whole; of a longer one only its edges do.
_LONG_PAUSE = _frames(2.0)
_TINY = _frames(1.0)  # a word alone, which a model hears badly without the words around it
_REST = _frames(5.0)  # of a stretch is left for the last segment, if it can be
_FULL_PAUSE = _frames(1.0)  # a longer one is no better to cut in
_DIP = 3  # the frames of a dip
_DIP_SIDE = _frames(0.5)  # on either side, the level must be higher by
_DIP_DB = 10.0


class _FrameSpan(NamedTuple):
    """A segment in frames."""

    start: int
    end: int
    overlaps: bool


class _Cut(NamedTuple):
    """Where a segment ends, and where the next one starts, in frames."""

    end: int
    start: int


def plan_by_pauses(activity: Activity, longest: float) -> list[Segment]:
    """Segments that together hold all speech, in order.

    Two segments meet at a pause of up to 2 s, and leave out the inside of a longer one.

    Args:
        activity: of the whole recording.
        longest: the most seconds of a segment, at least 1.

    Raises:
        ValueError: longest is out of its range.
    """
    _check(longest)
    most = math.floor(longest * RATE / FRAME_SAMPLES - 1e-6)  # a hair less, as seconds are rounded
    regions = _regions(activity.speech)
    pieces = [
        piece for stretch in _stretches(regions) for piece in _split(stretch, activity.level, most)
    ]
    return [
        Segment(
            piece.start * FRAME_SAMPLES / RATE,
            min(piece.end * FRAME_SAMPLES / RATE, activity.seconds),
            piece.overlaps,
        )
        for piece in pieces
    ]


def plan_fixed(seconds: float, longest: float) -> list[Segment]:
    """Overlapping segments of one length that hold all of a recording, wherever speech is in it.

    Args:
        seconds: of the recording.
        longest: the most seconds of a segment, at least 1.

    Raises:
        ValueError: longest is out of its range.
    """
    _check(longest)
    if seconds <= longest:
        return [Segment(0.0, seconds)] if seconds > 0 else []
    overlap = min(OVERLAP, longest / 4)
    count = math.ceil((seconds - overlap) / (longest - overlap) + 1e-9)  # none a hair too long
    step = (seconds - overlap) / count
    starts = [index * step for index in range(count)]
    ends = [start + overlap for start in starts[1:]] + [seconds]
    return [Segment(start, end, start > 0) for start, end in zip(starts, ends)]


def _check(longest: float) -> None:
    if not (math.isfinite(longest) and longest >= MIN_LIMIT):
        raise ValueError(f"longest={longest} must be a finite number of seconds, 1 or more.")


def _regions(speech: np.ndarray) -> np.ndarray:
    """First frame of each region of speech, and the one after its last: int of shape (regions, 2).

    Unlike Silero's own, a region begins as early as it may end late: at the lower threshold.
    """
    steps = np.diff(np.concatenate([[False], speech >= _OFF, [False]]).astype(np.int8))
    regions = np.stack([np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)], axis=1)
    regions = regions[_peaks(speech, regions) >= _ON]
    if not len(regions):
        return regions
    apart = regions[1:, 0] - regions[:-1, 1] >= _SHORT_GAP
    regions = np.stack(
        [regions[np.append(True, apart), 0], regions[np.append(apart, True), 1]], axis=1
    )
    click = regions[:, 1] - regions[:, 0] < _CLICK
    return regions[~click | (_peaks(speech, regions) >= _LIKELY)]


def _peaks(speech: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The highest probability of each region; what follows each up to the next is lower."""
    return np.maximum.reduceat(speech, regions[:, 0]) if len(regions) else np.empty(0)


def _stretches(regions: np.ndarray) -> Iterator[np.ndarray]:
    """Regions without a long pause between them.

    A word alone takes a pause of up to twice that along, for the sake of the words after it.
    """
    first = 0
    for index in range(1, len(regions)):
        pause = regions[index, 0] - regions[index - 1, 1]
        tiny = regions[index - 1, 1] - regions[first, 0] < _TINY
        if pause > (2 * _LONG_PAUSE if tiny else _LONG_PAUSE):
            yield regions[first:index]
            first = index
    if len(regions):
        yield regions[first:]


def _split(regions: np.ndarray, level: np.ndarray, most: int) -> Iterator[_FrameSpan]:
    """A stretch as pieces of at most so many frames, as few and as long as pauses allow."""
    pauses = np.stack([regions[:-1, 1], regions[1:, 0]], axis=1)
    start, last = int(regions[0, 0]) - _PAD, min(int(regions[-1, 1]) + _PAD, len(level))
    start = 0 if start < _PAD else start  # the first frames tell the network least
    overlap = min(_frames(OVERLAP), most // 4)
    heard, overlaps = start, False
    while last - start > most:
        reach = start + most
        early = heard + min(_TINY, most // 8)
        late = max(early, start + most // 2)
        before_rest = min(reach, last - min(_REST, most // 4))
        ahead = pauses[np.searchsorted(pauses[:, 0], start, "right") :]
        cut = (
            _pause(ahead, level, late, before_rest)
            or _pause(ahead, level, early, before_rest)
            or _pause(ahead, level, heard, reach)
        )
        if cut is not None:
            yield _FrameSpan(start, cut.end, overlaps)
            heard = start = cut.start
        else:  # a dip may be within a word, so that both segments hear it, with what is around
            early = max(early, start + overlap)
            dip = _dip(level, max(late, early), before_rest) or _dip(level, early, before_rest)
            end = min(dip + overlap // 2, reach) if dip else reach
            yield _FrameSpan(start, end, overlaps)
            heard, start = end, end - overlap
        overlaps = cut is None
    yield _FrameSpan(start, last, overlaps)


def _pause(pauses: np.ndarray, level: np.ndarray, low: int, high: int) -> _Cut | None:
    """The best pause to cut in between two frames: a long one, and late.

    Half a second of pause is worth as much as all of the way from the one frame to the other.
    """
    among = pauses[np.searchsorted(pauses[:, 1], low) : np.searchsorted(pauses[:, 0], high)]
    begins, ends = np.maximum(among[:, 0], low), np.minimum(among[:, 1], high)
    fits = ends - begins >= _SHORT_GAP
    if not fits.any():
        return None
    length = np.minimum(ends - begins, _FULL_PAUSE) / _FULL_PAUSE
    score = np.where(fits, length + 0.5 * (ends - low) / (high - low), -1)
    best = int(score.argmax())
    if among[best, 1] - among[best, 0] > _LONG_PAUSE:
        return _Cut(min(int(among[best, 0]) + _PAD, high), int(among[best, 1]) - _PAD)
    place = _quietest(level, int(begins[best]), int(ends[best]))
    return _Cut(place, place)


def _quietest(level: np.ndarray, begin: int, end: int) -> int:
    """The quietest place within a pause; of equal ones that in the middle."""
    margin = min(_PAD, (end - begin) // 3)  # speech begins before and ends after it is detected
    places = np.arange(begin + margin, end - margin + 1)
    loudness = (level[places - 1] + level[places]) / 2
    middle = (begin + end) / 2
    return int(places[(loudness + 6 * abs(places - middle) / (end - begin)).argmin()])


def _dip(level: np.ndarray, low: int, high: int) -> int | None:
    """The middle of the deepest dip between two frames: 100 ms well below what is around."""
    if high - low < _DIP:
        return None
    near = level[np.clip(np.arange(low - _DIP_SIDE, high + _DIP_SIDE), 0, len(level) - 1)]
    loudest = np.lib.stride_tricks.sliding_window_view(near, _DIP_SIDE).max(axis=1)
    before, after = loudest[: high - low], loudest[_DIP_SIDE + 1 :]
    depth = np.minimum(before, after) - near[_DIP_SIDE:-_DIP_SIDE]
    shallowest = np.lib.stride_tricks.sliding_window_view(depth, _DIP).min(axis=1)
    best = int(shallowest.argmax())
    if shallowest[best] < _DIP_DB:
        return None
    return low + best + _DIP // 2
