"""The JSON object that a row becomes: with a transcript, or with an error."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from beam_asr.errors import ManifestError
from beam_asr.records.parsing import REPLACED, parse_fields
from beam_asr.records.row import Row

MAX_MESSAGE_CHARACTERS = 500


def transcript(row: Row, made: Mapping[str, Any]) -> dict[str, Any]:
    """The terminal record of a transcribed row: its fields, unchanged, and those that are made."""
    return {**parse_fields(row.line), **made}


def failure(row: Row, stage: str, error: BaseException, attempts: int = 1) -> dict[str, Any]:
    """The terminal record of a row that could not be transcribed.

    It carries the row's fields, or for a line that has none the raw line and its place, and
    ``error`` with the stage, the error's class, its message and how many attempts were made; if the
    row has a field ``error`` itself, that is kept in it, as ``replaced``. The message of an error
    in the manifest begins with the place.
    """
    fields = _carried(row)
    replaced = {REPLACED: fields["error"]} if "error" in fields else {}
    place = f"{row.manifest}:{row.line_number}: " if row.manifest and stage == "manifest" else ""
    return {
        **fields,
        "error": {
            "stage": stage,
            "type": type(error).__name__,
            "message": _message(place + str(error)),
            "attempts": attempts,
            **replaced,
        },
    }


def _carried(row: Row) -> dict[str, Any]:
    """What a failure says of its row."""
    if not row.problem:
        with contextlib.suppress(ManifestError):
            return parse_fields(row.line)
    return {"line": row.line, "manifest": row.manifest, "line_number": row.line_number}


def _message(text: str) -> str:
    """An error's message on one line, in characters that can be written, and not long."""
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    if len(line) <= MAX_MESSAGE_CHARACTERS:
        return line
    half = (MAX_MESSAGE_CHARACTERS - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"  # the remedy is at the end


Record = dict[str, Any]
