"""The wheel and the sdist hold all they need, and the locks and lists agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from tests.support.job_files import REPOSITORY


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the project without what is no part of the package."""
    source = tmp_path_factory.mktemp("source") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if not name.startswith(("samples/", "tests/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, source / name)
    return source


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """A folder with the sdist, and the wheel made from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    return out


def test_the_wheel_holds_every_module_and_the_command(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "beam-asr = beam_asr.__main__:main" in archive.read(points).decode()
        (metadata,) = [name for name in names if name.endswith("METADATA")]
        text = archive.read(metadata).decode()
    package = REPOSITORY / "beam_asr"
    templates = (package / "outputs/report/templates").iterdir()
    modules = {str(path.relative_to(REPOSITORY)) for path in package.rglob("*.py")}
    assert {name for name in names if not name.startswith("beam_asr-")} == {
        *modules,
        *(str(path.relative_to(REPOSITORY)) for path in templates),
        "beam_asr/py.typed",
        "beam_asr/transforms/yaml_provider.yaml",
    }
    assert "Name: beam-asr" in text
    required = re.findall(r"^Requires-Dist: ([\w\[\]-]+)[^;\n]*$", text, re.M)
    assert {"nemo-toolkit[asr]", "apache-beam"} <= {name.replace("_", "-") for name in required}
    extras = re.findall(r'^Requires-Dist: ([\w\[\]-]+).*; extra == "(gcp|s3|azure|hf)"', text, re.M)
    assert extras == [
        ("apache-beam[gcp]", "gcp"), ("gcsfs", "gcp"), ("s3fs", "s3"), ("adlfs", "azure"),
        ("huggingface_hub", "hf"),
    ]  # fmt: skip


def test_the_sdist_builds_without_the_repository(built):
    # The wheel was made from it; it must also hold what a user needs to install the lock.
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert {path.name for path in REPOSITORY.glob("requirements*")} <= names


def test_beam_builds_the_package_that_it_stages(source, tmp_path, monkeypatch):
    from apache_beam.runners.portability.stager import Stager

    monkeypatch.chdir(source)
    package = Stager._build_setup_package(str(source / "pyproject.toml"), str(tmp_path))
    with tarfile.open(package) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"beam_asr/transforms/transcribe.py", "pyproject.toml"} <= names


def direct(extra: str = "") -> set[str]:
    """Returns the packages that pyproject.toml requires, or those of an extra."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    listed = re.search(rf"^{extra or 'dependencies'} = \[(.*?)\]$", project, re.M | re.DOTALL)[1]
    listed = re.sub(r"^ *#.*$", "", listed, flags=re.M)
    return {name.lower().replace("_", "-") for name in re.findall(r'"([\w-]+)', listed)}


def pinned(name: str) -> dict[str, set[str]]:
    """The versions of each package; a lock may have several, for different Pythons."""
    found: dict[str, set[str]] = {}
    for line in (REPOSITORY / name).read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?==(\S+)", line):
            found.setdefault(match[1].lower().replace("_", "-"), set()).add(match[2])
    return found


def test_the_lock_pins_every_direct_dependency():
    for lock, extras in (
        ("requirements.txt", ("", "gcp")),
        ("requirements-storage.txt", ("s3", "azure", "hf")),
        ("requirements-test.txt", ("test",)),
    ):
        wanted = {package for extra in extras for package in direct(extra)}
        locks = {*pinned(lock), *pinned("requirements.txt"), *pinned("requirements-storage.txt")}
        assert wanted, lock
        assert wanted <= locks


def test_the_locks_install_on_top_of_each_other():
    known: dict[str, set[str]] = {}
    for lock in ("requirements.txt", "requirements-storage.txt", "requirements-test.txt"):
        for name, versions in pinned(lock).items():
            assert versions <= known.setdefault(name, versions), (lock, name)


def test_every_third_party_import_is_a_direct_dependency():
    imports = set()
    for path in (REPOSITORY / "beam_asr").rglob("*.py"):
        imports |= set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.M))
    third_party = imports - set(sys.stdlib_module_names) - {"beam_asr"}
    packages = {"apache_beam": "apache-beam", "nemo": "nemo-toolkit", "yaml": "pyyaml"}
    packages |= {"whisper_normalizer": "whisper-normalizer", "google": "apache-beam"}
    packages |= {"azure": "adlfs"}  # which is installed for its storage alone
    listed = {package for extra in ("", "gcp", "s3", "azure", "hf") for package in direct(extra)}
    assert {packages.get(name, name) for name in third_party} <= listed
