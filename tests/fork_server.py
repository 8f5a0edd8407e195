"""Runs ``beam-asr`` many times in processes of their own, having imported NeMo once.

Importing NeMo takes half a minute; a process that has done so, and nothing else, forks for each
run. Runs can be killed, and their windows are scaled down with their data.

    server: reads a JSON object a line:
                {"args": [...], "log": path, "counts": path, "scale": x, "fault": name or null}
            answers {"pid": n}, and when the run has ended, {"status": n} (negative: the signal)
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.faults.model_faults import FAULTS

REPOSITORY = Path(__file__).parent.parent


class Run:
    """A run of ``beam-asr`` in a process of its own."""

    def __init__(self, server: ForkServer, request: dict[str, Any]):
        self._server = server
        self.log = Path(request["log"])
        self.counts = Path(request["counts"])
        self.began = time.monotonic()
        self.pid = server.ask(request)["pid"]

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended before
            os.kill(self.pid, number)

    def status(self) -> int:
        """Waits for its end; negative is the number of the signal that ended it."""
        return self._server.answer()["status"]

    def output(self) -> str:
        return self.log.read_text()

    def decoded(self) -> list[str]:
        """The audio of the clips that have been through its model."""
        return self.counts.read_text().splitlines() if self.counts.exists() else []


class ForkServer:
    """The client's side; one run at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._runs = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server"],
            cwd=REPOSITORY,
            # With several, and all processors busy, they wait for each other at every operation.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer()

    def run(self, *args: object, scale: float = 1.0, fault: str | None = None) -> Run:
        """Starts a run of ``beam-asr transcribe``.

        Args:
            scale: of the seconds of windows, and of the audio that waits for the model.
            fault: one of `faults.model_faults`.
        """
        self._runs += 1
        log, counts = (self._folder / f"run{self._runs}.{kind}" for kind in ("log", "counts"))
        request = {
            "args": ["transcribe", *map(str, args)],
            "log": str(log),
            "counts": str(counts),
            "scale": scale,
            "fault": fault,
        }
        return Run(self, request)

    def ask(self, request: dict) -> dict:
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict:
        line = self._process.stdout.readline()
        assert line, "the fork server has died"
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    import apache_beam  # noqa: F401
    import nemo.collections.asr.models  # noqa: F401

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _child(request)
        print(json.dumps({"pid": pid}), file=answers)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), file=answers)


def _child(request: dict) -> None:
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 70
    try:
        from beam_asr import cli

        _scale(request["scale"])
        _count(request["counts"])
        if request["fault"]:
            FAULTS[request["fault"]]()
        status = cli.main(request["args"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _scale(scale: float) -> None:
    from beam_asr import backlog, clip_reader, transcribe, transcribe_windows

    for module, name in (
        (transcribe, "WINDOW_SECONDS"),
        (transcribe_windows, "WINDOW_SECONDS"),
        (backlog, "FIRST_SECONDS"),
        (backlog, "MOST_SECONDS"),
        (clip_reader, "AHEAD_SECONDS"),
    ):
        setattr(module, name, max(1, round(scale * getattr(module, name))))


def _count(path: str) -> None:
    """Notes each clip whose result the model has given, in a file that survives the process."""
    from beam_asr import backlog

    take = backlog.Backlog._take
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def noted(self: backlog.Backlog, given: backlog._Given) -> backlog.Batch:
        batch = take(self, given)
        os.write(file, "".join(f"{each.clip.audio}\n" for each in batch.results).encode())
        return batch

    backlog.Backlog._take = noted


if __name__ == "__main__":
    serve()
