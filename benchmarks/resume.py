"""What it costs to go on: to resume a run that broke down, and to append to one that has finished.

    .venv/bin/python -m benchmarks.resume
    .venv/bin/python -m benchmarks.resume --rows=50000,200000 --against=../before

    resume    of a run that broke down when 90 % of the rows had been read
    append    a thousand further rows, to what was resumed

The recognizer and reading cost nothing. Each is measured in a process of its own, on the
FnApiRunner: the CPU seconds of the process with its imports, which are compiled already, and the
peak of its memory.

With another checkout of this repository, both run in turn, with the same Python and this script;
what they write must be equal, line by line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROWS = (50_000, 200_000)
APPENDED = 1000
DONE = 0.9  # of the rows, when the run breaks down
RATE = 16_000
CLIP_SECONDS = 0.1
ROOT = Path(__file__).resolve().parents[1]


class BreakdownError(Exception):
    """Ends a run in its middle."""


def measure(left: int, flags: Sequence[str]) -> None:
    """Runs a job in this process and prints what it took.

    Args:
        left: the number of rows that are read before the job breaks down; 0 lets it end.
    """
    try:
        from beam_asr.audio import reading
        from beam_asr.cli import main as cli
        from beam_asr.models import engine
        from beam_asr.models.serving.batcher import Batcher
        from beam_asr.records.outcome import Recognition
    except ImportError:  # a checkout from before the package had rooms
        from beam_asr.backlog import Backlog as Batcher
        from beam_asr.nemo_recognizer import Recognition

        from beam_asr import audio as reading
        from beam_asr import cli
        from beam_asr import recognizer as engine

    class FreeRecognizer:
        sample_rate = RATE
        default_batch_seconds = max_clip_seconds = longest_seconds = segment_seconds = 40.0
        weight_bytes, prompt_fields = 0, frozenset()
        batch_overhead_seconds = 0.0

        def warm_up(self, batch_size: int) -> None:
            pass

        def encode(self, waveforms: Sequence[np.ndarray], _prompt: Any) -> int:
            return len(waveforms)

        def decode(self, encoded: int) -> list[Recognition]:
            return [Recognition("as it is")] * encoded

        def describe(self) -> dict[str, str]:
            return {"model": "free"}

    waveform = np.full(round(CLIP_SECONDS * RATE), 0.1, np.float32)
    reading.read_audio = lambda *_args, **_kwargs: waveform
    engine.load = lambda *_args, **_kwargs: FreeRecognizer()
    add = Batcher.add

    def add_or_break(self: Batcher, *args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise BreakdownError
        return add(self, *args, **kwargs)

    Batcher.add = add_or_break
    started = time.monotonic()
    status = cli.main(["transcribe", "--model_name=org/free", *flags])
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    took = {
        "status": status,
        "seconds": time.monotonic() - started,
        "cpu_seconds": sum(each.ru_utime + each.ru_stime for each in used),
        "peak_mb": used[0].ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(took))


def run(checkout: Path, left: int, *flags: str) -> dict[str, Any]:
    """What a job of the package in a checkout took, in a process of its own."""
    command = [sys.executable, __file__, f"--measure={left}", *flags]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    # Compiling what it imports would be a third of what a short job takes.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir(), "beam-asr-resume"))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        took: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(done.stderr[-2000:]) from None
    if bool(took["status"]) != bool(left):
        raise RuntimeError(f"the job ended with {took['status']}:\n{done.stderr[-2000:]}")
    return took


def write_manifest(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for n in range(rows):
            row = {"audio_filepath": f"/a/{n}.wav", "duration": CLIP_SECONDS, "row": n}
            file.write(json.dumps(row) + "\n")


def measure_checkout(checkout: Path, rows: int) -> dict[str, dict[str, Any]]:
    """What resuming and appending take with the package in a checkout; its lines, as a digest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed, longer, output = folder / "m.jsonl", folder / "longer.jsonl", folder / "out"
        write_manifest(listed, rows)
        write_manifest(longer, rows + APPENDED)
        run(checkout, round(DONE * rows), f"--input={listed}", f"--output={output}")
        took = {"resume": run(checkout, 0, f"--input={listed}", f"--output={output}", "--resume")}
        lines = [
            line for path in output.glob("transcripts-*") for line in path.read_bytes().splitlines()
        ]
        if len(lines) != rows:
            raise RuntimeError(f"{len(lines)} of {rows} rows were written")
        took["resume"]["digest"] = hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()
        if (output / "_index").exists():  # of a checkout that can append
            took["append"] = run(checkout, 0, f"--input={longer}", f"--output={output}", "--append")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=lambda text: [int(n) for n in text.split(",")], default=ROWS)
    parser.add_argument("--against", type=Path, help="another checkout, to run in turn")
    parser.add_argument("--measure", type=int, metavar="LEFT", help="in this process")
    args, flags = parser.parse_known_args()
    if args.measure is not None:
        measure(args.measure, flags)
        return
    from benchmarks import machine

    print(f"{machine.describe('apache-beam')}\n")
    print("| rows | | CPU seconds before | now | ratio | peak MB before | now | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    checkouts = [ROOT] if args.against is None else [args.against.resolve(), ROOT]
    for rows in args.rows:
        taken = [measure_checkout(checkout, rows) for checkout in checkouts]
        if len({took["resume"]["digest"] for took in taken}) > 1:
            raise RuntimeError("the two checkouts wrote different lines")
        for kind, now in taken[-1].items():
            before = taken[0].get(kind) if len(taken) > 1 else None
            cells = [f"{rows:,}", kind]
            for name, digits in (("cpu_seconds", 1), ("peak_mb", 0)):
                was = "" if before is None else f"{before[name]:.{digits}f}"
                ratio = "" if before is None else f"{now[name] / before[name]:.2f}"
                cells += [was, f"{now[name]:.{digits}f}", ratio]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
