"""Counts which words are confused, left out, made up, and never recognized."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

from beam_asr.outputs.report.samples import BoundedCounter
from beam_asr.outputs.report.word_differences import edits
from beam_asr.transcripts.intervals import interval, squares


class WordStatistics:
    """Counts words of references and of transcripts, both normalized.

    Attributes:
        rows: with a reference.
        silent_rows: those in which, by their reference, nothing was said, and that have a text.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.silent_rows = 0
        self._said: BoundedCounter[str] = BoundedCounter()
        self._missed: BoundedCounter[str] = BoundedCounter()
        self._confused: BoundedCounter[tuple[str, str]] = BoundedCounter()
        self._left_out: BoundedCounter[str] = BoundedCounter()
        self._made_up: BoundedCounter[str] = BoundedCounter()
        self._in_silence: BoundedCounter[str] = BoundedCounter()
        self._words = self._errors = 0
        self._sums = [0, 0, 0]  # for the interval of the error rate

    def add(self, expected: Sequence[str], recognized: Sequence[str]) -> None:
        """Counts the words of a row."""
        self.rows += 1
        wrong = 0
        if expected == recognized:
            self._said.update(expected)
        else:
            wrong = self._add_edits(expected, recognized)
        if recognized and not expected:
            self.silent_rows += 1
            self._in_silence.update(recognized)
        self._words += len(expected)
        self._errors += wrong
        self._sums = list(map(operator.add, self._sums, squares(wrong, len(expected))))

    def _add_edits(self, expected: Sequence[str], recognized: Sequence[str]) -> int:
        wrong = 0
        self._said.update(expected)
        for edit in edits(expected, recognized):
            if edit.kind == "equal":
                continue
            wrong += max(len(edit.expected), len(edit.recognized))
            self._missed.update(edit.expected)
            if edit.kind == "replace":
                self._confused.update(zip(edit.expected, edit.recognized))
            elif edit.kind == "delete":
                self._left_out.update(edit.expected)
            else:
                self._made_up.update(edit.recognized)
        return wrong

    def margin(self, rows: int) -> float | None:
        """Returns half of the 95 % interval of the error rate of a number of rows like these."""
        limits = interval(self.rows, self._errors, self._words, self._sums)
        if limits is None:
            return None
        return (limits[1] - self._errors / self._words) * (self.rows / rows) ** 0.5

    def confusions(self, most: int = 50) -> list[dict[str, Any]]:
        """Returns the pairs of words that are most often confused."""
        return [
            {"expected": expected, "recognized": recognized, "count": count}
            for (expected, recognized), count in _top(self._confused.counts, most)
        ]

    def never_recognized(self, most: int = 50) -> list[dict[str, Any]]:
        """Returns the most frequent words that were never recognized, with what came instead."""
        never = Counter(
            {
                word: count
                for word, count in self._missed.counts.items()
                if self._said.counts[word] == count
            }
        )
        words = dict(_top(never, most))
        instead: dict[str, tuple[str, int]] = {}
        for (expected, recognized), count in sorted(self._confused.counts.items()):
            if expected in words and count > instead.get(expected, ("", 0))[1]:
                instead[expected] = recognized, count
        return [
            {"word": word, "count": count, "instead": instead.get(word, ("", 0))[0]}
            for word, count in words.items()
        ]

    def left_out(self, most: int = 20) -> list[tuple[str, int]]:
        """Returns the words that are most often missing in transcripts."""
        return _top(self._left_out.counts, most)

    def made_up(self, most: int = 20) -> list[tuple[str, int]]:
        """Returns the words that transcripts most often have where the reference has none."""
        return _top(self._made_up.counts, most)

    def in_silence(self, most: int = 20) -> list[tuple[str, int]]:
        """Returns the words that transcripts most often have where nothing was said."""
        return _top(self._in_silence.counts, most)


def _top(counts: Counter[Any], most: int) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
