"""The image for one machine: its commands, run in a new environment, and what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.job_files import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
LINES = DOCKERFILE.replace("\\\n", " ").splitlines()
LOCK = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
INSTALLS_UV = 'python -m pip install --no-cache-dir "uv>=0.7"'


def instructions(name: str) -> list[str]:
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{name} ")]


def test_it_copies_what_is_there_and_all_that_the_package_needs():
    names = [name for line in instructions("COPY") for name in line.split()[:-1]]
    assert all((REPOSITORY / name).exists() for name in names)
    assert "beam_asr" in names
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert not set(names) & set(ignored)
    assert {".venv", ".git", ".cache"} < set(ignored)


def test_the_base_has_the_torch_of_the_lock():
    (torch,) = re.findall(r"^torch==([\d.]+)", LOCK, re.M)
    assert instructions("ARG")[0].startswith(f"BASE_IMAGE=pytorch/pytorch:{torch}-cuda")


def test_its_commands_make_an_environment_that_works(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("a new environment needs uv, which `make` installs")
    for name in (name for line in instructions("COPY") for name in line.split()[:-1]):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, tmp_path / name)
    venv = tmp_path / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    path = f"{venv / 'bin'}{os.pathsep}{uv.parent}{os.pathsep}{os.environ['PATH']}"
    here = {"UV_PYTHON": str(venv / "bin/python"), "UV_OFFLINE": "1", "UV_LINK_MODE": "symlink"}
    env = {**os.environ, **here, "PATH": path, "TORCH": "base"}
    env.pop("PYTHONPATH", None)

    def run(command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True
        )

    _, _, packages, package = instructions("RUN")
    assert INSTALLS_UV in packages
    installed = run(packages.replace(INSTALLS_UV, "true"))  # it is here already
    if installed.returncode and "cache" in installed.stderr:
        pytest.skip(f"the lock is not in uv's cache: {installed.stderr[-300:]}")
    assert installed.returncode == 0, installed.stderr
    brought = run(  # what the base image has
        "grep -vxFf without-torch.txt requirements.txt | grep == > base.txt"
        " && uv pip install --no-deps -r base.txt"
    )
    assert brought.returncode == 0, brought.stderr
    # Nothing is built in a place of its own, for which a package would be downloaded.
    ended = run(package.replace("--no-deps .", "--no-deps --no-build-isolation ."))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == re.search(r"^torch==(.+)", LOCK, re.M)[1] + "+cu130"
    checked = run("uv pip check && beam-asr --version")
    assert checked.returncode == 0, checked.stderr
    assert re.fullmatch(r"beam-asr [\d.]+\n", checked.stdout)
