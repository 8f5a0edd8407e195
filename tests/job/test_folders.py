"""Whole jobs over folders of recordings, their links and names, and what they say of the rest."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile

from beam_asr.storage.storage import Storage
from tests.support.audio_files import encode
from tests.support.job_files import read_records, write_manifest
from tests.support.tiny_models import speechlike

RATE = 16_000
LENGTHS = {
    "plain.wav": 1.2,
    "1599_22028(22?02).wav": 1.4,
    "a::b.flac": 1.0,
    "~x.wav": 1.1,
    "50%25.flac": 1.3,
    "deep/stream.ts": 1.5,
    "long.wav": 11.0,
}


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("ctc_bpe")


def recording(path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.concatenate(
        [speechlike(seconds - 0.5, seed=1), np.full(RATE // 2, 1e-4, np.float32)]
    )
    if path.suffix == ".ts":
        encode(path, samples, codec="aac", container="mpegts")
    else:
        soundfile.write(path, samples, RATE)


@pytest.fixture
def calls(tmp_path):
    folder = tmp_path / "calls"
    for name, seconds in LENGTHS.items():
        recording(folder / name, seconds)
    recording(tmp_path / "far/away.wav", 1.6)
    (folder / "linked").symlink_to("../far")
    (folder / "loop").symlink_to(".")
    (folder / "not fetched.wav").symlink_to("none.wav")
    for name in ("cover.jpg", "1.txt", "2.txt", "deep/3.TXT", "._plain.wav"):
        (folder / name).write_bytes(b"\xff\xd8\xff\x00 a picture, or so")
    (folder / "code.ts").write_text("export const greeting = 'hello'\n")
    return folder


def test_a_folder_is_transcribed_and_what_it_leaves_out_is_said(transcribe, calls, model, tmp_path):
    out = tmp_path / "out"
    status, printed, errors = transcribe(
        f"--input={calls}", f"--output={out}", f"--model_name={model}",
        "--formats=textgrid", "--max_segment_seconds=5",
    )  # fmt: skip
    assert status == 0, errors
    records = read_records(out, "transcripts")
    seconds = {**LENGTHS, "linked/away.wav": 1.6}
    assert {record["audio_filepath"] for record in records} == {
        str(calls / name) for name in seconds
    }
    kinds = {".jpg": 1, ".txt": 3, "broken link": 1, "hidden": 1, "source code": 1}
    kinds["link to a folder listed already"] = 1
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rows_in"] == summary["audio_files"] == summary["input_files"] == 8
    assert summary["ignored_by_kind"] == kinds
    assert summary["ignored_files"] == 8
    assert str(calls / "not fetched.wav") in summary["examples_ignored"]
    assert "8 audio files, 8 others ignored: .jpg 1, .txt 3, broken link 1, hidden 1" in printed
    assert printed.rstrip().splitlines()[-1].startswith("8 rows: 8 transcribed")
    for record in records:  # none of which states its duration
        name = record["audio_filepath"].removeprefix(f"{calls}/")
        grid = (out / record["exports"]["textgrid"]).read_text()
        end = float(grid.split("xmax = ")[1].split()[0])
        assert end == pytest.approx(seconds[name], abs=0.15 if name.endswith(".ts") else 0.001)


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_rows_that_are_shorter_than_their_files_are_counted(
    transcribe, model, tmp_path, place, request
):
    for name in ("a.wav", "is it?.wav", "long.wav"):
        recording(tmp_path / "in" / name, 12.0 if name == "long.wav" else 3.0)
    rows = [
        {"audio_filepath": "a.wav", "n": 0},
        {"audio_filepath": "a.wav", "duration": 1.5, "n": 1},
        {"audio_filepath": "is it?.wav", "duration": 2.0, "n": 2},
        {"audio_filepath": "a.wav", "offset": 0.5, "duration": 1.5, "n": 3},
        {"audio_filepath": "long.wav", "duration": 9.0, "n": 4},
    ]
    write_manifest(tmp_path / "in/m.jsonl", rows)
    folder, options = str(tmp_path / "in"), {}
    if place == "s3":
        bucket = request.getfixturevalue("s3_bucket")
        folder, options = f"{bucket.uri}/in", bucket.storage_options
        for path in (tmp_path / "in").iterdir():
            Storage(options).write(f"{folder}/{path.name}", [path.read_bytes()])
        shutil.rmtree(tmp_path / "in")
    (tmp_path / "options.json").write_text(json.dumps(options))
    out = tmp_path / "out"
    status, _, errors = transcribe(
        f"--input={folder}/m.jsonl", f"--output={out}", f"--model_name={model}",
        f"--storage_options={tmp_path / 'options.json'}",
        "--formats=textgrid", "--max_segment_seconds=5",
    )  # fmt: skip
    assert status == 0, errors
    summary = json.loads((out / "summary.json").read_text())
    assert summary["transcribed"] == 5
    assert summary["long_rows"] == 1
    assert summary["rows_shorter_than_file"] == 3
    ends = {}
    for record in read_records(out, "transcripts"):
        grid = (out / record["exports"]["textgrid"]).read_text()
        ends[record["n"]] = float(grid.split("xmax = ")[1].split()[0])
    assert ends == {0: 3.0, 1: 1.5, 2: 2.0, 3: 2.0, 4: 9.0}
