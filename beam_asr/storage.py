"""Files on any storage that fsspec knows: list, read, write whole, delete."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import posixpath
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from beam_asr.retrying import retry, status_of

if TYPE_CHECKING:
    from beam_asr.allowed import AllowedPrefixes

GLOB_CHARACTERS = frozenset("*?[")
# Names of one storage; options for one of them are options for all.
ALIASES = {
    "local": "file",
    "https": "http",
    "gcs": "gs",
    "s3a": "s3",
    "abfs": "az",
    "abfss": "az",
}
EXTRAS = {"s3": "s3", "az": "azure", "hf": "hf"}
READ_ONLY = frozenset(["http", "data", "github", "git", "reference", "zip", "tar", "libarchive"])
OF_BUCKETS = frozenset(["gs", "s3", "az"])
LISTING_THREADS = 32
FINGERPRINT_KEYS = (
    "ETag etag md5Hash LastModified Last-Modified last_modified updated mtime created size".split()
)


class StorageError(ValueError):
    """A place that no storage here can serve; says why and what to do."""


class StorageOptionsError(ValueError):
    """Storage options that cannot be."""


def is_local(uri: str) -> bool:
    return "::" not in uri and protocol_of(uri) == "file"


def protocol_of(uri: str) -> str:
    """The storage of a path or URI by its first name: ``file``, ``gs``, ``s3``, ``az``, ...

    That of a chain (``zip://a.wav::s3://b/c.zip``) is its first link's.
    """
    scheme, found, _ = uri.partition("::")[0].partition("://")
    if not found:
        scheme = uri.partition("::")[0] if "::" in uri else "file"
    return ALIASES.get(scheme.lower(), scheme.lower())


def local_path(uri: str) -> str:
    """The path of a local URI or path."""
    return os.path.expanduser(uri.partition("://")[2] if "://" in uri else uri)


def is_glob(pattern: str) -> bool:
    if protocol_of(pattern) == "http":  # where ? begins the query
        return not frozenset("*[").isdisjoint(pattern.partition("?")[0])
    if is_local(pattern) and os.path.exists(local_path(pattern)):
        return False
    return not GLOB_CHARACTERS.isdisjoint(pattern)


def join(folder: str, *names: str) -> str:
    return posixpath.join(folder, *names)


@dataclasses.dataclass(frozen=True)
class Storage:
    """All storages, each with its options.

    Attributes:
        options: for each protocol (``gs``, ``s3``, ``az``, ``http``, ...) what its fsspec file
            system is opened with: credentials, endpoint, ...; without any it finds its own way
            (application default credentials, the environment).
        allowed: what may be read; None is everything.
    """

    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict, hash=False)
    allowed: AllowedPrefixes | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping):
            raise StorageOptionsError(
                "the storage options are not an object of one object for each protocol, as in "
                '{"s3": {"endpoint_url": "..."}}'
            )
        for protocol, options in self.options.items():
            _implementation(f"{protocol}://", f"the storage options' {protocol!r}")
            if not isinstance(options, Mapping):
                raise StorageOptionsError(
                    f"the storage options of {protocol!r} are not an object: {options!r}"
                )

    def check(self, uri: str) -> None:
        """Checks that the storage of a place is known and its package is installed.

        Raises:
            StorageError: with the command that installs it.
        """
        for link in uri.split("::"):
            _implementation(link, repr(uri))

    def check_writable(self, folder: str) -> None:
        """Checks, without writing, that a folder's storage can be written.

        Raises:
            StorageError: it cannot.
        """
        self.check(folder)
        if "::" in folder or protocol_of(folder) in READ_ONLY:
            raise StorageError(f"the output folder {folder!r} is on a storage that is only read")
        if protocol_of(folder) not in OF_BUCKETS:
            return
        fs, path = self._file_system(folder)
        bucket = path.strip("/").partition("/")[0]
        try:
            retry(lambda: fs.info(bucket))
        except FileNotFoundError:
            raise StorageError(
                f"the output folder {folder!r} is in no bucket that exists: create {bucket!r} or "
                "correct its name"
            ) from None
        except Exception:
            return  # who may write into a bucket need not be allowed to see it

    def find(self, pattern: str) -> list[str]:
        """The files that a path, a glob (``**`` included) or a folder, for all below it, is.

        Returns:
            Paths or URIs of the same kind as ``pattern``, sorted; empty if there are none.
        """
        fs, path = self._file_system(pattern)
        if is_glob(pattern):
            found = retry(lambda: fs.glob(path, detail=True))
        elif self.is_folder(pattern):
            found = retry(lambda: fs.find(path, detail=True))
        else:
            return [pattern] if self.exists(pattern) else []
        names = [name for name, info in found.items() if info.get("type") == "file"]
        if is_local(pattern):
            return sorted(names)
        _, chained, rest = pattern.partition("::")
        return sorted(f"{fs.unstrip_protocol(name)}{chained}{rest}" for name in names)

    def find_first(self, folder: str, wanted: Any) -> str | None:
        """The name of some file below a folder for which ``wanted`` holds; lists no more than it
        must."""
        fs, path = self._file_system(folder)
        for _, _, files in fs.walk(path):
            for name in files:
                if wanted(name):
                    return str(name)
        return None

    def exists(self, uri: str) -> bool:
        fs, path = self._file_system(uri)
        if protocol_of(uri) != "http":
            return bool(retry(lambda: fs.exists(path)))
        try:  # its own exists() takes a busy server, and a refusal, for a file that is not there
            self._info(uri)
        except FileNotFoundError as error:
            if error.__cause__ is None or status_of(error) in (404, 410):
                return False
            raise StorageError(f"cannot tell whether {uri} is there: {error.__cause__}") from error
        return True

    def which_exist(self, uris: list[str]) -> list[bool]:
        """``exists`` of many at a time."""
        with ThreadPoolExecutor(LISTING_THREADS) as pool:
            return list(pool.map(self.exists, uris))

    def is_folder(self, uri: str) -> bool:
        fs, path = self._file_system(uri)
        return (
            not is_glob(uri) and not self._is_http_file(uri) and bool(retry(lambda: fs.isdir(path)))
        )

    def size(self, uri: str) -> int | None:
        """Bytes of a file; None where the storage does not say."""
        size = self._info(uri).get("size")
        return None if size is None else int(size)

    def open(
        self, uri: str, deadline: float | None = None, first_block: int | None = None
    ) -> BinaryIO:
        """Opens a file to be read from anywhere in it; requests to a store are tried again.

        Args:
            deadline: time of ``time.monotonic()`` after which reading fails.
            first_block: bytes to fetch at once with the first request.

        Raises:
            NotAllowedError: ``allowed`` does not allow it.
            StorageError: no storage is known for it, or its package is missing.
            Exception: of the storage.
        """
        from beam_asr import remote_file  # not needed to parse a command line

        if self.allowed is not None:
            uri = self.allowed.check(uri)
        if is_local(uri):
            return open(local_path(uri), "rb")
        fs, path = self._file_system(uri)
        ranges: remote_file.Ranges
        if "::" in uri or not fs.async_impl:
            ranges = remote_file.FileRanges(lambda: fs.open(path, "rb"))
        elif protocol_of(uri) == "http":
            ranges = remote_file.HttpRanges(fs, path)
        else:
            ranges = remote_file.ObjectRanges(fs, path)
        raw = remote_file.RemoteFile(ranges, first_block or remote_file.FIRST_BLOCK_BYTES, deadline)
        return cast(BinaryIO, io.BufferedReader(raw, 2**16))

    def write(self, uri: str, lines: Iterable[bytes]) -> None:
        """Writes a file that appears whole or not at all, over one of the same name."""
        if is_local(uri):
            _write_local(local_path(uri), lines)
            return
        fs, path = self._file_system(uri)
        # A store's file object puts what it has when its writer fails; so it gets it whole.
        with tempfile.NamedTemporaryFile() as part:
            part.writelines(lines)
            part.flush()
            try:
                retry(lambda: fs.put_file(part.name, path))
            except FileNotFoundError:  # a server with folders
                fs.makedirs(posixpath.dirname(path), exist_ok=True)
                retry(lambda: fs.put_file(part.name, path))

    def names_in(self, folder: str) -> list[str]:
        """The names of what lies in a folder; empty if there is no such folder."""
        fs, path = self._file_system(folder)
        fs.invalidate_cache()
        try:
            entries = retry(lambda: fs.ls(path, detail=False))
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(entry.rstrip("/")) for entry in entries)

    def delete(self, uri: str) -> None:
        """Deletes a file, if it is there."""
        fs, path = self._file_system(uri)
        with contextlib.suppress(FileNotFoundError):
            retry(lambda: fs.rm_file(path))

    def fingerprint(self, uri: str) -> str:
        """What changes when the file does: its tag, time and size, those that its storage has."""
        info = self._info(uri)
        return repr([info.get(key) for key in FINGERPRINT_KEYS])

    def _info(self, uri: str) -> dict[str, Any]:
        from beam_asr.remote_file import REQUEST_SECONDS, run

        fs, path = self._file_system(uri)
        if "::" in uri or not fs.async_impl:
            return retry(lambda: fs.info(path))
        return retry(lambda: run(fs, fs._info(path), REQUEST_SECONDS))

    def _is_http_file(self, uri: str) -> bool:
        """Whether a URL is a file: over HTTP any page with links looks like a folder."""
        return protocol_of(uri) == "http" and not uri.partition("?")[0].endswith("/")

    def _file_system(self, uri: str) -> tuple[Any, str]:
        """The fsspec file system of a path or URI, and the path there."""
        from fsspec.core import url_to_fs

        self.check(uri)
        options = self._options_of(uri)
        if "::" in uri:
            return url_to_fs(uri, **options)
        scheme = uri.partition("://")[0] if "://" in uri else "file"
        return _shared_file_system(scheme, options.get(scheme, {}), uri)

    def _options_of(self, uri: str) -> dict[str, dict[str, Any]]:
        """The options of each link of a chain, by the names that stand in it."""
        found: dict[str, dict[str, Any]] = {}
        for link in uri.split("::"):
            scheme = link.partition("://")[0] if "://" in link else link if "::" in uri else "file"
            found[scheme] = {
                key: value
                for protocol, options in self.options.items()
                if protocol_of(f"{protocol}://") == protocol_of(f"{scheme}://")
                for key, value in options.items()
            }
            if protocol_of(f"{scheme}://") == "http" and self.allowed is not None:
                client = dict(found[scheme].get("client_kwargs", {}))
                client["middlewares"] = (self.allowed.http_middleware(),)
                found[scheme]["client_kwargs"] = client
        return found


_file_systems: dict[Any, Any] = {}
_file_systems_lock = threading.Lock()


def _shared_file_system(scheme: str, options: dict[str, Any], uri: str) -> tuple[Any, str]:
    """One file system for all threads, and with it one pool of connections.

    fsspec keeps one for each thread; an asynchronous one runs in one thread of fsspec's in any
    case, and can be shared.
    """
    from fsspec.core import url_to_fs

    key = (os.getpid(), scheme, repr(sorted(options.items(), key=lambda item: item[0])))
    with _file_systems_lock:
        if key in _file_systems:
            fs = _file_systems[key]
            return fs, fs._strip_protocol(uri)
        if scheme in ("gs", "gcs"):  # it logs with a traceback what it raises
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        fs, path = url_to_fs(uri, **{scheme: options})
        # What a URI says beside its path, as a user or an account, is that of this URI alone.
        if fs.async_impl and not type(fs)._get_kwargs_from_urls(uri):
            _file_systems[key] = fs
    return fs, path


def _implementation(link: str, named: str) -> None:
    """Raises StorageError unless fsspec has the storage of one link of a URI."""
    from fsspec.registry import get_filesystem_class, known_implementations

    scheme = link.partition("://")[0] if "://" in link else "file"
    try:
        get_filesystem_class(scheme)
    except ValueError:
        raise StorageError(
            f"{named}: no storage is known by {scheme}://; correct it, or install the package that "
            "serves it to fsspec"
        ) from None
    except ImportError as error:
        extra = EXTRAS.get(protocol_of(f"{scheme}://"))
        hint = known_implementations.get(scheme, {}).get("err", str(error))
        remedy = f"pip install 'beam-asr[{extra}]'" if extra else hint
        raise StorageError(
            f"{named}: {scheme}:// needs a package that is missing: {remedy}"
        ) from error


def _write_local(path: str, lines: Iterable[bytes]) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    part = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with open(part, "wb") as file:
            file.writelines(lines)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)
