"""An unfinished run is gone on with: what was done is not done again, the rest is, all is there."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import hypothesis
import numpy as np
import pytest
import soundfile
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from hypothesis import strategies as st

from beam_asr import Journal, Row, Transcribe, WriteManifest, process
from beam_asr.audio import clip_reader
from beam_asr.cli import main
from beam_asr.models.serving import batcher
from beam_asr.records import parsing, row_ids
from beam_asr.records.record import Transcript
from beam_asr.transforms import chunk_recognizer, recognize, transcribe
from tests.support.job_files import journaled, read_records, write_manifest
from tests.support.tiny_models import write_clips

RATE = 16_000
CLIPS = 24


class BreakdownError(RuntimeError):
    """Ends a run in the middle."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"), CLIPS)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Windows of four seconds, so that a small corpus has many."""
    monkeypatch.setattr(chunk_recognizer, "CHUNK_SECONDS", 4)
    monkeypatch.setattr(transcribe, "CHUNK_SECONDS", 4)
    monkeypatch.setattr(batcher, "FIRST_SECONDS", 3)
    monkeypatch.setattr(batcher, "MAX_SECONDS", 4)
    monkeypatch.setattr(clip_reader, "UNKNOWN_SECONDS", 2)


@pytest.fixture(scope="module")
def base(tiny_model) -> list[str]:
    return [f"--model_name={tiny_model('ctc_bpe')}", "--max_batch_seconds=4"]


@contextlib.contextmanager
def breaking(after: int | None, saved: bool = False) -> Iterator[list[str]]:
    """Has runs break down after some batches, and gives the audio of the clips that got through.

    Args:
        saved: whether a run gets to save what is not in its journal yet.
    """
    through: list[str] = []
    left = after
    with pytest.MonkeyPatch.context() as patch:
        take = batcher.Batcher._collect

        def counted(self, given):
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise BreakdownError
            batch = take(self, given)
            through.extend(result.clip.audio for result in batch.results)
            return batch

        patch.setattr(batcher.Batcher, "_collect", counted)
        if not saved:
            patch.setattr(process, "save_all", lambda: None)
        yield through


def run(*flags: object, expect: int = 0) -> None:
    assert main.main(["transcribe", *map(str, flags)]) == expect


def records(out: Path) -> Counter[str]:
    assert (out / "_SUCCESS").exists()
    assert not (out / "_journal").exists()
    found = read_records(out, "transcripts") + read_records(out, "failures")
    return Counter(json.dumps(record, sort_keys=True) for record in found)


def rows_of(clips: Path) -> list[dict]:
    return [{"audio_filepath": str(path), "n": path.stem} for path in sorted(clips.iterdir())]


def test_only_what_is_left_is_done(clips, base, tmp_path):
    listed = write_manifest(tmp_path / "m.jsonl", rows_of(clips))
    run(*base, f"--input={listed}", f"--output={tmp_path / 'whole'}")
    flags = [*base, f"--input={listed}", f"--output={tmp_path / 'out'}"]
    with breaking(after=6) as first:
        run(*flags, expect=1)
    kept = len(list((tmp_path / "out" / "_journal" / "windows").iterdir()))
    assert kept >= 2
    with breaking(after=None) as second:
        run(*flags, "--resume")
    assert set(first) | set(second) == {row["audio_filepath"] for row in rows_of(clips)}
    assert len(second) < CLIPS
    # Windows are of four seconds, of which a few were in flight.
    assert len(set(first) & set(second)) <= 12
    assert records(tmp_path / "out") == records(tmp_path / "whole")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["resumed"] == CLIPS - len(second)
    assert summary["audio_hours"] == pytest.approx(whole["audio_hours"], abs=2e-6)
    assert summary["rows_in"] == summary["transcribed"] == CLIPS


def test_a_finished_run_is_left_alone(clips, base, tmp_path, capsys):
    listed = write_manifest(tmp_path / "m.jsonl", rows_of(clips)[:3])
    flags = [*base, f"--input={listed}", f"--output={tmp_path / 'out'}"]
    run(*flags, "--resume")  # of nothing: it begins
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    run(*flags, "--resume")
    assert "finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_what_a_run_left_that_was_killed_at_its_very_end_goes(clips, base, tmp_path):
    listed = write_manifest(tmp_path / "m.jsonl", rows_of(clips)[:3])
    out = tmp_path / "out"
    run(*base, f"--input={listed}", f"--output={out}")
    before = sorted(path.name for path in out.iterdir())
    windows = out / "_journal" / "windows"
    windows.mkdir(parents=True)
    (windows / "0.jsonl").write_text("{}")
    run(*base, f"--input={listed}", f"--output={out}", "--resume")
    assert sorted(path.name for path in out.iterdir()) == before


def test_the_same_rows_in_other_order_files_and_notation_are_the_same_run(clips, base, tmp_path):
    rows = [*rows_of(clips), *rows_of(clips)[:4]]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    out = tmp_path / "out"
    with breaking(after=6):
        run(*base, f"--input={listed}", f"--output={out}", expect=1)
    listed.unlink()
    mixed = [json.dumps(dict(reversed(row.items())), indent=None) for row in reversed(rows)]
    write_manifest(tmp_path / "part1.jsonl", mixed[:10])
    with gzip.open(tmp_path / "part2.jsonl.gz", "wt") as file:
        file.write("\n".join(mixed[10:]))
    with breaking(after=None) as second:
        run(*base, f"--input={tmp_path}/part*", f"--output={out}", "--resume")
    assert len(second) < len(rows)
    found = [record["n"] for record in read_records(out, "transcripts")]
    assert sorted(found) == sorted(row["n"] for row in rows)


@pytest.mark.parametrize("changed", ["decoder", "model", "channel"])
def test_another_run_is_refused_with_what_differs(
    clips, base, tiny_model, tmp_path, capsys, changed
):
    rows = rows_of(clips)
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    out = tmp_path / "out"
    with breaking(after=6):
        run(*base, f"--input={listed}", f"--output={out}", expect=1)
    kept = sorted(out.rglob("*"))
    again = [*base, f"--input={listed}", f"--output={out}", "--resume"]
    said = f"the {changed} was None"
    if changed == "decoder":
        again.append("--decoder=ctc")
    elif changed == "channel":
        again.append("--channel=0")
    else:
        other = shutil.copy(tiny_model("ctc_char"), tmp_path / "other.nemo")
        again.append(f"--model_name={other}")
        said = "the model name was"
    run(*again, expect=2)
    assert said in capsys.readouterr().err
    assert sorted(out.rglob("*")) == kept


def test_rows_that_changed_are_done_and_those_that_are_gone_have_no_record(clips, base, tmp_path):
    rows = rows_of(clips)
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    out = tmp_path / "out"
    with breaking(after=6):
        run(*base, f"--input={listed}", f"--output={out}", expect=1)
    groups = {row_ids.group_of_id(row_id) for row_id in journaled(out)}
    done = [row for row in rows if row_ids.group_of(row, row["audio_filepath"]) in groups]
    # One that is done goes, one that is done changes, one is new.
    others = [row for row in rows if row != done[0]]
    corrected = [{**row, "n": "100"} if row == done[1] else row for row in others]
    write_manifest(listed, [*corrected, {**rows[0], "n": "101"}])
    with breaking(after=None) as second:
        run(*base, f"--input={listed}", f"--output={out}", "--resume")
    assert len(second) == len(corrected) + 1 - (len(done) - 2)
    found = [record["n"] for record in read_records(out, "transcripts")]
    assert sorted(found) == sorted([*(row["n"] for row in corrected), "101"])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rows_in"] == len(found)
    assert summary["resumed"] == len(done) - 2
    assert summary["resumed_not_in_input"] == 2


def test_a_model_that_changed_under_its_name_is_another(clips, tiny_model, tmp_path, capsys):
    listed = write_manifest(tmp_path / "m.jsonl", rows_of(clips))
    model = shutil.copy(tiny_model("ctc_bpe"), tmp_path / "m.nemo")
    flags = [f"--input={listed}", f"--output={tmp_path / 'out'}", f"--model_name={model}"]
    flags.append("--max_batch_seconds=4")
    with breaking(after=6):
        run(*flags, expect=1)
    shutil.copy(tiny_model("ctc_char"), model)
    run(*flags, "--resume", expect=2)
    assert "the model content was" in capsys.readouterr().err


@pytest.mark.parametrize("retry", [True, False])
def test_failures_are_tried_again_unless_they_are_to_stay(clips, base, tmp_path, retry):
    rows = [{"audio_filepath": str(tmp_path / f"late{index}.wav")} for index in range(6)]
    listed = write_manifest(tmp_path / "m.jsonl", [*rows, *rows_of(clips), "no row"])
    flags = [*base, f"--input={listed}", f"--output={tmp_path / 'out'}"]
    with breaking(after=6, saved=True):
        run(*flags, expect=1)
    for row in rows:
        shutil.copy(clips / "05.wav", row["audio_filepath"])
    run(*flags, "--resume", *([] if retry else ["--no_retry_failures"]))
    failed = read_records(tmp_path / "out", "failures")
    types = Counter(record["error"]["type"] for record in failed)
    assert types == {"NotJsonError": 1} | ({} if retry else {"AudioNotFoundError": 6})
    assert sum(records(tmp_path / "out").values()) == CLIPS + 7


def test_a_pipeline_of_ones_own_is_gone_on_with(clips, tiny_model, tmp_path):
    rows = rows_of(clips)
    model = str(tiny_model("ctc_bpe"))

    def go(resume: bool) -> None:
        journal = Journal(str(tmp_path / "out"), resume=resume)
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            (
                pipeline
                | beam.Create(rows)
                | Transcribe(model_name=model, max_batch_seconds=4, journal=journal)
                | WriteManifest(journal.output, journal=journal)
            )

    with breaking(after=6), pytest.raises(RuntimeError, match="BreakdownError"):
        go(resume=False)
    with breaking(after=None) as second:
        go(resume=True)
    assert len(second) < CLIPS
    assert sum(records(tmp_path / "out").values()) == CLIPS


def test_a_bundle_that_is_tried_again_uses_what_its_windows_left(clips, tiny_model, tmp_path):
    rows = [Row(json.dumps(row), id=f"{row['n']}.0") for row in rows_of(clips)]
    windows = [[parsing.parse(row) for row in rows[n : n + 4]] for n in range(0, CLIPS, 4)]
    journal = Journal(str(tmp_path / "out"))
    step = Transcribe(model_name=str(tiny_model("ctc_bpe")), max_batch_seconds=4, journal=journal)
    outputs = []
    for after in (4, None):
        bundle = recognize.RecognizeChunk(step._settings[0])
        bundle.setup()
        bundle.start_bundle()
        with breaking(after) as through:
            try:
                given = [
                    each
                    for window in windows
                    for each in bundle.process(window, GlobalWindow(), MIN_TIMESTAMP)
                ]
                given += [placed.value.value for placed in bundle.finish_bundle()]
            except BreakdownError:
                continue
        outputs = [each.value if hasattr(each, "tag") else each for each in given]
    assert 0 < len(through) < CLIPS
    found = [each.row.fields["n"] for each in outputs if isinstance(each, Transcript)]
    assert sorted(found) == sorted(row["n"] for row in rows_of(clips))


def test_overwriting_begins_again(clips, base, tmp_path):
    listed = write_manifest(tmp_path / "m.jsonl", rows_of(clips))
    flags = [*base, f"--input={listed}", f"--output={tmp_path / 'out'}"]
    with breaking(after=6):
        run(*flags, expect=1)
    (tmp_path / "out" / f"transcripts-00000-of-00001.jsonl.{'0' * 32}.part").write_text("half a")
    run(*flags, expect=2)
    with breaking(after=None) as through:
        run(*flags, "--overwrite")
    assert len(through) == CLIPS
    assert sum(records(tmp_path / "out").values()) == CLIPS
    assert not list((tmp_path / "out").glob("*.part"))


def test_a_web_dataset_and_tars_with_manifests_are_gone_on_with(clips, base, tmp_path):
    paths = sorted(clips.iterdir())
    with tarfile.open(tmp_path / "web.tar", "w") as tar:
        for path in [*paths, paths[3]]:
            tar.add(path, arcname=path.name)
    for number in (0, 1):
        with tarfile.open(tmp_path / f"audio_{number}.tar", "w") as tar:
            for path in paths[number::2]:
                tar.add(path, arcname=path.name)
        rows = [{"audio_filepath": path.name} for path in paths[number::2]]
        write_manifest(tmp_path / f"manifest_{number}.json", rows[:-1])
    for name, inputs in {
        "web": [f"--input={tmp_path}/web.tar"],
        "nemo": [f"--input={tmp_path}/manifest_*.json", f"--tarred_audio={tmp_path}/audio_*.tar"],
    }.items():
        run(*base, *inputs, f"--output={tmp_path / name / 'whole'}")
        flags = [*base, *inputs, f"--output={tmp_path / name / 'out'}"]
        with breaking(after=6) as first:
            run(*flags, expect=1)
        with breaking(after=None) as second:
            run(*flags, "--resume")
        assert 0 < len(second) < len(paths), name
        assert len(set(first) & set(second)) <= 12
        assert records(tmp_path / name / "out") == records(tmp_path / name / "whole")
        summaries = [
            json.loads((tmp_path / name / run_of / "summary.json").read_text())
            for run_of in ("whole", "out")
        ]
        for key in ("rows_in", "transcribed", "failed", "tars_without_rows"):
            assert summaries[0][key] == summaries[1][key], (name, key)


def test_a_systematic_fault_ends_the_job_while_it_runs(clips, base, tmp_path, capsys):
    rows: list[dict] = [{"audio_filepath": f"/nowhere/{index}.wav"} for index in range(150)]
    listed = write_manifest(tmp_path / "m.jsonl", [*rows, *rows_of(clips) * 10])
    flags = [*base, f"--input={listed}", f"--output={tmp_path / 'out'}"]
    with breaking(after=None) as through:
        run(*flags, expect=1)
    said = capsys.readouterr().err
    assert "100 of the first" in said
    assert "AudioNotFoundError" in said
    assert "/nowhere/" in said
    assert len(through) < 10 * CLIPS
    kept = tmp_path / "out" / "_journal" / "failures.jsonl"
    assert f"See {kept}." in said
    failures = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(failures) == 100
    assert {row["error"]["type"] for row in failures} == {"AudioNotFoundError"}
    # Fewer of them than the fraction of all, though all of the first ones, do not.
    run(*flags, "--resume", "--max_failure_fraction=0.5")
    assert sum(records(tmp_path / "out").values()) == 150 + 10 * CLIPS


def test_too_many_rows_that_are_not_right_end_the_job_before_audio_is_read(
    clips, base, tmp_path, capsys
):
    rows = [{"file": "a.wav"}] * 150
    listed = write_manifest(tmp_path / "m.jsonl", [*rows_of(clips), *rows])
    with breaking(after=None) as through:
        run(*base, f"--input={listed}", f"--output={tmp_path / 'out'}", expect=1)
    said = capsys.readouterr().err
    assert "150 of 174 rows are not right" in said
    assert "--filepath_key" in said
    assert not through


# What rows of a random corpus are, beside good clips by their numbers.
BAD = ["missing", "not json", "[]", "no audio", "truncated", "silent", "beyond", "noise"]


@pytest.fixture(scope="module")
def pool(clips, tmp_path_factory) -> dict[str, str]:
    """Lines of manifests: good and bad ones, by name."""
    folder = tmp_path_factory.mktemp("pool")
    whole = (clips / "09.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.wav").write_bytes(np.random.default_rng(0).bytes(999))
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    rows = {
        "missing": {"audio_filepath": "/nowhere.wav"},
        "no audio": {"audio": "a.wav"},
        "truncated": {"audio_filepath": str(folder / "truncated.wav")},
        "silent": {"audio_filepath": str(folder / "silent.wav")},
        "noise": {"audio_filepath": str(folder / "noise.wav")},
        "beyond": {"audio_filepath": str(clips / "03.wav"), "offset": 99},
        **{str(index): row for index, row in enumerate(rows_of(clips)[:10])},
    }
    lines = {name: json.dumps(row) for name, row in rows.items()}
    return {**lines, "not json": "{", "[]": "[]"}


@pytest.fixture(scope="module")
def alone(pool, base, tmp_path_factory) -> dict[str, str]:
    """The record of each line of the pool, from a job that nothing disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    listed = write_manifest(folder / "m.jsonl", list(pool.values()))
    run(*base, f"--input={listed}", f"--output={folder / 'out'}", "--max_failure_fraction=1")
    found = read_records(folder / "out", "transcripts") + read_records(folder / "out", "failures")
    return {name: content(record) for name, record in by_line(found, pool)}


def by_line(found: list[dict], pool: dict[str, str]) -> Iterator[tuple[str, dict]]:
    names = {line: name for name, line in pool.items()}
    for record in found:
        fields = {k: v for k, v in record.items() if k not in ("error", "pred_text")}
        line = record["line"] if "line" in record else json.dumps(fields)
        if line not in names:  # the job measured the duration of a row that has none
            del fields["duration"]
            line = json.dumps(fields)
        yield names[line], record


def content(record: dict) -> str:
    """A record but for where its manifest was."""
    kept = {k: v for k, v in record.items() if k not in ("manifest", "line_number")}
    if record.get("error", {}).get("stage") == "manifest":
        kept["error"] = {**record["error"], "message": ""}
    return json.dumps(kept, sort_keys=True)


@hypothesis.settings(
    max_examples=25,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    names=st.lists(st.sampled_from([*map(str, range(10)), *BAD]), min_size=1, max_size=40),
    files=st.integers(1, 3),
    shards=st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=4, max_size=4),
    breaks=st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=3),
    compression=st.sampled_from([None, "gzip", "zstd"]),
)
def test_whatever_the_rows_and_wherever_it_breaks_each_row_ends_once_and_as_it_would(
    pool, alone, base, tmp_path_factory, names, files, shards, breaks, compression
):
    folder = tmp_path_factory.mktemp("random")
    for index in range(files):
        write_manifest(folder / f"m{index}.jsonl", [pool[name] for name in names[index::files]])
    flags = [*base, f"--input={folder}/m*.jsonl", f"--output={folder / 'out'}", "--resume"]
    flags.append("--max_failure_fraction=1")  # all of a few rows may be bad ones
    for attempt, (after, saved) in enumerate([*breaks, (None, False)]):
        given = [f"--num_shards={shards[attempt]}"] if shards[attempt] else []
        given += [f"--compression={compression}"] if compression else []
        with breaking(after, saved):
            status = main.main(["transcribe", *flags, *given])
        assert status in (0, 1)
        if status == 0:
            break
        assert not (folder / "out" / "_SUCCESS").exists()
    assert status == 0
    assert (folder / "out" / "_SUCCESS").exists()
    found = read_records(folder / "out", "transcripts") + read_records(folder / "out", "failures")
    assert Counter(content(record) for _, record in by_line(found, pool)) == Counter(
        alone[name] for name in names
    )
    wanted = shards[attempt] or 1
    assert len(list((folder / "out").glob("transcripts-*"))) == wanted
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["rows_in"] == len(names) == summary["transcribed"] + summary["failed"]
