"""What a user sees of a job that runs: a line that changes, or a line a minute."""

from __future__ import annotations

import io

import pytest

from beam_asr.cli import progress as shown
from beam_asr.cli.progress import ProgressDisplay, describe, describe_model
from beam_asr.outputs.progress import Counts, Progress

MODEL = {"model": "m.nemo", "class": "EncDecCTCModel", "device": "cpu", "precision": "float32"}
STARTED = 1_000.0
COUNTS = Counts(rows=250, failed=3, audio_seconds=7200.0, model_seconds=30.0, wait_seconds=10.0)
RUNNING = Progress(True, 1000, 0, COUNTS, (MODEL,), STARTED)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_has_rows_failures_hours_speed_and_the_time_that_is_left():
    assert describe(RUNNING, STARTED + 60) == (
        "transcribing: 250 of 1,000 rows (25%), 3 failed, 2.00 h of audio, RTFx 120, "
        "model waiting 25%, 0:03:00 left"
    )


def test_before_the_model_is_there_the_line_says_what_the_job_waits_for():
    assert describe(Progress(), 0.0) == "reading the inputs"
    assert describe(Progress(True, 1000), 0.0) == "loading the model, 1,000 rows"


def test_a_long_recording_shows_its_segments():
    counts = Counts(rows=0, long_rows=1, segments=540, segments_ended=54, audio_seconds=900.0)
    line = describe(Progress(True, 1, 0, counts, (MODEL,), STARTED), STARTED + 6)
    assert line.startswith("transcribing: 0 of 1 rows, 54 of 540 segments (10%), 0.25 h of audio")
    assert line.endswith("0:00:54 left")


def test_a_gpu_is_named_as_what_it_is():
    on_gpu = {**MODEL, "device": "cuda:0", "device_name": "NVIDIA H200", "precision": "bfloat16"}
    assert describe_model(on_gpu) == "m.nemo (EncDecCTCModel, NVIDIA H200, bfloat16)"


def test_without_a_terminal_the_model_comes_first_and_then_a_line_a_minute(monkeypatch):
    now = [500.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    display = ProgressDisplay(lambda: RUNNING, "FlinkRunner", stream)
    for _ in range(120):
        now[0] += 1.0
        display.show(RUNNING, STARTED + 60)
    first, *lines = stream.getvalue().splitlines()
    assert first == ("beam-asr: m.nemo (EncDecCTCModel, cpu, float32); 1,000 rows; FlinkRunner")
    assert len(lines) in (1, 2)
    assert lines[0].startswith("beam-asr: transcribing: 250 of 1,000 rows")


def test_on_a_terminal_one_line_changes_and_is_gone_at_the_end():
    stream = Terminal()
    with ProgressDisplay(lambda: RUNNING, "DirectRunner", stream, seconds=3600) as display:
        display.show(RUNNING, STARTED + 60)
        display.show(RUNNING, STARTED + 60)
    text = stream.getvalue()
    assert text.count("\n") == 1  # of the model's line
    assert "250 of 1,000 rows" in text
    assert text.endswith("\r")
    display.show(RUNNING, STARTED + 60)  # too late
    assert stream.getvalue() == text


def test_what_a_manifest_has_cannot_move_the_cursor():
    model = {**MODEL, "model": "m\x1b[2J.nemo"}
    stream = io.StringIO()
    display = ProgressDisplay(lambda: RUNNING, "DirectRunner", stream)
    display.show(Progress(True, 1, 0, Counts(), (model,), STARTED), STARTED)
    assert "\x1b" not in stream.getvalue()


def test_a_folder_that_cannot_be_read_does_not_end_the_display():
    looks = []

    def read() -> Progress:
        looks.append(None)
        if len(looks) == 1:
            raise OSError("unreachable")
        return RUNNING

    stream = io.StringIO()
    display = ProgressDisplay(read, "DirectRunner", stream, seconds=0.001)
    with display:
        while not stream.getvalue():
            assert display._thread.is_alive()
    assert "m.nemo" in stream.getvalue()


@pytest.mark.parametrize("flag", ["--quiet", "--verbose"])
def test_quiet_and_verbose_are_flags(flag):
    from beam_asr.cli.options import parse_args

    options = parse_args(["transcribe", "m.jsonl", "--output=o", "--model_name=m", flag])
    assert getattr(options.console, flag[2:])
