"""Parses paths and URIs: storage, links of a chain, extension and glob."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from beam_asr.storage import protocols

GLOB_CHARACTERS = frozenset("*?[")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_FILE_URI = re.compile("file:/", re.IGNORECASE)
# A query ends where the text around it goes on, maybe with a mark of its own. A comma may be in it.
_QUERY = re.compile(
    r"""(https?://[^\s?"<>]*\?)(?!\.\.\.)[^\s"<>]*?"""
    r"""(?=['`)\]},:;.]*(?:[\s"<>]|$))""",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)[^\s/?#@:\"<>]*:[^\s/?#@\"<>]*@")
_LOCAL_HOST = re.compile("//localhost/", re.IGNORECASE)


def split_chain(uri: str) -> list[str]:
    """Splits a chain of fsspec into its links; anything else is one link.

    ``zip://a.wav::s3://b/c.zip`` and ``simplecache::s3://b/a.wav`` are chains. ``/calls/a::b.wav``
    and ``s3://b/a::b.wav`` are not: their first part is of no protocol that wraps another one.
    """
    first, chained, rest = uri.partition("::")
    if not chained:
        return [uri]
    scheme, separator, _ = first.partition("://")
    if separator and not protocols.is_known(scheme.lower()):
        begins_chain = "://" in rest
    else:
        begins_chain = protocols.find_protocol(scheme.lower()).is_layer
    return uri.split("::") if begins_chain else [uri]


def is_chain(uri: str) -> bool:
    """Returns whether a URI is a chain of fsspec."""
    return len(split_chain(uri)) > 1


def extension(uri: str) -> str:
    """Returns the extension of a path or URI, in lower case, with its dot.

    That of a URL does not include its query; elsewhere ``?`` is a character as any other. That of a
    chain is of the file that it leads to.
    """
    *layers, link = split_chain(uri)
    # A cache has the name of what it wraps.
    link = next((layer for layer in layers if layer.partition("://")[2]), link)
    path = link.partition("://")[2] if _SCHEME.match(link) else link
    if protocol_of(link) == "http":
        path = re.split("[?#]", path, maxsplit=1)[0].partition("/")[2]
    return posixpath.splitext(path)[1].lower()


def is_local(uri: str) -> bool:
    """Returns whether a path or URI is a local file, not in a chain."""
    return protocol_of(uri) == "file" and not is_chain(uri)


def protocol_of(uri: str) -> str:
    """Returns the storage of a path or URI by its canonical name: ``file``, ``gs``, ``s3``, ...

    That of a chain (``zip://a.wav::s3://b/c.zip``) is its first link's.
    """
    return protocols.find_protocol(schemes_of(uri)[0].lower()).name


def schemes_of(uri: str) -> list[str]:
    """Returns the scheme of each link of a URI, as it is written; that of a path is ``file``.

    A link of a chain may be a scheme alone.
    """
    links = split_chain(uri)
    schemes = []
    for link in links:
        match = _SCHEME.match(link)
        is_scheme = len(links) > 1 and protocols.find_protocol(link).is_layer
        schemes.append(match[1] if match else link if is_scheme else "file")
    return schemes


def has_scheme(text: str) -> bool:
    """Returns whether a text is a URI or a chain, and no path."""
    return bool(_SCHEME.match(text) or _FILE_URI.match(text)) or is_chain(text)


def local_path(uri: str) -> str:
    """Returns the path of a local URI or path; that of a path is itself, whatever it holds.

    A ``file`` URI is percent-encoded (RFC 8089): ``file:///a%20b.wav``, ``file:/a%20b.wav`` and
    ``file://localhost/a%20b.wav`` are ``/a b.wav``. Many programs only put ``file://`` before a
    path; so what exists under the URI's own characters, and not under the decoded ones, is meant.
    """
    if not _FILE_URI.match(uri):
        return os.path.expanduser(uri.partition("://")[2] if _SCHEME.match(uri) else uri)
    rest = uri.partition(":")[2]
    path = rest[len("//localhost") :] if _LOCAL_HOST.match(rest) else rest.removeprefix("//")
    written = os.path.expanduser(path)
    decoded = os.fsdecode(unquote_to_bytes(os.fsencode(written)))
    if decoded != written and os.path.lexists(written) and not os.path.lexists(decoded):
        return written
    return decoded


def is_glob(pattern: str) -> bool:
    """Returns whether a path or URI may be a glob; a local file that exists is not.

    Only a storage knows whether a file of this very name is there: see `Storage.is_glob`.
    """
    if protocol_of(pattern) == "http":  # where ? begins the query
        return not frozenset("*[").isdisjoint(pattern.partition("?")[0])
    if is_local(pattern) and os.path.lexists(local_path(pattern)):
        return False
    return not GLOB_CHARACTERS.isdisjoint(pattern)


def without_query(uri: str) -> str:
    """Returns a URI for a message: without the query of a URL, which may hold a signature."""
    *layers, url = split_chain(uri)
    if protocol_of(url) != "http":
        return uri
    return "::".join([*layers, url.partition("?")[0]])


def query_hidden(uri: str) -> str:
    """Returns a URI with a digest in place of its query, which tells it from other ones."""
    bare = without_query(uri)
    if bare == uri:
        return uri
    return f"{bare}?{hashlib.sha256(uri.encode()).hexdigest()[:16]}"


def without_secrets(value: Any) -> Any:
    """Returns a text whose URLs have ``...`` as their query, which may be a signature.

    They have no password either. Of an object or a list, all texts in it are treated so.
    """
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1", _QUERY.sub(r"\1...", value)) if "://" in value else value
    if isinstance(value, Mapping):
        return {without_secrets(key): without_secrets(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(item) for item in value]
    return value


def join(folder: str, *names: str) -> str:
    """Joins a folder's path or URI with names."""
    return posixpath.join(folder, *names)
