"""The rows of an input, and the pieces in which it is read."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to

from beam_asr import ReadManifest
from beam_asr.inputs import readers
from beam_asr.inputs.readers import FileRange
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage


def test_a_manifest_gives_its_lines_and_a_clip_itself(input_folder):
    listed, clip = str(input_folder / "a.jsonl"), str(input_folder / "x.flac")
    assert list(readers.read_rows(Storage(), FileRange(listed), "path")) == [
        Row('{"audio_filepath": "x.flac"}', listed, 1)
    ]
    assert list(readers.read_rows(Storage(), FileRange(clip), "path")) == [Row.of({"path": clip})]


def test_a_long_manifest_is_read_in_pieces_with_the_numbers_of_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "RANGE_BYTES", 1000)
    listed = tmp_path / "m.jsonl"
    listed.write_text("".join(f'{{"audio_filepath": "{n}.wav"}}\n' for n in range(500)))
    pieces = readers.split_file(Storage(), str(listed))
    assert len(pieces) > 10
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | ReadManifest(str(listed)) | beam.Map(lambda row: tuple(row)[:3])
        expected = [(f'{{"audio_filepath": "{n}.wav"}}', str(listed), n + 1) for n in range(500)]
        assert_that(rows, equal_to(expected))


def test_what_cannot_be_split_is_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "RANGE_BYTES", 10)
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
