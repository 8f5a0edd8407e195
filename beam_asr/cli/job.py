"""From options to a graph."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import FixedWindows

from beam_asr._version import __version__
from beam_asr.cli.messages import FLAGS
from beam_asr.cli.options import TranscribeOptions
from beam_asr.models.routing import Routing, load
from beam_asr.outputs.folder_lock import FolderLock
from beam_asr.outputs.formats.registry import TIMED
from beam_asr.outputs.journal import Journal
from beam_asr.storage.storage import Storage
from beam_asr.transforms import streaming
from beam_asr.transforms.read_manifest import ReadManifest
from beam_asr.transforms.score import ScoreTranscripts
from beam_asr.transforms.transcribe import Transcribe
from beam_asr.transforms.write_manifest import WriteManifest


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
        SetupError: the options do not go together, or not with what is in the output folder.
    """
    # The journal is of an input with an end; else each window that is whole is what is kept.
    journal = None
    if not is_unbounded(options):
        journal = Journal(
            options.outputs.output,
            Storage(options.reading.storage_options),
            options.outputs.resume,
            options.outputs.retry_failures,
            lock,
            workers_beat,
        )
    rows = pipeline | "ReadManifest" >> ReadManifest(
        options.inputs.input,
        options.names.filepath_key,
        options.reading.storage_options,
        watch=options.inputs.watch,
        resumed=options.outputs.output if options.outputs.resume else None,
    )
    if is_unbounded(options):
        rows |= "ByTime" >> beam.WindowInto(FixedWindows(options.outputs.output_window))
    transcribe = Transcribe(
        options.model,
        names=options.names,
        routing=options.routing,
        batching=options.batching,
        resources=options.resources,
        reading=options.reading,
        limits=options.limits,
        long_audio=options.long_audio,
        transcripts=dataclasses.replace(options.transcripts, timestamps=_timestamps(options)),
        tarred_audio=options.inputs.tarred_audio,
        max_failure_fraction=None if journal is None else options.outputs.max_failure_fraction,
        journal=journal,
    )
    records = rows | "Transcribe" >> transcribe
    lang_key = transcribe.lang_key
    if needs_scoring(options):
        records |= "ScoreTranscripts" >> ScoreTranscripts(
            options.names.reference_key,
            options.scoring.normalizer,
            options.scoring.quality,
            options.scoring.keep,
            options.names.pred_text_key,
            lang_key,
            by_model=options.routing.models is not None,
        )
    (
        records
        | "WriteManifest"
        >> WriteManifest(
            options.outputs.output,
            overwrite=options.outputs.overwrite,
            num_shards=options.outputs.num_shards,
            compression=options.outputs.compression,
            max_failure_fraction=options.outputs.max_failure_fraction,
            details=_details(options),
            storage_options=options.reading.storage_options,
            journal=journal,
            formats=options.outputs.formats or (),
            filepath_key=options.names.filepath_key,
            pred_text_key=options.names.pred_text_key,
            lang_key=lang_key,
            tarred=options.inputs.tarred_audio is not None,
            flags=FLAGS,
        )
    )


def needs_scoring(options: TranscribeOptions) -> bool:
    """Whether transcripts are scored or filtered."""
    condition, reference = options.scoring.keep, options.names.reference_key
    return options.scoring.quality or condition is not None or reference is not None


def is_unbounded(options: TranscribeOptions) -> bool:
    """Whether the input has no end."""
    return options.inputs.watch is not None or any(map(streaming.is_pubsub, options.inputs.input))


def routing(storage: Storage, options: TranscribeOptions) -> Routing | None:
    """The routes of a job, if it has several models. Raises SetupError for some that cannot be."""
    given = options.routing
    if given.models is None:
        return None
    return load(
        storage, given.models, {}, given.route_key, given.unmapped, options.model.model_name
    )


def _timestamps(options: TranscribeOptions) -> tuple[str, ...]:
    """The times that are asked for, and those that a format needs."""
    asked = tuple(dict.fromkeys(options.transcripts.timestamps or ()))
    timed = [each for each in options.outputs.formats or () if each in TIMED]
    return (*asked, "word") if timed and "word" not in asked else asked


def _details(options: TranscribeOptions) -> dict[str, Any]:
    asked = options.values
    # Their values may be secrets.
    asked["storage_options"] = {
        protocol: sorted(given) for protocol, given in options.reading.storage_options.items()
    }
    return {
        "options": asked,
        "versions": {
            "beam_asr": __version__,
            "apache_beam": beam.__version__,
            "python": platform.python_version(),
        },
    }
