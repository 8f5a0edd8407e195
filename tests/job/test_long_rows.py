"""Long rows between the steps: nothing of them is lost, whatever fails or is killed."""

from __future__ import annotations

import json
import signal
import time

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.testing.util import assert_that, equal_to

from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, LongRow, Segment, SegmentOutcome, stretches
from beam_asr.settings import Asked
from beam_asr.transcripts import transcript
from beam_asr.transforms.stitch_segments import StitchRows
from tests.support.job_files import SAMPLES, journaled, read_records, write_manifest

RATE = 16_000
SCALE = 1 / 20  # of windows: a minute of audio, and of stretches: 15 s
ROW = Row('{"audio_filepath": "a.flac", "offset": 100.0}', id="g.0")
SEGMENTS = (Segment(0.0, 10.0), Segment(10.0, 20.0), Segment(16.0, 26.0, True), Segment(40.0, 50.0))
LONG = LongRow("g.0", Clip(ROW, "a.flac", 100.0, None), SEGMENTS, 60.0)
ERROR = {"stage": "model", "type": "NotFiniteError", "message": "NaN.", "attempts": 3}


def heard(number: int, text: str, *times: tuple[float, float]) -> SegmentOutcome:
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
    heard(3, "last", (141.0, 141.5)),
    heard(0, "first", (101.0, 101.5)),
    heard(2, "three four five", (116.9, 117.3), (118.0, 118.5), (121.0, 121.5)),
    heard(1, "two three four", (112.0, 112.5), (117.0, 117.3), (118.0, 118.4)),
]


def stitched(values, keep: bool = False, row: LongRow = LONG):
    """The outputs of the step, for one row."""
    asked = Asked("said", ("word",), "row", n_best=2)
    outputs: dict[str, list] = {"transcripts": [], "failures": [], "statistics": []}
    step = StitchRows(asked, keep, "run", None)
    step.setup()
    for output in step.process((row.key, [*values[:2], row, *values[2:]])):
        outputs[output.tag].append(output.value)
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
    assert sums.unheard_seconds == pytest.approx(24.0)


def test_the_best_texts_of_segments_make_those_of_the_row():
    row = LONG._replace(segments=(SEGMENTS[0], SEGMENTS[3]))
    last = heard(1, "last", (141.0, 141.5))
    (record,) = stitched([OUTCOMES[1], last], row=row)["transcripts"]
    assert record["n_best"] == [
        {"text": "first last", "score": -3.0},
        {"text": "first? last", "score": -4.5},
    ]


def test_a_quiet_segment_takes_nothing_from_the_others():
    row = LONG._replace(segments=(SEGMENTS[0], SEGMENTS[1], SEGMENTS[3]))
    quiet = SegmentOutcome(1, Outcome("g.0/1", transcript.nothing(4.0)))
    last = heard(2, "last", (141.0, 141.5))
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
        assert "--partial=keep" in error["message"]
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
    row = LONG._replace(broken=(60.0, 90.0, {**ERROR, "stage": "audio"}))
    (record,) = stitched(OUTCOMES, keep=True, row=row)["transcripts"]
    assert [(each["start"], each["end"]) for each in record["segments_failed"]] == [(160.0, 190.0)]
    (record,) = stitched(OUTCOMES, row=row)["failures"]
    assert "1 of 5 segments failed" in record["error"]["message"]


def test_a_row_without_segments_has_no_speech():
    (record,) = stitched([], row=LONG._replace(segments=()))["transcripts"]
    assert (record["said"], record["words"], record["no_speech"]) == ("", [], True)


@pytest.mark.parametrize(
    "values", [OUTCOMES[1:], [*OUTCOMES, OUTCOMES[0]], [*OUTCOMES, heard(4, "", *[])]]
)
def test_lost_and_doubled_segments_fail_the_job(values):
    with pytest.raises(RuntimeError, match="segment"):
        stitched(values)


def test_stretches_hold_each_segment_once_and_are_some_minutes_long():
    segments = tuple(Segment(10.0 * n, 10.0 * n + 9.0) for n in range(200))
    row = LONG._replace(segments=segments)
    found = list(stretches(row))
    assert tuple(each for stretch in found for each in stretch.segments) == segments
    assert [stretch.first for stretch in found] == [30 * n for n in range(7)]
    assert max(stretch.seconds for stretch in found) <= 300
    ids = [clip.row.id for stretch in found for clip in stretch.clips()]
    assert len(set(ids)) == 200
    (first, second, *_) = found[0].clips()
    assert (first.offset, first.duration) == (100.0, 9.0)
    left = [part for stretch in found for part in stretch.without({first.row.id})]
    assert [clip.row.id for part in left for clip in part.clips()] == ids[1:]
    assert second.row.id == ids[1]


def test_a_file_that_cannot_be_sought_in_is_read_a_few_times_only():
    segments = tuple(Segment(10.0 * n, 10.0 * n + 9.0) for n in range(3600))
    row = LONG._replace(segments=segments, seconds=36_000.0)
    assert len(list(stretches(row))) == 120
    assert len(list(stretches(row._replace(can_seek=False)))) == 8


def test_steps_are_fit_for_any_runner():
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        values = [("g.0", each) for each in (*OUTCOMES, LONG)]
        texts = (
            pipeline
            | beam.Create(values)
            | beam.GroupByKey()
            | beam.ParDo(StitchRows(Asked(), False, "run", 0.5)).with_outputs("transcripts")
        ).transcripts | beam.Map(lambda record: record["pred_text"])
        assert_that(texts, equal_to(["first two three four five last"]))


@pytest.fixture(scope="module")
def recording(tmp_path_factory, tiny_model):
    """Flags of a job over a recording of eight minutes, and three short rows."""
    folder = tmp_path_factory.mktemp("recording")
    pause = np.zeros(RATE // 2, np.float32)
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted(SAMPLES.glob("*.flac"))]
    whole = np.concatenate([part for clip in clips for part in (clip, pause)])
    times = round(480 / (len(whole) / RATE))
    soundfile.write(folder / "long.flac", np.tile(whole, times), RATE)
    rows = [{"audio_filepath": "long.flac"}]
    rows += [{"audio_filepath": str(path)} for path in sorted(SAMPLES.glob("*.flac"))[:3]]
    manifest = write_manifest(folder / "m.jsonl", rows)
    model = tiny_model("ctc_bpe")
    asked = ["--max_segment_seconds=6", "--timestamps=word", "--max_batch_seconds=12"]
    return [f"--input={manifest}", f"--model_name={model}", *asked]


def test_a_long_row_that_is_killed_is_gone_on_with(fork_server, recording, tmp_path):
    whole = fork_server.run(*recording, f"--output={tmp_path / 'whole'}", scale=SCALE)
    assert whole.status() == 0, whole.output()
    expected = sorted(map(json.dumps, read_records(tmp_path / "whole", "transcripts")))
    segments = json.loads((tmp_path / "whole" / "summary.json").read_text())["segments"]
    assert segments > 60
    out = tmp_path / "out"
    run = fork_server.run(*recording, f"--output={out}", scale=SCALE)
    while len(run.decoded()) < segments // 2:
        time.sleep(0.005)
    run.signal(signal.SIGKILL)
    assert run.status() == -signal.SIGKILL
    kept = journaled(out)
    plans = {each for each in kept if each.endswith("/plan")}
    done = {each for each in kept if "/" in each} - plans
    assert len(plans) == 1
    assert len(done) > segments // 8
    resumed = fork_server.run(*recording, f"--output={out}", "--resume", scale=SCALE)
    assert resumed.status() == 0, resumed.output()
    assert sorted(map(json.dumps, read_records(out, "transcripts"))) == expected
    assert len(resumed.decoded()) == segments + 3 - len(kept - plans)
    assert not (out / "_journal").exists()
