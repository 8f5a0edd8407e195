"""The bytes of one audio file, wherever they are, for C libraries to read."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from beam_asr.audio_errors import (
    AudioAccessError,
    AudioError,
    AudioNotFoundError,
    AudioTimeoutError,
    EmptyAudioError,
    NotAudioError,
)
from beam_asr.retrying import DeadlineError, status_of
from beam_asr.storage import Storage

WHOLE_BYTES = 2**20  # a remote file no larger is fetched whole


class Source:
    """The bytes of one file, for C libraries to read.

    libsndfile takes an exception in its read callback for the end of the file, which would make a
    clip cut short of a network failure. So the first failure is kept, and raised afterwards.

    Attributes:
        descriptor: of the same bytes and at the same position, where there is one. Who reads by it
            makes no call of Python for each piece, for which many threads would have to queue.
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
        self.size = size
        self.descriptor = descriptor
        self.failure: Exception | None = None
        self._file = file
        self._deadline = deadline
        self._reached = 0

    @property
    def exhausted(self) -> bool:
        """Whether the last byte has been read."""
        reached = self._reached
        if self.descriptor is not None:
            reached = max(reached, os.lseek(self.descriptor, 0, os.SEEK_CUR))
        return reached >= self.size

    def check(self) -> None:
        """Raises what a reader by the descriptor has taken for the end of the file."""
        if self.descriptor is not None:
            os.pread(self.descriptor, 1, os.lseek(self.descriptor, 0, os.SEEK_CUR))

    def read(self, size: int = -1) -> bytes:
        try:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                raise DeadlineError("no time is left")
            data = self._file.read(size)
            self._reached = max(self._reached, self._file.tell())
            return data
        except Exception as error:  # of any storage system; open_bytes raises it
            self.failure = self.failure or error
            return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def peek(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer at the end; leaves the position at the start."""
        self.seek(offset)
        data = self.read(size)
        self.seek(0)
        self._reached = 0
        return data


@contextmanager
def open_bytes(
    path: str,
    storage: Storage | None,
    deadline: float | None = None,
    first_block: int | None = None,
) -> Iterator[Source]:
    """Opens a path for random access; raises the first storage failure on leaving.

    Args:
        deadline: time of ``time.monotonic()`` after which reading fails.
        first_block: bytes to fetch first of a file of which a part is wanted; None wants it all.
    """
    with ExitStack() as stack:
        try:
            file: IO[bytes] = (storage or Storage()).open(path, deadline, first_block)
            stack.callback(file.close)
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
        if size == 0:
            raise _empty(path)
        source = Source(path, file, size, deadline, descriptor)
        try:
            yield source
        except AudioError:
            source.check()
            raise
        finally:
            if source.failure is not None:  # what the decoder made of it is beside the point
                _raise_as_audio_error(path, source.failure)
                raise source.failure


@contextmanager
def open_content(path: str, content: bytes) -> Iterator[Source]:
    """Bytes that are here already; ``path`` only names them."""
    if not content:
        raise _empty(path)
    with _in_memory(content) as (file, descriptor):
        yield Source(path, file, len(content), descriptor=descriptor)


@contextmanager
def _in_memory(content: bytes) -> Iterator[tuple[IO[bytes], int | None]]:
    """A file of these bytes, and its descriptor where the system has such files."""
    try:
        descriptor = os.memfd_create("beam-asr")
    except (AttributeError, OSError):  # not Linux, or a sandbox
        yield io.BytesIO(content), None
        return
    with open(descriptor, "w+b", buffering=0) as file:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        file.seek(0)
        yield file, descriptor


def _empty(path: str) -> EmptyAudioError:
    return EmptyAudioError(f"{path}: has zero bytes. Upload it again or drop the row.")


def _raise_as_audio_error(path: str, error: Exception) -> None:
    """Raises the AudioError for a storage failure that is the clip's fault; else returns."""
    cause = error.__cause__ or error  # fsspec's http turns every failure into FileNotFoundError
    for each in (error, cause):
        if isinstance(each, AudioError):
            raise each
    if isinstance(error, DeadlineError):
        raise AudioTimeoutError(
            f"{path}: could not be read within the time limit ({cause}). Its storage stalls, or "
            "--audio_timeout is too short for a file of its size."
        ) from error
    status = status_of(cause)
    if (
        isinstance(error, PermissionError)
        or status in (401, 403)
        or str(error).startswith("Forbidden")  # gcsfs: a bare OSError
    ):
        raise AudioAccessError(
            f"{path}: access is refused ({error}). Grant the worker's account read access."
        ) from error
    if isinstance(cause, OSError) and not isinstance(cause, (FileNotFoundError, IsADirectoryError)):
        raise cause
    if isinstance(error, FileNotFoundError) or status == 404:
        raise AudioNotFoundError(
            f"{path}: no such file ({error}). Correct the path in the manifest; a relative path is "
            "looked up on the worker."
        ) from error
    if isinstance(error, IsADirectoryError):
        raise NotAudioError(f"{path}: is a folder. Name a file in the manifest.") from error
