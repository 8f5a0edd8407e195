"""The site of docs/: its links, its page of the Python API, and its quick start."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import markdown
import pytest
import yaml

import beam_asr
from beam_asr.cli import main, options
from tests.support.job_files import REPOSITORY, SAMPLES, read_records

DOCS = REPOSITORY / "docs"
URL = "https://example.org/beam_asr"


@pytest.fixture(scope="module")
def hooks():
    """The hooks of MkDocs, which are no package."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "site" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("long_audio.md", "inputs.md#audio", "inputs.md#audio"),
        ("long_audio.md", "../benchmarks/RESULTS.md#long-audio", "results.md#long-audio"),
        ("overview.md", "docs/inputs.md", "inputs.md"),
        ("overview.md", "samples/README.md", "samples.md"),
        ("overview.md", "docs/images/report.png", "images/report.png"),
        ("flink.md", "../../docs/scale.md", "scale.md"),
        ("flink.md", "../dataflow", f"{URL}/tree/main/templates/dataflow"),
        ("docker.md", "../Dockerfile", f"{URL}/blob/main/Dockerfile"),
        ("docker.md", "../nowhere", "../nowhere"),
        ("docker.md", "#sizes", "#sizes"),
        ("docker.md", "https://example.com/a.md", "https://example.com/a.md"),
    ],
)
def test_a_link_leads_to_the_page_or_to_the_source(hooks, page, link, on_the_site):
    assert hooks.site_link(link, page, URL) == on_the_site


def test_without_a_repository_a_link_leads_to_the_checkout(hooks):
    link = hooks.site_link("../Dockerfile", "docker.md", "")
    assert link == (REPOSITORY / "Dockerfile").as_uri()


def test_a_page_says_on_the_site_what_it_says_on_github(hooks):
    hooks.LINKS.titles = {"scale.md": "Workers, hours and cost"}
    page = SimpleNamespace(file=SimpleNamespace(src_uri="running.md"))
    text = hooks.on_page_markdown(
        "[docs/scale.md](scale.md), [costs](scale.md)\n\n| a |\n| - |\n| `b \\| c` |\n\n"
        "<!-- ::: beam_asr.Output -->\n",
        page, {}, [],
    )  # fmt: skip
    html = markdown.markdown(text, extensions=["tables", hooks.LINKS])
    assert '<a href="scale.md">Workers, hours and cost</a>, <a href="scale.md">costs</a>' in html
    assert "<code>b | c</code>" in html
    assert "::: beam_asr.Output" in html
    assert "<!--" not in html


def test_every_public_name_has_its_docstring_on_the_page_of_the_api(hooks):
    page = (DOCS / "python_api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: beam_asr\.(\w+)$", hooks.HIDDEN_DIRECTIVE.sub(r"\1", page), re.M)
    assert sorted(shown) == sorted(beam_asr.__all__)
    for name in beam_asr.__all__:
        assert re.search(rf"^### `(beam_asr\.)?{name}(\(\))?`$", page, re.M), name


def test_every_page_is_in_the_navigation(hooks):
    """A strict build says so too, but only of pages in docs/."""

    class Loader(yaml.SafeLoader):
        """Reads the settings of MkDocs, some of which name Python's objects."""

    Loader.add_multi_constructor("", lambda *_: None)
    settings = yaml.load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for each in (entry.values() if isinstance(entry, dict) else entry)
                for page in pages(each)]  # fmt: skip

    there = {path.name for path in DOCS.glob("*.md")} | set(hooks.OTHER_PAGES.values())
    assert sorted(pages(settings["nav"])) == sorted(there)


def test_the_build_of_make_check_fails_on_a_dead_link(tmp_path):
    """With --quiet too, MkDocs would count no warning, and --strict would let all pass."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\t\$\(BIN\)/(mkdocs build.*)$", makefile, re.M)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[a page](nowhere.md)", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text("site_name: a site\ntheme: mkdocs\n", encoding="utf-8")
    build = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True
    )
    assert build.returncode == 1
    assert "nowhere.md" in build.stderr


def test_the_quick_start_is_what_happens(tmp_path, monkeypatch, capfd):
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    shutil.copytree(SAMPLES, tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    for language, text in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(compile(text, "index.md", "exec"), {"__name__": "__main__"})
            assert "please enter your" in capfd.readouterr().out
        elif language == "console":
            assert main.main(shlex.split(text)[2:]) == 0, text
        elif text.startswith("beam-asr"):
            assert options.parse_args(shlex.split(text)[1:]).beam_args == []
    recordings = len(list(SAMPLES.rglob("*.flac")))
    assert len(read_records(tmp_path / "out" / "first", "transcripts")) == recordings
    assert (tmp_path / "out" / "first" / "report.html").exists()
    assert len(list((tmp_path / "out" / "times" / "srt").rglob("*.srt"))) == recordings
