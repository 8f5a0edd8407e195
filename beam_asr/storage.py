"""Files on any storage that fsspec knows: list, read, write whole, delete."""

from __future__ import annotations

import contextlib
import os
import posixpath
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

import fsspec

GLOB_CHARACTERS = frozenset("*?[")
LOCAL = ("file", "local")


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URI, and the path there."""
    return fsspec.core.url_to_fs(uri)


def is_local(uri: str) -> bool:
    return "::" not in uri and (uri.partition("://")[0] in LOCAL or "://" not in uri)


def local_path(uri: str) -> str:
    """The path of a local URI or path."""
    return os.path.expanduser(uri.partition("://")[2] if "://" in uri else uri)


def is_glob(pattern: str) -> bool:
    return not GLOB_CHARACTERS.isdisjoint(pattern)


def join(folder: str, *names: str) -> str:
    return posixpath.join(folder, *names)


def find(pattern: str) -> list[str]:
    """The files that a path, a glob (``**`` included) or a folder, for all below it, stands for.

    Returns:
        Paths or URIs of the same kind as ``pattern``, sorted; empty if there are none.
    """
    fs, path = filesystem(pattern)
    if is_glob(path):
        found = [name for name, info in fs.glob(path, detail=True).items() if _is_file(info)]
    elif fs.isdir(path):
        found = [name for name, info in fs.find(path, detail=True).items() if _is_file(info)]
    else:
        return [pattern] if fs.exists(path) else []
    return sorted(name if is_local(pattern) else fs.unstrip_protocol(name) for name in found)


def is_folder(uri: str) -> bool:
    fs, path = filesystem(uri)
    return not is_glob(uri) and bool(fs.isdir(path))


def open_binary(uri: str) -> BinaryIO:
    return cast(BinaryIO, fsspec.open(uri, "rb").open())


def read_lines(uri: str) -> Iterator[str]:
    """The lines of a text file, compressed ones by their extension, without their ends.

    A byte that is not UTF-8 is shown as ``\\xNN``; a byte order mark at the start is dropped.
    """
    with fsspec.open(uri, "rb", compression="infer") as file:
        for number, line in enumerate(file):
            if number == 0:
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield line.decode("utf-8", "backslashreplace").rstrip("\r\n")


def write(uri: str, lines: Iterable[bytes]) -> None:
    """Writes a file that appears whole or not at all, over one of the same name."""
    fs, path = filesystem(uri)
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    if not is_local(uri):
        with fs.open(path, "wb") as file:  # an object store's put is atomic
            file.writelines(lines)
        return
    part = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with open(part, "wb") as file:
            file.writelines(lines)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def names_in(folder: str) -> list[str]:
    """The names of what lies in a folder; empty if there is no such folder."""
    fs, path = filesystem(folder)
    fs.invalidate_cache()
    try:
        entries = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(posixpath.basename(entry.rstrip("/")) for entry in entries)


def delete(uri: str) -> None:
    """Deletes a file, if it is there."""
    fs, path = filesystem(uri)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def fingerprint(uri: str) -> str:
    """What changes when the file does: its entity tag, time and size, as its storage has them."""
    fs, path = filesystem(uri)
    info = fs.info(path)
    keys = ("ETag", "etag", "md5Hash", "LastModified", "updated", "mtime", "created", "size")
    return repr([info.get(key) for key in keys])


def _is_file(info: dict[str, Any]) -> bool:
    return info.get("type") == "file"
