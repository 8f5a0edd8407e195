"""Records are in the order of the input, with their durations, and with whole paths on request."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beam_asr import Output
from beam_asr.cli import main
from beam_asr.outputs.formats.file_names import HASHED
from beam_asr.transforms import shard_lines
from beam_asr.transforms import write_manifest as write_manifest_module
from tests.support.job_files import read_records, write_manifest
from tests.support.naming_model import RATE, NamingRecognizer, load_models_as


@pytest.fixture(autouse=True)
def naming_model(monkeypatch):
    load_models_as(NamingRecognizer, monkeypatch)


@pytest.fixture
def job(tmp_path):
    """Runs the job over inputs, with flags; gives the output folder."""
    numbers = itertools.count()

    def run(inputs: list[Path], *flags: str, out: Path | None = None) -> Path:
        out = out or tmp_path / f"out{next(numbers)}"
        given = [f"--input={path}" for path in inputs]
        assert main.main(["transcribe", *given, f"--output={out}", "--model_name=m", *flags]) == 0
        return out

    return run


@pytest.fixture
def arriving_backwards(monkeypatch):
    """Has the lines come to their shards in an order that is not the input's."""

    def reverse(keyed, *args, **kwargs):
        backwards = shard_lines.packed(shard_lines.unpacked(keyed[1])[::-1])
        return shard_lines.by_shard((keyed[0], backwards), *args, **kwargs)

    monkeypatch.setattr(write_manifest_module, "by_shard", reverse)


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "clips" / "a.wav"
    path.parent.mkdir()
    soundfile.write(path, np.full((RATE // 2, 2), [0.1, 0.2], np.float32), RATE)
    return path


@pytest.fixture
def manifests(clip, tmp_path) -> list[Path]:
    """Three files, in an order that is not that of their names; the rows count on."""
    rows = [{"audio_filepath": f"clips/{clip.name}", "n": n} for n in range(300)]
    for number, row in enumerate(rows):
        row["drop"] = int(number % 10 == 7)
        if number % 10 == 5:
            row["audio_filepath"] = "clips/missing.wav"
    parts = {"b": rows[:100], "c": rows[100:102], "a": rows[102:]}
    return [write_manifest(tmp_path / f"{name}.jsonl", part) for name, part in parts.items()]


def numbers(out: Path, kind: str) -> list[int]:
    return [record["n"] for record in read_records(out, kind)]


@pytest.mark.usefixtures("arriving_backwards")
def test_a_small_folder_has_the_order_of_the_input(job, manifests):
    out = job(manifests, "--keep=drop == 0", "--max_failure_fraction=1")
    for kind, last in (
        ("failures", {5}),
        ("filtered", {7}),
        ("transcripts", {*range(10)} - {5, 7}),
    ):
        assert numbers(out, kind) == [n for n in range(300) if n % 10 in last]
    by_id = [record["n"] for _, record in Output(str(out)).with_row_ids("failures")]
    assert by_id == list(range(5, 300, 10)), "the index has the order of its shard"


@pytest.mark.parametrize("always", [False, True])
def test_lines_that_do_not_fit_into_memory_are_sorted_in_a_file_if_that_is_requested(
    monkeypatch, always
):
    packs = [
        [("", b"%d" % n, f"id{n}", (n % 3, n, 0), n / 2) for n in range(p, 90, 9)] for p in range(9)
    ]
    lines = shard_lines.ShardLines([shard_lines.packed(pack) for pack in packs])
    ordered = sorted(itertools.chain(*packs), key=lambda line: line[3])
    assert list(shard_lines.in_order(lines, always).entries()) == ordered
    monkeypatch.setattr(shard_lines, "SORTED_BYTES", 1000)
    lines = shard_lines.in_order(lines, always)
    for _ in range(2):
        expected = ordered if always else list(itertools.chain(*packs))
        assert list(lines.entries()) == expected
        assert list(lines) == [line for _, line, *_ in expected]


@pytest.mark.usefixtures("arriving_backwards")
def test_with_order_all_shards_have_the_order_of_the_input(job, manifests, monkeypatch):
    monkeypatch.setattr(shard_lines, "SORTED_BYTES", 1000)  # in a temporary file
    flags = ("--order=input", "--num_shards=5", "--max_failure_fraction=1", "--formats=parquet")
    out = job(manifests, *flags)
    shards = sorted(out.glob("transcripts-*"))
    counts = [len(path.read_text().splitlines()) for path in shards]
    assert numbers(out, "transcripts") == [n for n in range(300) if n % 10 != 5]
    assert numbers(out, "failures") == list(range(5, 300, 10))
    assert len(counts) == 5
    assert max(counts) < 1.1 * min(counts)


def test_rows_of_equal_place_are_in_the_order_of_their_channels(job, clip):
    out = job([clip, clip.parent], "--channel=each", "--order=input", "--num_shards=1")
    assert [record["channel"] for record in read_records(out, "transcripts")] == [0, 1]


def test_audio_files_have_the_order_in_which_they_are_listed(job, clip, tmp_path):
    names = ["z", "y", "x"]
    for name in names:
        (tmp_path / f"{name}.wav").write_bytes(clip.read_bytes())
    out = job([*(tmp_path / f"{name}.wav" for name in names), clip.parent])
    found = [Path(each["audio_filepath"]).stem for each in read_records(out, "transcripts")]
    assert found == [*names, "a"]


def test_each_transcript_has_a_duration_its_own_or_the_measured_one(job, clip, tmp_path):
    rows = [{"audio_filepath": str(clip), "duration": duration} for duration in (0.25, None)]
    out = job([write_manifest(tmp_path / "m.jsonl", [*rows, {"audio_filepath": str(clip)}]), clip])
    records = read_records(out, "transcripts")
    assert [record["duration"] for record in records] == [0.25, 0.5, 0.5, 0.5]


def test_paths_are_whole_on_request_and_as_they_were_without(
    job, clip, tmp_path, monkeypatch, capsys
):
    rows = [
        {"audio_filepath": "clips/a.wav"},
        {"audio_filepath": str(clip)},
        {"audio_filepath": "clips/../gone.wav"},
        {"audio_filepath": "http://localhost:1/gone.wav"},
        {"no": "audio"},
    ]
    manifest = write_manifest(tmp_path / "m.jsonl", rows)
    monkeypatch.chdir(tmp_path)
    relative = [Path("m.jsonl")]
    out = job(relative, "--absolute_paths", "--max_failure_fraction=1", "--audio_timeout=1")
    found = [record.get("audio_filepath") for record in Output(str(out)).records()]
    remote = "http://localhost:1/gone.wav"
    assert found == [str(clip), str(clip), str(tmp_path / "gone.wav"), remote, None]
    plain = job([manifest], "--max_failure_fraction=1", "--audio_timeout=1")
    assert read_records(plain, "transcripts")[0]["audio_filepath"] == "clips/a.wav"
    args = ["transcribe", str(manifest), f"--output={out}", "--model_name=m", "--append"]
    assert main.main(args) == 2, "a folder has one kind of paths"
    assert "the absolute paths was True" in capsys.readouterr().err


def test_the_summary_says_what_was_requested(job, clip):
    options = json.loads((job([clip], "--order=input") / "summary.json").read_text())["options"]
    assert (options["order"], options["absolute_paths"]) == ("input", False)


def test_an_index_names_the_files_of_each_audio(job, clip, tmp_path):
    rows = [{"audio_filepath": str(clip), "channel": channel} for channel in (1, 0)]
    rows.append({"audio_filepath": str(clip), "offset": 0.1})
    flags = ("--formats=txt,vtt", "--append")
    out = job([write_manifest(tmp_path / "m.jsonl", rows[:2])], *flags)
    job([write_manifest(tmp_path / "n.jsonl", rows[2:])], *flags, out=out)
    found = [json.loads(line) for path in sorted(out.glob("exports/*")) for line in path.open()]
    of_append = found.pop()
    assert [each["channel"] for each in found] == [1, 0]
    assert (of_append["offset"], of_append["channel"]) == (0.1, None)
    assert {each["audio_filepath"] for each in found} == {str(clip)}
    for each in (*found, of_append):
        assert each["files"].keys() == {"txt", "vtt"}
        assert (out / each["files"]["txt"]).read_text() == "m\n"
    plain = job([clip], f"--output={out}", "--overwrite", out=out)
    assert not (plain / "exports").exists(), "a folder without such files has no index"


def test_captions_of_later_runs_keep_those_of_earlier_ones(job, clip, tmp_path, monkeypatch):
    def write(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        soundfile.write(folder / "a.wav", np.full(RATE // 2, 0.1), RATE)
        return folder / "a.wav"

    def captions() -> dict[str, list[str]]:
        """Returns the names of the captions of each folder of audio."""
        names: dict[str, list[str]] = {}
        for record in Output(str(out)).records():
            path = out / record["exports"]["txt"]
            assert path.is_file()
            names.setdefault(Path(record["audio_filepath"]).parent.name, []).append(path.name)
        assert sum(map(len, names.values())) == len(list((out / "txt").iterdir()))
        return names

    flags = ("--formats=txt", "--append")
    out = job([clip], *flags)
    assert captions() == {"clips": ["a.txt"]}
    later = write("later")
    with monkeypatch.context() as patched:
        patched.setattr(write_manifest_module, "_write_shard", lambda *_, **__: 1 / 0)
        command = ["transcribe", f"--input={later}", f"--output={out}", "--model_name=m", *flags]
        assert main.main(command) == 1
    job([clip, later], *flags, out=out)
    names = captions()
    assert names.pop("clips") == ["a.txt"]
    assert HASHED.fullmatch(names.pop("later")[0].removesuffix(".txt"))
    other = later.rename(later.with_name("b.wav"))
    job([other], *flags, out=out)
    assert captions()["later"][-1] == "b.txt"
