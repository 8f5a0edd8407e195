"""What a row costs beside its model: whole graphs whose recognizer costs nothing.

    .venv/bin/python -m benchmarks.rows
    .venv/bin/python -m benchmarks.rows --rows=2000,10000

    graph             ReadManifest, Transcribe, WriteManifest; clips of 0.1 s read from disk
    graph, no audio   the same, with a waveform that is there already
    bare              Beam alone: read lines, Reshuffle, BatchElements, Reshuffle, write

Each is measured in a process of its own, on the FnApiRunner. Peak memory is that of the process,
with all it has imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np
import soundfile

from beam_asr import ReadManifest, Transcribe, WriteManifest
from beam_asr.audio import reading
from beam_asr.models import engine
from beam_asr.models.nemo import recognizer
from beam_asr.records.outcome import Recognition
from beam_asr.settings import Prompt
from benchmarks import machine

ROWS = (10_000, 100_000, 300_000)
RATE = 16_000
CLIP_SECONDS = 0.1
CLIPS = 16
BARE_BATCH = 1200  # as many of these clips go into a window of ours


class FreeRecognizer:
    """A recognizer that takes no time."""

    sample_rate = RATE
    default_batch_seconds = recognizer.CPU_BATCH_SECONDS
    max_clip_seconds = segment_seconds = 40.0
    weight_bytes, prompt_fields = 0, frozenset()
    batch_overhead_seconds = recognizer.CPU_OVERHEAD_SECONDS

    def warm_up(self, batch_size: int) -> None:
        pass

    def encode(self, waveforms: Sequence[np.ndarray], _prompt: Prompt) -> int:
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
            | Transcribe(model_name="free.nemo")
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


def measure(kind: str, manifest: str) -> None:
    """Runs a graph in this process and prints what it took."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        GRAPHS[kind](manifest, f"{folder}/out")
        seconds = time.monotonic() - started
        written = sum(
            len(path.read_bytes().splitlines())
            for pattern in ("transcripts-*", "rows-*")
            for path in Path(folder, "out").glob(pattern)
        )
    print(json.dumps({"seconds": seconds, "rows": written, "peak_mb": machine.peak_mb()}))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=ROWS)
    parser.add_argument("--measure", nargs=2, metavar=("GRAPH", "MANIFEST"), help="in this process")
    asked = parser.parse_args()
    if asked.measure:
        measure(*asked.measure)
        return
    print(f"{machine.describe('apache-beam')}\n")
    print("| rows | graph | ms a row (s for 1,000) | times bare | peak MB |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for count, manifest in manifests(Path(folder), asked.rows).items():
            of_bare = None
            for kind in GRAPHS:
                command = [sys.executable, "-m", "benchmarks.rows", "--measure", kind, manifest]
                run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                took = json.loads(run.stdout.splitlines()[-1])
                if took["rows"] != count:
                    raise RuntimeError(f"{kind}: {took['rows']} of {count} rows were written")
                of_bare = of_bare or took["seconds"]
                milliseconds = 1000 * took["seconds"] / count
                print(
                    f"| {count:,} | {kind} | {milliseconds:.3f} | {took['seconds'] / of_bare:.1f} "
                    f"| {took['peak_mb']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
