"""Captions: what stands together, how it is broken, when it is shown."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.outputs.formats.captions import Cue, cues

JAPANESE = (
    "私は昨日、東京から京都まで新幹線で行きました。とても速かったです。"
    "でも、切符はちょっと高いと思いました。来年は、もう一度家族と一緒に行きたいです。"
)

letters = st.characters(codec="utf-8", exclude_categories=["Z", "Cc"])
texts = st.one_of(
    st.sampled_from(["the", "a", "yes.", "however,", "(no!)", "-->", "<i>", "日", "。", "ไทย"]),
    st.text(st.characters(min_codepoint=0x5D0, max_codepoint=0x5EA), min_size=1, max_size=9),
    st.text(letters, min_size=1, max_size=12),
    st.text("abc/.?=", min_size=30, max_size=120),
)
gaps = st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 3), st.floats(0, 20_000))


@st.composite
def spoken(draw):
    """Words with monotone times, and the text of which they are."""
    time, words, text = 0.0, [], ""
    for word in draw(st.lists(texts, max_size=40)):
        start = time + draw(gaps)
        time = start + draw(st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 30)))
        words.append({"word": word, "start": start, "end": time})
        text += draw(st.sampled_from([" ", " ", ""])) + word
    return words, text


def timed(words, pace=0.35, first=0.0):
    """Words said evenly, with a breath after a comma and a pause after a full stop."""
    said, time = [], first
    for word in words:
        said.append({"word": word, "start": time, "end": time + 0.9 * pace})
        time += pace + {",": 0.2, ".": 0.6, "?": 0.6}.get(word[-1], 0.0)
    return said


def cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def without_spaces(text: str) -> str:
    return "".join(text.split())


def words_of(found: list[Cue], words: list[dict]) -> list[list[dict]]:
    """The words of which each cue has a part."""
    owners = [word for word in words for _ in without_spaces(word["word"])]
    parts, at = [], 0
    for cue in found:
        count = len(without_spaces("".join(cue.lines)))
        parts.append(owners[at : at + count])
        at += count
    return parts


# What holds for any words.


@given(spoken())
def test_all_that_is_said_is_shown_once_in_its_order(said):
    words, text = said
    shown = "".join(line for cue in cues(words, text) for line in cue.lines)
    assert without_spaces(shown) == without_spaces("".join(word["word"] for word in words))


@given(spoken())
def test_a_cue_has_two_lines_that_fit_or_a_long_word_alone(said):
    words, text = said
    for cue in cues(words, text):
        assert 1 <= len(cue.lines) <= 2
        for line in cue.lines:
            assert line == line.strip() != ""
            assert cells(line) <= 42 or line in [word["word"] for word in words]


@given(spoken())
def test_cues_are_not_empty_do_not_overlap_and_do_not_stay_for_ever(said):
    found = cues(*said)
    for cue in found:
        assert cue.start < cue.end <= cue.start + 7.001
    for cue, after in itertools.pairwise(found):
        assert cue.end <= after.start


@given(spoken())
def test_no_word_is_shown_before_it_is_said_and_each_stays_until_it_is(said):
    words, text = said
    found = cues(words, text)
    for number, (cue, of_cue) in enumerate(zip(found, words_of(found, words), strict=True)):
        whole = [word for word in of_cue if cells(word["word"]) <= 42]
        if len(whole) < len(of_cue):  # a part of a word has a part of its time
            continue
        assert cue.start > of_cue[0]["start"] - 0.000501
        ends = [of_cue[-1]["end"], of_cue[0]["start"] + 7]
        ends += [after.start for after in found[number + 1 : number + 2]]
        assert cue.end > min(ends) - 0.000501


# What a reader wants.


def test_a_text_is_broken_where_a_reader_would_break_it():
    text = (
        "Well, I have always thought that the best way of learning a language is to live in the "
        "country where it is spoken, because you hear it from the morning to the night. Yes. No "
        "doubt! But what about those who cannot travel, for instance because of their work?"
    )
    assert [cue.lines for cue in cues(timed(text.split()), text)] == [
        ["Well, I have always thought that the best", "way of learning a language is to live"],
        [
            "in the country where it is spoken, because",
            "you hear it from the morning to the night.",
        ],
        ["Yes. No doubt!"],
        ["But what about those who cannot travel,", "for instance because of their work?"],
    ]


@given(st.lists(st.integers(5, 12), min_size=2, max_size=8))
def test_cues_end_with_sentences_that_fit(lengths):
    sentences = [["word"] * length + ["end."] for length in lengths]
    words = [word for sentence in sentences for word in sentence]
    for cue in cues(timed(words), " ".join(words)):
        assert cue.lines[-1].endswith("end.")


@given(st.lists(st.integers(3, 6), min_size=2, max_size=8))
def test_without_marks_cues_end_at_pauses(lengths):
    words, time = [], 0.0
    for length in lengths:
        phrase = timed(["word"] * (length - 1) + ["last"], first=time)
        words += phrase
        time = phrase[-1]["end"] + 1.5
    assert len(found := cues(words)) == len(lengths)
    assert all(cue.lines[-1].endswith("last") for cue in found)


@given(st.lists(st.sampled_from(["a", "to", "word", "language", "of"]), min_size=4, max_size=80))
def test_no_short_word_is_left_alone(words):
    text = " ".join(words)
    found = cues(timed(words, pace=0.25), text)
    if len(text) > 25:
        assert all(len(" ".join(cue.lines)) >= 10 for cue in found)
        assert all(len(line) >= 10 for cue in found for line in cue.lines)


def test_a_short_last_word_takes_others_with_it():
    words = [*["thirteenchars"] * 6, "x"]  # the six would fill two lines
    found = cues(timed(words, pace=0.5))
    assert len(found) == 2
    assert " ".join(found[1].lines).endswith("thirteenchars thirteenchars x")


def test_a_short_last_word_takes_others_with_it_over_a_comma():
    words = [*["seven77"] * 9, "seven7,", "right."]  # the ten would fill two lines
    assert len(cues(timed(words, pace=0.5))[-1].lines[-1]) > 10


def test_cues_end_with_clauses_where_no_sentence_does():
    words = [*["word"] * 6, "word,", *["word"] * 13]  # 35 and 65 cells
    first, _ = cues(timed(words))
    assert first.lines == ["word word word word word word word,"]


def test_a_caption_stays_into_the_silence_for_as_long_as_it_takes_to_read():
    fast = timed(["seventeen-letters"] * 4, pace=0.1)  # 71 cells in 0.4 seconds
    (cue,) = cues(fast)
    assert cue.end - cue.start == pytest.approx(71 / 17, abs=0.001)
    first, second = cues([*fast, {"word": "Then.", "start": 3.0, "end": 3.1}])
    assert first.end == second.start == 3.0
    assert second.end == 4.0  # a second at least


def test_a_caption_without_room_is_joined_with_its_neighbour():
    words = timed(["No.", "Why", "not?"], pace=0.2)
    words[1:] = [{**word, "start": word["start"] - 0.55} for word in words[1:]]
    assert [cue.lines for cue in cues(words)] == [["No. Why not?"]]


def test_a_word_that_lasts_is_shown_seven_seconds_at_most():
    (cue,) = cues([{"word": "Om", "start": 3.0, "end": 60.0}])
    assert (cue.start, cue.end) == (3.0, 10.0)


def test_words_of_no_length_at_one_time_are_all_shown():
    words = [{"word": f"number{number}.", "start": 5.0, "end": 5.0} for number in range(40)]
    found = cues(words)
    assert found[0].start == 5.0
    assert found[-1].start < 5.1


# Languages.


@pytest.mark.parametrize("words", [list(JAPANESE), [JAPANESE]], ids=["characters", "one word"])
def test_words_that_stand_without_spaces_are_joined_without(words):
    found = cues(timed(words, pace=16.0 / len(words)), JAPANESE)
    assert "".join(line for cue in found for line in cue.lines) == JAPANESE
    assert len(found) > 1
    for line in [line for cue in found for line in cue.lines]:
        assert len(line) <= 21
        assert line[0] not in "、。"


def test_no_line_begins_with_a_sign_that_goes_with_the_one_before():
    text = "ア" * 11 + "ー" + "ア" * 10
    (cue,) = cues(timed(list(text), pace=0.2), text)
    assert cue.lines in (["ア" * 11 + "ー", "ア" * 10], ["ア" * 10, "アー" + "ア" * 10])


def test_a_language_with_spaces_within_one_without_keeps_its_spaces():
    words = ["これ", "は", "New", "York", "です", "。"]
    (cue,) = cues(timed(words), "これはNew York です。")
    assert cue.lines == ["これはNew York です。"]


def test_thai_is_joined_as_its_text():
    words = ["สวัสดี", "ครับ", "ผม", "ชื่อ", "สมชาย"]
    (cue,) = cues(timed(words), "สวัสดีครับ ผมชื่อสมชาย")
    assert cue.lines == ["สวัสดีครับ ผมชื่อสมชาย"]


def test_right_to_left_text_keeps_its_order():
    text = "שלום לכם. مرحبا بكم؟"
    (cue,) = cues(timed(text.split()), text)
    assert " ".join(cue.lines) == text


def test_a_text_with_other_words_is_no_reason_to_lose_spaces():
    (cue,) = cues(timed(["two", "words"]), "twowo rds")
    assert cue.lines in (["two words"], ["twowords"])
    (cue,) = cues(timed(["two", "words"]), "something else")
    assert cue.lines == ["two words"]


def test_line_breaks_and_control_characters_are_removed():
    (cue,) = cues(timed(["a\r\nb", "\x00", "c\x1b\u2028"]))
    assert cue.lines == ["a b c"]


def test_nothing_said_is_no_caption():
    assert cues([]) == []
    assert cues([{"word": "\n", "start": 0.0, "end": 1.0}]) == []
