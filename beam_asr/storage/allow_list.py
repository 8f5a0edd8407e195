"""Checks locations in manifests against the setting `allowed_audio_prefixes`.

An untrusted manifest is a list of locations that the worker opens with its rights. With an allow
list it reaches neither ``/etc`` nor a cloud's metadata endpoint: a location that is not plainly
below one of the prefixes is refused, and so is one that cannot be compared with certainty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import aiohttp
import yarl

from beam_asr.errors import NotAllowedError, SetupError, for_message
from beam_asr.storage import protocols, uris

SETTING = "`allowed_audio_prefixes`"
MAX_SHOWN = 200  # characters of a location in a message

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_SCHEME_ONLY = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:(?!//)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MEMBERS = protocols.names_of_rule("member")
_CACHES = protocols.names_of_rule("cache")
# A path in a cache's link would replace the path that it wraps.
_LAYER = re.compile(rf"(?:{'|'.join(_MEMBERS)})://.*|(?:{'|'.join(_CACHES)})(?:://)?", re.DOTALL)


class RequestNotAllowedError(NotAllowedError, aiohttp.ClientError):
    """An HTTP request, mostly a redirect, goes to a place outside `allowed_audio_prefixes`.

    It is a ``ClientError`` too, since aiohttp hides any other ``OSError`` in a ``ClientOSError``.
    """


@dataclass(frozen=True)
class AllowList:
    """Checks locations against the folders, buckets and hosts that audio may be read from.

    A prefix allows itself and everything below it, by whole path segments: ``gs://b/audio`` allows
    ``gs://b/audio/x.wav`` and not ``gs://b/audio-private/x.wav``. The aliases gs and gcs, s3 and
    s3a, and az, abfs and abfss are one scheme each; http and https are two. An Azure prefix and a
    location must give container and account in the same form. No prefix allows nothing.

    This does not protect from:

    * a name that is allowed and leads elsewhere: a host whose DNS answer changes or is a private
      address, an HTTP proxy, a hard link or a mount below an allowed folder;
    * what a server does with an allowed request, such as fetching a URL named in its query;
    * anyone with write access below an allowed local folder while the job runs. The path to open
      has no links, but a folder of it can be replaced by a link between the check and the opening;
    * redirects, unless the requests go through `http_middleware`.

    Attributes:
        prefixes: absolute local paths without links, and URIs.

    Raises:
        SetupError: a prefix is invalid, or cannot be compared with certainty.
    """

    prefixes: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", tuple(_checked(prefix) for prefix in self.prefixes))

    @classmethod
    def of(cls, prefixes: Iterable[str]) -> AllowList:
        """Creates the allow list of paths and URIs.

        Raises:
            SetupError: a prefix is invalid; the message names it.
        """
        if isinstance(prefixes, str):  # each of its characters would be a folder
            raise SetupError(f"{SETTING} is the string {prefixes!r}; give a list of prefixes")
        return cls(tuple(prefixes))

    def __reduce__(self) -> tuple[type[AllowList], tuple[tuple[str, ...]]]:
        # Resolved again on the worker, where a folder may be a link that is none here.
        return AllowList, (self.prefixes,)

    def check(self, uri: str) -> str:
        """Returns the location to open for a path or URI, if it is allowed.

        Open this and not ``uri``: for a local path it is the one that was checked, absolute and
        with all links resolved. In a chain of fsspec (``zip://a.wav::gs://b/x.zip``) the last
        link must be allowed; the others may be zip, tar, simplecache, filecache and
        blockcache.

        Raises:
            NotAllowedError: it is not allowed; the message does not depend on whether it exists.
        """
        *layers, location = uris.split_chain(uri)
        try:
            for layer in layers:
                if not _LAYER.fullmatch(layer):
                    allowed = [*(f"{name}://name" for name in _MEMBERS), *_CACHES]
                    raise ValueError(
                        f"chains through another link than {', '.join(allowed[:-1])} and "
                        f"{allowed[-1]}"
                    )
            place, location = _resolve(location)
        except ValueError as error:
            raise NotAllowedError(
                f"{for_message(uri, MAX_SHOWN)}: {error}, which {SETTING} refuses. Write a plain "
                "location."
            ) from None
        if not self._contains(place):
            raise NotAllowedError(
                f"{for_message(uri, MAX_SHOWN)}: lies under none of {SETTING}. Correct the row, or "
                "add its folder there if it may be read."
            )
        return "::".join([*layers, location])

    def check_request(self, url: yarl.URL) -> None:
        """Checks that an HTTP request is allowed.

        Raises:
            RequestNotAllowedError: it is not.
        """
        try:
            allowed = self._contains(_http_place(url))
        except ValueError:
            allowed = False
        if not allowed:
            # A redirect's query may hold a signature, which must not appear in a record.
            shown = for_message(str(url.with_query(None)), MAX_SHOWN)
            raise RequestNotAllowedError(
                f"{shown}: a request was led here, which lies under none of {SETTING}. Correct the "
                "row, or add the address there if it may be read."
            )

    def http_middleware(self) -> HttpMiddleware:
        """Returns a middleware for aiohttp's ``ClientSession``, which checks each request.

        See https://docs.aiohttp.org/en/stable/client_advanced.html#client-middleware.
        """
        return HttpMiddleware(self)

    @cached_property
    def _places(self) -> tuple[_Place, ...]:
        return tuple(_resolve(prefix)[0] for prefix in self.prefixes)

    def _contains(self, place: _Place) -> bool:
        return any(prefix.contains(place) for prefix in self._places)


@dataclass(frozen=True)
class HttpMiddleware:
    """Passes only allowed requests, and redirects, as an aiohttp client middleware.

    Its ``repr`` shows its setting: fsspec shares a file system between equal ``repr``s.
    """

    allowed: AllowList

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self.allowed.check_request(request.url)
        return await handler(request)


class _Place(NamedTuple):
    """A location in a canonical form, in which two of them can be compared."""

    scheme: str
    authority: str
    segments: tuple[str, ...]

    def contains(self, other: _Place) -> bool:
        """Returns whether the other is this or lies below it."""
        return self[:2] == other[:2] and self.segments == other.segments[: len(self.segments)]


def _checked(prefix: str) -> str:
    """Returns a prefix, absolute and without links if it is local.

    Raises:
        SetupError: it is invalid.
    """
    try:
        if not prefix.strip():
            raise ValueError("is empty")
        if uris.is_chain(prefix):
            raise ValueError("is a chain; give the location that it ends in")
        if "*" in prefix:
            raise ValueError("has a '*'; a prefix allows all below it and knows no wildcards")
        if ".." in prefix.split("/"):
            raise ValueError("has a '..' segment")
        if _SCHEME_ONLY.match(prefix):
            raise ValueError("lacks the '//' after its scheme")
        scheme, rest = _split(prefix)
        if _rule_of(scheme) == "local":
            if _SCHEME.match(prefix) and not rest.startswith(("/", "~")):
                raise ValueError("is a relative path with a scheme")
        elif "?" in rest or "#" in rest:
            raise ValueError("has a query or a fragment")
        return _resolve(prefix)[1].rstrip("/") or "/"
    except ValueError as error:
        raise SetupError(
            f"{SETTING}: {prefix!r} {error}. Give a folder such as gs://bucket/audio, "
            "https://host/audio or /data/audio."
        ) from None


def _split(location: str) -> tuple[str, str]:
    """Returns the scheme, "file" for a path, and the rest."""
    if match := _SCHEME.match(location):
        return match[1].lower(), location[match.end() :]
    if "://" in location:
        raise ValueError("is neither a path nor a URI")
    return "file", location


def _resolve(location: str) -> tuple[_Place, str]:
    """Returns the place of a location, and the location in the form to open.

    Raises:
        ValueError: the place cannot be determined with certainty.
    """
    scheme, rest = _split(location)
    if _rule_of(scheme) == "local":
        path = _real_path(uris.local_path(location))
        return _Place("file", "", _segments(path[1:])), path
    location = f"{scheme}://{rest}"
    if _CONTROL.search(location):
        raise ValueError("has a control character")
    if _rule_of(scheme) == "url":
        _refuse_detours(re.split("[?#]", rest)[0])
        try:
            return _http_place(yarl.URL(location)), location
        except ValueError as error:
            raise ValueError(f"is not a valid URL ({error})") from None
    _refuse_detours(rest)
    return _store_place(scheme, rest), location


def _rule_of(scheme: str) -> protocols.PathRule:
    return protocols.find_protocol(scheme).path_rule


def _real_path(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # a NUL, a lone surrogate, no working folder
        raise ValueError("is not a path") from None


def _http_place(url: yarl.URL) -> _Place:
    """Returns the place that a request for a URL reaches, by the HTTP client's parser."""
    _refuse_detours(url.raw_path)
    url = yarl.URL(str(url))  # as it is requested, it may encode what others do not
    _refuse_detours(url.raw_path)
    host = (url.raw_host or "").removesuffix(".")
    if not host:
        raise ValueError("it names no host")
    if "@" in url.authority:
        raise ValueError("it holds a user name or password")
    return _Place(url.scheme, f"{host}:{url.port}", _segments(url.raw_path[1:]))


def _store_place(scheme: str, rest: str) -> _Place:
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise ValueError("names no bucket or host")
    protocol = protocols.find_protocol(scheme)
    if "@" in bucket and (not protocol.account_in_bucket or ":" in bucket):
        raise ValueError("holds a user name or password")
    if protocol.path_rule != "key" and not set("@?#%\\").isdisjoint(rest):
        raise ValueError("has one of the characters @ ? # % \\ that storages read differently")
    # A client may read 'run:1/x#5' as a URL: version 5 of the key '1/x'.
    if ("?" in key or "#" in key) and not key.startswith(urlsplit(key).path):
        raise ValueError("has a '?' or '#' after a key that reads as a URL")
    return _Place(protocol.name, bucket, _segments(key))


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")) if path else ()


def _refuse_detours(path: str) -> None:
    """Raises if a server may see a ``.`` or ``..`` segment in a path, or an earlier end.

    Some servers decode a path twice, take ``\\`` for ``/``, or drop the part of a segment after
    ``;``.
    """
    for _ in range(3):
        if _CONTROL.search(path):
            raise ValueError("has a control character")
        if any(name.partition(";")[0] in (".", "..") for name in re.split(r"[/\\]", path)):
            raise ValueError("has a '.' or '..' segment")
        decoded = unquote(path)
        if decoded == path:
            return
        path = decoded
    raise ValueError("is percent-encoded several times over")
