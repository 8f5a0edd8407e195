"""A folder that many runs append to is right: its sums, its failures, and what is left of it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beam_asr.cli import main
from beam_asr.outputs.journal import Journal
from beam_asr.outputs.row_index import RowIndex
from beam_asr.transforms import write_manifest as writing
from tests.support.job_files import read_records, write_manifest
from tests.support.naming_model import RATE, NamingRecognizer, load_models_as


@pytest.fixture(autouse=True)
def naming_model(monkeypatch):
    load_models_as(NamingRecognizer, monkeypatch)


@pytest.fixture
def rows(tmp_path) -> list[dict]:
    return [{"audio_filepath": sound(tmp_path / f"{n}.wav", [0.1]), "n": n} for n in range(6)]


@pytest.fixture
def append(tmp_path):
    """Runs the job into one folder, with --append and other flags; returns its status."""

    def run(rows: list, *flags: str, mode: str = "--append") -> int:
        listed = write_manifest(tmp_path / "m.jsonl", rows)
        place = [f"--input={listed}", f"--output={tmp_path / 'out'}", mode]
        return main.main(["transcribe", "--model_name=org/one", *place, *flags])

    return run


def sound(path: Path, levels: list[float]) -> str:
    soundfile.write(path, np.tile(np.float32(levels), (RATE, 1)), RATE)
    return str(path)


def ending(*_args, **_kwargs):
    raise RuntimeError("ended here")


def summary_of(out: Path) -> dict:
    assert (out / "_SUCCESS").exists()
    return json.loads((out / "summary.json").read_text())


def test_a_run_that_ends_before_its_rows_are_known_leaves_a_folder_to_append_to(
    rows, append, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    assert append(rows[:3]) == 0
    before = (out / "transcripts-00000-of-00001.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "begin", ending)
        assert append(rows) == 1
    summary_of(out)  # the results of the first run are finished as before
    assert append(rows, mode="--resume") == 2
    assert "--append transcribes those that it lacks" in capsys.readouterr().err
    (out / "_SUCCESS").unlink()  # as a run of an older release left it
    assert append(rows, mode="--resume") == 2
    assert "--append to add the rows that it lacks" in capsys.readouterr().err
    assert append(rows, "--pred_text_key=other") == 2
    assert append(rows) == 0
    assert (out / "transcripts-00000-of-00001.jsonl").read_bytes() == before
    assert summary_of(out)["transcribed"] == len(read_records(out, "transcripts")) == 6


def test_an_overwriting_run_that_ends_early_leaves_no_half_of_an_index(rows, append, tmp_path):
    assert append(rows[:3]) == 0
    (tmp_path / "out" / "_SUCCESS").unlink()
    (tmp_path / "out" / "_index" / "run-00000.json").unlink()
    assert append(rows) == 2
    assert append(rows, mode="--overwrite") == 0


@pytest.mark.parametrize("mode", ["--append", "--resume"])
def test_an_interrupted_run_goes_on_with_the_settings_of_the_folder_alone(
    rows, append, tmp_path, monkeypatch, capsys, mode
):
    assert append(rows[:3]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(writing.OutputTarget, "write_shard", ending)
        assert append(rows) == 1
    for flag in ("--pred_text_key=other", "--compression=gzip", "--keep=duration > 1"):
        assert append(rows, flag, mode=mode) == 2
        assert "holds the results of another run" in capsys.readouterr().err
    assert append(rows, mode=mode) == 0
    assert {row["pred_text"] for row in read_records(tmp_path / "out", "transcripts")} == {
        "org/one"
    }


@pytest.mark.parametrize(
    "name",
    [
        "transcripts-00000-of-00001.jsonl",
        "failures-00000-of-00001.jsonl",
        "_index/run-00000.json",
        "_index/rows-00000/transcripts-00000-of-00001.jsonl.tsv",
    ],
)
def test_a_file_of_an_earlier_run_that_is_gone_is_named_before_anything_starts(
    rows, append, tmp_path, capsys, name
):
    out = tmp_path / "out"
    late = {"audio_filepath": str(tmp_path / "late.wav")}
    assert append([*rows[:3], late]) == 0
    assert append(rows[:4]) == 0
    content = (out / name).read_bytes()
    (out / name).unlink()
    assert append([*rows, late]) == 2
    assert Path(name).name in capsys.readouterr().err
    assert (out / "_SUCCESS").exists()
    (out / name).write_bytes(content)
    assert append([*rows, late]) == 0
    assert summary_of(out)["rows_in"] == 7


def test_formats_may_be_named_in_any_order(rows, append):
    assert append(rows[:1], "--formats=nemo,parquet") == 0
    assert append(rows, "--formats=parquet,nemo") == 0
    assert append(rows, "--formats=parquet") == 2


def test_a_damaged_index_is_named(rows, append, tmp_path, capsys):
    assert append(rows[:2]) == 0
    for content in ('{"identity"', "{}"):
        (tmp_path / "out" / "_index" / "run-00000.json").write_text(content)
        assert append(rows) == 2
        assert "run-00000.json' is damaged" in capsys.readouterr().err


def test_the_summary_is_that_of_one_run_over_all_rows(rows, append, tmp_path):
    flags = ("--formats=nemo", "--reference_key=text", "--keep=wer < 0.5 or n < 2")
    rows = [{**row, "text": "org/one" if row["n"] % 2 else "one"} for row in rows]
    for count in (2, 4, 6, 6):
        assert append(rows[:count], *flags) == 0
    grown = summary_of(tmp_path / "out")
    assert append(rows, *flags, mode="--overwrite") == 0
    once = summary_of(tmp_path / "out")
    differing = {key for key in once if grown[key] != once[key]}
    assert {key for key in differing if "seconds" not in key and "rtfx" not in key} <= {
        *("run", "options", "appended", "rows_in_folder", "model_wait_share"),
        *("batches", "padding_efficiency", "model_loads", "workers", "over_time"),
    }
    for name in ("workers", "over_time"):
        hours = [sum(part["audio_hours"] for part in summary[name]) for summary in (grown, once)]
        assert hours[0] == pytest.approx(hours[1], abs=1e-5) != 0
    assert (grown["nemo"]["rows"], grown["input_files"], grown["rows_in_folder"]) == (4, 1, 6)


def test_channels_that_all_failed_are_counted_once_when_they_are_done_again(
    append, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    calls = [{"audio_filepath": sound(tmp_path / f"c{n}.wav", [0.1, 0.2])} for n in range(2)]
    flags = ("--channel=each", "--max_failure_fraction=1")
    with monkeypatch.context() as patch:
        patch.setattr(NamingRecognizer, "encode", ending)
        assert append(calls, *flags) == 0
    assert summary_of(out)["failed"] == 4
    assert append(calls[:1], *flags) == 0
    summary = summary_of(out)
    assert (summary["rows_in"], summary["further_channels"]) == (2, 2)
    assert (summary["transcribed"], summary["failed"]) == (2, 2)
    assert append(calls, *flags) == 0
    summary = summary_of(out)
    assert (summary["rows_in"], summary["further_channels"], summary["transcribed"]) == (2, 2, 4)


def test_a_failure_stays_if_the_run_that_did_its_row_again_fails(rows, append, tmp_path):
    out = tmp_path / "out"
    late = {"audio_filepath": str(tmp_path / "late.wav"), "n": 9}
    never = [{"audio_filepath": str(tmp_path / "never.wav"), "n": n} for n in range(120)]
    assert append([*rows, late]) == 0
    sound(tmp_path / "late.wav", [0.1])
    assert append([late, *never]) == 1
    assert append(rows) == 0  # goes on without that row
    assert [row["n"] for row in read_records(out, "failures")] == [9]
    assert summary_of(out)["rows_in"] == 7


@pytest.mark.parametrize("step", ["_rewrite", "_write_rows", "_write_run"])
def test_dropping_failures_may_be_interrupted(rows, append, tmp_path, monkeypatch, step):
    out = tmp_path / "out"
    late = {"audio_filepath": str(tmp_path / "late.wav")}
    assert append([*rows[:3], late, "no JSON"]) == 0
    sound(tmp_path / "late.wav", [0.1])
    with monkeypatch.context() as patch:
        patch.setattr(
            RowIndex,
            "drop_redone_failures",
            lambda index, drop=RowIndex.drop_redone_failures: (
                patch.setattr(RowIndex, step, ending),
                drop(index),
            ),
        )
        assert append([*rows[:3], late]) == 1
    assert append([*rows[:3], late]) == 0
    summary = summary_of(out)
    assert (summary["rows_in"], summary["transcribed"], summary["failed"]) == (5, 4, 1)
    assert len(read_records(out, "failures")) == 1


def test_a_tar_that_was_cut_short_has_no_failure_once_it_is_whole(rows, tmp_path):
    out, tar = tmp_path / "out", tmp_path / "a.tar"
    with tarfile.open(tar, "w") as packed:
        for row in rows:
            packed.add(row["audio_filepath"], f"{row['n']}.wav")
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    command = ["transcribe", str(tar), f"--output={out}", "--model_name=org/one", "--append"]
    for _ in range(2):  # the tar fails again, and is one failure
        assert main.main(command) == 0
        assert summary_of(out)["failed_by_type"]["TarError"] == 1
    tar.write_bytes(whole)
    assert main.main(command) == 0
    summary = summary_of(out)
    assert (summary["rows_in"], summary["transcribed"], summary["failed"]) == (6, 6, 0)
    assert read_records(out, "failures") == []


def test_a_manifest_that_is_named_in_another_way_has_the_same_rows(
    rows, append, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    relative = [{"audio_filepath": Path(row["audio_filepath"]).name} for row in rows]
    assert append(relative) == 0
    monkeypatch.chdir(tmp_path)
    for name in ("m.jsonl", "./m.jsonl", (tmp_path / "m.jsonl").as_uri()):
        assert append(relative, f"--input={name}") == 0
    assert summary_of(out)["rows_in"] == 6
