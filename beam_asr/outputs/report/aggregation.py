"""Aggregates the records of a run in one pass, in memory that does not grow with the rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from beam_asr.outputs.output import Output
from beam_asr.outputs.report.quantities import (
    CHARS_PER_SECOND,
    CONFIDENCE,
    QUANTITIES,
    SUSPICIONS,
    Suspicion,
    confidence_of,
)
from beam_asr.outputs.report.run_fields import RunFields, number, shown
from beam_asr.outputs.report.samples import FairSample, Highest, Histogram
from beam_asr.outputs.report.word_statistics import WordStatistics
from beam_asr.records.record import Record
from beam_asr.transcripts.job_fields import SCORES
from beam_asr.transcripts.normalizers import normalizer

WORST_ROWS = 200
ROWS_A_SUSPICION = 40
SAMPLE_ROWS = 200
EXAMPLES = 3
MAX_GROUPS = 200  # languages or models; the rest is counted together
OTHERS = "(others)"
LARGE_FIELDS = ("words", "segments", "chars", "n_best")
# Rows whose words are counted, by normalizer; of more, every n-th. Whisper's is 20 times slower.
WORD_ROWS = {"none": 200_000, "basic": 200_000, "whisper": 10_000}


class Group:
    """Sums the rows of a language, of a model, or all.

    Attributes:
        histograms: by the names of `QUANTITIES`.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.seconds = 0.0
        self.histograms = {each.name: Histogram(each.scale) for each in QUANTITIES}

    def add(self, values: list[tuple[str, float, int]], seconds: float | None) -> None:
        """Adds a row, by its quantities, each with its bin, and its length."""
        self.rows += 1
        self.seconds += seconds or 0.0
        for name, value, bin_ in values:
            self.histograms[name].add(value, bin_)


class FailureClass:
    """Counts the failures, or refused rows, of a class, and keeps the first ones."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.rows = 0
        self.examples: list[tuple[str, str]] = []

    def add(self, audio: str, message: str) -> None:
        """Adds a row, by its audio and the message of its error."""
        self.rows += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((audio, message))


class SuspiciousRow(NamedTuple):
    """A row that may be wrong, with the reason in words."""

    record: Record
    why: str


class Aggregate:
    """Holds what a report says of the rows of a run.

    Attributes:
        fields: of the records.
        all: the rows that were transcribed.
        by_language, by_model: the same, by groups.
        words: counts of words; empty without references.
        every: of how many rows one has its words counted.
        failures: by the classes of their errors.
    """

    def __init__(self, fields: RunFields, rows: int) -> None:
        self.fields = fields
        self.all = Group()
        self.by_language: dict[str, Group] = {}
        self.by_model: dict[str, Group] = {}
        self.words = WordStatistics()
        self.every = max(1, -(-rows // WORD_ROWS.get(fields.normalizer, 200_000)))
        self.failures: dict[str, FailureClass] = {}
        self.silent = 0
        self._normalize = normalizer(fields.normalizer)
        self._worst: Highest[Record] = Highest(WORST_ROWS)
        self._suspicious: list[Highest[Record]] = [Highest(ROWS_A_SUSPICION) for _ in SUSPICIONS]
        self._sample: FairSample[Record] = FairSample(SAMPLE_ROWS)

    def add(self, record: Record) -> None:
        """Adds a transcript, whose large fields it takes away."""
        seconds = number(record.get("duration"))
        confidence = confidence_of(record)
        for name in LARGE_FIELDS:
            record.pop(name, None)
        if confidence is not None:
            record[CONFIDENCE] = confidence
        text = self.fields.text_of(record)
        if record.get(CHARS_PER_SECOND) is None and seconds:
            record[CHARS_PER_SECOND] = len(text) / seconds
        values = [
            (each.name, value, each.scale.bin_of(value))
            for each in QUANTITIES
            if (value := number(record.get(each.name))) is not None
        ]
        self.all.add(values, seconds)
        _group(self.by_language, self.fields.language_of(record)).add(values, seconds)
        if isinstance(model := record.get("model"), str):
            _group(self.by_model, shown(model)).add(values, seconds)
        self.silent += record.get("no_speech") is True
        self._keep(record)
        if self.all.rows % self.every == 0 and SCORES[0] in record:
            self._count_words(record, text)

    def _keep(self, record: Record) -> None:
        if (wer := number(record.get("wer"))) is not None and wer > 0:
            wrong = sum(number(record.get(name)) or 0.0 for name in SCORES[2:])
            self._worst.add(wer + wrong * 1e-9, record)
        for suspicion, rows in zip(SUSPICIONS, self._suspicious):
            value = number(record.get(suspicion.field))
            if value is not None and (suspicion.limit is None or value > suspicion.limit):
                rows.add(suspicion.sign * value, record)
        self._sample.add(record)

    def _count_words(self, record: Record, text: str) -> None:
        reference = self.fields.reference_of(record)
        if reference is None:
            return
        expected = self._normalize(reference).split()
        is_right = record.get("wer") == 0
        self.words.add(expected, expected if is_right else self._normalize(text).split())

    def add_failure(self, record: Record, error: Any) -> None:
        """Adds a row that failed, or that was refused, with its error."""
        error = error if isinstance(error, dict) else {}
        name = shown(error.get("type") or "unknown")[:80]
        if name not in self.failures and len(self.failures) >= MAX_GROUPS:
            name = OTHERS
        if name not in self.failures:
            self.failures[name] = FailureClass(shown(error.get("stage") or ""))
        audio = self.fields.place_of(record)[0] or str(record.get("line") or "")
        self.failures[name].add(audio[:300], shown(error.get("message") or ""))

    def worst(self) -> list[Record]:
        """Returns the rows with the highest error rates, worst first."""
        return [record for _, record in self._worst.items()]

    def suspicious(self) -> list[SuspiciousRow]:
        """Returns the rows that may be wrong, by turns for each reason, each row once."""
        ranked = [
            [(record, suspicion.words.format(value * suspicion.sign)) for value, record in rows]
            for suspicion, rows in zip(SUSPICIONS, map(self._odd, SUSPICIONS, self._suspicious))
        ]
        found: dict[int, SuspiciousRow] = {}
        for each in itertools.chain(*itertools.zip_longest(*ranked)):
            if each is not None:
                record, why = each
                before = found.get(id(record))
                found[id(record)] = SuspiciousRow(record, f"{before.why}, {why}" if before else why)
        return list(found.values())

    def _odd(self, suspicion: Suspicion, rows: Highest[Record]) -> list[tuple[float, Record]]:
        """Returns the rows that a suspicion holds for, oddest first, with their signed values."""
        if suspicion.limit is not None:
            return rows.items()
        most = math.ceil(suspicion.share * self.all.histograms[suspicion.field].rows)
        return rows.items()[:most]

    def sample(self) -> list[Record]:
        """Returns rows that stand for all."""
        return self._sample.items


def aggregate(output: Output, fields: RunFields, rows: int) -> Aggregate:
    """Reads all records of an output folder once.

    Args:
        rows: about how many there are.
    """
    found = Aggregate(fields, rows)
    for record in output.transcripts():
        found.add(record)
    for record in output.failures():
        found.add_failure(record, record.get("error"))
    return found


def largest(groups: dict[str, Group], most: int) -> Iterator[tuple[str, Group]]:
    """Yields the groups with the most rows, largest first."""
    yield from sorted(groups.items(), key=lambda item: (-item[1].rows, item[0]))[:most]


def _group(groups: dict[str, Group], name: str) -> Group:
    if name not in groups and len(groups) >= MAX_GROUPS:
        name = OTHERS
    return groups.setdefault(name, Group()) if name not in groups else groups[name]
