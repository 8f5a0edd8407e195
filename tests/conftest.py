"""Fixtures: real models, real clips, and the job as a user runs it."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# In the tests' small models OpenMP's threads would mostly spin, waiting for each other. It reads
# this when torch is imported, in this process and in those that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from beam_asr.cli import main
from tests.support import beam_caches
from tests.support.fork_server import ForkServer
from tests.support.job_files import REPOSITORY

pytest_plugins = [
    "tests.support.audio_files",
    "tests.support.chromium",
    "tests.support.emulators",
    "tests.support.servers",
]

beam_caches.install()

# By default an example may take 200 ms, which on a busy machine says nothing of the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


# What takes seconds to start, and most of it a model: tests that use one have the marker `model`.
MODEL_FIXTURES = frozenset(
    [
        "browser",
        "tiny_model",
        "fork_server",
        "load",
        "nemo_extract",
        "prompts",
        "gs_store",
        "s3_store",
        "az_store",
    ]
)
STORES = frozenset(["gs", "s3", "az"])  # parameters of fixtures that use these stores
# Folders and files of unit tests most of which load a model, start processes for seconds, or run
# whole jobs, and single tests that do.
MODEL_PLACES = (
    "unit/models/nemo/",
    "unit/models/devices/test_cpu_memory.py",
    "unit/models/devices/test_gpu_slots.py",
    "unit/models/serving/test_batcher.py::test_no_clip_waits_for_more_than_a_bounded_amount",
    "unit/models/serving/test_faults.py",
    "unit/models/test_archive_check.py",
    "unit/models/test_hostile_files.py",
    "unit/models/test_prompts.py",
    "unit/models/devices/test_resources.py::test_a_process_computes_in_as_many_threads_as_it_may",
    "unit/audio/test_container_clocks.py",
    "unit/audio/test_hostile_files.py",
    "unit/audio/test_remote_files.py",
    "unit/inputs/test_hostile_files.py",
    "unit/outputs/test_folder_lock.py::test_of_two_runs_that_begin_at_once",
    "unit/cli/test_main.py::test_launching_a_job_imports_neither_nemo_nor_torch",
    "unit/cli/test_main.py::test_ctrl_c_in_the_first_seconds_ends_without_a_traceback",
    "unit/outputs/formats/test_table.py::test_a_file_of_many_groups_takes_the_memory_of_few",
    "unit/storage/test_storage.py::test_a_missing_package_is_named_at_launch",
    "unit/transforms/test_bigquery.py::test_without_googles_packages_the_error_names",
    "unit/transforms/test_beam_yaml.py",
    "unit/transforms/test_channels.py",
    "unit/transforms/test_run_inference.py",
)


@pytest.fixture(autouse=True)
def root_log_level() -> None:
    """Warnings are logged in each test: what ran before may have set the root logger's level."""
    logging.getLogger().setLevel(logging.WARNING)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(item, "callspec", None)
        values = parameters.params.values() if parameters is not None else ()
        uses_store = any(isinstance(value, str) and value in STORES for value in values)
        is_there = any(f"tests/{place}" in item.nodeid for place in MODEL_PLACES)
        if uses_store or is_there or MODEL_FIXTURES.intersection(item.fixturenames):
            item.add_marker("model")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Callable[[str], Path]:
    """Gives the ``.nemo`` of a tiny random model of a decoder family, built once."""
    from tests.support import tiny_models

    folder = tmp_path_factory.mktemp("models")
    return functools.cache(lambda family: tiny_models.build(family, folder))


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory) -> Iterator[ForkServer]:
    """Runs the job in processes of its own, which can be killed."""
    server = ForkServer(tmp_path_factory.mktemp("runs"), beam_caches=True)
    yield server
    server.close()


@pytest.fixture(scope="session")
def prompts() -> Path:
    """The folder of Debian's 568 recorded English prompts, with their manifests."""
    if not shutil.which("apt-get"):
        pytest.skip("the recorded prompts come from Debian's packages, and apt-get is not here")
    folder = REPOSITORY / ".cache" / "prompts"
    subprocess.run(
        ["bash", str(REPOSITORY / "tests/support/fetch_prompts.sh"), str(folder)], check=True
    )
    return folder


@pytest.fixture
def transcribe(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs ``beam-asr transcribe`` in this process; gives status, output and errors."""

    def run(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.main(["transcribe", *map(str, args)])
        return status, *capsys.readouterr()

    return run
