"""Long recordings of known prompts: what cutting costs in words, times, memory and speed.

    .venv/bin/python -m benchmarks.long_audio quality --minutes=1,10,60    # some five minutes
    .venv/bin/python -m benchmarks.long_audio quality --minutes=600
    .venv/bin/python -m benchmarks.long_audio cost --minutes=600           # some twenty minutes
    .venv/bin/python -m benchmarks.long_audio lengths                      # some five minutes

quality   the word error rate of recordings, with pauses and without, beside that of their prompts
          one by one; that of the words within two seconds of a cut, which are the first and last
          ones of prompts, likewise; how far the first and the last words of prompts are from
          their known places, and whether that drifts
cost      one recording beside as many hours of short clips, on one worker and on two: seconds
          above those of a job over two clips, and the most memory that the processes held
lengths   what segments of what length take: the speed of the model's job, and its error rate

The prompts are those of `tests/support/fetch_prompts.sh`; each is transcribed by itself as a clip.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jiwer
import numpy as np

from beam_asr.audio.segment_planner import Planner
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, Segment
from beam_asr.storage.storage import Storage
from benchmarks import machine
from tests.support import long_recordings
from tests.support.job_files import REPOSITORY, SAMPLE_MODEL, read_records, write_manifest
from tests.support.long_recordings import Place

PROMPTS = REPOSITORY / ".cache" / "prompts"
PAUSES = {"with pauses": (0.3, 1.0), "without": None}
SEGMENT_SECONDS = 10.56  # the sample model's: 176 frames of 60 ms
NEAR_SECONDS = 2.0  # of a cut
WORKERS = {
    "one": ["--direct_num_workers=1"],
    "two": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
}
LENGTHS = (10, 20, 30, 40, 60, 120, 300)


class Ran(NamedTuple):
    """A job: its wall time, and the most memory that all its processes held at a time (PSS)."""

    seconds: float
    memory_mb: float


def job(manifest: Path, out: Path, *flags: str, environment: dict[str, str] | None = None) -> Ran:
    command = [sys.executable, "-m", "beam_asr", "transcribe", f"--input={manifest}"]
    command += [f"--output={out}", f"--model_name={SAMPLE_MODEL}", "--overwrite", *flags]
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    most, ended = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.5):
            most = max(most, _memory_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        status = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        ended.set()
        watcher.join()
    if status:
        raise SystemExit(f"the job ended with status {status}: {' '.join(command)}")
    return Ran(time.monotonic() - started, most)


def _memory_mb(session: int) -> float:
    """Of all processes of a session, each page counted once."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if os.getsid(int(folder.name)) == session:
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += next(float(each.split()[1]) for each in lines if each.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 1024


def alone(work: Path) -> dict[str, str]:
    """What the model makes of each prompt by itself."""
    job(PROMPTS / "all.jsonl", work / "alone")
    records = read_records(work / "alone", "transcripts")
    return {each["audio_filepath"]: each["pred_text"] for each in records}


def quality(minutes: Sequence[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        texts = alone(work)
        print("| minutes | pauses | words | WER one by one | WER | words near cuts "
              "| their WER one by one | their WER | segments | start median, p95 "
              "| end median, p95 | drift |\n|" + " --- |" * 12)  # fmt: skip
        for each in minutes:
            for name, pauses in PAUSES.items():
                path = work / "recording.flac"
                places = long_recordings.write(path, PROMPTS, 60 * each, pauses)
                manifest = write_manifest(work / "m.jsonl", [{"audio_filepath": str(path)}])
                job(manifest, work / "out", "--timestamps=word")
                (record,) = read_records(work / "out", "transcripts")
                print(f"| {each:g} | {name} | {_row(path, places, record, texts)} |", flush=True)


def _row(path: Path, places: list[Place], record: dict[str, Any], texts: dict[str, str]) -> str:
    words = record["words"]
    said = [word for each in places for word in each.text.split()]
    alone = _errors(said, " ".join(texts[each.audio] for each in places))
    errors = _errors(said, " ".join(each["word"] for each in words))
    segments = _plan(path)
    cuts = [each.start for each in segments[1:]] + [each.end for each in segments[:-1]]
    times = [
        each.start + (number + 0.5) / len(each.text.split()) * (each.end - each.start)
        for each in places
        for number in range(len(each.text.split()))
    ]
    ordered = np.sort(cuts)
    places_of = np.searchsorted(ordered, times)
    before, after = ordered[places_of - 1], ordered[np.minimum(places_of, len(ordered) - 1)]
    near = np.minimum(np.abs(times - before), np.abs(times - after)) < NEAR_SECONDS
    starts, ends = long_recordings.place_errors(places, words)
    tenth = max(1, len(starts) // 10)
    drift = np.median(starts[-tenth:]) - np.median(starts[:tenth])
    return (
        f"{len(said)} | {alone.mean():.2%} | {errors.mean():.2%} | {near.sum()} "
        f"| {alone[near].mean():.2%} | {errors[near].mean():.2%} | {len(segments)} "
        f"| {_spread(starts)} | {_spread(ends)} | {drift:+.3f} s"
    )


def _errors(said: list[str], recognized: str) -> np.ndarray:
    """How many errors there are at each word; an insertion counts at the word after it."""
    errors = np.zeros(len(said))
    for chunk in jiwer.process_words(" ".join(said), recognized).alignments[0]:
        if chunk.type == "insert":
            at = min(chunk.ref_start_idx, len(said) - 1)
            errors[at] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            errors[chunk.ref_start_idx : chunk.ref_end_idx] += 1
    return errors


def _plan(path: Path) -> tuple[Segment, ...]:
    planner = Planner(Storage(), None, 3600.0, "vad", False)
    clip = Clip(Row("{}", id="a.0"), str(path), 0.0, None)
    return planner.plan(clip, SEGMENT_SECONDS)[0].segments


def _spread(errors: np.ndarray) -> str:
    return f"{np.median(np.abs(errors)):.3f} s, {np.percentile(np.abs(errors), 95):.3f} s"


def cost(minutes: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = work / "recording.flac"
        places = long_recordings.write(path, PROMPTS, 60 * minutes, PAUSES["with pauses"])
        rows = [{"audio_filepath": str(PROMPTS / each.audio)} for each in places]
        clips = [json.loads(line) for line in (PROMPTS / "all.jsonl").read_text().splitlines()]
        seconds = {each["audio_filepath"]: each["duration"] for each in clips}
        manifests = {
            "two clips": write_manifest(work / "two.jsonl", rows[:2]),
            "short clips": write_manifest(work / "short.jsonl", [
                {**row, "duration": seconds[each.audio]}
                for row, each in zip(rows, places, strict=True)
            ]),
            "one recording": write_manifest(work / "long.jsonl", [{"audio_filepath": str(path)}]),
        }  # fmt: skip
        short_hours = sum(seconds[each.audio] for each in places) / 3600
        print("| workers | input | hours | seconds | above two clips, an hour | memory, MB |\n"
              "| --- | --- | --- | --- | --- | --- |")  # fmt: skip
        for workers, flags in WORKERS.items():
            base = 0.0
            for name, manifest in manifests.items():
                environment = {"OMP_NUM_THREADS": "1"} if workers == "two" else None
                ran = job(manifest, work / "out", *flags, environment=environment)
                hours = {"short clips": short_hours, "one recording": minutes / 60}.get(name, 0.0)
                base = ran.seconds if name == "two clips" else base
                each = f"{(ran.seconds - base) / hours:.1f} s" if hours else "-"
                print(
                    f"| {workers} | {name} | {hours:.2f} | {ran.seconds:.0f} | {each} "
                    f"| {ran.memory_mb:.0f} |",
                    flush=True,
                )


def lengths() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = work / "recording.flac"
        places = long_recordings.write(path, PROMPTS, 60 * 30, PAUSES["with pauses"])
        manifest = write_manifest(work / "m.jsonl", [{"audio_filepath": str(path)}])
        said = " ".join(each.text for each in places)
        print("| longest segment | RTFx of the model | WER |\n| --- | --- | --- |")
        for longest in LENGTHS:
            job(manifest, work / "out", f"--max_segment_seconds={longest}")
            (record,) = read_records(work / "out", "transcripts")
            summary = json.loads((work / "out" / "summary.json").read_text())
            wer = jiwer.wer(said, record["pred_text"])
            print(f"| {longest} s | {summary['rtfx_model']:.0f} | {wer:.2%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("quality", "cost", "lengths"))
    parser.add_argument("--minutes", default="1,10,60")
    args = parser.parse_args()
    subprocess.run(
        ["bash", str(REPOSITORY / "tests/support/fetch_prompts.sh"), str(PROMPTS)], check=True
    )
    print(machine.describe("torch", "nemo_toolkit", "apache-beam", "onnxruntime"), "\n")
    minutes = [float(each) for each in args.minutes.split(",")]
    if args.what == "quality":
        quality(minutes)
    elif args.what == "cost":
        cost(minutes[0])
    else:
        lengths()


if __name__ == "__main__":
    main()
