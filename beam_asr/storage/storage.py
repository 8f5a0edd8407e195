"""Lists, reads, writes and deletes files on any storage that fsspec supports."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import posixpath
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from beam_asr.errors import StorageError, StorageOptionsError, StorageReadError, WriteError
from beam_asr.storage import listing, uris, versions
from beam_asr.storage.deletion import delete_empty_folders, delete_objects
from beam_asr.storage.listing import Entry
from beam_asr.storage.local_files import (
    PARTIAL_FILE,
    LocalFile,
    create_local,
    delete_local_folder,
    delete_unless_locked,
    is_local_folder,
    local_exists,
    write_local,
)
from beam_asr.storage.protocols import check_installed, find_protocol
from beam_asr.storage.retry import (
    is_refusal,
    is_transient_locally,
    named_errors,
    refused_query,
    retry,
    status_of,
)
from beam_asr.storage.uris import (
    is_chain,
    is_local,
    join,
    local_path,
    protocol_of,
    schemes_of,
    split_chain,
)

if TYPE_CHECKING:
    from beam_asr.storage.allow_list import AllowList


Result = TypeVar("Result")
LISTING_THREADS = 32
DELETED_NAME = ".beam-asr-may-delete"  # no file is ever called so
ALREADY_EXISTS = frozenset([409, 412])
SIGNED_SECONDS = 7 * 24 * 3600  # the most that Google's and Amazon's stores allow


@dataclasses.dataclass(frozen=True)
class Storage:
    """Accesses files on all storages, with options for each.

    Attributes:
        options: for each protocol (``gs``, ``s3``, ``az``, ``http``, ...) the arguments of its
            fsspec file system: credentials, endpoint, ...; without any it uses defaults
            (application default credentials, the environment).
        allowed: the locations that may be read; None allows all.
    """

    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict, hash=False, repr=False
    )
    allowed: AllowList | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.options, Mapping):
            raise StorageOptionsError(
                "the storage options are not an object of one object for each protocol, as in "
                '{"s3": {"endpoint_url": "..."}}'
            )
        for protocol, options in self.options.items():
            check_installed(protocol, f"the storage options' {protocol!r}")
            if not isinstance(options, Mapping):
                raise StorageOptionsError(  # without their value: it may be a secret
                    f"the storage options of {protocol!r} are not an object but a "
                    f"{type(options).__name__}: give them as in "
                    '{"s3": {"endpoint_url": "..."}}'
                )

    def check(self, uri: str) -> None:
        """Checks that the storage of a URI is known and its package is installed.

        Raises:
            StorageError: with the command that installs it.
        """
        for scheme in schemes_of(uri):
            check_installed(scheme, repr(uri))

    def check_writable(self, folder: str) -> None:
        """Checks, without writing, that a folder's storage can be written, as far as that shows.

        Raises:
            StorageError: it cannot.
        """
        self.check(folder)
        protocol = find_protocol(protocol_of(folder))
        if is_chain(folder) or not protocol.is_writable:
            raise StorageError(f"the output folder {folder!r} is on a storage that is only read")
        if self._is_file(folder):
            raise StorageError(f"the output folder {folder!r} is a file: name a folder")
        if not protocol.is_bucket_store:
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
        except Exception:  # an account that may write into a bucket need not be allowed to see it
            pass
        self._check_may_delete(join(folder, DELETED_NAME))

    def _is_file(self, uri: str) -> bool:
        fs, path = self._file_system(uri)
        fs.invalidate_cache()
        try:
            return bool(retry(lambda: fs.isfile(path)) and not retry(lambda: fs.isdir(path)))
        except Exception:  # the listing that follows says what is wrong
            return False

    def _check_may_delete(self, uri: str) -> None:
        """Deletes what is not there, which a store refuses to those who may not delete.

        Raises:
            WriteError: it does.
        """
        try:
            self.delete(uri)
        except WriteError as error:
            if is_refusal(error.__cause__ or error):
                raise

    def find(self, pattern: str) -> list[str]:
        """Finds the files of a path, a glob (``**`` included) or a folder, with all below it.

        Returns:
            Paths or URIs of the same kind as ``pattern``, sorted; empty if no file matches.
        """
        return sorted(entry.name for entry in self.list_entries(pattern) if not entry.problem)

    def list_entries(self, pattern: str) -> Iterator[Entry]:
        """Yields as ``find``, in no order, and also what is no file to be read, as a broken link.

        On a disk links are followed, without loops.
        """
        if self.is_glob(pattern):
            yield from self._glob(pattern)
        elif self.is_folder(pattern):
            yield from self._find(pattern)
        elif self.exists(pattern):
            yield Entry(pattern)

    def walk(self, folder: str) -> Iterator[Entry]:
        """Yields as ``list_entries``, in no order, and lists no more than is consumed."""
        fs, path = self._file_system(folder)
        if is_local(folder):
            with named_errors("list", folder, OSError):
                yield from listing.walk_local(path)
            return
        for root, _, files in fs.walk(path):
            yield from (Entry(f"{root.rstrip('/')}/{name}") for name in files)

    def is_glob(self, pattern: str) -> bool:
        """Returns whether a path or URI is a glob: it looks like one, and no file is called so."""
        if not uris.is_glob(pattern) or is_local(pattern):
            return uris.is_glob(pattern)
        try:
            return not self.exists(pattern)
        except Exception:  # then the listing says why
            return True

    def _glob(self, pattern: str) -> Iterator[Entry]:
        fs, path = self._file_system(pattern)
        if is_local(pattern):
            with named_errors("list", pattern, OSError):
                yield from listing.glob_local(path)
            return
        with named_errors("list", pattern):
            found = retry(lambda: fs.glob(path, detail=True))
        for name, info in found.items():
            problem = listing.problem_of(fs, info)
            if problem != listing.FOLDER or "**" not in pattern:
                version = versions.content_version(info)
                yield Entry(_full_uri(fs, name, pattern), problem, version)

    def _find(self, folder: str) -> Iterator[Entry]:
        fs, path = self._file_system(folder)
        if is_local(folder):
            with named_errors("list", folder, OSError):
                yield from listing.walk_local(path)
            return
        with named_errors("list", folder):
            found = retry(lambda: fs.find(path, detail=True))
        for name, info in found.items():
            problem = listing.problem_of(fs, info)
            if problem != listing.FOLDER:
                version = versions.content_version(info)
                yield Entry(_full_uri(fs, name, folder), problem, version)

    def exists(self, uri: str) -> bool:
        """Returns whether a file or folder exists.

        Raises:
            StorageError: the storage does not say.
        """
        fs, path = self._file_system(uri)
        if protocol_of(uri) != "http":
            with named_errors("look up", uri):
                return local_exists(path) if is_local(uri) else bool(retry(lambda: fs.exists(path)))
        try:  # fsspec's exists() takes a busy server, and a refusal, for a missing file
            self._info(uri)
        except FileNotFoundError as error:
            if error.__cause__ is None or status_of(error) in (404, 410):
                return False
            if refusal := refused_query(uri, error):
                raise StorageError(refusal) from None
            raise StorageError(f"cannot tell whether {uri} is there: {error.__cause__}") from error
        return True

    def exist_many(self, uris: list[str]) -> list[bool]:
        """Returns ``exists`` of each URI, many at a time."""
        with ThreadPoolExecutor(LISTING_THREADS) as pool:
            return list(pool.map(self.exists, uris))

    def is_folder(self, uri: str) -> bool:
        """Returns whether a URI is a folder."""
        fs, path = self._file_system(uri)
        if self.is_glob(uri) or self._is_http_file(uri):
            return False
        with named_errors("look up", uri):
            return is_local_folder(path) if is_local(uri) else bool(retry(lambda: fs.isdir(path)))

    def size(self, uri: str) -> int | None:
        """Returns the size of a file in bytes; None if the storage does not state it."""
        size = self._info(uri).get("size")
        return None if size is None else int(size)

    def open(
        self, uri: str, deadline: float | None = None, first_block: int | None = None
    ) -> BinaryIO:
        """Opens a file for random access; requests to a store are retried.

        Args:
            deadline: time of ``time.monotonic()`` after which reading fails.
            first_block: bytes to fetch at once with the first request.

        Raises:
            NotAllowedError: ``allowed`` does not allow it.
            StorageError: the storage is unknown, or its package is missing.
            Exception: of the storage.
        """
        from beam_asr.storage import remote_file  # not needed to parse a command line

        if self.allowed is not None:
            uri = self.allowed.check(uri)
        if is_local(uri):
            return io.BufferedReader(LocalFile(local_path(uri)), 2**16)
        fs, path = self._file_system(uri)
        ranges: remote_file.Ranges
        if is_chain(uri) or not fs.async_impl:
            ranges = remote_file.FileRanges(lambda: fs.open(path, "rb"), uri)
        elif protocol_of(uri) == "http":
            ranges = remote_file.HttpRanges(fs, path)
        else:
            ranges = remote_file.ObjectRanges(fs, path)
        raw = remote_file.RemoteFile(ranges, first_block or remote_file.FIRST_BLOCK_BYTES, deadline)
        return cast(BinaryIO, io.BufferedReader(raw, 2**16))

    def read(self, uri: str) -> bytes:
        """Reads the whole of a small file as it is now, past any cache.

        Raises:
            FileNotFoundError: it does not exist.
            NotAllowedError, StorageError, Exception: as ``open``.
        """
        if self.allowed is not None:
            uri = self.allowed.check(uri)
        with named_errors("read", uri):
            if is_local(uri):
                with LocalFile(local_path(uri)) as file:
                    return file.readall()
            fs, path = self._file_system(uri)
            if is_chain(uri) or not fs.async_impl:
                return bytes(retry(lambda: fs.cat_file(path)))
            return bytes(_request(fs, lambda: fs._cat_file(path)))

    def write(self, uri: str, lines: Iterable[bytes]) -> None:
        """Writes a file that appears whole or not at all, over one of the same name.

        On a disk, it survives a power failure. Transient errors of a disk are retried unless
        ``lines`` is an iterator, which can be iterated only once.

        Raises:
            WriteError: names the file, and says why it cannot be written.
            Exception: of the lines.
        """
        if is_local(uri):
            with named_errors("write", uri, OSError):
                write_local(local_path(uri), lines, self.before_change)
            return
        fs, path = self._file_system(uri)
        # A store's file object uploads what it has when its writer fails; so the file is put whole.
        with tempfile.NamedTemporaryFile() as part:
            with named_errors("write", f"the temporary file {part.name} of {uri}", OSError):
                part.writelines(lines)
                part.flush()
            self.before_change()
            with named_errors("write", uri):
                _into_folder(fs, path, lambda: retry(lambda: fs.put_file(part.name, path)))

    def create_exclusive(self, uri: str, content: bytes) -> bool:
        """Writes a small file, whole or not at all, unless one of its name exists.

        If several create the same file at once, exactly one succeeds on a disk, ``gs``, ``s3`` and
        ``az``. Elsewhere, and on servers that speak S3's protocol but ignore ``If-None-Match``, the
        file is first looked up and then written, so that two may both succeed. On a disk whose file
        system has no hard links, a reader may see a part of the content.

        Returns:
            Whether it was written. After a request whose answer was lost it may be False for the
            file that this very call wrote; its content shows which.

        Raises:
            WriteError: as ``write``.
        """
        if is_local(uri):
            with named_errors("write", uri, OSError):
                return retry(
                    lambda: create_local(local_path(uri), content),
                    may_retry=is_transient_locally,
                )
        fs, path = self._file_system(uri)
        fs.invalidate_cache()
        if retry(lambda: fs.exists(path)):
            return False
        with named_errors("write", uri):
            try:
                _into_folder(fs, path, lambda: _create_object(fs, path, content))
            except FileExistsError:
                return False
            except Exception as error:
                if status_of(error) in ALREADY_EXISTS:
                    return False
                raise
        return True

    def list_names(self, folder: str) -> list[str]:
        """Lists the names in a folder; empty if there is no such folder."""
        fs, path = self._file_system(folder)
        fs.invalidate_cache()
        entries: list[str] = []
        with contextlib.suppress(FileNotFoundError), named_errors("list", folder):
            if is_local(folder):
                entries = retry(lambda: fs.ls(path, detail=False))
            else:
                infos = retry(lambda: fs.ls(path, detail=True))
                entries = [info["name"] for info in infos if not _is_mark_of(path, info)]
        return sorted({posixpath.basename(entry.rstrip("/")) for entry in entries})

    def modified(self, uri: str) -> datetime | None:
        """Returns the time of the last write, by the clock of the storage; None if unknown.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        fs, path = self._file_system(uri)
        fs.invalidate_cache()
        try:
            with named_errors("look up", uri):
                modified = retry(lambda: fs.modified(path))
        except StorageReadError as error:
            if isinstance(error.__cause__, NotImplementedError):
                return None
            raise
        return modified if modified.tzinfo else modified.replace(tzinfo=timezone.utc)

    def sign(self, uri: str, seconds: int = SIGNED_SECONDS) -> str:
        """Returns a URL by which anybody may read a file for a while; empty where there is none.

        Storages sign without a request, and only with credentials that can: on ``gs`` those of a
        service account.
        """
        if is_chain(uri):
            return ""
        try:
            fs, path = self._file_system(uri)
            return str(fs.sign(path, expiration=seconds))
        except Exception:  # each storage has its own for credentials that cannot sign
            return ""

    def delete(self, uri: str) -> None:
        """Deletes a file, if it exists.

        Raises:
            WriteError: names the file, and says why it cannot be deleted.
        """
        self.before_change()
        fs, path = self._file_system(uri)
        with contextlib.suppress(FileNotFoundError), named_errors("delete", uri):
            retry(lambda: fs.rm_file(path))

    def delete_folder(self, folder: str) -> None:
        """Deletes a folder with everything below it, if it exists.

        Raises:
            WriteError: names the folder, and says why it cannot be deleted.
        """
        self.before_change()
        with named_errors("delete", folder):
            self._delete_folder(folder)

    def _delete_folder(self, folder: str) -> None:
        if is_local(folder):
            retry(lambda: delete_local_folder(local_path(folder)), may_retry=is_transient_locally)
            return
        fs, path = self._file_system(folder)
        fs.invalidate_cache()
        if not retry(lambda: fs.isdir(path)):
            return
        entries = retry(lambda: fs.find(path, withdirs=True, detail=True))
        below = {name: info for name, info in entries.items() if name.startswith(f"{path}/")}
        folders = [name for name, info in below.items() if info["type"] == "directory"]
        files = [name for name, info in below.items() if info["type"] != "directory"]
        delete_objects(fs, files)
        delete_empty_folders(fs, [*folders, path])

    def before_change(self) -> None:
        """Is called before a file is put into its place, complete, or anything is deleted.

        A class that guards a storage raises an error here. ``create_exclusive`` is its own guard.
        """

    def delete_leftovers(self, folder: str) -> list[str]:
        """Deletes the partial files of dead writers in a folder on a disk.

        Files that are still being written stay. Stores have no partial files, and are not searched.

        Returns:
            The names of the deleted files, sorted.
        """
        if not is_local(folder):
            return []
        names = [name for name in self.list_names(folder) if PARTIAL_FILE.fullmatch(name)]
        return [name for name in names if delete_unless_locked(join(local_path(folder), name))]

    def fingerprint(self, uri: str) -> str:
        """Returns a text that changes with the file: its tag, time and size, if known."""
        return versions.fingerprint(self._info(uri))

    def content_version(self, uri: str) -> str:
        """Returns a text that changes with the content of a file.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        if is_local(uri):
            status = os.stat(self._file_system(uri)[1])
            return f"{status.st_mtime_ns}-{status.st_size}"
        return versions.content_version(self._info(uri))

    def _info(self, uri: str) -> dict[str, Any]:
        fs, path = self._file_system(uri)
        if is_chain(uri) or not fs.async_impl:
            return retry(lambda: fs.info(path))
        return cast(dict[str, Any], _request(fs, lambda: fs._info(path)))

    def _is_http_file(self, uri: str) -> bool:
        """Returns whether a URL is a file: over HTTP any page with links looks like a folder."""
        return protocol_of(uri) == "http" and not uri.partition("?")[0].endswith("/")

    def _file_system(self, uri: str) -> tuple[Any, str]:
        """Returns the fsspec file system of a path or URI, and the path on it."""
        from fsspec.core import url_to_fs

        self.check(uri)
        options = self._options_of(uri)
        *layers, link = split_chain(uri)
        if layers:
            if is_local(link):
                link = f"file://{local_path(link)}"
            return url_to_fs("::".join([*layers, link]), **options)
        if is_local(uri):
            uri = local_path(uri)
            if uri.startswith(("file:", "local:")):  # a relative path, and to fsspec none
                uri = os.path.abspath(uri)
        (scheme,) = options
        return _shared_file_system(scheme, options[scheme], uri)

    def _options_of(self, uri: str) -> dict[str, dict[str, Any]]:
        """Returns the options of each link of a chain, by the schemes in it."""
        by_scheme: dict[str, dict[str, Any]] = {}
        for scheme in schemes_of(uri):
            own = {
                key: value
                for protocol, options in self.options.items()
                if protocol_of(f"{protocol}://") == protocol_of(f"{scheme}://")
                for key, value in options.items()
            }
            if protocol_of(f"{scheme}://") == "http":
                own = self._http_options(own)
            by_scheme[scheme] = own
        return by_scheme

    def _http_options(self, own: dict[str, Any]) -> dict[str, Any]:
        from beam_asr.storage.http_requests import with_written_urls  # imports aiohttp

        options = with_written_urls(own)
        if self.allowed is not None:
            options["client_kwargs"]["middlewares"] = (self.allowed.http_middleware(),)
        return options


_file_systems: dict[Any, Any] = {}
_file_systems_lock = threading.Lock()


def _shared_file_system(scheme: str, options: dict[str, Any], uri: str) -> tuple[Any, str]:
    """Returns one file system for all threads, and so one pool of connections.

    fsspec creates one for each thread; an asynchronous one runs in fsspec's thread in any case, and
    can be shared.
    """
    import fsspec

    key = (os.getpid(), scheme, repr(sorted(options.items(), key=lambda item: item[0])))
    with _file_systems_lock:
        if key in _file_systems:
            fs = _file_systems[key]
            return fs, fs._strip_protocol(uri)
        if noisy_log := find_protocol(scheme).noisy_log:
            logging.getLogger(noisy_log).setLevel(logging.CRITICAL)
        # url_to_fs() would take any '::' for a chain.
        in_uri = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(uri)
        fs = fsspec.filesystem(scheme, **{**in_uri, **options})
        # Other parts of a URI than its path, as a user or an account, apply to this URI alone.
        if fs.async_impl and not in_uri:
            _file_systems[key] = fs
    return fs, fs._strip_protocol(uri)


def _full_uri(fs: Any, name: str, pattern: str) -> str:
    """Returns the URI of a file that a file system lists, in the chain of the pattern."""
    return "::".join([fs.unstrip_protocol(name), *split_chain(pattern)[1:]])


def _request(fs: Any, make: Callable[[], Any]) -> Any:
    from beam_asr.storage.remote_file import request  # not needed to parse a command line

    return request(fs, make)


def _into_folder(fs: Any, path: str, write: Callable[[], Result]) -> Result:
    try:
        return write()
    except FileNotFoundError:  # a server with folders
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        return write()


def _create_object(fs: Any, path: str, content: bytes) -> None:
    if fs.async_impl:
        _request(fs, lambda: fs._pipe_file(path, content, mode="create"))
    else:
        retry(lambda: fs.pipe_file(path, content, mode="create"))


def _is_mark_of(folder: str, info: Mapping[str, Any]) -> bool:
    """Returns whether an entry of a store's folder is the object that marks the folder itself."""
    name = info["name"]
    is_folder = info["type"] == "directory" or name.endswith("/")
    return is_folder and name.rstrip("/") == folder.rstrip("/")
