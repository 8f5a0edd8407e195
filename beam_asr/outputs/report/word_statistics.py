"""Counts which words are confused, left out, made up, and never recognized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from beam_asr.outputs.report.samples import BoundedCounter
from beam_asr.outputs.report.word_differences import edits


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
        # For the interval of the error rate: sums over rows of words, errors, and their products.
        self._words = self._errors = self._words2 = self._errors2 = self._products = 0.0

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
        self._words2 += len(expected) ** 2
        self._errors2 += wrong**2
        self._products += len(expected) * wrong

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
        """Returns half of the 95 % interval of the error rate of all words of a number of rows.

        The rate is a ratio of two sums over rows; its variance is that of the linearized ratio,
        with rows as what is drawn.
        """
        if self.rows < 2 or not self._words:
            return None
        rate = self._errors / self._words
        squares = self._errors2 - 2 * rate * self._products + rate**2 * self._words2
        mean_words = self._words / self.rows
        deviation = (max(squares, 0.0) / (self.rows - 1)) ** 0.5
        return 1.96 * deviation / mean_words / rows**0.5

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
