"""Steps on texts, before they are scored."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from beam_asr import ScoreTranscripts, Transcribed
from beam_asr.errors import SetupError, TextStepError
from beam_asr.outputs.formats.registry import render
from beam_asr.records.statistics import Statistics
from beam_asr.transcripts import post_processing
from beam_asr.transcripts.job_fields import input_fields
from beam_asr.transcripts.post_processing import TextStep, apply_steps, steps_of
from tests.support.timed_records import record_of

UPPER = TextStep("upper", lambda text, _: text.upper())
TAGGED = TextStep("tagged", lambda text, record: f"[{record['lang']}] {text}")
BROKEN = TextStep("broken", lambda text, _: text[10**9])
NUMBER = TextStep("number", lambda text, _: len(text))  # type: ignore[arg-type,return-value]
ROW = {"audio_filepath": "a.wav", "lang": "es", "pred_text": "hola", "text": "HOLA"}


@pytest.fixture
def steps(monkeypatch):
    """Has these steps in the table, as a package adds them."""
    table = {step.name: step for step in (UPPER, TAGGED)} | {"other": UPPER}
    monkeypatch.setattr(post_processing.TEXT_STEPS, "_loaded", table)
    monkeypatch.setattr(post_processing.TEXT_STEPS, "_built_in", dict.fromkeys(table, ""))


def test_steps_follow_each_other_and_the_text_that_was_recognized_stays():
    before = dict(ROW)
    assert apply_steps(ROW, [UPPER, TAGGED], "pred_text") == {
        **ROW,
        "pred_text": "[es] HOLA",
        "recognized_text": "hola",
    }
    assert apply_steps(ROW, [TAGGED, UPPER], "pred_text")["pred_text"] == "[ES] HOLA"
    assert before == ROW


def test_without_a_step_the_record_is_the_same():
    assert apply_steps(ROW, [], "pred_text") == ROW


@pytest.mark.parametrize(
    ("step", "reason"), [(BROKEN, "failed: IndexError: "), (NUMBER, "gave int and no text")]
)
def test_a_step_that_fails_is_named(step, reason):
    with pytest.raises(TextStepError, match=rf"text step '{step.name}' {reason}.*`text_steps`"):
        apply_steps(ROW, [step], "pred_text")


@pytest.mark.usefixtures("steps")
def test_an_unknown_step_is_refused():
    with pytest.raises(SetupError, match="has 'itn', which is none of upper, tagged, other"):
        steps_of(["itn"])
    with pytest.raises(SetupError, match="text_steps has 'itn'"):
        ScoreTranscripts(text_steps=["itn"])
    with pytest.raises(SetupError, match=r"'other' of beam_asr.text_steps is .* of this name"):
        steps_of(["other"])


def test_no_step_is_built_in():
    with pytest.raises(SetupError, match="'itn', which is not installed: none is"):
        steps_of(["itn"])


@pytest.mark.usefixtures("steps")
def test_scores_and_signals_are_of_the_new_text():
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        transcripts = pipeline | beam.Create([{**ROW, "duration": 2.0}])
        none = transcripts | "None" >> beam.Filter(lambda _: False)
        statistics = pipeline | "Counted" >> beam.Create([Statistics(rows_in=1)])
        scored = Transcribed(transcripts, none, statistics, none) | ScoreTranscripts(
            "text", quality=True, text_steps=["tagged", "upper"]
        )
        found = scored.transcripts | beam.Map(
            lambda row: (row["pred_text"], row["recognized_text"], row["wer"], row["longest_word"])
        )
        assert_that(found, equal_to([("[ES] HOLA", "hola", 1.0, 4)]))


def test_the_text_that_was_recognized_is_no_field_of_the_row():
    assert "recognized_text" not in input_fields(apply_steps(ROW, [UPPER], "pred_text"))


def test_captions_are_of_the_words_and_plain_text_is_of_the_new_text():
    record = apply_steps(record_of("one two three"), [UPPER], "pred_text")
    assert "one two three" in render("srt", record)
    assert render("srt", record) == render("srt", record_of("one two three"))
    assert render("txt", record) == "ONE TWO THREE\n"
