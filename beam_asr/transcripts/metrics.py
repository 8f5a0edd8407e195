"""Defines metrics of transcripts besides WER and CER, as sums over rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from beam_asr.errors import SetupError
from beam_asr.records.statistics import Score
from beam_asr.transcripts.intervals import interval, squares
from beam_asr.transcripts.punctuation import capital_counts, punctuation_counts

DIGITS = 6  # of a row's value


class Metric(NamedTuple):
    """Defines a metric, which compares texts as they are written, and not normalized.

    Attributes:
        name: of the field of a transcript, and of the entry in ``summary.json``.
        counts: returns the counts of a row, which can be added, from its reference and its text.
        value: returns the metric of the sums of counts.
        ratio: returns of counts what the metric divides by what, for a confidence interval; None if
            the metric is no ratio.
        of_row: returns the metric of one row, where that is another than of a sum of one.
    """

    name: str
    counts: Callable[[str, str], tuple[int, ...]]
    value: Callable[[Sequence[int]], float]
    ratio: Callable[[Sequence[int]], tuple[int, int]] | None = None
    of_row: Callable[[Sequence[int]], float] | None = None

    def sums(self, reference: str, text: str) -> tuple[int, ...]:
        """Returns what a row adds to the sums of a `Score`: its number, squares and counts."""
        counts = self.counts(reference, text)
        return (1, *(squares(*self.ratio(counts)) if self.ratio else ()), *counts)

    def summary(self, score: Score) -> dict[str, Any]:
        """Returns the metric of some rows, with its confidence interval if it has one."""
        numbers = score.sums_of(self.name)
        if self.ratio is None:
            return {self.name: None if numbers is None else self.value(numbers)}
        if numbers is None:
            return {self.name: None, f"{self.name}_interval": None}
        sums, counts = numbers[:3], numbers[3:]
        limits = interval(score.rows, *self.ratio(counts), sums)
        return {self.name: self.value(counts), f"{self.name}_interval": limits}

    def field(self, score: Score) -> dict[str, Any]:
        """Returns the field of a row's transcript, rounded."""
        _, *numbers = score.sums[self.name]
        counts = numbers[3:] if self.ratio else numbers
        return {self.name: round((self.of_row or self.value)(counts), DIGITS)}


def _punctuation_ratio(counts: Sequence[int]) -> tuple[int, int]:
    return sum(counts[1:]), sum(counts)


def _rate_of(ratio: Callable[[Sequence[int]], tuple[int, int]]) -> Callable[[Sequence[int]], float]:
    """Returns the value of a ratio; 0 if there is nothing that could be wrong, as in NeMo."""

    def value(counts: Sequence[int]) -> float:
        errors, units = ratio(counts)
        return errors / units if units else 0.0

    return value


def _capitals_ratio(counts: Sequence[int]) -> tuple[int, int]:
    right, wrong = counts
    return wrong, right + wrong


@functools.cache
def _sacrebleu(name: str, **settings: Any) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU, "chrf": CHRF}[name](**settings)


def _of_sacrebleu(name: str, **settings_of_row: Any) -> Metric:
    """Returns a metric of sacrebleu, whose score of a corpus is one of sums over its sentences.

    Args:
        settings_of_row: what sacrebleu sets for the score of one sentence.
    """

    def counts(reference: str, text: str) -> tuple[int, ...]:
        (numbers,) = _sacrebleu(name)._extract_corpus_statistics([text], [[reference]])
        return tuple(numbers)

    def value(numbers: Sequence[int], **settings: Any) -> float:
        return float(_sacrebleu(name, **settings)._compute_score_from_stats(list(numbers)).score)

    return Metric(name, counts, value, of_row=functools.partial(value, **settings_of_row))


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("punct_er", punctuation_counts, _rate_of(_punctuation_ratio), _punctuation_ratio),
        Metric("capitals_er", capital_counts, _rate_of(_capitals_ratio), _capitals_ratio),
        _of_sacrebleu("bleu", effective_order=True),
        _of_sacrebleu("chrf"),
    )
}


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Returns the metrics of these names.

    Raises:
        SetupError: there is no metric of a name.
    """
    for name in names:
        if name not in METRICS:
            raise SetupError(f"metrics has {name!r}, which is none of {', '.join(METRICS)}")
    return tuple(METRICS[name] for name in dict.fromkeys(names))
