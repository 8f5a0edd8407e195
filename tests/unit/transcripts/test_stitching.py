import itertools
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beam_asr.transcripts.stitching import SegmentText, Stitched, stitch
from beam_asr.transcripts.words import Token, spread


def said(text, *starts, length=0.3):
    """Tokens of words that begin at these times."""
    words = text.split()
    assert len(words) == len(starts)
    return [Token(f" {w}", at, at + length, 0.9) for w, at in zip(words, starts)]


def part(start, end, overlaps, tokens):
    tokens = [tokens[0]._replace(text=tokens[0].text.strip()), *tokens[1:]] if tokens else []
    return SegmentText(start, end, overlaps, "".join(token.text for token in tokens), tokens)


def untimed(start, end, overlaps, text):
    return SegmentText(start, end, overlaps, text, None)


def text_of(*parts):
    stitched = stitch(parts)
    times = [time for token in stitched.tokens for time in (token.start, token.end)]
    assert times == sorted(times)
    assert "".join(token.text for token in stitched.tokens) == stitched.text
    return stitched.text


def test_parts_cut_at_pauses_are_joined_as_they_are():
    tokens = said("so then", 0.1, 0.6)
    parts = [
        part(0, 10, False, tokens),
        part(10, 20, False, []),
        part(20, 30, False, said("then so", 21, 22)),
    ]
    assert text_of(*parts) == "so then then so"
    assert stitch(parts).tokens == [
        tokens[0]._replace(text="so"),
        tokens[1],
        *said("then so", 21, 22),
    ]


def test_nothing_recognized_is_an_empty_transcript():
    assert stitch([]) == Stitched("", [])
    assert stitch([part(0, 5, False, []), untimed(5, 9, False, " ")]) == Stitched("", [])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["你好。", "今天", "ok"], "你好。今天ok"),
        (["すぐ に", "行く"], "すぐ に行く"),
        (["안녕", "하세요"], "안녕 하세요"),
        (["  so ", "", "\tthen\n"], "so then"),
    ],
)
def test_parts_are_joined_by_a_space_where_their_script_writes_one(texts, expected):
    parts = [untimed(i * 9, i * 9 + 9, False, text) for i, text in enumerate(texts)]
    assert stitch(parts) == Stitched(expected, None)


def test_times_are_reported_if_each_part_with_a_text_has_them():
    timed = part(0, 5, False, said("so", 1))
    assert stitch([timed, untimed(5, 9, False, "then")]) == Stitched("so then", None)
    assert stitch([timed, untimed(5, 9, False, "")]).tokens == timed.tokens


def test_words_that_both_recognized_are_there_once():
    left = part(0, 10, False, said("we go to the sea", 6.0, 6.5, 7.5, 8.5, 9.0))
    right = part(6, 16, True, said("go to the sea now", 6.6, 7.4, 8.6, 9.1, 10.5))
    assert text_of(left, right) == "we go to the sea now"


def test_words_cut_at_an_edge_are_taken_from_the_part_that_recognized_them_whole():
    left = part(0, 10, False, said("he went to the libra", 6.0, 6.6, 7.5, 8.2, 9.7))
    right = part(6.8, 16, True, said("end to the library today", 6.8, 7.5, 8.2, 9.7, 10.5))
    assert text_of(left, right) == "he went to the library today"


def test_capitals_and_punctuation_do_not_keep_words_from_agreeing():
    left = part(0, 10, False, said("he went to the.", 6.0, 6.6, 7.5, 8.2))
    right = part(6.8, 16, True, said("To the library.", 7.5, 8.2, 9.7))
    assert text_of(left, right) == "he went to the library."


@pytest.mark.parametrize("word", ["no", "one", "1"])
@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.1])
def test_a_word_said_many_times_is_there_as_many_times(word, shift):
    times = [5 + 0.5 * index for index in range(12)]
    left = [t for t in times if t < 9.5]
    right = [t for t in times if t >= 7]
    parts = [
        part(0, 10, False, said(" ".join([word] * len(left)), *left)),
        part(6.5, 16, True, said(" ".join([word] * len(right)), *[t + shift for t in right])),
    ]
    assert text_of(*parts) == " ".join([word] * len(times))


def test_a_word_said_fast_is_paired_by_its_times_and_not_by_how_many_pairs_there_are():
    times = [5 + 0.3 * index for index in range(20)]
    left = said(" ".join(["no"] * 15), *times[:15], length=0.2)
    right = said(" ".join(["no"] * 14), *[t + 0.04 for t in times[6:]], length=0.2)
    stitched = text_of(part(0, 9.6, False, left), part(6.7, 16, True, right))
    assert stitched == " ".join(["no"] * 20)


def test_the_same_words_at_other_times_are_other_words():
    left = part(0, 10, False, said("so they said yes", 6.0, 6.5, 7.0, 7.5))
    right = part(6, 16, True, said("yes they said so", 8.6, 9.1, 9.6, 10.1))
    assert text_of(left, right) == "so they said yes yes they said so"


def test_where_nothing_agrees_each_part_has_its_half():
    left = part(0, 10, False, said("a b c d", 6.0, 7.0, 8.2, 9.2))
    right = part(6, 16, True, said("w x y z", 6.1, 7.1, 8.3, 9.3))
    assert text_of(left, right) == "a b y z"


@pytest.mark.parametrize("shift", [-0.12, 0.12])
def test_a_word_in_the_middle_that_both_recognized_differently_is_there_once(shift):
    left = part(0, 10, False, said("a for d", 6.0, 7.85 - shift / 2, 9.2))
    right = part(6, 16, True, said("x four z", 6.1, 7.85 + shift / 2, 9.3))
    assert text_of(left, right) in ("a for z", "a four z")


def test_a_word_in_the_middle_that_one_recognized_in_part_is_there_once():
    left = part(0, 10, False, [Token("a", 6.0, 6.3), Token(" four", 7.6, 8.3)])
    right = part(6, 16, True, [Token("or", 8.02, 8.3), Token(" z", 9.3, 9.6)])
    assert text_of(left, right) == "a four z"


def test_what_one_part_alone_recognized_away_from_its_edge_stays():
    recognized = said("one two three", 6.8, 7.6, 9.0)
    nothing = part(6, 16, True, said("later", 12.0))
    assert text_of(part(0, 10, False, recognized), nothing) == "one two three later"
    early = part(0, 10, False, said("before", 4.0))
    assert text_of(early, part(6, 16, True, recognized)) == "before one two three"


def test_what_one_part_alone_recognized_at_its_edge_goes_if_the_other_was_in_its_middle():
    left = part(0, 10, False, said("one two", 6.8, 9.7))
    right = part(6, 16, True, said("later", 12.0))
    assert text_of(left, right) == "one later"
    left = part(0, 10, False, said("before", 4.0))
    right = part(6, 16, True, said("uh one", 6.0, 8.5))
    assert text_of(left, right) == "before one"


def test_beside_a_part_without_any_text_nothing_goes():
    empty = part(0, 10, False, [])
    assert text_of(empty, part(6, 16, True, said("uh one", 6.0, 8.5))) == "uh one"
    left = part(0, 10, False, said("one two", 6.8, 9.7))
    assert text_of(left, part(6, 16, True, [])) == "one two"


def test_words_that_one_part_missed_before_they_agree_stay():
    left = part(0, 12, False, said("well and so", 3.0, 10.0, 10.5))
    right = part(6, 16, True, said("we two recognized and so on", 7.0, 7.6, 8.2, 10.1, 10.4, 12.5))
    assert text_of(left, right) == "well we two recognized and so on"


def test_three_parts_that_overlap_in_a_row():
    times = [0.5 + 0.5 * index for index in range(40)]
    words = [f"w{index}" for index in range(40)]
    parts = [
        part(a, b, a > 0, [t for w, at in zip(words, times) if a <= at < b for t in said(w, at)])
        for a, b in ((0, 9), (6, 15), (12, 21))
    ]
    assert text_of(*parts) == " ".join(words)


def test_words_of_scripts_without_spaces_are_spliced_between_tokens():
    def tokens(text, start):
        return [Token(c, start + 0.4 * i, start + 0.4 * i + 0.3) for i, c in enumerate(text)]

    left = part(0, 10, False, tokens("我们今天去海边玩", 7.0))
    right = part(7.5, 16, True, tokens("门今天去海边完然后回家", 7.4))
    assert text_of(left, right) == "我们今天去海边完然后回家"


def test_a_word_is_never_cut_in_two():
    def tokens(*parts):
        return [Token(text, at, at + 0.2) for text, at in parts]

    left = tokens((" a", 6.0), (" libr", 7.7), ("ary", 7.9), (" bo", 9.8))
    right = tokens((" libr", 7.75), ("ary", 7.95), (" book", 9.8), ("s", 10))
    assert text_of(part(0, 10, False, left), part(6, 16, True, right)) == "a library books"


def test_without_times_words_are_aligned_by_their_text():
    left = untimed(0, 10, False, "one two three four five six seven eight nine te")
    right = untimed(7, 17, True, "ht nine ten eleven twelve thirteen fourteen fifteen")
    assert stitch([left, right]) == Stitched(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen",
        None,
    )
    assert stitch([untimed(0, 10, False, ""), right]).text == right.text
    assert stitch([left, untimed(7, 17, True, "")]).text == left.text


WORDS = "no one two the libraries to a yes".split()


@st.composite
def recordings(draw):
    """What was said, as tokens, and what was recognized of it in overlapping parts."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    vocabulary = draw(st.sampled_from([WORDS, WORDS[:2], WORDS[:1]]))
    at, true = rng.uniform(0, 1), []
    for _ in range(draw(st.integers(5, 60))):
        word, length = rng.choice(vocabulary), rng.uniform(0.15, 0.5)
        # Times distinguish equal words.
        again = [t for t in true[-3:] if t.text == f" {word}"]
        if again:
            at = max(at, (again[-1].start + again[-1].end) / 2 + 0.5 - length / 2)
        true.append(Token(f" {word}", at, at + length))
        at += length + rng.choice([0, 0.1, 0.4])
    total = at + rng.uniform(0, 1)
    edges, start, end = [], 0.0, rng.uniform(8, 15)
    while end < total:
        edges.append((start, end))
        start = end - rng.uniform(2.5, 5)
        end = start + rng.uniform(8, 15)
    edges.append((start, total))
    return true, [(a, b, _recognized(true, a, b, a > 0, b < total, rng)) for a, b in edges]


def _recognized(true, start, end, cut_before, cut_after, rng):
    tokens = []
    for token in true:
        if token.end <= start or token.start >= end:
            continue
        near = (cut_before and token.start < start + 0.3) or (cut_after and token.end > end - 0.3)
        across = token.start < start or token.end > end
        text = token.text
        if across:
            text = rng.choice(["", " ~"])
        elif near:
            text = rng.choice(["", " ~", f" ~{text[1:]}", text])
        if text:
            first, last = (max(start, min(end, t)) for t in (token.start, token.end))
            first = max(start, first + rng.uniform(-0.1, 0.1))
            tokens.append(Token(text, first, max(first, min(end, last + rng.uniform(-0.1, 0.1)))))
    return tokens


@settings(max_examples=400)
@given(recordings())
def test_what_was_said_comes_out_however_it_was_cut(recording):
    true, recognized = recording
    for (start, _, right), (_, end, left) in zip(recognized[1:], recognized):
        # Both recognized a word of what is between their edges.
        assume(any(start + 0.35 < t.start and t.end < end - 0.35 for t in true))
        assert left
        assert right
    parts = [part(a, b, index > 0, tokens) for index, (a, b, tokens) in enumerate(recognized)]
    assert text_of(*parts) == "".join(token.text for token in true).strip()


@given(
    st.lists(st.tuples(st.text("ab 你。", max_size=12), st.booleans(), st.booleans()), max_size=5)
)
def test_any_parts_give_a_transcript_with_times_that_go_forward(parts):
    made = [
        SegmentText(
            4.0 * i, 4.0 * i + 6, over, text, spread(text, 4.0 * i, 4.0 * i + 6) if timed else None
        )
        for i, (text, over, timed) in enumerate(parts)
    ]
    stitched = stitch(made)
    if stitched.tokens is not None:
        assert "".join(token.text for token in stitched.tokens) == stitched.text
        times = [t for token in stitched.tokens for t in (token.start, token.end)]
        assert all(a <= b for a, b in itertools.pairwise(times))
    if not any(over for _, over, _ in parts):
        recognized = "".join("".join(text.split()) for text, _, _ in parts)
        assert "".join(stitched.text.split()) == recognized
