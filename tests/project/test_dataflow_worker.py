"""What the image does, without the image: the lock and the staged package in a new environment.

A worker of Beam's is started from that environment and runs the job for another one. Whatever the
package or the lock lacks is missing there, which tests in this environment would not see.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.support.job_files import REPOSITORY, SAMPLE_MODEL, SAMPLES, read_records, transcripts_of
from tests.support.worker_pools import PROGRAM, address_of

TEMPLATES = REPOSITORY / "templates" / "dataflow"
DOCKERFILE = (TEMPLATES / "Dockerfile").read_text(encoding="utf-8")
LOCK = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")


def copied() -> list[str]:
    """The files and folders of the repository that the Dockerfile copies."""
    joined = DOCKERFILE.replace("\\\n", " ")
    lines = re.findall(r"^COPY (?!--from)(.+)$", joined, re.M)
    return [name for line in lines for name in line.split()[:-1]]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The package as ``--setup_file`` has Beam build it, from what the Dockerfile copies."""
    from apache_beam.runners.portability.stager import Stager

    source = tmp_path_factory.mktemp("source")
    for name in copied():
        if (REPOSITORY / name).is_dir():
            shutil.copytree(
                REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, source / name)
    before = os.getcwd()
    os.chdir(source)
    try:
        return Path(
            Stager._build_setup_package(
                str(source / "pyproject.toml"), str(tmp_path_factory.mktemp("staged"))
            )
        )
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def environment(package, tmp_path_factory) -> Path:
    """A new environment with the lock and the package; nothing is downloaded."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("a new environment needs uv, which `make` installs")
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    # Links into uv's cache, which has what `make` installed, take seconds and no space.
    install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--link-mode=symlink"]
    install += ["--python", folder / "bin/python"]
    lock = subprocess.run(
        [*install, "--requirement", REPOSITORY / "requirements.txt"], capture_output=True, text=True
    )
    if "cache" in lock.stderr:
        pytest.skip(f"the lock is not in uv's cache: {lock.stderr[-300:]}")
    assert lock.returncode == 0, lock.stderr
    subprocess.run([*install, "--no-build-isolation", package], check=True)
    return folder


@pytest.fixture(scope="module")
def pool(environment, tmp_path_factory) -> Iterator[str]:
    """The address of a pool that starts workers from the new environment."""
    folder = tmp_path_factory.mktemp("pool")  # so that nothing of the repository is found
    log = folder / "log"
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"  # it starts `python`
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [environment / "bin/python", "-c", PROGRAM], cwd=folder, env={**env, "PATH": path},
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield address_of(log, lambda: process.poll() is not None)
        assert "Starting worker" in log.read_text()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers, which would outlive it
        process.wait()


def test_the_lock_has_all_that_is_needed(environment):
    uv = Path(sys.executable).with_name("uv")
    checked = subprocess.run(
        [uv, "pip", "check", "--python", environment / "bin/python"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_the_command_of_the_package_starts(environment):
    ended = subprocess.run(
        [environment / "bin/beam-asr", "transcribe", "--help"],
        cwd=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "--model_name" in ended.stdout


def test_a_worker_of_the_new_environment_transcribes_as_this_one_does(pool, tmp_path):
    manifest = SAMPLES / "manifest.jsonl"
    ended = subprocess.run(
        [
            sys.executable, "-m", "beam_asr", "transcribe", f"--input={manifest}",
            f"--output={tmp_path / 'out'}", f"--model_name={SAMPLE_MODEL}",
            "--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=EXTERNAL",
            f"--environment_config={pool}",
        ],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    expected = transcripts_of(manifest, SAMPLE_MODEL, tmp_path / "expected")

    def by_line(rows: list[dict]) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True) for row in rows)

    assert len(expected) == 12
    assert by_line(read_records(tmp_path / "out", "transcripts")) == by_line(expected)


# The files that say what is in the image agree.


def arg(name: str) -> str:
    """The default of an ARG of the Dockerfile."""
    return re.search(rf"^ARG {name}=(.*)$", DOCKERFILE, re.M)[1]


def locked(name: str) -> str:
    (version,) = re.findall(rf"^{name}==([\w.]+)", LOCK, re.M)
    return version


def test_the_images_are_of_the_releases_in_the_lock():
    minor = arg("PYTHON_MINOR")
    assert arg("BEAM_VERSION") == locked("apache-beam")
    assert re.fullmatch(rf"pytorch/pytorch:{re.escape(locked('torch'))}-cuda.+", arg("BASE_IMAGE"))
    assert f"/python{minor.replace('.', '')}-template-launcher-base:" in arg("LAUNCHER_IMAGE")
    project = (REPOSITORY / "pyproject.toml").read_text()
    requires = SpecifierSet(re.search(r'^requires-python = "(.+)"', project, re.M)[1])
    assert f"{minor}.0" in requires
    from apache_beam.runners.dataflow.internal import apiclient

    assert minor in apiclient._PYTHON_VERSIONS_SUPPORTED_BY_DATAFLOW


def test_the_base_brings_only_torch_and_what_nothing_else_needs_in_a_release():
    pattern = re.search(r"grep -vE '(.+)' requirements.txt", DOCKERFILE)[1]
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    left = {line.partition("==")[0] for line in lines if re.search(pattern, line)}
    assert {"torch", "triton"} < left
    assert len(left) < len(lines) / 4
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        if name in left:
            continue
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed = requirement.name.lower().replace("_", "-")
                any_will_do = needed == "torch" or not requirement.specifier
                assert any_will_do or needed not in left, f"{name} needs {requirement}"


def test_the_launchers_program_is_where_the_image_has_it():
    program = re.search(r"FLEX_TEMPLATE_PYTHON_PY_FILE=(\S+)", DOCKERFILE)[1]
    assert f"COPY templates/dataflow/main.py {program}" in DOCKERFILE
    assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in DOCKERFILE
    # With either of these the launcher would install everything once more.
    assert "FLEX_TEMPLATE_PYTHON_REQUIREMENTS_FILE" not in DOCKERFILE
    assert "FLEX_TEMPLATE_PYTHON_SETUP_FILE" not in DOCKERFILE
    build = (TEMPLATES / "cloudbuild.yaml").read_text()
    for name in re.findall(r"--build-arg=(\w+)=", build):
        assert re.search(rf"^ARG {name}=", DOCKERFILE, re.M)
