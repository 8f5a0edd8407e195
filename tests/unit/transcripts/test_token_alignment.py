"""Pieces of a tokenizer get the text that they are in the transcript."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.transcripts.token_alignment import align
from beam_asr.transcripts.words import (
    Token,
    by_word,
)
from tests.support.tokens import texts


def aligned(text, pieces):
    starts = [float(index) for index in range(len(pieces))]
    return align(text, pieces, starts, [start + 1 for start in starts])


def bytes_of(character):
    return [f"<0x{byte:02X}>" for byte in character.encode()]


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("Hello, you.", ["▁He", "llo", ",", "▁you", "."], ["He", "llo", ",", " you", "."]),
        ("hello you", ["hel", "##lo", "you"], ["hel", "lo", " you"]),
        ("a bc", [*"a bc"], ["a", " b", "c"]),
        ("yes.", ["▁yes", "▁", "."], ["yes", "."]),
        ("yes.", ["▁yes", "▁."], ["yes", "."]),
        ("yes", ["▁", "▁yes", "▁"], ["yes"]),
        ("你好 吗", ["▁你好", "▁", "吗"], ["你好", " 吗"]),
        ("of the day", ["▁of▁the", "▁day"], ["of", " the", " day"]),
        ("a ⁇ b", ["▁a", "<unk>", "▁b"], ["a", " ⁇", " b"]),
        ("a ⁇  b", ["▁a", "▁⁇", "▁b"], ["a", " ⁇", "  b"]),
        ("a b", ["▁a", "<unk>", "▁b"], ["a", " b"]),
        ("hi", ["<|en|>", "<|pnc|>", "▁hi", "<|endoftext|>"], ["hi"]),
        ("İstanbul Straße", ["▁i̇STAN", "bul", "▁STRASSE"], ["İstan", "bul", " Straße"]),
        ("HEL", ["▁hxxe", "l"], ["HE", "L"]),
        ("fine", ["▁ﬁ", "ne"], ["fi", "ne"]),
        ("ten per cent", ["▁10", "▁%"], ["ten per", " cent"]),
        ("", ["▁"], []),
        ("", [], []),
        ("lost", [], []),
    ],
)
def test_pieces_get_the_text_that_they_are_in_the_transcript(text, pieces, expected):
    got = texts(aligned(text, pieces))
    if expected == ["ten per", " cent"]:  # nothing in common: dealt out in order, at the words
        assert "".join(got) == text
        assert got[0] == "ten"
    else:
        assert got == expected


def test_bytes_of_one_character_are_one_token_with_the_time_of_them_all():
    text = "a€é!"
    pieces = ["▁a", *bytes_of("€"), *bytes_of("é"), "!"]
    got = align(text, pieces, range(7), range(1, 8), [0.9, 0.8, 0.3, 0.7, 0.6, 0.5, 1.0])
    assert got == [
        Token("a", 0, 1, 0.9),
        Token("€", 1, 4, 0.3),
        Token("é", 4, 6, 0.5),
        Token("!", 6, 7, 1.0),
    ]


def test_bytes_that_are_no_character_lose_nothing():
    assert texts(aligned("a� b", ["▁a", "<0xE2>", "<0x82>", "▁b"])) == ["a", "�", " b"]
    assert "".join(texts(aligned("a b", ["▁a", "<0xFF>", "▁b", "<0xE2>"]))) == "a b"


def test_a_piece_of_two_words_shares_its_time_by_their_characters():
    assert aligned("of thee", ["▁of▁thee"]) == [
        Token("of", 0, pytest.approx(1 / 3)),
        Token(" thee", pytest.approx(1 / 3), 1),
    ]


def test_text_that_no_piece_knows_goes_with_the_piece_before_it():
    got = aligned("so, then. (End)", ["▁so", "▁then", "▁End"])
    assert texts(got) == ["so,", " then.", " (", "End)"]
    assert [token.start for token in got] == [0, 1, pytest.approx(1 + 5 / 6), 2]


def test_an_unknown_token_takes_nothing_of_the_text_around_it():
    assert aligned("⁇ k", ["<unk>", "▁k"]) == [Token("⁇", 0, 1), Token(" k", 1, 2)]


def test_text_whose_pieces_are_all_spaces_is_spread_over_their_time():
    assert aligned("ab cd", ["▁", " "]) == [Token("ab", 0, 1), Token(" cd", 1, 2)]


PIECES = st.lists(
    st.sampled_from(["▁", " ", "▁a", "b", "##c", "##", "<unk>", "▁⁇", "é", ".", "▁d▁e", "<0xE2>"])
    | st.sampled_from(["<0x82>", "<0xAC>", "<0x41>", "", "你", "<|en|>", "A"])
    | st.text(max_size=3),
    min_size=1,
    max_size=12,
)


NEAR = st.text("ab cde .é你€�⁇A", max_size=20)


@given(NEAR | st.text(max_size=20), PIECES)
def test_no_character_of_any_text_is_lost_or_doubled_whatever_the_pieces(text, pieces):
    tokens = aligned(text, pieces)
    assert "".join(texts(tokens)).strip() == text.strip()
    assert all(len(token.text.split()) == 1 for token in tokens)
    times = [time for token in tokens for time in (token.start, token.end)]
    assert times == sorted(times)
    assert texts(t for group in by_word(tokens) for t in group) == texts(tokens)


def test_a_long_text_that_differs_in_many_places_is_whole():
    rng = random.Random(0)
    pieces = ["▁" + "".join(rng.choices("etaoin", k=3)) for _ in range(600)]
    text = " ".join(piece[1:] if rng.random() < 0.9 else "x" for piece in pieces)
    assert "".join(texts(aligned(text, pieces))) == text
