"""A real HTTP server on loopback that fails, stalls and counts as a test tells it to."""

from __future__ import annotations

import gzip
import http.client
import math
import re
import socket
import socketserver
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

import pytest

BLOCK = 64 << 10


@dataclass(frozen=True)
class Behavior:
    """How one file is served; all these may be combined."""

    ranges: bool = True
    length: Literal["known", "chunked", "close"] = "known"
    gzip: bool = False
    head: int = 200  # HEAD's status; pre-signed URLs refuse it with 403 or 405
    etag: bool = False  # of the content
    latency: float = 0.0  # seconds before each answer; math.inf never answers
    # The faults; `times` says how many requests meet them before the file is served.
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)  # sent with it, as Retry-After is
    body: bytes = b""  # sent with it
    redirect: str = ""  # the URL
    stall: float | None = None  # the share of the body after which nothing more is sent
    cut: float | None = None  # the share of the body after which the connection is closed
    times: float = math.inf


@dataclass
class Request:
    """One request and what was sent for it, kept up to date while it is served."""

    method: str
    name: str
    query: str
    headers: Mapping[str, str]
    status: int = 0
    sent: int = 0  # bytes of the body, as the client gets them (encoded)
    target: str = ""  # path and query, as they were requested

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class FaultyHttpServer(socketserver.ThreadingTCPServer):
    """Serves a folder or a mapping of names to bytes, which a test may change, over HTTP/1.1."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128  # with the usual 5, a burst of clients waits for a second

    def __init__(self, files: Mapping[str, bytes] | Path | None = None, host: str = "127.0.0.1"):
        super().__init__((host, 0), _Handler)
        # What a client leaves unread is then not counted as sent, but for a few blocks.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
        self.files = files if isinstance(files, Path) else dict(files or {})
        self.requests: list[Request] = []
        self.connections = 0
        self.most_at_once = 0
        self._behaviours: dict[str, Behavior] = {}
        self._faults_met: Counter[str] = Counter()
        self._at_once = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> FaultyHttpServer:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops at once, whatever is still being served; the address then refuses."""
        if not self._closing.is_set():
            self._closing.set()
            self.shutdown()
            self.server_close()
            with self._lock:
                for connection in self._open:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    @property
    def address(self) -> str:
        return "http://{}:{}".format(*self.server_address)

    def url(self, name: str) -> str:
        return f"{self.address}/{quote(name)}"

    def behave(self, name: str = "*", **behavior: Any) -> str:
        """Serves a file, or "*" for each without its own, in this way; gives its URL."""
        with self._lock:
            self._behaviours[name] = Behavior(**behavior)
            self._faults_met.clear()
        return self.url(name)

    def count(self, name: str | None = None, method: str | None = None) -> int:
        """The number of requests of a file, by a method, or all."""
        return sum(
            name in (None, request.name) and method in (None, request.method)
            for request in self.requests
        )

    @property
    def bytes_sent(self) -> int:
        return sum(request.sent for request in self.requests)

    def read(self, name: str) -> bytes | None:
        if isinstance(self.files, dict):
            return self.files.get(name)
        path = self.files / name
        return path.read_bytes() if path.is_file() else None

    @contextmanager
    def serving(self, request: Request) -> Iterator[tuple[Behavior, bool]]:
        """Counts the request; gives the behavior that it meets, and whether its faults too."""
        with self._lock:
            how = self._behaviours.get(request.name) or self._behaviours.get("*", Behavior())
            # A fault of the body is none for HEAD, which has no body.
            faulty = self._faults_met[request.name] < how.times and (
                request.method != "HEAD" or how.status != 200 or bool(how.redirect)
            )
            self._faults_met[request.name] += faulty
            self.requests.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._closing.wait(min(how.latency, threading.TIMEOUT_MAX))
            yield how, faulty
        finally:
            with self._lock:
                self._at_once -= 1

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what the tests are about, and so no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyHttpServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_ = Request(
            self.command, unquote(url.path[1:]), url.query, headers, target=self.path
        )
        with self.server.serving(self.request_) as (how, faulty):
            self._answer(how, faulty)

    do_HEAD = do_GET

    def _answer(self, how: Behavior, faulty: bool) -> None:
        body = self.server.read(self.request_.name)
        if faulty and how.redirect:
            return self._plain(302, {"Location": how.redirect})
        if faulty and how.status != 200:
            return self._plain(how.status, how.headers, how.body)
        if self.command == "HEAD" and how.head != 200:
            return self._plain(how.head)
        if body is None:
            return self._plain(404)

        status = 200
        headers = {"Content-Type": "application/octet-stream"}
        if how.gzip:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        if how.etag:
            headers["ETag"] = f'"{zlib.crc32(body):08x}"'
        if how.ranges:
            headers["Accept-Ranges"] = "bytes"
            span = _span(self.request_.range or "", len(body))
            if span and span[0] >= span[1]:
                return self._plain(416, {"Content-Range": f"bytes */{len(body)}"})
            if span:
                status = 206
                headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{len(body)}"
                body = body[slice(*span)]
        headers |= {
            "known": {"Content-Length": str(len(body))},
            "chunked": {"Transfer-Encoding": "chunked"},
            "close": {"Connection": "close"},
        }[how.length]
        self._head(status, headers)
        if self.command == "HEAD":
            return None
        share = how.stall if how.stall is not None else how.cut
        if not faulty or share is None:
            return self._send(body, how.length == "chunked", end=True)
        self._send(body[: int(len(body) * share)], how.length == "chunked", end=False)
        self.close_connection = True
        if how.stall is not None:
            self.rfile.read(1)  # returns when the client hangs up or the server closes
        return None

    def _plain(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        self._head(status, {"Content-Length": str(len(body)), **(headers or {})})
        if self.command != "HEAD":
            self._send(body, chunked=False, end=True)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.request_.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes, chunked: bool, end: bool) -> None:
        for start in range(0, len(body), BLOCK):
            block = body[start : start + BLOCK]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            self.request_.sent += len(block)
        if chunked and end:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Nothing: pytest would show it in the midst of what the job says."""


def _span(header: str, size: int) -> tuple[int, int] | None:
    """The first byte requested and the one after the last; None without one plain range."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size


@contextmanager
def forbidden_server(
    files: Mapping[str, bytes] | Path | None = None, host: str = "127.0.0.1"
) -> Iterator[FaultyHttpServer]:
    """A server at an address that nobody may connect to, which is checked at its end."""
    with FaultyHttpServer(files, host) as server:
        yield server
        assert server.connections == 0, f"the forbidden address was requested: {server.requests}"


FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>no delete</Message></Error>"


class _ProxyHandler(BaseHTTPRequestHandler):
    """Passes requests on, cuts the ranges that are answered, and forbids a method."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    target: str
    most: float
    forbidden: str

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == self.forbidden:
            self.send_response_only(403)
            self.send_header("Content-Length", str(len(FORBIDDEN)))
            self.end_headers()
            self.wfile.write(FORBIDDEN)
            return
        connection = http.client.HTTPConnection(self.target, timeout=30)
        connection.request(self.command, self.path, body or None, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        headers = {name.title(): value for name, value in answer.getheaders()}
        connection.close()
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if span and len(content) > self.most:
            content = content[: int(self.most)]
            headers["Content-Range"] = (
                f"bytes {span[1]}-{int(span[1]) + len(content) - 1}/{span[2]}"
            )
        self.send_response_only(answer.status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing: pytest would show it."""


@contextmanager
def proxy(target: str, most: float = math.inf, forbidden: str = "") -> Iterator[str]:
    """Passes requests to ``host:port``.

    Args:
        most: bytes in the answer to a range. A server may send less than was requested (RFC 9110,
            section 15.3.7).
        forbidden: a method that is answered as S3 does without the right to it.

    Yields:
        The proxy's own ``host:port``.
    """
    fields = {"target": target, "most": most, "forbidden": forbidden}
    handler = type("Handler", (_ProxyHandler,), fields)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield "{}:{}".format(*server.server_address)
        finally:
            server.shutdown()


@pytest.fixture
def http_server() -> Iterator[FaultyHttpServer]:
    with FaultyHttpServer() as server:
        yield server


@pytest.fixture
def forbidden() -> Iterator[FaultyHttpServer]:
    with forbidden_server() as server:
        yield server
