"""The lines of text files: compressed or not, whole or in ranges that several workers read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from beam_asr.audio_names import extension
from beam_asr.storage import Storage

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COUNTED_BYTES = 2**20


class DamagedInputError(ValueError):
    """An input's compressed data is damaged or cut short, so rows of it are lost."""


def is_compressed(file: str) -> bool:
    return extension(file) in _OPENERS


@contextmanager
def opened(storage: Storage, file: str) -> Iterator[BinaryIO]:
    """A file's content; of a compressed one (gzip, bzip2, xz, Zstandard), by its extension.

    Raises:
        DamagedInputError: on reading; the compressed data are not whole.
    """
    with storage.open(file) as raw:
        opener = _OPENERS.get(extension(file))
        try:
            yield raw if opener is None else opener(raw)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if opener is None or not _is_damage(error):
                raise
            raise DamagedInputError(
                f"the input {file!r} cannot be decompressed to its end ({error}); copy it again "
                "from its origin"
            ) from error


def lines_in(storage: Storage, file: str, start: int = 0, end: int | None = None) -> Iterator[str]:
    """The lines that begin in a range of bytes, without their ends.

    A byte that is not UTF-8 is shown as ``\\xNN``; a byte order mark at the start is dropped.

    Args:
        end: None is the end of the file; a compressed one is read from 0 to its end.

    Raises:
        DamagedInputError: the compressed data are not whole.
    """
    with opened(storage, file) as content:
        position = start
        if start:
            content.seek(start - 1)
            position += len(content.readline()) - 1  # the end of the line before
        for line in content:
            if end is not None and position >= end:
                return
            text = line.removeprefix(BYTE_ORDER_MARK) if position == 0 else line
            position += len(line)
            yield text.decode("utf-8", "backslashreplace").rstrip("\r\n")


def count_lines(storage: Storage, file: str, start: int, end: int) -> int:
    """How many lines of an uncompressed file begin in a range of bytes."""
    count, left = (1, end - 1) if start == 0 else (0, end - start)
    with storage.open(file) as content:
        content.seek(max(0, start - 1))
        while left > 0 and (block := content.read(min(left, COUNTED_BYTES))):
            count += block.count(b"\n")
            left -= len(block)
    return count


def _zstandard(raw: BinaryIO) -> Any:
    import pyarrow  # its reader, unlike zstandard's own, notices a file that is cut short

    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
    return io.BufferedReader(stream)


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstandard,
}


def _is_damage(error: Exception) -> bool:
    """Whether an error is the decompressor's rather than the storage's."""
    plain = type(error) in (OSError, gzip.BadGzipFile) and getattr(error, "errno", None) is None
    return plain or not isinstance(error, OSError)
