"""One transcript of the parts that a long recording was cut into.

Where no pause was found to cut at, two parts overlap, and both heard the words there. Those at the
edge of a part are often wrong, since they were cut or lack their context. So the one is left for
the other at a word on which they agree, as near as can be to the middle of what both heard.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from beam_asr.transcripts import words
from beam_asr.transcripts.words import Token

AGREE_SECONDS = 0.4  # between the times at which two parts heard the same word
EDGE_SECONDS = 0.6  # so near to its edge, a part is not believed what it alone heard
ALONE_SECONDS = 0.15  # so far from each word of the other part, a word was heard by one alone


class SegmentText(NamedTuple):
    """What was heard in one part of a recording.

    Attributes:
        start: seconds in the recording.
        end: seconds in the recording.
        overlaps: whether it begins before the end of the part before it, and both heard what is
            between.
        text: the transcript.
        tokens: with times in the recording, and joined they are the text; None where the model
            tells no times.
    """

    start: float
    end: float
    overlaps: bool
    text: str
    tokens: list[Token] | None


class Stitched(NamedTuple):
    """The transcript of a recording.

    Attributes:
        text: the transcript.
        tokens: with times in the recording; None if any part with a text has none.
    """

    text: str
    tokens: list[Token] | None


class TimedWord(NamedTuple):
    """A word, which is kept or left as a whole.

    Attributes:
        key: by which it is compared.
        start: seconds.
        end: seconds.
        tokens: of it.
    """

    key: str
    start: float
    end: float
    tokens: list[Token]

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def stitch(parts: Sequence[SegmentText]) -> Stitched:
    """Joins the transcripts of parts, in order of their starts.

    Parts that do not overlap are joined as they are, with a space if their script writes one. Where
    two overlap, each word that was heard twice is there once.
    """
    heard: list[TimedWord] = []
    before: SegmentText | None = None
    for part in parts:
        units = _units(part)
        twice = part.overlaps and before is not None and before.end > part.start
        if before is None or not (twice and before.text.strip() and units):
            heard += units
        else:
            timed = bool(part.tokens and before.tokens)
            tolerance = AGREE_SECONDS if timed else max(AGREE_SECONDS, before.end - part.start)
            near = len(heard)
            while near and heard[near - 1].end > part.start - tolerance:
                near -= 1
            heard[near:] = _spliced(heard[near:], units, part.start, before.end, tolerance, timed)
        before = part
    tokens: list[Token] = []
    for unit in heard:
        # Its own space may be missing where another part's word comes before it now.
        first, *others = unit.tokens
        text = first.text.strip()
        if tokens and first.text[0].isspace():
            text = first.text
        elif tokens and words.needs_space(tokens[-1].text, text):
            text = f" {text}"
        tokens += [first._replace(text=text), *others]
    text = "".join(token.text for token in tokens)
    if any(part.tokens is None and part.text.strip() for part in parts):
        return Stitched(text, None)
    earliest, latest = (parts[0].start, max(part.end for part in parts)) if parts else (0.0, 0.0)
    return Stitched(text, words.monotone(tokens, earliest, latest))


def _units(part: SegmentText) -> list[TimedWord]:
    text, tokens = part.text.strip(), part.tokens
    if not tokens:
        tokens = words.spread(text, part.start, part.end)
    return [
        TimedWord(
            _key("".join(token.text for token in group)),
            group[0].start,
            group[-1].end,
            group,
        )
        for group in words.by_word(tokens)
    ]


def _key(word: str) -> str:
    """What of a word is compared: letters and digits, in one case."""
    plain = unicodedata.normalize("NFKC", word).casefold()
    kept = "".join(c for c in plain if c.isalnum() or unicodedata.category(c).startswith("M"))
    return kept or word.strip()


def _spliced(
    left: list[TimedWord],
    right: list[TimedWord],
    start: float,
    end: float,
    tolerance: float,
    timed: bool,
) -> list[TimedWord]:
    """The words of two parts that overlap, those that both heard once.

    Args:
        left: the words so far that are near the overlap, or in it.
        right: the words of the part that comes now.
        start: of the overlap, in seconds: the edge of the right part.
        end: of the overlap, in seconds: the edge of the left part.
        tolerance: seconds between the times at which both heard the same word.
        timed: whether both know the times of their words.
    """
    middle = (start + end) / 2
    near = [unit for unit in right if unit.start < end + tolerance]
    pairs = _agreement(left, near, tolerance, timed)
    if pairs:
        times = [(left[i].middle + right[j].middle) / 2 for i, j in pairs]
        nearest = min(range(len(pairs)), key=lambda index: abs(times[index] - middle))
        of_left, of_right = pairs[nearest]
        # The word itself comes from the part that heard it among words that were heard twice, or
        # whose edge is farther away.
        follows = (of_left + 1, of_right + 1) in pairs
        precedes = (of_left - 1, of_right - 1) in pairs
        if follows if follows != precedes else times[nearest] <= middle:
            of_left, of_right = of_left + 1, of_right + 1
    else:
        of_left, of_right = _cut_by_time(left, right, middle)
    kept_left, kept_right = left[:of_left], right[of_right:]
    # What one part alone heard, and not at its edge, stays.
    alone = [
        unit
        for unit in left[of_left:]
        if unit.middle < end - EDGE_SECONDS and _is_alone(unit, right)
    ] + [
        unit
        for unit in right[:of_right]
        if unit.middle > start + EDGE_SECONDS and _is_alone(unit, left)
    ]
    return _merged(kept_left, alone, kept_right)


def _agreement(
    left: list[TimedWord], right: list[TimedWord], tolerance: float, timed: bool
) -> list[tuple[int, int]]:
    """The words that two parts have in common, in order: pairs of indices.

    A longest common subsequence, in which a pair counts the more the nearer its times are. So in
    "no no no no" it is the same "no" that is paired, even if more pairs could be had. Where times
    are not known, pairs count first.
    """

    def worth(one: TimedWord, other: TimedWord) -> float:
        apart = abs(one.middle - other.middle)
        if one.key != other.key or apart >= tolerance:
            return 0.0
        near = 1 - apart / tolerance
        return near**2 if timed else 1 + near

    rows, columns = len(left), len(right)
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            skip = max(best[i + 1][j], best[i][j + 1])
            gain = worth(left[i], right[j])
            best[i][j] = max(skip, gain + best[i + 1][j + 1]) if gain else skip
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs


def _cut_by_time(left: list[TimedWord], right: list[TimedWord], at: float) -> tuple[int, int]:
    """How many words of the left are before a time, and how many of the right.

    A word that the time falls into is heard from one part, whole.
    """
    across = next((unit for unit in reversed(left) if unit.start < at < unit.end), None)
    if across is not None:
        at = across.end
    else:
        across = next((unit for unit in right if unit.start < at < unit.end), None)
        if across is not None:
            at = across.start
    return (
        sum(unit.middle < at for unit in left),
        sum(unit.middle < at for unit in right),
    )


def _is_alone(unit: TimedWord, others: list[TimedWord]) -> bool:
    """Whether no word of the other part is near the time of this one."""
    first, last = unit.start - ALONE_SECONDS, unit.end + ALONE_SECONDS
    return not any(other.start < last and other.end > first for other in others)


def _merged(
    left: list[TimedWord], alone: list[TimedWord], right: list[TimedWord]
) -> list[TimedWord]:
    """The words of the left and of the right, those between them put in by their times."""
    merged = [*left, *right]
    for unit in alone:
        later = (index for index, other in enumerate(merged) if other.middle > unit.middle)
        merged.insert(next(later, len(merged)), unit)
    return merged
