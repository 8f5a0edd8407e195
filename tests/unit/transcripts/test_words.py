"""Words and sentences of tokens, and their times."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.transcripts.words import (
    Sentence,
    Token,
    Word,
    monotone,
    needs_space,
    sentences,
    spread,
    words,
)
from tests.support.tokens import texts


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


def test_the_modules_are_light_to_import():
    code = (
        "import sys, beam_asr.transcripts.stitching, beam_asr.transcripts.word_edges;"
        "sys.exit(bool({'nemo', 'torch', 'apache_beam'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
