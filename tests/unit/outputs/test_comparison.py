"""Which rows of runs are the same, and which differences are chance."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest

from beam_asr.cli import main
from beam_asr.outputs.output import Output
from beam_asr.outputs.report.comparison import compare, names, resampled
from beam_asr.outputs.report.comparison_page import in_words, page
from tests.support.finished_runs import failed, scored, write_run


def outputs(tmp_path, *runs, **summary):
    return [
        Output(str(write_run(tmp_path / f"run{number}", run, **summary)))
        for number, run in enumerate(runs)
    ]


def test_rows_are_the_same_by_audio_offset_and_channel(tmp_path):
    first = [
        scored("a", "a", audio_filepath="a.flac", offset=0, duration=1.0),
        scored("b", "b", audio_filepath="a.flac", offset=5.0, channel=0),
        scored("c", "c", audio_filepath="a.flac", offset=5.0, channel=1),
        scored("d", "d", audio_filepath="d.flac", duration=1.001),
        scored("long", "long", audio_filepath="e.flac", duration=9.0),
        scored("short", "short", audio_filepath="e.flac", duration=2.0),
    ]
    second = [{**row, "channel": row.get("channel")} for row in reversed(first)]
    second[2] = {**second[2], "duration": 1.0}  # as another model's rate measures it
    del second[5]["offset"]
    comparison = compare(outputs(tmp_path, first, second))
    assert comparison.rows.tolist() == [[n, 5 - n] for n in range(6)]
    assert comparison.alike.all()
    assert comparison.apart == [[], []]


def test_equal_rows_are_paired_one_by_one(tmp_path):
    row = scored("a", "b")
    comparison = compare(outputs(tmp_path, [row, row, row], [row, row]))
    assert comparison.rows.tolist() == [[0, 0], [1, 1]]
    assert comparison.apart == [[2], []]


def test_rates_are_those_of_jiwer_over_the_rows_of_all_runs(tmp_path):
    said = [f"one two three {n}" for n in range(30)]
    runs = [
        [
            scored(text, text.replace("two", word), audio_filepath=str(n))
            for n, text in enumerate(said)
        ]
        for word in ("two", "too", "to two")
    ]
    comparison = compare(outputs(tmp_path, runs[0], runs[1][:20], runs[2]))
    for run, rate in zip(runs, comparison.rates):
        recognized = [row["pred_text"] for row in run[:20]]
        assert rate.rate == pytest.approx(jiwer.wer(said[:20], recognized))
        assert rate.low <= rate.rate <= rate.high
    assert [(each.wins, each.losses, each.ties) for each in comparison.differences] == [
        (0, 20, 0)
    ] * 2
    assert len(comparison.apart[0]) == len(comparison.apart[2]) == 10
    assert b"Comparison of runs" in page(comparison)


def test_what_chance_makes_is_no_difference(tmp_path):
    chance = np.random.default_rng(1)

    def run(share):
        return [
            scored("a b c d", " ".join(w if chance.random() > share else "x" for w in "abcd"),
                   audio_filepath=str(n))
            for n in range(400)
        ]  # fmt: skip

    same, worse = compare(outputs(tmp_path, run(0.1), run(0.1), run(0.2))).differences
    assert same.low < 0 < same.high
    assert same.p > 0.05
    assert worse.low > 0
    assert worse.p < 0.01


def test_the_bootstrap_is_paired_and_the_same_each_time():
    chance = np.random.default_rng(0)
    words = np.full((2, 500), 10.0)
    hard = chance.integers(0, 9, 500)
    wrong = np.array([hard, hard + (np.arange(500) % 50 == 0)], dtype=float)
    rates = resampled(wrong, words)
    assert (rates == resampled(wrong, words)).all()
    assert np.std(rates[:, 1] - rates[:, 0]) < 0.1 * np.std(rates[:, 0])


def test_runs_without_references_are_compared_by_their_texts(tmp_path):
    runs = [
        [{"audio_filepath": str(n), "pred_text": "same" if n else text} for n in range(3)]
        for text in ("one two", "one too")
    ]
    comparison = compare(outputs(tmp_path, *runs))
    assert comparison.rates == []
    assert "none has a reference" in in_words(comparison)[0]
    assert "the texts of 2 are the same" in in_words(comparison)[0]
    assert (
        b'"texts":[["run0",[["=","one two"]]],["run1",[["=","one"],["-","two"],["+","too"]]]]'
        in (page(comparison))
    )


def test_rows_that_were_filtered_count(tmp_path):
    kept, refused = scored("a", "a", audio_filepath="a"), scored("b", "x", audio_filepath="b")
    folders = [
        write_run(tmp_path / "all", [kept, refused]),
        write_run(tmp_path / "few", [kept], filtered=[{**refused, "filtered": {"by": "keep"}}]),
    ]
    comparison = compare([Output(str(folder)) for folder in folders])
    assert [rate.rate for rate in comparison.rates] == [0.5, 0.5]


def test_runs_with_no_row_in_common_are_reported(tmp_path):
    runs = outputs(
        tmp_path, [scored("a", "a", audio_filepath="a")], [scored("a", "a", audio_filepath="b")]
    )
    assert "rows are the same if their audio_filepath" in in_words(compare(runs))[0]
    assert page(compare(runs))
    write_run(tmp_path / "failed", [], [failed("a", "gone")])
    assert page(compare([runs[0], Output(str(tmp_path / "failed"))]))


def test_names_tell_runs_apart():
    assert names(["gs://b/one/out", "gs://b/two/out/"]) == ["one/out", "two/out"]
    assert names(["a/small", "b/large"]) == ["small", "large"]
    assert names(["out", "out"]) == ["out", "out"]


def test_one_folder_is_refused(tmp_path, capsys):
    assert main.main(["compare", str(tmp_path)]) == 2
    assert "two or more output folders" in capsys.readouterr().err
