"""The rows of an input, and the pieces in which it is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from beam_asr import ReadManifest
from beam_asr.inputs import json_lines, readers
from beam_asr.inputs.readers import FileRange
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage
from tests.support.job_files import REPOSITORY


def test_a_manifest_gives_its_lines_and_a_clip_itself(input_folder):
    listed, clip = str(input_folder / "a.jsonl"), str(input_folder / "x.flac")
    assert list(readers.read_rows(Storage(), FileRange(listed), "path")) == [
        Row('{"audio_filepath": "x.flac"}', listed, 1)
    ]
    assert list(readers.read_rows(Storage(), FileRange(clip), "path")) == [Row.of({"path": clip})]


def test_a_long_manifest_is_read_in_pieces_with_the_numbers_of_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 1000)
    listed = tmp_path / "m.jsonl"
    listed.write_text("".join(f'{{"audio_filepath": "{n}.wav"}}\n' for n in range(500)))
    pieces = readers.split_file(Storage(), str(listed))
    assert len(pieces) > 10
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | ReadManifest(str(listed)) | beam.Map(lambda row: tuple(row)[:3])
        expected = [(f'{{"audio_filepath": "{n}.wav"}}', str(listed), n + 1) for n in range(500)]
        assert_that(rows, equal_to(expected))


def test_what_cannot_be_split_is_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 10)
    for name in ("m.jsonl.gz", "t.csv", "a.flac", "a.tar"):
        (tmp_path / name).write_bytes(bytes(100))
        file = str(tmp_path / name)
        assert readers.split_file(Storage(), file) == [FileRange(file)]


def test_the_rows_of_a_table_are_numbered_and_a_wrong_one_keeps_its_place(tmp_path):
    (tmp_path / "t.csv").write_text("audio_filepath,duration,who\na.wav,1.5,007\nb.wav,2\n")
    file = str(tmp_path / "t.csv")
    good, bad = readers.read_rows(Storage(), FileRange(file), "audio_filepath")
    assert good == Row('{"audio_filepath": "a.wav", "duration": 1.5, "who": "007"}', file, 2)
    assert (bad.manifest, bad.line_number) == (file, 3)
    assert "2 cells" in bad.problem


CASSETTES = """
import json

from beam_asr.inputs.readers import FileRange, Reader
from beam_asr.records.row import Row


def split(storage, file):
    return [FileRange(file, 0, 1), FileRange(file, 1, 2)]


def read(storage, piece, filepath_key):
    with storage.open(piece.file) as content:
        sides = content.read().decode().split()
    for side in sides[piece.start : piece.end]:
        yield Row(json.dumps({filepath_key: side}), piece.file, piece.start + 1)


READER = Reader(suffixes=(".cassette",), read=read, split=split)
SAME = Reader(suffixes=(".cassette",), read=read)
TAKEN = Reader(suffixes=(".csv",), read=read)
"""
READ_ALL = """
import json, sys

from beam_asr.inputs import discovery, readers
from beam_asr.storage.storage import Storage

for pattern in sys.argv[1:]:
    discovery.check(Storage(), pattern)
    for file in discovery.find_files(Storage(), pattern):
        for piece in readers.split_file(Storage(), file):
            for row in readers.read_rows(Storage(), piece, "path"):
                print(json.dumps(row[:3]))
"""


@pytest.fixture
def read_with_package(tmp_path, input_folder):
    """Reads inputs in a process that has a package with these entry points; its output."""

    def read(points: str, *patterns: str) -> subprocess.CompletedProcess[str]:
        metadata = tmp_path / "site" / "cassettes-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: cassettes\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[beam_asr.readers]\n{points}\n")
        (tmp_path / "site" / "cassettes.py").write_text(CASSETTES)
        (input_folder / "deep" / "old.cassette").write_text("a.wav b.wav")
        path = os.pathsep.join([str(tmp_path / "site"), str(REPOSITORY)])
        return subprocess.run(
            [sys.executable, "-c", READ_ALL, *patterns],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    return read


def test_the_reader_of_another_package_reads_its_files_wherever_they_are(
    read_with_package, tmp_path
):
    file = str(tmp_path / "deep" / "old.cassette")
    patterns = [str(tmp_path / "deep"), str(tmp_path / "**" / "*.cassette"), file]
    done = read_with_package("cassette = cassettes:READER", *patterns)
    assert done.returncode == 0, done.stderr
    audio = str(tmp_path / "deep" / "er" / "y.WAV")
    sides = [['{"path": "a.wav"}', file, 1], ['{"path": "b.wav"}', file, 2]]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [[json.dumps({"path": audio}), "", 0], *sides * 3]


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (
            "taken = cassettes:TAKEN",
            "the readers 'csv' and 'taken' of beam_asr.readers both take .csv files: uninstall",
        ),
        (
            "one = cassettes:READER\nsame = cassettes:SAME",
            "the readers 'one' and 'same' of beam_asr.readers both take .cassette files",
        ),
        (
            "gone = cassettes:GONE",
            "'gone' of beam_asr.readers is cassettes:GONE, which cannot be imported",
        ),
    ],
)
def test_a_reader_that_cannot_be_used_is_named(read_with_package, tmp_path, points, said):
    done = read_with_package(points, str(tmp_path / "a.jsonl"), str(tmp_path / "deep"))
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize("suffixes", [("csv",), (".CSV",), (".tar.gz",), ".csv"])
def test_suffixes_that_no_file_has_are_refused(suffixes):
    with pytest.raises(ValueError, match=r"give each as '.csv', in lower case"):
        readers.Reader(suffixes=suffixes, read=json_lines.read_rows)


def test_a_compressed_name_is_of_the_format_before_it(tmp_path):
    def reader_of(name: str) -> readers.Reader:
        return readers.find_reader(str(tmp_path / name))

    assert reader_of("t.CSV.gz") is readers.READERS["csv"]
    assert reader_of("a.tar.zst") is readers.READERS["webdataset"]
    assert reader_of("x.parquet.gz") is readers.READERS["parquet"]
    for name in ("x.wav.gz", "m.txt.gz", "m.gz", "m"):
        assert reader_of(name) is readers.READERS["json_lines"]
