"""Tells versions of a file apart, so that nothing is read as a mixture of two.

An object of a store is replaced while it is read, a local file is written over in its place, and
the ranges of a long file are read at other times and on other machines than it was split.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from beam_asr.errors import ReplacedError
from beam_asr.storage.uris import without_query

_KEYS = (
    "ETag etag md5Hash LastModified Last-Modified last_modified updated mtime created size".split()
)
# The first that is stated counts: a checksum does not change with the object's metadata alone.
_CONTENT_KEYS = (
    "md5Hash crc32c ETag etag LastModified Last-Modified last_modified updated mtime".split()
)


def fingerprint(info: Mapping[str, Any]) -> str:
    """Returns a text that changes with a file, of what fsspec's ``info`` says of it."""
    return repr([info.get(key) for key in _KEYS])


def content_version(info: Mapping[str, Any]) -> str:
    """Returns a text that changes with a file's content, of what fsspec's listing says of it."""
    mark = next((info[key] for key in _CONTENT_KEYS if info.get(key)), "")
    return f"{mark}-{info.get('size')}"


def version_of(file: BinaryIO) -> str:
    """Returns a text that another version of an open file does not have; empty if none is known.

    Of a local file it is its time and size. Its inode is not in it: some network file systems
    give a file a new number, and another machine always does. A file that is put into its place has
    another time; whoever has the earlier one open goes on reading that.
    """
    raw = getattr(file, "raw", file)
    if not isinstance(raw, io.FileIO):
        return str(getattr(raw, "version", ""))
    return version_of_local(os.fstat(raw.fileno()))


def version_of_local(status: os.stat_result) -> str:
    """Returns the version of a local file by its status, as ``version_of``."""
    return f"{status.st_mtime_ns}-{status.st_size}"


@contextmanager
def one_version(file: BinaryIO, name: str, expected: str = "") -> Iterator[str]:
    """Checks that a file is the same at the end of the context as at its start.

    A mixture of two versions looks like damage; so an error within the context becomes a
    ``ReplacedError`` too if the file has changed.

    Args:
        expected: the version that the file must have; empty is any.

    Yields:
        The version.

    Raises:
        ReplacedError: the file was replaced or changed, or has another version than expected.
    """
    version = version_of(file)
    if expected and version and version != expected:
        raise ReplacedError.of(without_query(name))
    try:
        yield version
    except Exception as error:
        if not isinstance(error, ReplacedError) and version_of(file) != version:
            raise ReplacedError.of(without_query(name)) from error
        raise
    if version_of(file) != version:
        raise ReplacedError.of(without_query(name))
