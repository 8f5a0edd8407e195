"""Looks at the first rows of inputs before a job starts, and refuses files without a right row."""

from __future__ import annotations

import itertools
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beam_asr.errors import (
    BadFieldError,
    DamagedInputError,
    ManifestError,
    NotAnObjectError,
    NotJsonError,
    TableError,
    WrongInputError,
)
from beam_asr.inputs import contents
from beam_asr.inputs.readers import DEFAULT_READER, READERS, find_reader
from beam_asr.records import lhotse_cuts
from beam_asr.records.row import Row
from beam_asr.storage.file_kinds import is_audio
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import without_query

FILES = 3  # of an input with many
ROWS = 20  # of a file
CHARACTERS = 2**18  # of rows, which a first request to a store holds several times
SHOWN_FIELDS = 10
WORDS = re.compile(r"\S+")
NO_FIELD = "no field"  # two reasons beside the names of errors
BAD_AUDIO = "no path"
DELIMITERS = (("\t", "tabs", ".tsv"), (",", "commas", ".csv"), (";", "semicolons", ".csv"))


class FirstRows(NamedTuple):
    """Holds the first rows of a file.

    Attributes:
        file: its path or URI.
        rows: at most `ROWS`; no row that is blank.
    """

    file: str
    rows: list[Row]

    def field_names(self) -> list[str]:
        """Returns the names of the rows' fields, in the order in which they occur."""
        return list(dict.fromkeys(itertools.chain.from_iterable(map(_fields, self.rows))))


def look(storage: Storage, files: Iterable[str], filepath_key: str) -> list[FirstRows]:
    """Reads the first rows of the first `FILES` files that have a reader which can do so.

    Of a store it costs two requests for each file. What is audio, a tar of audio, or has a reader
    of another package is left out, as are files whose compressed data are damaged: the job says so.

    Raises:
        WrongInputError: a file is not of the format that its name states.
        Exception: of the storage.
    """
    looks = (_first_rows(storage, file, filepath_key) for file in files)
    return list(itertools.islice(filter(None, looks), FILES))


def check(looks: Sequence[FirstRows], filepath_key: str) -> None:
    """Refuses an input if no row of one of its files can be right, for the same reason in each.

    A file with a right row, or with different errors, is transcribed, and its wrong rows fail
    alone. So is a file with one wrong row among files with right ones.

    Args:
        looks: at files of one input.

    Raises:
        WrongInputError: says what the rows are, and what to do.
    """
    looks = [rows for rows in looks if rows.rows]
    wrong = [rows for rows in looks if _common_reason(rows, filepath_key)]
    for rows in wrong:
        if len(rows.rows) > 1 or len(wrong) == len(looks):
            raise WrongInputError(_message(rows, filepath_key))


def _first_rows(storage: Storage, file: str, filepath_key: str) -> FirstRows | None:
    reader = find_reader(file)
    if reader.first_rows is None:
        return None
    if reader is READERS[DEFAULT_READER]:
        kind = contents.kind_of(storage, file)
        if kind is not None:  # a recording, or what `discovery` refuses if it is named by itself
            return None
    rows: list[Row] = []
    characters = 0
    try:
        for row in itertools.islice(reader.first_rows(storage, file, filepath_key), ROWS):
            rows.append(row)
            characters += len(row.line)
            if characters > CHARACTERS:
                break
    except TableError as error:
        raise WrongInputError(str(error)) from None
    except DamagedInputError:
        return None
    return FirstRows(file, rows)


def _fields(row: Row) -> Mapping[str, Any]:
    if row.problem:
        return {}
    try:
        return row.fields
    except ManifestError:
        return {}


def _common_reason(looked: FirstRows, filepath_key: str) -> str:
    """Returns why none of the rows can be right; empty if one may be, or the reasons differ."""
    reasons = {_reason(row, filepath_key) for row in looked.rows}
    return reasons.pop() if len(reasons) == 1 else ""


def _reason(row: Row, filepath_key: str) -> str:
    """Returns why a row cannot name its audio, whatever its values are; empty if it may.

    Wrong values are no such reason: a manifest may be sorted by them.
    """
    try:
        fields = {} if row.problem else row.fields
        problem = row.problem_type if row.problem else ""
    except ManifestError as error:
        problem = type(error).__name__
    if problem:
        return "" if problem == BadFieldError.__name__ else problem
    if filepath_key not in fields:
        return "" if lhotse_cuts.is_cut(fields) else NO_FIELD
    return BAD_AUDIO if isinstance(fields[filepath_key], (dict, list)) else ""


def _message(looked: FirstRows, filepath_key: str) -> str:
    reason, file = _common_reason(looked, filepath_key), repr(without_query(looked.file))
    count = len(looked.rows)
    rows = "the first row" if count == 1 else f"each of the first {count} rows"
    if reason == NO_FIELD:
        names = looked.field_names()
        if names[0:1] and names[0].startswith("{"):
            return f"{file} is no table, but JSON lines: end the file's name in .jsonl"
        shown = ", ".join(map(reprlib.repr, names[:SHOWN_FIELDS])) or "none"
        shown += ", ..." if len(names) > SHOWN_FIELDS else ""
        return (
            f"{rows} of {file} lacks the field {filepath_key!r}. The fields are: {shown}. Name the "
            f"one of the audio with {_audio_setting(looked)}"
        )
    if reason in (NotJsonError.__name__, NotAnObjectError.__name__):
        return f"{rows} of {file} is no JSON object. {_what_lines_are(looked, filepath_key)}"
    first = looked.rows[0]
    if reason == BAD_AUDIO:
        value = reprlib.repr(first.fields[filepath_key])
        return (
            f"{rows} of {file} has no path or URI in the field {filepath_key!r}. The first is "
            f"{value}. Name the field of the path with `filepath_key`"
        )
    return f"{rows} of {file} has the same error. The first: {_problem(first)}"


def _problem(row: Row) -> str:
    if row.problem:
        return row.problem
    try:
        row.fields  # noqa: B018  (for its error)
    except ManifestError as error:
        return str(error)
    return ""


def _audio_setting(looked: FirstRows) -> str:
    """Returns the setting, with the field whose values are names of audio if there is one."""
    for name in looked.field_names():
        values = [_fields(row).get(name) for row in looked.rows]
        if all(isinstance(value, str) and is_audio(value) for value in values):
            return f"`filepath_key={name}`" if WORDS.fullmatch(name) else "`filepath_key`"
    return "`filepath_key`"


def _what_lines_are(looked: FirstRows, filepath_key: str) -> str:
    """Returns what lines seem to be that are not JSON objects, and what to do."""
    lines = [row.line.strip() for row in looked.rows]
    if all(map(is_audio, (line.strip("\"' ,") for line in lines))):
        if any(len(WORDS.findall(line)) > 1 for line in lines) and _all_in_columns(lines):
            return (
                "The lines seem to be a name and a path each, as in Kaldi's wav.scp. Make a "
                f'manifest of them, with a line {{"{filepath_key}": "PATH"}} for each, or cuts '
                "with `lhotse kaldi import`"
            )
        return (
            "The lines seem to be paths of audio. Make a manifest of them, with a line "
            f'{{"{filepath_key}": "PATH"}} for each'
        )
    for delimiter, name, ending in DELIMITERS:
        if _is_table(lines, delimiter):
            return f"The lines seem to be a table with {name}: end the file's name in {ending}"
    return f"A manifest has one a line, or is a list of them. {_problem(looked.rows[0])}"


def _all_in_columns(lines: Iterable[str]) -> bool:
    """Returns whether each line is a name without an extension, and something behind it."""
    names: Iterator[list[str]] = (WORDS.findall(line) for line in lines)
    return all(len(words) > 1 and not is_audio(words[0]) for words in names)


def _is_table(lines: Sequence[str], delimiter: str) -> bool:
    counts = {line.count(delimiter) for line in lines if not line.startswith(("{", "["))}
    return len(counts) == 1 and counts.pop() > 0
