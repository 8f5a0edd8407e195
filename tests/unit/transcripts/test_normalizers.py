"""Normalisers: what of a text counts when it is compared."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.transcripts.normalizers import NORMALIZERS, normalizer

basic = normalizer("basic")
texts = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("aBé İßΐᾳ'’ʼ.,-´\u0301\u0345हिन्दीไทย日。ﾃﾞ½㎏\u200d\ufe0f❤\t\u3000"),  # noqa: RUF001
    ),
    max_size=30,
)


def categories(text: str) -> set[str]:
    return {unicodedata.category(each)[0] for each in text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t, STOP!", "don't stop"),  # noqa: RUF001
        ("'tis rock 'n' roll, the dogs'", "tis rock n roll the dogs"),
        ("П'ять Пʼять П’ять", "п'ять п'ять п'ять"),  # noqa: RUF001
        ("हिन्दी में।", "हिन्दी में"),
        ("ภาษาไทย ๆ ที่นี่", "ภาษาไทย ๆ ที่นี่"),
        ("日本語、ﾃﾞｰﾀ。", "日本語 データ"),
        ("STRASSE straße", "strasse strasse"),
        ("cafe\u0301 café", "café café"),
        ("5㎏ ﬁne … $3", "5kg fine 3"),
        ("l´amour", "l amour"),  # noqa: RUF001
        ("yes ❤️ 👨‍👩‍👧 no", "yes no"),
        ("a\u3000b\t\n c\xa0", "a b c"),
        ("...", ""),
    ],
)
def test_basic_leaves_the_words_of_any_language(text, expected):
    assert basic(text) == expected


@given(texts)
def test_basic_leaves_no_punctuation_no_case_and_single_spaces(text):
    clean = basic(text)
    assert not categories(clean.replace("'", "")) & {"P", "S"}
    assert clean == " ".join(clean.split())
    assert all(len(word.strip("'")) == len(word) for word in clean.split())
    assert basic(clean) == clean


@given(st.text(st.characters(categories=["L", "N"]), max_size=20))
def test_basic_does_not_tell_cases_apart(text):
    assert basic(text) == basic(text.casefold())


@given(st.text(st.characters(categories=["Lo", "Mn", "Mc"]), max_size=20))
def test_basic_keeps_letters_and_marks(text):
    """It cuts no word apart and takes no vowel sign off."""
    if unicodedata.normalize("NFKC", text) == text == text.casefold():
        assert basic(text) == text


@given(texts)
def test_none_changes_nothing_but_the_kind_of_white_space(text):
    same = normalizer("none")(text)
    assert len(same) == len(text)
    assert same.split(" ") == "".join(" " if each.isspace() else each for each in text).split(" ")


def test_whisper_knows_english_spellings_contractions_and_numbers():
    whisper = normalizer("whisper")
    assert whisper("Mr. Brown won't grey the colour, um, of twenty-five [noise] hats.") == (
        "mister brown will not gray the color of 25 hats"
    )


@pytest.mark.parametrize("text", ["7" * 6000, "one " * 4290 + "decillion"])
def test_whisper_takes_numbers_that_python_cannot_read(text):
    assert normalizer("whisper")(text) == text.strip()


@given(st.text(max_size=40))
def test_whisper_takes_any_text(text):
    clean = normalizer("whisper")(text)
    assert clean == clean.strip()


def test_a_normalizer_that_is_not_there_names_those_that_are():
    with pytest.raises(ValueError, match=r"'english'.*none, basic, whisper"):
        normalizer("english")
    assert {normalizer(name) is normalizer(name) for name in NORMALIZERS} == {True}
