"""A job over a long recording that is killed and resumed."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import soundfile

from tests.support.job_files import SAMPLES, journaled, read_records, write_manifest
from tests.support.waiting import wait_until

RATE = 16_000


SCALE = 1 / 20  # of windows: a minute of audio, and of stretches: 15 s


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
    requested = ["--max_segment_seconds=6", "--timestamps=word", "--max_batch_seconds=12"]
    return [f"--input={manifest}", f"--model_name={model}", *requested]


def parts(kept: set[str]) -> set[str]:
    """The segments among what is in a journal."""
    return {each for each in kept if "/" in each and not each.endswith("/plan")}


def test_a_long_row_that_is_killed_is_gone_on_with(fork_server, recording, tmp_path):
    whole = fork_server.run(*recording, f"--output={tmp_path / 'whole'}", scale=SCALE)
    assert whole.status() == 0, whole.output()
    expected = sorted(map(json.dumps, read_records(tmp_path / "whole", "transcripts")))
    segments = json.loads((tmp_path / "whole" / "summary.json").read_text())["segments"]
    assert segments > 60
    out = tmp_path / "out"
    run = fork_server.run(*recording, f"--output={out}", scale=SCALE, hold_after=segments // 2)
    run.wait_until_held()
    wait_until(lambda: len(parts(journaled(out))) > segments // 8 or run.has_ended())
    run.signal(signal.SIGKILL)
    assert run.status() == -signal.SIGKILL
    kept = journaled(out)
    plans = {each for each in kept if each.endswith("/plan")}
    done = parts(kept)
    assert len(plans) == 1
    assert len(done) > segments // 8
    resumed = fork_server.run(*recording, f"--output={out}", "--resume", scale=SCALE)
    assert resumed.status() == 0, resumed.output()
    assert sorted(map(json.dumps, read_records(out, "transcripts"))) == expected
    assert len(resumed.decoded()) == segments + 3 - len(kept - plans)
    assert not (out / "_journal").exists()
