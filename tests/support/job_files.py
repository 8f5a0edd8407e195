"""The repository's samples, and what tests write for the job and read of its output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from beam_asr.cli import main
from beam_asr.inputs import json_lines
from beam_asr.outputs.journal import Journal
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

REPOSITORY = Path(__file__).parents[2]
SAMPLES = REPOSITORY / "samples"
SAMPLE_MODEL = SAMPLES / "model.nemo"


def environment(**variables: str) -> dict[str, str]:
    """Returns this process's variables and these, with the tests' Python first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, **variables}


def read_records(folder: Path, kind: str) -> list[dict]:
    """All records of the shards of one kind, compressed or not."""
    return [
        json.loads(line)
        for shard in sorted(folder.glob(f"{kind}-*"))
        for line in json_lines.read_lines(Storage(), str(shard))
    ]


def journaled(out: Path) -> set[str]:
    """The ids of the rows whose outcome is in the journal, in files that are whole."""
    kept = Journal(str(out), Storage())
    lines = [
        json.loads(line)
        for name in kept.names()
        if name.endswith(".jsonl")
        for line in kept.storage.read(join(kept.folder, "windows", name)).splitlines()
    ]
    return {each["id"] for each in lines if each.get("recognition")}


def transcripts_of(manifest: Path, model: Path, out: Path) -> list[dict]:
    """What the job, with no flag but those it needs, makes of a manifest."""
    flags = [f"--input={manifest}", f"--output={out}", f"--model_name={model}"]
    assert main.main(["transcribe", *flags]) == 0
    return read_records(out, "transcripts")


def write_manifest(path: Path, rows: list[dict | str]) -> Path:
    """A manifest of these rows; a string is taken as a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
