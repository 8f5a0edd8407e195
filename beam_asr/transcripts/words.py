"""What a model heard, with times: tokens, words and sentences of a transcript."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

PAUSE_SECONDS = 1.0  # a sentence ends before one, whatever its last word
SENTENCE_ENDS = ".?!…。？！؟۔।"  # noqa: RUF001
CLOSING = "\"'»”’)]}」』）】》〉"  # noqa: RUF001  (may follow the end of a sentence)
# Scripts written without spaces between words, as the characters' names begin with them.
UNSPACED_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "HALFWIDTH K")
FIRST_UNSPACED = "\u0e00"  # neither they nor their punctuation are below


class Token(NamedTuple):
    """A piece of a transcript.

    Attributes:
        text: as it stands in the transcript, with the whitespace before it. There is none within
            it or behind it.
        start: seconds.
        end: seconds.
        confidence: of the model, from 0 to 1; None if it told none.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None


class Word(NamedTuple):
    """A word of a transcript.

    Attributes:
        text: without whitespace.
        start: seconds.
        end: seconds.
        confidence: the least of its tokens'; None if any of them has none.
        spaced: whether whitespace stands before it.
    """

    text: str
    start: float
    end: float
    confidence: float | None
    spaced: bool = True


class Sentence(NamedTuple):
    """Words up to the end of a sentence or a pause, with its times in seconds."""

    text: str
    start: float
    end: float


def earliest(confidences: Sequence[float | None]) -> float | None:
    given = [each for each in confidences if each is not None]
    return min(given) if given and len(given) == len(confidences) else None


def with_times(
    texts: Sequence[str], start: float, end: float, confidence: float | None
) -> list[Token]:
    """Tokens that share a time in proportion to their characters."""
    lengths = [len(text.strip()) for text in texts]
    total, done = sum(lengths), 0
    tokens = []
    for text, length in zip(texts, lengths):
        first, last = (start + (end - start) * at / total for at in (done, done + length))
        tokens.append(Token(text, first, last, confidence))
        done += length
    return tokens


def spread(text: str, start: float, end: float) -> list[Token]:
    """Words of a text whose times are not known, over a time in proportion to their characters.

    Of a script that is written without spaces, each character is a token.
    """
    texts: list[str] = []
    for part in re.findall(r"\s*\S+", text.strip()):
        for character in part:
            last = texts[-1] if texts else ""
            opens = not last or (character.isspace() and not last.isspace())
            if opens or (last.strip() and _parts(last[-1], character)):
                texts.append("")
            texts[-1] += character
    return with_times(texts, start, end, None)


def is_unspaced(character: str) -> bool:
    """Whether a character is of a script that is written without spaces between words."""
    return character >= FIRST_UNSPACED and unicodedata.name(character, "").startswith(
        UNSPACED_SCRIPTS
    )


def needs_space(before: str, after: str) -> bool:
    """Whether two texts that follow each other are written with a space between them."""
    ends = (before[-1:], after[:1])
    return all(ends) and not any(is_unspaced(each) or _is_wide(each) for each in ends)


def _is_wide(character: str) -> bool:
    """Whether it is punctuation of the width of a Chinese character, such as "。"."""
    return unicodedata.east_asian_width(character) in "WF" and not character.isalnum()


def _parts(before: str, after: str) -> bool:
    """Whether a word may begin between two characters that have no space between them."""
    if before < FIRST_UNSPACED and after < FIRST_UNSPACED:
        return False
    if not (is_unspaced(before) or is_unspaced(after)):
        # Punctuation that ends a word of such a script, and what comes after.
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
    """Tokens grouped by the words that they are: at whitespace.

    In a script that is written without spaces, each token is a word, with its punctuation.
    """
    groups: list[list[Token]] = []
    last = ""
    for token in tokens:
        if not token.text.strip():
            continue
        if not last or token.text[0].isspace() or _parts(last, token.text[0]):
            groups.append([])
        groups[-1].append(token)
        last = token.text[-1]
    return groups


def words(tokens: Sequence[Token]) -> list[Word]:
    """The words of a transcript; see ``by_word``."""
    return [
        Word(
            "".join(token.text for token in group).strip(),
            group[0].start,
            group[-1].end,
            earliest([token.confidence for token in group]),
            index == 0 or group[0].text[0].isspace(),
        )
        for index, group in enumerate(by_word(tokens))
    ]


def sentences(words: Sequence[Word]) -> list[Sentence]:
    """Words grouped to sentences, which NeMo calls segments.

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
    """Whether a word ends in one of the marks, or in one and closing quotes or brackets."""
    return text.rstrip(CLOSING).endswith(tuple(marks))


def monotone(tokens: Sequence[Token], earliest: float, latest: float) -> list[Token]:
    """Tokens whose times lie between two, do not overlap and never go back.

    Where two tokens overlap, the second one's start counts, since models tell starts best.
    """
    starts = []
    latest_start = earliest
    for token in tokens:
        # In this order, max() and min() leave NaN out.
        latest_start = min(latest, max(latest_start, token.start))
        starts.append(latest_start)
    made = []
    for token, start, following in zip(tokens, starts, [*starts[1:], latest]):
        end = min(following, max(start, token.end))
        same = start == token.start and end == token.end
        made.append(token if same else Token(token.text, start, end, token.confidence))
    return made
