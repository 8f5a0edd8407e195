"""Transcripts as a table: one schema, whatever was asked for; Parquet of it.

What nobody asked for is null. A field of a row that has no column, or whose value does not fit its
column, is in ``other_fields``, so nothing is lost and no value fails a file.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beam_asr.records import fields as record_fields
from beam_asr.records.fields import as_json, is_float, is_integer, is_text
from beam_asr.transcripts.quality import all_signals

OTHER_FIELDS = "other_fields"
GROUP_ROWS = 1000
GROUP_BYTES = 2**24  # of lines; a row may hold hours of words


class Column(NamedTuple):
    """A column of the table, or a field of the structs that one lists.

    Attributes:
        name: of the column, whatever the row's field is called.
        kind: ``string``, ``double``, ``int64``, ``bool``, or ``list`` of structs.
        description: for people.
        fields: of a list's structs.
    """

    name: str
    kind: str
    description: str
    fields: tuple[Column, ...] = ()


def _spans(name: str, what: str, description: str, *more: Column) -> Column:
    """A column of texts and their times."""
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
    Column("pred_text", "string", "what was heard"),
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
        SetupError: a signal that another package adds cannot be used.
    """
    signals = (Column(each.name, each.type, each.description) for each in all_signals())
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
    """The row of a transcript: a value or None for each of `columns`.

    Of ``segments_failed`` the errors' class and message are taken. The row of a cut of Lhotse's has
    the cut's audio, offset and duration.

    Args:
        record: a row with its text, as `Transcribe` gives it.
        filepath_key: the field of the audio, in the column ``audio_filepath``.
        pred_text_key: the field of the text, in the column ``pred_text``.
    """
    left = dict(record)
    keys = {"audio_filepath": filepath_key, "pred_text": pred_text_key}
    row: dict[str, Any] = dict.fromkeys(column.name for column in columns())
    cut = record_fields.cut_audio(record, filepath_key)
    if cut:  # whose own fields stay among the others
        row |= {"audio_filepath": cut.audio, "offset": cut.offset, "duration": cut.duration}
    for column in columns()[:-1]:
        key = keys.get(column.name, column.name)
        theirs = column.name not in keys and key in keys.values()
        if key in left and row[column.name] is None and not theirs:
            row[column.name] = _value(column, left[key])
            if row[column.name] is not None or left[key] is None:
                del left[key]
    row[OTHER_FIELDS] = as_json(left) if left else None
    return row


def parquet_schema() -> Any:
    """The schema of the table, as pyarrow has it."""
    import pyarrow

    return pyarrow.schema([(column.name, _arrow_type(column)) for column in columns()])


def parquet(
    lines: Iterable[bytes],
    filepath_key: str = "audio_filepath",
    pred_text_key: str = "pred_text",
) -> Iterator[bytes]:
    """The content of a Parquet file of transcripts, compressed with Zstandard.

    In memory is a row group at a time: up to `GROUP_ROWS` rows, or `GROUP_BYTES` of lines, or one
    row that is longer. The same lines in the same order are the same file, bit for bit, with the
    same release of pyarrow, whose name is in it.

    Args:
        lines: records as JSON, as in a shard of transcripts.
        filepath_key: the field of the audio.
        pred_text_key: the field of the text.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = parquet_schema()
    file = _Passing()
    with ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(lines):
            rows = [row_of(json.loads(line), filepath_key, pred_text_key) for line in group]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema), row_group_size=len(rows))
            yield file.take()
    yield file.take()


class _Passing:
    """A file, to be written, that hands over what was written since it was last asked."""

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
        """Nothing waits."""

    def close(self) -> None:
        """What was written is taken after it."""

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def _groups(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and (len(group) == GROUP_ROWS or size + len(line) > GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def _value(column: Column, value: Any) -> Any:
    """A value as its column has it; None if it does not fit."""
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
        if any(struct.get(name) is None and each is not None for name, each in fields.items()):
            return None  # of another form than the job's
        structs.append(struct)
    return structs


def _flat(failed: Any) -> Any:
    """A failed segment with its error's class and message beside its times."""
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
