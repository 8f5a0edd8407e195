"""What becomes of a row: a typed envelope between the job's steps, a JSON object at its border."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, cast

from beam_asr.errors import BeamAsrError, ManifestError, for_message
from beam_asr.records.row import REPLACED, Row

MAX_MESSAGE_CHARACTERS = 500

Record = dict[str, Any]


class Transcript(NamedTuple):
    """A row that is transcribed.

    Attributes:
        row: the row, as it was read; with it the manifest that it comes from.
        result: the fields that the job adds to those of the row, in their order.
        seconds: of its audio.
    """

    row: Row
    result: Mapping[str, Any]
    seconds: float

    @property
    def origin(self) -> str:
        """Path or URI of the row's manifest; empty if it comes from none."""
        return self.row.manifest

    def record(self) -> Record:
        """The fields of the row, unchanged, and those of the result."""
        return {**self.row.fields, **self.result}

    def adding(self, fields: Mapping[str, Any]) -> Transcript:
        """The same with further fields in its result."""
        return self._replace(result={**self.result, **fields})

    def with_duration(self) -> Transcript:
        """The same with the measured ``duration``, if neither row nor result says it."""
        if self.result.get("duration", self.row.fields.get("duration")) is not None:
            return self
        return self.adding({"duration": self.seconds})


class Failure(NamedTuple):
    """A row that could not be transcribed.

    Attributes:
        error: the ``error`` of its record (`error_of`).
        model: the name of its model, if there are several.
    """

    row: Row
    error: Mapping[str, Any]
    model: str | None = None

    @property
    def origin(self) -> str:
        """Path or URI of the row's manifest; empty if it comes from none."""
        return self.row.manifest

    def record(self) -> Record:
        """The fields of the row, or for a line that has none the raw line and its place, and
        ``error``."""
        record = {**_carried(self.row), "error": dict(self.error)}
        if self.model is not None:
            record["model"] = self.model
        return record


class FilteredRow(NamedTuple):
    """A row that is left out as the user wants it.

    Attributes:
        result: the fields that the job adds to those of the row, as of a `Transcript`.
        why: what filters it: ``by``, and what that says.
    """

    row: Row
    result: Mapping[str, Any]
    why: Mapping[str, Any]

    @classmethod
    def refused(cls, row: Row, error: Mapping[str, Any], model: str | None) -> FilteredRow:
        """A row whose audio the limits refuse, with the ``error`` that a failure would have."""
        why = {"by": "audio", "type": error["type"], "message": error["message"]}
        return cls(row, {} if model is None else {"model": model}, why)

    @property
    def origin(self) -> str:
        """Path or URI of the row's manifest; empty if it comes from none."""
        return self.row.manifest

    def record(self) -> Record:
        """The fields of the row and of the result, and ``filtered``."""
        fields = dict(self.row.fields)
        if self.why["by"] == "audio":
            fields.pop("error", None)  # as of a failure, whose error takes its place
        return {**fields, **self.result, "filtered": dict(self.why)}


Envelope = Transcript | Failure | FilteredRow
Element = TypeVar("Element", bound=Envelope | Record)


def to_record(element: Envelope | Record) -> Record:
    """The JSON object of an element; one that a user's own step made is it already."""
    return element if isinstance(element, dict) else element.record()


def with_duration(element: Element) -> Element:
    """A transcript with its measured ``duration``; anything else as it is."""
    if isinstance(element, Transcript):
        return cast(Element, element.with_duration())
    return element


def failure(row: Row, error: BaseException, attempts: int = 1, stage: str = "") -> Record:
    """The terminal record of a row that could not be transcribed; of no known model."""
    return Failure(row, error_of(row, error, attempts, stage)).record()


def error_of(row: Row, error: BaseException, attempts: int = 1, stage: str = "") -> dict[str, Any]:
    """The ``error`` of a failure record.

    It has the stage, the error's class, its message and how many attempts were made; if the row has
    a field ``error`` itself, that is kept in it, as ``replaced``. The message of an error in the
    manifest begins with the place.

    Args:
        stage: at which the error was caught; by default the one that its class has.
    """
    stage = stage or (error.stage if isinstance(error, BeamAsrError) else "")
    fields = _carried(row)
    replaced = {REPLACED: fields["error"]} if "error" in fields else {}
    place = f"{row.manifest}:{row.line_number}: " if row.manifest and stage == "manifest" else ""
    return {
        "stage": stage,
        "type": type(error).__name__,
        "message": _message(place + str(error)),
        "attempts": attempts,
        **replaced,
    }


def _carried(row: Row) -> Mapping[str, Any]:
    """What a failure says of its row."""
    if not row.problem:
        with contextlib.suppress(ManifestError):
            return row.fields
    return {"line": row.line, "manifest": row.manifest, "line_number": row.line_number}


def _message(text: str) -> str:
    """An error's message on one line, in characters that can be written, and not long."""
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    if len(line) <= MAX_MESSAGE_CHARACTERS:
        return line
    gap = " ... "
    half = (MAX_MESSAGE_CHARACTERS - len(gap)) // 2
    return for_message(line, 2 * half + len(gap), end=half, gap=gap)  # the remedy is at the end
