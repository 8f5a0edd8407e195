"""Reads manifests in JSON: lines of text, compressed or not, whole or in ranges of bytes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import BinaryIO

from beam_asr.errors import LineTooLongError, ManifestError, NotJsonError
from beam_asr.inputs import json_documents
from beam_asr.inputs.compression import SKIPPED_BYTES, SUFFIXES, open_decompressed
from beam_asr.inputs.readers import FileRange, Reader, from_start, whole_file
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import extension
from beam_asr.storage.versions import one_version

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COUNTED_BYTES = 2**20
MAX_LINE_BYTES = 2**24  # with its end; most rows have some hundred
SHOWN_CHARACTERS = 1000  # of a line that is too long
RANGE_BYTES = 2**24  # some hundred thousand rows


def split_file(storage: Storage, file: str) -> list[FileRange]:
    """Splits a file by bytes, unless it is compressed or short, or not one of lines.

    A long one is read once for this, from start to end, to count the lines before each range.
    """
    size = None if extension(file) in SUFFIXES else storage.size(file)
    if size is None or size <= RANGE_BYTES:
        return whole_file(storage, file)
    with storage.open(file) as content, one_version(content, file) as version:
        head = content.read(json_documents.HEAD_BYTES)
        size = content.seek(0, io.SEEK_END)
    if json_documents.is_document(head, is_whole=False):
        return whole_file(storage, file)
    ranges, lines_before = [], 0
    for start, end in itertools.pairwise([*range(0, size, RANGE_BYTES), size]):
        ranges.append(FileRange(file, start, end, lines_before, version=version))
        lines_before += count_lines(storage, file, start, end, version)
    return ranges


def read_rows(
    storage: Storage,
    file_range: FileRange,
    filepath_key: str,  # noqa: ARG001
) -> Iterator[Row]:
    """Yields a row for each line of a range that is not blank.

    A whole file may also be a list in JSON, or JSON over several lines (`json_documents`).

    Raises:
        DamagedInputError: the compressed data are incomplete or damaged.
        TableError: a file that is a JSON document is damaged.
    """
    file = file_range.file
    with open_decompressed(storage, file, file_range.version) as content:
        if file_range.end is None:
            size = json_documents.HEAD_BYTES
            content = io.BufferedReader(content, size)  # type: ignore[type-var]
            head = content.peek(size)
            if json_documents.is_document(head, is_whole=len(head) < size):
                for number, text in json_documents.read_objects(content, file, MAX_LINE_BYTES):
                    yield Row(text, file, number)
                return
        lines = _lines(content, file_range.start, file_range.end)
        for number, line in enumerate(lines, file_range.lines_before + 1):
            if isinstance(line, ManifestError):
                yield Row.broken(line, file, number)
            elif line and not line.isspace():
                yield Row(line, file, number)


def read_lines(
    storage: Storage, file: str, start: int = 0, end: int | None = None
) -> Iterator[str | ManifestError]:
    """Yields the lines that start in a range of bytes, without their ends.

    A byte order mark at the start is dropped. No more than `MAX_LINE_BYTES` of a line are in memory
    at a time, whatever its length.

    Args:
        end: None is the end of the file; a compressed one is read from 0 to its end.

    Yields:
        Each line; for one that is too long an error with its beginning; for one that is not UTF-8
        an error with all of it, in which ``\\xNN`` shows a wrong byte.

    Raises:
        DamagedInputError: the compressed data are incomplete or damaged.
    """
    with open_decompressed(storage, file) as content:
        yield from _lines(content, start, end)


def _lines(content: BinaryIO, start: int, end: int | None) -> Iterator[str | ManifestError]:
    position = start
    if start:
        content.seek(start - 1)
        max_bytes = None if end is None else end - start + 1
        position += skip_line(content, max_bytes) - 1  # the end of the previous line
    while end is None or position < end:
        line = content.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        text = line.removeprefix(BYTE_ORDER_MARK) if position == 0 else line
        position += len(line)
        if len(line) <= MAX_LINE_BYTES:
            yield decode_line(text)
            continue
        if not line.endswith(b"\n"):
            position += skip_line(content, None if end is None else end - position)
        yield _too_long(text)


def skip_line(content: BinaryIO, max_bytes: int | None = None) -> int:
    """Skips to the end of a line, or just above ``max_bytes``; returns the number of bytes."""
    skipped = 0
    while max_bytes is None or skipped < max_bytes:
        data = content.readline(SKIPPED_BYTES)
        skipped += len(data)
        if not data or data.endswith(b"\n"):
            break
    return skipped


def count_lines(storage: Storage, file: str, start: int, end: int, version: str = "") -> int:
    """Counts the lines of an uncompressed file that start in a range of bytes.

    Raises:
        ReplacedError: the file has another version, or changes meanwhile.
    """
    count, remaining = (1, end - 1) if start == 0 else (0, end - start)
    with storage.open(file) as content, one_version(content, file, version):
        content.seek(max(0, start - 1))
        while remaining > 0 and (block := content.read(min(remaining, COUNTED_BYTES))):
            count += block.count(b"\n")
            remaining -= len(block)
    return count


def decode_line(line: bytes) -> str | NotJsonError:
    """Returns a line as text without its end, or the error if it is not UTF-8."""
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        shown = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
        return NotJsonError(f"the line is not UTF-8 text ({error}); save it as UTF-8", shown)


def _too_long(line: bytes) -> LineTooLongError:
    beginning = line[: 4 * SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")
    return LineTooLongError(
        f"the line is longer than {MAX_LINE_BYTES} bytes, which no row is; a row is a line "
        "that ends with LF, and names its audio by a path",
        beginning[:SHOWN_CHARACTERS],
    )


READER = Reader(
    suffixes=(".json", ".jsonl"),
    read=read_rows,
    split=split_file,
    may_be_compressed=True,
    is_in_folders=False,
    first_rows=from_start(read_rows),
)
