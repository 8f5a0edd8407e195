"""gzip, bzip2, xz and zstandard, with limits on memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from beam_asr.errors import DamagedInputError
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import extension

SKIPPED_BYTES = 2**16  # at a time
XZ_MEMORY_BYTES = 2**28  # xz -9 takes a quarter; a file may ask for 4 GiB


@contextmanager
def open_decompressed(storage: Storage, file: str) -> Iterator[BinaryIO]:
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
SUFFIXES = frozenset(_OPENERS)


def _is_damage(error: Exception) -> bool:
    """Whether an error is the decompressor's rather than the storage's."""
    plain = type(error) in (OSError, gzip.BadGzipFile) and getattr(error, "errno", None) is None
    return plain or not isinstance(error, OSError)
