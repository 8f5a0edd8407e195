"""Writes the table of signals in docs/scoring.md, from `beam_asr.transcripts.quality`.

python -m tests.project.signal_table
"""

from __future__ import annotations

import re

from beam_asr.transcripts.quality import all_signals
from tests.support.job_files import REPOSITORY

PAGE = REPOSITORY / "docs" / "scoring.md"
BLOCK = re.compile(r"(?<=<!-- signals -->\n).*?(?=<!-- /signals -->)", re.DOTALL)


def table() -> str:
    """A row for each signal: its name, what it is, and what its function's docstring says of it."""
    rows = ["| field | what | how it is counted, and what it shows |", "| --- | --- | --- |"]
    for signal in all_signals():
        notes = " ".join((signal.function.__doc__ or "").split()).replace("``", "`")
        rows.append(f"| `{signal.name}` | {signal.description} | {notes} |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """The page, with the table as it is now."""
    return BLOCK.sub(lambda _: table(), PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
