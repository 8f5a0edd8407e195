"""What is killed in the middle of a job on Flink costs no row: the job ends right, or is gone on
with, on another runner too."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter

import pytest
import soundfile

from tests.support.job_files import journaled, read_records, write_manifest
from tests.support.tiny_models import speechlike

RATE = 16_000
CLIPS = 300
SOME = CLIPS // 3  # that have been through the model of one worker when something is killed
SCALE = 1 / 100  # of windows: 12 s of audio
# Of each of two bundles at work: windows that are read, wait, and are with the model.
WINDOWS_IN_FLIGHT = 2 * 6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(6)
    rows: list[dict | str] = []
    for index in range(CLIPS):
        path = folder / f"{index:03d}.wav"
        seconds = chance.uniform(0.5, 4.0)
        soundfile.write(path, speechlike(seconds, seed=index), RATE, subtype="PCM_16")
        rows.append({"audio_filepath": str(path), "duration": seconds})
    rows += [dict(rows[5])] * 2 + [{"audio_filepath": "gone.wav"}]
    manifest = write_manifest(folder / "m.jsonl", rows)
    return [f"--input={manifest}", f"--model_name={tiny_model('ctc_bpe')}", "--max_batch_seconds=3"]


@pytest.fixture(scope="module")
def expected(fork_server, corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    run = fork_server.run(*corpus, f"--output={out}", scale=SCALE)
    assert run.status() == 0, run.output()
    return records(out)


def records(out) -> Counter[str]:
    assert (out / "_SUCCESS").exists()
    found = [*read_records(out, "transcripts"), *read_records(out, "failures")]
    return Counter(json.dumps(record, sort_keys=True) for record in found)


def goes_on(runner, corpus, out, expected) -> None:
    """The DirectRunner finishes what is there, and does no more again than was in flight."""
    kept = journaled(out)
    assert kept
    ended = runner("DirectRunner, threads").run(*corpus, f"--output={out}", "--resume", scale=SCALE)
    assert ended.status == 0, ended.said
    assert records(out) == expected
    assert len(ended.decoded) == CLIPS + 2 - len(kept)


def test_started_on_flink_killed_and_finished_on_the_direct_runner(
    runner, corpus, expected, tmp_path
):
    out = tmp_path / "out"
    some = {"scale": SCALE, "hold_after": SOME}
    started = runner("Flink embedded").start(*corpus, f"--output={out}", **some)
    started.run.wait_until_held()
    started.run.signal(signal.SIGKILL)
    ended = started.ended()
    assert ended.status == -signal.SIGKILL
    lost = len(ended.decoded) - len(journaled(out))
    assert lost <= WINDOWS_IN_FLIGHT * 12 / 2.25, lost
    goes_on(runner, corpus, out, expected)


def test_a_task_manager_that_is_killed(runner, cluster, corpus, expected, tmp_path):
    _harmed(runner, cluster, corpus, expected, tmp_path, lambda _: cluster.kill_one())
    cluster.add_task_manager()  # for the other tests


def test_a_worker_pool_that_is_killed(runner, cluster, corpus, expected, tmp_path):
    _harmed(runner, cluster, corpus, expected, tmp_path, lambda started: started.pool.kill())


def _harmed(runner, cluster, corpus, expected, tmp_path, harm) -> None:
    out = tmp_path / "out"
    flags = [*corpus, f"--output={out}", f"--flink_master={cluster.address}"]
    some = {"scale": SCALE, "hold_after": SOME}
    started = runner("Flink of the caller's, worker pool").start(*flags, **some)
    started.run.wait_until_held()
    harm(started)
    started.run.release()
    ended = started.ended()
    if ended.status == 0:
        assert records(out) == expected
        return
    assert ended.status == 1, ended.said
    assert "--resume" in ended.said.splitlines()[-1]
    assert not (out / "_SUCCESS").exists()
    goes_on(runner, corpus, out, expected)
