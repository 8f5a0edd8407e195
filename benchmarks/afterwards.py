"""What ``beam-asr score`` costs over transcripts that are there, beside a job that transcribes.

    .venv/bin/python -m benchmarks.afterwards [--rows=100000] [--clips=568]

The job transcribes the tests' prompts with the sample model. Of its CPU seconds those of a job of
one clip are taken off, so that neither imports nor the loading of the model count. What is scored
are as many records as requested, of the prompts' texts with wrong words. Each command is a
process of its own, whose CPU seconds are counted with those of its children, all of them for the
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
from beam_asr.outputs.row_index import FinishedRun, IndexedRow, RowIndex
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


def finished(rows: list[dict], count: int, folder: Path) -> Path:
    """Writes a finished folder of so many records, of these rows, each with a number."""
    index = RowIndex(str(folder), Storage())
    shards = -(-count // RECORDS_A_SHARD)
    for number in range(shards):
        name = shard_name("transcripts", number, shards)
        numbers = range(number, count, shards)
        records = ({**rows[each % len(rows)], "n": each} for each in numbers)
        lines = [encode({**record, "pred_text": recognized(record["text"])}) for record in records]
        Storage().write(str(folder / name), lines)
        indexed = [
            IndexedRow.of(f"{each:024x}.0", line, "", 3.0)
            for each, line in zip(numbers, lines, strict=True)
        ]
        index.write_rows(name, indexed)
    statistics = Statistics(rows_in=count, input_files=1)
    options = {"input": ["m.jsonl"], "output": str(folder), "model_name": str(MODEL)}
    outcomes = Outcomes(count, Failures(), Counter())
    index.add(FinishedRun({}, {"options": options}, statistics, outcomes, 1.0))
    (folder / SUCCESS).touch()
    return folder


def recognized(text: str) -> str:
    """Returns a text with a wrong word, and without its last one if it has several."""
    words = text.split()
    return " ".join([*words[:1], "wrong", *words[2:-1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=568, help="0 transcribes nothing")
    arguments = parser.parse_args()
    fetch = REPOSITORY / "tests/support/fetch_prompts.sh"
    subprocess.run(["bash", str(fetch), str(PROMPTS)], check=True)
    rows = [json.loads(line) for line in (PROMPTS / "all.jsonl").read_text().splitlines()]
    rows = [{**row, "audio_filepath": f"{PROMPTS}/{row['audio_filepath']}"} for row in rows]
    print(machine.describe("apache-beam", "jiwer"), flush=True)
    count, clips = arguments.rows, rows[: arguments.clips]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        if clips:
            one, many = transcribe(clips[:1], place / "one"), transcribe(clips, place / "many")
            each = (many - one) / (len(clips) - 1)
            print(f"transcribing: {1000 * each:.2f} ms of CPU a clip", flush=True)
        folder = finished(rows, count, place / "finished")
        reference = ("--reference_key=text", "--normalizer=basic")
        further = ("--quality", f"--metrics={','.join(METRICS)}")
        new = ("--keep=wer <= 0.3", f"--output={place / 'kept'}")
        for flags in (("score",), ("score", *further), ("filter", *new)):
            command, *others = flags
            seconds = cpu_seconds(command, str(folder), *reference, *others)
            print(f"{' '.join(flags)}: {1000 * seconds / count:.3f} ms of CPU a row", flush=True)


if __name__ == "__main__":
    main()
