"""What a transcript gives away about itself, without a reference: for filtering pseudo-labels."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Any

from beam_asr.transcripts.normalizers import normalizer

MAX_PHRASE_WORDS = 5  # words
DIGITS = 6


def signals(text: str, seconds: float | None) -> dict[str, Any]:
    """Cheap signals of a transcript; takes time in proportion to the text.

    - ``chars_per_second``, ``words_per_second``: as NeMo's Speech Data Processor counts them
      (``get_charrate``, ``get_wordrate``): all characters, and what stands between white space.
      Faster than people speak means words that were not said; far slower, words that are missing.
    - ``compression_ratio``: bytes of UTF-8 by bytes that zlib makes of them, as in Whisper's
      ``transcribe()``, which takes a text above 2.4 for a loop. An empty text has 0, a short one
      less than 1.
    - ``longest_word``: its characters. The Speech Data Processor takes 25 and more for a
      hallucination (``DetectWhisperHallucinationFeatures``), in languages that part words.
    - ``most_repeats``: how often the phrase that is repeated most, of one to `MAX_PHRASE_WORDS`
      words, comes in a row, whatever its case and punctuation. It finds a loop in a long text,
      whose compression ratio hardly shows it. 1 if nothing is repeated, 0 without a word.

    Args:
        text: the transcript.
        seconds: of audio. Where it is None or 0 there are no rates.
    """
    words = text.split()
    encoded = text.encode("utf-8", "surrogatepass")
    return {
        "chars_per_second": _rate(len(text), seconds),
        "words_per_second": _rate(len(words), seconds),
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), DIGITS),
        "longest_word": max(map(len, words), default=0),
        "most_repeats": _max_phrase_repeats(normalizer("basic")(text).split()),
    }


def _rate(count: int, seconds: float | None) -> float | None:
    return round(count / seconds, DIGITS) if seconds and seconds > 0 else None


def _max_phrase_repeats(words: Sequence[str]) -> int:
    """A phrase of some words is repeated as long as each word is the one so many words before."""
    if not words:
        return 0
    most = 1
    for length in range(1, MAX_PHRASE_WORDS + 1):
        same = map(str.__eq__, words, itertools.islice(words, length, None))
        runs = (sum(1 for _ in run) for equal, run in itertools.groupby(same) if equal)
        most = max(most, max(runs, default=0) // length + 1)
    return most
