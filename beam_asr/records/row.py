"""Defines the row: one line of a manifest, with its fields and its place.

The format is NeMo's: one JSON object a line, with ``audio_filepath`` and optionally ``duration``
and ``offset`` in seconds; every other field is passed through unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_asr.errors import BadFieldError, BadRecordError, ManifestError
from beam_asr.records import json_numbers, json_values
from beam_asr.records.json_objects import parse_object

URI_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")
OUR_ERROR_KEYS = {"stage", "type", "message", "attempts"}
_FIELDS = "fields"  # the key of a row's parsed fields among its attributes
# A fifth, for what the row itself calls "error"; in any record, a field for the row's own fields
# whose names are those of fields of the job.
REPLACED = "replaced"


class _RowValues(NamedTuple):
    line: str
    manifest: str = ""
    line_number: int = 0
    problem: str = ""
    id: str = ""
    problem_type: str = BadRecordError.__name__
    input_number: int = 0


class Row(_RowValues):
    """One line of a manifest, as it was read.

    Attributes:
        line: the line's text without its end; JSON if the manifest is right.
        manifest: path or URI of the manifest; empty for a row that comes from none.
        line_number: its place there, from 1; 0 for a row that comes from no manifest.
        problem: why the line is not a row; empty if it is one.
        id: the row's stable identity (`row_ids`); empty where none is needed.
        problem_type: the name of the problem's class.
        input_number: of its file, or of itself without one, in the order of the input; 0 if there
            is no order.
    """

    @property
    def fields(self) -> Mapping[str, Any]:
        """Returns the fields of the line, in order; parsed once for each object, and shared.

        A failure record that is read again, as a row, loses the ``error`` of the earlier run, and
        regains the row's ``error`` if it had one.

        Raises:
            ManifestError: the line holds no object; as ``parse_object``.
        """
        # functools.cached_property would take a lock for each row, up to Python 3.11.
        fields: dict[str, Any] | None = self.__dict__.get(_FIELDS)
        if fields is not None:
            return fields
        fields = self.__dict__[_FIELDS] = parse_object(self.line, "the line")
        error = fields.get("error")
        if isinstance(error, dict) and error.keys() - {REPLACED} == OUR_ERROR_KEYS:
            if REPLACED in error:
                fields["error"] = error[REPLACED]
            else:
                del fields["error"]
        return fields

    def with_id(self, row_id: str) -> Row:
        """Returns the row with an identity, and with its fields if they are parsed."""
        return self._sharing_fields(self._replace(id=row_id))

    def with_input_number(self, number: int) -> Row:
        """Returns the row with a place in the input, and with its fields if they are parsed."""
        return self._sharing_fields(self._replace(input_number=number))

    def _sharing_fields(self, row: Row) -> Row:
        row.__dict__.update(self.__dict__)
        return row

    def __reduce__(self) -> tuple[type[Row], tuple[Any, ...]]:
        """Pickles the tuple alone: after a shuffle, parsing the line again is cheaper."""
        return Row, tuple(self)

    @classmethod
    def of(cls, fields: dict[str, Any], manifest: str = "", line_number: int = 0) -> Row:
        """Creates a row from its fields, whose values may also be those of `json_values`.

        Raises:
            BadFieldError: JSON cannot represent a field; has the ``repr`` of the fields.
        """
        try:
            return cls(_to_json(fields), manifest, line_number)
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"the row's fields cannot be written as JSON ({error}); {json_values.REMEDY}"
            raise BadFieldError(problem, _as_python(fields)) from None

    @classmethod
    def parsed(cls, fields: dict[str, Any], row_id: str, manifest: str = "") -> Row:
        """Creates a row of fields that were read from JSON, which are not parsed again here."""
        row = cls(_to_json(fields), manifest, id=row_id)
        row.__dict__[_FIELDS] = fields
        return row

    @classmethod
    def broken(cls, error: ManifestError, manifest: str = "", line_number: int = 0) -> Row:
        """Creates a row for an invalid line, so that it fails with this error."""
        name = type(error).__name__
        return cls(error.line, manifest, line_number, problem=str(error), problem_type=name)


def _as_python(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # of numbers too long, of nesting too deep, or of any class's own
        return f"{type(value).__name__} that cannot be shown"


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=json_values.to_json_value)
_ASCII_ENCODER = json.JSONEncoder(default=json_values.to_json_value)


def _to_json(fields: dict[str, Any]) -> str:
    try:
        line = json_numbers.dumps(fields, _ENCODER.encode)
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json_numbers.dumps(fields, _ASCII_ENCODER.encode)
    return line
