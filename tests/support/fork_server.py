"""Processes that begin with NeMo imported: for runs of ``beam-asr``, and for workers of runners.

Importing NeMo takes half a minute; a process that has done so, and nothing else, forks for each
one that is requested. They can be killed, and their windows are scaled down with their data.

Each connection to the server's socket stands for a process: it begins with a request, and one that
is closed before the process has ended kills it.

    request: {"args": [...], "cwd": path, "env": {...}} with stdout and stderr as descriptors
    answers: {"pid": n}, and when the process has ended, {"status": n} (negative: the signal)

The arguments are those of ``python`` (``-c`` or ``-m``). What the variable SETTINGS holds changes
the process: {"scale": x, "counts": path, "loads": path, "fault": name, "hold_after": n}, each of
them optional.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
SETTINGS = "BEAM_ASR_FORK_SETTINGS"
MOST_BYTES = 1 << 20  # of a request

# What a runner starts as `python`: for a worker, it has the server fork, and ends as that one does.
# Before it starts a worker, and with each job, Beam lists the packages, which do not change.
PYTHON = """#!{executable} -SE
import json, os, signal, socket, sys
if sys.argv[1:4] == ["-m", "pip", "freeze"]:
    import subprocess
    listed = {packages!r} + "".join(sys.argv[4:])
    if not os.path.exists(listed):
        part = f"{{listed}}.{{os.getpid()}}"
        with open(part, "wb") as out:
            subprocess.run([{executable!r}, *sys.argv[1:]], stdout=out, check=True)
        os.replace(part, listed)
    sys.stdout.write(open(listed).read())
    sys.exit()
if "apache_beam.runners.worker" not in " ".join(sys.argv[1:3]):
    os.execv({executable!r}, [{executable!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = {{"args": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
socket.send_fds(server, [json.dumps(request).encode() + b"\\n"], [1, 2])
answers = server.makefile()
pid = json.loads(answers.readline())["pid"]
signal.signal(signal.SIGTERM, lambda number, frame: os.kill(pid, number))
status = json.loads(answers.readline())["status"]
os._exit(status if status >= 0 else 128 - status)
"""


class Run:
    """A process that the server has forked."""

    def __init__(self, address: str, request: dict[str, Any], log: Path):
        settings = json.loads(request["env"][SETTINGS])
        self.log = log
        self.counts = Path(settings["counts"])
        self.loads = Path(settings["loads"])
        self._held = held_file(settings["counts"])
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(address)
        with log.open("wb") as out:
            descriptors = [out.fileno(), out.fileno()]
            content = json.dumps(request).encode() + b"\n"
            socket.send_fds(self._server, [content], descriptors)
        self._answers = self._server.makefile()
        self.pid = self._answer()["pid"]

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended before
            os.kill(self.pid, number)

    def has_ended(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def status(self, timeout: float | None = None) -> int:
        """Waits for its end; negative is the number of the signal that ended it.

        Args:
            timeout: seconds after which it is killed.
        """
        killer = threading.Timer(timeout, self.signal, [signal.SIGKILL]) if timeout else None
        if killer is not None:
            killer.start()
        status = self._answer()["status"]
        if killer is not None:
            killer.cancel()
        self._server.close()
        return status

    def output(self) -> str:
        return self.log.read_text()

    def decoded(self) -> list[str]:
        """The audio of the clips that have been through a model."""
        return self.counts.read_text().splitlines() if self.counts.exists() else []

    def wait_until_held(self) -> None:
        """Until it waits for the model in vain, and has done all with the results that it has."""
        wait_until(lambda: self._held.exists() or self.has_ended())
        assert self._held.exists(), self.output()

    def release(self) -> None:
        self._held.unlink()

    def loaded(self) -> list[int]:
        """The process of each load of a model."""
        return list(map(int, self.loads.read_text().split())) if self.loads.exists() else []

    def _answer(self) -> dict:
        line = self._answers.readline()
        assert line, "the fork server has died"
        return json.loads(line)


class ForkServer:
    """The client's side.

    Args:
        beam_caches: whether its processes have `tests.support.beam_caches`.
    """

    def __init__(self, folder: Path, beam_caches: bool = False):
        self._folder = folder
        self._runs = self._logs = 0
        self._address = str(folder / "socket")
        # What is first on the PATH of something that starts workers.
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("python", "python3"):
            program = PYTHON.format(
                executable=sys.executable, address=self._address, packages=str(folder / "packages")
            )
            (self.bin / name).write_text(program)
            (self.bin / name).chmod(0o755)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.fork_server",
                self._address,
                *(["beam_caches"] if beam_caches else []),
            ],
            cwd=REPOSITORY,
            # With several, and all processors busy, they wait for each other at every operation.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline(), "the fork server has not started"

    def run(
        self,
        *args: object,
        scale: float = 1.0,
        fault: str | None = None,
        hold_after: int | None = None,
        env: dict[str, str] | None = None,
        command: str = "transcribe",
    ) -> Run:
        """Starts a run of a command of ``beam-asr``.

        Args:
            scale: of the seconds of windows, and of the audio that waits for the model.
            fault: one of `faults.model_faults`.
            hold_after: so many clips; the result after theirs comes when the run is released.
            env: of ``environment``, where others are to share it.
            command: its name.
        """
        environment = env or self.environment(scale, fault, hold_after)
        return self.start(["-m", "beam_asr", command, *map(str, args)], environment)

    def start(self, args: list[str], environment: dict[str, str], cwd: Path | None = None) -> Run:
        """Starts any program of Python, which is ``-c`` or ``-m`` and what follows it."""
        request = {
            "args": args,
            "cwd": str(cwd or os.getcwd()),
            "env": {**os.environ, **environment},
        }
        self._logs += 1
        return Run(self._address, request, self._folder / f"run{self._runs}.{self._logs}.log")

    def environment(
        self, scale: float = 1.0, fault: str | None = None, hold_after: int | None = None
    ) -> dict[str, str]:
        """For a run and the workers that it starts, or for a pool of workers."""
        self._runs += 1
        counts, loads = (self._folder / f"run{self._runs}.{each}" for each in ("counts", "loads"))
        settings = {
            "scale": scale, "fault": fault, "hold_after": hold_after,
            "counts": str(counts), "loads": str(loads),
        }  # fmt: skip
        return {
            SETTINGS: json.dumps(settings),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve(address: str, beam_caches: bool) -> None:
    import apache_beam  # noqa: F401
    import nemo.collections.asr.models  # noqa: F401

    if beam_caches:
        from tests.support import beam_caches as caches

        caches.install()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    os.dup2(2, 1)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    children: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select(0.02 if children else None):
            if key.fileobj is sys.stdin:  # closed: the client has ended
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                return
            if key.fileobj is listener:
                client, _ = listener.accept()
                pid = _fork(client)
                client.send(json.dumps({"pid": pid}).encode() + b"\n")
                children[pid] = client
                selector.register(client, selectors.EVENT_READ)
            else:  # its client is gone
                selector.unregister(key.fileobj)
                for pid, client in children.items():
                    if client is key.fileobj:
                        os.kill(pid, signal.SIGKILL)
        for pid, client in list(children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with contextlib.suppress(ProcessLookupError):  # what it has left running
                    os.killpg(pid, signal.SIGKILL)
                del children[pid]
                answer = json.dumps({"status": os.waitstatus_to_exitcode(status)})
                with contextlib.suppress(OSError):
                    client.send(answer.encode() + b"\n")
                with contextlib.suppress(KeyError):
                    selector.unregister(client)
                client.close()


def _fork(client: socket.socket) -> int:
    content, descriptors, _, _ = socket.recv_fds(client, MOST_BYTES, 2)
    while not content.endswith(b"\n"):
        content += client.recv(MOST_BYTES)
    pid = os.fork()
    if not pid:
        _child(json.loads(content), descriptors)
    for each in descriptors:
        os.close(each)
    return pid


def _child(request: dict, descriptors: list[int]) -> None:
    os.setsid()
    os.dup2(descriptors[0], 1)
    os.dup2(descriptors[1], 2)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    status = 1
    try:
        _change(json.loads(os.environ.get(SETTINGS, "{}")))
        kind, code, *args = [arg for arg in request["args"] if arg != "-u"]
        sys.argv = [kind, *args]
        # What starts workers by the name of the interpreter must get those that fork, too.
        sys.executable = str(Path(os.environ["PATH"].split(os.pathsep)[0], "python"))
        if kind == "-c":
            exec(code, {"__name__": "__main__"})
        else:
            runpy.run_module(code, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _change(settings: dict[str, Any]) -> None:
    from tests.faults.model_faults import FAULTS

    _scale(settings.get("scale", 1.0))
    if "counts" in settings:
        _count(settings["counts"], settings.get("hold_after"))
    if "loads" in settings:
        _count_loads(settings["loads"])
    if settings.get("fault"):
        FAULTS[settings["fault"]]()


def _scale(scale: float) -> None:
    from beam_asr.audio import clip_reader
    from beam_asr.models.serving import batcher
    from beam_asr.records import work
    from beam_asr.transforms import chunk_recognizer, transcribe

    for module, name in (
        (transcribe, "CHUNK_SECONDS"),
        (chunk_recognizer, "CHUNK_SECONDS"),
        (batcher, "FIRST_SECONDS"),
        (batcher, "MAX_SECONDS"),
        (clip_reader, "AHEAD_SECONDS"),
        (work, "GROUP_SECONDS"),
    ):
        setattr(module, name, max(1, round(scale * getattr(module, name))))


def held_file(counts: str) -> Path:
    return Path(f"{counts}.held")


def _count(path: str, hold_after: int | None) -> None:
    """Notes each clip whose result the model has given, in a file that survives the process."""
    from beam_asr.models.serving import batcher

    take = batcher.Batcher._collect
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    held, taken = held_file(path), 0

    def noted(self: batcher.Batcher, given: batcher._InFlight) -> batcher.Batch:
        nonlocal hold_after, taken
        if hold_after is not None and taken >= hold_after:
            hold_after = None
            held.touch()
            while held.exists():
                time.sleep(0.01)
        batch = take(self, given)
        taken += len(batch.results)
        os.write(file, "".join(f"{each.clip.audio}\n" for each in batch.results).encode())
        return batch

    batcher.Batcher._collect = noted


def _count_loads(path: str) -> None:
    """Notes the process of each load of a model."""
    from beam_asr.models import engine

    load = engine.load
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noted(*args: Any, **kwargs: Any) -> engine.Recognizer:
        os.write(file, f"{os.getpid()}\n".encode())
        return load(*args, **kwargs)

    engine.load = noted


if __name__ == "__main__":
    serve(sys.argv[1], "beam_caches" in sys.argv[2:])
