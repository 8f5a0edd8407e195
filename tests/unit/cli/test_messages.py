"""What the command line shows and writes: no secrets, no control characters."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from beam_asr.cli import main, messages
from tests.support.job_files import REPOSITORY

SECRET = "SECRETSIG"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m \x9b31m \x7f \x00 \r", r"\x1b[31m \x9b31m \x7f \x00 \r"),
        ("lines\nand\ttabs, ü, 漢, 😀, نص", "lines\nand\ttabs, ü, 漢, 😀, نص"),
        ("\u202egnp.exe \u2066 \u2028 \ud83d", r"\u202egnp.exe \u2066 \u2028 \ud83d"),
        (f"https://h/a?{SECRET} is gone", "https://h/a?... is gone"),
    ],
)
def test_a_terminal_gets_text(text, shown):
    assert messages.for_terminal(text) == shown


def test_what_is_logged_is_text_too():
    record = logging.LogRecord("n", logging.WARNING, "", 0, "read %s", ("\x9b \x7f",), None)
    assert messages.TerminalFormatter("%(message)s").format(record) == r"read \x9b \x7f"


ENDED = """
import logging
from beam_asr import process
from beam_asr.cli import messages
logging.basicConfig(handlers=[messages.console_handler()])
logging.getLogger("beam_asr.process").error("what could not be saved")
process.exit_now("ended by SIGINT")
"""


def test_why_a_process_ends_is_said_once():
    ended = subprocess.run([sys.executable, "-c", ENDED], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        "ERROR beam_asr.process: what could not be saved", "beam-asr: ended by SIGINT",
    ]  # fmt: skip


WITHOUT_GOOGLE = """
import logging
from beam_asr.cli import messages
logging.basicConfig(handlers=[messages.console_handler()])
logging.warning("apitools not found, and what that means for Google's packages")
logging.warning("another warning")
"""


def test_a_start_without_packages_of_google_is_quiet():
    """Beam warns of them at each start; a job that needs them is refused."""
    ended = subprocess.run([sys.executable, "-c", WITHOUT_GOOGLE], capture_output=True, text=True)
    assert ended.stderr.splitlines() == ["WARNING root: another warning"]


def test_the_command_that_resumes_shows_no_query():
    args = ["transcribe", f"--input=https://h/m.jsonl?{SECRET}&x=1", f"https://h/n?{SECRET}"]
    assert SECRET not in main.how_to_resume(args)
    assert "https://h/m.jsonl?..." in main.how_to_resume(args)


def written_below(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_rows_that_are_not_right_reach_the_terminal_as_text(transcribe, tmp_path):
    wrong = [{"audio_filepath": {"\u009b31m\u007f": number}} for number in range(150)]
    rows = [{"audio_filepath": "a.wav"}, *wrong]  # without a right one the job is refused
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "m.jsonl").write_text(lines, encoding="utf-8")
    model = REPOSITORY / "samples/model.nemo"
    status, printed, errors = transcribe(
        f"--input={tmp_path / 'm.jsonl'}", f"--output={tmp_path / 'out'}", f"--model_name={model}"
    )
    assert status == 1
    assert "150 of 151 rows are not right" in errors
    assert not set(map(chr, (*range(0x7F, 0xA0), 0x1B))) & set(printed + errors)


def test_a_signature_is_in_nothing_that_a_job_writes_or_shows(http_server, transcribe, tmp_path):
    http_server.files["m.jsonl"] = b'not json\n{"audio_filepath": 1}\n'  # wrong in two ways
    http_server.files["model.nemo"] = (REPOSITORY / "samples/model.nemo").read_bytes()
    manifest, model = (
        f"{http_server.url(name)}?sig={SECRET}" for name in ("m.jsonl", "model.nemo")
    )
    out = tmp_path / "out"
    flags = [f"--input={manifest}", f"--output={out}", f"--model_name={model}"]
    status, printed, errors = transcribe(*flags)
    assert (status, "NotJsonError" in errors) == (1, True)
    assert SECRET not in printed + errors + written_below(out)
    run = json.loads((out / "_journal/run.json").read_text())
    assert run["model_name"] == f"{http_server.url('model.nemo')}?..."

    again = [flag.replace(SECRET, "SIGNED-AGAIN") for flag in flags]
    status, printed, errors = transcribe(*again, "--resume", "--max_failure_fraction=1")
    assert status == 0, errors
    assert "SIGNED-AGAIN" not in printed + errors + written_below(out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["options"]["input"] == [f"{http_server.url('m.jsonl')}?..."]
    failures = map(json.loads, (out / "failures-00000-of-00001.jsonl").read_text().splitlines())
    (failure,) = (failure for failure in failures if failure.get("line") == "not json")
    assert failure["manifest"] == f"{http_server.url('m.jsonl')}?..."
