"""Checks the options, builds the graph, and runs it to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import sys
from collections.abc import Callable, Iterator

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from beam_asr import process
from beam_asr.cli import beam_flags, finished, input_checks, runners
from beam_asr.cli.job import build, is_unbounded, routing
from beam_asr.cli.options import TranscribeOptions
from beam_asr.cli.progress import ProgressDisplay
from beam_asr.cli.runners import RunnerProfile
from beam_asr.cli.usage_errors import as_usage_errors
from beam_asr.errors import (
    FolderBusyError,
    SetupError,
    UsageError,
)
from beam_asr.models import files
from beam_asr.models.devices import resources
from beam_asr.outputs import folder, progress
from beam_asr.outputs.folder_lock import FolderLock
from beam_asr.outputs.journal import Journal, folder_in, lock_in
from beam_asr.outputs.progress import Progress
from beam_asr.storage.allow_list import AllowList
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_local
from beam_asr.transforms import streaming

logger = logging.getLogger(__name__)

# A job whose launcher has ended may wait for machines, and for their image and model.
FIRST_HEARTBEAT_SECONDS = 2 * 3600.0


def check(options: TranscribeOptions) -> PipelineOptions:
    """Checks what can be checked before anything starts.

    Returns:
        Beam's part of the options.

    Raises:
        UsageError: names the option, its value, and what is allowed.
    """
    beam_options = beam_flags.parse(options.beam_args)
    with as_usage_errors():
        runner = runners.profile_of(beam_options)
        if is_unbounded(options):
            _check_unbounded(options, runner)
            beam_options.view_as(StandardOptions).streaming = True
        machine = options.resources
        resources.check(machine, options.model.device)
        runners.apply_runner_defaults(beam_options, machine.accelerator, machine)
        if not runner.shares_disk:
            _check_in_reach(options, runners.name(beam_options).capitalize())
        storage = Storage(options.reading.storage_options)
        # Existing windows stay, each in its own folder.
        outputs = options.outputs
        may_replace = outputs.overwrite or (is_unbounded(options) and outputs.resume)
        with as_usage_errors("--output", outputs.output):
            folder.check_may_write(
                storage,
                outputs.output,
                may_replace,
                outputs.resume,
                outputs.append,
                in_windows=is_unbounded(options),
            )
            if outputs.append or (outputs.resume and not is_unbounded(options)):
                finished.check_may_append(options)
        input_checks.check_inputs(storage, options)
        if options.reading.allowed_audio_prefixes is not None:
            AllowList.of(options.reading.allowed_audio_prefixes)
        _check_models(storage, options, runner)
    return beam_options


def _check_models(storage: Storage, options: TranscribeOptions, runner: RunnerProfile) -> None:
    with as_usage_errors("--models"):
        routes = routing(storage, options)
    names = [options.model.model_name or ""] if routes is None else routes.names
    for name in names:
        if files.is_file_name(name):
            with as_usage_errors("--model_name" if routes is None else "--models", name):
                storage.check(name)
                if is_local(name) and runner.is_local:
                    files.local_copy(storage, name)


def _check_unbounded(options: TranscribeOptions, runner: RunnerProfile) -> None:
    messages = [pattern for pattern in options.inputs.input if streaming.is_pubsub(pattern)]
    if messages and not runner.reads_pubsub:
        raise SetupError(
            f"the input {messages[0]!r} is read by Dataflow alone, as Beam's other runners have no "
            "source for Pub/Sub: give --runner=DataflowRunner, or files and --watch"
        )
    if messages and options.inputs.watch is not None:
        raise SetupError("--watch looks for files, and Pub/Sub brings its messages by itself")
    outputs, tarred = options.outputs, options.inputs.tarred_audio
    for flag, is_given, why in (
        ("--tarred_audio", tarred, "the tars of a data set are known at its start"),
        ("--append", outputs.append, "each window is written into a folder of its own"),
        ("--overwrite", outputs.overwrite, "each window is written into a folder of its own"),
        ("--order=input", outputs.order, "its rows have no order"),
        ("--limit", options.inputs.limit is not None, "there are never all rows to take some of"),
        ("--dry_run", options.console.dry_run, "its rows are not known"),
        ("--report", outputs.report, "the report is made at the end"),
        ("--no_retry_failures", not outputs.retry_failures, "no row is done again"),
    ):
        if is_given:
            raise SetupError(f"{flag} is not for an input without an end: {why}")


def _check_in_reach(options: TranscribeOptions, runner: str) -> None:
    paths = [
        ("--output", options.outputs.output),
        *(("--input", pattern) for pattern in options.inputs.input),
    ]
    for flag, path in paths:
        if is_local(path):
            raise SetupError(
                f"{flag}={path} is of this machine's disk, which {runner}'s workers do not have: "
                "name a place in a bucket, as gs://bucket/folder"
            )


def is_finished(options: TranscribeOptions) -> bool:
    """Returns whether there is nothing to do for ``--resume``.

    Raises:
        UsageError: the output folder cannot be read, or the finished run there is another.
    """
    with as_usage_errors("--output", options.outputs.output):
        storage = Storage(options.reading.storage_options)
        if is_unbounded(options):
            return False
        if not (options.outputs.resume and folder.is_finished(storage, options.outputs.output)):
            return False
        finished.check_same_run(options)
        return True


# As `job.build`.
Builder = Callable[[beam.Pipeline, TranscribeOptions, FolderLock, bool], None]


def run(
    options: TranscribeOptions, beam_options: PipelineOptions, builder: Builder | None = None
) -> None:
    """Runs the job to its end.

    Args:
        builder: adds the job to a pipeline; None is `job.build`.

    Raises:
        UsageError: another job uses the output folder, or the run in it is a different one.
        Exception: whatever failed the job.
    """
    storage = Storage(options.reading.storage_options)
    runner = runners.profile_of(beam_options)
    with as_usage_errors("--output", options.outputs.output):
        was_there = storage.is_folder(options.outputs.output)
        lock = FolderLock.take(storage, lock_in(options.outputs.output))
    releaser = LockReleaser(lock)
    process.register(releaser)
    try:
        with as_usage_errors():
            # This checks the folder again: a job may have ended before the lock was taken.
            pipeline = _pipeline(beam_options)
            add_job = builder or build
            add_job(pipeline, options, lock, not runner.ends_with_launcher(beam_options))
        journal = Journal(options.outputs.output, storage, lock=lock)
        heartbeat = lock.heartbeat_thread(
            lambda error: process.exit_now(str(error)), journal.check_owner
        )
        with heartbeat, _display(options, beam_options), _quick_collections():
            result = pipeline.run()
            if address := runner.address(result, beam_options):
                print(f"beam-asr: the job is at {address}", file=sys.stderr)
            if runner.waits(beam_options):
                result.wait_until_finish()
        if not runner.waits(beam_options) and not is_unbounded(options):
            releaser.lock = None  # the workers hold it; in a stream, each run has its own folders
            lock.hand_over(FIRST_HEARTBEAT_SECONDS)
    except Exception:
        process.save_all()
        if runner.ends_with_launcher(beam_options) and not is_unbounded(options):
            _discard_if_nothing_done(storage, options.outputs.output, was_there)
        raise
    finally:
        _release(releaser)


def _display(
    options: TranscribeOptions, beam_options: PipelineOptions
) -> contextlib.AbstractContextManager[object]:
    """Returns what shows the progress, as long as this process waits for the job."""
    waits = runners.profile_of(beam_options).waits(beam_options)
    if options.console.quiet or not waits or is_unbounded(options):
        return contextlib.nullcontext()
    output, storage = options.outputs.output, Storage(options.reading.storage_options)
    runner = beam_options.view_as(StandardOptions).runner or ""
    seconds = progress.interval_of(output)
    return ProgressDisplay(lambda: Progress.read(storage, output), runner, seconds=seconds)


@contextlib.contextmanager
def _quick_collections() -> Iterator[None]:
    """Has the garbage collector leave out what is there by now, within the context.

    That is mostly what was imported, hundreds of thousands of objects, and it is there to stay.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _release(releaser: LockReleaser) -> None:
    """Releases the lock; an error must not hide the one that failed the job."""
    try:
        releaser.save()
    except Exception as error:  # the next run sees that this one has ended
        logger.warning("the lock stays: %s", error)


def _discard_if_nothing_done(storage: Storage, output: str, was_there: bool) -> None:
    """Removes what a run left in its folder before a row had ended, such as its journal.

    An error here must not hide the one that failed the job.
    """
    try:
        if set(storage.list_names(output)) - {folder.JOURNAL}:
            return
        lock = FolderLock.take(storage, lock_in(output))
        journal = Journal(output, storage, lock=lock)
        if journal.names():
            lock.release()
            return
        journal.remove()
        if not was_there and not storage.list_names(output):
            storage.delete_folder(output)
    except FolderBusyError:
        pass  # a run that was waiting for the folder has it now
    except Exception as error:
        logger.warning("the journal in %s could not be removed: %r", output, error)


def can_resume(options: TranscribeOptions) -> bool:
    """Returns whether an unfinished run is in the output folder, as far as can be seen."""
    if is_unbounded(options):
        return True
    try:
        storage = Storage(options.reading.storage_options)
        return folder.RUN in storage.list_names(folder_in(options.outputs.output))
    except Exception as error:  # maybe that which failed the job
        logger.debug("%s cannot be listed: %r", options.outputs.output, error)
        return True


@dataclasses.dataclass(eq=False)
class LockReleaser:
    lock: FolderLock | None

    def save(self) -> None:
        if self.lock is not None:
            self.lock.release()


def _pipeline(beam_options: PipelineOptions) -> beam.Pipeline:
    try:
        return beam.Pipeline(options=beam_options)
    except ValueError as error:  # Beam's own checks of its flags
        raise UsageError(str(error)) from error
