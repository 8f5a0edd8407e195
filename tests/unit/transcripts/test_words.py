import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.transcripts.token_alignment import align
from beam_asr.transcripts.words import (
    Sentence,
    Token,
    Word,
    by_word,
    monotone,
    needs_space,
    sentences,
    spread,
    words,
)


def texts(tokens):
    return [token.text for token in tokens]


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


@given(st.text(max_size=40))
def test_a_text_without_times_is_spread_whole(text):
    tokens = spread(text, 2, 5)
    assert "".join(texts(tokens)) == text.strip()
    assert [t.start for t in tokens[1:]] == pytest.approx([t.end for t in tokens[:-1]])
    if tokens:
        assert (tokens[0].start, tokens[-1].end) == (2, pytest.approx(5))
    assert len(words(tokens)) >= len(text.split())


def test_words_take_time_by_their_characters():
    got = spread("a bcd", 1.0, 3.0)
    assert got == [Token("a", 1.0, 1.5), Token(" bcd", 1.5, 3.0)]
    assert texts(spread("你好。ok นี่", 0, 1)) == ["你", "好。", "ok", " นี่"]


def test_words_are_grouped_at_spaces_and_are_as_sure_as_their_least_sure_token():
    tokens = [
        Token("He", 0.1, 0.2, 0.9),
        Token("llo", 0.3, 0.5, 0.5),
        Token(" you", 0.6, 0.7, 0.8),
        Token(".", 0.7, 0.8),
    ]
    assert words(tokens) == [
        Word("Hello", 0.1, 0.5, 0.5, True),
        Word("you.", 0.6, 0.8, None, True),
    ]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["今日", "は", "いい", "天気", "。", "ね"], ["今日", "は", "いい", "天気。", "ね"]),
        ([*"コーヒー"], ["コー", "ヒー"]),
        ([*"你「好」吗?"], ["你", "「好」", "吗?"]),
        (["สวัส", "ดี", "ครับ"], ["สวัส", "ดี", "ครับ"]),
        (["我", "用", "i", "Phone", "手机", "2", "0", "台"], "我 用 iPhone 手机 20 台".split()),
        (["我", " use", "d", " it", "。", "好"], ["我", "used", "it。", "好"]),
        (["안녕", "하", " 세요"], ["안녕하", "세요"]),
        (["un", "believ", "able"], ["unbelievable"]),
    ],
)
def test_where_no_spaces_are_written_each_token_is_a_word(tokens, expected):
    got = words([Token(text, 0, 1) for text in tokens])
    assert [word.text for word in got] == expected


def test_sentences_end_at_punctuation_and_at_pauses():
    tokens = [
        Token("Go", 0.0, 0.5),
        Token(" on.", 0.5, 1.0),
        Token(' "Why?"', 1.1, 1.5),
        Token(" I", 1.6, 1.7),
        Token(" see", 2.69, 3.0),
        Token(" it", 4.0, 4.5),
    ]
    assert sentences(words(tokens)) == [
        Sentence("Go on.", 0.0, 1.0),
        Sentence('"Why?"', 1.1, 1.5),
        Sentence("I see", 1.6, 3.0),
        Sentence("it", 4.0, 4.5),
    ]
    assert sentences([]) == []


def test_sentences_keep_the_spaces_of_the_transcript():
    tokens = [Token(text, 0, 1) for text in ["我", "用", " iPhone", "。", "好", "！"]]  # noqa: RUF001
    assert [s.text for s in sentences(words(tokens))] == ["我用 iPhone。", "好！"]  # noqa: RUF001


def test_a_space_stands_between_texts_of_scripts_that_write_it():
    assert needs_space("so", "then")
    assert needs_space("안녕", "하세요")
    assert not needs_space("今日は", "いい")
    assert not needs_space("好。", "iPhone")
    assert not needs_space("", "then")


@given(
    st.lists(st.tuples(st.floats(width=16), st.floats(width=16)), max_size=8),
    st.floats(0, 5),
    st.floats(5, 10),
)
def test_times_are_made_to_go_forward_within_bounds(times, earliest, latest):
    tokens = [Token(f" {index}", *pair, 0.5) for index, pair in enumerate(times)]
    got = monotone(tokens, earliest, latest)
    assert texts(got) == texts(tokens)
    flat = [earliest, *(time for token in got for time in (token.start, token.end)), latest]
    assert flat == sorted(flat)
    assert not any(map(math.isnan, flat))
    assert monotone(got, earliest, latest) == got


def test_where_tokens_overlap_the_start_of_the_second_counts():
    got = monotone([Token("a", 0, 2), Token(" b", 1, 1.5)], 0, 9)
    assert [(t.start, t.end) for t in got] == [(0, 1), (1, 1.5)]


def test_a_time_that_is_no_number_does_not_move_those_after_it():
    nan = math.nan
    got = monotone([Token("a", 1, 2), Token(" b", nan, nan), Token(" c", 3, 4)], 0, 9)
    assert (got[2].start, got[2].end) == (3, 4)


def test_a_long_text_that_differs_in_many_places_is_whole():
    rng = random.Random(0)
    pieces = ["▁" + "".join(rng.choices("etaoin", k=3)) for _ in range(600)]
    text = " ".join(piece[1:] if rng.random() < 0.9 else "x" for piece in pieces)
    assert "".join(texts(aligned(text, pieces))) == text


def test_the_modules_are_light_to_import():
    code = (
        "import sys, beam_asr.transcripts.stitching, beam_asr.transcripts.word_edges;"
        "sys.exit(bool({'nemo', 'torch', 'apache_beam'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
