"""Peak memory of a job over a long recording, very many tiny clips and hostile files.

    python -m benchmarks.memory [--hours 6] [--tiny 10000]

Prints the peak of the job's process over all, and that of the same job over a few good clips, which
is the memory of Python, NeMo and the model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from tests.faults import kinds

REPOSITORY = Path(__file__).parent.parent
SAMPLES = REPOSITORY / "samples"
RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--tiny", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").open()]
        few = [{**row, "audio_filepath": str(SAMPLES / row["audio_filepath"])} for row in few]
        small = [json.dumps(row).encode() for row in few]
        base, _ = peak_of(small, folder / "few")
        rows = [*small, *tiny(folder, options.tiny), long(folder, options.hours)]
        hostile = [fault.line for fault in kinds.of_manifests(folder) + kinds.of_audio(folder)]
        peak, out = peak_of(rows[::-1] + hostile, folder / "all")
        summary = json.loads((out / "summary.json").read_text())
        failures = [json.loads(line) for shard in out.glob("failures-*") for line in shard.open()]
        recording = [each["error"] for each in failures if "long.flac" in str(each)]
    print(f"rows: {summary['rows_in']}, of which {len(hostile)} hostile")
    print(f"transcribed: {summary['transcribed']}, failed: {summary['failed']}")
    print(f"failed by type: {Counter(summary['failed_by_type'])}")
    print(f"the recording of {options.hours:g} h: {recording or 'transcribed'}")
    print(f"peak with a few clips: {base / 2**20:.0f} MiB")
    print(f"peak with all: {peak / 2**20:.0f} MiB, {(peak - base) / 2**20:.0f} MiB more")


def peak_of(lines: list[bytes], folder: Path) -> tuple[int, Path]:
    """The peak resident memory of a job over these rows, in bytes, and its output folder."""
    folder.mkdir()
    manifest, out = folder / "m.jsonl", folder / "out"
    manifest.write_bytes(b"\n".join(lines) + b"\n")
    command = [sys.executable, "-m", "beam_asr", "transcribe", f"--input={manifest}"]
    command += [f"--output={out}", f"--model_name={SAMPLES / 'model.nemo'}"]
    command += ["--max_failure_fraction=1"]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the job ended with status {status}")
    return usage.ru_maxrss * 1024, out


def tiny(folder: Path, count: int) -> list[bytes]:
    """Rows of so many clips of 0.2 to 1 s, each a file of its own."""
    clips = folder / "tiny"
    clips.mkdir()
    rows = []
    for index in range(count):
        path = clips / f"{index:05d}.wav"
        soundfile.write(path, kinds.tone(0.2 + 0.8 * (index % 50) / 50), RATE, subtype="PCM_16")
        rows.append(json.dumps({"audio_filepath": str(path)}).encode())
    return rows


def long(folder: Path, hours: float) -> bytes:
    """The row of one long recording."""
    path = folder / "long.flac"
    minute = kinds.tone(60.0)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for index in range(round(60 * hours)):
            file.write(np.roll(minute, 997 * index))
    return json.dumps({"audio_filepath": str(path)}).encode()


if __name__ == "__main__":
    main()
