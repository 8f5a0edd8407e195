"""Makes a release that is ready to publish: a commit, a tag, and what is uploaded in dist/.

python scripts/release.py 1.2.3     (or: make release VERSION=1.2.3)

It needs a clean tree, and entries under `Unreleased` in CHANGELOG.md. It pushes and uploads
nothing: its last lines are the commands for that. If a step fails, the files are as they were.
"""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = ROOT / "beam_asr" / "_version.py"
CITATION = ROOT / "CITATION.cff"
CHANGELOG = ROOT / "CHANGELOG.md"
WRITTEN = (VERSION, CITATION, CHANGELOG)
# MAJOR.MINOR.PATCH, with a pre-release as PEP 440 writes it.
FORM = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?")
ASSIGNED = re.compile(r'^__version__ = "(.*)"$', re.M)
UNRELEASED = re.compile(r"^## Unreleased\n(.*?)(?=^## |\Z)", re.M | re.S)


class ReleaseError(Exception):
    """Says why there is no release, and what to do."""


def main(args: list[str]) -> int:
    if len(args) != 1:
        print("usage: python scripts/release.py VERSION", file=sys.stderr)
        return 2
    (version,) = args
    try:
        check(version)
        files = make(version)
    except ReleaseError as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    names = " ".join(str(path.relative_to(ROOT)) for path in files)
    print(f"v{version} is committed and tagged. To publish it:")
    print("  git push --atomic origin HEAD " + f"v{version}")
    print(f"  python -m twine upload {names}")
    print(f"To take it back before that: git tag -d v{version} && git reset --hard HEAD~1")
    return 0


def check(version: str) -> None:
    """Checks that there may be a release, before anything is changed."""
    if not FORM.fullmatch(version):
        raise ReleaseError(f"{version} is no version: write one as 1.2.3 or 1.2.3rc1")
    changed = git("status", "--porcelain")
    if changed:
        raise ReleaseError(f"the tree is not clean: commit or stash these files\n{changed}")
    if git("tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} is there: choose a later version")
    if order(version) < order(current()):
        raise ReleaseError(f"{version} is before {current()}: choose a later version")
    changelog = CHANGELOG.read_text(encoding="utf-8")
    if re.search(rf"^## {re.escape(version)}\b(?!\.)", changelog, re.M):
        raise ReleaseError(f"CHANGELOG.md has a section {version}: choose a later version")
    entries = UNRELEASED.search(changelog)
    if entries is None or not re.search(r"^- ", entries[1], re.M):
        raise ReleaseError("CHANGELOG.md has no entries under `Unreleased`: write what has changed")


def current() -> str:
    """Returns the version that the package has."""
    found = ASSIGNED.search(VERSION.read_text(encoding="utf-8"))
    if found is None:
        raise ReleaseError(f"{VERSION.name} has no line `__version__`: restore it")
    return found[1]


def order(version: str) -> tuple[int | str, ...]:
    """Returns a key by which versions are in order; a pre-release is before its release."""
    match = FORM.fullmatch(version)
    if match is None:
        raise ReleaseError(f"{VERSION.name} has the version {version}, and not one as 1.2.3")
    major, minor, patch, stage, number = match.groups()
    return int(major), int(minor), int(patch), stage or "release", int(number or 0)


def make(version: str) -> list[Path]:
    """Writes the version, builds, checks, commits and tags; returns the files in dist/."""
    before = {path: path.read_bytes() for path in WRITTEN}
    head = git("rev-parse", "HEAD")
    try:
        write(version, datetime.datetime.now(datetime.timezone.utc).date().isoformat())
        files = build(version)
        git("add", *(str(path) for path in WRITTEN))
        git("commit", "--quiet", "--message", f"Release {version}")
        git("tag", "--annotate", "--message", f"beam_asr {version}", f"v{version}")
    except BaseException:
        git("reset", "--quiet", "--soft", head)
        for path, content in before.items():
            path.write_bytes(content)
        git("add", *(str(path) for path in WRITTEN))
        raise
    return files


def write(version: str, date: str) -> None:
    """Writes the version where it stands, and closes the changelog's section."""
    replace(VERSION, ASSIGNED, f'__version__ = "{version}"')
    replace(CITATION, re.compile(r"^version: .*$", re.M), f"version: {version}")
    replace(
        CHANGELOG,
        re.compile(r"^## Unreleased\n", re.M),
        f"## Unreleased\n\n## {version} - {date}\n",
    )


def replace(path: Path, pattern: re.Pattern[str], by: str) -> None:
    text, count = pattern.subn(by, path.read_text(encoding="utf-8"))
    if count != 1:
        raise ReleaseError(f"{path.name} has {count} lines {pattern.pattern}, and not one")
    path.write_text(text, encoding="utf-8")


def build(version: str) -> list[Path]:
    """Builds the sdist and the wheel into dist/ and checks them as the package index does."""
    dist = ROOT / "dist"
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        # With the lock's setuptools, not with the newest.
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, str(ROOT))
        built = sorted(Path(folder).iterdir())
        names = {path.name for path in built}
        wanted = {f"beam_asr-{version}-py3-none-any.whl", f"beam_asr-{version}.tar.gz"}
        if names != wanted:
            raise ReleaseError(f"the build made {sorted(names)}, and not {sorted(wanted)}")
        run(sys.executable, "-m", "twine", "check", "--strict", *map(str, built))
        dist.mkdir(exist_ok=True)
        return [Path(shutil.copy(path, dist / path.name)) for path in built]


def git(*args: str) -> str:
    return run("git", *args)


def run(*command: str) -> str:
    """Runs a command in the repository; returns what it prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise ReleaseError(f"{' '.join(command[:3])} failed: fix what it says\n{said}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
