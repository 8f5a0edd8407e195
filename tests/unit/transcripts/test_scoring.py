"""Scores: the numbers are jiwer's, for a row and for any sum of rows."""

from __future__ import annotations

import math
import pickle
import random
import subprocess
import sys

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.records.statistics import Score
from beam_asr.transcripts.normalizers import NORMALIZERS, normalizer
from beam_asr.transcripts.scoring import duration_bucket, fields, score, summary

NONE = normalizer("none")

words = st.one_of(
    st.sampled_from("a b the The cat, cats don't один два हिन्दी में ไทย 日本 語。 é e\u0301".split()),
    st.text(max_size=4),
)
spaces = st.sampled_from([" ", " ", " ", "  ", "\t", "\xa0", "\u3000 ", "\n", ""])


@st.composite
def sentences(draw):
    return "".join(draw(words) + draw(spaces) for _ in range(draw(st.integers(0, 8))))


@st.composite
def pairs(draw):
    """What was said and what was recognized, often nearly the same, sometimes nothing."""
    said = draw(sentences())
    recognized = draw(st.one_of(st.just(said), st.just(said[1:-2]), st.just(""), sentences()))
    return said, recognized


def total(rows, normalize=NONE) -> Score:
    return sum((score(said, recognized, normalize) for said, recognized in rows), Score())


@pytest.mark.parametrize("name", NORMALIZERS)
@given(rows=st.lists(pairs(), min_size=1, max_size=8))
def test_rates_of_a_sum_are_those_of_jiwer_for_the_same_lists(name, rows):
    normalize = normalizer(name)
    said = [normalize(each) for each, _ in rows]
    recognized = [normalize(each) for _, each in rows]
    result = total(rows, normalize)
    assert math.isclose(result.wer, jiwer.wer(said, recognized), rel_tol=0, abs_tol=1e-9)
    assert math.isclose(result.cer, jiwer.cer(said, recognized), rel_tol=0, abs_tol=1e-9)
    aligned = jiwer.process_words(said, recognized)
    assert (result.hits, result.substitutions) == (aligned.hits, aligned.substitutions)
    assert (result.deletions, result.insertions) == (aligned.deletions, aligned.insertions)
    assert result.rows == len(rows)


@given(rows=st.lists(pairs(), max_size=8), seed=st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_how_they_are_summed_matters(rows, seed):
    shuffled = random.Random(seed.random()).sample(rows, len(rows))
    middle = len(rows) // 2
    assert total(rows) == total(shuffled[:middle]) + total(shuffled[middle:])
    assert total(rows).words == sum(len(said.split()) for said, _ in rows)


@pytest.mark.parametrize(
    ("said", "recognized", "wer", "cer"),
    [
        ("", "", 0, 0),
        (" \n", "\t", 0, 0),
        ("", "two words", 2, 9),
        ("two words", "", 1, 1),
        ("a b", "a b", 0, 0),
        ("a  b", "a b", 0, 0.25),
        (" a b ", "a b", 0, 0),
        ("a\u3000b", "a b", 0, 0),
    ],
)
def test_empty_texts_and_white_space(said, recognized, wer, cer):
    """A text where nothing was said is as many errors as it has words, and characters."""
    row = score(said, recognized, NONE)
    assert (row.wer, row.cer) == (wer, cer)
    assert row.empty_references == (not said.split())
    assert row.empty_hypotheses == (not recognized.split())


def test_what_is_recognized_where_nothing_was_said_counts_in_a_corpus():
    assert total([("", "x"), ("a b", "a b")]).wer == 0.5 == jiwer.wer(["", "a b"], ["x", "a b"])


@pytest.mark.parametrize("reference", [None, 3, 2.5, True, ["a"], {"text": "a"}])
def test_a_reference_that_is_no_text_has_no_score(reference):
    assert score(reference, "a", NONE) is None


def test_a_reference_that_normalises_to_nothing_is_empty():
    row = score("[noise]", "hello", normalizer("whisper"))
    assert (row.words, row.insertions, row.empty_references) == (0, 1, 1)


def test_what_a_row_and_what_the_summary_gets():
    row = score("a b c", "a x c d", NONE, 90.0)
    assert fields(row) == {
        "wer": 0.666667,
        "cer": 0.6,
        "substitutions": 1,
        "deletions": 0,
        "insertions": 1,
    }
    corpus = summary(row + score("", "", NONE, 90.0))
    assert corpus["wer"] == 2 / 3
    assert (corpus["rows"], corpus["words"], corpus["hours"]) == (2, 3, 0.05)
    assert (corpus["empty_references"], corpus["empty_hypotheses"]) == (1, 1)


def test_no_row_has_no_rate():
    assert Score().wer is None
    assert summary(Score())["cer"] is None
    assert fields(Score())["wer"] is None


def test_a_score_travels():
    row = score("a b", "a c", NONE, 1.5)
    assert pickle.loads(pickle.dumps(row)) == row


def test_buckets_begin_at_their_edges_and_sort_by_duration():
    edges = [0, 5, 10, 20, 40, 120, 600]
    names = [duration_bucket(edge) for edge in edges]
    assert names == sorted(set(names))
    for edge, name, before in zip(edges[1:], names[1:], names, strict=False):
        assert (duration_bucket(edge - 0.001), duration_bucket(edge + 0.001)) == (before, name)
    assert names[1] == "005-010"
    assert duration_bucket(1e9) == names[-1] == "600+"


@pytest.mark.parametrize("seconds", [None, math.nan, -1.0])
def test_no_duration_is_a_bucket_of_its_own_and_the_last(seconds):
    assert duration_bucket(seconds) == "unknown" > duration_bucket(1e9)


def test_importing_is_cheap():
    """The command line imports these for its help."""
    code = (
        "import sys, beam_asr.records.conditions, beam_asr.transcripts.normalizers, "
        "beam_asr.transcripts.quality, "
        "beam_asr.transcripts.scoring; heavy = {'jiwer', 'rapidfuzz', 'whisper_normalizer', "
        "'numpy', 'torch', "
        "'apache_beam', 'nemo'}; sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
