"""Compares a run with the finished one in its output folder, for ``--resume`` and ``--append``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from beam_asr.cli.job import recognition, row_source
from beam_asr.cli.options import TranscribeOptions
from beam_asr.errors import FolderBusyError, ResumeError
from beam_asr.outputs.folder import INDEX
from beam_asr.outputs.folder_lock import FolderLock
from beam_asr.outputs.journal import Journal, differences, lock_in, part_of_run
from beam_asr.outputs.row_index import FinishedRun, RowIndex
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import without_secrets

# Settings that no worker's work depends on, but the records of a folder.
OF_RECORDS = (
    "pred_text_key",
    "reference_key",
    "normalizer",
    "metrics",
    "text_steps",
    "quality",
    "keep",
    "formats",
    "timestamps",
    "confidence",
    "audio_checks",
    "compression",
    "absolute_paths",
)
REMEDY = "Choose another output folder, or `overwrite`"


def check_same_run(options: TranscribeOptions) -> None:
    """Checks that the finished run in the output folder is the one that is requested.

    Raises:
        ResumeError: names what differs: the model, a setting or the rows.
    """
    journal = Journal(options.outputs.output, Storage(options.reading.storage_options))
    finished = _last_run(journal, options)
    requested = recognition(options, journal)
    differing = differences(finished.identity, requested.identity)
    if differing:
        raise ResumeError(
            f"{journal.output!r} holds the results of another run: {'; '.join(differing)}. {REMEDY}"
        )
    rows = requested.rows_identity(row_source(options).read_here())
    if differences(finished.identity, rows):
        raise ResumeError(
            f"{journal.output!r} is finished, with other rows: there were "
            f"{finished.identity.get('rows')}, and now there are {rows['rows']}, which are not all "
            "the same. `append` transcribes those that it lacks"
        )
    clear_journal(journal)


def check_may_append(options: TranscribeOptions) -> None:
    """Checks that a run which adds to the results in the output folder fits them.

    It does with `append`, and if it goes on with a run that did.

    Raises:
        ResumeError: names the settings that differ, or the files that are gone.
    """
    storage, output = Storage(options.reading.storage_options), options.outputs.output
    journal = Journal(output, storage)
    part = part_of_run(storage, output, options.outputs.append)
    # The first run has nothing to add to, whether it is about to start or goes on.
    if part or (not journal.stored() and INDEX in storage.list_names(output)):
        RowIndex(output, storage, part).check()
        _last_run(journal, options)


def clear_journal(journal: Journal) -> None:
    """Removes the journal of a run that was killed at its very end."""
    if journal.storage.list_names(journal.folder):
        with contextlib.suppress(FolderBusyError):  # a run is about to replace the results
            FolderLock.take(journal.storage, lock_in(journal.output))
            journal.remove()


def of_records(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of records, with formats in one order, in which they mean the same."""
    chosen = {name: values[name] for name in OF_RECORDS if name in values}
    return {**chosen, "formats": sorted(chosen.get("formats") or ())}


def _last_run(journal: Journal, options: TranscribeOptions) -> FinishedRun:
    """Returns the last run that has finished in the folder, if its settings are the same."""
    index = RowIndex(journal.output, journal.storage)
    finished = index.run(max(index.next_part() - 1, 0))
    if finished is None:
        raise ResumeError(
            f"{journal.output!r} is finished, but has no index of its rows, by which they could be "
            f"compared with those of this run. {REMEDY}"
        )
    now: dict[str, Any] = json.loads(json.dumps(without_secrets(options.values), default=list))
    differing = differences(of_records(finished.details.get("options", {})), of_records(now))
    if differing:
        raise ResumeError(
            f"{journal.output!r} holds the results of another run: {'; '.join(differing)}. {REMEDY}"
        )
    return finished
