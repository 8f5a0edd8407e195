"""Describes what each storage protocol can do and how its errors look, in one table."""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from beam_asr.errors import StorageError

PathRule = Literal["local", "url", "key", "member", "cache", "plain"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StorageProtocol:
    """Describes one of fsspec's protocols; the defaults are for those not in the table.

    Attributes:
        name: in URIs, without ``://``.
        aliases: other names of the same storage; options for one of them are options for all.
        extra: of this package, which installs the storage's package; None if fsspec has a hint.
        is_writable: whether an output may be on it.
        is_bucket_store: whether it holds objects in buckets, which exist before a job.
        folders_are_objects: of a bucket store, whether a folder may be a separate object.
        bulk_delete: maximum number of objects in one request of S3's ``DeleteObjects``.
        path_rule: how an allow list compares its paths: ``local`` ones without links, ``url`` as
            the HTTP client parses it, ``key`` with any character, ``plain`` without characters that
            storages read differently. A protocol that wraps another one in a chain is a ``member``,
            which is named, or a ``cache``, which is not.
        is_layer: whether it wraps another storage, in a chain.
        account_in_bucket: whether ``bucket@account`` is a bucket, and no user.
        transient_classes: names of its libraries' errors for connections that failed, broke or
            stalled; the libraries need not be installed.
        permanent_classes: names of their subclasses that are not transient.
        refusals: prefixes of messages that mean, without a status, that access is refused.
        noisy_log: a logger that also logs the errors that are raised.
    """

    name: str
    aliases: tuple[str, ...] = ()
    extra: str | None = None
    is_writable: bool = True
    is_bucket_store: bool = False
    folders_are_objects: bool = False
    bulk_delete: int = 1
    path_rule: PathRule = "plain"
    is_layer: bool = False
    account_in_bucket: bool = False
    transient_classes: tuple[str, ...] = ()
    permanent_classes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    noisy_log: str | None = None


AIOHTTP = ("ClientConnectionError", "ClientPayloadError")
REQUESTS = ("ChunkedEncodingError", "ProxyError", "Timeout")
PROTOCOLS = (
    StorageProtocol(name="file", aliases=("local",), path_rule="local"),
    StorageProtocol(
        name="gs",
        aliases=("gcs",),
        extra="gcp",
        is_bucket_store=True,
        path_rule="key",
        transient_classes=(*AIOHTTP, *REQUESTS, "TransportError"),  # google.auth's
        permanent_classes=("SSLError",),
        refusals=("Forbidden",),  # a bare OSError
        noisy_log="gcsfs",  # with a traceback
    ),
    StorageProtocol(
        name="s3",
        aliases=("s3a",),
        extra="s3",
        is_bucket_store=True,
        bulk_delete=1000,
        path_rule="key",
        transient_classes=("HTTPClientError", "IncompleteReadError"),  # botocore's
        permanent_classes=("SSLError",),
    ),
    StorageProtocol(
        name="az",
        aliases=("abfs", "abfss"),
        extra="azure",
        is_bucket_store=True,
        folders_are_objects=True,
        path_rule="key",
        account_in_bucket=True,
        transient_classes=("IncompleteReadError", "ServiceRequestError", "ServiceResponseError"),
    ),
    StorageProtocol(
        name="hf",
        extra="hf",
        transient_classes=(*REQUESTS, "TransportError"),  # httpx's
        permanent_classes=("SSLError",),
    ),
    StorageProtocol(
        name="http",
        aliases=("https",),
        is_writable=False,
        path_rule="url",
        transient_classes=AIOHTTP,
        permanent_classes=("ClientConnectorCertificateError", "InvalidURL"),
    ),
    StorageProtocol(name="zip", is_writable=False, path_rule="member", is_layer=True),
    StorageProtocol(name="tar", is_writable=False, path_rule="member", is_layer=True),
    StorageProtocol(name="simplecache", path_rule="cache", is_layer=True),
    StorageProtocol(name="filecache", path_rule="cache", is_layer=True),
    StorageProtocol(name="blockcache", path_rule="cache", is_layer=True),
    StorageProtocol(name="dir", is_layer=True),
    StorageProtocol(name="memory"),
    StorageProtocol(name="data", is_writable=False),
    StorageProtocol(name="git", is_writable=False),
    StorageProtocol(name="github", is_writable=False),
    StorageProtocol(name="libarchive", is_writable=False, is_layer=True),
    StorageProtocol(name="reference", is_writable=False, is_layer=True),
)
BY_NAME = {name: protocol for protocol in PROTOCOLS for name in (protocol.name, *protocol.aliases)}

# An error does not name the storage that raised it.
TRANSIENT_CLASSES = frozenset(name for protocol in PROTOCOLS for name in protocol.transient_classes)
PERMANENT_CLASSES = frozenset(name for protocol in PROTOCOLS for name in protocol.permanent_classes)
# Of aiohttp, botocore and Azure, for servers that take no connection.
UNREACHABLE_CLASSES = frozenset(
    ["ClientConnectorError", "EndpointConnectionError", "ServiceRequestError"]
)
REFUSALS = tuple(start for protocol in PROTOCOLS for start in protocol.refusals)


@functools.lru_cache(64)  # looked up for every file
def find_protocol(name: str) -> StorageProtocol:
    """Returns the row of a protocol by any of its names, or one of defaults."""
    return BY_NAME.get(name) or StorageProtocol(name=name)


def is_known(name: str) -> bool:
    """Returns whether the table has a protocol, by any of its names."""
    return name in BY_NAME


def names_of_rule(rule: PathRule) -> list[str]:
    """Returns the names of the protocols with a rule, in the table's order."""
    return [protocol.name for protocol in PROTOCOLS if protocol.path_rule == rule]


def check_installed(scheme: str, named: str) -> None:
    """Raises StorageError unless fsspec has the storage of a scheme."""
    from fsspec.registry import get_filesystem_class, known_implementations

    try:
        get_filesystem_class(scheme)
    except ValueError:
        raise StorageError(
            f"{named}: no storage is known by {scheme}://; correct it, or install the package that "
            "serves it to fsspec"
        ) from None
    except ImportError as error:
        extra = find_protocol(scheme.lower()).extra
        hint = known_implementations.get(scheme, {}).get("err", str(error))
        remedy = f"pip install 'beam-asr[{extra}]'" if extra else hint
        raise StorageError(
            f"{named}: {scheme}:// needs a package that is missing: {remedy}"
        ) from error
