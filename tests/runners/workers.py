"""Pools of workers, as run beside a runner that asks for them (``EXTERNAL``); and Prism."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.emulators import installed
from tests.support.fork_server import ForkServer
from tests.support.worker_pools import PROGRAM, address_of

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

    def __init__(
        self, fork_server: ForkServer, environment: dict[str, str], folder: Path, by_boot: bool
    ):
        args = ["-c", PROGRAM, *([str(boot())] if by_boot else [])]
        # The entry point leaves a file in its working folder.
        self._run = fork_server.start(args, {**environment, **IN_PLACE}, folder)
        self.log = self._run.log
        self.address = address_of(self.log, self._run.has_ended)

    def kill(self) -> None:
        """Kills it and its workers, as a machine that is gone."""
        os.killpg(self._run.pid, signal.SIGKILL)
        self._run.status()

    def close(self) -> None:
        if not self._run.has_ended():
            self.kill()


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
