"""The whole job, as a user runs it, on real clips and real models."""

from __future__ import annotations

import json
import re
import shutil
import struct
from datetime import date

import apache_beam as beam
import jiwer
import numpy as np
import pytest
import soundfile
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from beam_asr import ReadManifest, Transcribe, Transcribed, WriteManifest
from beam_asr.audio import reading
from beam_asr.audio.reading import AudioRequest
from beam_asr.models import engine
from beam_asr.models.serving import host as model_host
from beam_asr.models.serving import pool as model_pool
from beam_asr.records.statistics import Statistics
from tests.support.job_files import SAMPLE_MODEL, SAMPLES, read_records, write_manifest
from tests.support.tiny_models import speechlike

RATE = 16_000
SAMPLES_README = (SAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of twenty clips of 0.3 to 4 s."""
    folder = tmp_path_factory.mktemp("clips")
    for index in range(20):
        samples = speechlike(0.3 + 0.19 * index, seed=index)
        soundfile.write(folder / f"{index:02d}.flac", samples, RATE)
    return folder


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("ctc_bpe")


def test_every_prompt_is_transcribed_and_each_broken_input_fails_with_its_own_reason(
    prompts, transcribe, tmp_path
):
    def broken(name: str, content: bytes) -> dict:
        (tmp_path / name).write_bytes(content)
        return {"audio_filepath": name}

    whole = tmp_path / "whole.wav"
    soundfile.write(whole, speechlike(2.0), RATE, subtype="PCM_16")
    flac = bytearray((prompts / "conf-now-unmuted.flac").read_bytes())
    flac[len(flac) // 2 :] = np.random.default_rng(0).bytes(len(flac) - len(flac) // 2)
    empty_wav = whole.read_bytes()[:40] + struct.pack("<I", 0)
    empty_wav = empty_wav[:4] + struct.pack("<I", 36) + empty_wav[8:]
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE, np.int16), RATE)
    bad = {
        "NotJsonError": '{"audio_filepath": "a.wav"',
        "NotAnObjectError": '["a.wav"]',
        "MissingAudioError": {"audio": "a.wav"},
        "BadFieldError": {"audio_filepath": "whole.wav", "offset": "3"},
        "AudioNotFoundError": {"audio_filepath": "nowhere.wav"},
        "EmptyAudioError": broken("empty.wav", b""),
        "NotAudioError": broken("noise.wav", np.random.default_rng(1).bytes(5000)),
        "WrongExtensionError": broken("picture.wav", b"\x89PNG\r\n\x1a\n" + bytes(500)),
        "TruncatedAudioError": broken("cut.wav", whole.read_bytes()[:20_000]),
        "CorruptAudioError": broken("spoilt.flac", bytes(flac)),
        "ZeroLengthAudioError": broken("nothing.wav", empty_wav),
        "SilentAudioError": {"audio_filepath": "silent.wav"},
    }
    assert len(bad) == 12
    spoilt = write_manifest(tmp_path / "broken.jsonl", list(bad.values()))

    status, printed, _ = transcribe(
        f"--input={prompts / 'all.jsonl'}",
        f"--input={spoilt}",
        f"--output={tmp_path / 'out'}",
        f"--model_name={SAMPLE_MODEL}",
    )

    assert status == 0
    assert "580 rows: 568 transcribed, 12 failed" in printed
    assert str(tmp_path / "out" / "failures-") in printed
    failures = read_records(tmp_path / "out", "failures")
    assert sorted(failure["error"]["type"] for failure in failures) == sorted(bad)
    for failure in failures:
        assert failure["error"]["attempts"] == 1
        sent = bad[failure["error"]["type"]]
        if failure["error"]["stage"] == "manifest":
            assert failure["error"]["message"].startswith(f"{spoilt}:")
        if isinstance(sent, dict):
            assert {key: failure[key] for key in sent} == sent
            assert failure["error"]["stage"] in ("manifest", "audio")
        else:
            assert failure["line"] == sent
            assert failure["manifest"] == str(spoilt)
            assert spoilt.read_text().splitlines()[failure["line_number"] - 1] == sent

    transcripts = read_records(tmp_path / "out", "transcripts")
    rows = [json.loads(line) for line in (prompts / "all.jsonl").read_text().splitlines()]
    made = ("pred_text", "no_speech")
    without = [{k: v for k, v in record.items() if k not in made} for record in transcripts]

    def by_name(row):
        return row["audio_filepath"]

    assert sorted(without, key=by_name) == sorted(rows, key=by_name)
    silent = {by_name(record) for record in transcripts if "no_speech" in record}
    assert silent == {f"silence_{seconds}.flac" for seconds in range(1, 11)}
    by_file = {record["audio_filepath"]: record["pred_text"] for record in transcripts}
    assert by_file["silence_10.flac"] == ""

    # What samples/README.md says of the model is what the job just measured.
    held_out = [json.loads(line) for line in (prompts / "held_out.jsonl").read_text().splitlines()]
    rate = jiwer.wer(
        [row["text"] for row in held_out], [by_file[row["audio_filepath"]] for row in held_out]
    )
    english = SAMPLES_README.partition("\n## Spanish")[0]
    (stated,) = re.findall(r"all 72 held-out prompts \| \d+ \| ([\d.]+) %", english)
    assert 100 * rate == pytest.approx(float(stated), abs=0.5)

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rows_in"] == 580 == summary["transcribed"] + summary["failed"]
    assert summary["failed_by_type"] == dict.fromkeys(sorted(bad), 1)
    assert summary["audio_hours"] == pytest.approx(25.5 / 60, rel=0.01)
    assert summary["models"][0]["device"] == "cpu"
    assert (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_job_of_which_every_row_fails_fails_and_says_why(model, transcribe, tmp_path, rows):
    manifest = write_manifest(
        tmp_path / "m.jsonl", [{"audio_filepath": f"gone_{number}.wav"} for number in range(rows)]
    )
    out = tmp_path / "out"
    args = [f"--input={manifest}", f"--output={out}", f"--model_name={model}"]
    status, _, said = transcribe(*args)
    assert status == 1
    assert f"{rows} x AudioNotFoundError, as: " in said
    assert "gone_0.wav" in said
    assert "Traceback" not in said
    assert len(read_records(out, "failures")) == rows
    assert not (out / "_SUCCESS").exists()

    status, printed, _ = transcribe(*args, "--overwrite", "--max_failure_fraction=1")
    assert status == 0
    assert f"{rows} x AudioNotFoundError, as: " in printed
    assert f"{rows} rows: 0 transcribed, {rows} failed" in printed
    assert (out / "_SUCCESS").exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_a_launch_that_fails_before_any_row_leaves_the_folder_as_it_was(
    clips, transcribe, tmp_path, was_there
):
    out, broken = tmp_path / "out", tmp_path / "broken.nemo"
    broken.write_bytes(b"no model")
    if was_there:
        out.mkdir()
    status, _, said = transcribe(
        f"--input={clips}", f"--output={out}", f"--model_name={broken}", "--batch_size=4"
    )
    assert status == 1
    assert "broken.nemo" in said
    assert "--resume" not in said
    assert out.exists() == was_there
    assert not was_there or list(out.iterdir()) == []


def test_rows_keep_their_values_types_and_order_of_keys(clips, model, transcribe, tmp_path):
    row = {
        "zzz": [1, {"b": 2, "a": None}],
        "audio_filepath": str(clips / "03.flac"),
        "text": "Žluťoučký kůň 日本語 \u2028",
        "duration": 0.87,
        "number": 1e-7,
        "large": 12345678901234567890,
        "flag": True,
        "": "empty key",
    }
    listed = write_manifest(tmp_path / "m.jsonl", [row])
    out = tmp_path / "out"
    status, _, _ = transcribe(
        f"--input={listed}", f"--output={out}", f"--model_name={model}", "--pred_text_key=said"
    )
    assert status == 0
    (line,) = (out / "transcripts-00000-of-00001.jsonl").read_text().split("\n")[:-1]
    record = json.loads(line)
    assert list(record) == [*row, "said"]
    assert {key: record[key] for key in row} == row
    assert "Žluťoučký kůň 日本語" in line


def test_equal_rows_stay_two_and_blank_lines_are_none(clips, model, transcribe, tmp_path):
    row = {"audio_filepath": str(clips / "05.flac")}
    listed = write_manifest(tmp_path / "m.jsonl", [row, "", row, "   ", row])
    out = tmp_path / "out"
    assert transcribe(f"--input={listed}", f"--output={out}", f"--model_name={model}")[0] == 0
    records = read_records(out, "transcripts")
    assert len(records) == 3
    assert len({record["pred_text"] for record in records}) == 1


def test_offset_and_duration_choose_what_is_recognized(clips, model, transcribe, tmp_path):
    samples, _ = soundfile.read(clips / "19.flac", dtype="float32")
    part = samples[int(0.5 * RATE) : int(2.25 * RATE)]
    soundfile.write(tmp_path / "part.flac", part, RATE)
    rows = [
        {"audio_filepath": str(clips / "19.flac"), "offset": 0.5, "duration": 1.75},
        {"audio_filepath": "part.flac"},
        {"audio_filepath": str(clips / "19.flac")},
    ]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    out = tmp_path / "out"
    assert transcribe(f"--input={listed}", f"--output={out}", f"--model_name={model}")[0] == 0
    said = {
        (record["audio_filepath"], record.get("offset")): record["pred_text"]
        for record in read_records(out, "transcripts")
    }
    whole, ranged = str(clips / "19.flac"), said[(str(clips / "19.flac"), 0.5)]
    assert ranged == said[("part.flac", None)] != said[(whole, None)]


def test_a_chosen_channel_is_recognized_alone(clips, model, transcribe, tmp_path):
    left, right = (soundfile.read(clips / f"{n}.flac", frames=RATE)[0] for n in ("10", "15"))
    soundfile.write(tmp_path / "left.wav", left, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "both.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    listed = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "both.wav"}])
    alone = write_manifest(tmp_path / "alone.jsonl", [{"audio_filepath": "left.wav"}])
    said = {}
    for name, flags in {
        "left of both": [f"--input={listed}", "--channel=0"],
        "right of both": [f"--input={listed}", "--channel=1"],
        "left alone": [f"--input={alone}"],
    }.items():
        out = tmp_path / name
        assert transcribe(*flags, f"--output={out}", f"--model_name={model}")[0] == 0
        said[name] = read_records(out, "transcripts")[0]["pred_text"]
    assert said["left of both"] == said["left alone"] != said["right of both"]


@pytest.mark.parametrize("pattern", ["{folder}", "{folder}/**/*.flac", "{folder}/sub/2?.flac"])
def test_audio_files_in_place_of_a_manifest(clips, model, transcribe, tmp_path, pattern):
    folder = tmp_path / "bucket"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(clips / "02.flac", folder / "1.flac")
    shutil.copy(clips / "04.flac", folder / "sub" / "2x.flac")
    (folder / "notes.txt").write_text("no audio")
    out = tmp_path / "out"
    flags = [f"--input={pattern.format(folder=folder)}", "--filepath_key=path"]
    assert transcribe(*flags, f"--output={out}", f"--model_name={model}")[0] == 0
    expected = ["2x.flac"] if "2?" in pattern else ["1.flac", "2x.flac"]
    records = read_records(out, "transcripts")
    assert sorted(record["path"].rpartition("/")[2] for record in records) == expected
    assert read_records(out, "failures") == []


def test_one_model_a_process_however_many_threads(clips, model, tmp_path):
    # A file of its own, which no other test has had loaded.
    own = shutil.copy(model, tmp_path / "own.nemo")
    rows = [{"audio_filepath": str(path)} for path in sorted(clips.iterdir())]
    threads = PipelineOptions(direct_running_mode="multi_threading", direct_num_workers=4)
    pipeline = beam.Pipeline(runner="FnApiRunner", options=threads)
    (
        pipeline
        | beam.Create(rows)
        | Transcribe(model_name=str(own))
        | WriteManifest(str(tmp_path / "out"))
    )
    result = pipeline.run()
    result.wait_until_finish()
    counted = result.metrics().query(MetricsFilter().with_name("model_loads"))["counters"]
    assert sum(counter.committed for counter in counted) == 1
    batches = result.metrics().query(MetricsFilter().with_name("batch_msec"))["distributions"]
    assert sum(each.committed.count for each in batches) >= 2, "one thread alone had work"
    assert len(read_records(tmp_path / "out", "transcripts")) == 20


def test_one_thread_drives_the_model(model, monkeypatch):
    import threading
    from concurrent.futures import ThreadPoolExecutor

    host = model_pool.host(engine.ModelSpec(str(model), "cpu"))
    assert host is model_pool.host(engine.ModelSpec(str(model), "cpu"))
    drivers = []
    forward = type(host._model).encode

    def noted(self, *batch):
        drivers.append(threading.get_ident())
        return forward(self, *batch)

    monkeypatch.setattr(type(host._model), "encode", noted)
    with ThreadPoolExecutor(4) as pool:
        submitted = pool.map(host.submit, [[speechlike(0.5)]] * 8)
        assert len({each.result().results[0].text for each in submitted}) == 1
    assert len(drivers) == 8
    assert len(set(drivers)) == 1


def test_the_model_is_warmed_up_for_the_batches_that_it_will_get(clips, model, monkeypatch):
    requested = []
    monkeypatch.setattr(model_host.ModelHost, "warm_up", lambda _, size: requested.append(size))
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = [{"audio_filepath": str(path)} for path in sorted(clips.iterdir())]
        _ = pipeline | beam.Create(rows) | Transcribe(model_name=str(model), batch_size=7)
    assert set(requested) == {7}


def test_a_clip_that_breaks_the_model_costs_no_other(clips, model, monkeypatch, tmp_path):
    host = model_pool.host(engine.ModelSpec(str(model), "auto"))
    forward = type(host._model).encode
    poison = len(soundfile.read(clips / "07.flac")[0])

    def breaks(self, waveforms, *prompt):
        if any(len(waveform) == poison for waveform in waveforms):
            raise RuntimeError("poison")
        return forward(self, waveforms, *prompt)

    monkeypatch.setattr(type(host._model), "encode", breaks)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = [{"audio_filepath": str(path)} for path in sorted(clips.iterdir())]
        transcribed = pipeline | beam.Create(rows) | Transcribe(model_name=str(model))
        transcribed | WriteManifest(str(tmp_path / "out"))
    (failure,) = read_records(tmp_path / "out", "failures")
    assert failure["audio_filepath"].endswith("07.flac")
    assert failure["error"]["stage"] == "model"
    assert failure["error"]["message"] == "poison"
    assert failure["error"]["attempts"] > 1
    assert len(read_records(tmp_path / "out", "transcripts")) == 19


def test_a_model_that_cannot_be_loaded_fails_the_job_and_no_row(clips, transcribe, tmp_path):
    (tmp_path / "bad.nemo").write_bytes(b"not a tar")
    out = tmp_path / "out"
    flags = [f"--input={clips}", f"--output={out}"]
    status, _, errors = transcribe(*flags, f"--model_name={tmp_path / 'bad.nemo'}")
    assert status == 1
    assert "cannot load the model" in errors
    assert "bad.nemo" in errors
    assert "Traceback" not in errors
    assert not (out / "_SUCCESS").exists()
    assert not list(out.glob("*.jsonl"))


def test_a_gpu_that_was_requested_and_is_not_there_fails_the_job(
    clips, model, transcribe, tmp_path
):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    out = tmp_path / "out"
    flags = [f"--input={clips}", f"--output={out}", "--device=cuda"]
    status, _, errors = transcribe(*flags, f"--model_name={model}")
    assert status == 1
    assert "no CUDA device" in errors
    assert "--device=cpu" in errors
    assert not (out / "_SUCCESS").exists()


def test_too_many_failures_fail_the_job_but_are_there_to_be_read(
    clips, model, transcribe, tmp_path
):
    rows = [{"audio_filepath": str(clips / "01.flac")}] * 20
    rows += [{"audio_filepath": f"none-{index}.wav"} for index in range(120)]
    listed = write_manifest(tmp_path / "m.jsonl", rows)
    out = tmp_path / "out"
    # As where many workers have too many failures together, but none has by itself.
    pipeline = beam.Pipeline(runner="FnApiRunner")
    read = pipeline | ReadManifest(str(listed))
    read | Transcribe(model_name=str(model)) | WriteManifest(str(out))
    said = r"120 of 140 rows failed \(120 x AudioNotFoundError, as: .*none-0\.wav: no such file"
    with pytest.raises(RuntimeError, match=said):
        pipeline.run()
    assert not (out / "_SUCCESS").exists()
    assert len(read_records(out, "failures")) == 120
    flags = [f"--input={listed}", f"--output={out}", f"--model_name={model}"]
    assert transcribe(*flags, "--overwrite", "--max_failure_fraction=0.9")[0] == 0
    assert (out / "_SUCCESS").exists()


def test_a_rerun_replaces_the_results_and_leaves_no_stale_shard(clips, model, transcribe, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for stale in ("transcripts-00003-of-00004.jsonl", "failures-00000-of-00001.jsonl", "_SUCCESS"):
        (out / stale).write_text("stale")
    flags = [f"--input={clips / '0?.flac'}", f"--output={out}", f"--model_name={model}"]
    assert transcribe(*flags)[0] == 2
    assert transcribe(*flags, "--overwrite")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "_SUCCESS",
        "_index",
        "summary.json",
        "transcripts-00000-of-00001.jsonl",
    ]
    assert len(read_records(out, "transcripts")) == 10


def test_an_empty_manifest_gives_an_empty_result(model, transcribe, tmp_path):
    listed = write_manifest(tmp_path / "m.jsonl", [])
    out = tmp_path / "out"
    status, printed, _ = transcribe(f"--input={listed}", f"--output={out}", f"--model_name={model}")
    assert (status, "0 rows" in printed) == (0, True)
    assert (out / "transcripts-00000-of-00001.jsonl").read_text() == ""
    assert (out / "_SUCCESS").exists()


def test_any_records_can_be_written_as_a_manifest(tmp_path):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        pipeline | beam.Create([{"a": 1}, {"a": 2}]) | WriteManifest(str(tmp_path / "out"))
    assert sorted(record["a"] for record in read_records(tmp_path / "out", "transcripts")) == [1, 2]
    assert json.loads((tmp_path / "out/summary.json").read_text())["rows_in"] == 2


def test_a_row_that_json_cannot_hold_fails_alone(clips, model, tmp_path):
    good = {"audio_filepath": clips / "01.flac", "offset": np.float32(0), "day": date(2026, 1, 2)}
    rows = [good, {"audio_filepath": "a", "x": {1, 2}}]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        transcribed = pipeline | beam.Create(rows) | Transcribe(model_name=str(model))
        transcribed | WriteManifest(str(tmp_path / "out"))
    (failure,) = read_records(tmp_path / "out", "failures")
    assert failure["line"] == repr(rows[1])
    assert failure["error"]["type"] == "BadFieldError"
    (transcript,) = read_records(tmp_path / "out", "transcripts")
    assert transcript.pop("pred_text")
    assert transcript.pop("duration") > 0
    assert transcript == {
        "audio_filepath": str(clips / "01.flac"),
        "offset": 0,
        "day": "2026-01-02",
    }


def test_a_row_lost_on_the_way_fails_the_job_with_the_numbers(tmp_path):
    out = tmp_path / "out"
    pipeline = beam.Pipeline(runner="FnApiRunner")
    parts = Transcribed(
        pipeline | "Transcripts" >> beam.Create([{"a": 1}, {"a": 2}]),
        pipeline | "Failures" >> beam.Create([]),
        pipeline | "Statistics" >> beam.Create([Statistics(rows_in=3)]),
        pipeline | "Filtered" >> beam.Create([]),
    )
    parts | WriteManifest(str(out))
    with pytest.raises(Exception, match="3 rows went in, but 2 transcripts and 0 failures"):
        pipeline.run()
    assert not (out / "_SUCCESS").exists()


def test_read_manifest_gives_every_line_with_its_place(tmp_path):
    one = write_manifest(tmp_path / "one.jsonl", [{"audio_filepath": "a"}, "", "no json"])
    two = write_manifest(tmp_path / "two.jsonl", [{"audio_filepath": "b"}])
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | ReadManifest(f"{one},{two}") | beam.Map(lambda row: tuple(row)[:4])
        assert_that(
            rows,
            equal_to(
                [
                    ('{"audio_filepath": "a"}', str(one), 1, ""),
                    ("no json", str(one), 3, ""),
                    ('{"audio_filepath": "b"}', str(two), 1, ""),
                ]
            ),
        )


def test_wrong_arguments_are_refused_when_the_graph_is_built(tmp_path):
    with pytest.raises(ValueError, match="batch_size is 0"):
        Transcribe(model_name="m", batch_size=0)
    with pytest.raises(ValueError, match="max_batch_seconds is -1"):
        Transcribe(model_name="m", max_batch_seconds=-1)
    with pytest.raises(ValueError, match="both 'x'"):
        Transcribe(model_name="m", filepath_key="x", pred_text_key="x")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        Transcribe(model_name="m", device="tpu")
    with pytest.raises(ValueError, match="decoder is 'tdt'"):
        Transcribe(model_name="m", decoder="tdt")
    with pytest.raises(ValueError, match="precision is 'fp16'"):
        Transcribe(model_name="m", precision="fp16")
    with pytest.raises(ValueError, match="channel is -1"):
        Transcribe(model_name="m", channel=-1)
    with pytest.raises(ValueError, match="max_failure_fraction is 3"):
        WriteManifest("out", max_failure_fraction=3)
    (tmp_path / "there").touch()
    with pytest.raises(ValueError, match="not empty"):
        beam.Pipeline() | beam.Create([{}]) | WriteManifest(str(tmp_path))


def test_the_samples_are_what_they_are_said_to_be():
    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    for row in rows:
        samples = reading.read_audio(
            str(SAMPLES / row["audio_filepath"]), AudioRequest(sample_rate=RATE)
        )
        assert len(samples) / RATE == pytest.approx(row["duration"], abs=0.001)
    assert SAMPLE_MODEL.stat().st_size <= 15e6
