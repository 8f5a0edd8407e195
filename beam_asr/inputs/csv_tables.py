"""Reads CSV and TSV tables as rows."""

from __future__ import annotations

import csv
import functools
import itertools
import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from beam_asr.errors import (
    BadFieldError,
    BadRecordError,
    LineTooLongError,
    ManifestError,
    TableError,
)
from beam_asr.inputs import compression, json_lines
from beam_asr.inputs.json_lines import BYTE_ORDER_MARK, SHOWN_CHARACTERS
from beam_asr.inputs.readers import FileRange, Reader
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage

NUMBER_COLUMNS = ("duration", "offset")  # numbers in NeMo's format
MAX_CELL = 2**24  # characters; the csv module's default is 2**17
SHOWN_COLUMNS = 10


def read_rows(
    delimiter: str,
    storage: Storage,
    file_range: FileRange,
    filepath_key: str,  # noqa: ARG001
) -> Iterator[Row]:
    """Yields a row for each record of a CSV or TSV file.

    Raises:
        DamagedInputError, TableError: the rows of the file cannot be read.
    """
    with compression.open_decompressed(storage, file_range.file) as content:
        yield from to_rows(csv_records(content, delimiter, file_range.file), file_range.file)


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


def csv_records(
    file: BinaryIO, delimiter: str, name: str
) -> Iterator[tuple[int, dict[str, Any] | ManifestError]]:
    """Reads the records of a CSV file with a header, as RFC 4180 and Python's ``csv`` describe it.

    Cells are text, as written, except those of `NUMBER_COLUMNS`: they become floats, stay text if
    they are not finite numbers, and are left out if empty. A byte that is not UTF-8 is shown as
    ``\\xNN``. A byte order mark, blank lines and spaces around the columns' names are dropped. An
    empty file has no records. After a record that is too long, reading goes on at the next line.

    Args:
        name: the file's, for messages.

    Yields:
        The line, from 1, on which the record starts, and its fields or an error with its text.

    Raises:
        TableError: with the first record, unless a header names each column exactly once.
    """
    # The limit is the whole process's; raised and never lowered, it disturbs no other thread.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    source = _RecordLines(file)
    records = _cells(source, csv.reader(source, delimiter=delimiter, strict=True))
    _, header = next(records, (0, []))
    if source.number == 0:
        return
    if isinstance(header, ManifestError):
        raise TableError(f"the header of the table {name!r} cannot be read: {header}")
    columns = [column.strip() for column in header]
    check_columns(columns, name)
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


class _RecordLines:
    """Yields the lines of a CSV file to a ``csv.reader``, which reads those of its next record.

    Attributes:
        number: of the last line that was read, from 1.
        text: the lines that were read since ``start_record``.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._record: list[str] = []
        self._bytes = 0
        self.number = 0

    @property
    def text(self) -> str:
        """Returns the lines since ``start_record``, without the last end."""
        return "".join(self._record).rstrip("\r\n")

    def start_record(self) -> None:
        """Starts a record, whose length is counted from here."""
        self._record, self._bytes = [], 0

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        """Raises `LineTooLongError` within a record of more than `MAX_LINE_BYTES`."""
        line = self._file.readline(json_lines.MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        text = line if self.number else line.removeprefix(BYTE_ORDER_MARK)
        self._record.append(text.decode("utf-8", "backslashreplace"))
        self._bytes += len(line)
        self.number += 1
        if self._bytes > json_lines.MAX_LINE_BYTES:
            if len(line) > json_lines.MAX_LINE_BYTES and not line.endswith(b"\n"):
                json_lines.skip_line(self._file)
            raise too_long(self.text)
        return self._record[-1]


def _cells(
    source: _RecordLines, reader: Iterator[list[str]]
) -> Iterator[tuple[int, list[str] | ManifestError]]:
    """Yields the records of a ``csv.reader``, with the numbers of the lines where they start."""
    while True:
        source.start_record()
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


CSV = Reader(
    suffixes=(".csv",),
    read=functools.partial(read_rows, ","),
    may_be_compressed=True,
    is_in_folders=False,
)
TSV = Reader(
    suffixes=(".tsv",),
    read=functools.partial(read_rows, "\t"),
    may_be_compressed=True,
    is_in_folders=False,
)
