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

from beam_asr.manifest_errors import LineTooLongError, ManifestError, NotJsonError
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import extension

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COUNTED_BYTES = 2**20
LONGEST_LINE_BYTES = 2**24  # with its end; most rows have some hundred
SHOWN_CHARACTERS = 1000  # of a longer one
SKIPPED_BYTES = 2**16  # at a time
XZ_MEMORY_BYTES = 2**28  # xz -9 takes a quarter; a file may ask for 4 GiB


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


def lines_in(
    storage: Storage, file: str, start: int = 0, end: int | None = None
) -> Iterator[str | ManifestError]:
    """The lines that begin in a range of bytes, without their ends.

    A byte order mark at the start is dropped. No more than `LONGEST_LINE_BYTES` of a line are held
    at a time, whatever its length.

    Args:
        end: None is the end of the file; a compressed one is read from 0 to its end.

    Yields:
        Each line; for one that is too long or not UTF-8 what is wrong with it, with its beginning
        or, for UTF-8, all of it, in which ``\\xNN`` shows a byte that is wrong.

    Raises:
        DamagedInputError: the compressed data are not whole.
    """
    with opened(storage, file) as content:
        position = start
        if start:
            content.seek(start - 1)
            most = None if end is None else end - start + 1
            position += skip_line(content, most) - 1  # the end of the line before
        while end is None or position < end:
            line = content.readline(LONGEST_LINE_BYTES + 1)
            if not line:
                return
            text = line.removeprefix(BYTE_ORDER_MARK) if position == 0 else line
            position += len(line)
            if len(line) <= LONGEST_LINE_BYTES:
                yield decoded(text)
                continue
            if not line.endswith(b"\n"):
                position += skip_line(content, None if end is None else end - position)
            yield _too_long(text)


def skip_line(content: BinaryIO, most: int | None = None) -> int:
    """Reads on to the end of a line, but not much more than ``most`` bytes; gives their number."""
    skipped = 0
    while most is None or skipped < most:
        part = content.readline(SKIPPED_BYTES)
        skipped += len(part)
        if not part or part.endswith(b"\n"):
            break
    return skipped


def count_lines(storage: Storage, file: str, start: int, end: int) -> int:
    """How many lines of an uncompressed file begin in a range of bytes."""
    count, left = (1, end - 1) if start == 0 else (0, end - start)
    with storage.open(file) as content:
        content.seek(max(0, start - 1))
        while left > 0 and (block := content.read(min(left, COUNTED_BYTES))):
            count += block.count(b"\n")
            left -= len(block)
    return count


def decoded(line: bytes) -> str | NotJsonError:
    """A line as text without its end, or what is wrong with it."""
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        shown = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
        return NotJsonError(f"the line is not UTF-8 text ({error}); save it as UTF-8", shown)


def _too_long(line: bytes) -> LineTooLongError:
    beginning = line[: 4 * SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")
    return LineTooLongError(
        f"the line is longer than {LONGEST_LINE_BYTES} bytes, which no row is; a row is a line "
        "that ends with LF, and names its audio by a path",
        beginning[:SHOWN_CHARACTERS],
    )


class _Decompressed(io.RawIOBase):
    """The content of a file of one or more compressed streams.

    Where a stream is followed by what is none, the readers of the standard library end, and so
    would lose the rows of a second stream whose beginning is damaged.
    """

    def __init__(self, raw: BinaryIO, decompressor: Callable[[], Any], padding: bytes = b""):
        """
        Args:
            padding: the bytes that may follow a stream.
        """
        self._raw = raw
        self._new_stream = decompressor
        self._stream = decompressor()
        self._padding = padding

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            given = b""
            if self._stream.eof:
                given = self._next_stream()
                if not given:
                    return 0
                self._stream = self._new_stream()
            elif self._stream.needs_input:
                given = self._raw.read(SKIPPED_BYTES)
                if not given:
                    raise EOFError("it ends within a compressed stream")
            if content := self._stream.decompress(given, len(buffer)):
                buffer[: len(content)] = content
                return len(content)

    def _next_stream(self) -> bytes:
        """The first bytes after a stream and its padding; none at the end of the file."""
        given = self._stream.unused_data.lstrip(self._padding)
        while not given and (block := self._raw.read(SKIPPED_BYTES)):
            given = block.lstrip(self._padding)
        return bytes(given)


def _bzip2(raw: BinaryIO) -> Any:
    return io.BufferedReader(_Decompressed(raw, bz2.BZ2Decompressor))


def _xz(raw: BinaryIO) -> Any:
    def decompressor() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)

    return io.BufferedReader(_Decompressed(raw, decompressor, padding=b"\0"))


def _zstandard(raw: BinaryIO) -> Any:
    import pyarrow  # its reader, unlike zstandard's own, notices a file that is cut short

    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
    return io.BufferedReader(stream)


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": _bzip2,
    ".xz": _xz,
    ".zst": _zstandard,
}


def _is_damage(error: Exception) -> bool:
    """Whether an error is the decompressor's rather than the storage's."""
    plain = type(error) in (OSError, gzip.BadGzipFile) and getattr(error, "errno", None) is None
    return plain or not isinstance(error, OSError)
