"""The runners that the job is run on, each started once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.runners import flink, workers
from tests.support.fork_server import ForkServer, Run
from tests.support.waiting import MAX_SECONDS


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item):
    """Has a fixture know how its test ended."""
    report = yield
    setattr(item, f"rep_{report.when}", report)
    return report


# A worker lives on from one step to the next, where Flink would start another: that saves a minute.
KEPT = "--environment_cache_millis=20000"


class Ended(NamedTuple):
    """A run that has ended.

    Attributes:
        loads: the process of each load of a model.
        decoded: the audio of each clip that has been through a model.
    """

    status: int
    said: str
    loads: list[int]
    decoded: list[str]


class Runner:
    """Where a job is run: flags, and what must be there for them."""

    def __init__(
        self,
        name: str,
        fork_server: ForkServer,
        folder: Path,
        flags: list[str] | Callable[[], list[str]],
        pooled: bool = False,
        process: bool = False,
        by_boot: bool = False,
    ):
        self.name = name
        self._fork_server = fork_server
        self._folder = folder
        self._flags = flags
        self._pooled = pooled
        self._process = process
        self._by_boot = by_boot

    def start(
        self,
        *flags: object,
        fault: str | None = None,
        scale: float = 1.0,
        hold_after: int | None = None,
        command: str = "transcribe",
    ) -> Started:
        own = self._flags() if callable(self._flags) else self._flags
        environment = self._fork_server.environment(scale, fault, hold_after)
        # Of the job server that Beam starts for a run on Flink.
        environment["JAVA_TOOL_OPTIONS"] = " ".join(flink.SHORT_LIVED)
        pool = None
        if self._pooled:
            pool = workers.WorkerPool(self._fork_server, environment, self._folder, self._by_boot)
            own = [*own, "--environment_type=EXTERNAL", f"--environment_config={pool.address}"]
        if self._process:
            config = {
                "command": str(workers.boot()),
                "env": {**environment, **workers.IN_PLACE},
            }
            own = [
                *own, "--environment_type=PROCESS", f"--environment_config={json.dumps(config)}"
            ]  # fmt: skip
        run = self._fork_server.run(*flags, *own, env=environment, command=command)
        return Started(run, pool)

    def run(self, *flags: object, **how: Any) -> Ended:
        return self.start(*flags, **how).ended()


class Started:
    """A run, and the pool of its workers if it has one."""

    def __init__(self, run: Run, pool: workers.WorkerPool | None):
        self.run = run
        self.pool = pool

    def ended(self) -> Ended:
        status = self.run.status(MAX_SECONDS)
        if self.pool is not None:
            self.pool.close()
        return Ended(status, self.run.output(), self.run.loaded(), self.run.decoded())


@pytest.fixture(scope="package")
def flink_jar() -> Path:
    if flink.missing():
        pytest.skip(flink.missing())
    return flink.job_server_jar()


@pytest.fixture(scope="package")
def cluster(tmp_path_factory) -> Iterator[flink.FlinkCluster]:
    """A standalone Flink with two task managers, which ends with the tests of this folder."""
    if flink.missing():
        pytest.skip(flink.missing())
    with flink.flink_cluster(tmp_path_factory.mktemp("flink")) as running:
        yield running


@pytest.fixture(scope="package")
def runner(request, fork_server, tmp_path_factory) -> Callable[[str], Runner]:
    """Gives a runner by its name in the table of docs/runners.md."""
    folder = tmp_path_factory.mktemp("runners")

    def flink_flags(*more: str) -> list[str]:
        jar = request.getfixturevalue("flink_jar")
        return [
            "--runner=FlinkRunner", f"--flink_job_server_jar={jar}",
            f"--flink_version={flink.FLINK_VERSION}", "--parallelism=2", *more,
        ]  # fmt: skip

    def on_cluster() -> list[str]:
        master = f"--flink_master={request.getfixturevalue('cluster').address}"
        return flink_flags(master, KEPT)

    two = ["--runner=DirectRunner", "--direct_num_workers=2"]
    embed = ["--runner=PortableRunner", "--job_endpoint=embed"]
    runners = {
        "DirectRunner, threads": ([*two, "--direct_running_mode=multi_threading"],),
        "DirectRunner, processes": ([*two, "--direct_running_mode=multi_processing"],),
        "portable embed, worker pool": (embed, True, False, True),
        "Prism": (lambda: ["--runner=PrismRunner", f"--prism_location={workers.prism()}"],),
        "Flink embedded": (flink_flags,),
        "Flink standalone, worker pool": (on_cluster, True),
        "Flink standalone, processes": (on_cluster, False, True),
        "Flink of the caller's, worker pool": (lambda: flink_flags(KEPT), True),
    }
    return lambda name: Runner(name, fork_server, folder, *runners[name])
