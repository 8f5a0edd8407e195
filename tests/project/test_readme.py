"""What README shows is what happens: its examples are run, its flags exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil

import pytest

from beam_asr import errors
from beam_asr.cli import main, options
from beam_asr.cli.messages import as_flags, flag_of
from beam_asr.records.setting_fields import all_settings
from beam_asr.settings import GROUPS
from beam_asr.storage.allow_list import RequestNotAllowedError
from tests.support.job_files import REPOSITORY, SAMPLES, read_records

ROOTS = (errors.ManifestError, errors.AudioError, errors.ModelError)
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with samples/ in it, to run things in."""
    shutil.copytree(SAMPLES, tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", blocks("python"))
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


def table_of_flags() -> dict[str, str]:
    """The default that README gives each flag, in its words."""
    rows = [row.split("|") for row in re.findall(r"^\| `--.*", README, re.M)]
    return {flag: row[-2] for row in rows for flag in re.findall(r"`(--\w+)`", row[1])}


def test_every_flag_stands_in_the_table_and_every_flag_of_the_table_exists():
    assert table_of_flags().keys() == {flag_of(each) for each in all_settings(GROUPS)}


def test_the_defaults_of_the_table_are_those_of_the_settings():
    table = table_of_flags()
    for each in all_settings(GROUPS):
        if isinstance(each.default, bool):
            assert table[flag_of(each)].strip() == "off"
        elif each.default:
            default = f"{each.default:g}" if isinstance(each.default, float) else str(each.default)
            assert default in re.findall(r"[\w.]+", table[flag_of(each)])
        assert ("required" in table[flag_of(each)]) == (each.required or each.name == "model_name")


def failure_table() -> str:
    """Returns README's table of failures, as `beam_asr.errors` and its docstrings have it."""
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
    path = REPOSITORY / "README.md"
    before, table, after = re.split(r"(?<=\n\n)(\| stage \| type .*?\n)(?=\n)", README, flags=re.S)
    if os.environ.get("WRITE_TABLE"):
        path.write_text(before + failure_table() + after, encoding="utf-8")
        return
    assert table == failure_table(), "run make docs"
