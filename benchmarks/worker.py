"""One contestant in a process of its own: loads the model once, then runs on each command.

    python -m benchmarks.worker CONTESTANT MODEL MANIFEST

Transcribes the manifest once to load and warm up, and says that it is ready. Then each line on
standard input names a manifest to transcribe, and each answer on standard output is a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.contestants import CONTESTANTS


def main(name: str, model: str, manifest: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what else is printed must not come between the answers
    contestant = CONTESTANTS[name](model)
    contestant.prepare(Path(manifest))
    contestant.run()
    before = machine.settled_mb()
    print(json.dumps({"ready": name}), file=answers)
    for line in sys.stdin:
        contestant.prepare(Path(line.strip()))
        machine.forget_peak()
        started = time.monotonic()
        contestant.run()
        seconds = time.monotonic() - started
        answer = {
            "seconds": seconds,
            "peak_mb": machine.peak_mb() - before,
            "texts": contestant.texts(),
            "notes": contestant.notes(),
        }
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
