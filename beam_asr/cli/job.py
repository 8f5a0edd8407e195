"""Builds the graph of a job from its options."""

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
from beam_asr.outputs.formats.registry import formats_of
from beam_asr.outputs.journal import Journal, part_of_run
from beam_asr.storage.storage import Storage
from beam_asr.transforms import streaming
from beam_asr.transforms.read_manifest import GivenRows, ReadManifest
from beam_asr.transforms.score import ScoreTranscripts
from beam_asr.transforms.transcribe import Transcribe
from beam_asr.transforms.write_manifest import WriteManifest


def build(
    pipeline: beam.Pipeline,
    options: TranscribeOptions,
    lock: FolderLock | None = None,
    workers_renew: bool = False,
) -> None:
    """Adds the whole job to a pipeline.

    Args:
        lock: the lock of the output folder.
        workers_renew: whether workers renew the lock, as they must if they outlive this process.

    Raises:
        SetupError: the options conflict, or do not fit what is in the output folder.
    """
    journal = _journal(options, lock, workers_renew)
    rows = pipeline | "ReadManifest" >> row_source(options)
    if is_unbounded(options):  # whose ignored files are logged, and in no window's summary
        rows |= "ByTime" >> beam.WindowInto(FixedWindows(options.outputs.output_window))
    transcribe = recognition(options, journal)
    records = rows | "Transcribe" >> transcribe
    if needs_scoring(options):
        records |= "ScoreTranscripts" >> score_step(options, transcribe.lang_key)
    _ = records | "WriteManifest" >> write_step(options, journal, transcribe.lang_key)


def row_source(options: TranscribeOptions) -> ReadManifest | GivenRows:
    """Returns the step that reads the rows."""
    if options.rows is not None:
        return GivenRows(options.rows)
    return ReadManifest(
        options.inputs.input,
        options.names.filepath_key,
        options.reading.storage_options,
        watch=options.inputs.watch,
        resumed=options.outputs.output if options.outputs.resume else None,
        limit=options.inputs.limit,
    )


def recognition(options: TranscribeOptions, journal: Journal | None) -> Transcribe:
    """Returns the step that transcribes the rows."""
    return Transcribe(
        options.model,
        names=options.names,
        routing=options.routing,
        batching=options.batching,
        resources=options.resources,
        reading=options.reading,
        limits=options.limits,
        long_audio=options.long_audio,
        transcripts=dataclasses.replace(options.transcripts, timestamps=timestamps(options)),
        tarred_audio=options.inputs.tarred_audio,
        max_failure_fraction=None if journal is None else options.outputs.max_failure_fraction,
        journal=journal,
    )


def _journal(
    options: TranscribeOptions, lock: FolderLock | None, workers_renew: bool
) -> Journal | None:
    """Returns the journal of a bounded input; an unbounded one has its finished windows instead."""
    if is_unbounded(options):
        return None
    outputs, storage = options.outputs, Storage(options.reading.storage_options)
    goes_on = outputs.resume or outputs.append
    return Journal(
        outputs.output,
        storage,
        goes_on,
        outputs.retry_failures,
        lock,
        workers_renew,
        part=part_of_run(storage, outputs.output, outputs.append) if goes_on else 0,
    )


def score_step(options: TranscribeOptions, lang_key: str) -> ScoreTranscripts:
    """Returns the step that scores and filters transcripts."""
    return ScoreTranscripts(
        options.names.reference_key,
        options.scoring.normalizer,
        options.scoring.quality,
        options.scoring.keep,
        options.names.pred_text_key,
        lang_key,
        by_model=options.routing.models is not None,
        text_steps=options.scoring.text_steps or (),
        metrics=options.scoring.metrics or (),
    )


def write_step(
    options: TranscribeOptions,
    journal: Journal | None,
    lang_key: str,
    details: dict[str, Any] | None = None,
    earlier_seconds: float | None = None,
) -> WriteManifest:
    """Returns the step that writes the records; its last arguments are for results of other runs.

    Args:
        details: other fields of ``summary.json`` than those of the options.
        earlier_seconds: as of `WriteManifest`.
    """
    outputs = options.outputs
    return WriteManifest(
        outputs.output,
        overwrite=outputs.overwrite,
        num_shards=outputs.num_shards,
        compression=outputs.compression,
        max_failure_fraction=outputs.max_failure_fraction,
        details=details_of(options) | (details or {}),
        storage_options=options.reading.storage_options,
        journal=journal,
        formats=outputs.formats or (),
        filepath_key=options.names.filepath_key,
        pred_text_key=options.names.pred_text_key,
        lang_key=lang_key,
        channel_key=options.names.channel_key,
        tarred=options.inputs.tarred_audio is not None,
        flags=() if options.in_python else FLAGS,
        order=outputs.order,
        absolute_paths=outputs.absolute_paths,
        earlier_seconds=earlier_seconds,
    )


def needs_scoring(options: TranscribeOptions) -> bool:
    """Returns whether transcripts are scored or filtered."""
    condition, reference = options.scoring.keep, options.names.reference_key
    requested = options.scoring.quality or bool(options.scoring.text_steps)
    return requested or condition is not None or reference is not None


def is_unbounded(options: TranscribeOptions) -> bool:
    """Returns whether the input has no end."""
    return options.inputs.watch is not None or any(map(streaming.is_pubsub, options.inputs.input))


def routing(storage: Storage, options: TranscribeOptions) -> Routing | None:
    """Returns the routes of a job with several models; raises SetupError for invalid ones."""
    settings = options.routing
    if settings.models is None:
        return None
    return load(
        storage,
        settings.models,
        {},
        settings.route_key,
        settings.unmapped,
        options.model.model_name,
    )


def timestamps(options: TranscribeOptions) -> tuple[str, ...]:
    """Returns the requested times, and those that a format needs."""
    requested = tuple(dict.fromkeys(options.transcripts.timestamps or ()))
    timed = any(format.needs_words for format in formats_of(options.outputs.formats))
    return (*requested, "word") if timed and "word" not in requested else requested


def details_of(options: TranscribeOptions) -> dict[str, Any]:
    """Returns what ``summary.json`` says of the options and of versions."""
    values = options.values
    # Their values may be secrets.
    values["storage_options"] = {
        protocol: sorted(fields) for protocol, fields in options.reading.storage_options.items()
    }
    return {
        "options": values,
        "versions": {
            "beam_asr": __version__,
            "apache_beam": beam.__version__,
            "python": platform.python_version(),
        },
    }
