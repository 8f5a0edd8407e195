"""Counts punctuation marks and capitals of transcripts that are other than the references'."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

MARKS = ".,!?"
_MASK = "[PUNCT]"  # stands for any mark, as in NeMo
_TOKEN = re.compile(rf"[\w']+|[{re.escape(MARKS)}]")
_WORD = re.compile(r"[\w'\u2019]+")


def punctuation_counts(reference: str, hypothesis: str) -> tuple[int, int, int, int]:
    """Returns how many marks are right, and how many are substituted, deleted and inserted.

    They are those of ``OccurancePunctuationErrorRate`` of NeMo 3.0.0
    (``nemo.collections.common.metrics.punct_er``) with the marks `MARKS`: words and marks are
    aligned, a mark with any mark, and of equally good alignments NeMo's is taken: from the end, a
    substitution before an insertion before a deletion. NeMo keeps the whole table of costs; this
    keeps a part of it, since an hour of speech has a table of 80 million.
    """
    said, recognized = _TOKEN.findall(reference), _TOKEN.findall(hypothesis)
    marks_said = sum(token in MARKS for token in said)
    marks_recognized = sum(token in MARKS for token in recognized)
    right = substituted = 0
    if marks_said and marks_recognized:
        for first, second in _equal_pairs(list(map(_masked, said)), list(map(_masked, recognized))):
            if said[first] in MARKS:
                right += said[first] == recognized[second]
                substituted += said[first] != recognized[second]
    matched = right + substituted
    return right, substituted, marks_said - matched, marks_recognized - matched


def capital_counts(reference: str, hypothesis: str) -> tuple[int, int]:
    """Returns how many words have the right capitals, and how many do not.

    They are the words that both texts have, whatever their case, and of which at least one is
    written with a capital. Words that were not recognized count for the WER alone.
    """
    import jiwer

    said = _WORD.findall(unicodedata.normalize("NFC", reference))
    recognized = _WORD.findall(unicodedata.normalize("NFC", hypothesis))
    if not (said and recognized):
        return 0, 0
    folded, others = (" ".join(words).casefold() for words in (said, recognized))
    (chunks,) = jiwer.process_words(folded, others).alignments
    right = wrong = 0
    for chunk in chunks:
        if chunk.type != "equal":
            continue
        first = said[chunk.ref_start_idx : chunk.ref_end_idx]
        second = recognized[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for one, other in zip(first, second, strict=True):
            if one != other:
                wrong += 1
            elif one != one.lower():
                right += 1
    return right, wrong


def _masked(token: str) -> str:
    return _MASK if token in MARKS else token


def _equal_pairs(said: Sequence[str], recognized: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields the places of tokens that NeMo's alignment takes for equal, from the end."""
    import numpy as np

    numbers = {token: number for number, token in enumerate(dict.fromkeys([*said, *recognized]))}
    tokens = [numbers[token] for token in said]
    others = np.array([numbers[token] for token in recognized], np.int64)
    block = math.isqrt(len(tokens)) + 1  # rows of costs that are kept, and that are made again
    starts = [np.arange(len(others) + 1)]
    for end in range(block, len(tokens), block):
        starts.append(_rows(starts[-1], tokens[end - block : end], others)[-1])
    column = len(others)
    for number in reversed(range(len(starts))):
        first = number * block
        costs = _rows(starts[number], tokens[first : first + block], others)
        row = len(costs) - 1
        while row and column:
            if tokens[first + row - 1] == others[column - 1]:
                row, column = row - 1, column - 1
                yield first + row, column
            elif costs[row][column] == costs[row - 1][column - 1] + 1:
                row, column = row - 1, column - 1
            elif costs[row][column] == costs[row][column - 1] + 1:
                column -= 1
            else:
                row -= 1


def _rows(start: np.ndarray, tokens: Sequence[int], others: np.ndarray) -> list[np.ndarray]:
    """Returns a row of the table of edit costs, and those of these tokens below it."""
    import numpy as np

    rows = [start]
    steps = np.arange(len(start))
    for token in tokens:
        above = rows[-1]
        row = above + 1  # a deletion
        np.minimum(row[1:], above[:-1] + (others != token), out=row[1:])
        rows.append(np.minimum.accumulate(row - steps) + steps)  # or insertions from the left
    return rows
