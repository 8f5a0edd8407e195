"""Reads CSV tables as rows, whose cells commas, semicolons or tabs may separate."""

from __future__ import annotations

import csv
import posixpath
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from beam_asr.errors import BadRecordError, LineTooLongError, ManifestError, TableError
from beam_asr.inputs import compression, json_lines, tables
from beam_asr.inputs.json_lines import BYTE_ORDER_MARK
from beam_asr.inputs.readers import FileRange, Reader, from_start
from beam_asr.records.row import Row
from beam_asr.storage.file_kinds import is_audio
from beam_asr.storage.storage import Storage

MAX_CELL = 2**24  # characters; the csv module's default is 2**17
MAX_RECORD_LINES = 2**16
DELIMITERS = ",;\t"
SEPARATOR_LINE = re.compile(r'"?sep=([^\w"])"?', re.IGNORECASE)  # Excel's
DIGITS = re.compile(r"[0-9]+")
NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")


def read_rows(storage: Storage, file_range: FileRange, filepath_key: str) -> Iterator[Row]:
    """Yields a row for each record of a CSV file.

    Raises:
        DamagedInputError, TableError: the rows of the file cannot be read.
    """
    with compression.open_decompressed(storage, file_range.file) as content:
        records = csv_records(content, file_range.file, filepath_key)
        yield from tables.to_rows(records, file_range.file)


def csv_records(file: BinaryIO, name: str, filepath_key: str) -> tables.Records:
    """Reads the records of a CSV file with a header, as RFC 4180 and Python's ``csv`` describe it.

    The delimiter is that of a first line ``sep=;``; or that of `DELIMITERS` which gives the header
    a column ``filepath_key``; or that which gives it most columns. With semicolons, as where the
    comma is the decimal sign, numbers may have a decimal comma. `CellFields` says which cells
    become numbers; others stay text, as written. A byte that is not UTF-8 is shown as ``\\xNN``. A
    byte order mark, blank lines and spaces around the columns' names are dropped. An empty file has
    no records.

    A record of several lines that is not valid, or in which other records seem to be since a quote
    opened and another one closed far below, is an error in its first line alone; those below are
    read on their own. So each line that is not blank is in a record, or in an error of its own.

    Args:
        name: the file's, for messages.
        filepath_key: the column that names the audio.

    Yields:
        The line, from 1, on which the record starts, and its fields or an error with its text.

    Raises:
        TableError: with the first record, unless a header names each column exactly once.
    """
    # The limit is the whole process's; raised and never lowered, it disturbs no other thread.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    source = _RecordLines(file)
    delimiter = _find_delimiter(source, filepath_key)
    records = _cells(source, csv.reader(source, delimiter=delimiter, strict=True))
    _, header = next(records, (0, []))
    if source.number == 0:
        return
    if isinstance(header, ManifestError):
        raise TableError(f"the header of the table {name!r} cannot be read: {header}")
    columns = [column.strip() for column in header]
    tables.check_columns(columns, name)
    layout = _Layout(columns, delimiter, filepath_key)
    fields = tables.CellFields(columns, decimal_comma=delimiter == ";")
    for number, cells in records:
        try:
            if isinstance(cells, ManifestError):
                raise cells
            if len(cells) != len(columns) or len(source.lines) > 1:
                layout.check(cells, source.lines)
            yield number, fields.of(cells)
        except ManifestError as error:
            yield number, _of_first_line(error, source)


def _of_first_line(problem: ManifestError, source: _RecordLines) -> ManifestError:
    """Returns the error of a record for its first line; those below are read again."""
    last, message = source.number, str(problem)
    if len(source.lines) > 1:
        source.read_again(1)
        reason, _, _ = message.partition(";")
        message = (
            f"a quote opens in the record of this line, so that it goes on to line {last}, and "
            f"{reason}; close the quote in its cell, and double those of a text. The lines below "
            "this one are read on their own"
        )
    shown = json_lines.SHOWN_CHARACTERS if isinstance(problem, LineTooLongError) else None
    return type(problem)(message, source.text[:shown])


def _find_delimiter(source: _RecordLines, filepath_key: str) -> str:
    """Finds the delimiter of a table by its first line, which is read again if it is the header."""
    line = "\n"
    while line.isspace():
        source.start_record()
        try:
            line = next(source, "")
        except LineTooLongError:
            line = ""
        if match := SEPARATOR_LINE.fullmatch(line.rstrip("\r\n")):
            return match[1]
    source.read_again(0)
    found, most = ",", 0
    for delimiter in DELIMITERS:
        source.start_record()
        try:
            header = next(csv.reader(source, delimiter=delimiter, strict=True), [])
        except (csv.Error, LineTooLongError):
            header = []
        source.read_again(0)
        if filepath_key in map(str.strip, header):
            return delimiter
        if len(header) > most:
            found, most = delimiter, len(header)
    return found


@dataclass(frozen=True)
class _Layout:
    """What the header of a table says of its records."""

    columns: Sequence[str]
    delimiter: str
    filepath_key: str

    def check(self, cells: Sequence[str], lines: Sequence[str]) -> None:
        """Checks the cells that were read from some lines.

        Raises:
            BadRecordError: they are not a record of the table.
        """
        if len(cells) != len(self.columns):
            raise BadRecordError(
                f"the record has {len(cells)} cells, where the header has {len(self.columns)} "
                f"columns; put cells that hold {self.delimiter!r} in quotes, and complete what is "
                "cut short"
            )
        if len(lines) > 1 and sum(self._is_record(line, cells) for line in lines) > 1:
            raise BadRecordError("the record takes in lines that look like records of their own")

    def _is_record(self, line: str, record: Sequence[str]) -> bool:
        """Returns whether a line looks like a record, if the quotes in it are characters."""
        cells = [cell.strip().strip('"') for cell in line.split(self.delimiter)]
        if len(cells) < len(self.columns) or self.filepath_key not in self.columns:
            return False
        index = self.columns.index(self.filepath_key)
        if is_audio(cells[index]):
            return True
        folder, audio = (
            posixpath.dirname(path).split("/") for path in (record[index], cells[index])
        )
        if folder != [""] and folder[:3] == audio[:3]:  # s3://bucket
            return True
        if DIGITS.search(record[index]) and _shape(cells[index]) == _shape(record[index]):
            return True
        numbers = [
            self.columns.index(name) for name in tables.NUMBER_COLUMNS if name in self.columns
        ]
        return bool(numbers) and all(NUMBER.fullmatch(cells[number]) for number in numbers)


def _shape(name: str) -> str:
    """Returns a name in which all numbers are the same, as of names that are counted."""
    return DIGITS.sub("0", name)


class _RecordLines:
    """Yields the lines of a CSV file to a ``csv.reader``, which reads those of its next record.

    Attributes:
        number: of the last line that was read, from 1.
        lines: those that were read since ``start_record``.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ahead: deque[tuple[str, int]] = deque()  # lines that are read again, and their bytes
        self._sizes: list[int] = []
        self.lines: list[str] = []
        self.number = 0

    @property
    def text(self) -> str:
        """Returns the lines since ``start_record``, without the last end."""
        return "".join(self.lines).rstrip("\r\n")

    def start_record(self) -> None:
        """Starts a record, whose length is counted from here."""
        self.lines, self._sizes, self._bytes = [], [], 0

    def read_again(self, first: int) -> None:
        """Takes the lines from the given one on, from 0, out of the record, to be read again."""
        self._ahead.extendleft(reversed([*zip(self.lines[first:], self._sizes[first:])]))
        self.number -= len(self.lines) - first
        del self.lines[first:], self._sizes[first:]

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        """Raises `LineTooLongError` within a record of too many bytes or lines."""
        if self._ahead:
            text, size = self._ahead.popleft()
        else:
            line = self._file.readline(json_lines.MAX_LINE_BYTES + 1)
            size = len(line)
            if not size:
                raise StopIteration
            if size > json_lines.MAX_LINE_BYTES and not line.endswith(b"\n"):
                json_lines.skip_line(self._file)
            content = line if self.number else line.removeprefix(BYTE_ORDER_MARK)
            text = content.decode("utf-8", "backslashreplace")
        self.lines.append(text)
        self._sizes.append(size)
        self._bytes += size
        self.number += 1
        if self._bytes > json_lines.MAX_LINE_BYTES:
            raise tables.too_long(self.text)
        if len(self.lines) > MAX_RECORD_LINES:
            raise LineTooLongError(f"the record has more than {MAX_RECORD_LINES} lines")
        return text


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
            yield number, BadRecordError(problem)
        else:
            if cells and not (len(cells) == 1 and cells[0].isspace()):
                yield number, cells


READER = Reader(
    suffixes=(".csv",),
    read=read_rows,
    may_be_compressed=True,
    is_in_folders=False,
    first_rows=from_start(read_rows),
)
