"""`make release`: in a clone of the project, a release is committed, tagged and built."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

import beam_asr
from tests.support.job_files import REPOSITORY

VERSION = "7.1.0"


def git(folder, *args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=folder, check=True, capture_output=True, text=True
    )  # fmt: skip
    return done.stdout.strip()


def release(clone, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/release.py", *args]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True)


def state(clone) -> tuple[str, ...]:
    return tuple(git(clone, *each.split()) for each in ("rev-parse HEAD", "tag", "status -s"))


@pytest.fixture
def clone(tmp_path):
    """A clone with the files as they are here, all committed, without the samples."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--no-checkout", "--depth=1", f"file://{REPOSITORY}", "clone")
    git(clone, "config", "user.name", "A Tester")
    git(clone, "config", "user.email", "tester@example.org")
    for name in git(REPOSITORY, "ls-files", "-co", "--exclude-standard").splitlines():
        if not name.startswith(("samples/", "tests/")) and (REPOSITORY / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, clone / name)
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", "As it is")
    changelog = (clone / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(r"^## Unreleased\n+###", changelog, re.M):  # just after a release
        changelog = changelog.replace("## Unreleased\n", "## Unreleased\n\n- A change.\n")
        (clone / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
        git(clone, "commit", "--quiet", "--all", "--message", "A change")
    return clone


def test_a_release_is_committed_tagged_and_built(clone):
    before = git(clone, "rev-parse", "HEAD")
    entries = re.search(r"## Unreleased\n(.*?)\n## ", (clone / "CHANGELOG.md").read_text(), re.S)[1]

    done = release(clone, VERSION)

    assert done.returncode == 0, done.stderr
    assert git(clone, "rev-parse", "HEAD~1") == before
    assert git(clone, "rev-parse", f"v{VERSION}^{{commit}}") == git(clone, "rev-parse", "HEAD")
    assert git(clone, "status", "--short") == ""
    changed = git(clone, "show", "--format=%s", "--name-only").split("\n")
    assert changed[0] == f"Release {VERSION}"
    assert {*changed[1:]} - {""} == {"CHANGELOG.md", "CITATION.cff", "beam_asr/_version.py"}
    changelog = (clone / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"## Unreleased\n\n## {VERSION} - \d{{4}}-\d\d-\d\d\n"
    assert re.search(heading + re.escape(entries), changelog)
    assert {path.name for path in (clone / "dist").iterdir()} == {
        f"beam_asr-{VERSION}-py3-none-any.whl",
        f"beam_asr-{VERSION}.tar.gz",
    }
    for command in ("git push --atomic origin HEAD v7.1.0", "twine upload dist/beam_asr-7.1.0-py3"):
        assert command in done.stdout
    # A second one finds nothing that has changed.
    again = release(clone, "7.2.0")
    assert again.returncode == 1
    assert "no entries under `Unreleased`" in again.stderr


def test_what_is_not_ready_is_refused_and_stays_as_it_is(clone):
    for version, said in (
        ("1.2", "is no version"),
        ("0.0.9", "is before"),
        (beam_asr.__version__, f"has a section {beam_asr.__version__}"),
    ):
        before = state(clone)
        done = release(clone, version)
        assert done.returncode == 1
        assert said in done.stderr
        assert state(clone) == before
    git(clone, "tag", f"v{VERSION}")
    assert "is there: choose a later version" in release(clone, VERSION).stderr
    git(clone, "tag", "-d", f"v{VERSION}")
    (clone / "README.md").write_text("changed")
    assert "README.md" in release(clone, VERSION).stderr


def test_a_build_that_fails_leaves_all_as_it_was(clone):
    project = (clone / "pyproject.toml").read_text(encoding="utf-8")
    (clone / "pyproject.toml").write_text(project.replace('readme = "README.md"\n', ""))
    git(clone, "commit", "--quiet", "--all", "--message", "Nothing to show on the index")
    before = state(clone)
    done = release(clone, VERSION)
    assert done.returncode == 1
    assert "long_description" in done.stderr
    assert state(clone) == before
    assert not (clone / "dist").exists()


def test_the_version_is_written_in_one_place_and_copied_to_one():
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.M) == [beam_asr.__version__]
    assert "\nversion = {" in (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
