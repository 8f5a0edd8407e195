"""Scores, conditions, formats and folders afterwards: what a run with them would have written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile

from beam_asr.cli import main
from beam_asr.records.outcome import Recognition
from tests.support.job_files import read_records, write_manifest
from tests.support.naming_model import RATE, NamingRecognizer, load_models_as

TEXTS = [
    "the cat sat.",
    "the Cat",
    "a dog, a dog, a dog, a dog",
    "",
    "hello there",
    "one two three",
]
SAID = ["The cat sat.", "the cat sat", "a dog", None, "hello there", "one two four"]
OUTCOMES = ("rows_in", "transcribed", "failed", "failed_by_type", "filtered", "filtered_by")


class Speaker(NamingRecognizer):
    """Says a text by the level of its waveform; the models of other names say it in capitals."""

    def encode(self, waveforms, _prompt):
        return [TEXTS[round(float(waveform[10]) * 100) - 1] for waveform in waveforms]

    def decode(self, encoded):
        texts = encoded if self.name == "org/one" else map(str.upper, encoded)
        return [recognition(text) for text in texts]


def recognition(text: str) -> Recognition:
    words = text.split()
    starts = tuple(number * 0.05 for number in range(len(words)))
    ends = tuple(start + 0.04 for start in starts)
    return Recognition(text, tuple(f"▁{word}" for word in words), starts, ends)


@pytest.fixture(autouse=True, scope="module")
def speaker():
    with pytest.MonkeyPatch.context() as patch:
        load_models_as(Speaker, patch)
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict | str]:
    """Rows with all that a record may hold: own fields of the job's names, nulls, failures."""
    folder = tmp_path_factory.mktemp("clips")
    rows: list[dict | str] = []
    for number, said in enumerate(SAID):
        path = folder / f"{number}.wav"
        soundfile.write(path, np.full(RATE + 1600 * number, (number + 1) / 100, np.float32), RATE)
        rows.append({"audio_filepath": str(path), "lang": "en", "n": number, "text": said})
    rows[0] |= {"duration": 1.00, "wer": 7, "words": ["own"]}
    rows[1] = {"pred_text": None, **rows[1], "replaced": {"a": 1}}
    rows[2] |= {"pred_text": "own text", "lang": None, "exports": 1e5}
    rows[4] |= {"filtered": "own", "words": None, "no_speech": True}
    none = str(folder / "none.wav")
    rows += [{"audio_filepath": none, "error": "own", "text": "a"}, {"text": "no audio"}, "no JSON"]
    rows += [{"audio_filepath": none, "error": None, "z": 1}, rows[5]]
    return rows


@pytest.fixture(scope="module")
def manifest(rows, tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("plain") / "manifest.jsonl", rows)


@pytest.fixture(scope="module")
def plain(manifest) -> Path:
    """What a run without scores, conditions and formats has written."""
    out = manifest.parent / "out"
    command = ["transcribe", str(manifest), f"--output={out}", "--model_name=org/one", *WORDS]
    assert main.main(command) == 0
    return out


@pytest.fixture
def run(tmp_path):
    """Runs a command of beam-asr; returns the folder that it has written."""

    def command(*arguments: str, out: str, status: int = 0) -> Path:
        assert main.main([*arguments, f"--output={tmp_path / out}"]) == status
        return tmp_path / out

    return command


@pytest.fixture
def transcribe(run, manifest, tmp_path):
    def job(*flags: str, out: str, model: str = "org/one", listed: list | None = None) -> Path:
        read = write_manifest(tmp_path / f"{out}.jsonl", listed) if listed else manifest
        return run("transcribe", str(read), f"--model_name={model}", *flags, out=out)

    return job


WORDS = ("--timestamps=word",)


def lines(folder: Path, kind: str) -> list[str]:
    """The lines of the shards of a kind."""
    shards = folder.glob(f"{kind}-*")
    return sorted(line for shard in shards for line in shard.read_text().splitlines())


def summary_of(folder: Path) -> dict:
    assert (folder / "_SUCCESS").exists()
    assert not (folder / "_journal").exists()
    return json.loads((folder / "summary.json").read_text())


def assert_same(one: Path, other: Path) -> None:
    """Both folders hold the same records, index, scores and sums."""
    for kind in ("transcripts", "failures", "filtered"):
        assert lines(one, kind) == lines(other, kind)
    first, second = summary_of(one), summary_of(other)
    assert {name: first[name] for name in OUTCOMES} == {name: second[name] for name in OUTCOMES}
    assert first.get("scores") == second.get("scores")
    assert first["warnings"] == second["warnings"]
    for name in ("audio_hours", "models", "batches", "inputs", "further_channels"):
        assert first.get(name) == second.get(name), name


FLAGS = (
    "--reference_key=text",
    "--normalizer=basic",
    "--quality",
    "--metrics=punct_er,capitals_er,bleu,chrf",
)


def test_a_score_and_a_filter_afterwards_are_those_of_a_run_at_once(plain, transcribe, run):
    keep = "--keep=wer <= 0.4 and most_repeats < 3"
    at_once = transcribe(*FLAGS, keep, *WORDS, out="once")
    before = {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()}
    assert summary_of(at_once)["scores"]["before_keep"]["rows"] == 6
    assert len(lines(at_once, "filtered")) == 2

    assert_same(at_once, run("filter", str(plain), *FLAGS, keep, out="filtered"))
    scored = run("score", str(plain), *FLAGS, out="scored")
    assert_same(transcribe(*FLAGS, *WORDS, out="scored_once"), scored)
    # Another condition takes rows back that an earlier one has filtered out.
    again = run(
        "filter", str(run("filter", str(scored), "--keep=n == 1", out="one")), keep, out="2"
    )
    assert_same(at_once, again)
    # And another reference counts nothing of the earlier one.
    other = ("--reference_key=audio_filepath", "--normalizer=none")
    other_at_once = transcribe(*FLAGS, *other, keep, *WORDS, out="other_once")
    assert_same(other_at_once, run("score", str(again), *other, out="other"))
    assert {path: path.read_bytes() for path in plain.rglob("*") if path.is_file()} == before


def test_scores_are_printed_without_a_folder(plain, run, capsys):
    at_once = summary_of(run("score", str(plain), *FLAGS, out="scored"))["scores"]
    capsys.readouterr()
    assert main.main(["score", str(plain), *FLAGS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == at_once
    assert main.main(["score", str(plain), "--reference_key=text"]) == 0
    shown = capsys.readouterr().out
    assert "language en" in shown
    assert "1 rows without a reference" in shown
    assert main.main(["score", str(plain), "--reference_key=txt"]) == 0
    assert "reference in the field 'txt'" in capsys.readouterr().err
    assert not list(plain.parent.glob("*/_journal"))


@pytest.mark.parametrize("command", ["score", "filter", "export", "merge"])
def test_a_job_that_the_command_does_not_wait_for_is_no_error(plain, run, capsys, command):
    more = {
        "score": ["--reference_key=text"],
        "filter": ["--keep=n == 1"],
        "export": ["--formats=txt"],
        "merge": [str(plain)],
    }[command]
    out = run(command, str(plain), *more, "--no_wait_until_finish", out="new")
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Job started. {out} has a file _SUCCESS when it is complete."
    )
    assert (out / "_SUCCESS").exists()  # this runner has ended the job all the same


def test_formats_afterwards_are_to_the_byte_those_of_a_run_with_them(plain, transcribe, run):
    formats = "--formats=srt,vtt,ctm,stm,txt,textgrid,nemo,documents"
    at_once = transcribe(formats, *WORDS, out="once")
    exported = run("export", str(plain), f"{formats},parquet", out="exported")
    assert_same(at_once, run("export", str(plain), formats, out="same"))
    for format in formats.partition("=")[2].split(","):
        files = {path.name: path.read_bytes() for path in (at_once / format).iterdir()}
        assert files
        assert files == {path.name: path.read_bytes() for path in (exported / format).iterdir()}
    (table,) = (exported / "parquet").iterdir()
    assert pyarrow.parquet.read_table(table).num_rows == 7
    # Of records that name their files, these are written once more.
    assert_same(at_once, run("filter", str(at_once), "--keep=True", out="all"))


def test_the_new_folder_is_appended_to_and_resumed_as_the_old_one(
    transcribe, run, rows, manifest, capsys
):
    plain = transcribe(*FLAGS[:1], out="plain", listed=rows[:4])
    kept = run("filter", str(plain), "--keep=n != 2", out="kept")
    assert summary_of(kept)["filtered"] == 1
    grown = transcribe(*FLAGS[:1], "--keep=n != 2", "--append", out="kept")
    assert summary_of(grown)["rows_in"] == 11
    assert summary_of(grown)["rows_in_folder"] == 4
    # Of a folder that was appended to, all is read.
    assert_same(
        transcribe(*FLAGS, "--keep=n > 3", out="once"),
        run("filter", str(grown), *FLAGS, "--keep=n > 3", out="again"),
    )
    flags = [*FLAGS, "--keep=n > 3", "--model_name=org/one", "--resume"]
    capsys.readouterr()
    run("transcribe", str(manifest), *flags, out="again")
    assert "nothing to resume" in capsys.readouterr().out


def test_merged_folders_have_each_row_once_and_name_conflicts(
    transcribe, run, rows, manifest, capsys
):
    first = transcribe(out="first", listed=[*rows[:5], "no JSON", "no JSON"])
    second = transcribe(out="second", listed=[rows[3], *rows[5:]])
    merged = run("merge", str(first), str(second), "--reference_key=text", out="merged")
    at_once = transcribe("--reference_key=text", out="once", listed=[*rows, "no JSON"])
    assert sorted(read_records(merged, "transcripts"), key=str) == sorted(
        read_records(at_once, "transcripts"), key=str
    )
    assert summary_of(merged)["scores"] == summary_of(at_once)["scores"]
    assert summary_of(merged)["failed_by_type"] == summary_of(at_once)["failed_by_type"]
    assert (summary_of(merged)["rows_in"], summary_of(merged)["conflicts"]) == (12, 0)

    # A transcript is taken rather than a failure; of two transcripts, that of the last folder.
    other = transcribe(out="other", model="org/two", listed=[rows[0], rows[3], rows[4]])
    capsys.readouterr()
    both = run("merge", str(other), str(first), out="both")
    texts = {record["n"]: record["pred_text"] for record in read_records(both, "transcripts")}
    assert texts == dict(enumerate(TEXTS[:5]))
    summary = summary_of(both)
    assert (summary["rows_of_several_runs"], summary["conflicts"]) == (3, 2)
    (example,) = [each for each in summary["examples_conflicts"] if "HELLO" in each]
    assert "'HELLO THERE' of folder 1, 'hello there' of folder 2 (taken)" in example
    shown = capsys.readouterr()
    assert "the model name was 'org/two' and is 'org/one'" in shown.err
    assert "3 rows are in several folders, 2 with different texts" in shown.out
    assert "org/two" in "".join(summary["differing"])
    last = run("merge", str(first), str(other), out="last")
    texts = {record["n"]: record["pred_text"] for record in read_records(last, "transcripts")}
    assert texts[0] == TEXTS[0].upper()
    assert texts[1] == TEXTS[1]
    run("transcribe", str(manifest), "--append", "--model_name=org/two", out="last", status=2)
    assert "of several folders that were merged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["score"], "name the field of the reference text, as --reference_key=text"),
        (["score", "--reference_key=pred_text"], "reference_key and pred_text_key are both"),
        (["filter", "--keep=cer < 1", "--output=new"], "'cer', which no row would have"),
        (["filter", "--keep=n <", "--output=new"], "--keep"),
        (["filter", "--keep=n < 1"], "--output"),
        (["filter", "--keep=n < 1", "--normalizer=basic", "--output=new"], "needs --reference_key"),
        (["export", "--formats=parqet", "--output=new"], "'parqet' is none of"),
        (["export", "--formats=txt", "--output={out}/new"], "name a folder beside it"),
        (["export", "--formats=txt", "--output={out}"], "name a folder beside it"),
        (["filter", "--keep=n < 1", "--output=new", "--runer=x"], "--runner"),
        (["merge", "--output=new"], "name two or more folders"),
    ],
)
def test_what_cannot_be_made_of_the_records_is_refused(
    command, said, plain, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name, *flags = [part.replace("{out}", str(plain)) for part in command]
    assert main.main([name, str(plain), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_the_folder_lacks_is_said(transcribe, rows, capsys, tmp_path):
    out = transcribe(out="out", listed=rows[:3])
    srt = ["export", str(out), "--formats=srt", f"--output={tmp_path / 'new'}"]
    assert main.main(srt) == 2
    assert "transcribe again with --timestamps=word" in capsys.readouterr().err
    (shard,) = out.glob("transcripts-*")
    content = shard.read_bytes()
    for damaged in (content.replace(b"cat", b"dog"), content.splitlines(keepends=True)[0]):
        shard.write_bytes(damaged)
        assert main.main(["score", str(out), "--reference_key=text"]) != 0
        assert "not as its run has written it" in capsys.readouterr().err
    shard.unlink()
    assert main.main(["score", str(out), "--reference_key=text"]) == 2
    assert "no longer in" in capsys.readouterr().err
    (out / "_SUCCESS").unlink()
    assert main.main(["score", str(out), "--reference_key=text"]) == 2
    assert "no finished results" in capsys.readouterr().err
