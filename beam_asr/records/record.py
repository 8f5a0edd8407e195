"""Defines the result of a row: a typed envelope within the job, a JSON object outside."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from beam_asr.errors import BeamAsrError, ManifestError, for_message
from beam_asr.records.row import REPLACED, Row
from beam_asr.storage.uris import without_secrets

MAX_MESSAGE_CHARACTERS = 500

Record = dict[str, Any]


class Transcript(NamedTuple):
    """A row that was transcribed.

    Attributes:
        row: the row, as it was read, with its manifest.
        result: the fields that the job adds to those of the row, in order.
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
        """Returns the fields of the row, unchanged, and those of the result (`with_added`)."""
        return with_added(self.row.fields, self.result)

    def adding(self, fields: Mapping[str, Any]) -> Transcript:
        """Returns the transcript with further fields in its result."""
        return self._replace(result={**self.result, **fields})

    def with_duration(self) -> Transcript:
        """Returns the transcript with the measured ``duration``, if row and result lack it."""
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
        """Returns the fields of the row, or for a line without fields the raw line and its place,
        and ``error``, which has the row's own as ``replaced``."""
        added: Record = {"error": dict(self.error)}
        if self.model is not None:
            added["model"] = self.model
        return with_added(_carried(self.row), added, kept=("error",))


class FilteredRow(NamedTuple):
    """A row that the user's settings filter.

    Attributes:
        result: the fields that the job adds to those of the row, as in a `Transcript`.
        why: the reason: ``by``, the filter, and its fields.
        seconds: of its audio; None if it was not read.
    """

    row: Row
    result: Mapping[str, Any]
    why: Mapping[str, Any]
    seconds: float | None = None

    @classmethod
    def refused(cls, row: Row, error: Mapping[str, Any], model: str | None) -> FilteredRow:
        """Creates a row whose audio the limits refuse, from the ``error`` of a failure."""
        why = {"by": "audio", "type": error["type"], "message": error["message"]}
        return cls(row, {} if model is None else {"model": model}, why)

    @property
    def origin(self) -> str:
        """Path or URI of the row's manifest; empty if it comes from none."""
        return self.row.manifest

    def record(self) -> Record:
        """Returns the fields of the row and of the result, and ``filtered``."""
        return with_added(self.row.fields, {**self.result, "filtered": dict(self.why)})


Envelope = Transcript | Failure | FilteredRow
Element = TypeVar("Element", bound=Envelope | Record)


def to_record(element: Envelope | Record) -> Record:
    """Returns the JSON object of an element; a user's step may have created it already."""
    return element if isinstance(element, dict) else element.record()


def with_added(
    fields: Mapping[str, Any], added: Mapping[str, Any], kept: Collection[str] = ()
) -> Record:
    """Returns the fields of a row with those of the job.

    What the row itself has under the name of one of the job's is in the field ``replaced``, by that
    name; a field ``replaced`` of the row's own as well, then. A null, and a text that the job
    writes again, are not kept.

    Args:
        kept: names that ``added`` keeps by itself.
    """
    replaced = {
        name: fields[name]
        for name, value in added.items()
        if name in fields and name not in kept and not _says_no_more(fields[name], value)
    }
    if not replaced:
        return {**fields, **added}
    if REPLACED in fields:
        replaced[REPLACED] = fields[REPLACED]
    return {**fields, **added, REPLACED: replaced}


def _says_no_more(own: Any, new: Any) -> bool:
    return own is None or (isinstance(own, str) and own == new)


def with_duration(element: Element) -> Element:
    """Returns a transcript with its measured ``duration``; anything else unchanged."""
    if isinstance(element, Transcript):
        return cast(Element, element.with_duration())
    return element


def failure(row: Row, error: BaseException, attempts: int = 1, stage: str = "") -> Record:
    """Returns the record of a row that could not be transcribed, without a model."""
    return Failure(row, error_of(row, error, attempts, stage)).record()


def error_of(row: Row, error: BaseException, attempts: int = 1, stage: str = "") -> dict[str, Any]:
    """Returns the ``error`` of a failure record.

    It has the stage, the error's class, its message, without what may be secret of a URL, and the
    number of attempts; if the row has a
    field ``error`` itself, that is stored in it, as ``replaced``. The message of an error in the
    manifest starts with the place.

    Args:
        stage: at which the error was caught; by default the one of its class.
    """
    stage = stage or (error.stage if isinstance(error, BeamAsrError) else "")
    fields = _carried(row)
    replaced = {REPLACED: fields["error"]} if "error" in fields else {}
    place = f"{row.manifest}:{row.line_number}: " if row.manifest and stage == "manifest" else ""
    return {
        "stage": stage,
        "type": type(error).__name__,
        "message": _message(without_secrets(place + str(error))),
        "attempts": attempts,
        **replaced,
    }


def _carried(row: Row) -> Mapping[str, Any]:
    """Returns the fields of a row that its failure repeats."""
    if not row.problem:
        with contextlib.suppress(ManifestError):
            return row.fields
    manifest = without_secrets(row.manifest)
    return {"line": row.line, "manifest": manifest, "line_number": row.line_number}


def _message(text: str) -> str:
    """Returns an error's message on one line, in characters that can be written, shortened."""
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    if len(line) <= MAX_MESSAGE_CHARACTERS:
        return line
    gap = " ... "
    half = (MAX_MESSAGE_CHARACTERS - len(gap)) // 2
    return for_message(line, 2 * half + len(gap), end=half, gap=gap)  # the remedy is at the end
