"""Finds or downloads a model's file, once for all processes of a machine."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_local, local_path

CACHE = "BEAM_ASR_CACHE"

# The parts of a model file that its digest reads; a smaller file is read whole.
DIGEST_BLOCKS = 16
DIGEST_BLOCK_BYTES = 2**16
DIGEST_END_BYTES = 2**20


def is_file_name(model_name: str) -> bool:
    """Tells whether the name is a path or URI of a ``.nemo`` file rather than one of a hub."""
    return model_name.endswith(".nemo") or "://" in model_name


def cache_folder() -> Path:
    """Returns the folder of downloaded models, which it creates if needed.

    It is ``$BEAM_ASR_CACHE``, or else ``~/.cache/beam_asr``.
    """
    chosen = os.environ.get(CACHE)
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "beam_asr"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Holds a lock that one process of the machine can hold at a time, for each name."""
    from filelock import FileLock

    with FileLock(cache_folder() / f"{_key(name)}.lock"):
        yield


def local_copy(storage: Storage, uri: str) -> str:
    """Returns a local path of the model file, downloaded once for a machine if it is remote.

    A file that has changed at its source is downloaded again.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
    """
    if is_local(uri):
        path = local_path(uri)
        if os.path.isdir(path):
            raise IsADirectoryError(
                f"{path} is a folder, and a model is one file: pack it by 'tar -cf model.nemo -C "
                f"{path} .'"
            )
        if not os.path.isfile(path):
            raise FileNotFoundError(f"no file {path}")
        return path
    with machine_lock(uri):
        copy = cache_folder() / f"{_key(uri, storage.fingerprint(uri))}.nemo"
        if not copy.exists():
            # One name, so that the next process overwrites what a killed one leaves.
            part = cache_folder() / f"{_key(uri)}.part"
            try:
                with storage.open(uri) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 22)
                os.replace(part, copy)
            finally:
                part.unlink(missing_ok=True)
        return str(copy)


def digest(storage: Storage, name: str) -> str:
    """Computes a digest of the content of a model file, whatever its place and age.

    It is made of the file's size, blocks spread evenly over it, and its end, 2 MiB in all, so that
    a remote file is not fetched whole. A model that was trained further differs in most blocks.
    Where few weights were changed, the end of the file differs: the weights are the last member of
    the tar, and a zip, whose directory is at its end and holds a checksum of each tensor. Two
    models do not have the same digest by chance, but can be made to.

    Args:
        name: path or URI of the file.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with storage.open(name, first_block=DIGEST_BLOCK_BYTES) as file:
        size = file.seek(0, os.SEEK_END)
        content = hashlib.sha256(str(size).encode())
        for start, length in _sample(size):
            file.seek(start)
            content.update(file.read(length))
    return content.hexdigest()


def _sample(size: int) -> list[tuple[int, int]]:
    """Returns the starts and lengths of the parts to read of a file of ``size`` bytes."""
    end = size - DIGEST_END_BYTES
    last = end - DIGEST_BLOCK_BYTES
    if last < DIGEST_BLOCKS * DIGEST_BLOCK_BYTES:
        return [(0, size)]
    starts = [block * last // (DIGEST_BLOCKS - 1) for block in range(DIGEST_BLOCKS)]
    return [(start, DIGEST_BLOCK_BYTES) for start in starts] + [(end, DIGEST_END_BYTES)]


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
