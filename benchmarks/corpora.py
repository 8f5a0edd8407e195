"""The clips that are transcribed: as manifests with relative paths, in a shuffled, fixed order."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / ".cache" / "prompts"
MADE = ROOT / ".cache" / "benchmarks"
RATE = 16_000
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 40.0
TIMES = 8  # that each prompt is in the longer corpus, in which what any job costs weighs less
NAMES = ("prompts", "long-tailed", "prompts-8")


class Clip(NamedTuple):
    path: str
    seconds: float


def manifest(name: str, limit: int | None = None) -> Path:
    """The manifest of a corpus, made if it is not there; of its first `limit` clips."""
    subprocess.run([ROOT / "tests" / "support" / "fetch_prompts.sh", PROMPTS], check=True)
    whole = MADE / f"{name}.jsonl"
    if not whole.exists():
        MADE.mkdir(parents=True, exist_ok=True)
        make = dict(zip(NAMES, (_prompts, _long_tailed, _prompts_often), strict=True))
        made = make[name]()
        whole.write_text("".join(json.dumps(row) + "\n" for row in made))
    if limit is None:
        return whole
    part = MADE / f"{name}-{limit}.jsonl"
    part.write_text("".join(whole.read_text().splitlines(keepends=True)[:limit]))
    return part


def clips(manifest: Path) -> list[Clip]:
    rows = map(json.loads, manifest.read_text().splitlines())
    return [Clip(str(manifest.parent / row["audio_filepath"]), row["duration"]) for row in rows]


def _prompts() -> list[dict]:
    rows = [json.loads(line) for line in (PROMPTS / "all.jsonl").read_text().splitlines()]
    return [
        {**rows[n], "audio_filepath": f"../prompts/{rows[n]['audio_filepath']}"}
        for n in np.random.default_rng(1).permutation(len(rows))
    ]


def _prompts_often() -> list[dict]:
    rows = _prompts() * TIMES
    return [rows[n] for n in np.random.default_rng(3).permutation(len(rows))]


def _long_tailed() -> list[dict]:
    """Clips of log-uniform lengths, cut from the prompts said one after the other."""
    prompts = clips(manifest("prompts"))
    speech = np.concatenate([soundfile.read(prompt.path, dtype="int16")[0] for prompt in prompts])
    random = np.random.default_rng(2)
    folder = MADE / "long-tailed"
    folder.mkdir(exist_ok=True)
    rows: list[dict] = []
    while len(speech):
        exponent = random.uniform(math.log(SHORTEST_SECONDS), math.log(LONGEST_SECONDS))
        samples, speech = np.split(speech, [round(RATE * math.exp(exponent))])
        name = f"{len(rows):04d}.flac"
        soundfile.write(folder / name, samples, RATE)
        rows.append({"audio_filepath": f"{folder.name}/{name}", "duration": len(samples) / RATE})
    return rows
