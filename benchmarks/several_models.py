"""One job over five languages, each with its own model, beside a job for each of them.

    .venv/bin/python -m benchmarks.several_models          # some ten minutes on two cores

English and Spanish have the sample models; French, Italian and Russian tiny random ones. The rows
of the languages take turns in the manifest, and the jobs are the command as a user gives it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from tests.support.job_files import REPOSITORY
from tests.support.tiny_models import build

TINY = {"fr": "rnnt_bpe", "it": "tdt_bpe", "ru": "hybrid_rnnt_ctc_bpe"}


def job(manifest: Path, out: Path, *flags: str) -> tuple[float, dict[str, Any]]:
    command = [sys.executable, "-m", "beam_asr", "transcribe", f"--input={manifest}"]
    began = time.monotonic()
    subprocess.run([*command, f"--output={out}", *flags], check=True, capture_output=True)
    return time.monotonic() - began, json.loads((out / "summary.json").read_text())


def texts(out: Path) -> dict[str, str]:
    found = {}
    for shard in out.glob("transcripts-*"):
        for line in shard.read_text().splitlines():
            row = json.loads(line)
            found[row["audio_filepath"]] = row["pred_text"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=200, help="of each language")
    args = parser.parse_args()
    print(machine.describe("torch", "nemo_toolkit", "apache-beam"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = {
            "en": REPOSITORY / "samples/model.nemo",
            "es": REPOSITORY / "samples/es/model.nemo",
        }
        models |= {lang: build(kind, work) for lang, kind in TINY.items()}
        rows = {}
        for lang in models:
            sounds = REPOSITORY / ".cache" / f"sounds-{lang}"
            script = REPOSITORY / "tests/support/fetch_sounds.sh"
            subprocess.run(
                ["bash", str(script), lang, str(sounds)], check=True, capture_output=True
            )
            clips = sorted(sounds.rglob("*.g722"))[: args.clips]
            rows[lang] = [{"audio_filepath": str(clip), "lang": lang} for clip in clips]
        turns = [rows[lang][turn] for turn in range(args.clips) for lang in rows]
        mixed = work / "mixed.jsonl"
        mixed.write_text("".join(json.dumps(row) + "\n" for row in turns))
        print("| job | rows | seconds | model loads |\n| --- | --- | --- | --- |")
        alone, recognized = 0.0, {}
        for lang, model in models.items():
            own = work / f"{lang}.jsonl"
            own.write_text("".join(json.dumps(row) + "\n" for row in rows[lang]))
            seconds, summary = job(own, work / lang, f"--model_name={model}")
            recognized |= texts(work / lang)
            alone += seconds
            print(f"| {lang} | {summary['rows_in']} | {seconds:.1f} | {summary['model_loads']} |")
        pairs = ",".join(f"{lang}={model}" for lang, model in models.items())
        seconds, summary = job(mixed, work / "all", f"--models={pairs}")
        print(f"| sum of the five | {len(turns)} | {alone:.1f} | 5 |")
        print(f"| one job | {summary['rows_in']} | {seconds:.1f} | {summary['model_loads']} |")
        print(
            f"one job / sum: {seconds / alone:.2f}; same texts: {texts(work / 'all') == recognized}"
        )


if __name__ == "__main__":
    main()
