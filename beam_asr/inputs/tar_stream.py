"""Reads tars as streams, each once from start to end.

A tar (POSIX ustar and pax, GNU) may be plain or compressed with gzip, bzip2 or xz. It comes as an
open binary file, which need not be seekable and is not closed. One member at a time is in memory;
nothing is extracted, and links are not followed: a link, a device or a sparse file counts as a
member without content. Errors of the file object reach the caller unchanged, since they are the
storage's; any other error in reading is the tar's, and raised as a `TarError`.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from beam_asr.errors import TarError

CHUNK = 1 << 16  # bytes that are read, and copied, at a time
EXTENDED_HEADER_LIMIT = 1 << 20  # bytes; tarfile reads these whole, by their stated size
EXTENDED_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def has_content(member: tarfile.TarInfo) -> bool:
    """Returns whether a member is a regular file with content that may be read."""
    return member.isreg() and not member.issparse()  # a sparse file is as large as it claims


def is_apple_double(name: str) -> bool:
    """Returns whether a member is what macOS stores beside a file: ``._x.mp3``, ``__MACOSX/``.

    The format is AppleDouble (RFC 1740): the file's attributes, not its content.
    """
    folder, _, file = name.rpartition("/")
    return file.startswith("._") or "__MACOSX" in folder.split("/")


def printable(name: str) -> str:
    """Returns a member's name as text that can be written; surrogates become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


class TarStream:
    """Reads a tar once, from start to end.

    Its methods raise `TarError` if the tar is damaged.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._last: str | None = None
        self._source = _Source(file)
        with self._reading():
            # Rather than mode "r|*": that checks no checksums and reads no joined streams.
            stream = _decompressed(io.BufferedReader(self._source, CHUNK))
            self._tar = tarfile.open(  # noqa: SIM115
                fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=_Header, encoding="utf-8"
            )

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while True:
            with self._reading():
                # Opening has read the first header. Python 3.10 cannot go on where there is none.
                first = self._tar.firstmember  # type: ignore[attr-defined]
                empty = self._tar.offset == 0 and first is None
                member = None if empty else self._tar.next()
                self._tar.members.clear()  # type: ignore[attr-defined]  # or all headers stay in memory
            if member is None:
                return
            self._last = printable(member.name)
            yield member

    def read(self, member: tarfile.TarInfo) -> bytes:
        """Reads the content of the member that was last iterated to."""
        with self._reading(), io.BytesIO() as content:
            source = self._tar.extractfile(member)
            assert source is not None
            shutil.copyfileobj(source, content, CHUNK)  # by chunks, for a size is only a claim
            if content.tell() != member.size:
                raise tarfile.ReadError(f"{content.tell()} bytes of {member.size}")
            return content.getvalue()

    def check_end(self) -> None:
        """Checks that only zeros follow the last member, and checksums of a compression.

        Raises:
            TarError: the tar is damaged, or another one follows.
        """
        with self._reading():
            assert self._tar.fileobj is not None
            while rest := self._tar.fileobj.read(CHUNK):
                if rest.strip(b"\0"):
                    break
        if rest:
            raise TarError(
                f"{self.name} goes on after the end of a tar, perhaps with a second one, which was "
                "not read; join tars with tar --concatenate"
            )

    def at(self, member: tarfile.TarInfo) -> str:
        """Returns a member's name and the tar's, for messages."""
        return f"{printable(member.name)!r} of {self.name}"

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:  # tarfile raises errors of many classes for damage
            if self._source.error:
                raise self._source.error  # noqa: B904  # the storage's, unchanged
            if self._last is None:
                raise TarError(
                    f"{self.name} is no tar, or is damaged from its start ({error}); a tar is "
                    "plain or compressed with gzip, bzip2 or xz"
                ) from error
            raise TarError(
                f"{self.name} is damaged or breaks off in or after its member {self._last!r} "
                f"({error}); copy the tar again, or build it again"
            ) from error


class _Source(io.RawIOBase):
    """Reads the caller's file, and stores the error that it raises."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Exception | None = None

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills all of the buffer unless the file ends."""
        filled = 0
        try:
            while filled < len(buffer) and (data := self._file.read(len(buffer) - filled)):
                buffer[filled : filled + len(data)] = data
                filled += len(data)
        except Exception as error:
            self.error = error
            raise
        return filled


def _decompressed(file: io.BufferedReader) -> io.BufferedIOBase:
    """Opens the file's content, by the first bytes from which tarfile, too, detects compression."""
    start = file.peek(10)
    if start.startswith(b"\x1f\x8b\x08"):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if start.startswith(b"BZh") and start[4:10] == b"1AY&SY":
        return bz2.BZ2File(file)
    if start.startswith((b"\xfd7zXZ", b"\x5d\0\0\x80")):
        return lzma.LZMAFile(file)
    return file


class _Header(tarfile.TarInfo):
    """Parses complete headers only; tarfile would take a damaged one for the end of the tar."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Parses a header; raises `tarfile.ReadError` if it is damaged."""
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends where a header should be, or the zeros after the last")
        if not buf.strip(b"\0"):
            return super().frombuf(buf, encoding, errors)  # raises what ends the iteration
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        if header.type in EXTENDED_HEADERS and not 0 <= header.size <= EXTENDED_HEADER_LIMIT:
            raise tarfile.ReadError(f"an extended header of {header.size} bytes")
        return header
