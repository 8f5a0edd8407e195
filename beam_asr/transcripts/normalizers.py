"""Normalizes texts before they are compared: case, punctuation, spelling."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

from beam_asr.errors import SetupError

NORMALIZERS = ("none", "basic", "whisper")

# What people write for an apostrophe: of the characters that look like one (those of U+0027 in
# confusables.txt of UTS #39), the signs, modifier letters and saltillos; and U+02BF beside U+02BE.
APOSTROPHES = (
    "'\u0060\u00b4\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\u055a\u05f3\u07f4\u07f5\u2018\u2019\u201b"
    "\u2032\u2035\ua78b\ua78c\uff07\uff40"
)
SPACE = re.compile(r"\s")
# Of a text in ASCII: punctuation and symbols, but an apostrophe between two letters.
_ASCII_REMOVED = re.compile(r"(?<![a-z])'|'(?![a-z])|[!-&(-/:-@\[-`{-~]")

_APOSTROPHE = re.compile(f"[{APOSTROPHES}]")
_JOINERS = "\u200c\u200d"


@functools.cache
def normalizer(name: str) -> Callable[[str], str]:
    """Returns the function that normalizes a text; spaces separate its words.

    - ``none``: the text as it is. Each white-space character becomes a space, since a word ends at
      any of them.
    - ``basic``, for any language: compatible forms are made equal (NFKC), case is folded, and
      punctuation, symbols and what nobody sees are removed, except apostrophes within words.
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
    if text.isascii():  # the same, several times as fast
        return " ".join(_ASCII_REMOVED.sub(" ", text).split())
    characters = []
    removed = False  # the character before; then marks on it go too
    for before, character, after in zip(" " + text, text, text[1:] + " "):
        category = unicodedata.category(character)
        if character == "'" and _in_word(before) and _in_word(after):
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
    """Returns a text as Unicode's NFKC_Casefold, with one apostrophe and without unseen dots."""
    if text.isascii():
        return text.replace("`", "'").casefold()
    patterns = _patterns()
    text = unicodedata.normalize("NFC", text)  # some apostrophes are others, by canonical mappings
    if patterns.unseen.search(text):
        text = patterns.joiner.sub("", patterns.ignorable.sub("", text))
    text = _APOSTROPHE.sub("'", text)
    # An accent that stands alone would become one without a letter, at the beginning of a word.
    text = "".join(" " if unicodedata.category(char) == "Sk" else char for char in text)
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = unicodedata.normalize("NFKC", folded)  # folding takes some letters apart
    dotless = patterns.unseen_dot.sub(r"\1", folded)
    return _APOSTROPHE.sub("'", unicodedata.normalize("NFKC", dotless))


class _Patterns(NamedTuple):
    """Patterns of what a reader does not see, by Unicode's properties.

    Attributes:
        unseen: a default-ignorable character (UAX #44), as a soft hyphen, a mark of direction or a
            space without width.
        ignorable: such characters, except the joiners U+200C and U+200D.
        joiner: a joiner that changes no letter. One stays as spelling beside a virama, and behind a
            letter that would join the next one, as in Hindi, Sinhala and Persian (Unicode, 9.2 and
            12.1).
        unseen_dot: a dot above on a letter that has one (Soft_Dotted); folded from U+0130.
    """

    unseen: Any
    ignorable: Any
    joiner: Any
    unseen_dot: Any


@functools.cache
def _patterns() -> _Patterns:
    import regex  # type: ignore[import-untyped]

    joins = r"(?<=[\p{jt=D}\p{jt=L}\p{jt=C}]\p{jt=T}*)"
    joined = r"(?=\p{jt=T}*[\p{jt=D}\p{jt=R}])"
    seen = (
        rf"(?<=\p{{ccc=9}})\u200c(?=\p{{L}})|(?<=\p{{ccc=9}})\u200d|[{_JOINERS}](?=\p{{ccc=9}})"
        rf"|{joins}\u200c{joined}|{joins}\u200d"
    )
    return _Patterns(
        regex.compile(r"\p{DI}"),
        regex.compile(rf"(?V1)[\p{{DI}}--[{_JOINERS}]]+"),
        regex.compile(rf"(?V1)(?!{seen})[{_JOINERS}]"),
        regex.compile(r"(?V1)(\p{Soft_Dotted}[\p{M}--[\p{ccc=0}\p{ccc=230}]]*)\u0307"),
    )


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
