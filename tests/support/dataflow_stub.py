"""A stand-in for the Dataflow service on loopback: keeps what Beam's own client asks of it.

It runs no job. It answers the requests of that client (the v1b3 REST API: create a job, get it, its
messages) well enough for a launch to go through, and a job ends in the state that a test chooses.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JOBS = re.compile(r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(?P<rest>.*)")


@dataclass
class DataflowStub:
    """The requests, and what becomes of each job as soon as it is there."""

    endpoint: str
    state: str = "JOB_STATE_DONE"
    error: str = ""  # its message, if there is one
    jobs: list[dict[str, Any]] = field(default_factory=list)  # as they were sent
    requests: list[str] = field(default_factory=list)  # METHOD PATH

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any] | None:
        self.requests.append(f"{method} {path}")
        match = JOBS.fullmatch(path.partition("?")[0])
        if match is None:
            return None
        if method == "POST" and not match["rest"]:
            self.jobs.append(json.loads(body))
        elif method != "GET" or not self.jobs:
            return None
        if match["rest"].endswith("/messages"):
            return {"jobMessages": [self._message()] if self.error else []}
        sent = self.jobs[-1]
        return {
            "id": f"job-{len(self.jobs)}",
            "name": sent["name"],
            "projectId": match["project"],
            "location": match["region"],
            "currentState": "JOB_STATE_PENDING" if method == "POST" else self.state,
            "clientRequestId": sent["clientRequestId"],
        }

    def _message(self) -> dict[str, str]:
        return {
            "id": "a-message",
            "time": "2026-01-01T00:00:00Z",
            "messageImportance": "JOB_MESSAGE_ERROR",
            "messageText": self.error,
        }


@contextmanager
def running() -> Iterator[DataflowStub]:
    """A stub that listens until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            answer = stub.answer(self.command, self.path, body)
            sent = json.dumps(answer or {"error": {"message": "no such thing"}}).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # Beam's client takes plain HTTP, and a port, for this name alone.
    stub = DataflowStub(f"http://localhost:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
