"""`beam-asr status` says what a job is doing, from its folder alone."""

from __future__ import annotations

import numpy as np
import pytest

from beam_asr.audio import clip_reader, reading
from beam_asr.cli import main
from beam_asr.models.serving import batcher
from beam_asr.outputs import progress
from tests.support.job_files import write_manifest
from tests.support.naming_model import RATE, NamingRecognizer, load_models_as

ROWS = 40


class Looking(NamingRecognizer):
    """Calls a function before each batch."""

    look = staticmethod(lambda: None)

    def encode(self, waveforms, prompt):
        self.look()
        return super().encode(waveforms, prompt)


@pytest.fixture
def job(tmp_path, monkeypatch, capsys):
    """Runs a job into a folder, during which ``look`` is called; returns what it printed."""
    silence = np.full(RATE, 0.1, np.float32)
    monkeypatch.setattr(batcher, "FIRST_SECONDS", 2)
    monkeypatch.setattr(batcher, "MAX_SECONDS", 3)
    monkeypatch.setattr(clip_reader, "UNKNOWN_SECONDS", 1)
    monkeypatch.setattr(progress, "LOCAL_SECONDS", 0.0)
    monkeypatch.setattr(reading, "read_audio", lambda *_args, **_kwargs: silence)
    load_models_as(Looking, monkeypatch)
    rows = [{"audio_filepath": f"{number}.wav", "duration": 1.0} for number in range(ROWS - 1)]
    manifest = write_manifest(tmp_path / "m.jsonl", [*rows, "no JSON"])
    flags = [f"--input={manifest}", f"--output={tmp_path / 'out'}", "--model_name=org/m"]

    def run(look, *more: str) -> tuple[int, str, str]:
        monkeypatch.setattr(Looking, "look", staticmethod(look))
        status = main.main(["transcribe", *flags, *more])
        return status, *capsys.readouterr()

    return run


def status_of(tmp_path, capsys) -> tuple[int, str]:
    status = main.main(["status", str(tmp_path / "out")])
    return status, capsys.readouterr().out


def test_of_a_job_that_runs_it_says_how_far_it_is(job, tmp_path, capsys):
    seen = []
    status, out, _ = job(lambda: seen.append(status_of(tmp_path, capsys)[1]))
    assert status == 0, out
    assert seen[0].startswith("running: run ")
    assert f"transcribing: 1 of {ROWS} rows (2%), 1 failed" in seen[0]
    assert "org/m" in seen[0]
    assert f" of {ROWS} rows" in seen[-1]
    done = [int(text.partition("transcribing: ")[2].partition(" ")[0]) for text in seen]
    assert done == sorted(done)
    assert done[-1] > done[0]

    status, text = status_of(tmp_path, capsys)
    assert (status, text.startswith("finished\n")) == (0, True)
    assert f"{ROWS} rows: {ROWS - 1} transcribed, 1 failed" in text


def test_of_a_job_that_ended_early_it_says_how_to_go_on(job, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batcher.Batcher, "_collect", _failing(batcher.Batcher._collect, 3))
        status, *_ = job(lambda: None)
    assert status == 1
    status, text = status_of(tmp_path, capsys)
    assert status == 0
    assert text.startswith("ended before it was finished")
    assert "the same command with --resume does the others" in text
    status, out, _ = job(lambda: None, "--resume")
    assert status == 0, out


def _failing(function, times: int):
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) == times:
            raise RuntimeError("the process is about to end")
        return function(*args, **kwargs)

    return wrapped


def test_of_a_folder_with_nothing_it_says_so(tmp_path, capsys):
    status = main.main(["status", str(tmp_path)])
    assert status == 2
    assert "holds neither results nor a job" in capsys.readouterr().err


def test_quiet_prints_the_end_alone(job):
    status, out, err = job(lambda: None, "--quiet")
    assert status == 0
    assert err == ""
    assert len(out.splitlines()) == 2  # the reason of the failure, and the end
