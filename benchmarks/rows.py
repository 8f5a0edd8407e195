"""What a row costs beside its model: whole graphs whose recognizer costs nothing.

    .venv/bin/python -m benchmarks.rows
    .venv/bin/python -m benchmarks.rows --rows=2000,10000
    .venv/bin/python -m benchmarks.rows --rows=100000 --against=../before --pairs=5

    graph             ReadManifest, Transcribe, WriteManifest; clips of 0.1 s read from disk
    graph, no audio   the same, with a waveform that is there already
    bare              Beam alone: read lines, Reshuffle, BatchElements, Reshuffle, write

Each is measured in a process of its own, on the FnApiRunner. Peak memory is that of the process,
with all it has imported. CPU seconds are those of all its threads, without imports.

With another checkout of this repository, both run in turn, with the same Python and this script;
what they write must be equal, line by line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import soundfile

from beam_asr import ReadManifest, Transcribe, WriteManifest
from benchmarks import machine

try:
    from beam_asr.audio import reading
    from beam_asr.models import engine
    from beam_asr.models.nemo import recognizer
    from beam_asr.records.outcome import Recognition
except ImportError:  # a checkout from before the package had rooms
    from beam_asr.nemo_recognizer import Recognition

    from beam_asr import audio as reading
    from beam_asr import nemo_recognizer as recognizer
    from beam_asr import recognizer as engine

ROWS = (10_000, 100_000, 300_000)
RATE = 16_000
CLIP_SECONDS = 0.1
CLIPS = 16
ROOT = Path(__file__).resolve().parents[1]
BARE_BATCH = 1200  # as many of these clips go into a window of ours


class FreeRecognizer:
    """A recognizer that takes no time."""

    sample_rate = RATE
    default_batch_seconds = recognizer.CPU_BATCH_SECONDS
    max_clip_seconds = longest_seconds = segment_seconds = 40.0
    weight_bytes, prompt_fields = 0, frozenset()
    batch_overhead_seconds = recognizer.CPU_OVERHEAD_SECONDS

    def warm_up(self, batch_size: int) -> None:
        pass

    def encode(self, waveforms: Sequence[np.ndarray], _prompt: Any) -> int:
        return len(waveforms)

    def decode(self, encoded: int) -> list[Recognition]:
        return [Recognition("as it is")] * encoded

    def describe(self) -> dict[str, str]:
        return {"model": "free"}


def graph(manifest: str, output: str) -> None:
    engine.load = lambda *_args, **_kwargs: FreeRecognizer()
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        (
            pipeline
            | ReadManifest(manifest)
            | Transcribe(model_name="free")  # as of a hub: of a file the size would be looked up
            | WriteManifest(output)
        )


def graph_without_audio(manifest: str, output: str) -> None:
    silence = np.zeros(round(CLIP_SECONDS * RATE), np.float32)
    reading.read_audio = lambda *_args, **_kwargs: silence
    graph(manifest, output)


def bare(manifest: str, output: str) -> None:
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(manifest)
            | "Spread" >> beam.Reshuffle()
            | beam.BatchElements(min_batch_size=BARE_BATCH, max_batch_size=BARE_BATCH)
            | beam.FlatMap(lambda batch: batch)
            | "Keep" >> beam.Reshuffle()
            | beam.io.WriteToText(f"{output}/rows")
        )


GRAPHS: dict[str, Callable[[str, str], None]] = {
    "bare": bare,
    "graph, no audio": graph_without_audio,
    "graph": graph,
}
COMPARED = ("graph, no audio", "graph")  # of two checkouts; bare has nothing of ours


def measure(kind: str, manifest: str) -> None:
    """Runs a graph in this process and prints what it took."""
    with tempfile.TemporaryDirectory() as folder:
        started, cpu_before = time.monotonic(), time.process_time()
        GRAPHS[kind](manifest, f"{folder}/out")
        cpu_seconds = time.process_time() - cpu_before
        seconds = time.monotonic() - started
        lines = [
            line
            for pattern in ("transcripts-*", "rows-*")
            for path in Path(folder, "out").glob(pattern)
            for line in path.read_bytes().splitlines()
        ]
    took = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rows": len(lines),
        "digest": hashlib.sha256(b"\n".join(sorted(lines))).hexdigest(),
        "peak_mb": machine.peak_mb(),
    }
    print(json.dumps(took))


def manifests(folder: Path, counts: Sequence[int]) -> dict[int, Path]:
    """A manifest of each number of rows, over the same few clips."""
    noise = np.random.default_rng(3).normal(0, 0.1, (CLIPS, round(CLIP_SECONDS * RATE)))
    for n in range(CLIPS):
        soundfile.write(folder / f"{n}.wav", noise[n], RATE)
    made = {}
    for count in counts:
        made[count] = folder / f"{count}.jsonl"
        with made[count].open("w") as file:
            for n in range(count):
                row = {"audio_filepath": f"{n % CLIPS}.wav", "duration": CLIP_SECONDS, "row": n}
                file.write(json.dumps(row) + "\n")
    return made


def run(checkout: Path, kind: str, manifest: Path, rows: int) -> dict[str, Any]:
    """What a graph of the package in a checkout took, in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, str(manifest)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    took: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if took["rows"] != rows:
        raise RuntimeError(f"{kind}: {took['rows']} of {rows} rows were written")
    return took


def table(made: dict[int, Path]) -> None:
    """Prints what each graph takes, beside the bare one."""
    print("| rows | graph | ms a row (s for 1,000) | CPU ms a row | times bare | peak MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count, manifest in made.items():
        of_bare = None
        for kind in GRAPHS:
            took = run(ROOT, kind, manifest, count)
            of_bare = of_bare or took["seconds"]
            print(
                f"| {count:,} | {kind} | {1000 * took['seconds'] / count:.3f} "
                f"| {1000 * took['cpu_seconds'] / count:.3f} | {took['seconds'] / of_bare:.1f} "
                f"| {took['peak_mb']:.0f} |",
                flush=True,
            )


def compare(made: dict[int, Path], before: Path, pairs: int) -> None:
    """Prints what each graph takes here and in another checkout, in turn; medians and ratios."""
    print(f"Medians of {pairs} pairs; least to most of the ratio in parentheses.\n")
    print("| rows | graph | CPU ms a row before | now | ratio | ratio of wall seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for count, manifest in made.items():
        for kind in COMPARED:
            taken: dict[Path, list[dict[str, Any]]] = {before: [], ROOT: []}
            for number in range(pairs):
                for checkout in [before, ROOT][:: -1 if number % 2 else 1]:
                    taken[checkout].append(run(checkout, kind, manifest, count))
            if len({took["digest"] for each in taken.values() for took in each}) > 1:
                raise RuntimeError(f"{kind}: the two checkouts wrote different lines")
            cpu, wall = (
                [[took[name] for took in taken[checkout]] for checkout in (before, ROOT)]
                for name in ("cpu_seconds", "seconds")
            )
            was, now = (1000 * statistics.median(each) / count for each in cpu)
            print(
                f"| {count:,} | {kind} | {was:.3f} | {now:.3f} | {_ratio(*cpu)} "
                f"| {_ratio(*wall)} |",
                flush=True,
            )


def _ratio(before: Sequence[float], now: Sequence[float]) -> str:
    ratios = [mine / other for other, mine in zip(before, now, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=ROWS)
    parser.add_argument("--against", type=Path, help="another checkout, to run in turn")
    parser.add_argument("--pairs", type=int, default=3, help="how often both run")
    parser.add_argument("--measure", nargs=2, metavar=("GRAPH", "MANIFEST"), help="in this process")
    args = parser.parse_args()
    if args.measure:
        measure(*args.measure)
        return
    print(f"{machine.describe('apache-beam')}\n")
    with tempfile.TemporaryDirectory() as folder:
        made = manifests(Path(folder), args.rows)
        if args.against is None:
            table(made)
        else:
            compare(made, args.against.resolve(), args.pairs)


if __name__ == "__main__":
    main()
