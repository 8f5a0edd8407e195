"""Tells which paths and URIs are those of one file, and which files are in a folder."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable

from beam_asr.storage.listing import fixed_folder
from beam_asr.storage.uris import is_chain, is_local, local_path, protocol_of, split_chain


def place_of(uri: str) -> str:
    """Returns the one name of a path or URI that differs by its spelling alone, or by its folder's.

    ``./x``, ``file:///f/x`` and ``/link_to_f/x`` have one place. A link has a place of its own.
    """
    folder, slash, name = uri.rpartition("/")
    if slash and name not in ("", ".", "..") and "::" not in uri:
        beside = _place_of_folder(folder)
        if beside is not None:
            return beside + name
    if not is_local(uri):
        protocol = protocol_of(uri)
        if is_chain(uri) or protocol == "http":  # http and https may have other files
            return uri
        return f"{protocol}://{uri.partition('://')[2]}"
    folder, name = os.path.split(local_path(uri))
    if name in ("", ".", ".."):
        return os.path.realpath(local_path(uri))
    if not os.path.isabs(folder):
        folder = os.path.join(os.getcwd(), folder)
    return os.path.join(_real_folder(folder), name)


def target_of(uri: str) -> str:
    """Returns the place of the file that a path or URI leads to, through links of a disk."""
    place = place_of(uri)
    return os.path.realpath(place) if is_local(uri) and os.path.islink(place) else place


def is_within(uri: str, folder: str) -> bool:
    """Returns whether a file, by its own name or by links, is in a folder, or is the folder.

    What an archive holds is where the archive is.
    """
    uri = split_chain(uri)[-1]
    root = target_of(folder).rstrip("/")
    return any(
        f"{place.rstrip('/')}/".startswith(f"{root}/") for place in (place_of(uri), target_of(uri))
    )


def matches_below(pattern: str, folder: str, names: Iterable[str]) -> bool:
    """Returns whether a glob that begins above a folder would match files in it.

    Args:
        names: of the files, relative to the folder.
    """
    from fsspec.utils import glob_translate

    fixed = fixed_folder(pattern)
    root, place = target_of(fixed).rstrip("/"), target_of(folder).rstrip("/")
    if not place.startswith(f"{root}/"):
        return False
    matches = re.compile(glob_translate(pattern[len(fixed) :])).match
    return any(matches(f"{place[len(root) + 1 :]}/{name}") for name in names)


@functools.lru_cache(maxsize=1024)  # most files are in the folder of the file before
def _place_of_folder(folder: str) -> str | None:
    """Returns what the places of files begin with that are named right in a folder, as ``/f``.

    None where more than the folder decides: in a URI of ``file``, whose escapes may be none, in a
    path that is relative, and where queries may follow.
    """
    if os.path.isabs(folder) or not folder:
        return os.path.join(_real_folder(folder or "/"), "")
    protocol, separator, rest = protocol_of(folder), *folder.partition("://")[1:]
    if not separator or protocol in ("file", "http"):
        return None
    return f"{protocol}://{rest}/"


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
