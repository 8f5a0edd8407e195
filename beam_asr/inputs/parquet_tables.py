"""Reads Parquet files as rows, by row groups."""

from __future__ import annotations

import datetime
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, BinaryIO

from beam_asr.errors import BadRecordError, TableError
from beam_asr.inputs.readers import FileRange, Reader
from beam_asr.inputs.tables import check_columns, to_rows
from beam_asr.records.json_values import to_json_value
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage
from beam_asr.storage.versions import one_version

BATCH_ROWS = 1024
BATCH_BYTES = 2**24
BUFFER_BYTES = 2**22  # for each column
SMALL_FILE_BYTES = 2**23  # fetched column by column
RANGE_ROW_GROUPS = 4


def split_file(storage: Storage, file: str) -> list[FileRange]:
    """Splits a Parquet file by row groups.

    Raises:
        TableError: it is not Parquet, or damaged.
    """
    with storage.open(file) as content, one_version(content, file) as version:
        groups = parquet_row_groups(content, file)
    bounds = [*range(0, groups, RANGE_ROW_GROUPS), groups]
    return [
        FileRange(file, start, end, version=version) for start, end in itertools.pairwise(bounds)
    ]


def read_rows(
    storage: Storage,
    file_range: FileRange,
    filepath_key: str,  # noqa: ARG001
) -> Iterator[Row]:
    """Yields a row for each record of some row groups.

    Raises:
        TableError: the file is not Parquet, or damaged.
    """
    file = file_range.file
    with storage.open(file) as content, one_version(content, file, file_range.version):
        groups = range(file_range.start, file_range.end or 0)
        yield from to_rows(parquet_records(content, groups, file), file)


def first_rows(storage: Storage, file: str, filepath_key: str) -> Iterator[Row]:
    """Yields the first rows of a table that may hold bytes or cuts; of others, rows without values.

    The latter need the schema alone.

    Raises:
        TableError: the file is not Parquet, or damaged.
    """
    with storage.open(file) as content:
        with _reading_parquet(file):
            table = _parquet_file(content)
            schema, count = table.schema_arrow, table.metadata.num_rows
        names = schema.names
        check_columns(names, file)
        may_be_cuts = filepath_key not in names and "type" in names
        if count and (may_be_cuts or "binary" in str(schema.types)):
            yield from to_rows(parquet_records(content, [0], file), file)
        else:
            yield from [Row.of(dict.fromkeys(names), file)] * min(count, 2)


def parquet_row_groups(file: BinaryIO, name: str) -> int:
    """Returns the number of row groups of a Parquet file.

    Raises:
        TableError: it is not Parquet, or damaged.
    """
    with _reading_parquet(name):
        return _parquet_file(file).num_row_groups


def parquet_records(
    file: BinaryIO, row_groups: Sequence[int], name: str
) -> Iterator[tuple[int, dict[str, Any] | BadRecordError]]:
    """Reads the records of some row groups of a Parquet file, about `BATCH_BYTES` at a time.

    Values that JSON cannot represent are converted, however deep they are nested: dates and times
    to ISO 8601, lengths of time to seconds, decimals to numbers or, if a float has too few digits,
    to text, NaN to null, infinities to text, maps to objects, UUIDs to text.

    Args:
        row_groups: their indices, from 0.
        name: the file's, for messages.

    Yields:
        The record's place in the whole file, from 1, and its fields, or the error if a cell holds
        bytes or a value that Python cannot hold.

    Raises:
        TableError: the file is not Parquet, or it or its columns' names are damaged.
    """
    with _reading_parquet(name):
        table = _parquet_file(file)
        groups = [table.metadata.row_group(index) for index in range(table.num_row_groups)]
        rows_before = [0, *itertools.accumulate(group.num_rows for group in groups)]
        if rows_before[-1] != table.metadata.num_rows:
            raise _unreadable(name, "its row groups are not all of its rows")
        columns = table.schema_arrow.names
        check_columns(columns, name)
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
        # Errors of the storage come through pyarrow unchanged, as subclasses of OSError.
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

    # Otherwise a whole row group's columns are fetched at once. With a buffer, the size that a page
    # states is trusted; so only files large enough for such columns are read with one.
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    buffer = BUFFER_BYTES if size > SMALL_FILE_BYTES else 0
    return parquet.ParquetFile(file, buffer_size=buffer, pre_buffer=False)


def _values(column: Any) -> list[Any]:
    """Returns the values of an Arrow array, with errors in place of those Python cannot hold."""
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
    """Converts a value to one that JSON can represent.

    Raises:
        BadRecordError: its message continues a sentence whose subject is the column.
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
    if isinstance(value, (Decimal, datetime.timedelta, datetime.date, datetime.time)):
        return to_json_value(value)
    if isinstance(value, bytes):
        raise BadRecordError(
            "holds bytes, and this job reads audio by its path; write the audio to files and give "
            "their paths, or, if it is text, make it a column of strings"
        )
    if isinstance(value, Exception):
        raise BadRecordError(f"holds a value that cannot be read ({value})")
    return str(value)


READER = Reader(
    suffixes=(".parquet",),
    read=read_rows,
    split=split_file,
    may_be_compressed=True,  # such a file is refused as not Parquet, rather than read as lines
    is_in_folders=False,
    first_rows=first_rows,
)
