"""Requests ranges of objects from stores, with the size and the version that their answers state.

fsspec returns only the bytes. Of the file systems it has for ``gs``, ``s3`` and ``az`` the same
request is made here, and its answer's headers are kept. Another one, or one that is derived from
these, is requested as fsspec does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")  # RFC 9110, section 14.4


class Part(NamedTuple):
    """A range of an object.

    Attributes:
        data: its bytes, fewer than requested at the end, or if the store sends fewer.
        total: bytes of the whole object; None if the answer does not state it.
        version: a text that differs for other content; empty if the answer does not state one.
    """

    data: bytes
    total: int | None = None
    version: str = ""


Request = Callable[[Any, str, int, int], Coroutine[Any, Any, Part]]


def request_of(fs: Any) -> Request:
    """Returns the request of a range for a file system: of its path, from a start to an end."""
    return _REQUESTS.get(type(fs).__module__, _of_any)


def total_of(content_range: str, start: int) -> int | None:
    """Returns the size of an object that a ``Content-Range`` states; None if it states none.

    Raises:
        OSError: the range is another one than requested.
    """
    stated = CONTENT_RANGE.fullmatch(content_range)
    if not stated or stated[1] != str(start):
        raise OSError(f"the server sent another range than from byte {start} on: {content_range!r}")
    return None if stated[2] == "*" else int(stated[2])


async def _of_any(fs: Any, path: str, start: int, end: int) -> Part:
    return Part(await fs._cat_file(path, start=start, end=end))


async def _of_gcs(fs: Any, path: str, start: int, end: int) -> Part:
    headers, data = await fs._call("GET", fs.url(path), headers=_range(start, end))
    total = _total(headers.get("Content-Range"), start, data)
    return Part(data, total, headers.get("x-goog-generation") or headers.get("ETag", ""))


async def _of_s3(fs: Any, path: str, start: int, end: int) -> Part:
    bucket, key, version = fs.split_path(path)
    of_version = {"VersionId": version} if version else {}
    answer = await fs._call_s3(
        "get_object", Bucket=bucket, Key=key, **of_version, **_range(start, end), **fs.req_kw
    )
    try:
        data = await answer["Body"].read()
    finally:
        answer["Body"].close()
    total = _total(answer.get("ContentRange"), start, data)
    return Part(data, total, answer.get("ETag", ""))


async def _of_azure(fs: Any, path: str, start: int, end: int) -> Part:
    from azure.core.exceptions import ResourceNotFoundError

    container, blob, version = fs.split_path(path)
    async with fs.service_client.get_blob_client(container=container, blob=blob) as client:
        try:
            stream = await client.download_blob(
                offset=start, length=end - start, version_id=version, **fs._timeout_kwargs
            )
        except ResourceNotFoundError as error:
            raise FileNotFoundError(path) from error
        data = await stream.readall()
    properties = stream.properties
    return Part(data, total_of(properties.content_range, start), properties.etag or "")


def _range(start: int, end: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-{end - 1}"}


def _total(content_range: str | None, start: int, data: bytes) -> int | None:
    """Returns as ``total_of``; an answer without a range is the whole object."""
    if content_range is None and start == 0:
        return len(data)
    return total_of(content_range or "", start)


# By the module of the class itself: one that is derived from it may read in another way, as
# gcsfs does from zonal buckets.
_REQUESTS: dict[str, Request] = {
    "gcsfs.core": _of_gcs,
    "s3fs.core": _of_s3,
    "adlfs.spec": _of_azure,
}
