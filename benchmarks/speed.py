"""Our job beside the floor under it and its peers: the same clips, the same model, in turns.

    .venv/bin/python -m benchmarks.speed                       # everything: some hours on two cores
    .venv/bin/python -m benchmarks.speed --models=sample --contestants=job,floor-40 --limit=20

Each contestant is a process that has loaded the model and transcribed a few clips before any clock
starts; then they take turns. All use the CPU alone.

    job             our whole job: manifest on disk to JSONL on disk, by the command line
    floor-N         our recognizer on waveforms in memory, batches of N padded seconds, nothing else
    nemo-shuffled   NeMo's transcribe(paths, batch_size=16), in the manifest's order
    nemo-sorted     the same, the longest clip first
    nemo-single     NeMo's transcribe(paths, batch_size=1)
    curator         NeMo Curator's ASR stage, batches of 16; see curator_stage
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import corpora, curator_env, machine
from benchmarks.contestants import CONTESTANTS

SAMPLE = corpora.ROOT / "samples" / "model.nemo"
LARGE = corpora.MADE / "fastconformer.nemo"
MODELS = {"sample": SAMPLE, "fastconformer": LARGE}
WARM_UP_CLIPS = 4
# Whose texts the others' are compared with, the best one first: alone, no clip has neighbors.
REFERENCES = ("nemo-single", "nemo-sorted", "nemo-shuffled")


class DiedError(RuntimeError):
    """A contestant's process has ended; says how."""


class Worker:
    """A contestant's process, started when it is first needed, and again after it died."""

    def __init__(self, name: str, model: Path, threads: int):
        self.name = name
        self._model = model
        self._threads = threads
        self._process: subprocess.Popen[str] | None = None
        self._log = corpora.MADE / f"{name}.log"

    def start(self) -> None:
        if self._process is not None:
            return
        try:
            python = curator_env.python() if self.name == "curator" else sys.executable
        except subprocess.CalledProcessError as error:
            reason = " ".join(error.stderr.split())
            raise DiedError(f"its environment cannot be made: {reason[-300:]}") from error
        few = corpora.manifest("prompts", WARM_UP_CLIPS)
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": str(self._threads),
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker", self.name, self._model, few],
                cwd=corpora.ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answer()

    def run(self, manifest: Path) -> dict[str, Any]:
        """Seconds, peak memory, texts and notes of a run.

        Raises:
            DiedError: there is none.
        """
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: the answer tells how
            print(manifest, file=self._process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        self._process = None
        said = [line for line in self._log.read_text().splitlines() if line[:1].strip()]
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        raise DiedError(f"{how}: {said[-1][:300] if said else 'said nothing'}")


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=_some_of(MODELS), default=list(MODELS))
    parser.add_argument("--corpora", type=_some_of(corpora.NAMES), default=list(corpora.NAMES))
    parser.add_argument("--contestants", type=_some_of(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--runs", type=int, default=3, help="of each contestant, in turns")
    parser.add_argument("--limit", type=int, help="take the first clips alone, of each corpus")
    parser.add_argument("--threads", type=int, default=2, help="of torch, for each contestant")
    parsed = parser.parse_args(args)

    manifests = {name: corpora.manifest(name, parsed.limit) for name in parsed.corpora}
    packages = ("apache-beam", "nemo_toolkit", "torch")
    print(f"{machine.describe(*packages)}; {parsed.threads} threads, {parsed.runs} runs\n")
    for model in parsed.models:
        if MODELS[model] == LARGE and not LARGE.exists():
            command = [sys.executable, "-m", "benchmarks.fastconformer", LARGE]
            subprocess.run(command, cwd=corpora.ROOT, check=True, stdout=sys.stderr)
        workers = [Worker(name, MODELS[model], parsed.threads) for name in parsed.contestants]
        try:
            for corpus, manifest in manifests.items():
                seconds = sum(clip.seconds for clip in corpora.clips(manifest))
                results = measure(workers, manifest, parsed.runs)
                print(f"Model {model}, {corpus}: {seconds:.0f} s of audio\n")
                print(*table(results, seconds), sep="\n", end="\n\n", flush=True)
        finally:
            for worker in workers:
                worker.stop()


def measure(
    workers: list[Worker], manifest: Path, runs: int
) -> dict[str, list[dict[str, Any]] | DiedError]:
    """The runs of each contestant, made in turns; of one that dies, how."""
    results: dict[str, Any] = {worker.name: [] for worker in workers}

    def attempt(worker: Worker, what: Any) -> None:
        try:
            what()
        except DiedError as error:
            results[worker.name] = error

    for worker in workers:
        attempt(worker, worker.start)
    for _ in range(runs):
        for worker in workers:
            made = results[worker.name]
            if isinstance(made, list):
                attempt(worker, lambda w=worker, made=made: made.append(w.run(manifest)))
    return results


def table(results: dict[str, list[dict[str, Any]] | DiedError], audio_seconds: float) -> list[str]:
    """A row for each contestant, and what is to be said of them together."""
    made = {name: runs for name, runs in results.items() if isinstance(runs, list)}
    taken = {name: statistics.median(run["seconds"] for run in runs) for name, runs in made.items()}
    reference = next((name for name in REFERENCES if name in made), None)
    lines = [
        f"| contestant | RTFx, median (least to most) | seconds | `job` is faster by "
        f"| texts unlike {reference or 'NeMo'} | peak MB above the loaded model |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in results.items():
        if isinstance(runs, DiedError):
            lines.append(f"| {name} | died: {runs} | | | | |")
            continue
        rates = sorted(audio_seconds / run["seconds"] for run in runs)
        faster = f"{taken[name] / taken['job']:.2f}" if "job" in taken else ""
        unlike = ""
        if reference is not None:
            pairs = zip(runs[-1]["texts"], made[reference][-1]["texts"], strict=True)
            unlike = str(sum(ours != theirs for ours, theirs in pairs))
        lines.append(
            f"| {name} | {audio_seconds / taken[name]:.1f} ({rates[0]:.1f} to {rates[-1]:.1f}) "
            f"| {taken[name]:.2f} | {faster} | {unlike} "
            f"| {max(run['peak_mb'] for run in runs):.0f} |"
        )
    floors = {name: taken[name] for name in taken if name.startswith("floor-")}
    if floors:
        best = min(floors, key=floors.__getitem__)
        lines += ["", f"The floor is {best}."]
        if "job" in taken:
            lines[-1] += f" `job` reaches {floors[best] / taken['job']:.3f} of it."
    if "job" in made:
        notes = made["job"][-1]["notes"].items()
        lines += ["", "`job` says: " + ", ".join(f"{key} {value}" for key, value in notes) + "."]
    return lines


def _some_of(names: Any) -> Any:
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(names)}")
        return chosen

    return parse


if __name__ == "__main__":
    main()
