"""Lists the files of local folders and globs, through links, and names what is no readable file."""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from beam_asr.storage import uris
from beam_asr.storage.local_files import NOTHING_THERE, is_local_folder
from beam_asr.storage.retry import is_transient_locally, retry

BROKEN_LINK = "broken link"
LISTED_FOLDER = "link to a folder listed already"  # a loop, or a second way to the same files
LINK_TO_FOLDER = "link to a folder"  # of a storage that does not follow it
UNREADABLE_FOLDER = "folder without read access"
FOLDER = "folder"
SPECIAL_FILE = "special file"  # a pipe, a socket, a device
_MAGIC = re.compile(r"[*?\[]")
# Of a link: it leads to nothing, to itself, or to where the account may not look.
_BROKEN = NOTHING_THERE | {errno.EACCES, errno.EPERM}
Result = TypeVar("Result")


class Entry(NamedTuple):
    """Holds what was found in a storage.

    Attributes:
        name: path or URI.
        problem: why it is no file that can be read; empty for a file.
        version: of its content; empty where the listing does not state it.
    """

    name: str
    problem: str = ""
    version: str = ""


def walk_local(folder: str, max_depth: int | None = None) -> Iterator[Entry]:
    """Yields the files below a folder, and of its folders those that cannot be entered.

    Links are followed. A folder is entered once, at its own place if that is below ``folder`` too,
    so that loops end and no folder's files come twice.

    Args:
        max_depth: levels of folders, 1 for the files of ``folder`` alone; folders below are yielded
            as entries. None is all.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = [(folder, 1)], deque[tuple[str, int]]()
    while folders or links:  # links last, since what they lead to may have its own place
        path, depth = folders.pop() if folders else links.popleft()
        try:
            status = _again(functools.partial(os.stat, path))
            if (status.st_dev, status.st_ino) in seen:
                yield Entry(path, LISTED_FOLDER)
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = _again(functools.partial(_entries, path))
        except PermissionError:
            yield Entry(path, UNREADABLE_FOLDER)
            continue
        except FileNotFoundError:  # deleted since its folder was listed
            continue
        for entry in entries:
            if not _is_folder(entry):
                yield Entry(entry.path, _problem(entry))
            elif depth == max_depth:
                yield Entry(entry.path, FOLDER)
            else:
                (links if entry.is_symlink() else folders).append((entry.path, depth + 1))


def glob_local(pattern: str) -> Iterator[Entry]:
    """Yields what a glob matches, as `walk_local`; its syntax is fsspec's.

    Args:
        pattern: an absolute path.

    Raises:
        ValueError: the pattern is not valid.
    """
    from fsspec.utils import glob_translate

    matches = re.compile(glob_translate(pattern)).match
    root, is_below = fixed_folder(pattern), "**" in pattern
    depth = None if is_below else pattern[len(root) :].strip("/").count("/") + 1
    if not is_local_folder(root):
        return
    for entry in walk_local(root, depth):
        entered = entry.problem in (LISTED_FOLDER, UNREADABLE_FOLDER)
        if entered or matches(entry.name):
            yield entry


def problem_of(fs: Any, info: Mapping[str, Any]) -> str:
    """Returns the `Entry.problem` of something that a file system of fsspec lists."""
    kind = info.get("type")
    # A page of HTTP may link to itself, in another order: calls/?C=N
    if kind == "directory" or uris.without_query(str(info["name"])).endswith("/"):
        return FOLDER
    if kind == "link":  # as over SFTP; reading follows it
        return LINK_TO_FOLDER if retry(lambda: fs.isdir(info["name"])) else ""
    return "" if kind == "file" else SPECIAL_FILE


def fixed_folder(pattern: str) -> str:
    """Returns the folder that a glob begins with: the part before its first wildcard."""
    magic = _MAGIC.search(pattern)
    fixed = pattern[: magic.start()] if magic else pattern
    return fixed[: fixed.rfind("/") + 1]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as scan:
        return sorted(scan, key=lambda entry: entry.name)


def _again(request: Callable[[], Result]) -> Result:
    return retry(request, may_retry=is_transient_locally)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return _again(entry.is_dir)
    except OSError as error:
        if error.errno in _BROKEN:
            return False
        raise


def _problem(entry: os.DirEntry[str]) -> str:
    """Returns why an entry that is no folder is no file either; empty for a file."""
    try:
        if _again(entry.is_file):
            return ""
        return SPECIAL_FILE if stat.S_IFMT(_again(entry.stat).st_mode) else BROKEN_LINK
    except OSError as error:
        if error.errno in _BROKEN:
            return BROKEN_LINK
        raise
