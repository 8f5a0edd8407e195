"""Faults of the model cost their clip alone, or end the process with nothing lost."""

from __future__ import annotations

import json

import pytest
import soundfile

from tests.faults.kinds import RATE
from tests.faults.model_faults import MARKED
from tests.support.job_files import read_records, write_manifest
from tests.support.tiny_models import speechlike

CLIPS = 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny_model):
    """Flags of a job over 60 good clips and the marked one, and its path."""
    folder = tmp_path_factory.mktemp("corpus")
    for index in range(CLIPS):
        soundfile.write(folder / f"{index:02d}.wav", speechlike(0.3 + 0.05 * index, index), RATE)
    marked = folder / "marked.wav"
    soundfile.write(marked, speechlike(MARKED / RATE, 99)[:MARKED], RATE)
    rows = [{"audio_filepath": str(path)} for path in sorted(folder.glob("*.wav"))]
    manifest = write_manifest(folder / "m.jsonl", rows)
    flags = [f"--input={manifest}", f"--model_name={tiny_model('ctc_bpe')}"]
    return [*flags, "--max_batch_seconds=8"], str(marked)


@pytest.fixture(scope="module")
def undisturbed(fork_server, corpus, tmp_path_factory):
    """The texts by path."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run = fork_server.run(*corpus[0], f"--output={out}", scale=1 / 100)
    assert run.status() == 0, run.output()
    return texts(out)


def texts(out) -> dict[str, str]:
    assert (out / "_SUCCESS").exists()
    found = read_records(out, "transcripts")
    return {record["audio_filepath"]: record["pred_text"] for record in found}


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("poison", "IndexError", "index 7"),
        ("not_finite", "NotFiniteError", "NaN"),
        ("no_room_for_one", "ClipTooLongError", f"{MARKED / RATE:.1f}"),
    ],
)
def test_a_clip_that_the_model_cannot_take_fails_alone(
    fork_server, corpus, undisturbed, tmp_path, fault, error, said
):
    flags, marked = corpus
    out = tmp_path / "out"
    run = fork_server.run(*flags, f"--output={out}", scale=1 / 100, fault=fault)
    assert run.status() == 0, run.output()
    (failure,) = read_records(out, "failures")
    assert failure["audio_filepath"] == marked
    assert (failure["error"]["stage"], failure["error"]["type"]) == ("model", error)
    assert said in failure["error"]["message"]
    assert {**texts(out), marked: undisturbed[marked]} == undisturbed


def test_little_memory_costs_no_row_and_changes_no_text(fork_server, corpus, undisturbed, tmp_path):
    out = tmp_path / "out"
    run = fork_server.run(*corpus[0], f"--output={out}", scale=1 / 100, fault="little_memory")
    assert run.status() == 0, run.output()
    assert texts(out) == undisturbed
    summary = json.loads((out / "summary.json").read_text())
    assert summary["failed"] == 0


@pytest.mark.parametrize(
    ("fault", "flags", "said"),
    [
        ("stuck", ["--batch_timeout=2"], "--batch_timeout"),
        ("lost_card", [], "illegal memory access"),
        ("full_disk", [], "File too large"),
    ],
)
def test_what_only_another_process_can_fix_ends_this_one_and_fails_no_row(
    fork_server, corpus, undisturbed, tmp_path, fault, flags, said
):
    out = tmp_path / "out"
    again = [*corpus[0], f"--output={out}"]
    run = fork_server.run(*again, *flags, scale=1 / 100, fault=fault)
    assert run.status() == 1
    assert said in run.output()
    # On a full disk the model cannot be unpacked, so there is nothing to resume.
    assert ("--resume" in run.output()) == out.exists() == (fault != "full_disk")
    assert not (out / "_SUCCESS").exists()
    resumed = fork_server.run(*again, "--resume", scale=1 / 100)
    assert resumed.status() == 0, resumed.output()
    assert texts(out) == undisturbed
    assert read_records(out, "failures") == []
    assert not list(out.rglob("*.part"))
