"""Writes local files durably: partial file, fsync, rename, exclusive creation, locks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

PARTIAL_FILE = re.compile(r".+\.[0-9a-f]{32}\.part")  # a file that is being written to a disk
PART_SECONDS = 600.0  # without locks, an older partial file is taken to have no writer


def delete_local_folder(path: str) -> None:
    """Deletes a folder with everything below it; files that are gone are no error."""

    def unless_gone(_function: Any, _path: str, raised: Any) -> None:
        if not isinstance(raised[1], FileNotFoundError):
            raise raised[1]

    shutil.rmtree(path, onerror=unless_gone)


def write_local(path: str, lines: Iterable[bytes]) -> None:
    """Writes a file whole or not at all, over one of the same name, and syncs it."""
    with _partial_file(path) as part:
        part.writelines(lines)
        _make_durable(part)
        os.replace(part.name, path)
        _make_folder_durable(path)


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
            os.unlink(part.name)
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
