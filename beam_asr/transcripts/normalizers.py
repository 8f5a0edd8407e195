"""What of a text counts when it is compared: case, punctuation and spelling often do not."""

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
    """A function from a text to what of it is compared; its words stand between spaces.

    - ``none``: the text as it is. Of white space each character becomes a space, since a word ends
      at any of them.
    - ``basic``, for any language: compatible forms are made equal (NFKC), case is folded, and of
      punctuation and symbols only apostrophes within words are left.
    - ``whisper``: Whisper's normaliser of English, which also knows spellings, contractions and
      numbers. It takes the vowel signs off other scripts.

    Raises:
        SetupError: there is none of this name.
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
    """Whisper's own normaliser for all languages is not this one: it takes combining marks for
    punctuation, which cuts Hindi and Thai apart."""
    text = _folded(text)
    kept = []
    gone = False  # the character before, so marks on it go too: an emoji has invisible ones
    for before, character, after in zip(" " + text, text, text[1:] + " "):
        category = unicodedata.category(character)
        if character in APOSTROPHES and _in_word(before) and _in_word(after):
            kept.append("'")
            gone = False
        elif category[0] in "PS" or (gone and (category[0] == "M" or category == "Cf")):
            kept.append(" ")
            gone = True
        else:
            kept.append(character)
            gone = False
    return " ".join("".join(kept).split())


def _folded(text: str) -> str:
    # An accent that stands alone would become one without a letter, at the beginning of a word.
    if not text.isascii():
        text = "".join(" " if unicodedata.category(each) == "Sk" else each for each in text)
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
        except (AssertionError, ValueError):  # a number of more digits than Python reads
            return _basic(text)

    return normalize
