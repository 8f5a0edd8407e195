"""Faults at random requests to a storage: an object store behind a proxy, or a folder on a disk."""

from __future__ import annotations

import builtins
import errno
import http.client
import io
import os
import random
import re
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from beam_asr.storage import local_files, storage

STATUSES = ("403", "429", "500", "503")
# Dropped: before the server has got the request, or after it has done it.
STORE_KINDS = (*STATUSES, "dropped", "dropped after", "500 after", "cut", "short")
DISK_KINDS = ("EIO", "ENOSPC", "ESTALE", "EIO after", "short")
DISK_REQUESTS, STORE_REQUESTS = 290, 110  # of a run of `storage_lives`, roughly
# What does not look as if it could pass, so that a row may fail of it.
LOOKS_PERMANENT = frozenset(["403", "EIO", "ENOSPC", "EIO after"])
LASTING = 10**9
CANNOT_BE_SHORT = frozenset(["stat", "list", "make", "rename", "delete", "open", "create", "sync"])
TAKE_SPACE = frozenset(["write", "make", "rename", "create", "sync"])


@dataclass
class Fault:
    """A fault at one request, or from it on.

    Attributes:
        at: the number of the request.
        times: how many requests it strikes.
        alike: whether it strikes only requests that do the same as the first one.
    """

    kind: str
    at: int
    times: int = 1
    alike: bool = False
    operation: str = ""
    struck: int = 0

    @property
    def may_fail_rows(self) -> bool:
        return self.times == LASTING or self.kind in LOOKS_PERMANENT

    @property
    def duration(self) -> str:
        return "lasting" if self.times == LASTING else "transient"

    def strikes(self, number: int, operation: str) -> bool:
        if number < self.at or self.struck >= self.times:
            return False
        if self.kind == "short" and operation in CANNOT_BE_SHORT:
            return False
        if self.struck and self.alike and operation != self.operation:
            return False
        self.struck += 1
        self.operation = self.operation or operation
        return True


@dataclass
class Faults:
    """The faults of a run, and how many requests it makes; used by many threads."""

    planned: list[Fault] = field(default_factory=list)
    requests: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def begin(self, planned: list[Fault]) -> None:
        with self.lock:
            self.planned, self.requests = planned, 0

    def end(self) -> list[Fault]:
        """Ends all faults; returns those that have struck."""
        with self.lock:
            struck = [fault for fault in self.planned if fault.struck]
            self.planned = []
            return struck

    def at(self, operation: str) -> str:
        """Counts a request; returns the kind of the fault that strikes it, or nothing."""
        with self.lock:
            self.requests += 1
            for fault in self.planned:
                if fault.strikes(self.requests, operation):
                    return fault.kind
        return ""


def random_faults(chance: random.Random, kinds: tuple[str, ...], requests: int) -> list[Fault]:
    """Plans one lasting fault, or up to four transient ones, at random requests.

    Of a request at most four attempts fail of transient ones: one fewer than are made.
    """

    def fault(times: int) -> Fault:
        kind, at = chance.choice(kinds), chance.randint(1, max(requests, 1))
        return Fault(kind, at, times, alike=chance.random() < 0.5)

    if chance.random() < 0.35:
        return [fault(LASTING)]
    if chance.random() < 0.25:
        return [fault(3), fault(1)]
    return [fault(1) for _ in range(chance.randint(1, 4))]


class _FaultyProxyHandler(BaseHTTPRequestHandler):
    """Passes requests on, unless a fault strikes them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    target: str
    faults: Faults

    def do_GET(self) -> None:
        body = self._body()
        kind = self.faults.at(self._operation())
        if kind in STATUSES:
            return self._answer(int(kind), {}, b"")
        if kind == "dropped":
            return self._drop()
        status, headers, content = self._passed_on(body)
        if kind == "dropped after":
            return self._drop()
        if kind == "500 after":
            return self._answer(500, {}, b"")
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if kind == "short" and span and len(content) > 1:
            content = content[: len(content) // 2]
            end = int(span[1]) + len(content) - 1
            headers["Content-Range"] = f"bytes {span[1]}-{end}/{span[2]}"
        elif kind in ("cut", "short"):
            return self._cut(status, headers, content)
        return self._answer(status, headers, content)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _operation(self) -> str:
        """Names what a request does, roughly."""
        is_listing = re.search(r"list-type|comp=list|/o\?|prefix=", self.path)
        return "LIST" if self.command == "GET" and is_listing else self.command

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("transfer-encoding", "expect", "connection")
        }
        if body:
            headers["Content-Length"] = str(len(body))
        connection = http.client.HTTPConnection(self.target, timeout=60)
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        got = {name.title(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, got, content

    def _drop(self) -> None:
        self.close_connection = True

    def _cut(self, status: int, headers: dict[str, str], content: bytes) -> None:
        """Sends half of an answer; of one without a body, half of its headers."""
        if self.command == "HEAD" or not content:
            self.wfile.write(f"HTTP/1.1 {status} ".encode())
        else:
            self._head(status, headers, len(content))
            self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        length = int(headers.get("Content-Length", 0)) if self.command == "HEAD" else len(content)
        self._head(status, headers, length)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: pytest would show it."""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""


@contextmanager
def proxied(target: str, faults: Faults) -> Iterator[str]:
    """Passes requests to ``host:port``, with faults; yields the proxy's own."""
    handler = type("Handler", (_FaultyProxyHandler,), {"target": target, "faults": faults})
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield "{}:{}".format(*server.server_address)
        finally:
            server.shutdown()


# The functions of `os` that a storage uses, with what they do.
CALLS = {
    "stat": "stat",
    "lstat": "stat",
    "scandir": "list",
    "listdir": "list",
    "makedirs": "make",
    "mkdir": "make",
    "replace": "rename",
    "rename": "rename",
    "link": "rename",
    "unlink": "delete",
    "remove": "delete",
    "rmdir": "delete",
    "fsync": "sync",
}


class Disk:
    """Has faults strike what is done to a folder."""

    def __init__(self, root: str, faults: Faults):
        self.root, self.faults = f"{root}/", faults
        self._open: Callable[..., Any] = builtins.open
        self._file: type[_FaultyFile] = type("_File", (_FaultyFile,), {"disk": self})

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name, operation in CALLS.items():
            patch.setattr(os, name, self._faulty(getattr(os, name), operation))
        for module in (builtins, io):
            patch.setattr(module, "open", self.open)
        local_file = type("LocalFile", (local_files.LocalFile, self._file), {})
        patch.setattr(storage, "LocalFile", local_file)

    def holds(self, path: Any, folder: int | None = None) -> bool:
        """Tells whether a path, or an open file, is in the folder."""
        if isinstance(path, int) or folder is not None:
            try:
                beneath = os.readlink(f"/proc/self/fd/{path if folder is None else folder}")
            except OSError:
                return False
            path = beneath if folder is None else os.path.join(beneath, os.fspath(path))
        if not isinstance(path, (str, os.PathLike)):
            return False
        return os.path.abspath(os.fspath(path)).startswith(self.root)

    def strike(self, operation: str, path: Any) -> str:
        """Counts a request; raises an error if a fault strikes that does so at once."""
        kind = self.faults.at(operation)
        if kind == "ENOSPC" and operation not in TAKE_SPACE:
            kind = "EIO"
        if kind in ("EIO", "ENOSPC", "ESTALE"):
            raise error_of(kind, path)
        return kind

    def open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not self.holds(file) or isinstance(file, int):
            return self._open(file, mode, *args, **kwargs)
        raw = self._file(file, mode.replace("b", "").replace("t", ""))
        buffered = io.BufferedRandom if "+" in mode else io.BufferedReader
        content = io.BufferedWriter(raw) if mode[0] in "wxa" else buffered(raw)
        return content if "b" in mode else io.TextIOWrapper(content, encoding="utf-8")

    def _faulty(self, function: Callable[..., Any], operation: str) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if not self.holds(path, kwargs.get("dir_fd")):
                return function(path, *args, **kwargs)
            kind = self.strike(operation, path)
            result = function(path, *args, **kwargs)
            if kind == "EIO after":
                if hasattr(result, "close"):
                    result.close()
                raise error_of("EIO", path)
            return result

        return call


def error_of(kind: str, path: Any) -> OSError:
    number = getattr(errno, kind)
    return OSError(number, os.strerror(number), str(path))


class _FaultyFile(io.FileIO):
    """A file that may fail, or of which reads and writes come short, if it is on the disk."""

    disk: Disk

    def __init__(self, path: Any, mode: str):
        kind = self._strike("open" if mode.startswith("r") else "create", path)
        super().__init__(path, mode)
        if kind == "EIO after":
            self.close()
            raise error_of("EIO", path)

    def _strike(self, operation: str, path: Any) -> str:
        return self.disk.strike(operation, path) if self.disk.holds(path) else ""

    def readinto(self, buffer: Any) -> int:
        kind = self._strike("read", self.name)
        view = memoryview(buffer).cast("B")
        if kind == "short":
            view = view[: max(1, len(view) // 2)]
        count = super().readinto(view)
        if kind == "EIO after":
            raise error_of("EIO", self.name)
        return count

    def read(self, size: int | None = -1) -> bytes:
        return io.RawIOBase.read(self, size)

    def readall(self) -> bytes:
        return io.RawIOBase.readall(self)

    def write(self, content: Any) -> int:
        kind = self._strike("write", self.name)
        view = memoryview(content).cast("B")
        if kind in ("short", "EIO after"):
            view = view[: max(1, len(view) // 2)]
        count = super().write(view)
        if kind == "EIO after":
            raise error_of("EIO", self.name)
        return count


def counted(faults: list[Fault], storage: str) -> Counter[tuple[str, str, str]]:
    """Counts faults by storage, kind and duration."""
    return Counter((storage, fault.kind, fault.duration) for fault in faults)
