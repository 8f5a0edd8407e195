"""Two worker processes beside one: the long-tailed corpus on two cores, in turns.

    .venv/bin/python -m benchmarks.workers                         # some ten minutes on two cores
    .venv/bin/python -m benchmarks.workers --models=sample --cold_runs=0

torch has one thread in each process, so one worker computes on one core and two workers on two.

    cold        the command as a user gives it, which imports NeMo and loads the model
    imported    the same, in processes that begin with NeMo imported (`tests.support.fork_server`)
    work        imported, less the same job over two clips: less the model's load and what any job
                costs

Cold runs also tell the memory of each process, at the moment at which all of them held the most:
RSS is what is mapped, PSS counts a page that n processes share as 1/n, own is what no other has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import corpora, machine
from benchmarks.speed import MODELS
from tests.support.fork_server import ForkServer

CORPUS = "long-tailed"
WORKERS = {
    "one": ["--direct_num_workers=1"],
    "two": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class Taken(NamedTuple):
    """What a job took.

    Attributes:
        seconds: wall time of the command.
        summary: as the job wrote it.
        texts: by the audio's name.
        memory: RSS, PSS and own memory in MB of each process, of cold runs.
    """

    seconds: float
    summary: dict[str, Any]
    texts: dict[str, str]
    memory: list[tuple[float, float, float]]


class Jobs:
    """Runs the job in new processes, cold or with NeMo imported."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._server = ForkServer(folder)
        self._runs = 0

    def run(self, workers: str, manifest: Path, model: Path, cold: bool = False) -> Taken:
        self._runs += 1
        output = self._folder / f"out-{self._runs}"
        flags = [f"--input={manifest}", f"--output={output}", f"--model_name={model}"]
        flags += ["--device=cpu", *WORKERS[workers]]
        memory: list[tuple[float, float, float]] = []
        started = time.monotonic()
        if cold:
            log = self._folder / "cold.log"
            with log.open("w") as out:
                process = subprocess.Popen(
                    [sys.executable, "-m", "beam_asr", "transcribe", *flags],
                    cwd=corpora.ROOT,
                    stdout=out,
                    stderr=out,
                )
            while process.poll() is None:
                memory = max(memory, memory_of(process.pid), key=lambda all: sum(m[1] for m in all))
                time.sleep(0.5)
            status, said = process.returncode, log.read_text()
        else:
            run = self._server.run(*flags)
            status = run.status()
            said = run.output()
        seconds = time.monotonic() - started
        if status != 0:
            raise RuntimeError(f"the job ended with status {status}: {said[-2000:]}")
        lines = [
            json.loads(line)
            for shard in output.glob("transcripts-*")
            for line in shard.read_text().splitlines()
        ]
        return Taken(
            seconds,
            json.loads((output / "summary.json").read_text()),
            {row["audio_filepath"]: row["pred_text"] for row in lines},
            memory,
        )

    def close(self) -> None:
        self._server.close()


def memory_of(pid: int) -> list[tuple[float, float, float]]:
    """RSS, PSS and own memory in MB of a process and of those below it, the largest first."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += memory_of(int(child))
        fields = dict.fromkeys(("Rss", "Pss", "Private_Clean", "Private_Dirty"), 0.0)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, kib, _ = line.split()
            fields[name.rstrip(":")] = int(kib) * 1024 / 1e6
        own = fields["Private_Clean"] + fields["Private_Dirty"]
        found.append((fields["Rss"], fields["Pss"], own))
    return sorted(found, reverse=True)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="sample", help=f"some of {', '.join(MODELS)}")
    parser.add_argument("--runs", type=int, default=5, help="of each, with NeMo imported")
    parser.add_argument("--cold_runs", type=int, default=3, help="of each, cold")
    parsed = parser.parse_args(args)

    manifest = corpora.manifest(CORPUS)
    few = corpora.manifest(CORPUS, 2)
    seconds = sum(clip.seconds for clip in corpora.clips(manifest))
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(Path(folder))
        print(machine.describe("apache-beam", "nemo_toolkit", "torch"))
        try:
            for name in parsed.models.split(","):
                print(f"\nModel {name}, {CORPUS}: {seconds:.0f} s of audio\n")
                kinds = {
                    "cold": (manifest, parsed.cold_runs, True),
                    "imported": (manifest, parsed.runs, False),
                    "two clips": (few, parsed.runs, False),
                }
                taken = {
                    kind: measure(jobs, each, MODELS[name], runs, cold)
                    for kind, (each, runs, cold) in kinds.items()
                    if runs
                }
                print(*table(taken), sep="\n", flush=True)
        finally:
            jobs.close()


def measure(
    jobs: Jobs, manifest: Path, model: Path, runs: int, cold: bool
) -> dict[str, list[Taken]]:
    """Runs of one worker and of two, in turns."""
    taken: dict[str, list[Taken]] = {workers: [] for workers in WORKERS}
    for _ in range(runs):
        for workers in WORKERS:
            load = os.getloadavg()[0]
            taken[workers].append(jobs.run(workers, manifest, model, cold))
            print(
                f"  {manifest.stem} {workers}: {taken[workers][-1].seconds:.1f} s, load {load:.1f}",
                file=sys.stderr,
            )
    return taken


def table(taken: dict[str, dict[str, list[Taken]]]) -> list[str]:
    """A row for each kind of run, and what is to be said of them together."""
    lines = [
        "| | one worker, s: median (least to most) | two workers, s | two / one |",
        "| --- | --- | --- | --- |",
    ]
    times = {
        kind: {workers: [run.seconds for run in runs] for workers, runs in by.items()}
        for kind, by in taken.items()
    }
    if "imported" in times:
        few = {workers: statistics.median(each) for workers, each in times["two clips"].items()}
        times["work"] = {
            workers: [seconds - few[workers] for seconds in each]
            for workers, each in times["imported"].items()
        }
    for kind, by in times.items():
        one, two = statistics.median(by["one"]), statistics.median(by["two"])
        lines.append(f"| {kind} | {_spread(by['one'])} | {_spread(by['two'])} | {two / one:.2f} |")
    whole = [by for kind, by in taken.items() if kind != "two clips"]
    texts = [run.texts for by in whole for runs in by.values() for run in runs]
    unlike = sum(len({each[name] for each in texts}) > 1 for name in texts[0])
    lines += ["", f"Clips whose texts are not the same in all runs: {unlike} of {len(texts[0])}."]
    for workers, runs in taken.get("cold", {}).items():
        each = "; ".join(f"{rss:.0f}, {pss:.0f}, {own:.0f}" for rss, pss, own in runs[-1].memory)
        lines.append(f"{workers}: MB of RSS, PSS, own of each process: {each}.")
    for workers, runs in whole[-1].items():
        summary = runs[-1].summary
        lines.append(
            f"{workers}: model {summary['model_seconds']} s, waited "
            f"{summary['model_wait_seconds']} s, padding {summary['padding_efficiency']}."
        )
    return lines


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
