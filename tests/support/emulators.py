"""The object stores as real servers on loopback: GCS, S3 and Azure, with a bucket for each test."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest

CACHE = Path(__file__).parents[2] / ".cache"

# The PyPI emulator of GCS answers a range past the end, or of an empty object, where GCS refuses.
GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"
AZURITE = "azurite@3.35.0"  # the last for Node 20

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


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return bool(connection.getresponse().status)
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Runs a server, from its first answer to the end of the block."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def gs_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = installed(GCS, "go", "install", folder_variable="GOBIN")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        str(folder / "fake-gcs-server"), "-backend=memory", "-scheme=http", "-host=127.0.0.1",
        f"-port={port}", f"-external-url={address}",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("gs") / "log"
    with running(command, port, log):
        yield Store("gs", {"gs": {"endpoint_url": address, "token": "anon"}}, log)


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("s3") / "log"
    options = {
        "endpoint_url": f"http://127.0.0.1:{port}",
        "key": "an-access-key",
        "secret": "a-secret",
    }
    with running(command, port, log):
        yield Store("s3", {"s3": options}, log)


@pytest.fixture(scope="session")
def az_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = installed(
        AZURITE, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--global",
        folder_variable="npm_config_prefix",
    )  # fmt: skip
    port = free_port()
    command = [
        str(folder / "bin/azurite-blob"), "--inMemoryPersistence", "--skipApiVersionCheck",
        "--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", str(port),
    ]  # fmt: skip
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{AZURE_ACCOUNT};"
    )
    log = tmp_path_factory.mktemp("az") / "log"
    with running(command, port, log):
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
