"""Registers the readers of input formats: files to ranges, and ranges to rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from beam_asr.errors import NotJsonError, SetupError
from beam_asr.inputs import compression, contents
from beam_asr.records.registry import Registry
from beam_asr.records.row import Row
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage import file_kinds
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import extension, without_query


class FileRange(NamedTuple):
    """A whole file, or a range of it, that one worker reads.

    Attributes:
        file: path or URI.
        start: of the range: a byte of a file of lines, a row group of a Parquet file.
        end: of the range; None is the whole file.
        lines_before: number of lines of the file before the range.
        reader: the name of its reader, if its content and not its name shows that; else empty.
        problem: why the file holds no rows; empty if it does.
        problem_type: the name of the problem's class.
        version: of the file, of which all its ranges are; empty if there is only one.
        number: of the file in the order of the input, for `Row.input_number`.
    """

    file: str
    start: int = 0
    end: int | None = None
    lines_before: int = 0
    reader: str = ""
    problem: str = ""
    version: str = ""
    problem_type: str = NotJsonError.__name__
    number: int = 0


def whole_file(storage: Storage, file: str) -> list[FileRange]:  # noqa: ARG001
    """Returns one range, for a file that cannot be split."""
    return [FileRange(file)]


def from_start(
    read: Callable[[Storage, FileRange, str], Iterator[Row]],
) -> Callable[[Storage, str, str], Iterator[Row]]:
    """Returns a `Reader.first_rows` for a ``read`` that reads a file from its start to its end."""
    return lambda storage, file, filepath_key: read(storage, FileRange(file), filepath_key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads one format of inputs.

    Attributes:
        suffixes: the ends of its files' names, in lower case, with the dot: ``.csv``.
        read: yields the rows of a range; its arguments are the storage, the range, and the field
            that names the audio in rows that are created from files.
        split: returns the ranges of a file that workers can read at the same time.
        may_be_compressed: whether it also reads names with a compression's suffix after the
            format's, as ``.csv.gz``. ``read`` gets such a file still compressed.
        is_in_folders: whether a folder that is an input includes its files. Those of formats that
            hold audio are included; a manifest in a folder may list the audio beside it.
        is_row: whether each file is one row, so that there may be millions of them.
        first_rows: as ``read``, of a file's start, at little cost, for a look before the job
            starts; the rows may lack values. None if there is no look.

    Raises:
        ValueError: a suffix cannot be that of a file.
    """

    suffixes: Collection[str]
    read: Callable[[Storage, FileRange, str], Iterator[Row | WebDatasetTar]]
    split: Callable[[Storage, str], list[FileRange]] = whole_file
    may_be_compressed: bool = False
    is_in_folders: bool = True
    is_row: bool = False
    first_rows: Callable[[Storage, str, str], Iterator[Row]] | None = None

    def __post_init__(self) -> None:
        for suffix in self.suffixes:
            if isinstance(self.suffixes, str) or extension(f"file{suffix}") != suffix:
                raise ValueError(
                    f"{self.suffixes!r} are no suffixes of files: give each as '.csv', in lower "
                    "case and with one dot"
                )


READERS: Registry[Reader] = Registry(
    "beam_asr.readers",
    {
        "json_lines": "beam_asr.inputs.json_lines:READER",
        "csv": "beam_asr.inputs.csv_tables:READER",
        "tsv": "beam_asr.inputs.tsv_tables:READER",
        "parquet": "beam_asr.inputs.parquet_tables:READER",
        "webdataset": "beam_asr.inputs.webdataset:READER",
        "audio": "beam_asr.inputs.audio_files:READER",
    },
)
DEFAULT_READER = "json_lines"  # for files with an unknown suffix
AUDIO_READER = "audio"


def find_reader(file: str) -> Reader:
    """Finds the reader of a file, by its name; that of a manifest if the name shows none.

    Raises:
        SetupError: a reader of another package cannot be used.
    """
    return _named_reader(file) or READERS[DEFAULT_READER]


def has_reader(file: str) -> bool:
    """Returns whether the name of a file shows its reader."""
    return _named_reader(file) is not None


def _named_reader(file: str) -> Reader | None:
    by_suffix = _readers_by_suffix()
    suffix = extension(file)
    if suffix in compression.SUFFIXES:
        inner = by_suffix.get(extension(without_query(file)[: -len(suffix)]))
        return inner if inner and inner.may_be_compressed else None
    return by_suffix.get(suffix)


def split_file(storage: Storage, file: str) -> list[FileRange]:
    """Splits a file into ranges that several workers can read at the same time.

    Raises:
        TableError: the file is not of the format that its name states.
    """
    reader = find_reader(file)
    if reader is READERS[DEFAULT_READER]:
        kind = contents.kind_of(storage, file)
        if kind == file_kinds.RECORDING:
            return [FileRange(file, reader=AUDIO_READER)]
        if kind is not None:
            return [FileRange(file, problem=f"the file {contents.problem(kind)}")]
    return reader.split(storage, file)


def read_rows(
    storage: Storage, file_range: FileRange, filepath_key: str
) -> Iterator[Row | WebDatasetTar]:
    """Reads the rows of a range: one for each record or line that is not blank, or audio file.

    For a tar, whose rows are read with its audio, yields the tar.

    Raises:
        DamagedInputError, TableError: the rows of the file cannot be read.
        ReplacedError: the file has changed since it was split, or while it was read.
    """
    if file_range.problem:
        problem, problem_type = file_range.problem, file_range.problem_type
        return iter([Row("", file_range.file, problem=problem, problem_type=problem_type)])
    reader = READERS[file_range.reader] if file_range.reader else find_reader(file_range.file)
    return reader.read(storage, file_range, filepath_key)


@functools.cache
def _readers_by_suffix() -> dict[str, Reader]:
    names: dict[str, str] = {}
    for name, reader in READERS.items():
        for suffix in reader.suffixes:
            if suffix in names:
                raise SetupError(
                    f"the readers {names[suffix]!r} and {name!r} of {READERS.group} both take "
                    f"{suffix} files: uninstall the package of one of them"
                )
            names[suffix] = name
    return {suffix: READERS[name] for suffix, name in names.items()}
