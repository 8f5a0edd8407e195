"""A folder for each window of time."""

from __future__ import annotations

import json
from pathlib import Path

import apache_beam as beam
import pytest

from beam_asr import Transcribed, WriteManifest
from beam_asr.errors import SetupError
from beam_asr.outputs.folder import inputs_done
from beam_asr.records.statistics import Statistics
from beam_asr.storage.storage import Storage
from beam_asr.transforms import write_manifest
from tests.support.job_files import read_records
from tests.support.windows import at_times, summary_of, window_folders


def failed(number: int) -> dict:
    error = {"stage": "audio", "type": "EmptyAudioError", "message": "m", "attempts": 1}
    return {"n": number, "error": error}


def write(out: Path, transcripts, failures, statistics, **how) -> None:
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        Transcribed(
            at_times(pipeline, "Transcripts", transcripts),
            at_times(pipeline, "Failures", failures),
            at_times(pipeline, "Statistics", statistics),
            at_times(pipeline, "Filtered", []),
        ) | WriteManifest(str(out), **how)


def test_each_window_has_a_folder_with_its_own_records_summary_and_marker(tmp_path):
    write(
        tmp_path / "out",
        transcripts=[(1, {"n": 1}), (59, {"n": 2}), (60, {"n": 3}), (200, {"n": 4})],
        failures=[(2, failed(5)), (61, failed(6))],
        statistics=[
            (1, Statistics(rows_in=2, audio_seconds=7200, inputs=frozenset(["a"]))),
            (3, Statistics(rows_in=1, audio_seconds=3600, inputs=frozenset(["b", "a"]))),
            (61, Statistics(rows_in=2, inputs=frozenset(["c"]))),
            (201, Statistics(rows_in=1, inputs=frozenset(["d"]))),
        ],
        details={"options": {"x": 1}},
    )
    folders = window_folders(tmp_path / "out")
    assert list(folders) == [0.0, 60.0, 180.0]
    assert len({path.name.partition("-")[2] for path in folders.values()}) == 1, "all of one run"
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    for start, transcribed, failures, inputs, hours in (
        (0.0, {1, 2}, {5}, ["a", "b"], 3.0),
        (60.0, {3}, {6}, ["c"], 0.0),
        (180.0, {4}, set(), ["d"], 0.0),
    ):
        folder = folders[start]
        assert {each["n"] for each in read_records(folder, "transcripts")} == transcribed
        assert {each["n"] for each in read_records(folder, "failures")} == failures
        assert (folder / "_SUCCESS").exists()
        summary = summary_of(folder)
        assert summary["rows_in"] == len(transcribed) + len(failures)
        assert summary["transcribed"] == len(transcribed)
        assert summary["failed_by_type"] == ({"EmptyAudioError": len(failures)} if failures else {})
        assert summary["inputs"] == inputs
        assert summary["audio_hours"] == hours
        assert summary["rtfx_end_to_end"] is None, "a window has no wall time of its own"
        assert summary["options"] == {"x": 1}
    assert inputs_done(Storage(), str(tmp_path / "out")) == {"a", "b", "c", "d"}


def test_a_second_run_within_a_window_has_folders_of_its_own(tmp_path):
    for number in (1, 2):
        row = [(1, {"n": number})]
        write(tmp_path / "out", row, [], [(1, Statistics(rows_in=1))])
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2
    assert all((folder / "_SUCCESS").exists() for folder in folders)
    found_there = [each["n"] for folder in folders for each in read_records(folder, "transcripts")]
    assert sorted(found_there) == [1, 2]


def test_windows_shorter_than_a_second_lose_nothing(tmp_path):
    rows = [(time, {"time": time}) for time in (1.0, 1.25, 1.5, 2.0)]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        at_times(pipeline, "Rows", rows, 0.25) | WriteManifest(str(tmp_path / "out"))
    folders = [path for path in (tmp_path / "out").iterdir() if (path / "_SUCCESS").exists()]
    there = [each["time"] for folder in folders for each in read_records(folder, "transcripts")]
    assert sorted(there) == [1.0, 1.25, 1.5, 2.0]


def test_a_window_has_as_many_shards_as_were_requested_empty_ones_too(tmp_path):
    many = [(1, {"n": number}) for number in range(50)]
    write(
        tmp_path / "out",
        [*many, (61, {"n": 50})],
        [(121, failed(51))],
        [
            (1, Statistics(rows_in=50)),
            (61, Statistics(rows_in=1)),
            (121, Statistics(rows_in=1)),
        ],
        num_shards=3,
        compression="gzip",
    )
    for start, transcribed in ((0.0, 50), (60.0, 1), (120.0, 0)):
        folder = window_folders(tmp_path / "out")[start]
        shards = sorted(path.name for path in folder.glob("transcripts-*"))
        assert shards == [f"transcripts-{shard:05d}-of-00003.jsonl.gz" for shard in range(3)]
        assert len(read_records(folder, "transcripts")) == transcribed
        assert (folder / "_SUCCESS").exists()


def test_a_window_with_too_many_failures_is_left_without_its_marker_and_the_others_are_whole(
    tmp_path, caplog
):
    write(
        tmp_path / "out",
        transcripts=[(1, {"n": 1}), (130, {"n": 2})],
        failures=[
            *((61, failed(number)) for number in range(100)),
            *((131, failed(number)) for number in range(99)),  # fewer never are too many
        ],
        statistics=[
            (1, Statistics(rows_in=1, inputs=frozenset(["a"]))),
            (61, Statistics(rows_in=100, inputs=frozenset(["b"]))),
            (130, Statistics(rows_in=100, inputs=frozenset(["c"]))),
        ],
    )
    folders = window_folders(tmp_path / "out")
    whole = {start: (folder / "_SUCCESS").exists() for start, folder in folders.items()}
    assert whole == {0.0: True, 60.0: False, 120.0: True}
    assert summary_of(folders[60.0])["failed"] == 100
    assert len(read_records(folders[60.0], "failures")) == 100
    (said,) = [each.getMessage() for each in caplog.records if each.name.startswith("beam_asr")]
    assert str(folders[60.0]) in said
    assert "100 of 100 rows failed" in said
    assert inputs_done(Storage(), str(tmp_path / "out")) == {"a", "c"}


def test_a_window_that_lost_a_row_is_left_without_its_marker(tmp_path):
    with pytest.raises(Exception, match="2 rows went in, but 1 transcripts and 0 failures"):
        write(tmp_path / "out", [(61, {"n": 1})], [], [(61, Statistics(rows_in=2))])
    assert not list(tmp_path.glob("out/*/_SUCCESS"))


def test_any_records_in_windows_can_be_written(tmp_path):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        records = at_times(pipeline, "Records", [(1, {"n": 1}), (2, {"n": 2}), (62, {"n": 3})])
        records | WriteManifest(str(tmp_path / "out"))
    counts = {
        start: summary_of(folder)["rows_in"]
        for start, folder in window_folders(tmp_path / "out").items()
    }
    assert counts == {0.0: 2, 60.0: 1}


@pytest.mark.parametrize(
    ("flags", "said"),
    [((), "raise `audio_timeout`, `x`"), (("audio_timeout",), "raise --audio_timeout, `x`")],
)
def test_messages_name_settings_and_on_request_flags(tmp_path, flags, said):
    """In what the job says of failures alone: what a row has in its fields stays."""
    text = "raise `audio_timeout`, `x`"
    error = {"stage": "audio", "type": "AudioTimeoutError", "message": text, "attempts": 1}
    failed = {"id": 1, "note": text, "error": {**error, "replaced": {"message": text}}}
    filtered = {"id": 2, "note": text, "filtered": {"by": "audio", "message": text}}
    kept = {"id": 3, "error": {"message": text}, "segments_failed": [{"start": 0, "error": error}]}
    odd = {"id": 4, "segments_failed": ["of another program", {"message": 3}]}
    with beam.Pipeline() as pipeline:
        of = {
            name: pipeline | name >> beam.Create(records)
            for name, records in {
                "transcripts": [kept, odd], "failures": [failed],
                "statistics": [Statistics(rows_in=4)], "filtered": [filtered],
            }.items()
        }  # fmt: skip
        _ = Transcribed(**of) | WriteManifest(str(tmp_path / "out"), flags=flags)
    (failure,) = read_records(tmp_path / "out", "failures")
    assert failure == {**failed, "error": {**failed["error"], "message": said}}
    (left_out,) = read_records(tmp_path / "out", "filtered")
    assert left_out == {**filtered, "filtered": {"by": "audio", "message": said}}
    first, second = sorted(read_records(tmp_path / "out", "transcripts"), key=lambda row: row["id"])
    assert first == {**kept, "segments_failed": [{"start": 0, "error": {**error, "message": said}}]}
    assert second == odd


@pytest.mark.parametrize(
    "deleted", ["transcripts-00001-of-00003.jsonl", "parquet/*-00002-of-00003.parquet", "nemo/*"]
)
def test_a_file_that_is_deleted_before_the_end_leaves_no_marker(tmp_path, monkeypatch, deleted):
    delete_stale, out = write_manifest.delete_stale, tmp_path / "out"

    def deleting(*args):
        (path,) = out.glob(deleted)
        path.unlink()
        delete_stale(*args)

    monkeypatch.setattr(write_manifest, "delete_stale", deleting)
    rows = [{"audio_filepath": f"{n}.wav", "duration": 1.0, "pred_text": "x"} for n in range(30)]

    def run():
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            _ = (
                pipeline
                | beam.Create(rows)
                | WriteManifest(str(out), num_shards=3, formats=["parquet", "nemo"])
            )

    with pytest.raises(Exception, match="1 of 7 files that the job has written are no longer"):
        run()
    assert not (out / "_SUCCESS").exists()
    monkeypatch.undo()
    run_again = WriteManifest(str(out), overwrite=True, num_shards=3)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = pipeline | beam.Create(rows) | run_again
    assert (out / "_SUCCESS").exists()
    assert len(read_records(out, "transcripts")) == 30


def test_the_explorer_gets_one_file_with_the_same_fields_in_all_rows(tmp_path):
    row = {"audio_filepath": "/data/a.wav", "duration": 1.5, "pred_text": "one"}
    records = [{**row, "n": n, **({"text": "one two"} if n % 2 else {})} for n in range(10)]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | beam.Create(records)
        rows | WriteManifest(str(tmp_path / "out"), formats=["sde"], num_shards=3)
    (manifest,) = (tmp_path / "out/sde").iterdir()
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    place = {"audio_filepath": "/data/a.wav", "offset": 0.0, "duration": 1.5}
    assert lines == 5 * [{**place, "text": "one two", "pred_text": "one"}]
    assert len(list((tmp_path / "out").glob("transcripts-*"))) == 3
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    assert summary["sde"] == {"rows": 5, "left_out": {"no_reference": 5}}


@pytest.mark.parametrize("name", ["sde", "label_studio"])
def test_programs_that_open_audio_files_get_none_of_a_tarred_set(name):
    with pytest.raises(SetupError, match=f"{name}.*in the tars of `tarred_audio`: leave that"):
        WriteManifest("out", formats=[name], tarred=True)
