"""What ``beam-asr score`` costs over transcripts that are there, beside a job that transcribes.

    .venv/bin/python -m benchmarks.afterwards [--rows=100000]

The job transcribes the tests' prompts with the sample model. Of its CPU seconds those of a job of
one clip are taken off, so that neither imports nor the loading of the model count, and what is left
is reckoned up to so many rows. What is scored are its records, as often as needed. Each command is
a process of its own, whose CPU seconds are counted with those of its children, all of them for the
score: there the imports count.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from beam_asr.outputs.folder import SUCCESS
from beam_asr.outputs.row_index import IndexedRow, RowIndex
from beam_asr.outputs.shards import encode, shard_name
from beam_asr.outputs.summary import Failures, Outcomes
from beam_asr.records.statistics import Statistics
from beam_asr.settings import RECORDS_A_SHARD
from beam_asr.storage.storage import Storage
from benchmarks import machine

REPOSITORY = Path(__file__).parent.parent
PROMPTS = REPOSITORY / ".cache/prompts"
MODEL = REPOSITORY / "samples/model.nemo"
METRICS = ("punct_er", "capitals_er", "bleu", "chrf")


def cpu_seconds(command: str, *arguments: str) -> float:
    """Runs a command of beam-asr; returns its CPU seconds, with those of its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-m", "beam_asr", command, *arguments]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def transcribe(rows: list[dict], out: Path) -> float:
    manifest = out.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return cpu_seconds("transcribe", str(manifest), f"--output={out}", f"--model_name={MODEL}")


def copied(out: Path, rows: int, folder: Path) -> Path:
    """Writes a finished folder of so many rows, of the records of another, each with a number."""
    (shard,) = out.glob("transcripts-*")
    records = [json.loads(line) for line in shard.read_text().splitlines()]
    index = RowIndex(str(folder), Storage())
    run = RowIndex(str(out), Storage()).run(0)
    assert run is not None
    shards = -(-rows // RECORDS_A_SHARD)
    for number in range(shards):
        name = shard_name("transcripts", number, shards)
        numbers = range(number, rows, shards)
        lines = [encode({"n": each, **records[each % len(records)]}) for each in numbers]
        Storage().write(str(folder / name), lines)
        indexed = [
            IndexedRow.of(f"{each:024x}.0", line, "", 3.0)
            for each, line in zip(numbers, lines, strict=True)
        ]
        index.write_rows(name, indexed)
    outcomes = Outcomes(rows, Failures(), Counter())
    index.add(run._replace(statistics=Statistics(rows_in=rows, input_files=1), outcomes=outcomes))
    (folder / SUCCESS).touch()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    count = parser.parse_args().rows
    fetch = REPOSITORY / "tests/support/fetch_prompts.sh"
    subprocess.run(["bash", str(fetch), str(PROMPTS)], check=True)
    rows = [json.loads(line) for line in (PROMPTS / "all.jsonl").read_text().splitlines()]
    rows = [{**row, "audio_filepath": f"{PROMPTS}/{row['audio_filepath']}"} for row in rows]
    print(machine.describe("apache-beam", "jiwer"))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        one, many = transcribe(rows[:1], place / "one"), transcribe(rows, place / "many")
        job = (many - one) / (len(rows) - 1) * count
        print(f"transcribing {len(rows)} clips: {many:.1f} s of CPU, one clip: {one:.1f}")
        print(f"reckoned for {count:,} clips, without imports and model: {job:,.0f}")
        folder = copied(place / "many", count, place / "copied")
        reference = ("--reference_key=text", "--normalizer=basic")
        for what, command in {
            "score": ("score", *reference),
            "score, with --quality and all --metrics": (
                *("score", *reference, "--quality", f"--metrics={','.join(METRICS)}"),
            ),
            "filter, to a new folder": (
                *("filter", *reference, "--keep=wer <= 0.3", f"--output={place / 'kept'}"),
            ),
        }.items():
            name, *flags = command
            seconds = cpu_seconds(name, str(folder), *flags)
            print(f"{what}: {seconds:.1f} s of CPU, {seconds / job:.4f} of that", flush=True)


if __name__ == "__main__":
    main()
