"""Makes HTTP requests for URLs as they are written, as a signature demands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import yarl

# All that RFC 3986 does not allow in a path or query, and percent signs that encode nothing.
_ILLEGAL = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]")


def as_written(url: yarl.URL) -> yarl.URL:
    """Returns a URL whose path and query are requested as they are written.

    The client's library decodes what need not be encoded (``%40``, ``%27``, ``%3A``) before it
    sends a request; a server that checks a signature over the characters then refuses it. Only
    what no request may hold is encoded here: spaces, and letters beyond ASCII.

    Args:
        url: created with ``encoded=True``.
    """
    target = url.raw_path_qs
    legal = _legal(target)
    if legal == target and str(url).isascii():
        return url
    path, _, query = legal.partition("?")
    origin = yarl.URL(str(url.with_path("/").with_query(None)))  # encodes the host's name
    return yarl.URL.build(
        scheme=origin.scheme,
        authority=origin.raw_authority,
        path=path,
        query_string=query,
        encoded=True,
    )


class WrittenRequest(aiohttp.ClientRequest):
    """Requests a URL, or the address of a redirect, as it is written."""

    def __init__(self, method: str, url: yarl.URL, **arguments: Any):
        super().__init__(method, as_written(url), **arguments)


def with_written_urls(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of fsspec's HTTP file system, with requests as URLs are written."""
    client = {
        "request_class": WrittenRequest,
        "requote_redirect_url": False,
        **options.get("client_kwargs", {}),
    }
    return {"encoded": True, **options, "client_kwargs": client}


def _legal(target: str) -> str:
    written = target.encode("utf-8", "surrogateescape")  # a header's bytes need not be UTF-8
    return _ILLEGAL.sub(lambda found: b"%%%02X" % found[0][0], written).decode("ascii")
