"""Makes the rows of a page's table: what differs, why a row is there, and its audio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from beam_asr.outputs.report.excerpts import Excerpt
from beam_asr.outputs.report.quantities import QUANTITIES
from beam_asr.outputs.report.run_fields import NONE, RunFields, number, shown, shown_place
from beam_asr.outputs.report.word_differences import MAX_CHARACTERS, SAME, pieces
from beam_asr.records.record import Record
from beam_asr.transcripts.normalizers import normalizer

WORST, SUSPICIOUS, SAMPLE = "worst", "suspicious", "sample"


class RowsTable:
    """Collects the rows of a table, each once, with its place in each list that it is in."""

    def __init__(self, fields: RunFields) -> None:
        self._fields = fields
        self._normalize = normalizer(fields.normalizer)
        self._rows: dict[int, dict[str, Any]] = {}
        self._lengths: Counter[str] = Counter()
        self.records: list[Record] = []

    def add(self, kind: str, record: Record, why: str = "") -> None:
        """Adds a record to a list: `WORST`, `SUSPICIOUS` or `SAMPLE`."""
        row = self._rows.get(id(record))
        if row is None:
            row = self._rows[id(record)] = self._row(record)
            self.records.append(record)
        row["lists"][kind] = self._lengths[kind]
        self._lengths[kind] += 1
        if why:
            row["why"] = why

    def rows(self, excerpts: Iterable[Excerpt]) -> list[dict[str, Any]]:
        """Returns the rows as JSON, with their audio."""
        return [
            {**row, **{name: value for name, value in excerpt._asdict().items() if value}}
            for row, excerpt in zip(self._rows.values(), excerpts, strict=True)
        ]

    def _row(self, record: Record) -> dict[str, Any]:
        audio, offset, channel = self._fields.place_of(record)
        row: dict[str, Any] = {
            "lists": {},
            "audio": shown_place(audio)[:500],
            "offset": offset,
            "channel": channel,
            **{each.name: _rounded(number(record.get(each.name))) for each in QUANTITIES},
        }
        if (language := self._fields.language_of(record)) != NONE:
            row["language"] = language
        if isinstance(model := record.get("model"), str):
            row["model"] = shown(model)[:200]
        reference = self._fields.reference_of(record)
        if reference is not None:
            row["reference"] = shown(reference)[:MAX_CHARACTERS]
            differences = shown_pieces(
                self._normalize(reference), self._normalize(self._fields.text_of(record))
            )
            row["texts"] = [["", differences]]
        else:
            text = shown(self._fields.text_of(record))[:MAX_CHARACTERS]
            row["texts"] = [["", [[SAME, text]]]]
        return row


def shown_pieces(expected: str, recognized: str) -> list[list[str]]:
    """Returns how two normalized texts differ, as a page shows it."""
    return [[kind, shown(text)] for kind, text in pieces(expected.split(), recognized.split())]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
