"""Reads TSV tables as rows: a line is a row, a tab ends a cell, and a quote is a character."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import BinaryIO

from beam_asr.errors import BadRecordError, LineTooLongError, TableError
from beam_asr.inputs import compression, json_lines, tables
from beam_asr.inputs.json_lines import BYTE_ORDER_MARK
from beam_asr.inputs.readers import FileRange, Reader, from_start
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage

logger = logging.getLogger(__name__)
AS_IN_CSV = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
NOT_QUOTED = (
    "in a .tsv a tab ends a cell, a line ends a row, and quotes are characters; if its cells are "
    "quoted, as pandas and Excel do it, give the table a name that ends with .csv"
)


def read_rows(
    storage: Storage,
    file_range: FileRange,
    filepath_key: str,  # noqa: ARG001
) -> Iterator[Row]:
    """Yields a row for each line of a TSV file but its header.

    Raises:
        DamagedInputError, TableError: the rows of the file cannot be read.
    """
    with compression.open_decompressed(storage, file_range.file) as content:
        yield from tables.to_rows(tsv_records(content, file_range.file), file_range.file)


def tsv_records(file: BinaryIO, name: str) -> tables.Records:
    """Reads the lines of a TSV file with a header, as IANA's text/tab-separated-values has it.

    Nothing is quoted or escaped: a cell is the text between two tabs, as written; `CellFields` says
    which become numbers. A byte that is not UTF-8 is shown as ``\\xNN``. A byte order mark, blank
    lines and spaces around the columns' names are dropped. An empty file has no records.

    Args:
        name: the file's, for messages.

    Yields:
        The number of the line, from 1, and its fields or an error with its text.

    Raises:
        TableError: with the first record, unless a header names each column exactly once.
    """
    lines = _lines(file)
    number, header = next(lines, (0, ""))
    if header == "sep=\t":  # Excel's
        number, header = next(lines, (number, ""))
    if number == 0:
        return
    if isinstance(header, LineTooLongError) or "\r" in header:
        reason = header if isinstance(header, LineTooLongError) else "its lines end with CR alone"
        raise TableError(f"the header of the table {name!r} cannot be read: {reason}")
    columns = [column.strip() for column in header.split("\t")] if header.strip() else []
    if quoted := [name for name in columns if len(name) > 1 and name[0] == name[-1] == '"']:
        raise TableError(
            f"the header of the table {name!r} names the column {quoted[0]} in quotes; {NOT_QUOTED}"
        )
    tables.check_columns(columns, name)
    fields = tables.CellFields(columns)
    has_warned = False
    for number, line in lines:
        if isinstance(line, LineTooLongError):
            yield number, line
            continue
        cells = line.split("\t")
        try:
            if len(cells) != len(columns):
                raise BadRecordError(
                    f"the line has {len(cells)} cells, where the header has {len(columns)} "
                    f"columns; {NOT_QUOTED}"
                )
            if "\r" in line:
                raise BadRecordError(
                    "the line holds a carriage return (CR) before its end; end each line with LF "
                    "or CRLF, and no cell with CR"
                )
            record = fields.of(cells)
        except BadRecordError as error:
            yield number, BadRecordError(str(error), line)
            continue
        if '""' in line and not has_warned:
            has_warned = _warn_of_quotes(line, number, name)
        yield number, record


def _lines(file: BinaryIO) -> Iterator[tuple[int, str | LineTooLongError]]:
    """Yields the lines that are not blank, with numbers; of a file of blank lines the last one."""
    number, is_blank = 0, True
    while line := file.readline(json_lines.MAX_LINE_BYTES + 1):
        number += 1
        content = line if number > 1 else line.removeprefix(BYTE_ORDER_MARK)
        text = content.decode("utf-8", "backslashreplace").rstrip("\r\n")
        if len(line) > json_lines.MAX_LINE_BYTES:
            if not line.endswith(b"\n"):
                json_lines.skip_line(file)
            yield number, tables.too_long(text)
        elif (text.isspace() and "\t" not in text) or not text:
            continue
        else:
            yield number, text
        is_blank = False
    if number and is_blank:
        yield number, ""


def _warn_of_quotes(line: str, number: int, name: str) -> bool:
    """Warns of a line with a cell as CSV writes a text with quotes; returns whether it has one."""
    if not any(map(AS_IN_CSV.fullmatch, line.split("\t"))):
        return False
    logger.warning(
        "The table %r has a cell in line %d that looks quoted; its quotes stay as they are: %s",
        name,
        number,
        NOT_QUOTED,
    )
    return True


READER = Reader(
    suffixes=(".tsv",),
    read=read_rows,
    may_be_compressed=True,
    is_in_folders=False,
    first_rows=from_start(read_rows),
)
