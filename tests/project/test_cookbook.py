"""docs/cookbook.md: its commands do what they say, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from beam_asr.cli import main, options
from tests.support.job_files import REPOSITORY, SAMPLES, environment, read_records

PAGE = (REPOSITORY / "docs" / "cookbook.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NEED_A_HUB = ("load_dataset",)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder in which everything was run that the page says."""
    folder = tmp_path_factory.mktemp("cookbook")
    shutil.copytree(SAMPLES, folder / "samples")
    _write_kaldi_directory(folder / "data", sorted((folder / "samples").glob("*.flac")))
    before = Path.cwd()
    os.chdir(folder)
    try:
        for language, text in BLOCK.findall(PAGE):
            _run(language, text)
    finally:
        os.chdir(before)
    return folder


def _run(language: str, text: str) -> None:
    if language == "python":
        exec(compile(text, "cookbook.md", "exec"), {"__name__": "__main__"})
    elif language == "console":
        for line in text.splitlines():
            program, *args = shlex.split(line.removeprefix("$ "))
            assert program == "beam-asr"
            assert main.main(args) == 0, line
    elif text.startswith("beam-asr"):  # in a cloud: only its flags are tried
        assert options.parse_args(shlex.split(text.replace("\\\n", " "))[1:])
    elif not any(name in text for name in NEED_A_HUB):
        subprocess.run(["bash", "-ec", text], check=True, env=environment())


def _write_kaldi_directory(folder: Path, clips: list[Path]) -> None:
    folder.mkdir()
    lines = {"wav.scp": "{0} {1}", "utt2spk": "{0} {0}", "text": "{0} words", "reco2dur": "{0} {2}"}
    for name, line in lines.items():
        written = [line.format(clip.stem, clip, soundfile.info(clip).duration) for clip in clips]
        (folder / name).write_text("".join(f"{each}\n" for each in written))


def test_every_recipe_ends_with_its_results(done):
    recordings = len(list(SAMPLES.rglob("*.flac")))
    samples = len(list(SAMPLES.glob("*.flac")))
    rows = {path.name: len(read_records(path, "transcripts")) for path in (done / "out").iterdir()
            if (path / "_SUCCESS").exists()}  # fmt: skip
    assert rows["folder"] == rows["calls"] == rows["exported"] == recordings
    for name in ("scored", "with_scores", "languages", "pipeline", "kaldi"):
        assert rows[name] == samples, name
    assert rows["sample"] == 5
    assert 0 < rows["good"] < samples
    assert "many" not in rows
    assert rows["all"] >= recordings


def test_files_lie_where_the_page_says(done):
    for place in ("podcast/srt", "podcast/vtt", "podcast/exports", "exported/parquet"):
        assert list((done / "out" / place).iterdir()), place
    assert (done / "out" / "with_scores" / "report.html").exists()
    assert (done / "out" / "compared.html").exists()


def test_each_of_the_sixteen_jobs_has_a_recipe():
    assert PAGE.count("\n## ") == 17  # the last is what comes later
