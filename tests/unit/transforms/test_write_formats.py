"""The step that writes a file of each format for each record."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beam_asr.outputs.formats.registry import delete_stale, render
from beam_asr.storage.storage import Storage
from beam_asr.transforms import write_formats
from beam_asr.transforms.write_formats import WriteFormats
from beam_asr.transforms.write_manifest import WriteManifest
from tests.support.job_files import read_records
from tests.support.timed_records import (
    HOSTILE,
    TEXTS,
    record_of,
)

FORMATS = ("srt", "vtt", "ctm", "stm", "txt", "textgrid")


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run(records: list[dict], folder: Path, formats: tuple[str, ...] = FORMATS) -> list[dict]:
    """The records that come out, in the order of their files."""
    out = folder.parent / "records.jsonl"
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create(records)
            | beam.ParDo(
                WriteFormats(
                    Storage(), lambda _: str(folder), formats, "audio_filepath", "pred_text"
                )
            )
            | beam.combiners.ToList()
            | beam.Map(lambda found: out.write_text(json.dumps(found)) and None)
        )
    return sorted(json.loads(out.read_text()), key=lambda record: sorted(record["exports"].items()))


def test_each_record_is_a_file_of_each_format_and_comes_out_with_their_paths(tmp_path):
    records = [
        record_of(text, audio_filepath=f"/data/{name}.wav", n=n)
        for n, (name, text) in enumerate(TEXTS.items())
    ]
    before = copy.deepcopy(records)
    found = run(records, tmp_path / "out")
    assert records == before
    paths = [path for record in found for path in record["exports"].values()]
    assert len(paths) == len(TEXTS) * len(FORMATS)
    assert written(tmp_path / "out") == set(paths)
    for record in found:
        assert tuple(record["exports"]) == FORMATS
        for format, path in record["exports"].items():
            assert path.startswith(f"{format}/{Path(record['audio_filepath']).stem}-")
            content = (tmp_path / "out" / path).read_bytes().decode()
            assert content == render(format, records[record["n"]])
    assert {path.rpartition(".")[2] for path in paths} == {
        "srt", "vtt", "ctm", "stm", "txt", "TextGrid",
    }  # fmt: skip


def test_no_name_leaves_the_folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    out = tmp_path / "deep" / "er" / "out"
    climbing = [f"{'../' * n}escaped{n}.wav" for n in range(6)] + [f"{tmp_path}/absolute.wav"]
    found = run([record_of("x", audio_filepath=name) for name in [*HOSTILE, *climbing]], out)
    assert len({record["exports"]["srt"] for record in found}) == len(HOSTILE) + len(climbing)
    (tmp_path / "deep" / "er" / "records.jsonl").unlink()
    inside = {f"deep/er/out/{path}" for record in found for path in record["exports"].values()}
    assert written(tmp_path) == inside


def test_equal_rows_share_a_file_and_stay_two_records(tmp_path):
    found = run([record_of("same")] * 3, tmp_path / "out", ("txt",))
    assert len(found) == 3
    (path,) = {record["exports"]["txt"] for record in found}
    assert (tmp_path / "out" / path).read_text() == "same\n"
    assert written(tmp_path / "out") == {path}


def test_a_second_run_writes_the_same_files(tmp_path):
    records = [record_of("x", audio_filepath=f"/{number}.wav") for number in range(3)]
    runs = [run(records, tmp_path / "out", ("vtt",)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(written(tmp_path / "out")) == 3


def test_a_file_that_cannot_be_written_fails_the_pipeline(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "srt").write_text("where a folder should be")
    with pytest.raises(Exception, match="srt"):
        run([record_of("x")], tmp_path / "out", ("txt", "srt"))


def test_records_keep_their_windows_and_times(tmp_path):
    count = 3 * write_formats.MAX_PENDING
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        placed = (
            pipeline
            | beam.Create(range(count))
            | beam.Map(
                lambda n: TimestampedValue(record_of("x", audio_filepath=f"/{n}.wav", n=n), n)
            )
            | beam.WindowInto(FixedWindows(10))
            | beam.ParDo(
                WriteFormats(
                    Storage(), lambda _: str(tmp_path), ("txt",), "audio_filepath", "pred_text"
                )
            )
            | beam.Map(
                lambda record, window=beam.DoFn.WindowParam, time=beam.DoFn.TimestampParam: (
                    record["n"],
                    float(window.start),
                    float(time),
                )
            )
        )
        assert_that(placed, equal_to([(n, n // 10 * 10.0, float(n)) for n in range(count)]))
    assert len(list((tmp_path / "txt").iterdir())) == count


def test_the_files_of_an_earlier_run_go_and_nobody_elses(tmp_path):
    run([record_of("x")], tmp_path)
    (tmp_path / "txt" / "mine.txt").write_text("mine")
    delete_stale(Storage(), str(tmp_path))
    assert written(tmp_path) == {"txt/mine.txt"}
    assert not (tmp_path / "srt").exists()


def test_the_files_of_a_window_are_in_its_folder_and_its_records_name_them(tmp_path):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        (
            pipeline
            | beam.Create(range(4))
            | beam.Map(lambda n: TimestampedValue(record_of(f"x{n}", audio_filepath=f"/{n}"), n))
            | beam.WindowInto(FixedWindows(2))
            | WriteManifest(str(tmp_path / "out"), formats=["txt", "srt"])
        )
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2
    found = set()
    for folder in folders:
        assert (folder / "_SUCCESS").exists()
        for record in read_records(folder, "transcripts"):
            assert (folder / record["exports"]["txt"]).read_text() == f"{record['pred_text']}\n"
            assert (folder / record["exports"]["srt"]).exists()
            found.add(record["pred_text"])
    assert found == {"x0", "x1", "x2", "x3"}


def test_a_rerun_replaces_the_files_of_the_run_before(tmp_path):
    for text in ("before", "after"):
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            (
                pipeline
                | beam.Create([record_of(text, audio_filepath=f"{text}.wav")])
                | WriteManifest(str(tmp_path / "out"), overwrite=True, formats=["txt"])
            )
    (left,) = (tmp_path / "out" / "txt").iterdir()
    assert left.read_text() == "after\n"


def test_an_unknown_format_is_refused_when_the_graph_is_built(tmp_path):
    with pytest.raises(ValueError, match=r"formats has 'ass', which is none of srt"):
        WriteManifest(str(tmp_path), formats=["ass"])
