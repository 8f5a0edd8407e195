"""Windows of time, in which an input without an end is written: their folders, and what is done."""

from __future__ import annotations

import itertools
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from beam_asr.outputs import folder as output
from beam_asr.storage.storage import Storage, join

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
    windows = [join(folder, name) for name in storage.names_in(folder)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        found = pool.map(lambda window: _inputs_of(storage, window), windows)
        return frozenset(itertools.chain.from_iterable(found))


def _inputs_of(storage: Storage, window: str) -> list[str]:
    if output.SUCCESS not in storage.names_in(window):
        return []
    try:
        return list(json.loads(storage.read(join(window, output.SUMMARY)))["inputs"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s names no inputs, as a window of a stream does: %r", window, error)
        return []
