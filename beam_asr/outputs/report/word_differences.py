"""Aligns the words of two texts, and says how they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

SAME, DELETED, INSERTED = "=", "-", "+"
MAX_WORDS = 400  # of a row that a page shows
MAX_CHARACTERS = 6000


class Edit(NamedTuple):
    """Describes a stretch of two texts.

    Attributes:
        kind: ``equal``, ``replace``, ``delete`` or ``insert``.
        expected, recognized: its words in the one and the other text; as many for ``replace``.
    """

    kind: str
    expected: Sequence[str]
    recognized: Sequence[str]


def edits(expected: Sequence[str], recognized: Sequence[str]) -> Iterator[Edit]:
    """Yields how one text becomes the other, with the least words changed, as jiwer counts them."""
    from rapidfuzz.distance import Levenshtein

    for code in Levenshtein.opcodes(expected, recognized):
        changed = recognized[code.dest_start : code.dest_end]
        yield Edit(code.tag, expected[code.src_start : code.src_end], changed)


def errors(expected: Sequence[str], recognized: Sequence[str]) -> int:
    """Returns the least number of words that are substituted, deleted and inserted."""
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(expected, recognized))


def pieces(expected: Sequence[str], recognized: Sequence[str]) -> list[list[str]]:
    """Returns the differences for a page: ``[kind, text]``, of a long text its beginning.

    Kinds are `SAME`, `DELETED` (of the first text alone) and `INSERTED` (of the second alone).
    """
    found: list[list[str]] = []
    for edit in edits(expected[:MAX_WORDS], recognized[:MAX_WORDS]):
        if edit.kind == "equal":
            found.append([SAME, " ".join(edit.expected)])
            continue
        if edit.expected:
            found.append([DELETED, " ".join(edit.expected)])
        if edit.recognized:
            found.append([INSERTED, " ".join(edit.recognized)])
    left = max(len(expected), len(recognized)) - MAX_WORDS
    if left > 0:
        found.append([SAME, f"… ({left:,} further words)"])
    return [[kind, text[:MAX_CHARACTERS]] for kind, text in found]
