"""Segments of long rows come together again: nothing of them is lost, whatever fails."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from beam_asr.records.outcome import Outcome
from beam_asr.records.record import to_record
from beam_asr.records.work import SegmentOutcome, SegmentPlan
from beam_asr.transcripts import transcript
from beam_asr.transcripts.transcript import TranscriptFields
from beam_asr.transforms.stitch_segments import StitchRows
from tests.support.job_contexts import job_context
from tests.support.long_rows import LONG, SEGMENTS

ERROR = {"stage": "model", "type": "NotFiniteError", "message": "NaN.", "attempts": 3}


def recognized(number: int, text: str, *times: tuple[float, float]) -> SegmentOutcome:
    words = text.split()
    tokens = [
        [f" {word}" if place else word, *time, 0.5 + 0.1 * number]
        for place, (word, time) in enumerate(zip(words, times, strict=True))
    ]
    kept = {"text": text, "timed": True, "tokens": tokens, "score": -1.0 - number}
    kept["n_best"] = [[text, -1.0 - number], [f"{text}?", -2.5 - 1.25 * number]]
    return SegmentOutcome(number, Outcome(f"g.0/{number}", kept, seconds=10.0))


def failed(number: int) -> SegmentOutcome:
    return SegmentOutcome(number, Outcome(f"g.0/{number}", error=ERROR))


OUTCOMES = [
    recognized(3, "last", (141.0, 141.5)),
    recognized(0, "first", (101.0, 101.5)),
    recognized(2, "three four five", (116.9, 117.3), (118.0, 118.5), (121.0, 121.5)),
    recognized(1, "two three four", (112.0, 112.5), (117.0, 117.3), (118.0, 118.4)),
]


def stitched(values, keep: bool = False, row: SegmentPlan = LONG):
    """The outputs of the step, for one row."""
    fields = TranscriptFields("said", ("word",), "row", n_best=2)
    outputs: dict[str, list] = {"transcripts": [], "failures": [], "statistics": []}
    step = StitchRows(job_context(transcript_fields=fields, keep_partial=keep))
    for output in step.process((row.key, [*values[:2], row, *values[2:]])):
        value = output.value
        outputs[output.tag].append(value if output.tag == "statistics" else to_record(value))
    return outputs


def test_segments_come_together_in_order_whatever_order_they_come_in():
    outputs = stitched(OUTCOMES)
    (record,) = outputs["transcripts"]
    assert not outputs["failures"]
    assert record["audio_filepath"] == "a.flac"
    assert record["said"] == "first two three four five last"
    starts = [word["start"] for word in record["words"]]
    assert starts == sorted(starts)
    assert starts[0] == 101.0
    assert starts[-1] == 141.0
    assert record["confidence"] == pytest.approx(0.65, abs=0.05)
    # Of segments that overlap only the best are put together.
    assert record["n_best"] == [{"text": "first two three four five last", "score": -10.0}]
    (sums,) = outputs["statistics"]
    assert (sums.long_rows, sums.segments, sums.segments_failed) == (1, 4, 0)
    assert sums.skipped_silence_seconds == pytest.approx(24.0)


def test_the_best_texts_of_segments_make_those_of_the_row():
    row = LONG._replace(segments=(SEGMENTS[0], SEGMENTS[3]))
    last = recognized(1, "last", (141.0, 141.5))
    (record,) = stitched([OUTCOMES[1], last], row=row)["transcripts"]
    assert record["n_best"] == [
        {"text": "first last", "score": -3.0},
        {"text": "first? last", "score": -4.5},
    ]


def test_a_quiet_segment_takes_nothing_from_the_others():
    row = LONG._replace(segments=(SEGMENTS[0], SEGMENTS[1], SEGMENTS[3]))
    quiet = SegmentOutcome(1, Outcome("g.0/1", transcript.empty_result(4.0)))
    last = recognized(2, "last", (141.0, 141.5))
    (record,) = stitched([OUTCOMES[1], quiet, last], row=row)["transcripts"]
    assert record["said"] == "first last"
    assert record["n_best"][0] == {"text": "first last", "score": -4.0}
    assert "no_speech" not in record


@pytest.mark.parametrize("keep", [False, True])
def test_a_row_with_a_failed_segment_is_not_passed_off_as_whole(keep):
    values = [failed(2) if each.number == 2 else each for each in OUTCOMES]
    outputs = stitched(values, keep)
    if not keep:
        (record,) = outputs["failures"]
        assert not outputs["transcripts"]
        assert record["offset"] == 100.0
        error = record["error"]
        assert (error["stage"], error["type"], error["attempts"]) == (
            "model", "SegmentsFailedError", 3,
        )  # fmt: skip
        assert "1 of 4 segments failed, the first one from 116.00 s to 126.00 s" in error["message"]
        assert "NotFiniteError: NaN." in error["message"]
        assert "`partial=keep`" in error["message"]
        return
    (record,) = outputs["transcripts"]
    assert not outputs["failures"]
    assert record["said"] == "first two three four last"
    assert record["segments_failed"] == [{"start": 116.0, "end": 126.0, "error": ERROR}]
    assert outputs["statistics"][0].segments_failed == 1


def test_a_row_of_which_all_failed_is_a_failure():
    outputs = stitched([failed(number) for number in range(4)], keep=True)
    assert not outputs["transcripts"]
    assert "4 of 4 segments failed" in outputs["failures"][0]["error"]["message"]


def test_what_could_not_be_read_counts_as_a_failed_segment():
    row = LONG._replace(unreadable_tail=(60.0, 90.0, {**ERROR, "stage": "audio"}))
    (record,) = stitched(OUTCOMES, keep=True, row=row)["transcripts"]
    assert [(each["start"], each["end"]) for each in record["segments_failed"]] == [(160.0, 190.0)]
    (record,) = stitched(OUTCOMES, row=row)["failures"]
    assert "1 of 5 segments failed" in record["error"]["message"]


def test_a_row_without_segments_has_no_speech():
    (record,) = stitched([], row=LONG._replace(segments=()))["transcripts"]
    assert (record["said"], record["words"], record["no_speech"]) == ("", [], True)


@pytest.mark.parametrize(
    "values", [OUTCOMES[1:], [*OUTCOMES, OUTCOMES[0]], [*OUTCOMES, recognized(4, "", *[])]]
)
def test_lost_and_doubled_segments_fail_the_job(values):
    with pytest.raises(RuntimeError, match="segment"):
        stitched(values)


def test_steps_are_fit_for_any_runner():
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        values = [("g.0", each) for each in (*OUTCOMES, LONG)]
        texts = (
            pipeline
            | beam.Create(values)
            | beam.GroupByKey()
            | beam.ParDo(StitchRows(job_context(max_failure_fraction=0.5))).with_outputs(
                "transcripts"
            )
        ).transcripts | beam.Map(lambda transcript: transcript.record()["pred_text"])
        assert_that(texts, equal_to(["first two three four five last"]))
