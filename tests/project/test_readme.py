"""What README and docs/python.md show is what happens: the examples run, the flags exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil

import pytest

from beam_asr import errors
from beam_asr.cli import main, options
from beam_asr.cli.messages import as_flags
from beam_asr.storage.allow_list import RequestNotAllowedError
from tests.support.job_files import REPOSITORY, SAMPLES, read_records

ROOTS = (errors.ManifestError, errors.AudioError, errors.ModelError)
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


PYTHON = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with samples/ in it, to run things in."""
    shutil.copytree(SAMPLES, tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", blocks("python", PYTHON))
def test_python_examples_run(example, project, capfd):
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    printed = capfd.readouterr().out
    if "missing.flac" in example:
        assert "AudioNotFoundError" in printed
        assert "'pred_text': 'four'" in printed
    else:
        assert "please enter your" in printed
        assert len(read_records(project / "out", "transcripts")) == 12


@pytest.mark.parametrize("example", blocks("console"))
def test_command_line_examples_run(example, project):
    (command,) = [line[2:] for line in example.splitlines() if line.startswith("$ ")]
    program, *args = shlex.split(command)
    assert program == "beam-asr"
    assert main.main(args) == 0
    assert (project / "out" / "_SUCCESS").exists()
    assert len(read_records(project / "out", "transcripts")) == 12


@pytest.mark.parametrize("example", [text for text in blocks("sh") if "beam-asr" in text])
def test_command_lines_that_need_a_cloud_are_accepted(example):
    program, *args = shlex.split(example.replace("\\\n", " "))
    assert program == "beam-asr"
    assert options.parse_args(args).beam_args == []


def test_the_example_of_readme_is_the_first_of_its_page():
    assert blocks("python") == blocks("python", PYTHON)[:1]


def test_figures_of_speed_are_those_of_the_results():
    results = " ".join((REPOSITORY / "benchmarks/RESULTS.md").read_text(encoding="utf-8").split())
    table = re.findall(r"^\| of NeMo.*?\| ([\d.]+) \| ([\d.]+) \|$", README, re.M)
    (shuffled, sorted_, curator) = table
    assert (
        f"{shuffled[0]} and {sorted_[0]} times as fast as NeMo's `transcribe()` (shuffled, sorted) "
        f"and {curator[0]} times as fast as Curator with the small model; {shuffled[1]}, "
        f"{sorted_[1]} and {curator[1]} times with the large one"
    ) in results
    assert f"{sorted_[0]} to {shuffled[0]} times as fast" in README


def failure_table() -> str:
    """Returns the table of failures, as `beam_asr.errors` and its docstrings have it."""
    rows = ["| stage | type | what happened |", "| --- | --- | --- |"]
    of_rows = [each for each in errors.tree() if each.stage and each not in ROOTS]
    of_rows.append(RequestNotAllowedError)
    of_rows.sort(key=lambda each: ("manifest", "audio", "model").index(each.stage))
    for each in [*of_rows, errors.SegmentsFailedError]:
        stage = f"`{each.stage}`" if each.stage else "that of the first segment"
        what = as_flags(each.__doc__.partition("\n\n")[0]).replace("``", "`").rstrip(".")
        rows.append(f"| {stage} | `{each.__name__}` | {' '.join(what.split())} |")
    return "\n".join(rows) + "\n"


def test_the_table_of_failures_is_that_of_the_classes():
    """With WRITE_TABLE=1 it is written."""
    path = REPOSITORY / "docs" / "errors.md"
    page = path.read_text(encoding="utf-8")
    before, table, after = re.split(r"(?<=\n\n)(\| stage \| type .*?\n)(?=\n)", page, flags=re.S)
    if os.environ.get("WRITE_TABLE"):
        path.write_text(before + failure_table() + after, encoding="utf-8")
        return
    assert table == failure_table(), "run make docs"
