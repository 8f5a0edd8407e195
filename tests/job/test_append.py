"""A run adds to a finished folder what that lacks, and an interrupted one goes on."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest
import soundfile

from beam_asr.cli import main
from beam_asr.outputs import row_index
from beam_asr.transforms import write_manifest as writing
from tests.support.job_files import read_records, write_manifest
from tests.support.tiny_models import speechlike, write_clips

RATE = 16_000
CLIPS = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.fixture
def rows(clips) -> list[dict]:
    return [{"audio_filepath": str(path), "text": "a"} for path in sorted(clips.glob("*.wav"))]


@pytest.fixture
def append(tiny_model, tmp_path):
    """Runs the job into one folder, with --append and other flags; returns its status."""

    def run(rows: list, *flags: str, add: bool = True) -> int:
        listed = write_manifest(tmp_path / "m.jsonl", rows)
        place = [
            f"--input={listed}",
            f"--output={tmp_path / 'out'}",
            *(["--append"] if add else []),
        ]
        return main.main(["transcribe", f"--model_name={tiny_model('ctc_bpe')}", *place, *flags])

    return run


def names_of(out: Path, kind: str = "transcripts") -> Counter[str]:
    return Counter(Path(row["audio_filepath"]).name for row in read_records(out, kind))


def summary_of(out: Path) -> dict:
    assert (out / "_SUCCESS").exists()
    assert not (out / "_journal").exists()
    return json.loads((out / "summary.json").read_text())


def test_new_rows_are_added_and_shards_that_are_there_stay(rows, append, tmp_path):
    out = tmp_path / "out"
    flags = ("--reference_key=text", "--formats=parquet")
    assert append(rows[:4], *flags) == 0  # the same command begins the folder
    first = out / "transcripts-00000-of-00001.jsonl"
    before = first.read_bytes()

    assert append([*rows, rows[0]], *flags) == 0

    assert first.read_bytes() == before
    added = Counter(["04.wav", "05.wav", "00.wav"])  # of equal rows one was there
    assert names_of(out) == Counter(f"{n:02d}.wav" for n in range(4)) + added
    summary = summary_of(out)
    assert (summary["rows_in"], summary["transcribed"], summary["rows_in_folder"]) == (7, 7, 4)
    assert summary["scores"]["corpus"]["rows"] == 7
    tables = [pyarrow.parquet.read_table(path) for path in (out / "parquet").iterdir()]
    assert sum(table.num_rows for table in tables) == 7

    files = {path: path.stat().st_mtime_ns for path in out.glob("transcripts-*")}
    assert append(rows, *flags) == 0  # nothing is new
    assert {path: path.stat().st_mtime_ns for path in out.glob("transcripts-*")} == files
    assert summary_of(out)["transcribed"] == 7


def test_failures_of_the_folder_are_done_again_and_only_those_that_came_in(rows, append, tmp_path):
    out = tmp_path / "out"
    late, never = ({"audio_filepath": str(tmp_path / f"{name}.wav")} for name in ("late", "never"))
    assert append([*rows[:3], late, never, "no JSON"], "--compression=gzip") == 0
    assert summary_of(out)["failed"] == 3

    shutil.copy(rows[0]["audio_filepath"], late["audio_filepath"])
    assert append([late, rows[3]], "--compression=gzip") == 0

    assert names_of(out) == Counter(["00.wav", "01.wav", "02.wav", "03.wav", "late.wav"])
    failed = read_records(out, "failures")
    assert sorted(record["error"]["type"] for record in failed) == [
        "AudioNotFoundError",
        "NotJsonError",
    ]
    summary = summary_of(out)
    assert summary["failed_by_type"] == {"AudioNotFoundError": 1, "NotJsonError": 1}
    assert (summary["rows_in"], summary["transcribed"]) == (7, 5)

    assert append([never, "no JSON"], "--compression=gzip") == 0  # both fail again, once each
    assert len(read_records(out, "failures")) == 2
    assert append([never], "--compression=gzip", "--no_retry_failures") == 0
    assert summary_of(out)["rows_in"] == 7


@pytest.mark.parametrize("step", ["_write_shard", "add", "check_failures"])
def test_an_interrupted_run_goes_on_and_an_interrupted_end_changes_no_sum(
    rows, append, tmp_path, monkeypatch, step
):
    out = tmp_path / "out"
    late = {"audio_filepath": str(tmp_path / "late.wav")}
    assert append([*rows[:3], late]) == 0
    shutil.copy(rows[0]["audio_filepath"], late["audio_filepath"])
    places = {"_write_shard": writing, "check_failures": writing.failure_limit}
    place = places.get(step, row_index.RowIndex)

    def breaking(*_args, **_kwargs):
        raise RuntimeError("ended here")

    with monkeypatch.context() as patch:
        if step != "_write_shard":
            patch.setattr(place, step, breaking)
        else:
            patch.setattr(writing.OutputTarget, "write_shard", breaking)
        assert append([*rows[:5], late]) == 1
    assert not (out / "_SUCCESS").exists()
    assert append([*rows, late]) == 0  # which has grown further
    assert names_of(out) == Counter(f"{n:02d}.wav" for n in range(CLIPS)) + Counter(["late.wav"])
    assert read_records(out, "failures") == []
    summary = summary_of(out)
    assert (summary["rows_in"], summary["transcribed"], summary["failed"]) == (7, 7, 0)
    assert summary["resumed"] == 3


def test_another_model_or_another_folder_is_refused(rows, append, tiny_model, tmp_path, capsys):
    assert append(rows[:2]) == 0
    before = sorted(path.read_bytes() for path in (tmp_path / "out").glob("transcripts-*"))
    other = shutil.copy(tiny_model("ctc_char"), tmp_path / "other.nemo")
    assert append(rows, f"--model_name={other}") == 2
    assert "the model name was" in capsys.readouterr().err
    assert append(rows, "--overwrite") == 2
    assert sorted(path.read_bytes() for path in (tmp_path / "out").glob("transcripts-*")) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert append(rows, f"--output={tmp_path / 'mine'}") == 2
    assert "no results of this job to append to" in capsys.readouterr().err


def test_each_channel_of_new_calls_is_added(tmp_path, append):
    out = tmp_path / "out"
    for n in range(2):
        sides = [speechlike(0.6, n), speechlike(0.6, n + 5)]
        soundfile.write(tmp_path / f"{n}.wav", list(zip(*sides, strict=True)), RATE)
    calls = [{"audio_filepath": str(tmp_path / f"{n}.wav")} for n in range(2)]
    assert append(calls[:1], "--channel=each") == 0
    assert append(calls, "--channel=each") == 0
    assert names_of(out) == {"0.wav": 2, "1.wav": 2}
    assert summary_of(out)["rows_in"] == 2


def test_new_samples_of_tars_are_added(clips, tiny_model, tmp_path):
    out = tmp_path / "out"
    sources = sorted(clips.glob("*.wav"))

    def pack(name: str, members: list[Path]) -> None:
        with tarfile.open(tmp_path / name, "w") as tar:
            for path in members:
                tar.add(path, path.name)

    flags = [f"--model_name={tiny_model('ctc_bpe')}", f"--output={out}", "--append"]
    pack("a.tar", sources[:2])
    assert main.main(["transcribe", f"{tmp_path}/*.tar", *flags]) == 0
    pack("a.tar", sources[:3])  # has grown
    pack("b.tar", sources[3:5])
    assert main.main(["transcribe", f"{tmp_path}/*.tar", *flags]) == 0
    uris = {record["audio_filepath"] for record in read_records(out, "transcripts")}
    assert len(uris) == sum(names_of(out).values()) == 5
    assert summary_of(out)["rows_in_folder"] == 2


def test_a_finished_folder_is_resumed_by_its_own_run_alone(
    rows, append, tiny_model, tmp_path, capsys
):
    keep = "--keep=duration > 0.1"
    assert append(rows[:3], keep, add=False) == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*"))

    def resume(rows: list[dict], *flags: str) -> tuple[int, str]:
        capsys.readouterr()
        status = append(rows, "--resume", *flags, add=False)
        return status, "".join(capsys.readouterr())

    status, said = resume(rows[2::-1], keep)  # in another order
    assert status == 0
    assert "is finished: nothing to resume" in said
    other = shutil.copy(tiny_model("ctc_char"), tmp_path / "other.nemo")
    for requested, flags, why in (
        (rows, [keep], "there were 3, and now there are 6"),
        ([*rows[:2], rows[3]], [keep], "not all the same. --append transcribes those"),
        (rows[:3], ["--keep=duration > 0.2"], "the keep was 'duration > 0.1'"),
        (rows[:3], [keep, f"--model_name={other}"], "the model name was"),
        (rows[:3], [keep, "--channel=0"], "the channel was None and is 0"),
    ):
        status, said = resume(requested, *flags)
        assert (status, why in said) == (2, True), said
    status = append(rows, "--keep=duration > 0.2")
    assert (status, "the keep was" in capsys.readouterr().err) == (2, True)
    after = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "out").rglob("*"))
    assert after == before
