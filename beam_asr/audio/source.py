"""Opens the bytes of one audio file, on any storage, for C libraries to read."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import IO, BinaryIO

from beam_asr import errors
from beam_asr.errors import (
    AudioAccessError,
    AudioError,
    AudioNotFoundError,
    AudioTimeoutError,
    DeadlineError,
    EmptyAudioError,
    NotAudioError,
    UnreachableError,
)
from beam_asr.storage import protocols
from beam_asr.storage.retry import attempts_of, is_unreachable, refused_query, status_of
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_local, local_path, split_chain
from beam_asr.storage.versions import one_version

WHOLE_BYTES = 2**20  # a remote file no larger is fetched whole
SHOWN_CHARACTERS = 200  # of a path in a message

_IMPOSSIBLE_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
_SPECIAL_FILES = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Source:
    """Reads the bytes of one file, for C libraries.

    libsndfile takes an exception in its read callback for the end of the file, so that a network
    failure would look like a truncated clip. So the first failure is stored, and raised afterwards.

    Attributes:
        shown: the path as messages show it.
        descriptor: of the same bytes and at the same position, if there is one. Reading by it
            needs no call of Python for each block, for which many threads would have to queue.
        watch: is called with the place and the bytes of each read, and may raise.
        version: as `versions.version_of`; empty for bytes that were in memory already.
    """

    def __init__(
        self,
        path: str,
        file: IO[bytes],
        size: int,
        deadline: float | None = None,
        descriptor: int | None = None,
    ) -> None:
        self.path = path
        self.shown = shown(path)
        self.size = size
        self.descriptor = descriptor
        self.failure: Exception | None = None
        self.watch: Callable[[int, bytes], None] | None = None
        self.version = ""
        self._file: IO[bytes] | _Part = file
        self._deadline = deadline
        self._reached = 0

    @property
    def exhausted(self) -> bool:
        """Returns whether the last byte has been read."""
        reached = self._reached
        if self.descriptor is not None:
            reached = max(reached, os.lseek(self.descriptor, 0, os.SEEK_CUR))
        return reached >= self.size

    @property
    def position(self) -> int:
        """Returns where the reader is, by the descriptor or not."""
        if self.descriptor is None:
            return self.tell()
        return os.lseek(self.descriptor, 0, os.SEEK_CUR)

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns ``size`` bytes at ``offset``, fewer at the end; the position stays."""
        if self.descriptor is not None:
            return os.pread(self.descriptor, size, offset)
        position = self.tell()
        data = self._read_from(offset, size)
        self.seek(position)
        return data

    def check(self) -> None:
        """Raises the error that a reader by the descriptor took for the end of the file."""
        if self.descriptor is not None:
            os.pread(self.descriptor, 1, os.lseek(self.descriptor, 0, os.SEEK_CUR))

    def check_time(self) -> None:
        """Raises DeadlineError after the deadline."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.failure = self.failure or DeadlineError("no time is left")
            raise self.failure

    def read(self, size: int = -1) -> bytes:
        """Reads up to ``size`` bytes; returns none after a failure, which is stored."""
        try:
            self.check_time()
            data = self._file.read(size)
            reached = self._file.tell()
            if self.watch is not None:
                self.watch(reached - len(data), data)
            self._reached = max(self._reached, reached)
            return data
        except Exception as error:  # of any storage system; open_bytes raises it
            self.failure = self.failure or error
            return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seeks to a place, clamped to the file: a hostile header may name one outside it."""
        if whence != io.SEEK_SET:
            offset += self.size if whence == io.SEEK_END else self.tell()
        return self._file.seek(min(max(0, offset), self.size))

    def tell(self) -> int:
        """Returns the position in the file."""
        return self._file.tell()

    def read_on(self, size: int) -> bytes:
        """Returns ``size`` bytes from the position of the reader, by the descriptor or not."""
        if self.descriptor is None:
            return self.read(size)
        return os.pread(self.descriptor, size, os.lseek(self.descriptor, 0, os.SEEK_CUR))

    def peek(self, offset: int, size: int) -> bytes:
        """Returns `size` bytes at `offset`, fewer at the end; leaves the position at the start."""
        data = self._read_from(offset, size)
        self.seek(0)
        self._reached = 0
        return data

    def present(
        self, start: int, end: int, replacements: Mapping[int, bytes] | None = None
    ) -> None:
        """Presents a part of the bytes as the whole file from now on; the position is its start.

        Args:
            start: the first byte, behind tags.
            end: the byte after the last one.
            replacements: what to read in place of some bytes of the part, by their places.
        """
        self._file = _Part(self._file, start, end, replacements or {})
        self.size = end - start
        self.descriptor = None  # those who read by it would read what is left out
        self._reached = 0

    def _read_from(self, offset: int, size: int) -> bytes:
        self.seek(offset)
        data = self.read(size)
        while len(data) < size and (more := self.read(size - len(data))):  # of a remote file
            data += more
        return data


class _Part(io.RawIOBase):
    """Reads a part of a file as if it were the whole, with some of its bytes replaced."""

    def __init__(
        self, file: IO[bytes] | _Part, start: int, end: int, replacements: Mapping[int, bytes]
    ) -> None:
        self._file = file
        self._start = start
        self._end = end
        self._replacements = replacements
        file.seek(start)

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to ``size`` bytes."""
        position = self.tell()
        remaining = max(0, self._end - self._start - position)
        size = remaining if size is None or size < 0 else min(size, remaining)
        data = self._file.read(size)
        for place, content in self._replacements.items():
            before = max(0, place - position)
            behind = place + len(content) - position
            if before < len(data) and behind > 0:
                inside = content[max(0, position - place) :][: len(data) - before]
                data = data[:before] + inside + data[before + len(inside) :]
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seeks to a place from the start."""
        assert whence == io.SEEK_SET
        return self._file.seek(self._start + offset) - self._start

    def tell(self) -> int:
        """Returns the position from the start."""
        return self._file.tell() - self._start


@contextmanager
def open_bytes(
    path: str,
    storage: Storage | None,
    deadline: float | None = None,
    first_block: int | None = None,
    version: str = "",
) -> Iterator[Source]:
    """Opens a path for random access; raises the first storage failure on leaving.

    Args:
        deadline: time of ``time.monotonic()`` after which reading fails.
        first_block: bytes to fetch first if only a part of the file is needed; None if all is.
        version: that the file must have; empty is any.

    Raises:
        ReplacedError: the file has another version, or changed until the end of the context.
    """
    with ExitStack() as stack:
        try:
            opened = _open(path, storage or Storage(), deadline, first_block)
            stack.callback(opened.close)
            file: IO[bytes] = opened
            raw, descriptor = getattr(file, "raw", None), None
            if isinstance(raw, io.FileIO) and raw.seekable():
                file, descriptor = raw, raw.fileno()  # unbuffered: both are at one position
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            if descriptor is None and first_block is None and size <= WHOLE_BYTES:
                file, descriptor = stack.enter_context(_in_memory(file.read()))
        except Exception as error:
            _raise_as_audio_error(path, error)
            raise
        with (
            one_version(opened, shown(path), version) as found,
            _watched(Source(path, file, size, deadline, descriptor)) as source,
        ):
            source.version = found
            yield source


@contextmanager
def open_content(path: str, content: bytes, deadline: float | None = None) -> Iterator[Source]:
    """Opens as ``open_bytes``, bytes that are in memory already; ``path`` only names them."""
    with (
        _in_memory(content) as (file, descriptor),
        _watched(Source(path, file, len(content), deadline, descriptor)) as source,
    ):
        yield source


def shown(text: str) -> str:
    """Returns a path, or another text, for a message: printable, and shortened if long."""
    if not text.isprintable():
        text = repr(text)[1:-1]
    return errors.for_message(text, SHOWN_CHARACTERS, end=SHOWN_CHARACTERS // 2)


@contextmanager
def _watched(source: Source) -> Iterator[Source]:
    """Yields the source; then raises its failure, however a decoder has handled it."""
    if source.size == 0:
        raise _empty(source.path)
    try:
        yield source
    except AudioError:
        source.check()
        raise
    finally:
        if source.failure is not None:
            _raise_as_audio_error(source.path, source.failure)
            raise source.failure


def _empty(path: str) -> EmptyAudioError:
    return EmptyAudioError(f"{shown(path)}: has zero bytes. Upload it again or drop the row.")


def _open(path: str, storage: Storage, deadline: float | None, first_block: int | None) -> BinaryIO:
    """Opens a file, unless it is a local one that might block or never end."""
    *_, link = split_chain(path)
    if is_local(link):
        if storage.allowed is not None:  # a refusal must not show whether the file exists
            path = storage.allowed.check(path)
            *_, link = split_chain(path)
        _check_regular(local_path(link))
    return storage.open(path, deadline, first_block)


def _check_regular(path: str) -> None:
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:  # also /proc's, which may block
        raise _empty(path)
    for is_kind, kind in _SPECIAL_FILES:
        if is_kind(status.st_mode):
            raise NotAudioError(
                f"{shown(path)}: is {kind}, which is not opened. Name a regular file in the "
                "manifest."
            )


@contextmanager
def _in_memory(content: bytes) -> Iterator[tuple[IO[bytes], int | None]]:
    """Opens a file of these bytes, with its descriptor where the system has such files."""
    try:
        descriptor = os.memfd_create("beam-asr")
    except (AttributeError, OSError):  # not Linux, or a sandbox
        yield io.BytesIO(content), None
        return
    with open(descriptor, "w+b", buffering=0) as file:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[file.write(remaining) :]
        file.seek(0)
        yield file, descriptor


def _raise_as_audio_error(path: str, error: Exception) -> None:
    """Raises an AudioError if a storage failure is the clip's fault; otherwise returns."""
    cause = error.__cause__ or error  # fsspec's http turns every failure into FileNotFoundError
    for candidate in (error, cause):
        if isinstance(candidate, AudioError):
            raise candidate
    name, reason = shown(path), shown(str(cause))
    if isinstance(error, DeadlineError):
        raise AudioTimeoutError.too_slow(name, reason) from error
    if isinstance(error, UnicodeError) or _is_impossible_path(path, cause):
        raise AudioNotFoundError(
            f"{name}: no file can have this name ({reason}). Correct the path in the manifest."
        ) from error
    status = status_of(cause)
    if refusal := refused_query(path, cause):
        raise AudioAccessError(f"{refusal}.") from None
    if (
        isinstance(error, PermissionError)
        or status in (401, 403)
        or str(error).startswith(protocols.REFUSALS)
    ):
        raise AudioAccessError(
            f"{name}: access is refused ({shown(str(error))}). Grant the worker's account "
            "read access."
        ) from error
    if is_unreachable(error):
        raise UnreachableError(
            f"{name}: its storage cannot be reached, in {attempts_of(error)} attempts ({reason}). "
            "Correct the host in the path, start its server, or let the worker connect to it."
        ) from error
    if isinstance(cause, OSError) and not isinstance(cause, (FileNotFoundError, IsADirectoryError)):
        cause.attempts = attempts_of(error)  # type: ignore[attr-defined]
        raise cause
    if isinstance(error, FileNotFoundError) or status == 404:
        raise AudioNotFoundError(
            f"{name}: no such file ({shown(str(error))}). Correct the path in the manifest; "
            "a relative path is looked up on the worker."
        ) from error
    if isinstance(error, IsADirectoryError):
        raise NotAudioError(f"{name}: is a folder. Name a file in the manifest.") from error


def _is_impossible_path(path: str, error: BaseException) -> bool:
    """Returns whether the system refused the name of a local file."""
    has_nul = isinstance(error, ValueError) and "\0" in path
    return is_local(path) and (has_nul or getattr(error, "errno", None) in _IMPOSSIBLE_PATH)
