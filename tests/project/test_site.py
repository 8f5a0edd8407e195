"""The site of docs/ shows every public name, and pages of other folders too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import beam_asr
from tests.support.job_files import REPOSITORY


def build(repository: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("mkdocs")), "build"]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of the project's texts and modules, to build the site of."""
    folder = tmp_path_factory.mktemp("site") / "copy"
    ignored = shutil.ignore_patterns(".*", "site", "tests", "*.nemo", "*.flac", "__pycache__")
    return Path(shutil.copytree(REPOSITORY, folder, ignore=ignored))


def test_the_site_has_the_api_and_pages_of_other_folders(repository):
    done = build(repository)
    assert done.returncode == 0, done.stderr
    page = (repository / "site/api/index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'id="beam_asr\.[\w.]*?(\w+)"', page))
    assert set(beam_asr.__all__) - {"__version__"} <= shown
    assert "AudioNotFoundError" in shown
    links = (repository / "site/long_audio/index.html").read_text(encoding="utf-8")
    assert 'href="../benchmarks/RESULTS/#long-audio"' in links
    assert (repository / "site/benchmarks/RESULTS/index.html").exists()


@pytest.mark.parametrize(
    "link", ["nowhere.md", "models.md#no-such-heading", "../benchmarks/NOWHERE.md"]
)
def test_a_link_that_leads_nowhere_fails_the_site(link, repository):
    page = repository / "docs/style.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(f"{text}\n[broken]({link})\n", encoding="utf-8")
    try:
        done = build(repository)
    finally:
        page.write_text(text, encoding="utf-8")
    assert done.returncode != 0
    assert link.removeprefix("../") in done.stderr
