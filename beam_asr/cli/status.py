"""Runs ``beam-asr status``: how far a job is, from anywhere that can read its folder."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone

from beam_asr.cli.commands import add_output_arguments
from beam_asr.cli.messages import for_terminal
from beam_asr.cli.usage_errors import as_usage_errors
from beam_asr.errors import UnfinishedError
from beam_asr.storage.storage import Storage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add_output_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints what is in the folder, and what the job there is doing."""
    storage = Storage(arguments.storage_options)
    with as_usage_errors("OUTPUT", arguments.output):
        print(for_terminal(status(storage, arguments.output)))
    return 0


def status(storage: Storage, output: str) -> str:
    """Describes a folder: a finished job, one that runs, or one that ended early.

    Raises:
        UnfinishedError: the folder holds neither results nor a job.
    """
    from beam_asr.cli.main import end_of_run
    from beam_asr.cli.progress import describe, describe_model
    from beam_asr.outputs.folder_lock import holder_of
    from beam_asr.outputs.journal import lock_in
    from beam_asr.outputs.output import Output
    from beam_asr.outputs.progress import Progress

    state = Progress.read(storage, output)
    holder = holder_of(storage, lock_in(output))
    if not state.has_started and holder is None:
        try:
            results = Output(output, storage.options)
        except UnfinishedError:
            raise UnfinishedError(f"{output!r} holds neither results nor a job") from None
        ends = [*map(end_of_run, results.summaries(), results.folders)]
        if results.folders == [output]:
            return f"finished\n{ends[0]}"
        return "\n".join([f"{len(ends):,} windows are finished", *ends])
    models = [describe_model(model) for model in state.models]
    now = datetime.now(timezone.utc).timestamp()
    if holder is not None and holder.lives:
        return "\n".join([f"running: {holder}", *models, describe(state, now)])
    who = "" if holder is None else f": {holder}"
    kept = f"{state.rows_ended:,} rows were done"
    return "\n".join(
        [
            f"ended before it was finished{who}",
            *models,
            f"{kept}; the same command with --resume does the others",
        ]
    )
