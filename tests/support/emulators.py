"""The object stores as real servers on loopback: GCS, S3 and Azure, with a bucket for each test."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest

CACHE = Path(__file__).parents[2] / ".cache"

# The PyPI emulator of GCS answers a range past the end, or of an empty object, where GCS refuses.
GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"
AZURITE = "azurite@3.35.0"  # the last for Node 20

PORT_TAKEN = re.compile("address already in use|EADDRINUSE", re.IGNORECASE)

# Microsoft's published account of the emulator, no secret.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


class Store(NamedTuple):
    """A running emulator; ``storage_options`` are by protocol, as the job takes them."""

    protocol: str
    storage_options: dict[str, dict[str, Any]]
    log: Path  # a line for each request


class Bucket(NamedTuple):
    """A new and empty bucket; see Store."""

    uri: str
    storage_options: dict[str, dict[str, Any]]
    log: Path

    def filesystem(self) -> fsspec.AbstractFileSystem:
        """One that has cached nothing, to look at what the job left or to lay what it reads."""
        protocol, options = next(iter(self.storage_options.items()))
        return fsspec.filesystem(
            protocol, **options, skip_instance_cache=True, use_listings_cache=False
        )


def installed(requirement: str, *command: str, folder_variable: str) -> Path:
    """The folder into which a package manager has put this release, in the repository's cache."""
    folder = CACHE / requirement.replace("/", "-")
    if not folder.exists():
        if not shutil.which(command[0]):
            pytest.skip(f"the emulator {requirement} needs {command[0]}, which is not here")
        # An interrupted installation is none.
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        subprocess.run(
            [*command, requirement], check=True, env={**os.environ, folder_variable: str(part)}
        )
        part.rename(folder)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def running(command: Callable[[int], list[str]], listens: str, log: Path) -> Iterator[int]:
    """Runs a server, from when it says that it listens to the end of the block; gives its port.

    Args:
        command: for a port, which another process may take before the server does.
        listens: what it says then.
    """
    while True:
        port = free_port()
        with log.open("wb") as out:
            server = subprocess.Popen(command(port), stdout=out, stderr=subprocess.STDOUT)
        try:
            if _says(server, listens, log):
                yield port
                return
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        said = log.read_text(errors="replace")
        if not PORT_TAKEN.search(said):
            pytest.fail(f"{server.args[0]} did not start:\n{said}")


def _says(server: subprocess.Popen, text: str, log: Path) -> bool:
    """Waits for a server to say something; tells whether it did before it ended."""
    while text not in log.read_text(errors="replace"):
        if server.poll() is not None:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="session")
def gs_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = installed(GCS, "go", "install", folder_variable="GOBIN")

    def command(port: int) -> list[str]:
        return [
            str(folder / "fake-gcs-server"), "-backend=memory", "-scheme=http", "-host=127.0.0.1",
            f"-port={port}", f"-external-url=http://127.0.0.1:{port}",
        ]  # fmt: skip

    log = tmp_path_factory.mktemp("gs") / "log"
    with running(command, "server started at", log) as port:
        options = {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon"}
        yield Store("gs", {"gs": options}, log)


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    log = tmp_path_factory.mktemp("s3") / "log"
    with running(command, "Running on", log) as port:
        options = {
            "endpoint_url": f"http://127.0.0.1:{port}",
            "key": "an-access-key",
            "secret": "a-secret",
        }
        yield Store("s3", {"s3": options}, log)


@pytest.fixture(scope="session")
def az_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = installed(
        AZURITE, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--global",
        folder_variable="npm_config_prefix",
    )  # fmt: skip

    def command(port: int) -> list[str]:
        return [
            str(folder / "bin/azurite-blob"), "--inMemoryPersistence", "--skipApiVersionCheck",
            "--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", str(port),
        ]  # fmt: skip

    log = tmp_path_factory.mktemp("az") / "log"
    with running(command, "successfully listens", log) as port:
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{AZURE_ACCOUNT};"
        )
        yield Store("az", {"az": {"connection_string": connection}}, log)


def new_bucket(store: Store) -> Bucket:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    bucket = Bucket(f"{store.protocol}://{name}", store.storage_options, store.log)
    bucket.filesystem().mkdir(name)
    return bucket


@pytest.fixture
def gs_bucket(gs_store: Store) -> Bucket:
    return new_bucket(gs_store)


@pytest.fixture
def s3_bucket(s3_store: Store) -> Bucket:
    return new_bucket(s3_store)


@pytest.fixture
def az_bucket(az_store: Store) -> Bucket:
    return new_bucket(az_store)


@pytest.fixture(params=["gs", "s3", "az"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A bucket of each store in turn."""
    return request.getfixturevalue(f"{request.param}_bucket")
