"""Defines the tokens, words and sentences of a transcript, with their times."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

PAUSE_SECONDS = 1.0  # a sentence ends before one, whatever its last word
SENTENCE_ENDS = ".?!…。？！؟۔।"  # noqa: RUF001
CLOSING = "\"'»”’)]}」』）】》〉"  # noqa: RUF001  (may follow the end of a sentence)
# Scripts without spaces between words, by the start of their characters' Unicode names.
UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HALFWIDTH K")
FIRST_UNSPACED = "\u0e00"  # the lowest of them and of their punctuation


class Token(NamedTuple):
    """Holds a token of a transcript.

    Attributes:
        text: as in the transcript, with the whitespace before it. There is none within it or after
            it.
        start: seconds.
        end: seconds.
        confidence: of the model, from 0 to 1; None if it has none.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


class Word(NamedTuple):
    """Holds a word of a transcript.

    Attributes:
        text: without whitespace.
        start: seconds.
        end: seconds.
        confidence: the least of its tokens; None if any of them has none.
        spaced: whether there is whitespace before it.
    """

    text: str
    start: float
    end: float
    confidence: float | None
    spaced: bool = True


class Sentence(NamedTuple):
    """Holds words up to the end of a sentence or a pause, with its times in seconds."""

    text: str
    start: float
    end: float


def least_confidence(confidences: Sequence[float | None]) -> float | None:
    """Returns the least confidence; None if any is None, or there are none."""
    known = [confidence for confidence in confidences if confidence is not None]
    return min(known) if known and len(known) == len(confidences) else None


def with_times(
    texts: Sequence[str], start: float, end: float, confidence: float | None
) -> list[Token]:
    """Returns tokens that share a time in proportion to their characters."""
    lengths = [len(text.strip()) for text in texts]
    total, done = sum(lengths), 0
    tokens = []
    for text, length in zip(texts, lengths):
        first, last = (start + (end - start) * at / total for at in (done, done + length))
        tokens.append(Token(text, first, last, confidence))
        done += length
    return tokens


def spread(text: str, start: float, end: float) -> list[Token]:
    """Spreads the words of a text over a time, in proportion to their characters.

    In a script that is written without spaces, each character is a token.
    """
    texts: list[str] = []
    for part in re.findall(r"\s*\S+", text.strip()):
        for character in part:
            last = texts[-1] if texts else ""
            opens = not last or (character.isspace() and not last.isspace())
            if opens or (last.strip() and _may_part(last[-1], character)):
                texts.append("")
            texts[-1] += character
    return with_times(texts, start, end, None)


def is_unspaced(character: str) -> bool:
    """Tells whether a character is of a script without spaces between words."""
    return character >= FIRST_UNSPACED and unicodedata.name(character, "").startswith(
        UNSPACED_SCRIPTS
    )


def needs_space(before: str, after: str) -> bool:
    """Tells whether two adjacent texts are written with a space between them."""
    ends = (before[-1:], after[:1])
    return all(ends) and not any(is_unspaced(char) or _is_wide(char) for char in ends)


def _is_wide(character: str) -> bool:
    """Tells whether a character is punctuation as wide as a Chinese character, such as "。"."""
    return unicodedata.east_asian_width(character) in "WF" and not character.isalnum()


def _may_part(before: str, after: str) -> bool:
    """Tells whether a word may begin between two characters without a space between them."""
    if before < FIRST_UNSPACED and after < FIRST_UNSPACED:
        return False
    if not (is_unspaced(before) or is_unspaced(after)):
        # Punctuation that ends a word of such a script, and the character after it.
        return _is_wide(before) and after.isalnum() and not _opens(before)
    if _opens(before):
        return False
    if _opens(after):
        return True
    # Marks, punctuation and the sign of a long vowel go with what is before them.
    return after.isalnum() and after not in "ーｰ"


def _opens(character: str) -> bool:
    return unicodedata.category(character) in ("Ps", "Pi")


def by_word(tokens: Sequence[Token]) -> list[list[Token]]:
    """Groups tokens by words, at whitespace.

    In a script that is written without spaces, each token is a word, with its punctuation.
    """
    groups: list[list[Token]] = []
    last = ""
    for token in tokens:
        if not token.text.strip():
            continue
        if not last or token.text[0].isspace() or _may_part(last, token.text[0]):
            groups.append([])
        groups[-1].append(token)
        last = token.text[-1]
    return groups


def words(tokens: Sequence[Token]) -> list[Word]:
    """Returns the words of a transcript; see ``by_word``."""
    return [
        Word(
            "".join(token.text for token in group).strip(),
            group[0].start,
            group[-1].end,
            least_confidence([token.confidence for token in group]),
            index == 0 or group[0].text[0].isspace(),
        )
        for index, group in enumerate(by_word(tokens))
    ]


def sentences(words: Sequence[Word]) -> list[Sentence]:
    """Groups words to sentences, which NeMo calls segments.

    One ends after a word that ends in punctuation, or before a pause (as get_segment_offsets in
    nemo/collections/asr/parts/utils/timestamp_utils.py, which takes one or the other).
    """
    groups: list[list[Word]] = []
    for word in words:
        last = groups[-1][-1] if groups else None
        if (
            last is None
            or ends_with_any(last.text, SENTENCE_ENDS)
            or word.start - last.end >= PAUSE_SECONDS
        ):
            groups.append([])
        groups[-1].append(word)
    return [
        Sentence(
            "".join(" " * word.spaced + word.text for word in group).strip(),
            group[0].start,
            group[-1].end,
        )
        for group in groups
    ]


def ends_with_any(text: str, marks: str) -> bool:
    """Tells whether a word ends in one of the marks, with closing quotes or brackets or not."""
    return text.rstrip(CLOSING).endswith(tuple(marks))


def monotone(tokens: Sequence[Token], earliest: float, latest: float) -> list[Token]:
    """Returns tokens with times that are within a range, do not overlap and never go back.

    Where two tokens overlap, the second one's start counts, since the starts of models are best.
    """
    starts = []
    latest_start = earliest
    for token in tokens:
        # In this order, max() and min() leave NaN out.
        latest_start = min(latest, max(latest_start, token.start))
        starts.append(latest_start)
    bounded = []
    for token, start, following in zip(tokens, starts, [*starts[1:], latest]):
        end = min(following, max(start, token.end))
        same = start == token.start and end == token.end
        bounded.append(token if same else Token(token.text, start, end, token.confidence))
    return bounded
