"""Normalisers: what of a text counts when it is compared."""

# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata

import pytest
import regex as re
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.transcripts.normalizers import NORMALIZERS, normalizer

basic = normalizer("basic")
texts = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from(
            "aBé İßΐᾳ'’ʼ.,-´\u0301\u0345हिन्दीไทย日。ﾃﾞ½㎏ʻ‘`İکه"
            "\u0307\u200b\u200c\u200d\ufe0f❤\t\u3000"
        ),
    ),
    max_size=30,
)


def categories(text: str) -> set[str]:
    return {unicodedata.category(each)[0] for each in text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t, STOP!", "don't stop"),
        ("'tis rock 'n' roll, the dogs'", "tis rock n roll the dogs"),
        ("П'ять Пʼять П’ять", "п'ять п'ять п'ять"),
        ("हिन्दी में।", "हिन्दी में"),
        ("ภาษาไทย ๆ ที่นี่", "ภาษาไทย ๆ ที่นี่"),
        ("日本語、ﾃﾞｰﾀ。", "日本語 データ"),
        ("STRASSE straße", "strasse strasse"),
        ("cafe\u0301 café", "café café"),
        ("5㎏ ﬁne … $3", "5kg fine 3"),
        ("cafe´ d´or", "cafe d'or"),
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
    seen = not re.search(r"\p{Default_Ignorable_Code_Point}", text)
    if seen and unicodedata.normalize("NFKC", text) == text == text.casefold():
        assert basic(text) == text


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("soft hyphen", "co\u00adoperation", "cooperation"),
        ("byte order mark", "\ufeffthank you", "thank you"),
        ("space without width at an end", "thank you\u200b very", "thank you very"),
        ("space without width in Thai", "สวัสดี\u200bครับ", "สวัสดีครับ"),
        ("word joiner", "10\u2060%", "10%"),
        ("marks of direction", "\u200eשלום\u200f", "שלום"),
        ("isolates", "\u2067שלום\u2069 \u202babc\u202c", "שלום abc"),
        ("Arabic letter mark", "\u061cسلام", "سلام"),
        ("grapheme joiner", "a\u034fb", "ab"),
        ("Hangul filler", "가\u3164 나", "가 나"),
        ("variation selector", "葛\U000e0100城", "葛城"),
        ("Mongolian variant", "ᠠ\u180b", "ᠠ"),
        ("tags", "flag\U000e0067\U000e007f", "flag"),
        ("no joining of Latin letters", "Auf\u200clage \u200dx\u200d", "auflage x"),
        ("no joining after a letter that does not join", "کار\u200cها", "کارها"),
        ("Turkish capital with a dot", "İSTANBUL", "istanbul"),
        ("small letter of it with two", "i\u0307stanbul", "istanbul"),
        ("Lithuanian dot under an accent", "i\u0307\u0301 į\u0307", "í į"),
        ("Cyrillic letter with a dot", "\u0456\u0307", "\u0456"),
    ],
)
def test_basic_does_not_count_what_nobody_sees(name, text, seen):
    assert basic(text) == basic(seen) != "", name


@given(
    texts,
    st.sampled_from("\u00ad\u034f\u061c\u115f\u17b4\u180e\u200b\u2060\u3164\ufe0f\ufeff\U000e0100"),
)
def test_default_ignorable_characters_change_no_text(text, unseen):
    assert basic(unseen.join(["", *text, ""])) == basic(text)


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # Persian: the letters do not join
        "क्\u200dष",  # Hindi: a half form
        "ක්\u200dෂ",  # Sinhala
        "র\u200d্যাব",  # Bengali: before the virama
        "ه\u200d ق",  # a letter alone in the form it has at a beginning
    ],
)
def test_basic_keeps_joiners_that_are_spelling(text):
    assert basic(text) == text
    assert basic(text.replace("\u200c", "").replace("\u200d", "")) != text


@pytest.mark.parametrize("apostrophe", "'`´ʹʻʼʽʾʿ՚׳ߴߵ‘’‛′‵ꞌ＇｀\u1fef\u1ffd")
def test_all_that_is_written_for_an_apostrophe_is_one(apostrophe):
    assert basic(f"o{apostrophe}zbek don{apostrophe}t") == "o'zbek don't"
    assert basic(f"{apostrophe}tis dogs{apostrophe} a {apostrophe} b") == "tis dogs a b"


@given(texts)
def test_none_changes_nothing_but_the_kind_of_white_space(text):
    same = normalizer("none")(text)
    assert len(same) == len(text)
    assert same.split(" ") == "".join(" " if each.isspace() else each for each in text).split(" ")


def test_whisper_knows_english_spellings_contractions_and_numbers():
    whisper = normalizer("whisper")
    text = "Mr. Brown won't grey the colour, um, of twenty-five [noise] hats."  # codespell:ignore
    assert whisper(text) == "mister brown will not gray the color of 25 hats"


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


@given(st.text(st.characters(max_codepoint=127)))
def test_basic_normalizes_ascii_alone_as_beside_other_letters(text):
    beside = normalizer("basic")(f"{text} é")
    assert beside.split() == [*normalizer("basic")(text).split(), "é"]
    assert beside == " ".join(beside.split())
