"""Metrics besides WER and CER, and confidence intervals, are those of their sources."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import sacrebleu

from beam_asr import settings
from beam_asr.errors import SetupError
from beam_asr.records.statistics import Score
from beam_asr.transcripts import punctuation
from beam_asr.transcripts.intervals import interval, squares
from beam_asr.transcripts.metrics import METRICS, find_metrics
from beam_asr.transcripts.normalizers import normalizer
from beam_asr.transcripts.punctuation import capital_counts, punctuation_counts
from beam_asr.transcripts.scoring import fields, score, summary

NONE = normalizer("none")
WORDS = "a b the The cat Cat, . ! ? , don't sat. Paris".split()


def texts(seed: int, count: int, words: int = 12) -> list[tuple[str, str]]:
    """Pairs of a reference and a text that repeats much of it."""
    chance = random.Random(seed)
    pairs = []
    for _ in range(count):
        said = chance.choices(WORDS, k=chance.randrange(words + 1))
        recognized = [chance.choice([word, word, word, chance.choice(WORDS)]) for word in said]
        del recognized[: chance.randrange(3)]
        pairs.append((" ".join(said), " ".join(recognized)))
    return pairs


def total(pairs: list[tuple[str, str]]) -> Score:
    metrics = tuple(METRICS.values())
    return sum(
        (score(said, recognized, NONE, metrics=metrics) for said, recognized in pairs), Score()
    )


def nemos_counts(said: str, recognized: str) -> tuple[int, int, int, int]:
    """The counts by the whole table of costs, with the ties as NeMo breaks them."""
    first, second = (punctuation._TOKEN.findall(text) for text in (said, recognized))
    masked, others = (
        [punctuation._masked(each) for each in each_of] for each_of in (first, second)
    )
    costs = [[row + column for column in range(len(second) + 1)] for row in range(len(first) + 1)]
    for row in range(1, len(first) + 1):
        for column in range(1, len(second) + 1):
            ways = (costs[row - 1][column - 1], costs[row][column - 1], costs[row - 1][column])
            equal = masked[row - 1] == others[column - 1]
            costs[row][column] = ways[0] if equal else 1 + min(ways)
    row, column, right, wrong = len(first), len(second), 0, 0
    while row and column:
        if masked[row - 1] == others[column - 1]:
            row, column = row - 1, column - 1
            if masked[row] == "[PUNCT]":
                right += first[row] == second[column]
                wrong += first[row] != second[column]
        elif costs[row][column] == costs[row - 1][column - 1] + 1:
            row, column = row - 1, column - 1
        elif costs[row][column] == costs[row][column - 1] + 1:
            column -= 1
        else:
            row -= 1
    marks = (sum(token in ".,!?" for token in tokens) for tokens in (first, second))
    return right, wrong, *(count - right - wrong for count in marks)


def test_the_example_of_nemo_has_its_counts():
    said = "Hi, dear! Nice to see you. What's"
    assert punctuation_counts(said, "Hi dear! Nice to see you! What's?") == (1, 1, 1, 1)
    assert punctuation_counts("", "") == punctuation_counts("a b", "b") == (0, 0, 0, 0)
    assert punctuation_counts("", "a. b?") == (0, 0, 0, 2)


def test_marks_are_aligned_as_by_the_whole_table_of_costs():
    for said, recognized in [*texts(1, 400), *texts(2, 5, words=150)]:
        assert punctuation_counts(said, recognized) == nemos_counts(said, recognized), (
            said,
            recognized,
        )


@pytest.mark.model
def test_the_punctuation_error_rate_is_that_of_nemo():
    from nemo.collections.common.metrics.punct_er import DatasetPunctuationErrorRate

    pairs = texts(3, 200)
    nemos = DatasetPunctuationErrorRate(*map(list, zip(*pairs)), list(punctuation.MARKS))
    nemos.compute()
    assert math.isclose(summary(total(pairs))["punct_er"], nemos.punct_er, rel_tol=1e-12)
    for pair, amounts in zip(pairs, nemos.operation_amounts, strict=True):
        names = ("Correct", "Substitutions", "Deletions", "Insertions")
        sums = tuple(sum(of_mark[name] for of_mark in amounts.values()) for name in names)
        assert punctuation_counts(*pair) == sums, pair


@pytest.mark.parametrize(
    ("said", "recognized", "counts"),
    [
        ("Paris is here", "paris is Here", (0, 2)),
        ("In Paris.", "in, Paris", (1, 1)),
        ("In Paris", "on London", (0, 0)),  # what was not recognized counts for the WER
        ("E\u0301mile", "\u00c9mile", (1, 0)),
        ("STRASSE", "straße", (0, 1)),
        ("", "A", (0, 0)),
    ],
)
def test_capitals_are_compared_in_words_that_both_texts_have(said, recognized, counts):
    assert capital_counts(said, recognized) == counts


def test_bleu_and_chrf_are_sacrebleus_of_the_corpus_and_of_a_sentence():
    pairs = texts(4, 60)
    said, recognized = map(list, zip(*pairs))
    of_all = summary(total(pairs))
    assert of_all["bleu"] == sacrebleu.corpus_bleu(recognized, [said]).score
    assert of_all["chrf"] == sacrebleu.corpus_chrf(recognized, [said]).score
    for one, other in pairs[:20]:
        row = fields(total([(one, other)]), tuple(METRICS.values()))
        assert row["bleu"] == round(sacrebleu.sentence_bleu(other, [one]).score, 6)
        assert row["chrf"] == round(sacrebleu.sentence_chrf(other, [one]).score, 6)


def test_sums_do_not_depend_on_the_order_of_rows():
    pairs = texts(5, 50)
    assert total(pairs) == total(pairs[::-1]) == total(pairs[25:]) + total(pairs[:25])


def test_intervals_are_those_of_a_bootstrap_over_rows():
    chance = np.random.default_rng(6)
    units = chance.integers(1, 40, 1000)
    errors = chance.binomial(units, chance.beta(1, 9, 1000))
    sums = np.sum([squares(int(e), int(n)) for e, n in zip(errors, units)], axis=0).tolist()
    low, high = interval(1000, int(errors.sum()), int(units.sum()), sums)
    drawn = chance.integers(0, 1000, (4000, 1000))
    rates = errors[drawn].sum(1) / units[drawn].sum(1)
    assert np.allclose([low, high], np.quantile(rates, [0.025, 0.975]), atol=0.0015)
    assert high - low > 0.01  # so that the tolerance says something


def test_what_tells_no_interval_has_none():
    assert interval(1, 1, 2, squares(1, 2)) is None
    assert interval(2, 1, 0, (1, 0, 0)) is None
    assert interval(2, 0, 4, (0, 8, 0)) == [0.0, 0.0]
    rows = [score("a b", "a", NONE), Score(rows=1, words=2)]  # of an older release, without squares
    assert summary(sum(rows, Score()))["wer_interval"] is None
    assert summary(Score())["wer_interval"] is None


def test_names_are_those_of_the_setting():
    assert tuple(METRICS) == settings.METRICS
    with pytest.raises(SetupError, match="metrics has 'ter'"):
        find_metrics(["ter"])
