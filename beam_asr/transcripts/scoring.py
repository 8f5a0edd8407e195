"""Word and character error rates, of a row and of any sum of rows.

The alignment is jiwer's, and so are the numbers: the rates of a sum are those that `jiwer.wer` and
`jiwer.cer` give for the lists of its normalised texts.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Any

from beam_asr.records.statistics import Score

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
) -> Score | None:
    """The score of a row, or None if its reference is no text: missing, null, a number.

    An empty reference is one: nothing was said, and each word that was heard is an insertion.

    Args:
        reference: what was said.
        hypothesis: what was heard.
        normalize: of `beam_asr.transcripts.normalizers`, for both.
        seconds: of audio.
    """
    if not isinstance(reference, str):
        return None
    import jiwer

    said, heard = normalize(reference), normalize(hypothesis)
    words = jiwer.process_words(said, heard)
    characters = jiwer.process_characters(said, heard)
    return Score(
        rows=1,
        words=len(words.references[0]),
        hits=words.hits,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        characters=len(characters.references[0]),
        character_substitutions=characters.substitutions,
        character_deletions=characters.deletions,
        character_insertions=characters.insertions,
        seconds=seconds,
        empty_references=int(not words.references[0]),
        empty_hypotheses=int(not words.hypotheses[0]),
    )


def fields(score: Score) -> dict[str, Any]:
    """What a row's transcript gets: its rates, rounded, and the wrong words."""
    return {
        "wer": _rounded(score.wer),
        "cer": _rounded(score.cer),
        "substitutions": score.substitutions,
        "deletions": score.deletions,
        "insertions": score.insertions,
    }


def summary(score: Score) -> dict[str, Any]:
    """What summary.json says of some rows. Its rates are not rounded."""
    return {
        "rows": score.rows,
        "hours": round(score.seconds / 3600, DIGITS),
        "words": score.words,
        "wer": score.wer,
        "hits": score.hits,
        "substitutions": score.substitutions,
        "deletions": score.deletions,
        "insertions": score.insertions,
        "characters": score.characters,
        "cer": score.cer,
        "empty_references": score.empty_references,
        "empty_hypotheses": score.empty_hypotheses,
    }


def duration_bucket(seconds: float | None) -> str:
    """The name of the stretch of durations that one is in, such as ``010-020`` of 10 s.

    Names sort as the durations do; ``unknown``, of no duration or none that can be, is the last.
    """
    if seconds is None or math.isnan(seconds) or seconds < 0:
        return UNKNOWN
    return BUCKETS[bisect.bisect_right(EDGES, seconds) - 1]


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, DIGITS)
