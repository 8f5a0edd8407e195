"""From options to a graph, and from a graph to its end."""

from __future__ import annotations

import dataclasses
import difflib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions

from beam_asr import __version__, emergency_exit, inputs, model_files, output, shards
from beam_asr.allowed import AllowedPrefixes
from beam_asr.folder_lock import FolderBusyError, FolderLock
from beam_asr.journal import Journal, lock_in
from beam_asr.options import TranscribeOptions
from beam_asr.read_manifest import ReadManifest
from beam_asr.storage import Storage, is_local
from beam_asr.transcribe import Transcribe
from beam_asr.write_manifest import WriteManifest

# The DirectRunner is a switch that first tries to download a runner of Beam's; on one machine this
# is the one it ends with, and it needs no network.
LOCAL_RUNNER = "FnApiRunner"


class UsageError(ValueError):
    """The command line asks for something that cannot be; nothing has been started."""


def build(
    pipeline: beam.Pipeline,
    options: TranscribeOptions,
    lock: FolderLock | None = None,
    workers_beat: bool = False,
) -> None:
    """Adds the whole job to a pipeline.

    Args:
        lock: of the output folder.
        workers_beat: whether workers give signs of life for the lock, as they must where they
            outlive this process.

    Raises:
        ValueError: the options do not go together, or not with what is in the output folder.
    """
    journal = Journal(
        options.output,
        Storage(options.storage_options),
        options.resume,
        options.retry_failures,
        lock,
        workers_beat,
    )
    (
        pipeline
        | "ReadManifest"
        >> ReadManifest(options.input, options.filepath_key, options.storage_options)
        | "Transcribe"
        >> Transcribe(
            model_name=options.model_name,
            filepath_key=options.filepath_key,
            pred_text_key=options.pred_text_key,
            batch_size=options.batch_size,
            max_batch_seconds=options.max_batch_seconds,
            device=options.device,
            channel=options.channel,
            decoder=options.decoder,
            precision=options.precision,
            tarred_audio=options.tarred_audio,
            storage_options=options.storage_options,
            audio_timeout=options.audio_timeout,
            max_concurrent_reads=options.max_concurrent_reads,
            allowed_audio_prefixes=options.allowed_audio_prefixes,
            batch_timeout=options.batch_timeout,
            max_failure_fraction=options.max_failure_fraction,
            journal=journal,
        )
        | "WriteManifest"
        >> WriteManifest(
            options.output,
            overwrite=options.overwrite,
            num_shards=options.num_shards,
            compression=options.compression,
            max_failure_fraction=options.max_failure_fraction,
            details=_details(options),
            storage_options=options.storage_options,
            journal=journal,
        )
    )


def check(options: TranscribeOptions) -> PipelineOptions:
    """Checks what can be checked before anything starts.

    Returns:
        Beam's part of the options.

    Raises:
        UsageError: names the option, its value, and what is allowed.
    """
    beam_options = _beam_options(options.beam_args)
    with _as_usage_errors():
        storage = Storage(options.storage_options)
        output.check_may_write(storage, options.output, options.overwrite, options.resume)
        for pattern in options.input:
            inputs.check(storage, pattern)
        if options.tarred_audio is not None:
            shards.tars_of(storage, options.tarred_audio)
        if options.allowed_audio_prefixes is not None:
            AllowedPrefixes.of(options.allowed_audio_prefixes)
        name = options.model_name
        if model_files.is_file_name(name):
            storage.check(name)
            if is_local(name) and runs_here(beam_options):
                model_files.local_copy(storage, name)
    return beam_options


def is_finished(options: TranscribeOptions) -> bool:
    """Whether there is nothing to do for ``--resume``.

    Raises:
        UsageError: the output folder cannot be looked at.
    """
    with _as_usage_errors():
        storage = Storage(options.storage_options)
        return options.resume and output.is_finished(storage, options.output)


def run(options: TranscribeOptions, beam_options: PipelineOptions) -> None:
    """Runs the job to its end.

    Raises:
        UsageError: the output folder is another job's, or its run is another one.
        Exception: whatever failed the job.
    """
    storage = Storage(options.storage_options)
    with _as_usage_errors():
        lock = FolderLock.take(storage, lock_in(options.output))
    releaser = _Releaser(lock)
    emergency_exit.register(releaser)
    try:
        with _as_usage_errors():
            # This looks at the folder again, in which a job may have ended before the lock.
            pipeline = beam.Pipeline(options=beam_options)
            build(pipeline, options, lock, workers_beat=not runs_here(beam_options))
        with lock.kept_alive(lambda error: emergency_exit.exit_now(str(error))):
            pipeline.run().wait_until_finish()
    finally:
        releaser.save()


@dataclasses.dataclass(eq=False)
class _Releaser:
    lock: FolderLock

    def save(self) -> None:
        self.lock.release()


def _beam_options(args: list[str]) -> PipelineOptions:
    known = {flag for group in PipelineOptions.__subclasses__() for flag in _known_flags(group)}
    for arg in args:
        flag = arg.partition("=")[0]
        if flag.startswith("--") and flag not in known:
            fields = dataclasses.fields(TranscribeOptions)
            ours = [f"--{field.name}" for field in fields if field.name != "beam_args"]
            close = difflib.get_close_matches(flag, [*ours, *sorted(known)], 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f"unknown flag {flag}: it is neither ours nor Beam's{meant}")
    try:
        options = PipelineOptions(args)
        standard = options.view_as(StandardOptions)
    except SystemExit:  # Beam's parser has said what is wrong
        raise UsageError(f"Beam refuses its flags: {' '.join(args)}") from None
    if runs_here(options):
        standard.runner = LOCAL_RUNNER
    # Nothing of the launching session is needed by the workers: they import the package.
    options.view_as(SetupOptions).save_main_session = False
    return options


def _known_flags(group: type[PipelineOptions]) -> set[str]:
    from apache_beam.options.pipeline_options import _BeamArgumentParser

    parser = _BeamArgumentParser(add_help=False)
    group._add_argparse_args(parser)
    return set(parser._option_string_actions)


def runs_here(options: PipelineOptions) -> bool:
    """Whether the job runs in this process, and ends with it."""
    return options.view_as(StandardOptions).runner in (None, "DirectRunner", LOCAL_RUNNER)


@contextmanager
def _as_usage_errors() -> Iterator[None]:
    """What a look at the places that the command line names raises, as UsageError."""
    try:
        yield
    except (FileNotFoundError, ValueError, FolderBusyError) as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # of a storage: each has its own
        raise UsageError(
            "a storage that the command line names cannot be reached: "
            f"{type(error).__name__}: {error}"
        ) from error


def _details(options: TranscribeOptions) -> dict[str, Any]:
    asked = dataclasses.asdict(options)
    # Their values may be secrets.
    asked["storage_options"] = {
        protocol: sorted(given) for protocol, given in options.storage_options.items()
    }
    return {
        "options": asked,
        "versions": {
            "beam_asr": __version__,
            "apache_beam": beam.__version__,
            "python": platform.python_version(),
        },
    }
