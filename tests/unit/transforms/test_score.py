"""Scores and filters of transcripts in pipelines without a model."""

from __future__ import annotations

import json

import apache_beam as beam
import pytest

from beam_asr import ScoreTranscripts, WriteManifest
from beam_asr.records.statistics import Statistics
from beam_asr.transforms.results import Transcribed

RECORDS = [
    {"text": "one two", "pred_text": "one two", "n": 1},
    {"text": "one two", "pred_text": "one", "n": 2},
    {"text": "one two", "pred_text": "none", "n": 3},
    {"pred_text": "none", "n": 4},
]


def summary_of(folder, *args, records=RECORDS, **settings):
    """The summary of a run that scores and filters these transcripts."""
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        none = pipeline | "None" >> beam.Create([])
        rows = pipeline | "Rows" >> beam.Create([Statistics(rows_in=len(records))])
        transcripts = pipeline | "Transcripts" >> beam.Create(records)
        transcribed = Transcribed(transcripts, none, rows, none)
        scored = transcribed | ScoreTranscripts(*args, **settings)
        scored | WriteManifest(str(folder), flags=["keep", "reference_key", "resume"])
    return json.loads((folder / "summary.json").read_text())


def test_scores_are_given_of_all_rows_and_of_those_that_are_kept(tmp_path):
    summary = summary_of(tmp_path, "text", keep="wer <= 0.5")
    scores = summary["scores"]
    assert (scores["corpus"]["rows"], scores["corpus"]["wer"]) == (2, 0.25)
    assert scores["without_reference"] == 0
    before = scores["before_keep"]
    assert (before["rows"], before["wer"], before["without_reference"]) == (3, 0.5, 1)
    assert (summary["transcribed"], summary["filtered"], summary["warnings"]) == (2, 2, [])


def test_without_a_filter_there_is_one_score(tmp_path):
    scores = summary_of(tmp_path, "text")["scores"]
    assert (scores["corpus"]["rows"], scores["without_reference"]) == (3, 1)
    assert "before_keep" not in scores


def test_where_no_row_is_kept_the_scores_of_all_are_there(tmp_path):
    summary = summary_of(tmp_path, "text", keep="wer < 0")
    assert (tmp_path / "_SUCCESS").exists()  # the condition can be true, but is not
    assert summary["scores"]["corpus"]["rows"] == 0
    assert summary["scores"]["before_keep"]["rows"] == 3
    assert summary["warnings"] == []


@pytest.mark.parametrize(
    ("args", "keep", "warned"),
    [
        (["txt"], None, ["none of the 4 transcribed rows has a reference in the field 'txt'"]),
        ([], "n < 9 or wre < 1", ["'wre' that --keep reads"]),
        ([], "scores.wer is None", ["'scores.wer' that --keep reads"]),
        (["text"], "n < 9 or wer < 1 and text is None", []),  # of one row alone
        ([], "no_speech is None", []),  # a field that only some rows have
    ],
)
def test_a_field_that_is_in_no_row_is_said(tmp_path, args, keep, warned):
    said = summary_of(tmp_path, *args, keep=keep)["warnings"]
    assert len(said) == len(warned)
    assert all(part in text for part, text in zip(warned, said, strict=True))


@pytest.mark.parametrize(
    ("args", "keep", "said"),
    [
        ([], "wre <= 0.3", "none of the 4 .* has the field 'wre' that `keep` reads"),
        (["txt"], "wer <= 0.3", "no.* reference in the field 'txt'"),
    ],
)
def test_a_condition_on_a_field_that_is_in_no_row_fails_a_job_that_keeps_none(
    tmp_path, args, keep, said
):
    with pytest.raises(RuntimeError, match=rf"`keep` keeps none of 4 rows: {said}"):
        summary_of(tmp_path, *args, keep=keep)
    assert not (tmp_path / "_SUCCESS").exists()
    assert json.loads((tmp_path / "summary.json").read_text())["filtered"] == 4
