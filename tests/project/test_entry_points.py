"""Another package adds a reader, a format, an engine, a signal and a step on texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.job_files import REPOSITORY, SAMPLES, read_records

PACKAGE = '''
from beam_asr.models.engine import Engine
from beam_asr.outputs.formats.base import TranscriptFormat
from beam_asr.records.outcome import Recognition
from beam_asr.transcripts.post_processing import TextStep
from beam_asr.transcripts.quality import Signal


class FixedRecognizer:
    """Recognizes the same in every clip."""

    sample_rate = 16_000
    default_batch_seconds, batch_overhead_seconds = 40.0, 1.0
    max_clip_seconds = segment_seconds = 40.0
    weight_bytes, prompt_fields, has_timestamps = 0, frozenset(), False

    def __init__(self, name):
        self._name = name

    def check_prompt(self, prompt):
        pass

    def warm_up(self, batch_size):
        pass

    def encode(self, waveforms, prompt=None):
        return len(waveforms)

    def decode(self, encoded):
        return [Recognition(f"one two {self._name}")] * encoded

    def describe(self):
        return {"model": self._name, "class": "FixedRecognizer"}


ENGINE = Engine(
    load=lambda spec: FixedRecognizer(spec.model_name), is_file_name=lambda name: False
)
SHOUT = TextStep("shout", lambda text, record: f"{text.upper()} {record['said']}")
VOWELS = Signal(
    "vowels", "int64", "vowels", lambda text, seconds: sum(map(text.lower().count, "aeiou"))
)
LINES = TranscriptFormat(
    name="lines",
    extension="lines",
    needs_words=False,
    render=lambda transcript: "".join(f"{word}\\n" for word in transcript.text.split()),
)
'''
READER = """
from beam_asr.inputs.readers import Reader
from beam_asr.records.row import Row


def read(storage, piece, filepath_key):
    lines = storage.read(piece.file).decode().splitlines()
    for number, name in enumerate(lines, 1):
        yield Row.of({filepath_key: name, "said": f"line {number}"})


READER = Reader(suffixes=(".list",), read=read)
"""
POINTS = """
[beam_asr.engines]
fixed = made_up_package:ENGINE
[beam_asr.formats]
lines = made_up_package:LINES
[beam_asr.readers]
list = made_up_reader:READER
[beam_asr.signals]
vowels = made_up_package:VOWELS
[beam_asr.text_steps]
shout = made_up_package:SHOUT
"""
PIPELINE = """
    import sys
    import apache_beam as beam
    from beam_asr import ReadManifest, ScoreTranscripts, Transcribe, WriteManifest

    manifest, out = sys.argv[1:]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        (
            pipeline
            | ReadManifest(manifest)
            | Transcribe(model_name="three", engine="fixed")
            | ScoreTranscripts(quality=True, text_steps=["shout"])
            | WriteManifest(out, formats=["lines", "parquet"])
        )
    assert "nemo" not in sys.modules
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with the package and its metadata, as an installer leaves them."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "made_up_package.py").write_text(PACKAGE)
    (folder / "made_up_reader.py").write_text(READER)
    metadata = folder / "made_up_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up-package\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(POINTS)
    return folder


def python(package: Path, *args: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(package), str(REPOSITORY)])
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=package,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """The samples, each with a field that the step reads."""
    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    path = tmp_path_factory.mktemp("rows") / "manifest.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {**row, "audio_filepath": str(SAMPLES / row["audio_filepath"]), "said": f"{number}"}
            )
            + "\n"
            for number, row in enumerate(rows)
        )
    )
    return path


def check(out: Path, rows: int) -> None:
    """All that the package adds is in the output."""
    records = read_records(out, "transcripts")
    assert len(records) == rows
    for record in records:
        assert record["recognized_text"] == "one two three"
        assert record["pred_text"] == f"ONE TWO THREE {record['said']}"
        text = record["pred_text"].lower()
        assert record["vowels"] == sum(map(text.count, "aeiou"))
        assert record["longest_word"] == 5
        lines = (out / record["exports"]["lines"]).read_text()
        assert lines.split() == record["pred_text"].split()
    table = pq.read_table(next((out / "parquet").iterdir()))
    assert table.schema.field("vowels").type == "int64"
    assert set(table.column("vowels").to_pylist()) == {record["vowels"] for record in records}


def test_a_pipeline_uses_what_a_package_adds(package, manifest, tmp_path):
    ended = python(package, "-c", textwrap.dedent(PIPELINE), manifest, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    check(tmp_path / "out", rows=len(manifest.read_text().splitlines()))


def test_the_help_names_what_a_package_adds(package):
    shown = python(package, "-m", "beam_asr", "transcribe", "--help").stdout
    for added in ("{nemo,fixed}", "nemo, label_studio, sde, lines"):
        assert added in " ".join(shown.split())


def command(package: Path, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return python(
        package,
        *["-m", "beam_asr", "transcribe", f"--input={source}", f"--output={out}"],
        *["--model_name=three", "--engine=fixed", "--text_steps=shout", "--quality"],
        "--formats=lines,parquet",
    )


def test_the_command_uses_what_a_package_adds(package, manifest, tmp_path):
    ended = command(package, manifest, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    check(tmp_path / "out", rows=len(manifest.read_text().splitlines()))


def test_the_command_reads_files_by_a_reader_of_a_package(package, tmp_path):
    listed = tmp_path / "clips.list"
    listed.write_text("\n".join(str(path) for path in sorted(SAMPLES.glob("digits_*.flac"))))
    ended = command(package, listed, tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    check(tmp_path / "out", rows=3)


def test_what_no_package_adds_is_refused(tmp_path):
    flags = ["-m", "beam_asr", "transcribe", f"--input={SAMPLES / 'manifest.jsonl'}"]
    flags += [f"--output={tmp_path / 'out'}", "--model_name=three"]
    for flag, reason in (
        ("--engine=fixed", "invalid choice: 'fixed'"),
        ("--text_steps=shout", "text_steps has 'shout', which is not installed: none is"),
    ):
        ended = python(tmp_path, *flags, flag)
        assert ended.returncode in (1, 2)
        assert reason in ended.stderr
