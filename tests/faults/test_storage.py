"""Faults at random requests to the storage lose no row, and nothing ends well without its work."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_asr.storage.storage import Storage
from tests.faults import storage_faults
from tests.faults.storage_lives import live_until
from tests.support.emulators import Bucket

# For a thousand in all: STORAGE_FAULTS=250 python -m pytest -s tests/faults/test_storage.py
FAULTS = int(os.environ.get("STORAGE_FAULTS", 3))  # at least so many on each storage
SEED = int(os.environ.get("STORAGE_FAULTS_SEED", 1))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEAM_ASR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def report(storage: str, struck: list[storage_faults.Fault], resumes: object) -> None:
    print(f"\n{storage}: {len(struck)} faults struck; finished after resumes: {resumes}")
    for (_, kind, duration), count in sorted(storage_faults.counted(struck, storage).items()):
        print(f"  {kind:14} {duration:10} {count}")


def test_faults_of_a_disk(tmp_path: Path) -> None:
    faults = storage_faults.Faults()
    root = os.path.realpath(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        storage_faults.Disk(root, faults).install(patch)
        faulty = (storage_faults.DISK_KINDS, storage_faults.DISK_REQUESTS)
        struck, resumes = live_until(Storage(), root, faults, *faulty, FAULTS, SEED)
    report("disk", struck, resumes)


def test_faults_of_a_store(bucket: Bucket) -> None:
    faults = storage_faults.Faults()
    ((protocol, options),) = bucket.storage_options.items()
    address = re.search(r"127\.0\.0\.1:\d+", str(options))
    with storage_faults.proxied(address[0], faults) as proxy:
        through = {key: value.replace(address[0], proxy) for key, value in options.items()}
        storage = Storage({protocol: through})
        faulty = (storage_faults.STORE_KINDS, storage_faults.STORE_REQUESTS)
        struck, resumes = live_until(storage, bucket.uri, faults, *faulty, FAULTS, SEED)
    report(protocol, struck, resumes)
