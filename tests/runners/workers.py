"""Pools of workers, as run beside a runner that asks for them (``EXTERNAL``); and Prism."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.emulators import free_port, installed

PRISM = "github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0"
BOOT = "github.com/apache/beam/sdks/v2/python/container@v2.77.0"

# The program that is an image's entry point makes a virtual environment for each worker otherwise.
IN_PLACE = {"RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"}


class WorkerPool:
    """Beam's worker pool in a process of its own, which starts ``python`` for each worker.

    Args:
        by_boot: whether by the entry point of Beam's images, as their ``--worker_pool`` does: it
            takes seconds, to list all packages.
    """

    def __init__(self, log: Path, environment: dict[str, str], by_boot: bool):
        self.port = free_port()
        self.log = log
        command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
        if by_boot:
            command.append(f"--container_executable={boot()}")
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, f"--service_port={self.port}"],
                env={**os.environ, **environment, **IN_PLACE},
                cwd=log.parent,  # in which the entry point leaves a file
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the worker pool did not start:\n{log.read_text()}")
            time.sleep(0.1)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def kill(self) -> None:
        """Kills it and its workers, as a machine that is gone."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def boot() -> Path:
    """The entry point of Beam's images, compiled once; it starts ``python`` for a worker."""
    if not shutil.which("go"):
        pytest.skip("the entry point of Beam's images is compiled with go, which is not here")
    return installed(BOOT, "go", "install", folder_variable="GOBIN") / "container"


def prism() -> Path:
    """Beam's Prism, compiled once."""
    if not shutil.which("go"):
        pytest.skip("Prism is compiled with go, which is not here")
    return installed(PRISM, "go", "install", folder_variable="GOBIN") / "prism"
