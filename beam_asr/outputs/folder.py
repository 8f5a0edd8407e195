"""Names in the folder, what may be there, `_SUCCESS`, folders of time windows."""

from __future__ import annotations

import itertools
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from beam_asr.errors import OutputExistsError
from beam_asr.storage.local_files import PARTIAL_FILE
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

SUCCESS = "_SUCCESS"
SUMMARY = "summary.json"
JOURNAL = "_journal"
LOCK = "lock.json"  # in the journal's folder
RUN = "run.json"  # there


def check_may_write(
    storage: Storage, folder: str, overwrite: bool = False, resume: bool = False
) -> None:
    """Refuses an output folder that holds anything, unless it is to be replaced or gone on with.

    Args:
        overwrite: whether its results may be replaced.
        resume: whether an unfinished run there is to be gone on with.

    Raises:
        OutputExistsError: says what is there and what to do.
        StorageError: the storage cannot be written.
    """
    storage.check_writable(folder)
    there = [name for name in storage.list_names(folder) if not PARTIAL_FILE.fullmatch(name)]
    if JOURNAL in there and set(storage.list_names(join(folder, JOURNAL))) <= {LOCK}:
        there.remove(JOURNAL)  # of a job that is about to begin, or did not
    if not there or overwrite:
        return
    shown = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
    if not resume:
        raise OutputExistsError(
            f"the output folder {folder!r} is not empty ({shown}): choose another one, or "
            "`overwrite` to replace its results, or `resume` to go on with an unfinished run"
        )
    if JOURNAL not in there:
        raise OutputExistsError(
            f"the output folder {folder!r} holds no unfinished run to go on with, but is not empty "
            f"({shown}): choose another one, or `overwrite` to replace its results"
        )


def is_finished(storage: Storage, folder: str) -> bool:
    """Whether the results there are whole, and no run has begun to replace them."""
    finished = SUCCESS in storage.list_names(folder)
    return finished and RUN not in storage.list_names(join(folder, JOURNAL))


def mark_unfinished(storage: Storage, folder: str) -> None:
    """Makes a folder an unfinished one, before anything in it is replaced."""
    storage.delete(join(folder, SUCCESS))


logger = logging.getLogger(__name__)
READING_THREADS = 32


def folder_name(start: float, run: str) -> str:
    """The folder of a window, in the output folder.

    Args:
        start: of the window, in seconds since 1970.
        run: the id of the run, so that another one, begun within this window, has its own.
    """
    at = datetime.fromtimestamp(start, timezone.utc)
    fraction = f".{at:%f}" if at.microsecond else ""
    return f"{at:%Y%m%dT%H%M%S}{fraction}Z-{run[:8]}"


def inputs_done(storage: Storage, folder: str) -> frozenset[str]:
    """The files whose rows are all in windows of the output folder that are whole."""
    windows = [join(folder, name) for name in storage.list_names(folder)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        found = pool.map(lambda window: _inputs_of(storage, window), windows)
        return frozenset(itertools.chain.from_iterable(found))


def _inputs_of(storage: Storage, window: str) -> list[str]:
    if SUCCESS not in storage.list_names(window):
        return []
    try:
        return list(json.loads(storage.read(join(window, SUMMARY)))["inputs"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s names no inputs, as a window of a stream does: %r", window, error)
        return []
