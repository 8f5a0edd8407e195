"""Puts every fault of rows and audio into a corpus of good clips, with a model of one's choice."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.faults import kinds
from tests.faults.injection import inject
from tests.support.servers import FaultyHttpServer

SAMPLES = Path(__file__).parents[2] / "samples"


def main(flags: list[str]) -> int:
    if not any(flag.startswith("--model_name") for flag in flags):
        print(__doc__, "\nName one: --model_name=samples/model.nemo", file=sys.stderr)
        return 2
    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    good = [{**row, "audio_filepath": str(SAMPLES / row["audio_filepath"])} for row in rows]
    with tempfile.TemporaryDirectory() as name, FaultyHttpServer() as server:
        folder = Path(name)
        faults = kinds.of_manifests(folder) + kinds.of_audio(folder, server)
        findings = inject(faults, good, folder, ["--audio_timeout=15", *flags])
    for each in findings.verdicts:
        print(f"{'ok   ' if each.right else 'WRONG'}  {each.fault.name:40} {each.became}")
    print("\n".join(findings.wrong) or f"{len(faults)} faults; all as it should be")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
