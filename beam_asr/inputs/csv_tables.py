"""Records of tables, CSV and Parquet, as fields that JSON can hold."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, BinaryIO

from beam_asr.inputs import json_lines as lines
from beam_asr.inputs.json_lines import BYTE_ORDER_MARK, SHOWN_CHARACTERS
from beam_asr.manifest_errors import BadRecordError, LineTooLongError, ManifestError

NUMBER_COLUMNS = ("duration", "offset")  # which NeMo's format has as numbers
LONGEST_CELL = 2**24  # characters; the csv module's own limit is 2**17
SHOWN_COLUMNS = 10
BATCH_ROWS = 1024
BATCH_BYTES = 2**24
BUFFER_BYTES = 2**22  # for each column
SMALL_FILE_BYTES = 2**23  # fetched column by column


class TableError(ValueError):
    """A defect of a whole table: none of its records can be told for certain."""


def csv_records(
    file: BinaryIO, delimiter: str, name: str
) -> Iterator[tuple[int, dict[str, Any] | ManifestError]]:
    """The records of a CSV file with a header, as RFC 4180 and Python's ``csv`` describe it.

    Cells are text, as written, except those of `NUMBER_COLUMNS`: they become floats, or stay text
    if they are no finite numbers, and are left out if empty. A byte that is not UTF-8 is shown as
    ``\\xNN``. A byte order mark, blank lines and spaces around the columns' names are dropped. An
    empty file has no records. After a record that is too long, reading goes on at the next line.

    Args:
        name: the file's, for messages.

    Yields:
        The line, from 1, on which the record starts, and its fields or what is wrong with it, with
        its text.

    Raises:
        TableError: with the first record, if no header names each column, and once.
    """
    # The limit is the whole process's; raised and never lowered, it disturbs no other thread.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    source = _RecordLines(file)
    records = _cells(source, csv.reader(source, delimiter=delimiter, strict=True))
    _, header = next(records, (0, []))
    if source.number == 0:
        return
    if isinstance(header, ManifestError):
        raise TableError(f"the header of the table {name!r} cannot be read: {header}")
    columns = [column.strip() for column in header]
    _check_columns(columns, name)
    for number, cells in records:
        if isinstance(cells, ManifestError):
            yield number, cells
        elif len(cells) != len(columns):
            problem = (
                f"the record has {len(cells)} cells, where the header has {len(columns)} columns; "
                f"put cells that hold {delimiter!r} in quotes, and complete what is cut short"
            )
            yield number, BadRecordError(problem, source.text)
        else:
            yield number, _fields(columns, cells)


def too_long(text: str) -> LineTooLongError:
    """Why the record of a table with this text, or longer, cannot become a row."""
    return LineTooLongError(
        f"the record is longer than {lines.LONGEST_LINE_BYTES} bytes, which no row is; end the "
        "quotes of its cells, and name audio in it by a path",
        text[:SHOWN_CHARACTERS],
    )


def parquet_row_groups(file: BinaryIO, name: str) -> int:
    """How many row groups a Parquet file has.

    Raises:
        TableError: it is not Parquet, or damaged.
    """
    with _reading_parquet(name):
        return _parquet_file(file).num_row_groups


def parquet_records(
    file: BinaryIO, row_groups: Sequence[int], name: str
) -> Iterator[tuple[int, dict[str, Any] | BadRecordError]]:
    """The records of some row groups of a Parquet file, by some `BATCH_BYTES` at a time.

    What JSON has no form for is converted, however deep it is nested: dates and times to ISO 8601,
    lengths of time to seconds, decimals to numbers or, where a float has too few digits, to text,
    NaN to null, infinities to text, maps to objects, UUIDs to text.

    Args:
        row_groups: their indices, from 0.
        name: the file's, for messages.

    Yields:
        The record's place in the whole file, from 1, and its fields or what is wrong with it: a
        cell that holds bytes or has no value in Python.

    Raises:
        TableError: the file is not Parquet, or damaged, or its columns' names are.
    """
    with _reading_parquet(name):
        table = _parquet_file(file)
        groups = [table.metadata.row_group(index) for index in range(table.num_row_groups)]
        rows_before = [0, *itertools.accumulate(group.num_rows for group in groups)]
        if rows_before[-1] != table.metadata.num_rows:
            raise _unreadable(name, "its row groups are not all of its rows")
        columns = table.schema_arrow.names
        _check_columns(columns, name)
        for index in row_groups:
            number = rows_before[index]
            rows = BATCH_BYTES * groups[index].num_rows // (groups[index].total_byte_size or 1)
            rows = max(1, min(rows, BATCH_ROWS))
            for batch in table.iter_batches(rows, row_groups=[index], use_threads=False):
                for values in zip(*(_values(column) for column in batch.columns)):
                    number += 1
                    yield number, _plain_record(columns, values)
            if number != rows_before[index + 1]:
                raise _unreadable(name, f"row group {index} lacks rows")


def _check_columns(columns: Sequence[str], name: str) -> None:
    if not columns:
        raise TableError(
            f"the table {name!r} names no columns; a CSV file does so in its first line"
        )
    if any("\0" in column for column in columns):
        raise TableError(f"the table {name!r} is not UTF-8 text; save it as UTF-8")
    if "" in columns:
        raise TableError(
            f"column {columns.index('') + 1} of the table {name!r} has no name, beside "
            f"{_named(filter(None, columns))}; name it (pandas leaves its index's "
            "name out: to_csv(..., index=False))"
        )
    twice = sorted(column for column, times in Counter(columns).items() if times > 1)
    if twice:
        raise TableError(
            f"the table {name!r} has more than one column {_named(twice)}; "
            "give each a name of its own"
        )


def _named(columns: Iterable[str]) -> str:
    """Some columns, for a message."""
    return ", ".join(map(reprlib.repr, itertools.islice(columns, SHOWN_COLUMNS)))


class _RecordLines:
    """The lines of a CSV file, for a ``csv.reader``, which takes as many as its next record has.

    Attributes:
        number: of the last line that was taken, from 1.
        text: what has been taken since ``begin_record``.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._record: list[str] = []
        self._bytes = 0
        self.number = 0

    @property
    def text(self) -> str:
        return "".join(self._record).rstrip("\r\n")

    def begin_record(self) -> None:
        self._record, self._bytes = [], 0

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        """Raises `LineTooLongError` in the midst of a record of more than the longest line."""
        line = self._file.readline(lines.LONGEST_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        text = line if self.number else line.removeprefix(BYTE_ORDER_MARK)
        self._record.append(text.decode("utf-8", "backslashreplace"))
        self._bytes += len(line)
        self.number += 1
        if self._bytes > lines.LONGEST_LINE_BYTES:
            if len(line) > lines.LONGEST_LINE_BYTES and not line.endswith(b"\n"):
                lines.skip_line(self._file)
            raise too_long(self.text)
        return self._record[-1]


def _cells(
    source: _RecordLines, reader: Iterator[list[str]]
) -> Iterator[tuple[int, list[str] | ManifestError]]:
    """The records of a ``csv.reader`` of these lines, with the lines on which they start."""
    while True:
        source.begin_record()
        number = source.number + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except LineTooLongError as error:
            yield number, error
        except csv.Error as error:
            problem = (
                f"the record is not CSV ({error}); a cell that begins with a quote ends with one, "
                "and doubles those within"
            )
            yield number, BadRecordError(problem, source.text)
        else:
            if cells and not (len(cells) == 1 and cells[0].isspace()):
                yield number, cells


def _fields(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    fields: dict[str, Any] = dict(zip(columns, cells))
    for column in NUMBER_COLUMNS:
        if not (cell := fields.get(column, "")).strip():
            fields.pop(column, None)
            continue
        try:
            number = float(cell)
        except ValueError:
            continue
        if math.isfinite(number) and "_" not in cell:  # 1_000 is a number in Python alone
            fields[column] = number
    return fields


@contextmanager
def _reading_parquet(name: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (
        pyarrow.ArrowInvalid,
        pyarrow.ArrowNotImplementedError,
        UnicodeDecodeError,  # of a column's name
        OSError,
    ) as error:
        # Errors of the storage come through pyarrow as they are, with a type of their own.
        if isinstance(error, OSError) and type(error) is not OSError:
            raise
        raise _unreadable(name, " ".join(str(error).split())) from error


def _unreadable(name: str, reason: str) -> TableError:
    return TableError(
        f"the table {name!r} cannot be read as Parquet ({reason}); if it is Parquet, copy it again "
        "from its origin"
    )


def _parquet_file(file: BinaryIO) -> Any:
    from pyarrow import parquet

    # Otherwise a whole row group's columns are fetched at once. With a buffer, a page is believed
    # what it says of its size; so only files that can hold such columns are read with one.
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    buffer = BUFFER_BYTES if size > SMALL_FILE_BYTES else 0
    return parquet.ParquetFile(file, buffer_size=buffer, pre_buffer=False)


def _values(column: Any) -> list[Any]:
    """The values of an Arrow array; for one that Python cannot hold, the error instead."""
    try:
        return column.to_pylist(maps_as_pydicts="strict")
    except Exception:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py(maps_as_pydicts="strict")
    except Exception as error:
        return error


def _plain_record(columns: Sequence[str], values: Sequence[Any]) -> dict[str, Any] | BadRecordError:
    fields = {}
    for column, value in zip(columns, values):
        try:
            fields[column] = _plain(value)
        except BadRecordError as error:
            return BadRecordError(f"the column {column!r} {error}")
        except RecursionError:
            return BadRecordError(f"the column {column!r} holds lists in lists, too deep for a row")
    return fields


def _plain(value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        BadRecordError: the rest of a sentence whose subject is the column.
    """
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None  # pandas writes missing numbers so
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Decimal):
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        raise BadRecordError(
            "holds bytes, and this job reads audio by its path; write the audio to files and give "
            "their paths, or, if it is text, make it a column of strings"
        )
    if isinstance(value, Exception):
        raise BadRecordError(f"holds a value that cannot be read ({value})")
    return str(value)
