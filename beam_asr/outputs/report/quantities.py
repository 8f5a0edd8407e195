"""Defines the quantities whose distributions a report shows, and what makes a row suspicious."""

from __future__ import annotations

from typing import NamedTuple

from beam_asr.outputs.report.run_fields import number
from beam_asr.outputs.report.samples import Scale
from beam_asr.records.record import Record

CONFIDENCE = "confidence"
CHARS_PER_SECOND = "chars_per_second"


class Quantity(NamedTuple):
    """Describes a number that each transcript may have.

    Attributes:
        name: of the field of a record.
        title: for the page.
        unit: of the axis.
        scale: of its histogram.
        percent: whether it is shown as a percentage.
        needs: the setting that writes it, in backticks; empty where none does.
    """

    name: str
    title: str
    unit: str
    scale: Scale
    percent: bool = False
    needs: str = ""

    def format(self, value: float) -> str:
        """Returns a value as a page shows it, without the unit."""
        if self.percent:
            return f"{value:.1%}"
        return f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"


QUANTITIES = (
    Quantity("duration", "Duration", "seconds", Scale(0.1, 100_000.0, 600, logarithmic=True)),
    Quantity("wer", "Word error rate", "WER", Scale(0.0, 3.0, 300), True),
    Quantity("cer", "Character error rate", "CER", Scale(0.0, 3.0, 300), True),
    Quantity(CHARS_PER_SECOND, "Characters a second", "characters a second", Scale(0.0, 60.0, 240)),
    Quantity(
        CONFIDENCE,
        "Confidence",
        "confidence of the model",
        Scale(0.0, 1.0, 100),
        needs="`confidence=row` writes it",
    ),
)


class Suspicion(NamedTuple):
    """Describes why a transcript may be wrong, where no reference tells.

    Attributes:
        field: of the record that shows it.
        words: to say so, with the value as ``{}``.
        sign: 1 where high values are odd, -1 where low ones are.
        limit: a value that is not odd yet; None where the other rows tell.
        share: of the run's rows, those with the oddest values, that are odd where the others tell.
    """

    field: str
    words: str
    sign: int
    limit: float | None = None
    share: float = 0.01


SUSPICIONS = (
    Suspicion("most_repeats", "a phrase {:.0f} times in a row", 1, 2.0),
    Suspicion("compression_ratio", "compresses {:.1f} times", 1, 2.4),
    Suspicion("longest_word", "a word of {:.0f} characters", 1, 24.0),
    Suspicion(CHARS_PER_SECOND, "{:.1f} characters a second: many", 1),
    Suspicion(CHARS_PER_SECOND, "{:.1f} characters a second: few", -1),
    Suspicion(CONFIDENCE, "confidence {:.2f}", -1, share=0.05),
)


def confidence_of(record: Record) -> float | None:
    """Returns the confidence of a row: its own, or the mean of its words'."""
    own = number(record.get(CONFIDENCE))
    words = record.get("words")
    if own is not None or not isinstance(words, list):
        return own
    known = [
        value
        for word in words
        if isinstance(word, dict) and (value := number(word.get(CONFIDENCE))) is not None
    ]
    return sum(known) / len(known) if known else None
