"""What README shows is what happens: its examples are run, its flags exist."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest

from beam_asr.cli import main, options
from beam_asr.setting_fields import all_settings
from beam_asr.settings import GROUPS
from tests.support.job_files import REPOSITORY, SAMPLES, read_records

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
    assert table_of_flags().keys() == {each.flag for each in all_settings(GROUPS)}


def test_the_defaults_of_the_table_are_those_of_the_settings():
    table = table_of_flags()
    for each in all_settings(GROUPS):
        if isinstance(each.default, bool):
            assert table[each.flag].strip() == "off"
        elif each.default:
            default = f"{each.default:g}" if isinstance(each.default, float) else str(each.default)
            assert default in re.findall(r"[\w.]+", table[each.flag])
        assert ("required" in table[each.flag]) == (each.required or each.name == "model_name")


def test_every_failure_type_that_the_readme_names_exists_and_is_complete():
    from beam_asr import errors
    from beam_asr.inputs import tar_stream
    from beam_asr.storage import allow_list

    rows = re.findall(r"^\| `(?:manifest|audio)` \| (.*) \|$", README, re.M)
    named = set(re.findall(r"`(\w+Error)`", " ".join(rows)))
    bases = (errors.ManifestError, errors.AudioError)
    defined = {
        name
        for module in (errors, allow_list)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, bases) and value not in bases
    }
    assert named == defined | {tar_stream.TarError.__name__}
