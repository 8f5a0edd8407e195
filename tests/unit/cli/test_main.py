"""What the command does before it starts a job, in a process of its own where imports count."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from beam_asr.cli import input_checks, launch, main
from beam_asr.cli.options import parse_args
from beam_asr.outputs.row_index import FinishedRun, RowIndex
from beam_asr.outputs.summary import Failures, Outcomes
from beam_asr.records.statistics import Statistics
from beam_asr.storage import storage
from beam_asr.storage.storage import Storage
from tests.support.finished_runs import scored, write_run
from tests.support.servers import proxy


def failing(number: int):
    """Returns a function that raises this error of a system."""

    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number), "a file")

    return fail


HEAVY = ["apache_beam", "torch", "nemo", "numpy", "soundfile", "av"]


@pytest.mark.parametrize("args", [["--help"], ["transcribe", "--help"], ["transcribe"]])
def test_help_and_wrong_usage_import_nothing_heavy(args):
    script = f"""
import sys
from beam_asr.cli import main as cli
status = cli.main({args!r})
heavy = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else status)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == (0 if "--help" in args else 2), ended.stderr


def test_launching_a_job_imports_neither_nemo_nor_torch(tmp_path):
    script = f"""
import sys
import beam_asr.cli.launch
import apache_beam as beam
from beam_asr.cli.options import parse_args
(folder := {str(tmp_path)!r})
open(folder + "/m.jsonl", "w").close()
options = parse_args(["transcribe", "--input", folder + "/m.jsonl", "--output", folder + "/out",
    "--model_name", "nvidia/parakeet-tdt-0.6b-v3"])
beam_asr.cli.launch.check(options)
beam_asr.cli.launch.build(beam.Pipeline(), options)
heavy = [name for name in ("torch", "nemo") if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "a.wav"}\n')
    return path


def test_an_unknown_flag_is_refused_and_the_nearest_one_named(transcribe, manifest, tmp_path):
    args = ["--input", manifest, "--output", tmp_path / "out", "--model_name", "m"]
    status, _, errors = transcribe(*args, "--batchsize=3")
    assert status == 2
    assert "--batchsize" in errors
    assert "did you mean --batch_size?" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-v"], "unknown flag -v"),
        (
            ["-batch_size=1"],
            "unknown flag -batch_size: it is neither ours nor Beam's; did you",
        ),
        (["--streaming", "foo"], "the word 'foo' belongs to no flag"),
        (["--runner=DirectRunner", "foo.flac"], "'foo.flac' matches no file"),
        (["--direct-num-worker=2"], "did you mean --direct_num_workers?"),
    ],
)
def test_what_nobody_takes_is_refused(transcribe, manifest, tmp_path, words, said):
    args = ["--input", manifest, "--output", tmp_path / "out", "--model_name", "m"]
    status, _, errors = transcribe(*args, *words)
    assert (status, said in errors) == (2, True), errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--listen", "--progress", "--diarize"])
def test_a_flag_that_resembles_none_gets_no_suggestion(transcribe, manifest, tmp_path, flag):
    args = ["--input", manifest, "--output", tmp_path / "out", "--model_name", "m"]
    status, _, errors = transcribe(*args, flag)
    assert (status, f"unknown flag {flag}" in errors) == (2, True)
    assert "did you mean" not in errors


def test_flags_of_beam_may_have_hyphens_and_values_apart(manifest, tmp_path):
    args = ["transcribe", str(manifest), f"--output={tmp_path / 'out'}", "--model-name=org/m"]
    beam_flags = ["--runner", "DirectRunner", "--direct-num-workers", "3", "--save_main_session"]
    options = launch.check(parse_args([*args, *beam_flags]))
    assert options.view_as(DirectOptions).direct_num_workers == 3


def test_an_input_that_is_not_there_is_refused(transcribe, tmp_path):
    args = ["--output", tmp_path / "out", "--model_name", "m"]
    status, _, errors = transcribe("--input", tmp_path / "none-*.jsonl", *args)
    assert (status, "none-*.jsonl" in errors) == (2, True)
    status, _, errors = transcribe("--input", tmp_path, *args)
    assert (status, "no audio files" in errors) == (2, True)


def test_a_model_file_that_is_not_there_is_refused(transcribe, manifest, tmp_path):
    args = ["--input", manifest, "--output", tmp_path / "out"]
    status, _, errors = transcribe(*args, "--model_name", tmp_path / "none.nemo")
    assert (status, "none.nemo" in errors) == (2, True)


def test_a_folder_that_holds_something_is_refused(transcribe, manifest, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    status, _, errors = transcribe("--input", manifest, "--output", out, "--model_name", "m")
    assert status == 2
    assert "precious.txt" in errors
    assert "--overwrite" in errors
    assert [path.name for path in out.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("defect", [ValueError("a defect"), KeyError("a defect")])
@pytest.mark.parametrize("place", ["beam_asr.inputs.discovery.check", "beam_asr.cli.launch.build"])
def test_a_defect_is_a_failed_job_with_a_traceback_and_no_wrong_usage(
    transcribe, manifest, tmp_path, monkeypatch, place, defect
):
    def broken(*_args, **_kwargs):
        raise defect

    monkeypatch.setattr(place, broken)
    args = ["--input", manifest, "--output", tmp_path / "out", "--model_name", "m"]
    status, _, said = transcribe(*args)
    assert status == 1
    assert "Traceback" in said
    assert "a defect" in said
    assert "beam-asr: error" not in said


def test_settings_that_do_not_go_together_are_wrong_usage_and_named_as_flags(
    transcribe, manifest, tmp_path
):
    args = ["--input", manifest, "--output", tmp_path / "out", "--model_name", "m"]
    status, _, said = transcribe(*args, "--gpus=0.5", "--device=cpu")
    assert (status, "Traceback" in said) == (2, False)
    assert "--gpus=0.5 asks for a GPU, and --device=cpu for none" in said
    status, _, said = transcribe(*args, "--gpus=0.5", "--model_copies=3")
    assert (status, "gpus=0.5 has 2 processes" in said) == (2, True)


def test_errors_that_explain_themselves_are_known_in_a_workers_text():
    def explained(name):
        text = f"Traceback (most recent call last):\n  ...\nbeam_asr.errors.{name}: why [step]"
        return main.EXPLAINED.search(text) is not None

    for name in (
        "ModelLoadError", "LostRowsError", "TooManyFailuresError", "NoInputError", "TableError",
        "DamagedInputError", "StorageError", "ResumeError", "FolderTakenError",
        "StorageReadError",
    ):  # fmt: skip
        assert explained(name), name
    for name in ("DeadlineError", "ShortReadError", "ManifestError", "ValueError"):
        assert not explained(name), name


def test_resume_of_a_finished_run_does_nothing(transcribe, manifest, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "_SUCCESS").touch()
    summary = {"rows_in": 3, "transcribed": 2, "failed": 1, "audio_hours": 1.0}
    (out / "summary.json").write_text(json.dumps(summary))
    args = ["--input", manifest, "--output", out, "--model_name", "org/m"]
    status, _, errors = transcribe(*args, "--resume")
    assert (status, "has no index of its rows" in errors) == (2, True)
    outcomes = Outcomes(2, Failures(), Counter())
    RowIndex(str(out), Storage()).add(FinishedRun({}, {}, Statistics(), outcomes, 1.0))
    status, printed, _ = transcribe(*args, "--resume")
    assert (status, "finished" in printed) == (0, True)
    assert "2 transcribed, 1 failed" in printed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "summary.json: the disk fails"),
        ("", "summary.json is damaged: JSONDecodeError"),
        ("{}", "summary.json is damaged: KeyError: 'failed'"),
        ("[]", "summary.json is damaged: TypeError"),
    ],
)
def test_a_finished_run_whose_summary_cannot_be_read_is_done_and_says_so_in_two_lines(
    tmp_path, monkeypatch, capsys, content, said
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text(content or "")
    if content is None:
        monkeypatch.setattr(storage, "LocalFile", failing(errno.EIO))
    monkeypatch.setattr(launch, "is_finished", lambda _: False)
    monkeypatch.setattr(launch, "check", lambda _: DirectOptions([]))
    monkeypatch.setattr(launch, "run", lambda *_: None)
    assert main.main(["transcribe", "m.jsonl", f"--output={out}", "--model_name=m"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"the run is finished; transcripts in {out}\n"
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1


def test_a_manifest_without_any_right_row_is_refused_before_anything_starts(transcribe, tmp_path):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"path": "a.wav"}\n' * 30)
    args = ["--output", tmp_path / "out", "--model_name", "org/m"]
    status, _, errors = transcribe("--input", manifest, *args)
    assert status == 2
    assert "Name the one of the audio with --filepath_key=path" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("allowed", [["--max_failure_fraction=1"], ["--filepath_key=path"]])
def test_a_manifest_of_which_all_rows_may_fail_is_not_refused(tmp_path, allowed):
    (tmp_path / "m.jsonl").write_text('{"path": "a.wav"}\n' * 30)
    places = [f"--input={tmp_path / 'm.jsonl'}", f"--output={tmp_path / 'out'}"]
    launch.check(parse_args(["transcribe", *places, "--model_name=org/m", *allowed]))


@pytest.mark.parametrize(
    ("args", "needed"),
    [
        (["--keep=wer <= 0.3"], "'wer', which no row would have: it needs --reference_key"),
        (["--keep=most_repeats < 5"], "it needs --quality"),
        (["--keep=len(words) > 3"], "it needs --timestamps=word"),
        (["--keep=confidence > 0.5", "--confidence=word"], "it needs --confidence=row"),
        (["--keep=wer <= 0.3", "--reference_key=text"], ""),
        (["--keep=len(words) > 3", "--formats=srt"], ""),
        (["--keep=cer <= 0.3 and n > 3"], ""),  # the row's own
        (["--keep=wre <= 0.3"], ""),  # only the data can tell
    ],
)
def test_a_condition_on_what_no_setting_asks_for_is_refused(transcribe, tmp_path, args, needed):
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav", "cer": 0.1}\n')
    places = [f"--input={tmp_path / 'm.jsonl'}", f"--output={tmp_path / 'out'}"]
    if not needed:
        launch.check(parse_args(["transcribe", *places, "--model_name=org/m", *args]))
        return
    status, _, errors = transcribe(*places, "--model_name=org/m", *args)
    assert (status, needed in errors) == (2, True), errors


@pytest.mark.parametrize(
    "pattern",
    ["out/failures-*.jsonl", "out/failures-0.jsonl", "alias/failures-0.jsonl", "link.jsonl", "out"],
)
def test_an_input_that_overwriting_would_replace_is_refused(transcribe, tmp_path, pattern):
    (tmp_path / "out").mkdir()
    (tmp_path / "alias").symlink_to("out")
    (tmp_path / "link.jsonl").symlink_to("out/failures-0.jsonl")
    (tmp_path / "out/failures-0.jsonl").write_text('{"audio_filepath": "a.wav"}\n')
    (tmp_path / "out/a.wav").write_bytes(b"x")
    (tmp_path / "out/transcripts-00000-of-00001.jsonl").write_text("mine\n")
    args = [f"--output={tmp_path / 'out'}", "--model_name=org/m", "--overwrite"]
    status, _, errors = transcribe(f"--input={tmp_path / pattern}", *args)
    assert (status, "is in the output folder" in errors) == (2, True), errors
    assert (tmp_path / "out/transcripts-00000-of-00001.jsonl").read_text() == "mine\n"


def test_an_input_beside_the_output_folder_may_be_transcribed_again(manifest, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/transcripts-00000-of-00001.jsonl").write_text("{}\n")
    places = [f"--input={manifest}", f"--output={tmp_path / 'out'}"]
    launch.check(parse_args(["transcribe", *places, "--model_name=org/m", "--overwrite"]))


INTERRUPTED = """
import signal
set_handler = signal.signal
def noted(*args):
    signal.signal = set_handler
    before = set_handler(*args)
    print("ready", flush=True)
    return before
signal.signal = noted
from beam_asr.__main__ import main
main()
"""


@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.8, 2.0])
def test_ctrl_c_in_the_first_seconds_ends_without_a_traceback(manifest, tmp_path, seconds):
    args = ["transcribe", str(manifest), f"--output={tmp_path / 'out'}", "--model_name=org/m"]
    launcher = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout.readline() == "ready\n"
    time.sleep(seconds)
    launcher.send_signal(signal.SIGINT)
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert "ended by SIGINT" in errors
    assert "Traceback" not in errors


THREAD_IN_C = """
import threading, time
from beam_asr import __main__
from beam_asr.cli import main as cli
threading.Thread(target=time.sleep, args=(60,)).start()  # is not waited for
cli.main = lambda: print("done") or 1
__main__.main()
"""


def test_a_job_that_ends_waits_for_no_thread_and_has_its_status():
    ended = subprocess.run(
        [sys.executable, "-c", THREAD_IN_C], capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "done\n", "")


def test_an_output_that_is_a_file_is_refused(transcribe, manifest, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output, said in (("file", "is a file: name a folder"), ("file/out", "is a file, and no")):
        status, _, errors = transcribe(manifest, f"--output={tmp_path / output}", "--model_name=m")
        assert (status, said in errors) == (2, True), errors
        assert "Traceback" not in errors
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_that_fails_is_named_with_its_flag_and_its_problem(
    transcribe, manifest, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "create_local", failing(errno.EROFS))
    model = tmp_path / "m.nemo"
    model.touch()
    out = tmp_path / "out"
    status, _, errors = transcribe(manifest, f"--output={out}", f"--model_name={model}")
    assert (status, "Traceback" in errors) == (2, False)
    assert f"error: --output={out}: cannot write {out}/_journal/lock.json" in errors
    assert "the disk is read-only: choose another place" in errors


def test_a_folder_in_a_store_that_forbids_deleting_is_refused_and_stays_empty(
    transcribe, manifest, bucket
):
    address = re.search(r"127\.0\.0\.1:\d+", json.dumps(bucket.storage_options))[0]
    with proxy(address, forbidden="DELETE") as forbidding:
        options = json.dumps(bucket.storage_options).replace(address, forbidding)
        flags = [f"--output={bucket.uri}/out", "--model_name=m", f"--storage_options={options}"]
        for further in ([], ["--resume"], ["--overwrite"]):
            status, _, errors = transcribe(manifest, *flags, *further)
            assert status == 2
            assert f"--output={bucket.uri}/out: cannot delete {bucket.uri}/out/" in errors
            assert "access is refused: grant it to the job's account" in errors
            assert len(errors.splitlines()) == 1
    assert bucket.filesystem().find(bucket.uri) == []


@pytest.mark.parametrize(
    ("pattern", "output", "refused"),
    [
        ("**/*.jsonl", "out", True),
        ("**", "deep/out", True),
        ("*/*.jsonl", "out", True),
        ("{m,*/*}.jsonl", "out", True),
        ("alias/**/*.json*", "out", True),
        ("*.jsonl", "out", False),
        ("*/*/m*.jsonl", "out", False),
        ("in/**/*.jsonl", "out", False),
    ],
)
def test_a_pattern_that_matches_what_the_job_writes_is_refused(
    transcribe, tmp_path, pattern, output, refused
):
    (tmp_path / "alias").symlink_to(".")
    for name in ("m.jsonl", "in/m.jsonl", "in/x/m.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text('{"audio_filepath": "a.wav"}\n')
    args = [f"--input={tmp_path}/{pattern}", f"--output={tmp_path / output}", "--model_name=org/m"]
    if not refused:
        launch.check(parse_args(["transcribe", *args]))
        return
    status, _, errors = transcribe(*args)
    assert (status, "also matches files of the output folder" in errors) == (2, True), errors


def test_a_field_that_none_of_the_first_rows_has_is_said_at_launch(manifest, tmp_path, caplog):
    places = [f"--input={manifest}", f"--output={tmp_path / 'out'}", "--model_name=org/m"]
    reads = ["--reference_key=txt", "--keep=wre < 1 and wer < 1 and duration < 9 and x.y is None"]
    caplog.set_level(logging.WARNING, logger=input_checks.__name__)
    launch.check(parse_args(["transcribe", *places, *reads]))
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(" is in none")[0] for text in said] == [
        "the field 'wre' of --keep",
        "the field 'x' of --keep",
        "the field 'txt' of --reference_key",
    ]
    caplog.clear()
    launch.check(parse_args(["transcribe", *places, "--reference_key=audio_filepath"]))
    assert not caplog.records


@pytest.mark.parametrize(
    ("flags", "status", "written"),
    [([], 0, False), (["--report"], 0, True), (["--report"], 1, False)],
)
def test_a_finished_run_has_a_report_if_one_is_requested(
    tmp_path, monkeypatch, capsys, flags, status, written
):
    out = write_run(tmp_path / "out", [scored("one", "one")])
    if status:
        (out / "report.html").mkdir()  # where no file can be written
    monkeypatch.setattr("beam_asr.cli.launch.is_finished", lambda _: True)
    arguments = ["--input=a.jsonl", f"--output={out}", "--model_name=m.nemo", "--resume", *flags]
    assert main.main(["transcribe", *arguments]) == status
    assert (out / "report.html").is_file() == written
    assert ("the report is in" in capsys.readouterr().out) == written
