"""How long the model waits for audio: from a local disk, and from a server 50 ms away.

    .venv/bin/python -m benchmarks.waiting [MODEL.nemo]

The recorded prompts of the tests, in shuffled order, by the whole job; the figures are those of its
own summary. The model is loaded by a first run, which does not count.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from beam_asr.cli import main as cli
from benchmarks.reading import LATENCY_SECONDS, server

REPOSITORY = Path(__file__).parent.parent
PROMPTS = REPOSITORY / ".cache/prompts"
RUNS = 3


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else str(REPOSITORY / "samples/model.nemo")
    subprocess.run(
        ["bash", str(REPOSITORY / "tests/support/fetch_prompts.sh"), str(PROMPTS)], check=True
    )
    rows = [json.loads(line) for line in (PROMPTS / "all.jsonl").read_text().splitlines()]
    random.Random(0).shuffle(rows)
    with tempfile.TemporaryDirectory() as name, server(PROMPTS) as url:
        folder = Path(name)
        places = {"local disk": str(PROMPTS), f"{1000 * LATENCY_SECONDS:g} ms away": url}
        summary_of(folder, model, rows[:3], str(PROMPTS))
        print("| audio | seconds | model | waits | share of the time that the model waits |")
        print("| --- | --- | --- | --- | --- |")
        for _ in range(RUNS):
            for place, base in places.items():
                said = summary_of(folder, model, rows, base)
                print(
                    f"| {place} | {said['wall_seconds']:.2f} | {said['model_seconds']:.2f} | "
                    f"{said['model_wait_seconds']:.2f} | {100 * said['model_wait_share']:.1f} % |",
                    flush=True,
                )


def summary_of(folder: Path, model: str, rows: list[dict], base: str) -> dict:
    """Runs the job over the rows, with their audio there; gives its summary."""
    listed, out = folder / "m.jsonl", folder / "out"
    placed = [{**row, "audio_filepath": f"{base}/{row['audio_filepath']}"} for row in rows]
    listed.write_text("".join(json.dumps(row) + "\n" for row in placed))
    flags = [f"--input={listed}", f"--output={out}", f"--model_name={model}", "--overwrite"]
    assert cli.main(["transcribe", *flags]) == 0
    return json.loads((out / "summary.json").read_text())


if __name__ == "__main__":
    main()
