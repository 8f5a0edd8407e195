"""Writes docs/fields.md, the reference of all fields of the output, from `field_reference`.

python -m tests.project.field_table
"""

from __future__ import annotations

from collections.abc import Iterable

from beam_asr.outputs.field_reference import (
    FAILURE_FIELDS,
    FILTERED_FIELDS,
    MERGE_FIELDS,
    SUMMARY_FIELDS,
    WINDOW_FIELDS,
    Field,
    transcript_fields,
)
from tests.support.job_files import REPOSITORY

PAGE = REPOSITORY / "docs" / "fields.md"
HEAD = """# Fields of the output

What a record has beside the fields of its row, which stay as they are, and what `summary.json` has.
Settings are named without the dashes of their flags. In tables of a field, `[]` stands for each
object of a list. Written by `make docs`; tests hold it against what jobs write.
"""
PARTS = {
    "Transcripts": "`transcripts-*.jsonl`: rows that were transcribed.",
    "Failures": "`failures-*.jsonl`: rows that could not be transcribed.",
    "Filtered rows": "`filtered-*.jsonl`: rows that are kept apart. They also have the fields of "
    "transcripts, if they were transcribed.",
    "Summary": "`summary.json`: the job.",
    "Summary of a window": "`summary.json` of each window of a stream, which has all of the above "
    "but those of a job that is no stream, and",
    "Summary of merged folders": "Those of `summary.json`, and if the folders share rows:",
}


def page() -> str:
    """The whole page."""
    tables = [
        transcript_fields(),
        FAILURE_FIELDS,
        FILTERED_FIELDS,
        SUMMARY_FIELDS,
        WINDOW_FIELDS,
        MERGE_FIELDS,
    ]
    parts = [HEAD]
    for (title, said), fields in zip(PARTS.items(), tables, strict=True):
        parts.append(f"\n## {title}\n\n{said}\n\n| field | type | unit | meaning | when |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        parts += rows(fields)
    return "".join(parts)


def rows(fields: Iterable[Field], above: str = "") -> Iterable[str]:
    for field in fields:
        kind = f"{field.type} or null" if field.may_be_null else field.type
        cells = [f"`{above}{field.name}`", kind, field.unit, field.meaning, field.when or "always"]
        yield "| " + " | ".join(cells) + " |\n"
        step = "[]." if field.type == "list" else "."
        yield from rows(field.fields, f"{above}{field.name}{step}")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
