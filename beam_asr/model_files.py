"""Where a model's file comes from: one download a machine, whatever the number of processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beam_asr.storage import Storage, is_local, local_path

CACHE = "BEAM_ASR_CACHE"


def is_file_name(model_name: str) -> bool:
    """Whether the name is a path or URI of a ``.nemo`` file rather than one of a hub."""
    return model_name.endswith(".nemo") or "://" in model_name


def cache_folder() -> Path:
    """Where downloaded models are kept: ``$BEAM_ASR_CACHE``, else under the user's cache folder."""
    chosen = os.environ.get(CACHE)
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "beam_asr"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Held by one process of the machine at a time for each name."""
    from filelock import FileLock

    with FileLock(cache_folder() / f"{_key(name)}.lock"):
        yield


def local_copy(storage: Storage, uri: str) -> str:
    """A local path of the model file, downloaded once a machine if it is elsewhere.

    A file that has changed where it comes from is downloaded again.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_local(uri):
        path = local_path(uri)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"no file {path}")
        return path
    with machine_lock(uri):
        copy = cache_folder() / f"{_key(uri, storage.fingerprint(uri))}.nemo"
        if not copy.exists():
            with (
                storage.open(uri) as source,
                tempfile.NamedTemporaryFile(dir=copy.parent, delete=False) as target,
            ):
                shutil.copyfileobj(source, target, 1 << 22)
            os.replace(target.name, copy)
        return str(copy)


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
