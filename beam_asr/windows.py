"""Windows of time, in which an input without an end is written: their folders, and what is done."""

from __future__ import annotations

import json
from datetime import datetime, timezone

from beam_asr import output
from beam_asr.storage import Storage, join


def folder_name(start: float, run: str) -> str:
    """The folder of a window, in the output folder.

    Args:
        start: of the window, in seconds since 1970.
        run: the id of the run, so that another one, begun within this window, has its own.
    """
    return f"{datetime.fromtimestamp(start, timezone.utc):%Y%m%dT%H%M%SZ}-{run[:8]}"


def inputs_done(storage: Storage, folder: str) -> frozenset[str]:
    """The files whose rows are all in windows of the output folder that are whole."""
    done: set[str] = set()
    for name in storage.names_in(folder):
        window = join(folder, name)
        if output.SUCCESS in storage.names_in(window):
            done.update(json.loads(storage.read(join(window, output.SUMMARY)))["inputs"])
    return frozenset(done)
