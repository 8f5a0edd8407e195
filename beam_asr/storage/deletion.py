"""Deletes the objects of a store, and what stands for its folders."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from beam_asr.storage.protocols import StorageProtocol, find_protocol
from beam_asr.storage.retry import is_transient, retry

DELETING_THREADS = 32


def delete_objects(fs: Any, paths: list[str]) -> None:
    """Deletes objects, many at a time; those that are gone are no error."""
    remaining = paths
    if (at_once := find_protocol_of(fs).bulk_delete) > 1:
        remaining = _bulk_delete(fs, paths, at_once)

    def delete(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            retry(lambda: fs.rm_file(path))

    # Other file systems than asynchronous ones may have one connection, for one thread at a time.
    with ThreadPoolExecutor(DELETING_THREADS if fs.async_impl else 1) as pool:
        for _ in pool.map(delete, remaining):
            pass


def _bulk_delete(fs: Any, paths: list[str], at_once: int) -> list[str]:
    """Deletes many objects with each request, as S3 does a thousand.

    Returns:
        Those that were not deleted. Deleting one by itself shows the reason, and a server may not
        support this request.
    """
    from beam_asr.storage.remote_file import request  # not needed to parse a command line

    by_bucket = defaultdict(list)
    for path in paths:
        by_bucket[path.partition("/")[0]].append(path)
    requests = [
        (bucket, objects[start : start + at_once])
        for bucket, objects in by_bucket.items()
        for start in range(0, len(objects), at_once)
    ]

    def delete(bucket: str, objects: list[str]) -> list[str]:
        keys = [{"Key": path.partition("/")[2]} for path in objects]
        body = {"Objects": keys, "Quiet": True}
        try:
            answer = request(fs, lambda: fs._call_s3("delete_objects", Bucket=bucket, Delete=body))
        except Exception as error:
            if is_transient(error):
                raise
            return objects
        return [f"{bucket}/{error['Key']}" for error in answer.get("Errors", [])]

    with ThreadPoolExecutor(DELETING_THREADS) as pool:
        return [path for failed in pool.map(delete, *zip(*requests)) for path in failed]


def delete_empty_folders(fs: Any, folders: list[str]) -> None:
    """Deletes folders where they are more than parts of names, the deepest first."""
    fs.invalidate_cache()
    protocol = find_protocol_of(fs)
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            if not protocol.is_bucket_store:
                fs.rmdir(folder)
            elif protocol.folders_are_objects and retry(functools.partial(fs.isdir, folder)):
                retry(functools.partial(fs.rm_file, folder))


def find_protocol_of(fs: Any) -> StorageProtocol:
    return find_protocol(fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0])
