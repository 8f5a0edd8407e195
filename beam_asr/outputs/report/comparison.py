"""Compares the transcripts of several runs, row by row, and says which differences are chance."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from beam_asr.outputs.output import Output
from beam_asr.outputs.report.run_fields import NONE, RunFields, number, shown
from beam_asr.outputs.report.word_differences import errors
from beam_asr.outputs.shards import FAILURES, FILTERED, TRANSCRIPTS
from beam_asr.records import json_numbers
from beam_asr.records.record import Record
from beam_asr.transcripts.normalizers import normalizer

RESAMPLES = 1000
CONFIDENCE = 0.95
SHOWN_ROWS = 150  # of each list of rows that differ
EXAMPLES = 10  # of rows that are not in all runs
KINDS = (TRANSCRIPTS, FILTERED)  # in this order; a row that was filtered may have a text too
UNSCORED = -1.0  # words of a row without a reference


class Run:
    """Holds what a comparison needs of each row of a run; its texts are read again where shown.

    Attributes:
        name: of the run, for the page.
        fields: of its records.
        summary: of the run, or of its last window.
        keys: digests of the rows' audio, offset and channel.
        durations: in seconds; NaN where unknown.
        wrong: words that are substituted, deleted and inserted.
        words: of the reference; `UNSCORED` without one.
        languages: of the rows.
        texts: digests of the normalized texts.
        failed: the error's class, by the key of each row that failed.
    """

    def __init__(self, output: Output, name: str) -> None:
        self.output = output
        self.name = name
        self.summary = list(output.summaries())[-1]
        self.fields = RunFields.of(self.summary)
        self.keys: list[bytes] = []
        self.durations = array("d")
        self.wrong = array("d")
        self.words = array("d")
        self.languages: list[str] = []
        self.texts = array("q")
        self.failed: dict[bytes, str] = {}
        self._names: dict[str, str] = {}  # of languages, each as one object

    def read(self, scored_by: RunFields) -> None:
        """Reads all records, and scores them as another run, or this one, was scored.

        Args:
            scored_by: has the field of the reference, and the normalizer.
        """
        normalize = normalizer(scored_by.normalizer)
        self.fields = self.fields._replace(
            reference=scored_by.reference, normalizer=scored_by.normalizer
        )
        for line in self.output.lines(*KINDS):
            record = json_numbers.loads(line)
            self.keys.append(self._key(record))
            self.durations.append(_or_nan(number(record.get("duration"))))
            language = self.fields.language_of(record)
            self.languages.append(self._names.setdefault(language, language))
            text, reference = self.fields.text_of(record), self.fields.reference_of(record)
            recognized = normalize(text).split()
            self.texts.append(hash(tuple(recognized)))
            if reference is None or self.fields.text not in record:
                self.words.append(UNSCORED)
                self.wrong.append(0.0)
                continue
            expected = recognized if text == reference else normalize(reference).split()
            self.words.append(len(expected))
            self.wrong.append(errors(expected, recognized))
        for record in self.output.records(FAILURES):
            error = record.get("error")
            kind = error.get("type") if isinstance(error, dict) else ""
            self.failed[self._key(record)] = shown(kind or "failed")

    def records(self, rows: set[int]) -> Iterator[tuple[int, Record]]:
        """Yields the records with these numbers, which are read again."""
        for row, line in enumerate(self.output.lines(*KINDS)):
            if row in rows:
                yield row, json_numbers.loads(line)

    def _key(self, record: Record) -> bytes:
        place = json_numbers.dumps(list(self.fields.place_of(record)))
        return hashlib.blake2b(place.encode(), digest_size=16).digest()


class Difference(NamedTuple):
    """Compares a run with the first one, over the rows that all have.

    Attributes:
        rate: the run's error rate minus that of the first; below 0 it has fewer errors.
        low, high: of its 95 % interval.
        p: how often chance alone would make a difference as large, in either direction.
        wins, losses, ties: rows in which the run has fewer, more, and as many wrong words.
    """

    rate: float
    low: float
    high: float
    p: float
    wins: int
    losses: int
    ties: int


class ErrorRate(NamedTuple):
    """A word error rate with its 95 % interval."""

    rate: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Holds the comparison of runs.

    Attributes:
        runs: in the order given; the others are compared with the first.
        rows: for each row that all runs have, its number in each run; shape (rows, runs).
        scored: the part of these rows that has a reference.
        rates: of the runs, over the scored rows; empty without any.
        differences: of the runs but the first.
        alike: the part of ``rows`` whose texts are equal in all runs, as a mask.
        apart: for each run, the numbers of rows that some other run lacks.
    """

    runs: Sequence[Run]
    rows: np.ndarray
    scored: np.ndarray
    alike: np.ndarray
    rates: list[ErrorRate]
    differences: list[Difference]
    apart: list[list[int]]

    @property
    def wrong(self) -> np.ndarray:
        """Returns the wrong words of the scored rows; shape (runs, rows)."""
        return _columns([run.wrong for run in self.runs], self.scored)

    @property
    def words(self) -> np.ndarray:
        """Returns the words of the references of the scored rows; shape (runs, rows)."""
        return _columns([run.words for run in self.runs], self.scored)


def compare(outputs: Sequence[Output]) -> Comparison:
    """Compares the transcripts in several folders.

    Rows are the same if their audio, offset and channel are; where a run has several of these, if
    their durations are, too, to a tenth of a second. All runs are scored alike: by the reference
    and normalizer of the first run that has references.
    """
    runs = [Run(output, name) for output, name in zip(outputs, names([o.folder for o in outputs]))]
    with_reference = [run.fields for run in runs if run.fields.reference is not None]
    scored_by = with_reference[0] if with_reference else runs[0].fields
    for run in runs:
        run.read(scored_by)
    rows, apart = _join(runs)
    words = _columns([run.words for run in runs], rows)
    scored = rows[(words != UNSCORED).all(axis=0)]
    texts = _columns([run.texts for run in runs], rows)
    comparison = Comparison(runs, rows, scored, (texts == texts[0]).all(axis=0), [], [], apart)
    if not comparison.words.sum():
        return comparison
    return comparison._replace(**_statistics(comparison.wrong, comparison.words))


def names(folders: Sequence[str]) -> list[str]:
    """Returns the last parts of the folders' names that tell them apart."""
    parts = [folder.rstrip("/").split("/") for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        short = ["/".join(part[-length:]) for part in parts]
        if len(set(short)) == len(set(folders)):
            break
    return [shown(name) for name in short]


def resampled(wrong: np.ndarray, words: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Returns the error rates of runs over rows that are drawn again and again, with repetition.

    Each time the same rows are drawn for all runs, so that rows that are hard for all are no
    difference between them (the paired bootstrap; Bisani and Ney, 2004).

    Args:
        wrong, words: of each run and row; shape (runs, rows).

    Returns:
        Shape (resamples, runs); the same each time.
    """
    random = np.random.default_rng(0)
    count = wrong.shape[1]
    rates = np.empty((resamples, len(wrong)))
    for number_ in range(resamples):
        weights = np.bincount(random.integers(0, count, count), minlength=count)
        rates[number_] = (wrong @ weights) / np.maximum(words @ weights, 1)
    return rates


def _statistics(wrong: np.ndarray, words: np.ndarray) -> dict[str, Any]:
    rates = wrong.sum(axis=1) / np.maximum(words.sum(axis=1), 1)
    drawn = resampled(wrong, words)
    bounds = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    lows, highs = np.quantile(drawn, bounds, axis=0)
    differences = []
    for run in range(1, len(rates)):
        apart = drawn[:, run] - drawn[:, 0]
        low, high = np.quantile(apart, bounds)
        one_sided = min((apart <= 0).sum(), (apart >= 0).sum())
        p = min(1.0, 2 * (one_sided + 1) / (len(apart) + 1))
        fewer, more = (wrong[run] < wrong[0]).sum(), (wrong[run] > wrong[0]).sum()
        ties = wrong.shape[1] - fewer - more
        rate = rates[run] - rates[0]
        differences.append(
            Difference(float(rate), float(low), float(high), p, int(fewer), int(more), int(ties))
        )
    return {
        "rates": [ErrorRate(*map(float, values)) for values in zip(rates, lows, highs)],
        "differences": differences,
    }


def _join(runs: Sequence[Run]) -> tuple[np.ndarray, list[list[int]]]:
    """Returns the numbers of the rows that all runs have, and those of the others."""
    ambiguous: set[bytes] = set()
    for run in runs:
        ambiguous.update(key for key, count in Counter(run.keys).items() if count > 1)
    tables = [_by_key(run, ambiguous) for run in runs]
    common = [key for key in tables[0] if all(key in table for table in tables[1:])]
    rows = np.array([[table[key] for table in tables] for key in common], dtype=np.int64)
    everywhere = set(common)
    apart = [[row for key, row in table.items() if key not in everywhere] for table in tables]
    return rows.reshape(len(common), len(runs)), apart


def _by_key(run: Run, ambiguous: set[bytes]) -> dict[Any, int]:
    """Returns the numbers of a run's rows; their order distinguishes equal rows."""
    table: dict[Any, int] = {}
    seen: Counter[Any] = Counter()
    for row, key in enumerate(run.keys):
        unique: Any = key
        if key in ambiguous:
            named = key, str(round(run.durations[row], 1))
            unique = *named, seen[named]
            seen[named] += 1
        table[unique] = row
    return table


def _columns(values: Sequence[array[Any]], rows: np.ndarray) -> np.ndarray:
    """Returns the values of some rows of each run; shape (runs, rows)."""
    return np.array([np.array(each)[rows[:, run]] for run, each in enumerate(values)])


def by_language(comparison: Comparison) -> list[tuple[str, int, list[float]]]:
    """Returns the rows, and the error rate of each run, by the language of the scored rows."""
    first = comparison.runs[0]
    languages = np.array([first.languages[row] for row in comparison.scored[:, 0]], dtype=object)
    wrong, words = comparison.wrong, comparison.words
    found = []
    for language, count in Counter(languages.tolist()).most_common():
        chosen = languages == language
        sums = wrong[:, chosen].sum(axis=1), words[:, chosen].sum(axis=1)
        found.append((language, count, list(sums[0] / np.maximum(sums[1], 1))))
    return [] if [each[0] for each in found] == [NONE] else found


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
