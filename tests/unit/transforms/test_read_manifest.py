"""Inputs that name a file more than once, read by a pipeline."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to

from beam_asr import ReadManifest
from beam_asr.records.statistics import total
from beam_asr.transforms.read_manifest import input_statistics
from tests.support.audio_files import wav_bytes


def test_a_file_that_two_patterns_match_is_read_once_and_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n{"n": 1}\n')  # equal rows stay two
    (tmp_path / "b.jsonl").write_text('{"n": 2}\n')
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls/c.wav").write_bytes(wav_bytes())

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | ReadManifest(
            [f"{tmp_path}/*.jsonl", "./a.jsonl", "calls", "calls/*.wav", f"file://{tmp_path}/calls"]
        )
        places = rows | beam.Map(lambda row: (row.manifest.rpartition("/")[2], row.line_number))
        assert_that(places, equal_to([("a.jsonl", 1), ("a.jsonl", 2), ("b.jsonl", 1), ("", 0)]))
        statistics = (
            input_statistics(rows)
            | beam.CombineGlobally(total)
            | beam.Map(lambda sums: (sums.input_files, sums.audio_files, sums.repeated_files))
        )
        assert_that(statistics, equal_to([(3, 1, 3)]), "Counts")
