"""Decompresses gzip, bzip2, xz and Zstandard inputs, with limits on memory."""

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
from beam_asr.storage.versions import one_version

SKIPPED_BYTES = 2**16  # at a time
XZ_MEMORY_BYTES = 2**28  # xz -9 needs a quarter; a file may require 4 GiB


@contextmanager
def open_decompressed(storage: Storage, file: str, version: str = "") -> Iterator[BinaryIO]:
    """Opens a file's content, decompressed (gzip, bzip2, xz, Zstandard) by its extension.

    Args:
        version: that the file must have; empty is any.

    Raises:
        DamagedInputError: on reading; the compressed data are incomplete or damaged.
        ReplacedError: the file has another version, or changed until the end of the context.
    """
    with storage.open(file) as raw, one_version(raw, file, version):
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
    """Reads a file of one or more compressed streams.

    If a stream is followed by something else, the readers of the standard library just end, and so
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
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads decompressed bytes into a buffer; returns their number, 0 at the end.

        Raises:
            EOFError: the file ends within a stream.
        """
        while True:
            data = b""
            if self._stream.eof:
                data = self._next_stream()
                if not data:
                    return 0
                self._stream = self._new_stream()
            elif self._stream.needs_input:
                data = self._raw.read(SKIPPED_BYTES)
                if not data:
                    raise EOFError("it ends within a compressed stream")
            if content := self._stream.decompress(data, len(buffer)):
                buffer[: len(content)] = content
                return len(content)

    def _next_stream(self) -> bytes:
        """Returns the first bytes after a stream and its padding; empty at the end of the file."""
        data = self._stream.unused_data.lstrip(self._padding)
        while not data and (block := self._raw.read(SKIPPED_BYTES)):
            data = block.lstrip(self._padding)
        return bytes(data)


def _bzip2(raw: BinaryIO) -> Any:
    return io.BufferedReader(_Decompressed(raw, bz2.BZ2Decompressor))


def _xz(raw: BinaryIO) -> Any:
    def decompressor() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)

    return io.BufferedReader(_Decompressed(raw, decompressor, padding=b"\0"))


def _zstandard(raw: BinaryIO) -> Any:
    import pyarrow  # its reader, unlike zstandard's, notices a file that is cut short

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
    """Returns whether an error is the decompressor's rather than the storage's."""
    plain = type(error) in (OSError, gzip.BadGzipFile) and getattr(error, "errno", None) is None
    return plain or not isinstance(error, OSError)
