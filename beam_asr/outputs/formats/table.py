"""Turns transcripts into rows of a table with one schema, and the table into Parquet.

A column that was not requested is null. A field that has no column, or whose value does not fit its
column, is in ``other_fields``, so nothing is lost and no value fails a file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beam_asr.records import json_numbers
from beam_asr.records.fields import as_json, cut_audio, is_float, is_integer, is_text
from beam_asr.transcripts.quality import all_signals

OTHER_FIELDS = "other_fields"
MAX_GROUP_ROWS = 1000
MAX_GROUP_BYTES = 2**24  # of lines; a row may hold hours of words


class Column(NamedTuple):
    """Describes a column of the table, or a field of the structs in a list column.

    Attributes:
        name: the column's name, whatever the name of the row's field.
        kind: ``string``, ``double``, ``int64``, ``bool``, or ``list`` of structs.
        description: for people.
        fields: the fields of a list's structs.
    """

    name: str
    kind: str
    description: str
    fields: tuple[Column, ...] = ()


def _spans(name: str, what: str, description: str, *more: Column) -> Column:
    """Returns a column of texts and their times."""
    text = Column(what, "string", "its text")
    start = Column("start", "double", "seconds from the beginning of the file")
    end = Column("end", "double", "seconds from the beginning of the file")
    return Column(name, "list", description, (text, start, end, *more))


_BEFORE_SIGNALS = (
    Column("audio_filepath", "string", "path or URI of the audio, as the row has it"),
    Column("offset", "double", "where the row's audio begins in its file, in seconds"),
    Column("duration", "double", "of the row's audio, in seconds, if the row says so"),
    Column("lang", "string", "language of the row"),
    Column("text", "string", "the row's own text, a reference"),
    Column("pred_text", "string", "the transcript"),
    Column("model", "string", "which of several models transcribed the row"),
    Column("confidence", "double", "how sure the model is of the row, from 0 to 1"),
    Column("wer", "double", "word error rate"),
    Column("cer", "double", "character error rate"),
    Column("substitutions", "int64", "words that are others than the reference's"),
    Column("deletions", "int64", "words of the reference that are missing"),
    Column("insertions", "int64", "words that are not in the reference"),
)
_AFTER_SIGNALS = (
    Column("no_speech", "bool", "true where nobody speaks"),
    _spans(
        "words", "word", "words", Column("confidence", "double", "how sure the model is, 0 to 1")
    ),
    _spans("segments", "segment", "sentences, or what stands between pauses"),
    _spans("chars", "char", "the model's tokens"),
    Column(
        "n_best",
        "list",
        "texts by their scores, best first",
        (Column("text", "string", "a text"), Column("score", "double", "its log-probability")),
    ),
    Column(
        "segments_failed",
        "list",
        "parts of a long row that could not be transcribed",
        (
            Column("start", "double", "seconds from the beginning of the file"),
            Column("end", "double", "seconds from the beginning of the file"),
            Column("type", "string", "class of the error"),
            Column("message", "string", "of the error"),
        ),
    ),
    Column(OTHER_FIELDS, "string", "all other fields of the record, as a JSON object"),
)


@functools.cache
def columns() -> tuple[Column, ...]:
    """Returns the columns of the table: the same whatever is requested; each signal has one.

    Raises:
        SetupError: the signal of another package cannot be used.
    """
    signals = (Column(signal.name, signal.type, signal.description) for signal in all_signals())
    return (*_BEFORE_SIGNALS, *signals, *_AFTER_SIGNALS)


_FITS: dict[str, Callable[[Any], bool]] = {
    "string": is_text,
    "double": is_float,
    "int64": is_integer,
    "bool": lambda value: isinstance(value, bool),
}


def row_of(
    record: Mapping[str, Any],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
) -> dict[str, Any]:
    """Returns the row of a transcript: a value or None for each of `columns`.

    ``segments_failed`` has the errors' class and message. The row of a Lhotse cut has the cut's
    audio, offset and duration.

    Args:
        record: a row with its text, as `Transcribe` returns it.
        filepath_key: the field of the audio, in the column ``audio_filepath``.
        pred_text_key: the field of the text, in the column ``pred_text``.
    """
    remaining = dict(record)
    keys = {"audio_filepath": filepath_key, "pred_text": pred_text_key}
    row: dict[str, Any] = dict.fromkeys(column.name for column in columns())
    cut = cut_audio(record, filepath_key)
    if cut:  # its fields stay among the other ones
        row |= {"audio_filepath": cut.audio, "offset": cut.offset, "duration": cut.duration}
    for column in columns()[:-1]:
        key = keys.get(column.name, column.name)
        is_other_key = column.name not in keys and key in keys.values()
        if key in remaining and row[column.name] is None and not is_other_key:
            row[column.name] = _value(column, remaining[key])
            if row[column.name] is not None or remaining[key] is None:
                del remaining[key]
    row[OTHER_FIELDS] = as_json(remaining) if remaining else None
    return row


def parquet_schema() -> Any:
    """Returns the schema of the table for pyarrow."""
    import pyarrow

    return pyarrow.schema([(column.name, _arrow_type(column)) for column in columns()])


def parquet(
    lines: Iterable[bytes],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
) -> Iterator[bytes]:
    """Yields the content of a Parquet file of transcripts, compressed with Zstandard.

    One row group at a time is in memory: up to `MAX_GROUP_ROWS` rows, or `MAX_GROUP_BYTES` of
    lines, or one row that is longer. The same lines in the same order yield the same file, bit for
    bit, with the same release of pyarrow, whose name is in it.

    Args:
        lines: records as JSON, as in a shard of transcripts.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = parquet_schema()
    file = _WriteBuffer()
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(lines):
            rows = [row_of(json_numbers.loads(line), filepath_key, pred_text_key) for line in group]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema), row_group_size=len(rows))
            yield file.take()
    yield file.take()


class _WriteBuffer:
    """Collects what a writer writes to a file; `take` returns it piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._position += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Does nothing: `take` returns all of it."""

    def close(self) -> None:
        """Does nothing: the last data is taken afterwards."""

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def _groups(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and (len(group) == MAX_GROUP_ROWS or size + len(line) > MAX_GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def _value(column: Column, value: Any) -> Any:
    """Returns a value as its column has it; None if it does not fit."""
    if column.kind == "list":
        return _structs(column, value)
    if not _FITS[column.kind](value):
        return None
    return float(value) if column.kind == "double" else value


def _structs(column: Column, value: Any) -> list[dict[str, Any]] | None:
    if not isinstance(value, list):
        return None
    structs = []
    for item in value:
        fields = _flat(item) if column.name == "segments_failed" else item
        if not isinstance(fields, dict):
            return None
        struct = {field.name: _value(field, fields.get(field.name)) for field in column.fields}
        if any(struct.get(name) is None and field is not None for name, field in fields.items()):
            return None  # of another form than the job's
        structs.append(struct)
    return structs


def _flat(failed: Any) -> Any:
    """Returns a failed segment with its error's class and message beside its times."""
    if not isinstance(failed, dict) or not isinstance(failed.get("error"), dict):
        return None
    error = failed["error"]
    times = {key: value for key, value in failed.items() if key != "error"}
    return {**times, "type": error.get("type"), "message": error.get("message")}


def _arrow_type(column: Column) -> Any:
    import pyarrow

    if column.kind == "list":
        fields = [(field.name, _arrow_type(field)) for field in column.fields]
        return pyarrow.list_(pyarrow.struct(fields))
    types = {"string": pyarrow.string, "double": pyarrow.float64, "int64": pyarrow.int64}
    return types.get(column.kind, pyarrow.bool_)()
