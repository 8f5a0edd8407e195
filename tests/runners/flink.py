"""A real Flink: Beam's job server for it, and a cluster of a job manager and task managers.

python -m tests.runners.flink    fetches both into the repository's cache
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.emulators import CACHE, free_port

FLINK_VERSION = "1.19"
LIBRARIES = "apache-flink-libraries==1.19.0"  # the release that the runner was built with
POM = Path(__file__).parent / "pom.xml"

# What Flink's own scripts open to it on Java 17.
OPENED = {
    "exports": [
        "java.base/sun.net.util", "java.rmi/sun.rmi.registry",
        "java.security.jgss/sun.security.krb5", "jdk.compiler/com.sun.tools.javac.api",
    ],
    "opens": [
        "java.base/java.lang", "java.base/java.net", "java.base/java.io", "java.base/java.nio",
        "java.base/sun.nio.ch", "java.base/java.lang.reflect", "java.base/java.text",
        "java.base/java.time", "java.base/java.util", "java.base/java.util.concurrent",
        "java.base/java.util.concurrent.atomic", "java.base/java.util.concurrent.locks",
    ],
}  # fmt: skip
# None of them lives for long enough to repay the better of the two compilers.
SHORT_LIVED = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
JAVA = [
    "java", "-Dlog4j2.level=WARN", *SHORT_LIVED,
    *(f"--add-{kind}={each}=ALL-UNNAMED" for kind, names in OPENED.items() for each in names),
]  # fmt: skip


def missing() -> str | None:
    """What Flink needs and this machine has not."""
    absent = [command for command in ("java", "mvn") if not shutil.which(command)]
    return f"Flink needs {' and '.join(absent)}, which is not here" if absent else None


def job_server_jar() -> Path:
    """Beam's job server for Flink, assembled once."""
    jar = CACHE / f"flink-{FLINK_VERSION}-job-server-{_digest()}.jar"
    if not jar.exists():
        work = CACHE / f"{jar.stem}.part"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        shutil.copy(POM, work)
        subprocess.run(["mvn", "-B", "-q", "package"], cwd=work, check=True)
        (work / "target/flink-job-server.jar").rename(jar)
        shutil.rmtree(work)
    return jar


def libraries() -> Path:
    """The folder of Flink's own jars."""
    folder = CACHE / LIBRARIES
    if not folder.exists():
        work = CACHE / f"{LIBRARIES}.part"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work)]
        subprocess.run([*pip, "--no-binary=:all:", LIBRARIES], check=True)
        (package,) = work.glob("*.tar.gz")
        with tarfile.open(package) as tar:
            for member in tar:
                name = Path(member.name).name
                if "/deps/lib/" in member.name and name.startswith(("flink-dist", "log4j")):
                    member.name = name
                    tar.extract(member, work / "lib", filter="data")
        (work / "lib").rename(folder)
        shutil.rmtree(work)
    return folder


def _digest() -> str:
    import hashlib

    return hashlib.sha256(POM.read_bytes()).hexdigest()[:8]


class FlinkCluster:
    """A job manager on loopback, and its task managers, of two slots each."""

    def __init__(self, folder: Path):
        self._folder = folder
        # With Beam's runner among its own, Flink keeps workers from one step to the next.
        self._classpath = f"{libraries()}/*:{job_server_jar()}"
        self._task_managers: list[subprocess.Popen] = []
        attempt = 0
        while not self._start_job_manager(f"job-manager-{attempt}"):
            attempt += 1

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def add_task_manager(self) -> subprocess.Popen:
        number = len(self._task_managers)
        manager = self._start(
            f"task-manager-{number}",
            "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            "1g",
        )
        self._task_managers.append(manager)
        there = sum(each.poll() is None for each in self._task_managers)
        while (self.rest("overview") or {}).get("taskmanagers", 0) < there:
            if manager.poll() is not None or self._job_manager.poll() is not None:
                self._fail()
            time.sleep(0.2)
        return manager

    def kill_one(self) -> None:
        """Kills the task manager that works, or the first if several do."""
        busy = [
            each["id"]
            for each in self.rest("taskmanagers")["taskmanagers"]
            if each["freeSlots"] < each["slotsNumber"]
        ]
        number = int(busy[0].rpartition("-")[2])
        self._task_managers[number].kill()

    def jobs(self) -> list[dict[str, Any]]:
        """Their ``jid``, ``state`` and so on, the latest first."""
        return sorted(self.rest("jobs/overview")["jobs"], key=lambda job: -job["start-time"])

    def cancel(self, job_id: str) -> None:
        address = f"http://{self.address}/jobs/{job_id}?mode=cancel"
        urllib.request.urlopen(urllib.request.Request(address, method="PATCH"), timeout=30).close()

    def rest(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://{self.address}/{path}", timeout=30) as answer:
                return json.load(answer)
        except OSError:
            return None

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        for process in (*self._task_managers, self._job_manager):
            process.kill()
            process.wait()

    def _start_job_manager(self, name: str) -> bool:
        """Starts it; tells whether it has the ports that were free before it took them."""
        self.port = free_port()
        self._rpc_port = free_port()
        self._job_manager = self._start(
            name, "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint", "512m"
        )
        while self.rest("overview") is None:
            if self._job_manager.poll() is not None:
                if "BindException" in (self._folder / f"{name}.log").read_text():
                    return False
                self._fail()
            time.sleep(0.2)
        return True

    def _start(self, name: str, entry_point: str, heap: str) -> subprocess.Popen:
        conf = self._folder / name
        conf.mkdir()
        settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": self._rpc_port,
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.port,
            "taskmanager.host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": 2,
            "taskmanager.cpu.cores": 2,
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.task.heap.size": "512m",
            "taskmanager.memory.task.off-heap.size": "0",
            "taskmanager.memory.managed.size": "128m",
            "taskmanager.memory.network.min": "512m",
            "taskmanager.memory.network.max": "512m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
            "jobmanager.memory.process.size": "1g",
            "taskmanager.resource-id": name,
            # A killed task manager is missed soon, by the messages that do not reach it, and
            # one that is slow to answer, on a busy machine, is not missed.
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 600_000,
            "classloader.resolve-order": "parent-first",
            "io.tmp.dirs": str(conf),
            "blob.storage.directory": str(conf),
        }
        lines = [f"{key}: {value}\n" for key, value in settings.items()]
        (conf / "config.yaml").write_text("".join(lines))
        command = [
            *JAVA, f"-Xmx{heap}", "-cp", self._classpath, entry_point, "--configDir", str(conf),
        ]  # fmt: skip
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=conf, stdout=log, stderr=subprocess.STDOUT)

    def _fail(self) -> NoReturn:
        self.close()
        pytest.fail(f"Flink did not start:\n{self.logs()[-4000:]}")


@contextmanager
def flink_cluster(folder: Path, task_managers: int = 2) -> Iterator[FlinkCluster]:
    cluster = FlinkCluster(folder)
    try:
        for _ in range(task_managers):
            cluster.add_task_manager()
        yield cluster
    finally:
        cluster.close()


if __name__ == "__main__":
    if missing():
        sys.exit(missing())
    print(job_server_jar().relative_to(os.getcwd()), libraries().relative_to(os.getcwd()))
