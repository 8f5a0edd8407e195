"""What an input stands for: manifests and tables, tars of audio, or the audio files themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from beam_asr.inputs import csv_tables as tables
from beam_asr.inputs import json_lines as lines
from beam_asr.manifest_errors import BadFieldError, ManifestError
from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row
from beam_asr.storage import patterns
from beam_asr.storage.storage import Storage, is_glob
from beam_asr.storage.uris import extension, is_audio

DELIMITERS = {".csv": ",", ".tsv": "\t"}
PIECE_BYTES = 2**24  # of lines: some hundred thousand rows
PIECE_ROW_GROUPS = 4


class NoInputError(FileNotFoundError):
    """An input stands for no file."""


class Piece(NamedTuple):
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


class Tar(NamedTuple):
    """A tar of samples, each an audio file with what is said of it: a WebDataset.

    Attributes:
        file: path or URI.
        id: the tar's, with which its samples' begin; empty where none is needed.
        done: what became of samples in an earlier run, by their ids.
        route: the number of the model whose samples are read (`routes`).
    """

    file: str
    id: str = ""
    done: Mapping[str, Outcome] = {}
    route: int = 0


def is_tar(file: str) -> bool:
    return _kind(file) in (".tar", ".tgz")


def files_of(storage: Storage, pattern: str) -> list[str]:
    """The files that an input stands for: of a path, a glob, a folder, or several in braces.

    A folder stands for the audio files and the tars below it.

    Raises:
        NoInputError: there are none, or one that is named in braces is missing.
        PatternError: the braces are wrong.
        StorageError: no storage is known for it, or its package is missing.
    """
    names = patterns.expand(pattern)
    if len(names) > 1 and not any(is_glob(name) for name in names):
        found = names
        missing = [name for name, there in zip(names, storage.which_exist(names)) if not there]
        if missing:
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise NoInputError(
                f"the input {pattern!r} stands for {len(names)} files, of which {len(missing)} "
                f"are missing: {shown}"
            )
        return found
    return [file for name in names for file in _files_of_one(storage, name)]


def check(storage: Storage, pattern: str) -> None:
    """Raises as ``files_of`` does, but looks no further than to the first file of a folder or of a
    glob of audio, which may be of millions."""
    for name in patterns.expand(pattern):
        storage.check(name)
        if is_glob(name) and is_audio(name):
            continue  # the workers look, and fail the job
        if storage.is_folder(name):
            if storage.find_first(name, lambda file: is_audio(file) or is_tar(file)) is None:
                raise _empty_folder(name)
        else:
            files_of(storage, pattern)
            return


def pieces_of(storage: Storage, file: str) -> list[Piece]:
    """The pieces of a file that can be read at the same time, each by another worker.

    A long file of lines is read for it once, from start to end, so that rows know their lines.
    """
    if is_audio(file) or is_tar(file) or lines.is_compressed(file) or _kind(file) in DELIMITERS:
        return [Piece(file)]
    if _kind(file) == ".parquet":
        with storage.open(file) as content:
            groups = tables.parquet_row_groups(content, file)
        bounds = [*range(0, groups, PIECE_ROW_GROUPS), groups]
        return [Piece(file, start, end) for start, end in itertools.pairwise(bounds)]
    size = storage.size(file)
    if size is None or size <= PIECE_BYTES:
        return [Piece(file)]
    pieces, before = [], 0
    for start, end in itertools.pairwise([*range(0, size, PIECE_BYTES), size]):
        pieces.append(Piece(file, start, end, before))
        before += lines.count_lines(storage, file, start, end)
    return pieces


def rows_of(storage: Storage, piece: Piece, filepath_key: str) -> Iterator[Row | Tar]:
    """The rows of a piece: one for each line that is not blank, or record; for audio, itself.

    A tar, whose rows are read with its audio, gives itself.

    Raises:
        DamagedInputError, TableError: rows of the file cannot be told.
    """
    file = piece.file
    kind = _kind(file)
    if is_audio(file):
        yield Row.of({filepath_key: file})
    elif is_tar(file):
        yield Tar(file)
    elif kind in DELIMITERS:
        with lines.opened(storage, file) as content:
            yield from _rows(tables.csv_records(content, DELIMITERS[kind], file), file)
    elif kind == ".parquet":
        with storage.open(file) as content:
            groups = range(piece.start, piece.end or 0)
            yield from _rows(tables.parquet_records(content, groups, file), file)
    else:
        found = lines.lines_in(storage, file, piece.start, piece.end)
        for number, line in enumerate(found, piece.lines_before + 1):
            if isinstance(line, ManifestError):
                yield Row.broken(line, file, number)
            elif line and not line.isspace():
                yield Row(line, file, number)


def _files_of_one(storage: Storage, name: str) -> list[str]:
    if storage.is_folder(name):
        found = [file for file in storage.find(name) if is_audio(file) or is_tar(file)]
        if not found:
            raise _empty_folder(name)
        return found
    found = storage.find(name)
    if not found:
        raise NoInputError(f"the input {name!r} matches no file")
    return found


def _empty_folder(name: str) -> NoInputError:
    return NoInputError(
        f"the input folder {name!r} holds no audio files; name a manifest's file itself"
    )


def _rows(records: Iterator[tuple[int, dict | ManifestError]], file: str) -> Iterator[Row]:
    return (_row(record, file, number) for number, record in records)


def _row(record: dict | ManifestError, file: str, number: int) -> Row:
    if isinstance(record, ManifestError):
        return Row.broken(record, file, number)
    try:
        row = Row.of(record, file, number)
    except BadFieldError as error:
        return Row.broken(error, file, number)
    if len(row.line) > lines.LONGEST_LINE_BYTES:
        return Row.broken(tables.too_long(row.line), file, number)
    return row


def _kind(file: str) -> str:
    """The extension of a file, of a compressed one that before the compression's."""
    if lines.is_compressed(file):
        return extension(file.partition("?")[0][: -len(extension(file))])
    return extension(file)
