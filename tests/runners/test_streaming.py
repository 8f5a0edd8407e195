"""Inputs without an end, on runners that stream: files that appear are done, window by window."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import soundfile

from beam_asr.transforms.streaming import CHANGED
from tests.support.job_files import read_records, write_manifest
from tests.support.tiny_models import speechlike
from tests.support.waiting import wait_until

RATE = 16_000


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for index in range(8):
        soundfile.write(folder / f"{index}.wav", speechlike(0.5 + 0.1 * index, index), RATE)
    return folder


def appear(folder: Path, name: str, rows: list[dict | str]) -> None:
    """A manifest that is there whole, or not."""
    write_manifest(folder / f"{name}.part", rows).rename(folder / name)


def whole_windows(out: Path) -> list[Path]:
    return sorted(marker.parent for marker in out.glob("*/_SUCCESS"))


def records(out: Path, kind: str) -> list[dict]:
    return [each for window in whole_windows(out) for each in read_records(window, kind)]


def wait_for(started, is_so) -> None:
    def otherwise() -> str:
        started.run.signal(signal.SIGKILL)
        said = started.ended().said
        log = started.pool.log.read_text()[-3000:] if started.pool else ""
        return f"it never came to it:\n{said[-6000:]}\n{log}"

    wait_until(lambda: is_so() or started.run.has_ended(), otherwise, 0.2)
    if not is_so():
        pytest.fail(otherwise())


@pytest.mark.parametrize("name", ["Prism", "Flink standalone, worker pool"])
def test_files_that_appear_are_written_window_by_window(
    runner, request, name, clips, tiny_model, tmp_path
):
    out, watched = tmp_path / "out", tmp_path / "watched"
    watched.mkdir()
    flags = [
        f"--input={watched}/*.jsonl", "--watch=1", "--output_window=4", f"--output={out}",
        f"--model_name={tiny_model('ctc_bpe')}",
    ]  # fmt: skip
    row = {"audio_filepath": str(clips / "0.wav"), "n": 0}
    started = runner(name).start(*flags)
    appear(watched, "a.jsonl", [row])

    wait_for(started, lambda: len(records(out, "transcripts")) == 1)
    (first,) = whole_windows(out)
    assert json.loads((first / "summary.json").read_text())["inputs"] == [f"{watched}/a.jsonl"]

    more = [{"audio_filepath": str(clips / f"{n}.wav"), "n": n} for n in range(1, 6)]
    appear(watched, "list.jsonl", ['[{"audio_filepath": "a.wav"}, {"audio'])
    with (watched / "a.jsonl").open("a") as file:  # by a writer who was not done
        file.write(json.dumps(row))
    appear(watched, "b.jsonl", [*more, more[0], "{broken", {"audio_filepath": "gone.wav"}])
    wait_for(
        started,
        lambda: (len(records(out, "transcripts")), len(records(out, "failures"))) == (7, 4),
    )
    assert sorted(each["n"] for each in records(out, "transcripts")) == [0, 1, 1, 2, 3, 4, 5]
    errors = [each["error"] for each in records(out, "failures")]
    types = ["AudioNotFoundError", "NotJsonError", "UnreadableFileError", "UnreadableFileError"]
    assert sorted(error["type"] for error in errors) == types
    assert any(f"{watched}/a.jsonl:0: {CHANGED}" == error["message"] for error in errors)
    assert first in whole_windows(out)
    before = whole_windows(out)
    texts = {each["n"]: each["pred_text"] for each in records(out, "transcripts")}
    assert len(set(texts.values())) > 3

    _end(started, request, name)
    again = runner(name).start(*flags, "--resume")
    appear(watched, "c.jsonl", [{"audio_filepath": str(clips / "6.wav"), "n": 6}])
    wait_for(again, lambda: len(whole_windows(out)) > len(before))
    assert sorted(each["n"] for each in records(out, "transcripts")) == [0, 1, 1, 2, 3, 4, 5, 6]
    _end(again, request, name)


def _end(started, request, name: str) -> None:
    started.run.signal(signal.SIGINT)
    ended = started.ended()
    assert ended.status == 1
    assert "--resume" in ended.said
    if "standalone" in name:  # where the job goes on without its launcher
        cluster = request.getfixturevalue("cluster")
        for job in cluster.jobs():
            if job["state"] == "RUNNING":
                cluster.cancel(job["jid"])
