"""From options to a graph, and from a graph to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import platform
import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions, StandardOptions
from apache_beam.transforms.window import FixedWindows

from beam_asr import emergency_exit
from beam_asr._version import __version__
from beam_asr.cli import dataflow, runners
from beam_asr.cli.options import TranscribeOptions
from beam_asr.inputs import discovery as inputs
from beam_asr.inputs import nemo_tarred as shards
from beam_asr.models import files as model_files
from beam_asr.models import route_files
from beam_asr.models.devices import resources
from beam_asr.models.devices.resources import Resources
from beam_asr.models.routing import Routing
from beam_asr.outputs import folder as output
from beam_asr.outputs.folder_lock import FolderBusyError, FolderLock
from beam_asr.outputs.formats import shard_files as sharded_formats
from beam_asr.outputs.formats.registry import TIMED
from beam_asr.outputs.journal import Journal, lock_in
from beam_asr.storage.allow_list import AllowedPrefixes
from beam_asr.storage.storage import Storage, is_local
from beam_asr.transforms import streaming as unbounded
from beam_asr.transforms.read_manifest import ReadManifest
from beam_asr.transforms.score import ScoreTranscripts
from beam_asr.transforms.transcribe import Transcribe
from beam_asr.transforms.write_manifest import WriteManifest

# A job whose launcher has left may wait for machines, and for their image and model.
FIRST_SIGN_SECONDS = 2 * 3600.0


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
    # The journal is of an input with an end; else each window that is whole is what is kept.
    journal = None
    if not is_unbounded(options):
        journal = Journal(
            options.output,
            Storage(options.storage_options),
            options.resume,
            options.retry_failures,
            lock,
            workers_beat,
        )
    rows = pipeline | "ReadManifest" >> ReadManifest(
        options.input,
        options.filepath_key,
        options.storage_options,
        watch=options.watch,
        resumed=options.output if options.resume else None,
    )
    if is_unbounded(options):
        rows |= "ByTime" >> beam.WindowInto(FixedWindows(options.output_window))
    records = rows | "Transcribe" >> Transcribe(
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
        accelerator=options.accelerator,
        model_copies=options.model_copies,
        gpus=options.gpus,
        cpus=options.cpus,
        gpu_memory_gb=options.gpu_memory_gb,
        segmentation=options.segmentation,
        max_segment_seconds=options.max_segment_seconds,
        attention=options.attention,
        partial=options.partial,
        timestamps=_timestamps(options),
        confidence=options.confidence,
        n_best=options.n_best,
        models=options.models,
        route_key=options.route_key,
        unmapped=options.unmapped,
        source_lang=options.source_lang,
        target_lang=options.target_lang,
        task=options.task,
        pnc=options.pnc,
        min_duration=options.min_duration,
        max_duration=options.max_duration,
        required_sample_rate=options.required_sample_rate,
        required_channels=options.required_channels,
        audio_checks=options.audio_checks,
        give_duration=_needs_duration(options),
        give_origin=sharded_formats.NEMO in (options.formats or ()),
        max_failure_fraction=None if journal is None else options.max_failure_fraction,
        journal=journal,
    )
    routing = _routing(Storage(options.storage_options), options)
    lang_key = "lang" if routing is None else routing.lang_key
    if scores(options):
        records |= "ScoreTranscripts" >> ScoreTranscripts(
            options.reference_key,
            options.normalizer,
            options.quality,
            options.keep,
            options.pred_text_key,
            lang_key,
            by_model=options.models is not None,
        )
    (
        records
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
            formats=options.formats or (),
            filepath_key=options.filepath_key,
            pred_text_key=options.pred_text_key,
            lang_key=lang_key,
            tarred=options.tarred_audio is not None,
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
        if is_unbounded(options):
            _check_unbounded(options, runners.name(beam_options))
            beam_options.view_as(StandardOptions).streaming = True
        machine = Resources(options.gpus, options.cpus, options.gpu_memory_gb, options.model_copies)
        resources.check(machine, options.device)
        runners.settle(beam_options, options.accelerator, machine)
        if runners.name(beam_options) == "dataflow":
            _check_in_reach(options)
        storage = Storage(options.storage_options)
        # Windows that are there stay, each in its own folder.
        goes_on = options.overwrite or (is_unbounded(options) and options.resume)
        output.check_may_write(storage, options.output, goes_on, options.resume)
        for pattern in options.input:
            if unbounded.is_pubsub(pattern):
                unbounded.ReadPubSub(pattern)
            elif options.watch is None:
                inputs.check(storage, pattern)
            else:  # there may be nothing yet
                storage.check(pattern)
        if options.tarred_audio is not None:
            shards.tars_of(storage, options.tarred_audio)
        if options.allowed_audio_prefixes is not None:
            AllowedPrefixes.of(options.allowed_audio_prefixes)
        routing = _routing(storage, options)
        names = [options.model_name or ""] if routing is None else routing.names
        for name in names:
            if model_files.is_file_name(name):
                storage.check(name)
                if is_local(name) and runners.is_local(beam_options):
                    model_files.local_copy(storage, name)
    return beam_options


def scores(options: TranscribeOptions) -> bool:
    """Whether transcripts are scored or filtered."""
    return options.quality or (options.reference_key or options.keep) is not None


def _needs_duration(options: TranscribeOptions) -> bool:
    """Whether something asked for needs to know how long each row's audio is."""
    return scores(options) or not set(sharded_formats.FORMATS).isdisjoint(options.formats or ())


def is_unbounded(options: TranscribeOptions) -> bool:
    """Whether the input has no end."""
    return options.watch is not None or any(map(unbounded.is_pubsub, options.input))


def _check_unbounded(options: TranscribeOptions, runner: str) -> None:
    messages = [each for each in options.input if unbounded.is_pubsub(each)]
    if messages and runner != "dataflow":
        raise ValueError(
            f"the input {messages[0]!r} is read by Dataflow alone, as Beam's other runners have no "
            "source for Pub/Sub: give --runner=DataflowRunner, or files and --watch"
        )
    if messages and options.watch is not None:
        raise ValueError("--watch looks for files, and Pub/Sub brings its messages by itself")
    for flag, given, why in (
        ("--tarred_audio", options.tarred_audio, "the tars of a data set are known at its start"),
        ("--overwrite", options.overwrite, "each window is written into a folder of its own"),
        ("--no_retry_failures", not options.retry_failures, "no row is done again"),
    ):
        if given:
            raise ValueError(f"{flag} is not for an input without an end: {why}")


def _routing(storage: Storage, options: TranscribeOptions) -> Routing | None:
    """The routes of a job, if it has several models. Raises ValueError for some that cannot be."""
    if options.models is None:
        return None
    return route_files.load(
        storage, options.models, {}, options.route_key, options.unmapped, options.model_name
    )


def _check_in_reach(options: TranscribeOptions) -> None:
    named = [("--output", options.output), *(("--input", each) for each in options.input)]
    for flag, path in named:
        if is_local(path):
            raise ValueError(
                f"{flag}={path} is of this machine's disk, which Dataflow's workers do not have: "
                "name a place in a bucket, as gs://bucket/folder"
            )


def _timestamps(options: TranscribeOptions) -> list[str]:
    """The times that are asked for, and those that a format needs."""
    asked = list(dict.fromkeys(options.timestamps or []))
    timed = [each for each in options.formats or [] if each in TIMED]
    return [*asked, "word"] if timed and "word" not in asked else asked


def is_finished(options: TranscribeOptions) -> bool:
    """Whether there is nothing to do for ``--resume``.

    Raises:
        UsageError: the output folder cannot be looked at.
    """
    with _as_usage_errors():
        storage = Storage(options.storage_options)
        if is_unbounded(options):
            return False
        if not (options.resume and output.is_finished(storage, options.output)):
            return False
        _clear(storage, options.output)
        return True


def _clear(storage: Storage, folder: str) -> None:
    """Removes the journal that a run has left which was killed at its very end."""
    journal = Journal(folder, storage)
    if storage.names_in(journal.folder):
        with contextlib.suppress(FolderBusyError):  # of a run that is about to replace the results
            FolderLock.take(storage, lock_in(folder))
            journal.remove()


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
            build(pipeline, options, lock, not runners.ends_with_launcher(beam_options))
        with lock.kept_alive(lambda error: emergency_exit.exit_now(str(error))):
            result = pipeline.run()
            if address := dataflow.address(result, beam_options):
                print(f"beam-asr: the job is at {address}", file=sys.stderr)
            if runners.waits(beam_options):
                result.wait_until_finish()
        if not runners.waits(beam_options) and not is_unbounded(options):
            releaser.lock = None  # the workers keep it; in a stream, each run has its own folders
            lock.leave(FIRST_SIGN_SECONDS)
    finally:
        releaser.save()


@dataclasses.dataclass(eq=False)
class _Releaser:
    lock: FolderLock | None

    def save(self) -> None:
        if self.lock is not None:
            self.lock.release()


def _beam_options(args: list[str]) -> PipelineOptions:
    try:
        options = PipelineOptions(args)
        options.get_all_options(retain_unknown_options=True)  # parses them
    except SystemExit:  # Beam's parser has said what is wrong
        raise UsageError(f"Beam refuses its flags: {' '.join(args)}") from None
    known = {flag for group in PipelineOptions.__subclasses__() for flag in _known_flags(group)}
    for arg in args:
        flag = arg.partition("=")[0]
        if flag.startswith("--") and flag not in known:
            fields = dataclasses.fields(TranscribeOptions)
            ours = [f"--{field.name}" for field in fields if field.name != "beam_args"]
            own = runners.has_own_flags(options)
            close = difflib.get_close_matches(flag, [*ours, *known], 1, cutoff=0.9 if own else 0.6)
            if own and not close:
                continue
            meant = f"; did you mean {close[0]}?" if close else ""
            raise UsageError(f"unknown flag {flag}: it is neither ours nor Beam's{meant}")
    # Nothing of the launching session is needed by the workers: they import the package.
    options.view_as(SetupOptions).save_main_session = False
    return options


def _known_flags(group: type[PipelineOptions]) -> set[str]:
    from apache_beam.options.pipeline_options import _BeamArgumentParser

    parser = _BeamArgumentParser(add_help=False)
    group._add_argparse_args(parser)
    return set(parser._option_string_actions)


@contextlib.contextmanager
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
