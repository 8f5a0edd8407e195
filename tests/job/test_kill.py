"""A run that is killed at any moment is gone on with, and nothing is lost or done twice."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import soundfile

from beam_asr.outputs import folder as output
from beam_asr.outputs import journal
from beam_asr.records import row_ids
from beam_asr.storage.storage import Storage
from tests.support.fork_server import Run
from tests.support.job_files import journaled, read_records, write_manifest
from tests.support.tiny_models import speechlike
from tests.support.waiting import wait_until

RATE = 16_000
CLIPS = 400
SCALE = 1 / 100  # of windows: 12 s of audio
# A row is with a window that is read, waits, is overdue at twice the audio of a window, or is with
# the model while the next share is put together.
WINDOWS_IN_FLIGHT = 6
KILLS = 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_model):
    """Flags of a job over 400 clips of 0.3 to 4 s, ten broken rows and four equal ones."""
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(5)
    rows: list[dict | str] = []
    for index in range(CLIPS):
        path = folder / f"{index:03d}.wav"
        seconds = chance.uniform(0.3, 4.0)
        soundfile.write(path, speechlike(seconds, seed=index), RATE, subtype="PCM_16")
        row = {"audio_filepath": str(path), "n": index}
        rows.append({**row, "duration": seconds} if index % 2 else row)
    rows += [dict(rows[7])] * 4
    rows += [{"audio_filepath": f"missing{index}.wav"} for index in range(9)] + ["no row"]
    chance.shuffle(rows)
    manifest = write_manifest(folder / "m.jsonl", rows)
    model = tiny_model("ctc_bpe")
    return [f"--input={manifest}", f"--model_name={model}", "--max_batch_seconds=3"]


def records(out: Path) -> list[str]:
    assert (out / "_SUCCESS").exists()
    found = read_records(out, "transcripts") + read_records(out, "failures")
    return sorted(json.dumps(record, sort_keys=True) for record in found)


def settle(out: Path) -> None:
    """Waits for what a killed process has started in the kernel: a file may yet get its name."""
    windows = out / "_journal" / "windows"

    def is_settled() -> bool:
        Storage().delete_leftovers(str(windows))  # those that nobody writes any more
        return not list(windows.glob("*.part"))

    wait_until(is_settled, lambda: "a file of a dead process is still held")


def kill(run: Run, moment: float, ending: float) -> bool:
    """Kills a run; tells whether it had not ended before.

    Args:
        moment: the share of the clips that have been through the model; what is above 1 is a
            share of the time after the last of them.
        ending: seconds of that time.
    """
    wait_until(lambda: len(run.decoded()) >= min(moment, 1.0) * (CLIPS + 4) or run.has_ended())
    time.sleep(max(0.0, moment - 1.0) * ending)
    run.signal(signal.SIGKILL)
    return run.status() == -signal.SIGKILL


def kept_audio(kept: set[str], corpus: list[str]) -> Counter[str]:
    """The audio of rows by their ids."""
    manifest = corpus[0].partition("=")[2]
    rows = [json.loads(line) for line in Path(manifest).read_text().splitlines() if line[0] == "{"]
    audio = {row_ids.group_of(row, row["audio_filepath"]): row["audio_filepath"] for row in rows}
    return Counter(audio[row_ids.group_of_id(row_id)] for row_id in kept)


def test_a_run_that_is_killed_at_any_moment_is_gone_on_with(fork_server, corpus, tmp_path):
    whole = fork_server.run(*corpus, f"--output={tmp_path / 'whole'}", scale=SCALE)
    wait_until(lambda: len(whole.decoded()) == CLIPS + 4 or whole.has_ended())
    transcribed = time.monotonic()
    assert whole.status() == 0, whole.output()
    ending = time.monotonic() - transcribed
    expected = records(tmp_path / "whole")
    assert len(expected) == CLIPS + 4 + 10
    all_audio = Counter(path for path in whole.decoded())
    assert all_audio.total() == CLIPS + 4
    chance = random.Random(7)
    recomputed, gone_on = [], 0

    for number in range(KILLS):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        run = fork_server.run(*corpus, f"--output={out}", "--num_shards=3", scale=SCALE)
        killed = kill(run, chance.uniform(0.0, 1.2), ending)
        finished = output.is_finished(Storage(), str(out))  # it may be killed after its last step
        settle(out)
        kept = journaled(out)
        shards = 1 + number % 4
        resumed = fork_server.run(
            *corpus, f"--output={out}", f"--num_shards={shards}", "--resume", scale=SCALE
        )
        assert resumed.status() == 0, resumed.output()
        assert records(out) == expected
        assert len(list(out.glob("transcripts-*"))) == (3 if finished else shards)
        assert not (out / "_journal").exists()
        assert not list(out.glob("*.part"))
        if killed and kept and not finished:
            gone_on += 1
            assert Counter(resumed.decoded()) == all_audio - kept_audio(kept, corpus)
            recomputed.append(len(run.decoded()) - len(kept))
            assert json.loads((out / "summary.json").read_text())["resumed"] == len(kept)

    assert gone_on >= KILLS // 4, "hardly any run was killed while it was transcribing"
    rows_a_window = 1200 * SCALE / 2.15
    print(f"rows computed twice, for each of {gone_on} kills: {recomputed}")
    assert max(recomputed) <= WINDOWS_IN_FLIGHT * rows_a_window


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_within_seconds_and_what_was_done_is_kept(
    fork_server, corpus, tmp_path, number
):
    out = tmp_path / "out"
    run = fork_server.run(*corpus, f"--output={out}", scale=SCALE, hold_after=100)
    run.wait_until_held()  # so that the model has given no result which is not yet taken in
    run.signal(number)
    assert run.status() == 1
    assert len(run.decoded()) < CLIPS, "it went on to its end"
    said = run.output()
    assert signal.Signals(number).name in said
    assert f"beam-asr transcribe {corpus[0]}" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert not (out / "_journal" / "lock.json").exists()
    # What was done of windows that were not yet complete is kept too.
    kept = journaled(out)
    assert len(kept) == len(run.decoded())
    resumed = fork_server.run(*corpus, f"--output={out}", "--resume", scale=SCALE)
    assert resumed.status() == 0
    assert len(resumed.decoded()) == CLIPS + 4 - len(kept)
    assert len(records(out)) == CLIPS + 14


def test_of_two_jobs_into_one_folder_the_second_refuses(fork_server, corpus, tmp_path, transcribe):
    out = tmp_path / "out"
    run = fork_server.run(*corpus, f"--output={out}", scale=SCALE, hold_after=1)
    run.wait_until_held()  # so that it does not end before the others have looked
    for flag in ("--resume", "--overwrite"):
        status, _, said = transcribe(*corpus, f"--output={out}", flag)
        assert status == 2
        assert str(run.pid) in said
    run.release()
    assert run.status() == 0
    assert len(records(out)) == CLIPS + 14
    assert not (out / journal.JOURNAL).exists()
