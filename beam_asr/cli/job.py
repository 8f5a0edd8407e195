"""From options to a graph."""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import FixedWindows

from beam_asr._version import __version__
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
        max_failure_fraction=None if journal is None else options.max_failure_fraction,
        journal=journal,
    )
    routes = routing(Storage(options.storage_options), options)
    lang_key = "lang" if routes is None else routes.lang_key
    if needs_scoring(options):
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


def needs_scoring(options: TranscribeOptions) -> bool:
    """Whether transcripts are scored or filtered."""
    return options.quality or (options.reference_key or options.keep) is not None


def is_unbounded(options: TranscribeOptions) -> bool:
    """Whether the input has no end."""
    return options.watch is not None or any(map(streaming.is_pubsub, options.input))


def routing(storage: Storage, options: TranscribeOptions) -> Routing | None:
    """The routes of a job, if it has several models. Raises ValueError for some that cannot be."""
    if options.models is None:
        return None
    return load(
        storage, options.models, {}, options.route_key, options.unmapped, options.model_name
    )


def _timestamps(options: TranscribeOptions) -> list[str]:
    """The times that are asked for, and those that a format needs."""
    asked = list(dict.fromkeys(options.timestamps or []))
    timed = [each for each in options.formats or [] if each in TIMED]
    return [*asked, "word"] if timed and "word" not in asked else asked


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
