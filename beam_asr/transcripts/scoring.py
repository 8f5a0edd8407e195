"""Computes word and character error rates of rows and of sums of rows.

Texts are aligned as jiwer 4 does it, by rapidfuzz, but without what jiwer checks in each call,
which takes longer than the alignment. The rates of a sum are those that `jiwer.wer` and
`jiwer.cer` return for the lists of its normalized texts.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from beam_asr.records import lhotse_cuts
from beam_asr.records.channels import is_split
from beam_asr.records.record import Record
from beam_asr.records.statistics import Score
from beam_asr.transcripts.intervals import interval, squares
from beam_asr.transcripts.metrics import METRICS, Metric

DIGITS = 6  # of a row's rates
# Seconds at which buckets begin; the names sort as the durations do.
EDGES = (0, 5, 10, 20, 40, 120, 600)
BUCKETS = ("000-005", "005-010", "010-020", "020-040", "040-120", "120-600", "600+")
UNKNOWN = "unknown"


def score(
    reference: object,
    hypothesis: str,
    normalize: Callable[[str], str],
    seconds: float = 0.0,
    metrics: Sequence[Metric] = (),
) -> Score | None:
    """Scores a row; returns None if its reference is not a text: missing, null, a number.

    An empty reference counts: nothing was said, and each recognized word is an insertion.

    Args:
        reference: the reference text.
        hypothesis: the recognized text.
        normalize: a function of `beam_asr.transcripts.normalizers`, for both texts.
        seconds: of audio.
        metrics: further ones, of the texts as they are.
    """
    if not isinstance(reference, str):
        return None
    expected, recognized = normalize(reference).strip(), normalize(hypothesis).strip()
    said, recognized_words = _words(expected), _words(recognized)
    numbers = {word: number for number, word in enumerate({*said, *recognized_words})}
    words = _edits([numbers[word] for word in said], [numbers[word] for word in recognized_words])
    characters = _edits(expected, recognized)
    return Score(
        rows=1,
        words=len(said),
        hits=len(said) - words.substitutions - words.deletions,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        characters=len(expected),
        character_substitutions=characters.substitutions,
        character_deletions=characters.deletions,
        character_insertions=characters.insertions,
        seconds=seconds,
        empty_references=int(not said),
        empty_hypotheses=int(not recognized_words),
        sums={
            "wer": (1, *squares(sum(words), len(said))),
            "cer": (1, *squares(sum(characters), len(expected))),
            **{metric.name: metric.sums(reference, hypothesis) for metric in metrics},
        },
    )


class _Edits(NamedTuple):
    """Counts what turns a sequence into another."""

    substitutions: int
    deletions: int
    insertions: int


def _words(text: str) -> list[str]:
    return [word for word in text.split(" ") if word]


def _edits(reference: Sequence[Any], hypothesis: Sequence[Any]) -> _Edits:
    from rapidfuzz.distance import Levenshtein

    if reference == hypothesis:
        return _Edits(0, 0, 0)
    tags = Counter(edit.tag for edit in Levenshtein.editops(reference, hypothesis))
    return _Edits(tags["replace"], tags["delete"], tags["insert"])


def reference_of(record: Record, key: str) -> Any:
    """Returns the reference of a record, which is to be a text; None without any.

    Args:
        key: its field, in Lhotse cuts that of their supervisions.
    """
    reference = None if is_split(record) else record.get(key)
    if reference is None and lhotse_cuts.is_cut(record):
        return lhotse_cuts.reference_of(record, key)
    return reference


def fields(score: Score, metrics: Sequence[Metric] = ()) -> dict[str, Any]:
    """Returns the fields of a row's transcript: its rates, rounded, and counts of wrong words."""
    further: dict[str, Any] = {}
    for metric in metrics:
        further |= metric.field(score)
    return {
        "wer": _rounded(score.wer),
        "cer": _rounded(score.cer),
        "substitutions": score.substitutions,
        "deletions": score.deletions,
        "insertions": score.insertions,
        **further,
    }


def summary(score: Score) -> dict[str, Any]:
    """Returns the entry of summary.json for some rows. Its rates are not rounded."""
    further: dict[str, Any] = {}
    for name in METRICS:
        if name in score.sums:
            further |= METRICS[name].summary(score)
    return {
        "rows": score.rows,
        "hours": round(score.seconds / 3600, DIGITS),
        "words": score.words,
        "wer": score.wer,
        "wer_interval": _interval(score, "wer", score.errors, score.words),
        "hits": score.hits,
        "substitutions": score.substitutions,
        "deletions": score.deletions,
        "insertions": score.insertions,
        "characters": score.characters,
        "cer": score.cer,
        "cer_interval": _interval(score, "cer", score.character_errors, score.characters),
        "empty_references": score.empty_references,
        "empty_hypotheses": score.empty_hypotheses,
        **further,
    }


def _interval(score: Score, name: str, errors: int, units: int) -> list[float] | None:
    sums = score.sums_of(name)
    return None if sums is None else interval(score.rows, errors, units, sums)


def duration_bucket(seconds: float | None) -> str:
    """Returns the name of the bucket of a duration, such as ``010-020`` for 10 s.

    Names sort as the durations do; ``unknown``, for a missing or invalid duration, is the last.
    """
    if seconds is None or math.isnan(seconds) or seconds < 0:
        return UNKNOWN
    return BUCKETS[bisect.bisect_right(EDGES, seconds) - 1]


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, DIGITS)
