"""Normalizes texts before they are compared: case, punctuation, spelling."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable

from beam_asr.errors import SetupError

NORMALIZERS = ("none", "basic", "whisper")

APOSTROPHES = "'’ʼ"  # noqa: RUF001
SPACE = re.compile(r"\s")


@functools.cache
def normalizer(name: str) -> Callable[[str], str]:
    """Returns the function that normalizes a text; spaces separate its words.

    - ``none``: the text as it is. Each white-space character becomes a space, since a word ends at
      any of them.
    - ``basic``, for any language: compatible forms are made equal (NFKC), case is folded, and
      punctuation and symbols are removed, except apostrophes within words.
    - ``whisper``: Whisper's normalizer of English, which also unifies spellings, contractions and
      numbers. It removes the vowel signs of other scripts.

    Raises:
        SetupError: there is no normalizer of this name.
    """
    if name == "none":
        return _none
    if name == "basic":
        return _basic
    if name == "whisper":
        return _whisper()
    raise SetupError(f"there is no normalizer {name!r}; allowed are {', '.join(NORMALIZERS)}")


def _none(text: str) -> str:
    return SPACE.sub(" ", text)


def _basic(text: str) -> str:
    """Normalizes a text of any language.

    Whisper's normalizer for all languages is not used: it treats combining marks as punctuation,
    which splits words of Hindi and Thai.
    """
    text = _folded(text)
    characters = []
    removed = False  # the character before; then marks on it go too: an emoji has invisible ones
    for before, character, after in zip(" " + text, text, text[1:] + " "):
        category = unicodedata.category(character)
        if character in APOSTROPHES and _in_word(before) and _in_word(after):
            characters.append("'")
            removed = False
        elif category[0] in "PS" or (removed and (category[0] == "M" or category == "Cf")):
            characters.append(" ")
            removed = True
        else:
            characters.append(character)
            removed = False
    return " ".join("".join(characters).split())


def _folded(text: str) -> str:
    # An accent that stands alone would become one without a letter, at the beginning of a word.
    if not text.isascii():
        text = "".join(" " if unicodedata.category(char) == "Sk" else char for char in text)
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded)  # folding takes some letters apart


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _whisper() -> Callable[[str], str]:
    from whisper_normalizer.english import (  # type: ignore[import-untyped]
        EnglishTextNormalizer,
    )

    english = EnglishTextNormalizer()

    def normalize(text: str) -> str:
        try:
            return str(english(text)).strip()
        except (AssertionError, ValueError):  # a number with more digits than Python parses
            return _basic(text)

    return normalize
