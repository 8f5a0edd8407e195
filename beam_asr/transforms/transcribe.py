"""Rows to transcripts and failures: a PTransform."""

from __future__ import annotations

import dataclasses
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsSingleton, PCollection, TaggedOutput

from beam_asr.audio.clip_reader import UNKNOWN_SECONDS, ClipReader
from beam_asr.audio.segment_planner import Planner
from beam_asr.inputs import nemo_tarred
from beam_asr.models import files
from beam_asr.models import routing as routes
from beam_asr.models.devices import resources
from beam_asr.models.engine import ModelSpec
from beam_asr.models.routing import Routing, load
from beam_asr.outputs import failure_limit
from beam_asr.outputs.journal import Journal
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Record
from beam_asr.records.row import Row
from beam_asr.records.row_ids import group_of_id
from beam_asr.records.statistics import Statistics, total
from beam_asr.records.work import Clip, NemoTar, SegmentGroup, TarredClip, WebDatasetTar, is_part
from beam_asr.settings import (
    AUDIO_CHECKS,
    CONFIDENCES,
    DEVICES,
    PARTIALS,
    SEGMENTATIONS,
    TIMESTAMPS,
    ModelRoute,
    Resources,
    TranscriptFields,
)
from beam_asr.storage.allow_list import AllowList
from beam_asr.storage.storage import Storage
from beam_asr.transforms.bundles import BatchWithinBundle
from beam_asr.transforms.chunk_recognizer import CHUNK_SECONDS, RecognizeSettings
from beam_asr.transforms.job_context import JobContext
from beam_asr.transforms.packing import PackedReshuffle
from beam_asr.transforms.plan_segments import PlanSegments
from beam_asr.transforms.prepare_rows import AssignRowIds, CheckRows, JobStart
from beam_asr.transforms.recognize import RecognizeChunk
from beam_asr.transforms.results import Transcribed
from beam_asr.transforms.stitch_segments import StitchRows

OUTPUTS = ("transcripts", "failures", "filtered", "statistics")  # of steps that end rows


class Transcribe(beam.PTransform):
    """Transcribes rows with a NeMo model that each worker process loads once.

    Takes what ``ReadManifest`` gives, or dicts with the fields of a manifest's row. Gives a
    ``Transcribed``. Every row ends in one of ``transcripts`` and ``failures``, once.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file; None where
            there are ``models``, else the default beside them.
        filepath_key: the field that names the audio.
        pred_text_key: the field that the text goes into.
        batch_size: most clips in one forward pass.
        max_batch_seconds: most padded seconds in one forward pass (clips x longest clip); None
            chooses by the device.
        device: ``auto`` takes a GPU if there is one, ``cuda`` fails without one, ``cpu``.
        channel: the channel of the audio to take, from 0; None averages them.
        decoder: ``rnnt`` or ``ctc`` of a hybrid model; None is the model's own choice.
        precision: of the model's weights: ``fp32``, ``bf16``, or ``auto``, which is bf16 on a GPU
            that has it.
        tarred_audio: the tars of a tarred data set of NeMo's, in which the rows' audio is: path,
            URI, glob or brace expansion, or several.
        storage_options: for each protocol what its fsspec file system is opened with.
        audio_timeout: seconds that reading a file may take.
        max_concurrent_reads: most files that a worker process reads at one time.
        allowed_audio_prefixes: what a row may point to; None is everything.
        batch_timeout: seconds that a forward pass may take; then the process ends, so that the
            runner tries again in another.
        accelerator: on Dataflow, the GPU of the workers of this step alone, as
            ``type:nvidia-l4;count:1;install-nvidia-driver``.
        model_copies: worker processes that share a GPU.
        gpus: of a worker machine, each with a process of its own, of which the runner must know;
            1/n has n processes share one.
        cpus: that a worker process may use.
        gpu_memory_gb: of its GPU's memory, that a worker process may use.
        segmentation: how a long row is cut into segments: ``vad`` in pauses, leaving silence out;
            ``fixed`` by the clock, with overlaps; ``none`` gives each row to the model in one
            piece.
        max_segment_seconds: a longer row is cut into segments of at most so many seconds; None is
            what suits the model.
        attention: of the encoder: ``full``, ``local`` or ``chunked``
            (`beam_asr.models.nemo.long_context`).
        partial: whether a long row of which some segments failed does ``fail``, or to ``keep`` the
            others, with ``segments_failed``.
        timestamps: which times to give, of ``word``, ``segment`` and ``char``: in ``words``,
            ``segments`` and ``chars``, in seconds from the beginning of the file.
        confidence: to give that of each ``word`` or of the ``row``; None gives none.
        n_best: how many texts to give with their scores, in ``n_best``; 0 gives none.
        models: several models, and which of them takes which row: what a file of routes says
            (`routes`), as ``{"models": {"en": "a.nemo"}}``; or its path or URI; or pairs, as
            ``["en=a.nemo"]``. The other arguments are what they have in common.
        route_key: the field by which the model of a row is chosen; None is ``lang``, or what the
            routes say.
        unmapped: whether rows that no route takes ``fail``, or the ``default`` model takes them;
            None is the latter, if there is one.
        source_lang: the language spoken, for a model that is told by a prompt; what a row says of
            itself comes first.
        target_lang: the language written, likewise.
        task: ``transcribe`` or ``translate``, likewise.
        pnc: ``yes`` for punctuation and capitals or ``no``, likewise.
        min_duration: seconds; shorter audio fails.
        max_duration: seconds; longer audio fails.
        required_sample_rate: in Hz; audio whose file has another one fails.
        required_channels: audio whose file has more or fewer channels fails.
        audio_checks: whether the rows that the four above refuse do ``fail``, or are to ``filter``.
        max_failure_fraction: the job fails while it runs if a larger part of the rows, and at least
            100, failed; None leaves it to the end.
        journal: where what is done is kept for another run; None keeps nothing. Rows are grouped
            for it, so the input must be bounded and in the global window.

    Raises:
        ValueError: an argument is out of its range, or the rows are without an end and in the
            global window, in which long ones cannot be put together; when the graph is built.
        NoInputError: no tar is there.
    """

    def __init__(
        self,
        model_name: str | None = None,
        filepath_key: str = "audio_filepath",
        pred_text_key: str = "pred_text",
        batch_size: int = 128,
        max_batch_seconds: float | None = None,
        device: str = "auto",
        channel: int | None = None,
        decoder: str | None = None,
        precision: str = "auto",
        tarred_audio: str | Iterable[str] | None = None,
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
        audio_timeout: float = 300.0,
        max_concurrent_reads: int = 32,
        allowed_audio_prefixes: Iterable[str] | None = None,
        batch_timeout: float = 1800.0,
        accelerator: str | None = None,
        model_copies: int = 1,
        gpus: float | None = None,
        cpus: int | None = None,
        gpu_memory_gb: float | None = None,
        segmentation: str = "vad",
        max_segment_seconds: float | None = None,
        attention: str = "full",
        partial: str = "fail",
        timestamps: str | Iterable[str] | None = None,
        confidence: str | None = None,
        n_best: int = 0,
        models: str | Mapping[str, Any] | Sequence[str] | None = None,
        route_key: str | None = None,
        unmapped: str | None = None,
        source_lang: str | None = None,
        target_lang: str | None = None,
        task: str | None = None,
        pnc: str | None = None,
        min_duration: float | None = None,
        max_duration: float | None = None,
        required_sample_rate: int | None = None,
        required_channels: int | None = None,
        audio_checks: str = "fail",
        max_failure_fraction: float | None = None,
        journal: Journal | None = None,
    ):
        super().__init__()
        if filepath_key == pred_text_key:
            raise ValueError(f"filepath_key and pred_text_key are both {filepath_key!r}")
        timestamps = (timestamps,) if isinstance(timestamps, str) else tuple(timestamps or ())
        for name, value, allowed in (
            ("device", device, DEVICES),
            ("segmentation", segmentation, SEGMENTATIONS),
            ("audio_checks", audio_checks, AUDIO_CHECKS),
            ("partial", partial, PARTIALS),
            ("confidence", confidence, (None, *CONFIDENCES)),
            *(("timestamps", each, TIMESTAMPS) for each in timestamps),
        ):
            if value not in allowed:
                known = ", ".join(filter(None, allowed))
                raise ValueError(f"{name} is {value!r}, but must be one of {known}")
        if n_best < 0:
            raise ValueError(f"n_best is {n_best}, but must be at least 0")
        if not audio_timeout > 0:
            raise ValueError(f"audio_timeout is {audio_timeout}, but must be above 0")
        if not batch_timeout > 0:
            raise ValueError(f"batch_timeout is {batch_timeout}, but must be above 0")
        if max_failure_fraction is not None and not 0 <= max_failure_fraction <= 1:
            raise ValueError(f"max_failure_fraction is {max_failure_fraction}, not within 0 and 1")
        if max_concurrent_reads < 1:
            raise ValueError(
                f"max_concurrent_reads is {max_concurrent_reads}, but must be at least 1"
            )
        storage = Storage(storage_options or {})
        prefixes = allowed_audio_prefixes
        guarded = storage
        if prefixes is not None:
            guarded = Storage(storage.options, AllowList.of(prefixes))
        common: dict[str, Any] = {
            "decoder": decoder,
            "precision": precision,
            "attention": attention,
            "batch_size": batch_size,
            "max_batch_seconds": max_batch_seconds,
            "max_segment_seconds": max_segment_seconds,
            "channel": channel,
            "source_lang": source_lang,
            "target_lang": target_lang,
            "task": task,
            "pnc": pnc,
            "min_duration": min_duration,
            "max_duration": max_duration,
            "required_sample_rate": required_sample_rate,
            "required_channels": required_channels,
        }
        if models is not None:
            given = [models] if isinstance(models, str) else models
            routing = load(storage, given, common, route_key, unmapped, model_name)
        elif model_name is not None:
            routing = routes.single(ModelRoute(model_name, **common))
        else:
            raise ValueError("neither model_name nor models is given")
        names = routing.names if routing.is_multi_model else ()
        self._context = context = JobContext(
            run=uuid.uuid4().hex,
            journal=journal,
            filepath_key=filepath_key,
            transcript_fields=TranscriptFields(
                pred_text_key=pred_text_key,
                timestamps=timestamps,
                confidence=confidence,
                n_best=n_best,
                models=names,
            ),
            routing=routing,
            keep_partial=partial == "keep",
            filter_refused=audio_checks == "filter",
            max_failure_fraction=max_failure_fraction,
        )
        self._segmentation = segmentation
        self._tars = None if tarred_audio is None else nemo_tarred.find_tars(storage, tarred_audio)
        machine = Resources(gpus, cpus, gpu_memory_gb, model_copies)
        resources.check(machine, device)
        self._accelerator = resources.accelerator_hint(accelerator, machine.copies)
        # What two runs must have in common for one to go on with the other.
        self._identity = {
            **_identity(routing),
            "device": device,
            "filepath_key": filepath_key,
            "segmentation": segmentation,
            "partial": partial,
            "timestamps": bool(timestamps),
            "confidence": confidence is not None,
            "n_best": n_best,
        }
        if journal is not None:
            contents = [_content(storage, use.model_name) for use in routing.routes]
            self._identity["model_content"] = contents if routing.is_multi_model else contents[0]
            journal.check(self._identity)
        times = "required" if timestamps else None if segmentation == "none" else "wanted"
        self._settings = [
            RecognizeSettings(
                context=context,
                spec=ModelSpec(
                    model_name=use.model_name,
                    device=device,
                    decoder=use.decoder,
                    precision=use.precision,
                    storage=storage,
                    batch_timeout=batch_timeout,
                    resources=machine,
                    attention=use.attention,
                    times=times,
                    confidence=confidence is not None,
                    n_best=n_best,
                ),
                reader=ClipReader(
                    storage=guarded,
                    channel=use.channel,
                    timeout_seconds=audio_timeout,
                    concurrency=max_concurrent_reads,
                    checks=use.checks,
                ),
                tar_storage=storage,
                planner=Planner(
                    storage=guarded,
                    channel=use.channel,
                    timeout_seconds=audio_timeout,
                    segmentation=segmentation,
                    keep_parts=partial == "keep",
                    checks=use.checks,
                ),
                prompt=use.prompt,
                route=route,
                max_segment_seconds=use.max_segment_seconds,
                batch_size=use.batch_size,
                max_batch_seconds=use.max_batch_seconds,
            )
            for route, use in enumerate(routing.routes)
        ]

    def expand(self, rows: PCollection[Row | Record | WebDatasetTar]) -> Transcribed:
        context = self._context
        check = CheckRows(
            context.filepath_key, self._tars, context.journal is not None, context.routing
        )
        checked = rows | "Validate" >> beam.ParDo(check).with_outputs(
            "failures", "statistics", main="work"
        )
        ended: list[Any] = []
        work, start = checked.work, None
        if context.journal is not None:
            start = self._start(checked.statistics)
            identified = self._grouped(work, context.journal) | "Identify" >> wait_for(
                start, AssignRowIds(context)
            ).with_outputs(*OUTPUTS, main="work")
            work = identified.work
            ended.append(identified)
        if self._tars is not None:
            work = self._by_shard(work, self._tars)
        if not context.routing.is_multi_model and (
            self._tars is not None or context.journal is None
        ):
            work |= "SpreadWork" >> PackedReshuffle()
        recognized = self._recognized("", work, start)
        ended += recognized
        failures, filtered, statistics = [checked.failures], [], [checked.statistics]
        if self._segmentation != "none":
            if not rows.is_bounded and rows.windowing.is_default():
                raise ValueError(
                    "rows without an end, in the global window, cannot be put together from "
                    "segments: give them windows, as beam.WindowInto(FixedWindows(600)), or choose "
                    "segmentation='none'"
                )
            planned, segments, stitched = self._long(recognized, start)
            ended += segments
            failures += [planned.failures, stitched.failures]
            filtered.append(planned.filtered)
            statistics.append(stitched.statistics)
        transcripts = [each.transcripts for each in ended]
        if self._segmentation != "none":
            transcripts.append(stitched.transcripts)
        failures += [each.failures for each in ended]
        filtered += [each.filtered for each in ended]
        statistics += [each.statistics for each in ended]
        # What the model did must not be done again because a writer failed.
        return Transcribed(
            tuple(transcripts) | "KeepTranscripts" >> PackedReshuffle(),
            tuple(failures) | "KeepFailures" >> PackedReshuffle(),
            statistics | "AllStatistics" >> beam.Flatten().with_output_types(Statistics),
            tuple(filtered) | "KeepFiltered" >> PackedReshuffle(),
        )

    def _recognized(
        self, of: str, work: PCollection[Any], start: PCollection[JobStart] | None
    ) -> list[Any]:
        """The steps that have the models, each after its chunks.

        Each model has steps of its own, so that a worker which takes a bundle of theirs needs one
        model for it; a runner that does step after step never swaps them.
        """
        if not self._context.routing.is_multi_model:
            named = [("", work)]
        else:
            tags = [str(route) for route in range(len(self._settings))]
            split = work | f"ByModel{of}" >> beam.FlatMap(_by_route, len(tags)).with_outputs(*tags)
            named = [
                (f"[{tag}]", split[tag] | f"Spread{of}[{tag}]" >> PackedReshuffle()) for tag in tags
            ]
        steps = []
        for settings, (name, part) in zip(self._settings, named, strict=True):
            chunks = self._in_windows(f"Windows{of}{name}", part)
            model = wait_for(start, RecognizeChunk(settings))
            if self._accelerator is not None:
                model = model.with_resource_hints(accelerator=self._accelerator)
            outputs = model.with_outputs(*OUTPUTS, "long", "segments", "rows")
            steps.append(chunks | f"Transcribe{of}{name}" >> outputs)
        return steps

    def _long(
        self, recognized: list[Any], start: PCollection[JobStart] | None
    ) -> tuple[Any, list[Any], Any]:
        """Plans the long rows, has their segments recognized, and puts them together.

        Gives the outputs of these three steps, of which the second is one for each model.
        """
        plan = PlanSegments(self._context, [each.planner for each in self._settings])
        planned = (
            [each.long for each in recognized]
            | "AllLong" >> beam.Flatten()
            | "SpreadLong" >> beam.Reshuffle()
            | "PlanSegments"
            >> beam.ParDo(plan).with_outputs("rows", "failures", "filtered", main="groups")
        )
        groups = planned.groups | "SpreadStretches" >> beam.Reshuffle()
        segments = self._recognized("Segments", groups, start)
        parts = [part for each in recognized for part in (each.rows, each.segments)]
        stitched = (
            (*parts, planned.rows, *(each.segments for each in segments))
            | "AllSegments" >> beam.Flatten()
            | "ByRow" >> beam.GroupByKey()
            | "Stitch" >> beam.ParDo(StitchRows(self._context)).with_outputs(*OUTPUTS)
        )
        return planned, segments, stitched

    def _in_windows(self, name: str, work: PCollection[Any]) -> PCollection[list[Any]]:
        # Fixed sizes: left to adapt, BatchElements learns its own from measured times.
        if work.is_bounded:
            return work | name >> beam.BatchElements(
                min_batch_size=CHUNK_SECONDS,
                max_batch_size=CHUNK_SECONDS,
                element_size_fn=_chunk_seconds,
            )
        return work | name >> beam.ParDo(BatchWithinBundle(_chunk_seconds, CHUNK_SECONDS))

    def _start(self, statistics: PCollection[Statistics]) -> PCollection[JobStart]:
        """What is known when all rows have been read, and that the journal is this run's."""
        return (
            statistics
            | "SumRows" >> beam.CombineGlobally(total)
            | "Begin" >> beam.Map(_start_job, self._context, self._identity)
        )

    def _grouped(self, work: PCollection[Any], journal: Journal) -> PCollection[Any]:
        """Rows that are equal together, and with them what an earlier run has made of them."""
        if journal.resume:
            done = (
                work.pipeline
                | "Journal" >> beam.Create([journal])
                | "FindWindows" >> beam.FlatMap(Journal.names)
                | "SpreadWindows" >> beam.Reshuffle()
                | "ReadWindows" >> beam.FlatMap(_outcomes, journal)
            )
            work = (work, done) | "WorkAndDone" >> beam.Flatten()
        return work | "Group" >> beam.GroupByKey()

    def _by_shard(self, work: PCollection[Any], tars: Mapping[int, str]) -> PCollection[Any]:
        """Clips in tars of a data set to the tars; other work stays as it is."""
        split = work | "InTars" >> beam.ParDo(_split).with_outputs("in_tars", main="others")
        every = work.pipeline | "TarredAudio" >> beam.Create(list(tars.items()))
        by_shard = {"tars": every, "clips": split.in_tars} | "ByShard" >> beam.CoGroupByKey()
        return (
            split.others,
            by_shard | "Shards" >> beam.FlatMap(_shards),
        ) | "AllWork" >> beam.Flatten()


def _content(storage: Storage, model_name: str) -> str | None:
    """What tells a model file from others; None where it cannot be seen from here."""
    if not files.is_file_name(model_name):
        return None
    try:
        return files.digest(storage, model_name)
    except FileNotFoundError:
        return None


def _start_job(
    statistics: Statistics, context: JobContext, identity: Mapping[str, Any]
) -> JobStart:
    rows = {"rows": statistics.rows_in, "rows_digest": f"{statistics.rows_digest:x}"}
    if context.journal is not None:
        context.journal.begin({**identity, **rows}, context.run)
    if context.max_failure_fraction is not None and not statistics.tars:
        failure_limit.check_invalid(statistics, context.max_failure_fraction)
    return JobStart(None if statistics.tars else statistics.rows_in)


def wait_for(start: PCollection[JobStart] | None, step: beam.DoFn) -> beam.ParDo:
    """A step that processes nothing before a job's start; at once if there is nothing to await.

    Args:
        step: takes what is known of the start as ``start``.
    """
    return beam.ParDo(step) if start is None else beam.ParDo(step, start=AsSingleton(start))


def _outcomes(name: str, journal: Journal) -> Iterator[tuple[str, Outcome]]:
    for outcome in journal.read(name):
        if is_part(outcome.row_id):  # looked up when its row is planned again
            continue
        if outcome.error is None or not journal.retry_failures:
            yield group_of_id(outcome.row_id), outcome


def _split(item: Clip | TarredClip | WebDatasetTar) -> Iterator[Any]:
    if isinstance(item, TarredClip):
        yield beam.pvalue.TaggedOutput("in_tars", (item.number, item))
    else:
        yield item


def _shards(by_shard: tuple[int, dict[str, list[Any]]]) -> Iterator[NemoTar]:
    """A tar, for each model that its clips are for; one without clips is counted by the first."""
    (tar,), items = by_shard[1]["tars"], list(by_shard[1]["clips"])
    left: dict[int, list[Clip]] = defaultdict(list)
    for item in items:
        if not item.done:
            left[item.clip.route].append(item.clip)
    for route, clips in left.items() or [(0, [])]:
        mine = {id(clip) for clip in clips}
        others = [item.clip.audio for item in items if id(item.clip) not in mine]
        yield NemoTar(tar, clips, others, route)


def _by_route(
    item: Clip | SegmentGroup | WebDatasetTar | NemoTar, models: int
) -> Iterator[TaggedOutput]:
    """An item to its model; a tar of which nobody has looked into the rows to each."""
    if isinstance(item, WebDatasetTar):
        for route in range(models):
            yield TaggedOutput(str(route), item._replace(route=route))
        return
    route = item.clip.route if isinstance(item, SegmentGroup) else item.route
    yield TaggedOutput(str(route), item)


def _identity(routing: Routing) -> dict[str, Any]:
    """What two runs must have in common of their models."""
    uses = [dataclasses.asdict(use) for use in routing.routes]
    for use in uses:  # what changes no text
        del use["batch_size"], use["max_batch_seconds"]
    if not routing.is_multi_model:
        return uses[0]
    return {
        "models": uses,
        "route_key": routing.key,
        "routes": dict(routing.by_value),
        "rules": [[rule.when.text, rule.use] for rule in routing.rules],
        "default_route": routing.default,
    }


def _chunk_seconds(item: Clip | SegmentGroup | WebDatasetTar | NemoTar) -> int:
    """An item's size in a window; none is above the window's, which BatchElements cannot take."""
    if isinstance(item, SegmentGroup):
        seconds = item.seconds
    elif isinstance(item, Clip):
        seconds = UNKNOWN_SECONDS if item.duration is None else item.duration
    else:
        return CHUNK_SECONDS - 1
    return min(max(1, round(seconds)), CHUNK_SECONDS - 1)
