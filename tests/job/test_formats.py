"""Transcripts handed over by the command: as Parquet, as documents and as pseudo-labels."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from beam_asr.cli import main
from beam_asr.inputs.json_lines import read_lines
from beam_asr.outputs.formats import documents
from beam_asr.outputs.formats import table as tabular
from beam_asr.storage.storage import Storage
from tests.support.job_files import read_records, write_manifest
from tests.support.tiny_models import speechlike

RATE = 16_000
FORMATS = "--formats=parquet,documents,nemo"
KEEP = "--keep=n != 5"
QUIET = 35  # the number of a clip in which the model hears nothing
CLIPS = {number: 0.4 + number / 50 for number in (3, 5, 8, 13, 14, 23)} | {QUIET: 0.5}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Rows with relative paths, most without a duration; some fail, some are of no use to train."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "audio").mkdir()
    for number, seconds in CLIPS.items():
        path = folder / "audio" / f"{number:02d}.flac"
        soundfile.write(path, speechlike(seconds, seed=number), RATE)
    rows: list[dict | str] = [
        {"audio_filepath": f"audio/{number:02d}.flac", "n": number, "text": f"said {number}"}
        for number in CLIPS
    ]
    first = {"audio_filepath": "audio/23.flac"}
    rows += [
        {**first, "n": 100, "offset": 0.25},
        {**first, "n": 101, "offset": 0.1, "duration": 0.5},
        {**first, "n": 102, "_skipme": True},
        {"audio_filepath": "./audio/../audio/08.flac", "n": 103},
        *[{**first, "n": 104}] * 2,
        {"audio_filepath": "audio/missing.flac", "n": 105},
        "{no row",
    ]
    return write_manifest(folder / "m.jsonl", rows)


@pytest.fixture(scope="module")
def model(tiny_model) -> str:
    return f"--model_name={tiny_model('ctc_bpe')}"


def run(*flags: object, expect: int = 0) -> None:
    assert main.main(["transcribe", *map(str, flags)]) == expect


@pytest.fixture(scope="module")
def out(corpus, model, tmp_path_factory) -> Path:
    """What all formats make of the corpus, with captions besides."""
    out = tmp_path_factory.mktemp("run") / "out"
    run(f"--input={corpus}", f"--output={out}", model, FORMATS, "--formats=srt", KEEP)
    return out


@pytest.fixture(scope="module")
def whole(corpus, model, tmp_path_factory) -> Path:
    """What the formats make of the corpus, without captions."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(f"--input={corpus}", f"--output={out}", model, FORMATS, KEEP)
    return out


def list_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in read_lines(Storage(), str(path))]


def labels(out: Path) -> list[dict]:
    return [line for path in sorted((out / "nemo").iterdir()) for line in read(path)]


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def test_each_format_has_its_files(out):
    assert list_names(out / "parquet") == {"transcripts-00000-of-00001.parquet"}
    assert list_names(out / "documents") == {"documents-00000-of-00001.jsonl"}
    assert list_names(out / "nemo") == {"manifest-00000-of-00001.json"}


def test_parquet_and_documents_hold_the_transcripts(out):
    records = read_records(out, "transcripts")
    assert len(records) == 12
    (file,) = (out / "parquet").iterdir()
    assert pq.read_table(file).to_pylist() == [tabular.row_of(record) for record in records]
    (file,) = (out / "documents").iterdir()
    assert read(file) == [documents.to_document(record)._asdict() for record in records]
    assert "" in {record["pred_text"] for record in records}


def test_labels_are_of_files_that_are_there_and_as_long_as_these(out, corpus):
    records = {record["n"]: record for record in read_records(out, "transcripts")}
    found = labels(out)
    assert Counter(label["n"] for label in found) == Counter(
        [n for n in CLIPS if n not in (5, QUIET)] + [100, 101, 103, 104, 104]
    )
    for label in found:
        audio = Path(label["audio_filepath"])
        assert audio.is_absolute()
        length = soundfile.info(audio).duration
        expected = 0.5 if label["n"] == 101 else length - label["offset"]
        assert label["duration"] == pytest.approx(expected, abs=0.001)
        assert label["text"] == records[label["n"]]["pred_text"].strip() != ""
        assert label.get("reference") == records[label["n"]].get("text")
        made = {"exports", "words", "pred_text"}
        assert not made & label.keys()
    assert {Path(label["audio_filepath"]).parent for label in found} == {corpus.parent / "audio"}


def test_the_summary_counts_the_labels(out):
    made = summary(out)
    assert (made["failed"], made["filtered"]) == (2, 1)
    assert made["nemo"] == {"rows": 10, "left_out": {"no_text": 1, "skipped": 1}}
    assert made["nemo"]["rows"] == len(labels(out))
    assert sum(made["nemo"]["left_out"].values()) + made["nemo"]["rows"] == made["transcribed"]


def test_where_a_row_comes_from_is_in_no_file(out, corpus, model, tmp_path):
    for kind in ("transcripts", "failures", "filtered"):
        records = read_records(out, kind)
        assert records
        assert not any("\0manifest" in record for record in records)
    files = [path for path in out.rglob("*") if path.suffix in (".jsonl", ".json", ".parquet")]
    assert not any(b"u0000manifest" in path.read_bytes() for path in files)
    assert all(
        "u0000manifest" not in str(row) for row in pq.read_table(out / "parquet").to_pylist()
    )
    # Nor do the names of captions go by it, or by what other formats need.
    plain = tmp_path / "plain"
    run(f"--input={corpus}", f"--output={plain}", model, "--formats=srt", KEEP)
    assert list_names(out / "srt") == list_names(plain / "srt")


def test_as_many_files_as_shards_of_transcripts_be_they_empty(model, corpus, tmp_path):
    row = {"audio_filepath": str(corpus.parent / "audio/03.flac")}
    manifest = write_manifest(tmp_path / "one.jsonl", [row])
    out = tmp_path / "out"
    run(f"--input={manifest}", f"--output={out}", model, FORMATS, "--num_shards=3")
    numbers = [f"{number:05d}-of-00003" for number in range(3)]
    assert list_names(out / "parquet") == {f"transcripts-{each}.parquet" for each in numbers}
    assert list_names(out / "documents") == {f"documents-{each}.jsonl" for each in numbers}
    rows = {path.name: pq.read_table(path).num_rows for path in (out / "parquet").iterdir()}
    assert sorted(rows.values()) == [0, 0, 1]
    for each in numbers:
        written = len(read(out / f"transcripts-{each}.jsonl"))
        assert rows[f"transcripts-{each}.parquet"] == written
        assert len(read(out / f"documents/documents-{each}.jsonl")) == written
    assert pq.read_table(out / "parquet").schema.equals(tabular.parquet_schema())


def test_without_a_transcript_the_files_are_empty(model, tmp_path):
    manifest = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "missing.flac"}])
    out = tmp_path / "out"
    allowed = "--max_failure_fraction=1"
    run(f"--input={manifest}", f"--output={out}", model, FORMATS, allowed)
    assert pq.read_table(out / "parquet/transcripts-00000-of-00001.parquet").num_rows == 0
    assert (out / "documents/documents-00000-of-00001.jsonl").read_bytes() == b""
    assert (out / "nemo/manifest-00000-of-00001.json").read_bytes() == b""
    assert summary(out)["nemo"] == {"rows": 0, "left_out": {}}


def test_overwriting_leaves_nothing_of_an_earlier_run(corpus, model, tmp_path):
    out = tmp_path / "out"
    flags = [f"--input={corpus}", f"--output={out}", model]
    run(*flags, FORMATS, "--num_shards=3")
    (out / "parquet" / "notes.txt").write_text("mine")
    run(*flags, "--formats=parquet,nemo", "--num_shards=2", "--overwrite")
    assert list_names(out / "parquet") == {
        "notes.txt",
        "transcripts-00000-of-00002.parquet",
        "transcripts-00001-of-00002.parquet",
    }
    assert not list(out.glob("documents/*"))
    assert list_names(out / "nemo") == {"manifest-00000-of-00001.json"}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compression_is_of_the_transcripts_alone(whole, corpus, model, tmp_path, compression):
    other = tmp_path / "out"
    flags = [f"--input={corpus}", f"--output={other}", model, FORMATS, KEEP]
    run(*flags, f"--compression={compression}")
    ending = {"gzip": "gz", "zstd": "zst"}[compression]
    assert (other / f"transcripts-00000-of-00001.jsonl.{ending}").exists()
    for format in ("documents", "nemo"):
        (path,) = (other / format).iterdir()
        assert path.read_bytes()[:1] == b"{"
    assert content(other) == content(whole)


def content(out: Path) -> list[Counter[str]]:
    """What is in each format, whatever the order and the shards."""
    texts = [row for path in (out / "documents").iterdir() for row in read(path)]
    table = pq.read_table(out / "parquet").to_pylist()
    return [
        Counter(json.dumps(row, sort_keys=True) for row in rows)
        for rows in (table, texts, labels(out))
    ]


def test_a_run_that_broke_while_it_wrote_is_gone_on_with(
    whole, corpus, model, tmp_path, monkeypatch
):
    flags = [f"--input={corpus}", model, FORMATS, KEEP]
    out = tmp_path / "out"
    written = []

    def breaks(*arguments):
        written.append(arguments)
        if len(written) == 2:
            raise RuntimeError("no space left")
        return parquet(*arguments)

    parquet = tabular.parquet
    with monkeypatch.context() as patched:
        patched.setattr(tabular, "parquet", breaks)
        run(*flags, f"--output={out}", "--num_shards=3", expect=1)
    assert not (out / "_SUCCESS").exists()
    assert len(list_names(out / "parquet")) == 1
    run(*flags, f"--output={out}", "--num_shards=2", "--resume")
    assert summary(out)["resumed"] == summary(out)["transcribed"] + summary(out)["filtered"]
    assert list_names(out / "parquet") == {f"transcripts-0000{n}-of-00002.parquet" for n in (0, 1)}
    assert content(out) == content(whole)
    assert summary(out)["nemo"] == summary(whole)["nemo"]


def test_each_tar_of_a_set_has_a_manifest_with_a_line_for_each_row(corpus, model, tmp_path):
    clips = sorted((corpus.parent / "audio").iterdir())
    by_tar = {0: clips[:3], 1: clips[3:], 2: clips[:1]}
    for number, members in by_tar.items():
        with tarfile.open(tmp_path / f"audio_{number}.tar", "w") as tar:
            for path in members:
                tar.add(path, path.name)
        rows: list[dict | str] = [
            {"audio_filepath": path.name, "n": int(path.stem)} for path in members
        ]
        if number == 1:
            rows += [{"audio_filepath": "missing.flac", "n": 99}, "{no row"]
        write_manifest(tmp_path / f"manifest_{number}.json", rows if number < 2 else [])
    out = tmp_path / "out"
    run(
        f"--input={tmp_path}/manifest__OP_0..2_CL_.json",
        f"--tarred_audio={tmp_path}/audio__OP_0..2_CL_.tar",
        f"--output={out}",
        model,
        FORMATS,
        KEEP,
    )
    assert list_names(out / "nemo") == {f"manifest_{number}.json" for number in range(3)}
    lines = {number: read(out / f"nemo/manifest_{number}.json") for number in range(3)}
    names = {
        number: Counter(line["audio_filepath"] for line in lines[number]) for number in range(3)
    }
    assert names == {
        0: Counter(path.name for path in clips[:3]),
        1: Counter([*(path.name for path in clips[3:]), "missing.flac"]),
        2: Counter(),
    }
    both = [*lines[0], *lines[1]]
    skipped = {line["audio_filepath"] for line in both if line.get("_skipme")}
    assert skipped == {"05.flac", "35.flac", "missing.flac"}
    for number in (0, 1):
        assert {line["shard_id"] for line in lines[number]} == {number}
    for line in both:
        assert "u0000manifest" not in line
        assert line.get("_skipme") or line["duration"] == pytest.approx(CLIPS[line["n"]])
    nemo = summary(out)["nemo"]
    assert nemo["rows"] == len(both) - len(skipped)
    # One line is of no file, and so in no manifest.
    assert nemo["left_out"] == {"no_file": 1, "no_text": 3}
    assert sum(nemo["left_out"].values()) + nemo["rows"] == summary(out)["rows_in"]
