"""A file to ranges that workers read apart, and a range to rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from beam_asr.errors import BadFieldError, ManifestError
from beam_asr.inputs import compression, csv_tables, json_lines, parquet_tables
from beam_asr.inputs.discovery import is_tar, kind_of
from beam_asr.records.row import Row
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_audio

DELIMITERS = {".csv": ",", ".tsv": "\t"}
RANGE_BYTES = 2**24  # of lines: some hundred thousand rows
RANGE_ROW_GROUPS = 4


class FileRange(NamedTuple):
    """What one worker reads of an input: the whole of a file, or a range of it.

    Attributes:
        file: path or URI.
        start: where the range begins: a byte of a file of lines, a row group of a Parquet file.
        end: where it ends; None is the whole file.
        lines_before: how many lines of the file come before it.
    """

    file: str
    start: int = 0
    end: int | None = None
    lines_before: int = 0


def split_file(storage: Storage, file: str) -> list[FileRange]:
    """The pieces of a file that can be read at the same time, each by another worker.

    A long file of lines is read for it once, from start to end, so that rows know their lines.
    """
    if (
        is_audio(file)
        or is_tar(file)
        or compression.is_compressed(file)
        or kind_of(file) in DELIMITERS
    ):
        return [FileRange(file)]
    if kind_of(file) == ".parquet":
        with storage.open(file) as content:
            groups = parquet_tables.parquet_row_groups(content, file)
        bounds = [*range(0, groups, RANGE_ROW_GROUPS), groups]
        return [FileRange(file, start, end) for start, end in itertools.pairwise(bounds)]
    size = storage.size(file)
    if size is None or size <= RANGE_BYTES:
        return [FileRange(file)]
    pieces, before = [], 0
    for start, end in itertools.pairwise([*range(0, size, RANGE_BYTES), size]):
        pieces.append(FileRange(file, start, end, before))
        before += json_lines.count_lines(storage, file, start, end)
    return pieces


def read_rows(
    storage: Storage, piece: FileRange, filepath_key: str
) -> Iterator[Row | WebDatasetTar]:
    """The rows of a piece: one for each line that is not blank, or record; for audio, itself.

    A tar, whose rows are read with its audio, gives itself.

    Raises:
        DamagedInputError, TableError: rows of the file cannot be told.
    """
    file = piece.file
    kind = kind_of(file)
    if is_audio(file):
        yield Row.of({filepath_key: file})
    elif is_tar(file):
        yield WebDatasetTar(file)
    elif kind in DELIMITERS:
        with compression.open_decompressed(storage, file) as content:
            yield from _rows(csv_tables.csv_records(content, DELIMITERS[kind], file), file)
    elif kind == ".parquet":
        with storage.open(file) as content:
            groups = range(piece.start, piece.end or 0)
            yield from _rows(parquet_tables.parquet_records(content, groups, file), file)
    else:
        found = json_lines.read_lines(storage, file, piece.start, piece.end)
        for number, line in enumerate(found, piece.lines_before + 1):
            if isinstance(line, ManifestError):
                yield Row.broken(line, file, number)
            elif line and not line.isspace():
                yield Row(line, file, number)


def _rows(records: Iterator[tuple[int, dict | ManifestError]], file: str) -> Iterator[Row]:
    return (_row(record, file, number) for number, record in records)


def _row(record: dict | ManifestError, file: str, number: int) -> Row:
    if isinstance(record, ManifestError):
        return Row.broken(record, file, number)
    try:
        row = Row.of(record, file, number)
    except BadFieldError as error:
        return Row.broken(error, file, number)
    if len(row.line) > json_lines.MAX_LINE_BYTES:
        return Row.broken(csv_tables.too_long(row.line), file, number)
    return row
