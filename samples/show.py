"""Prints a small table of an output folder: file, reference, transcript.

python samples/show.py out/demo
"""

import json
import sys
import textwrap
from pathlib import Path

WIDTHS = (30, 40, 40)


def print_row(*cells: str) -> None:
    wrapped = [
        textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)
    ]
    for line in range(max(map(len, wrapped))):
        parts = [lines[line] if line < len(lines) else "" for lines in wrapped]
        shown = "  ".join(f"{part:{width}}" for part, width in zip(parts, WIDTHS, strict=True))
        print(shown.rstrip())


def main() -> None:
    folder = Path(sys.argv[1])
    records = [
        json.loads(line)
        for shard in sorted(folder.glob("transcripts-*.jsonl"))
        for line in shard.read_text(encoding="utf-8").splitlines()
    ]
    records.sort(key=lambda record: record["audio_filepath"])
    print_row("file", "reference", "transcript")
    print_row(*("-" * width for width in WIDTHS))
    for record in records:
        print_row(Path(record["audio_filepath"]).name, record["text"], record["pred_text"])
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    print(f"\n{summary['transcribed']} transcribed, {summary['failed']} failed: {folder}/")


if __name__ == "__main__":
    main()
