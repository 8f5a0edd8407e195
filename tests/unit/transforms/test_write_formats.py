"""The step that writes a file of each format for each record."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beam_asr.outputs.formats.base import FieldKeys
from beam_asr.outputs.formats.file_names import HASHED
from beam_asr.outputs.formats.registry import delete_stale, render
from beam_asr.storage.storage import Storage
from beam_asr.transforms import write_formats, write_manifest
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
            | beam.ParDo(WriteFormats(Storage(), lambda _: str(folder), formats, FieldKeys()))
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
            | beam.ParDo(WriteFormats(Storage(), lambda _: str(tmp_path), ("txt",), FieldKeys()))
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


def export(folder: Path, rows: list[dict], formats=("srt",), **settings) -> dict[str, str]:
    """Writes records as a job does; returns the text of each file, by its path."""
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = pipeline | beam.Create(rows) | WriteManifest(str(folder), formats=formats, **settings)
    for row in read_records(folder, "transcripts"):
        assert set(row["exports"]) == set(formats)
        assert all((folder / path).is_file() for path in row["exports"].values())
    return {
        f"{format}/{path.name}": path.read_text()
        for format in formats
        for path in (folder / format).iterdir()
    }


def test_captions_have_the_name_of_their_audio(tmp_path):
    names = [
        "podcast.mp3",
        "a/Mein Käse (2).wav",
        "gs://b/talk%201.flac",
        "it's [id].webm",
        "CON.wav",
    ]
    files = export(tmp_path / "out", [record_of("x", audio_filepath=name) for name in names])
    assert sorted(files) == [
        "srt/Mein Käse (2).srt", "srt/_CON.srt", "srt/it's [id].srt", "srt/podcast.srt",
        "srt/talk_201.srt",
    ]  # fmt: skip


def test_names_that_several_rows_would_have_get_a_hash_and_no_others(tmp_path):
    rows = [
        record_of("one", audio_filepath="a/x.wav"),
        record_of("two", audio_filepath="b/X.flac"),  # the same file on some systems
        record_of("part", audio_filepath="long.wav", offset=0.0),
        record_of("part", audio_filepath="long.wav", offset=1.0),
        record_of("alone", audio_filepath="y.wav"),
        record_of("twice", audio_filepath="z.wav"),
        record_of("twice", audio_filepath="z.wav"),
    ]
    files = export(tmp_path / "out", rows, ("txt",))
    hashed = {path for path in files if HASHED.fullmatch(Path(path).stem)}
    assert {Path(path).stem[:-17] for path in hashed} == {"x", "X", "long"}
    assert len(hashed) == 4
    assert {path: files[path] for path in files.keys() - hashed} == {
        "txt/y.txt": "alone\n", "txt/z.txt": "twice\n",
    }  # fmt: skip


def test_a_name_that_looks_like_one_with_a_hash_gets_another(tmp_path):
    name = "x-0123456789abcdef"
    (path,) = export(tmp_path / "out", [record_of("x", audio_filepath=f"{name}.wav")])
    assert HASHED.fullmatch(Path(path).stem)[1] == name


def test_a_file_of_somebody_else_stays_and_the_captions_get_a_hash(tmp_path):
    rows = [record_of("x", audio_filepath="x.wav")]
    (tmp_path / "out" / "srt").mkdir(parents=True)
    (tmp_path / "out" / "srt" / "x.srt").write_text("mine")
    for _ in range(2):
        files = export(tmp_path / "out", rows, overwrite=True)
        assert files.pop("srt/x.srt") == "mine"
        assert len(files) == 1


def test_a_rerun_deletes_files_with_plain_names_that_it_does_not_write(tmp_path):
    export(tmp_path / "out", [record_of("x", audio_filepath=f"{name}.wav") for name in "ab"])
    (tmp_path / "out" / "srt" / "mine.srt").write_text("mine")
    files = export(tmp_path / "out", [record_of("x", audio_filepath="b.wav")], overwrite=True)
    assert sorted(files) == ["srt/b.srt", "srt/mine.srt"]


def test_the_files_of_a_run_that_did_not_end_are_deleted(tmp_path, monkeypatch):
    out, rows = tmp_path / "out", [record_of("x", audio_filepath=f"{name}.wav") for name in "ab"]

    def fail(*_, **__):
        raise OSError("the job ends here")

    with monkeypatch.context() as patched:
        patched.setattr(write_manifest, "_write_shard", fail)
        with pytest.raises(Exception, match="the job ends here"):
            export(out, rows)
    assert sorted(path.name for path in (out / "srt").iterdir()) == ["a.srt", "b.srt"]
    assert sorted(export(out, rows[1:], overwrite=True)) == ["srt/b.srt"]
    assert [path.name for path in (out / "exports").iterdir()] == ["index-00000-of-00001.jsonl"]
