"""Cuts long recordings into segments, in pauses and without long silences.

    probabilities of speech --hysteresis--> regions of speech, and the pauses between them
    regions --pauses of more than 2 s are left out--> groups --cuts in pauses--> segments

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
# Silero's thresholds: speech starts at the first, and lasts while the second is exceeded.
_ON, _OFF = 0.5, 0.35


def _frames(seconds: float) -> int:
    return round(seconds * RATE / FRAME_SAMPLES)


# All that follow are in frames of 32 ms.
_SHORT_GAP = 3  # stops within a word, such as before a t, are shorter
_CLICK = 3  # so short and so unlikely is no word
_LIKELY = 0.7
_PAD = _frames(0.25)  # of the pause stays before and after speech: soft beginnings and ends
# A pause of up to 2 s costs the model less than a soft word in it would cost the user, so it stays
# whole; of a longer one only its edges do.
_LONG_PAUSE = _frames(2.0)
_TINY = _frames(1.0)  # a word alone, which a model recognizes badly without its context
_REST = _frames(5.0)  # of a group remains for the last segment, if possible
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
    """Plans segments that together hold all speech, in order.

    Two segments meet at a pause of up to 2 s, and leave out the inside of a longer one.

    Args:
        activity: of the whole recording.
        longest: maximum seconds of a segment, at least 1.

    Raises:
        ValueError: longest is out of its range.
    """
    _check(longest)
    max_frames = math.floor(longest * RATE / FRAME_SAMPLES - 1e-6)  # less, as seconds are rounded
    regions = _regions(activity.speech)
    spans = [
        span
        for group in _group_regions(regions)
        for span in _split(group, activity.level, max_frames)
    ]
    return [
        Segment(
            span.start * FRAME_SAMPLES / RATE,
            min(span.end * FRAME_SAMPLES / RATE, activity.seconds),
            span.overlaps,
        )
        for span in spans
    ]


def plan_fixed(seconds: float, longest: float) -> list[Segment]:
    """Plans overlapping segments of equal length that cover a whole recording, speech or not.

    Args:
        seconds: of the recording.
        longest: maximum seconds of a segment, at least 1.

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
    """Returns each region's first frame, and the one after its last: int of shape (regions, 2).

    Unlike Silero's, a region starts, as it ends, at the lower threshold.
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
    """Returns the maximum probability of each region; between regions it is lower."""
    return np.maximum.reduceat(speech, regions[:, 0]) if len(regions) else np.empty(0)


def _group_regions(regions: np.ndarray) -> Iterator[np.ndarray]:
    """Yields groups of regions without a long pause between them.

    After a word alone the pause may be twice as long, so that the word has context.
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


def _split(regions: np.ndarray, level: np.ndarray, max_frames: int) -> Iterator[_FrameSpan]:
    """Splits a group into spans of at most ``max_frames``, as few and as long as pauses allow."""
    pauses = np.stack([regions[:-1, 1], regions[1:, 0]], axis=1)
    start, last = int(regions[0, 0]) - _PAD, min(int(regions[-1, 1]) + _PAD, len(level))
    start = 0 if start < _PAD else start  # the network is least certain in the first frames
    overlap = min(_frames(OVERLAP), max_frames // 4)
    covered, overlaps = start, False
    while last - start > max_frames:
        reach = start + max_frames
        early = covered + min(_TINY, max_frames // 8)
        late = max(early, start + max_frames // 2)
        before_rest = min(reach, last - min(_REST, max_frames // 4))
        ahead = pauses[np.searchsorted(pauses[:, 0], start, "right") :]
        cut = (
            _pause(ahead, level, late, before_rest)
            or _pause(ahead, level, early, before_rest)
            or _pause(ahead, level, covered, reach)
        )
        if cut is not None:
            yield _FrameSpan(start, cut.end, overlaps)
            covered = start = cut.start
        else:  # a dip may be within a word, so both segments include it, with its surroundings
            early = max(early, start + overlap)
            dip = _dip(level, max(late, early), before_rest) or _dip(level, early, before_rest)
            end = min(dip + overlap // 2, reach) if dip else reach
            yield _FrameSpan(start, end, overlaps)
            covered, start = end, end - overlap
        overlaps = cut is None
    yield _FrameSpan(start, last, overlaps)


def _pause(pauses: np.ndarray, level: np.ndarray, low: int, high: int) -> _Cut | None:
    """Finds the best pause to cut in between two frames: a long one, and late.

    Half a second of pause weighs as much as the whole distance between the two frames.
    """
    among = pauses[np.searchsorted(pauses[:, 1], low) : np.searchsorted(pauses[:, 0], high)]
    starts, ends = np.maximum(among[:, 0], low), np.minimum(among[:, 1], high)
    fits = ends - starts >= _SHORT_GAP
    if not fits.any():
        return None
    length = np.minimum(ends - starts, _FULL_PAUSE) / _FULL_PAUSE
    score = np.where(fits, length + 0.5 * (ends - low) / (high - low), -1)
    best = int(score.argmax())
    if among[best, 1] - among[best, 0] > _LONG_PAUSE:
        return _Cut(min(int(among[best, 0]) + _PAD, high), int(among[best, 1]) - _PAD)
    place = _quietest(level, int(starts[best]), int(ends[best]))
    return _Cut(place, place)


def _quietest(level: np.ndarray, start: int, end: int) -> int:
    """Finds the quietest place within a pause; of equal ones that in the middle."""
    margin = min(_PAD, (end - start) // 3)  # speech starts before and ends after it is detected
    places = np.arange(start + margin, end - margin + 1)
    loudness = (level[places - 1] + level[places]) / 2
    middle = (start + end) / 2
    return int(places[(loudness + 6 * abs(places - middle) / (end - start)).argmin()])


def _dip(level: np.ndarray, low: int, high: int) -> int | None:
    """Finds the middle of the deepest dip between two frames: 100 ms well below those around."""
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
