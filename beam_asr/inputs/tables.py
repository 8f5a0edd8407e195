"""Makes rows of the records of tables, and checks the names of their columns."""

from __future__ import annotations

import itertools
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from beam_asr.errors import (
    BadFieldError,
    BadRecordError,
    LineTooLongError,
    ManifestError,
    TableError,
)
from beam_asr.inputs import json_lines
from beam_asr.inputs.json_lines import SHOWN_CHARACTERS
from beam_asr.records.json_numbers import read_float
from beam_asr.records.row import Row

NUMBER_COLUMNS = ("duration", "offset")  # numbers in NeMo's format
SHOWN_COLUMNS = 10
JSON_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][+-]?[0-9]+)?")
WITH_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")

Records = Iterator[tuple[int, dict[str, Any] | ManifestError]]


def to_rows(
    records: Iterable[tuple[int, dict[str, Any] | ManifestError]], file: str
) -> Iterator[Row]:
    """Yields a row for each numbered record of a table, or for the error in its place."""
    return (_row(record, file, number) for number, record in records)


def _row(record: dict[str, Any] | ManifestError, file: str, number: int) -> Row:
    if isinstance(record, ManifestError):
        return Row.broken(record, file, number)
    try:
        row = Row.of(record, file, number)
    except BadFieldError as error:
        return Row.broken(error, file, number)
    if len(row.line) > json_lines.MAX_LINE_BYTES:
        return Row.broken(too_long(row.line), file, number)
    return row


def too_long(text: str) -> LineTooLongError:
    """Returns the error of a record of a table with this text, or a longer one."""
    return LineTooLongError(
        f"the record is longer than {json_lines.MAX_LINE_BYTES} bytes, which no row is; end "
        "the quotes of its cells, and name audio in it by a path",
        text[:SHOWN_CHARACTERS],
    )


def check_columns(columns: Sequence[str], name: str) -> None:
    """Checks the columns' names of a table.

    Args:
        name: the file's, for messages.

    Raises:
        TableError: a name is missing, is not text, or occurs twice.
    """
    if not columns:
        raise TableError(
            f"the table {name!r} names no columns; a CSV file does so in its first line"
        )
    if any("\0" in column for column in columns):
        raise TableError(f"the table {name!r} is not UTF-8 text; save it as UTF-8")
    if "" in columns:
        raise TableError(
            f"column {columns.index('') + 1} of the table {name!r} has no name, beside "
            f"{_listed(filter(None, columns))}; name it (pandas leaves its index's "
            "name out: to_csv(..., index=False))"
        )
    repeated = sorted(column for column, times in Counter(columns).items() if times > 1)
    if repeated:
        raise TableError(
            f"the table {name!r} has more than one column {_listed(repeated)}; "
            "give each a name of its own"
        )


def _listed(columns: Iterable[str]) -> str:
    """Returns the first columns, for a message."""
    return ", ".join(map(reprlib.repr, itertools.islice(columns, SHOWN_COLUMNS)))


class CellFields:
    """Makes fields of the cells of a table of text.

    Cells are text, as written, except those of `NUMBER_COLUMNS`: they become floats, stay text if
    they are not finite numbers, and are left out if empty.

    Args:
        decimal_comma: whether ``3,69`` is a number too. One table may write decimals with a comma
            or with a point, not with both: then ``1.234`` may mean 1234.
    """

    def __init__(self, columns: Sequence[str], decimal_comma: bool = False):
        self._columns = columns
        self._numbers = [column for column in NUMBER_COLUMNS if column in columns]
        self._decimal_comma = decimal_comma
        self._decimal = ""  # the first cell with a decimal comma or point

    def of(self, cells: Sequence[str]) -> dict[str, Any]:
        """Returns the fields of a record, with as many cells as the table has columns.

        Raises:
            BadRecordError: the table has written its decimals in the other way so far.
        """
        fields: dict[str, Any] = dict(zip(self._columns, cells))
        for column in self._numbers:
            if cell := fields[column].strip():
                fields[column] = self._number(cell, fields[column])
            else:
                del fields[column]
        return fields

    def _number(self, cell: str, text: str) -> float | str:
        if self._decimal_comma and WITH_DECIMAL_COMMA.fullmatch(cell):
            self._check_decimal(cell, ",")
            return float(cell.replace(",", "."))
        try:
            number = float(cell)
        except ValueError:
            return text
        if not math.isfinite(number) or "_" in cell:  # 1_000 is a number in Python alone
            return text
        if self._decimal_comma and "." in cell:
            self._check_decimal(cell, ".")
        return read_float(cell) if JSON_FRACTION.fullmatch(cell) else number

    def _check_decimal(self, cell: str, sign: str) -> None:
        if not self._decimal:
            self._decimal = cell
        if sign not in self._decimal:
            raise BadRecordError(
                f"the record writes {cell!r}, where the table has written {self._decimal!r}, so "
                "that one of the two signs may part thousands; write all decimals with a point"
            )
