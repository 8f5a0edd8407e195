"""Reads local files, and writes them durably: partial file, fsync, rename, exclusive creation.

A network file system may lose a file for a moment (ESTALE), and finds it at another attempt.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

from beam_asr.errors import ReplacedError
from beam_asr.storage import versions
from beam_asr.storage.retry import is_transient_locally, retry

Result = TypeVar("Result")
READ_BYTES = 2**20
# Of a stat: there is nothing, or a link that leads to itself, or no file can have such a name.
NOTHING_THERE = frozenset([errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG])
PARTIAL_FILE = re.compile(r".+\.[0-9a-f]{32}\.part")  # a file that is being written to a disk
PART_SECONDS = 600.0  # without locks, an older partial file is taken to have no writer


class LocalFile(io.FileIO):
    """A local file that is only read, and opened again if the system has lost it (ESTALE).

    Raises:
        ReplacedError: the file that is there then is another one.
    """

    def __init__(self, path: str):
        retry(lambda: super(LocalFile, self).__init__(path, "r"), may_retry=is_transient_locally)
        self._version = versions.version_of_local(os.fstat(self.fileno()))

    def readinto(self, buffer: Any) -> int:
        """Reads into a buffer; returns the number of bytes, 0 at the end."""
        return self._again(lambda: super(LocalFile, self).readinto(buffer))

    def read(self, size: int | None = -1) -> bytes:
        """Reads up to ``size`` bytes; all that are left without one."""
        if size is None or size < 0:
            return self.readall()
        return self._again(lambda: super(LocalFile, self).read(size))

    def readall(self) -> bytes:
        """Reads all that is left."""
        return b"".join(iter(lambda: self.read(READ_BYTES), b""))

    def _again(self, read: Callable[[], Result]) -> Result:
        """Returns what a single read does, which changes nothing if it fails."""
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise

        def read_again() -> Result:
            self._reopen()
            return read()

        return retry(read_again, may_retry=is_transient_locally)

    def _reopen(self) -> None:
        with open(self.name, "rb", buffering=0) as file:
            if versions.version_of_local(os.fstat(file.fileno())) != self._version:
                raise ReplacedError.of(self.name)
            file.seek(self.tell())
            os.dup2(file.fileno(), self.fileno(), inheritable=False)


def local_exists(path: str) -> bool:
    """Returns whether there is a file or folder; raises OSError if the system does not say."""
    return _status(path) is not None


def is_local_folder(path: str) -> bool:
    """Returns whether there is a folder; raises OSError if the system does not say."""
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _status(path: str) -> os.stat_result | None:
    """Returns the status of what is at a path, through links; None if nothing can be there."""
    try:
        return retry(lambda: os.stat(path), may_retry=is_transient_locally)
    except ValueError:  # a NUL
        return None
    except OSError as error:
        if error.errno in NOTHING_THERE:
            return None
        raise


def delete_local_folder(path: str) -> None:
    """Deletes a folder with everything below it; files that are gone are no error."""

    def unless_gone(_function: Any, _path: str, raised: Any) -> None:
        if not isinstance(raised[1], FileNotFoundError):
            raise raised[1]

    shutil.rmtree(path, onerror=unless_gone)


def write_local(path: str, lines: Iterable[bytes], before_change: Callable[[], None]) -> None:
    """Writes a file whole or not at all, over one of the same name, and syncs it.

    Args:
        before_change: is called when the new file is complete, before it gets its name.
    """

    def write() -> None:
        with _partial_file(path) as part:
            part.writelines(lines)
            _make_durable(part)
            before_change()
            os.replace(part.name, path)
            _make_folder_durable(path)

    if isinstance(lines, Iterator):
        write()
    else:
        retry(write, may_retry=is_transient_locally)


def create_local(path: str, content: bytes) -> bool:
    """Writes a file unless one of its name exists; returns whether it was written."""
    with _partial_file(path) as part:
        part.write(content)
        _make_durable(part)
        try:
            os.link(part.name, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            return _create_without_links(path, content)
        _make_folder_durable(path)
    return True


def _create_without_links(path: str, content: bytes) -> bool:
    try:
        file = open(path, "xb")  # noqa: SIM115
    except FileExistsError:
        return False
    with file:
        file.write(content)
        _make_durable(file)
    return True


@contextlib.contextmanager
def _partial_file(path: str) -> Iterator[BinaryIO]:
    """Opens a new file beside a path, locked by this process; deletes it unless it is moved."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    part = _create_locked(path)
    try:
        yield part
    finally:
        with contextlib.suppress(FileNotFoundError):
            retry(lambda: os.unlink(part.name), may_retry=is_transient_locally)
        part.close()


def _create_locked(path: str) -> BinaryIO:
    while True:
        part = open(f"{path}.{uuid.uuid4().hex}.part", "xb")  # noqa: SIM115
        with contextlib.suppress(OSError):  # a file system without locks
            _lock(part)
        try:
            os.stat(part.name)  # os.path.exists() takes every error for a missing file
            return part
        except FileNotFoundError:  # it was deleted as a leftover before it was locked
            part.close()
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(part.name)
            part.close()
            raise


def delete_unless_locked(path: str) -> bool:
    """Deletes a partial file, unless its writer is alive or it is another user's.

    Returns:
        Whether it was deleted.
    """
    try:
        with open(path, "rb+") as part:
            try:
                _lock(part, wait=False)
            except BlockingIOError:
                return False
            except OSError:  # a file system without locks
                if time.time() - os.fstat(part.fileno()).st_mtime < PART_SECONDS:
                    return False
            os.unlink(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        return False
    return True


def _lock(file: BinaryIO, wait: bool = True) -> None:
    """Locks a file until it is closed or the process ends."""
    import fcntl  # not on Windows, from where a job may be launched

    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _make_durable(file: BinaryIO) -> None:
    """Syncs a file; without this, it may be empty after it was renamed and the power failed."""
    file.flush()
    os.fsync(file.fileno())


def _make_folder_durable(path: str) -> None:
    """Syncs the name of a new file, where folders can be synced."""
    with contextlib.suppress(OSError):
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
