"""Turns timed words into captions: the text, the line breaks and the times of cues.

The rules are common among broadcasters: two lines of 42 characters, at most seven seconds, and
enough time to read. The ends of cues are chosen over the whole text at once, as line breaks in a
paragraph: with the minimum sum of costs.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from beam_asr.transcripts.words import CLOSING, PAUSE_SECONDS, SENTENCE_ENDS, ends_with_any

LINE = 42  # cells; a character of Chinese, Japanese or Korean takes two
SPEED = 17.0  # cells a second that are easy to read
MIN_SECONDS = 1.0  # of a cue, where the next one leaves room
MAX_SECONDS = 7.0  # of a cue

CLAUSE_ENDS = ",;:、，；：،؛–—"  # noqa: RUF001
# Characters that begin no line in text without spaces: marks, small kana, the long vowel.
NEVER_FIRST = frozenset(
    SENTENCE_ENDS + CLAUSE_ENDS + CLOSING + "ーぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ々"
)

# Costs. Each cue costs 1.
PLAIN_BREAK = 1.5  # between two words of a clause
CLAUSE_BREAK = 0.5
AFTER_SHORT_WORD = 0.3  # articles, prepositions and conjunctions are short in most languages
BEFORE_MARK = 3.0
HELD_SENTENCE = 0.3  # the end of a sentence within a cue
HELD_PAUSE = 2.0  # a second of silence there, which shows words before they are said
UNFILLED = 0.7  # an empty cue; it grows by the square, so that neighbors are equally full
ORPHAN = 1.0
ORPHAN_CELLS = 10
SHORT_WORD = 3  # characters
LOOK_AHEAD = 64  # characters of the text in which a word is searched

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff]")


class Cue(NamedTuple):
    """Holds the text that is shown together.

    Attributes:
        start: seconds, in whole milliseconds.
        end: seconds, in whole milliseconds, above ``start``.
        lines: one or two.
    """

    start: float
    end: float
    lines: list[str]


class CaptionWord(NamedTuple):
    """Holds a word with what precedes it in the text.

    Attributes:
        text: the word, on one line, not empty.
        start: seconds.
        end: seconds.
        glue: a space, or empty where the word directly follows the previous one in the text.
    """

    text: str
    start: float
    end: float
    glue: str


def caption_words(words: Iterable[Mapping[str, Any]], text: str = "") -> list[CaptionWord]:
    """Returns words that can be written, joined as they are in the text.

    Removes control characters and line breaks, and words of nothing else. Words that are not found
    in the text are separated by spaces.

    Args:
        words: each with ``word``, ``start`` and ``end``, in seconds.
        text: the text of the words.
    """
    result: list[CaptionWord] = []
    position = 0
    for word in words:
        raw = word["word"].strip()
        clean = one_line(raw)
        if not clean:
            continue
        at = text.find(raw, position, position + len(raw) + LOOK_AHEAD)
        glue = " " if result else ""
        if at >= 0:
            if at == position:
                glue = ""
            position = at + len(raw)
        result.append(CaptionWord(clean, float(word["start"]), float(word["end"]), glue))
    return result


def one_line(text: str) -> str:
    """Returns a text without line breaks and control characters, with single spaces."""
    return " ".join(CONTROL.sub("", text).split())


def join_words(words: Sequence[CaptionWord]) -> str:
    """Returns the text of consecutive words."""
    return "".join(word.glue + word.text for word in words)[len(words[0].glue) :] if words else ""


def separate(times: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Returns spans in milliseconds that are not empty and do not overlap.

    A span that overlaps the next one ends where that begins; spans that begin at the same time last
    a millisecond each, and the later ones are late.

    Args:
        times: start and end of each, in seconds, by start.
    """
    spans: list[tuple[int, int]] = []
    free = 0
    for number, (start, end) in enumerate(times):
        first = max(round(1000 * start), free)
        last = round(1000 * end)
        if number + 1 < len(times):
            last = min(last, round(1000 * times[number + 1][0]))
        free = max(last, first + 1)
        spans.append((first, free))
    return spans


def cues(words: Iterable[Mapping[str, Any]], text: str = "") -> list[Cue]:
    """Returns the captions of words, by start, in time proportional to their number.

    A cue ends at the end of a sentence or at a pause if possible, else at that of a clause, and
    cues are about equally full otherwise. It has at most two lines of `LINE` cells; only a longer
    word without a place to break, such as a URL, has a longer line, alone. It begins with its first
    word, lasts at most `MAX_SECONDS`, and stays in the silence after its last word as long as its
    text takes to read, or `MIN_SECONDS`.

    Args:
        words: each with ``word``, ``start`` and ``end``, in seconds, by start.
        text: the text of the words, which shows the words without a space between them.
    """
    pieces = [piece for word in caption_words(words, text) for piece in _pieces(word)]
    if not pieces:
        return []
    row = _Row(pieces)
    breaks = _best_breaks(row)
    times = []
    for first, end in breaks:
        begin = pieces[first].start
        reading_seconds = max(MIN_SECONDS, row.cells(first, end) / SPEED)
        times.append(
            (begin, min(max(pieces[end - 1].end, begin + reading_seconds), begin + MAX_SECONDS))
        )
    return [
        Cue(start / 1000, end / 1000, row.lines(*span))
        for (start, end), span in zip(separate(times), breaks, strict=True)
    ]


def _is_wide(character: str) -> bool:
    return character > "\u1100" and unicodedata.east_asian_width(character) in "WF"


def _cells(text: str) -> int:
    return len(text) if text.isascii() else len(text) + sum(map(_is_wide, text))


def _pieces(word: CaptionWord) -> list[CaptionWord]:
    """Returns a word, or the pieces of one that is too long for a line.

    Chinese and Japanese may come as one word a sentence. All pieces last the same time.
    """
    if _cells(word.text) <= LINE or not any(map(_is_wide, word.text)):
        return [word]
    texts: list[str] = []
    for character in word.text:
        joins = character in NEVER_FIRST or unicodedata.category(character).startswith("M")
        wide = not texts or _is_wide(character) or _is_wide(texts[-1][-1])
        if wide and not (joins and texts):
            texts.append(character)
        else:
            texts[-1] += character
    seconds = (word.end - word.start) / len(texts)
    return [
        CaptionWord(
            text,
            word.start + number * seconds,
            word.start + (number + 1) * seconds,
            "" if number else word.glue,
        )
        for number, text in enumerate(texts)
    ]


class _Row:
    """Holds all words in one row, and the costs of breaks between them.

    Attributes:
        words: the words.
        begins: the cell at which each begins.
        ends: the cell after each.
        breaks: the cost of a break before each word, and after the last.
        held: the sum of the costs of no break before any word up to each.
        reach: for each word, the word before which a line that begins with it ends at the latest.
    """

    def __init__(self, words: list[CaptionWord]):
        self.words = words
        self.begins: list[int] = []
        self.ends: list[int] = []
        self.breaks = [0.0]
        self.held = [0.0]
        cell = 0
        for word in words:
            self.begins.append(cell + len(word.glue))
            cell = self.begins[-1] + _cells(word.text)
            self.ends.append(cell)
        for before, after in itertools.pairwise(words):
            cost, held = _cost(before, after)
            self.breaks.append(cost)
            self.held.append(self.held[-1] + held)
        self.breaks.append(0.0)
        self.held.append(self.held[-1])
        self.reach = [
            max(bisect.bisect_right(self.ends, begin + LINE), number + 1)
            for number, begin in enumerate(self.begins)
        ] + [len(words)]

    def cells(self, first: int, end: int) -> int:
        return self.ends[end - 1] - self.begins[first]

    def lines(self, first: int, end: int) -> list[str]:
        """Returns the words as one line, or as two with the break of the least cost."""
        if end <= self.reach[first]:
            return [join_words(self.words[first:end])]
        places = [at for at in range(first + 1, self.reach[first] + 1) if self.reach[at] >= end]
        at = min(places, key=lambda at: self._line_cost(first, at, end))
        return [join_words(self.words[first:at]), join_words(self.words[at:end])]

    def _line_cost(self, first: int, at: int, end: int) -> float:
        unequal = abs(self.cells(first, at) - self.cells(at, end)) / LINE
        orphan = min(self.cells(first, at), self.cells(at, end)) < ORPHAN_CELLS
        return 2 * unequal + self.breaks[at] + ORPHAN * orphan


def _cost(before: CaptionWord, after: CaptionWord) -> tuple[float, float]:
    """Returns the cost of a break between two words, and of no break."""
    pause = max(after.start - before.end, 0.0)
    if ends_with_any(before.text, SENTENCE_ENDS):
        cost, held = 0.0, HELD_SENTENCE
    elif ends_with_any(before.text, CLAUSE_ENDS):
        cost, held = CLAUSE_BREAK, 0.0
    else:
        cost, held = PLAIN_BREAK, 0.0
        if after.glue and len(before.text) <= SHORT_WORD:
            cost += AFTER_SHORT_WORD
    cost *= max(1.0 - pause / PAUSE_SECONDS, 0.0)
    if after.text[0] in NEVER_FIRST and not after.glue:
        cost += BEFORE_MARK
    return cost, held + (HELD_PAUSE * pause if pause > PAUSE_SECONDS / 2 else 0.0)


def _best_breaks(row: _Row) -> list[tuple[int, int]]:
    """Returns the cues of the least cost: the first word of each, and the word after its last."""
    words, begins, ends, breaks, held = row.words, row.begins, row.ends, row.breaks, row.held
    count = len(words)
    best = [0.0] + [math.inf] * count  # cost of all cues up to a word
    cue_starts = [0] * (count + 1)
    for first in range(count):
        start = words[first].start
        base = best[first] + 1.0 - held[first]
        for end in range(first + 1, row.reach[row.reach[first]] + 1):
            if words[end - 1].end > start + MAX_SECONDS and end > first + 1:
                break
            cells = ends[end - 1] - begins[first]
            cost = base + held[end - 1] + breaks[end] + UNFILLED * (1 - cells / (2 * LINE)) ** 2
            if cells < ORPHAN_CELLS:
                cost += ORPHAN
            if end < count:
                lack = max(MIN_SECONDS, cells / SPEED) - (words[end].start - start)
                if lack > 0:
                    cost += lack
            if cost < best[end]:
                best[end], cue_starts[end] = cost, first
    spans = []
    end = count
    while end:
        spans.append((cue_starts[end], end))
        end = cue_starts[end]
    return spans[::-1]


def clock(seconds: float, mark: str) -> str:
    """Returns hours, of two digits or more, minutes, seconds and, after a mark, milliseconds."""
    rest, milliseconds = divmod(round(1000 * seconds), 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    return f"{hour:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
