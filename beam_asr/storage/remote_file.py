"""Reads a remote file by ranges, as a Python file, and retries failed requests.

fsspec's file objects first request the size, fetch blocks of 5 MiB, wait without limit for a
stalled server, and fail at the first reset. Here the first request fetches the beginning and the
size, blocks are small after a seek and double during sequential reads, a stalled request is
cancelled, and a failed one is retried. A server may send less of a range than was requested
(RFC 9110, section 15.3.7), so what came is never taken for all there is; and each answer is
compared with the first one, so that two versions of a file are not mixed.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from beam_asr.errors import DeadlineError, ReplacedError, ShortReadError, StorageError
from beam_asr.storage.object_requests import Part, request_of, total_of
from beam_asr.storage.retry import retry, status_of
from beam_asr.storage.uris import without_query
from beam_asr.storage.versions import fingerprint

Result = TypeVar("Result")

REQUEST_SECONDS = 60.0  # a request that takes longer has stalled
FIRST_BLOCK_BYTES = 2**20  # most clips are smaller: one request fetches them
SMALL_BLOCK_BYTES = 2**16
MAX_BLOCK_BYTES = 2**22
MAX_BLOCKS = 2  # in memory
IN_MEMORY_BYTES = 2**26  # of a file whose server cannot serve ranges; the rest is on disk

OUT_OF_RANGE = 416


class Ranges(Protocol):
    """Fetches ranges of bytes of one file."""

    def fetch(self, start: int, end: int, seconds: float) -> bytes:
        """Fetches the bytes from ``start`` to ``end``, or fewer, at least one if there is one.

        Args:
            seconds: time limit of a request.

        Raises:
            ReplacedError: they are of another version of the file than those before.
        """

    def size(self, seconds: float) -> int:
        """Returns the size of the file, in bytes."""

    def close(self) -> None:
        """Releases what was opened or downloaded."""


class RemoteFile(io.RawIOBase):
    """Reads ``Ranges`` as a seekable binary file. One thread may use it at a time.

    Args:
        first_block: bytes to fetch with the first request.
        deadline: time of ``time.monotonic()`` after which every read fails; None is never.

    Raises:
        DeadlineError: a read takes place after the deadline.
        Exception: of the storage, if it is permanent or all attempts have failed.
    """

    def __init__(
        self,
        ranges: Ranges,
        first_block: int = FIRST_BLOCK_BYTES,
        deadline: float | None = None,
    ):
        self._ranges = ranges
        self._deadline = deadline
        self._position = 0
        self._head = self._request(lambda seconds: ranges.fetch(0, first_block, seconds))
        self._size = self._request(ranges.size)
        self._blocks: list[tuple[int, bytes]] = []
        self._block_bytes = SMALL_BLOCK_BYTES
        self._read_on_from = len(self._head)  # the end of the last block

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position; fetches nothing."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer; returns the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self._cached(self._position) or self._fetch(self._position, len(view))
        count = min(len(view), len(data))
        view[:count] = data[:count]
        self._position += count
        return count

    @property
    def version(self) -> str:
        """Returns a text that another version of the file does not have; empty if none is known."""
        return getattr(self._ranges, "version", "")

    def close(self) -> None:
        """Closes the ranges too."""
        if not self.closed:
            self._ranges.close()
        super().close()

    def _cached(self, position: int) -> memoryview | None:
        """Returns the bytes in memory from a position on; None if there are none."""
        for start, block in ((0, self._head), *reversed(self._blocks)):
            if start <= position < start + len(block):
                return memoryview(block)[position - start :]
        return None

    def _fetch(self, position: int, count: int) -> memoryview:
        if position >= self._size:
            return memoryview(b"")
        if position == self._read_on_from:
            self._block_bytes = min(2 * self._block_bytes, MAX_BLOCK_BYTES)
        else:
            self._block_bytes = SMALL_BLOCK_BYTES
        length = min(max(self._block_bytes, min(count, MAX_BLOCK_BYTES)), self._size - position)
        block = self._request(lambda seconds: self._some(position, length, seconds))
        self._blocks = [*self._blocks[1 - MAX_BLOCKS :], (position, block)]
        self._read_on_from = position + len(block)
        return memoryview(block)

    def _some(self, position: int, length: int, seconds: float) -> bytes:
        block = self._ranges.fetch(position, position + length, seconds)
        if not block:
            raise ShortReadError(f"none of {length} bytes came from byte {position} on")
        return block[:length]

    def _request(self, request: Callable[[float], Result]) -> Result:
        def within_time() -> Result:
            if self._deadline is None:
                return request(REQUEST_SECONDS)
            remaining = self._deadline - time.monotonic()
            if remaining <= 0:
                raise DeadlineError("no time is left")
            try:
                return request(min(remaining, REQUEST_SECONDS))
            except Exception as error:
                if time.monotonic() >= self._deadline:
                    raise DeadlineError("no time is left") from error
                raise

        return retry(within_time, self._deadline)


class Stated:
    """Holds the size and the version of a file as the first answers stated them.

    Attributes:
        size: bytes of the file; None if no answer stated it.
        version: of the file; empty if no answer stated one.
    """

    def __init__(self, name: str):
        self._name = without_query(name)
        self.size: int | None = None
        self.version = ""

    def check(self, size: int | None, version: str = "") -> None:
        """Stores what an answer states, if it is the first to state it.

        Raises:
            ReplacedError: it states something else than an earlier one.
        """
        for stored, stated in ((self.size, size), (self.version or None, version or None)):
            if stated is not None and stored is not None and stated != stored:
                raise ReplacedError.of(self._name)
        self.size = size if self.size is None else self.size
        self.version = self.version or version

    def check_out_of_range(self, start: int) -> None:
        """Stores that there is no byte at ``start``, as there is no byte 0 of an empty file.

        Raises:
            ReplacedError: an earlier answer stated that there is.
        """
        if self.size is None:
            self.size = start
        elif start < self.size:
            raise ReplacedError.of(self._name)


class ObjectRanges:
    """Fetches an object of a store whose fsspec file system is asynchronous: gs, s3, az, ..."""

    def __init__(self, fs: Any, path: str):
        self._fs = fs
        self._path = path
        self._request = request_of(fs)
        self._stated = Stated(path)

    def fetch(self, start: int, end: int, seconds: float) -> bytes:
        """Fetches as ``Ranges.fetch``."""
        try:
            part = run(self._fs, self._request(self._fs, self._path, start, end), seconds)
        except Exception as error:
            if status_of(error) != OUT_OF_RANGE:
                raise
            self._stated.check_out_of_range(start)
            return b""
        self._stated.check(self._total(part, start, end), part.version)
        return part.data

    def _total(self, part: Part, start: int, end: int) -> int | None:
        """Returns the size of the object that an answer states, in bytes as they are read.

        Raises:
            StorageError: the client decompresses the object, whose ranges are of what is stored.
        """
        if part.total is None or start + len(part.data) <= part.total:
            return part.total
        if start == 0 and part.total <= end:  # all of it came at once
            return len(part.data)
        raise StorageError(
            f"{without_query(self._path)}: has a Content-Encoding, so that it cannot be read by "
            "ranges: store it without one, and if it is compressed, with a name that says so"
        )

    def size(self, seconds: float) -> int:
        """Returns the size of the file, in bytes."""
        return _size_of(self._fs, self._path, self._stated, seconds)

    @property
    def version(self) -> str:
        """Returns the version that the store states, as GCS's generation or S3's ETag."""
        return self._stated.version

    def close(self) -> None:
        """Does nothing: nothing is open."""


def _size_of(fs: Any, path: str, stated: Stated, seconds: float) -> int:
    """Returns the size that answers have stated, or else, as after "bytes 0-99/*", requests it."""
    if stated.size is None:
        info = run(fs, fs._info(path), seconds)
        stated.check(int(info["size"]))
    return stated.size or 0


class HttpRanges:
    """Fetches a file over HTTP; whole, once, if its server does not serve ranges.

    Ranges, their refusal and the total are those of RFC 9110, section 14.
    """

    def __init__(self, fs: Any, url: str):
        self._fs = fs
        self._url = url
        self._stated = Stated(url)
        self._whole: Any = None

    def fetch(self, start: int, end: int, seconds: float) -> bytes:
        """Fetches as ``Ranges.fetch``."""
        parts: list[bytes] = []
        while self._whole is None and (data := run(self._fs, self._get(start, end), seconds)):
            parts.append(data)
            start += len(data)
            if start >= end or start == self._stated.size:
                break
        else:
            parts.append(self._from_whole(start, end))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self, seconds: float) -> int:
        """Returns the size of the file, in bytes."""
        if self._whole is not None:
            return self._whole.seek(0, io.SEEK_END)
        return _size_of(self._fs, self._url, self._stated, seconds)

    @property
    def version(self) -> str:
        """Returns the server's ETag, or the time of the last change."""
        return self._stated.version

    def close(self) -> None:
        """Deletes a file that was fetched whole."""
        if self._whole is not None:
            self._whole.close()

    def _from_whole(self, start: int, end: int) -> bytes:
        """Returns a range of the file if that was sent whole; otherwise no bytes."""
        if self._whole is None:
            return b""
        self._whole.seek(start)
        return self._whole.read(end - start)

    async def _get(self, start: int, end: int) -> bytes | None:
        """Requests a range; None if the server sent the whole file instead, which is stored."""
        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)
        headers = {
            **options.pop("headers", {}),
            "Range": f"bytes={start}-{end - 1}",
            "Accept-Encoding": "identity",
        }
        url = self._fs.encode_url(self._url)
        async with session.get(url, headers=headers, **options) as response:
            if response.status == OUT_OF_RANGE:
                self._stated.check_out_of_range(start)
                return b""
            if response.status == 404:
                raise FileNotFoundError(self._url)
            response.raise_for_status()
            version = _version_of(response.headers)
            if response.status == 206:
                total = total_of(response.headers.get("Content-Range", ""), start)
                self._stated.check(total, version)
                return await response.read()
            self._stated.check(None, version)
            whole = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115
            try:
                async for chunk in response.content.iter_chunked(2**20):
                    whole.write(chunk)
            except BaseException:
                whole.close()
                raise
            self._whole = whole
            return None


def _version_of(headers: Any) -> str:
    """Returns what an answer states of the version of a file (RFC 9110, section 8.8).

    A cache may turn a strong tag into a weak one.
    """
    return headers.get("ETag", "").removeprefix("W/") or headers.get("Last-Modified", "")


class FileRanges:
    """Reads a file as fsspec opens it, for file systems that are not asynchronous; reopens it after
    a failure."""

    def __init__(self, open_file: Callable[[], Any], name: str = ""):
        self._open = open_file
        self._file: Any = None
        self._stated = Stated(name)

    def fetch(self, start: int, end: int, seconds: float) -> bytes:  # noqa: ARG002
        """Fetches as ``Ranges.fetch``."""
        try:
            file = self._opened()
            file.seek(start)
            parts = []
            while start < end and (part := file.read(end - start)):
                parts.append(part)
                start += len(part)
            if start < end:
                self._stated.check(start)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        except Exception:
            self.close()
            raise

    def size(self, seconds: float) -> int:  # noqa: ARG002
        """Returns the size of the file, in bytes."""
        if self._stated.size is None:
            self._stated.check(self._opened().seek(0, io.SEEK_END))
        return self._stated.size or 0

    @property
    def version(self) -> str:
        """Returns what the file system says of the file, if it says anything."""
        return self._stated.version

    def close(self) -> None:
        """Closes the file; the next request opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> Any:
        if self._file is None:
            file = self._open()
            # memory:// returns one object, with one position, to all callers.
            self._file = io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else file
            if details := getattr(file, "details", None):
                self._stated.check(None, fingerprint(details))
        return self._file


def run(fs: Any, coroutine: Any, seconds: float) -> Any:
    """Returns the result of a file system's coroutine; cancels it after a time limit.

    Raises:
        TimeoutError: it took longer than ``seconds``.
    """
    future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, seconds), fs.loop)
    try:
        return future.result()
    except asyncio.TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from error


def request(fs: Any, make: Callable[[], Any]) -> Any:
    """Returns the result of a small request of an asynchronous file system, with retries.

    Args:
        make: returns the coroutine of an attempt.
    """
    return retry(lambda: run(fs, make(), REQUEST_SECONDS))
