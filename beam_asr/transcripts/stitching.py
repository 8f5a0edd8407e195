"""Joins the transcripts of the segments of a long recording.

Where there was no pause to cut at, two segments overlap, and both have the words there. Words at
the edge of a segment are often wrong, since they were cut or lack their context. So the transcript
switches from one to the other at a word on which they agree, as near as possible to the middle of
the overlap.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from beam_asr.transcripts import words
from beam_asr.transcripts.words import Token

AGREE_SECONDS = 0.4  # maximum, between the times of the same word in two segments
EDGE_SECONDS = 0.6  # from a segment's edge; a word so near, which only it has, is dropped
ALONE_SECONDS = 0.15  # minimum, from all words of the other segment, of a word that only one has


class SegmentText(NamedTuple):
    """Holds the transcript of a segment of a recording.

    Attributes:
        start: seconds in the recording.
        end: seconds in the recording.
        overlaps: whether it starts before the end of the segment before it, so that both have the
            words between.
        text: the transcript.
        tokens: with times in the recording, and joined they are the text; None if the model has no
            times.
    """

    start: float
    end: float
    overlaps: bool
    text: str
    tokens: list[Token] | None


class Stitched(NamedTuple):
    """Holds the transcript of a recording.

    Attributes:
        text: the transcript.
        tokens: with times in the recording; None if any segment with a text has none.
    """

    text: str
    tokens: list[Token] | None


class TimedWord(NamedTuple):
    """Holds a word, which is kept or dropped as a whole.

    Attributes:
        key: the form that is compared.
        start: seconds.
        end: seconds.
        tokens: of the word.
    """

    key: str
    start: float
    end: float
    tokens: list[Token]

    @property
    def middle(self) -> float:
        """Returns the middle of its time, in seconds."""
        return (self.start + self.end) / 2


def stitch(segments: Sequence[SegmentText]) -> Stitched:
    """Joins the transcripts of segments, in order of their starts.

    Segments that do not overlap are joined as they are, with a space if their script writes one.
    Where two overlap, each word that both have is there once.
    """
    joined: list[TimedWord] = []
    before: SegmentText | None = None
    for segment in segments:
        segment_words = _timed_words(segment)
        twice = segment.overlaps and before is not None and before.end > segment.start
        if before is None or not (twice and before.text.strip() and segment_words):
            joined += segment_words
        else:
            timed = bool(segment.tokens and before.tokens)
            tolerance = AGREE_SECONDS if timed else max(AGREE_SECONDS, before.end - segment.start)
            near = len(joined)
            while near and joined[near - 1].end > segment.start - tolerance:
                near -= 1
            joined[near:] = _spliced(
                joined[near:], segment_words, segment.start, before.end, tolerance, timed
            )
        before = segment
    tokens: list[Token] = []
    for word in joined:
        # Its space may be missing where another segment's word comes before it now.
        first, *others = word.tokens
        text = first.text.strip()
        if tokens and first.text[0].isspace():
            text = first.text
        elif tokens and words.needs_space(tokens[-1].text, text):
            text = f" {text}"
        tokens += [first._replace(text=text), *others]
    text = "".join(token.text for token in tokens)
    if any(segment.tokens is None and segment.text.strip() for segment in segments):
        return Stitched(text, None)
    earliest, latest = (
        (segments[0].start, max(segment.end for segment in segments)) if segments else (0.0, 0.0)
    )
    return Stitched(text, words.monotone(tokens, earliest, latest))


def _timed_words(segment: SegmentText) -> list[TimedWord]:
    text, tokens = segment.text.strip(), segment.tokens
    if not tokens:
        tokens = words.spread(text, segment.start, segment.end)
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
    """Returns the form of a word that is compared: letters and digits, in one case."""
    plain = unicodedata.normalize("NFKC", word).casefold()
    letters = "".join(c for c in plain if c.isalnum() or unicodedata.category(c).startswith("M"))
    return letters or word.strip()


def _spliced(
    left: list[TimedWord],
    right: list[TimedWord],
    start: float,
    end: float,
    tolerance: float,
    timed: bool,
) -> list[TimedWord]:
    """Joins the words of two segments that overlap, with those that both have once.

    Args:
        left: the words so far that are near the overlap, or in it.
        right: the words of the next segment.
        start: of the overlap, in seconds: the edge of the right segment.
        end: of the overlap, in seconds: the edge of the left segment.
        tolerance: maximum seconds between the times of the same word in both.
        timed: whether both have times of their words.
    """
    middle = (start + end) / 2
    near = [word for word in right if word.start < end + tolerance]
    pairs = _agreement(left, near, tolerance, timed)
    if pairs:
        times = [(left[i].middle + right[j].middle) / 2 for i, j in pairs]
        nearest = min(range(len(pairs)), key=lambda index: abs(times[index] - middle))
        left_end, right_start = pairs[nearest]
        # The word itself comes from the segment where its neighbors are shared too, or whose edge
        # is farther away.
        follows = (left_end + 1, right_start + 1) in pairs
        precedes = (left_end - 1, right_start - 1) in pairs
        if follows if follows != precedes else times[nearest] <= middle:
            left_end, right_start = left_end + 1, right_start + 1
    else:
        left_end, right_start = _cut_by_time(left, right, middle)
    left_words, right_words = left[:left_end], right[right_start:]
    # Words that only one segment has, and not at its edge, stay.
    alone = [
        word
        for word in left[left_end:]
        if word.middle < end - EDGE_SECONDS and _is_alone(word, right)
    ] + [
        word
        for word in right[:right_start]
        if word.middle > start + EDGE_SECONDS and _is_alone(word, left)
    ]
    return _merged(left_words, alone, right_words)


def _agreement(
    left: list[TimedWord], right: list[TimedWord], tolerance: float, timed: bool
) -> list[tuple[int, int]]:
    """Finds the words that two segments share: pairs of indices, in order.

    It is a longest common subsequence, in which a pair counts the more the nearer its times are. So
    in "no no no no" the same "no" is paired, even if more pairs were possible. Where times are not
    known, the number of pairs counts first.
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
    """Counts the words of the left before a time, and those of the right.

    A word across that time is taken whole from one segment.
    """
    across = next((word for word in reversed(left) if word.start < at < word.end), None)
    if across is not None:
        at = across.end
    else:
        across = next((word for word in right if word.start < at < word.end), None)
        if across is not None:
            at = across.start
    return (
        sum(word.middle < at for word in left),
        sum(word.middle < at for word in right),
    )


def _is_alone(word: TimedWord, others: list[TimedWord]) -> bool:
    """Tells whether no word of the other segment is near the time of this one."""
    first, last = word.start - ALONE_SECONDS, word.end + ALONE_SECONDS
    return not any(other.start < last and other.end > first for other in others)


def _merged(
    left: list[TimedWord], alone: list[TimedWord], right: list[TimedWord]
) -> list[TimedWord]:
    """Joins the words of the left and the right, and inserts those between by their times."""
    merged = [*left, *right]
    for word in alone:
        later = (index for index, other in enumerate(merged) if other.middle > word.middle)
        merged.insert(next(later, len(merged)), word)
    return merged
