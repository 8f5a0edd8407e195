"""Defines names in the output folder, checks its content, and names the folders of windows."""

from __future__ import annotations

import itertools
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from beam_asr.errors import OutputExistsError
from beam_asr.storage.local_files import PARTIAL_FILE
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

SUCCESS = "_SUCCESS"
SUMMARY = "summary.json"
JOURNAL = "_journal"
INDEX = "_index"
LOCK = "lock.json"  # in the journal's folder
RUN = "run.json"  # in the journal's folder
WINDOW = re.compile(r"\d{8}T\d{6}(?:\.\d{6})?Z-\w{1,8}")  # as `folder_name` has it


def check_may_write(
    storage: Storage,
    folder: str,
    overwrite: bool = False,
    resume: bool = False,
    append: bool = False,
    in_windows: bool = False,
) -> None:
    """Refuses an output folder that holds anything, unless it may be replaced, resumed or extended.

    Args:
        overwrite: whether its results may be replaced.
        resume: whether an unfinished run there is resumed.
        append: whether results are added to those that are there.
        in_windows: whether the results are those of a stream, which adds folders to others.

    Raises:
        OutputExistsError: names the content and what to do.
        StorageError: the storage cannot be written.
    """
    storage.check_writable(folder)
    names = [name for name in storage.list_names(folder) if not PARTIAL_FILE.fullmatch(name)]
    if JOURNAL in names and set(storage.list_names(join(folder, JOURNAL))) <= {LOCK}:
        names.remove(JOURNAL)  # of a job that is about to start, or never did
    if not names or overwrite or (append and INDEX in names):
        return  # without its marker too: a run that appends may end before it has a journal
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    if in_windows:
        raise OutputExistsError(
            f"the output folder {folder!r} is not empty ({shown}): choose another one, or "
            "`resume` to leave out the files whose windows are whole there, and do all others"
        )
    if not resume and not append:
        raise OutputExistsError(
            f"the output folder {folder!r} is not empty ({shown}): choose another one, or "
            "`overwrite` to replace its results, `resume` to continue an unfinished run, or "
            "`append` to add the rows that it lacks"
        )
    if JOURNAL not in names:
        results = ", and no results of this job to append to" if append else ""
        grow = ", `append` to add the rows that it lacks," if INDEX in names else ","
        raise OutputExistsError(
            f"the output folder {folder!r} holds no unfinished run to continue{results}, but is "
            f"not empty ({shown}): choose another one{grow} or `overwrite` to replace its results"
        )


def is_finished(storage: Storage, folder: str) -> bool:
    """Returns whether the results are complete, and no run has started to replace them."""
    finished = SUCCESS in storage.list_names(folder)
    return finished and RUN not in storage.list_names(join(folder, JOURNAL))


def mark_unfinished(storage: Storage, folder: str) -> None:
    """Marks a folder as unfinished, before anything in it is replaced."""
    storage.delete(join(folder, SUCCESS))


logger = logging.getLogger(__name__)
READING_THREADS = 32


def folder_name(start: float, run: str) -> str:
    """Returns the folder of a window, in the output folder.

    Args:
        start: the start of the window, in seconds since 1970.
        run: the id of the run, so that another run, started within this window, has its own folder.
    """
    time = datetime.fromtimestamp(start, timezone.utc)
    fraction = f".{time:%f}" if time.microsecond else ""
    return f"{time:%Y%m%dT%H%M%S}{fraction}Z-{run[:8]}"


def inputs_done(storage: Storage, folder: str) -> frozenset[str]:
    """Returns the files, by ``query_hidden``, whose rows are all in finished windows."""
    windows = [join(folder, name) for name in storage.list_names(folder)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        inputs = pool.map(lambda window: _inputs_of(storage, window), windows)
        return frozenset(itertools.chain.from_iterable(inputs))


def _inputs_of(storage: Storage, window: str) -> list[str]:
    if SUCCESS not in storage.list_names(window):
        return []
    try:
        content = storage.read(join(window, SUMMARY))
    except FileNotFoundError:
        content = b""
    try:
        return list(json.loads(content)["inputs"])
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s names no inputs, as a window of a stream does: %r", window, error)
        return []
