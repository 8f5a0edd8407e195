"""Transcribes rows to transcripts and failures, as a PTransform."""

from __future__ import annotations

import dataclasses
import functools
import typing
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsSingleton, PCollection, TaggedOutput

from beam_asr.audio.clip_reader import UNKNOWN_SECONDS, ClipReader
from beam_asr.audio.segment_planner import Planner
from beam_asr.errors import SetupError, StorageError
from beam_asr.inputs import nemo_tarred
from beam_asr.models import files
from beam_asr.models.devices import resources as devices
from beam_asr.models.engine import ENGINES, ModelSpec
from beam_asr.models.routing import ROUTE_GROUPS, ModelRoute, Routing, load, single
from beam_asr.outputs import failure_limit
from beam_asr.outputs.journal import Journal
from beam_asr.records.record import Record
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import (
    PYTHON,
    YAML,
    Group,
    Groups,
    Setting,
    all_settings,
    flatten,
    make_groups,
    unknown_setting,
)
from beam_asr.records.statistics import Statistics, total
from beam_asr.records.work import Clip, NemoTar, SegmentGroup, TarredClip, WebDatasetTar
from beam_asr.settings import (
    GROUPS,
    AudioLimits,
    BatchSettings,
    FieldNames,
    ModelSettings,
    ReadSettings,
    Resources,
    RoutingSettings,
    SegmentationSettings,
    TranscriptSettings,
)
from beam_asr.storage.allow_list import AllowList
from beam_asr.storage.retry import problem_of
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import without_secrets
from beam_asr.transcripts.transcript import TranscriptFields
from beam_asr.transforms.bundles import BatchWithinBundle
from beam_asr.transforms.choices import check_choice
from beam_asr.transforms.chunk_recognizer import CHUNK_SECONDS, RecognizeSettings
from beam_asr.transforms.job_context import JobContext
from beam_asr.transforms.packing import PackedReshuffle
from beam_asr.transforms.plan_segments import PlanSegments
from beam_asr.transforms.prepare_rows import (
    AssignRowIds,
    CheckRows,
    CheckWindowedRows,
    JobStart,
    group_equal_rows,
    rows_identity,
    sum_rows,
)
from beam_asr.transforms.read_manifest import input_statistics
from beam_asr.transforms.recognize import RecognizeChunk
from beam_asr.transforms.results import Transcribed
from beam_asr.transforms.stitch_segments import StitchRows

OUTPUTS = ("transcripts", "failures", "filtered", "statistics")  # of steps that finish rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscribeSettings:
    """Holds the groups of settings that ``Transcribe`` takes."""

    names: FieldNames
    model: ModelSettings
    routing: RoutingSettings
    batching: BatchSettings
    resources: Resources
    reading: ReadSettings
    limits: AudioLimits
    long_audio: SegmentationSettings
    transcripts: TranscriptSettings


TRANSCRIBE_GROUPS = typing.get_type_hints(TranscribeSettings)


def parameters(groups: Groups = GROUPS) -> dict[str, Setting]:
    """Returns the settings that ``Transcribe`` takes, by name."""
    return {
        setting.name: setting for setting in all_settings(groups) if setting.scope in (PYTHON, YAML)
    }


PARAMETERS = parameters()


class Transcribe(beam.PTransform):
    """Transcribes rows with a NeMo model that each worker process loads once.

    Takes the rows of ``ReadManifest``, or dicts with the fields of a manifest's row, whose values
    JSON can hold, or ``records.json_values`` converts: paths, NumPy's, dates. Returns a
    ``Transcribed``. Every row ends as exactly one transcript, failure or filtered row.

    Settings are passed by name, as in the flags of ``beam-asr transcribe`` (docs/flags.md), in
    groups (`beam_asr.settings`), or some in groups and others by name:

        Transcribe("a.nemo", batch_size=16, timestamps="word")
        Transcribe(ModelSettings(model_name="a.nemo"), batching=BatchSettings(batch_size=16))

    Args:
        model: the name of the model on Hugging Face or NGC, or the path or URI of a ``.nemo``
            file, or all of its settings; with ``models``, that of the rows that they do not take,
            or None.
        names: the names of the fields of rows.
        routing: several models, and which of them takes which row. Its ``models`` are the content
            of a file of routes (`models.routing`), as ``{"models": {"en": "a.nemo"}}``; or its path
            or URI; or pairs, as ``["en=a.nemo"]``. The other settings apply to all of them.
        batching: how clips are batched for a forward pass.
        resources: what a worker may use of its machine.
        reading: how audio is read.
        limits: which audio is transcribed at all.
        long_audio: how long rows are cut into segments.
        transcripts: what a transcript has beside its text.
        tarred_audio: the tars of a NeMo tarred data set, which hold the rows' audio: path, URI,
            glob or brace expansion, or several.
        max_failure_fraction: the job fails while it runs if a larger part of the rows, and at least
            100, failed; None sets no limit while it runs.
        journal: stores what is done, for a run that resumes this one; None stores nothing. It
            needs grouped rows, so the input must be bounded and in the global window.
        settings: other settings by name, each of `PARAMETERS`.

    Raises:
        TypeError: a setting is unknown, or is passed both by its name and in its group.
        SetupError: a value is out of its range.

    When the graph is built, it reads the file of routes, lists the tars, and reads the journal and
    the files of the models.

    Raises (then):
        SetupError: the routes are invalid, or the rows are unbounded and in the global window, in
            which long ones cannot be stitched.
        FileNotFoundError: the file of routes does not exist.
        NoInputError: no tar exists.
        ResumeError: the journal is another run's.
    """

    def __init__(
        self,
        model: str | ModelSettings | None = None,
        *,
        names: FieldNames | None = None,
        routing: RoutingSettings | None = None,
        batching: BatchSettings | None = None,
        resources: Resources | None = None,
        reading: ReadSettings | None = None,
        limits: AudioLimits | None = None,
        long_audio: SegmentationSettings | None = None,
        transcripts: TranscriptSettings | None = None,
        tarred_audio: str | Iterable[str] | None = None,
        max_failure_fraction: float | None = None,
        journal: Journal | None = None,
        **settings: Any,
    ):
        super().__init__()
        if model is not None and not isinstance(model, ModelSettings):
            if "model_name" in settings:
                raise TypeError("model_name is given twice")
            settings["model_name"], model = model, None
        for name in settings:
            if name not in PARAMETERS:
                raise unknown_setting(name, PARAMETERS)
        groups: dict[str, Group | None] = {
            "names": names,
            "model": model,
            "routing": routing,
            "batching": batching,
            "resources": resources,
            "reading": reading,
            "limits": limits,
            "long_audio": long_audio,
            "transcripts": transcripts,
        }
        requested = TranscribeSettings(**make_groups(TRANSCRIBE_GROUPS, settings, groups))
        if requested.model.model_name is None and requested.routing.models is None:
            raise SetupError("neither model_name nor models is given")
        if max_failure_fraction is not None:
            PARAMETERS["max_failure_fraction"].check(max_failure_fraction)
        check_choice(PARAMETERS["engine"], requested.model.engine)
        devices.check(requested.resources, requested.model.device)
        self.settings = requested
        self._storage = Storage(requested.reading.storage_options)
        prefixes = requested.reading.allowed_audio_prefixes
        allowed = None if prefixes is None else AllowList.of(prefixes)
        self._audio_storage = Storage(self._storage.options, allowed)
        self._tarred_audio = tarred_audio
        self._journal = journal
        self._max_failure_fraction = max_failure_fraction
        self._accelerator = devices.accelerator_hint(
            requested.resources.accelerator, requested.resources.copies
        )

    @property
    def lang_key(self) -> str:
        """Returns the field of a row's language; reads the file of routes, if there is one."""
        return self._routing.lang_key

    # The next properties read from storage, when the graph is built.

    @functools.cached_property
    def _routing(self) -> Routing:
        settings = self.settings.routing
        base = flatten(getattr(self.settings, name) for name in ROUTE_GROUPS)
        default = base.pop("model_name")
        if settings.models is None:
            return single(ModelRoute.of(model_name=default, **base))
        return load(
            self._storage, settings.models, base, settings.route_key, settings.unmapped, default
        )

    @functools.cached_property
    def _tars(self) -> dict[int, str] | None:
        if self._tarred_audio is None:
            return None
        return nemo_tarred.find_tars(self._storage, self._tarred_audio)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Returns what two runs must have in common for one to resume the other.

        A URL that was signed again is that of the same model, if its content is the same.
        """
        routing = self._routing
        identity = _identity(routing)
        values = flatten(getattr(self.settings, name) for name in TRANSCRIBE_GROUPS)
        for setting in all_settings(TRANSCRIBE_GROUPS):
            value = values[setting.name]
            if setting.identity_if_given:
                identity[setting.name] = bool(value)
            elif setting.identity and not setting.per_model:
                identity[setting.name] = value
        if self._journal is not None:
            contents = [
                _content(self._storage, route.model_name, route.model.engine)
                for route in routing.routes
            ]
            identity["model_content"] = contents if routing.is_multi_model else contents[0]
        return dict(without_secrets(identity))

    @functools.cached_property
    def _context(self) -> JobContext:
        """Returns what all steps have in common."""
        requested, routing, journal = self.settings, self._routing, self._journal
        transcripts = requested.transcripts
        lock = None if journal is None else journal.lock
        run = uuid.uuid4().hex if lock is None else lock.run
        return JobContext(
            run=run,
            journal=None if journal is None else journal.for_run(run, self.identity),
            filepath_key=requested.names.filepath_key,
            channel_key=requested.names.channel_key,
            transcript_fields=TranscriptFields(
                pred_text_key=requested.names.pred_text_key,
                timestamps=transcripts.timestamps or (),
                confidence=transcripts.confidence,
                n_best=transcripts.n_best,
                models=tuple(map(without_secrets, routing.names)) if routing.is_multi_model else (),
            ),
            routing=routing,
            keep_partial=requested.long_audio.partial == "keep",
            filter_refused=requested.limits.audio_checks == "filter",
            max_failure_fraction=self._max_failure_fraction,
        )

    @functools.cached_property
    def _settings(self) -> list[RecognizeSettings]:
        """Returns the settings of each model's steps."""
        return [self._route_settings(number) for number in range(len(self._routing.routes))]

    def _route_settings(self, number: int) -> RecognizeSettings:
        route, requested = self._routing.routes[number], self.settings
        reading, transcripts = requested.reading, requested.transcripts
        times = None if requested.long_audio.segmentation == "none" else "wanted"
        spec = ModelSpec(
            model_name=route.model_name,
            device=route.model.device,
            decoder=route.model.decoder,
            precision=route.model.precision,
            storage=self._storage,
            batch_timeout=route.batching.batch_timeout,
            resources=requested.resources,
            attention=route.model.attention,
            times="required" if transcripts.timestamps else times,
            confidence=transcripts.confidence is not None,
            n_best=transcripts.n_best,
            engine=route.model.engine,
        )
        reader = ClipReader(
            storage=self._audio_storage,
            channel=route.reading.channel,
            timeout_seconds=reading.audio_timeout,
            concurrency=reading.max_concurrent_reads,
            limits=route.limits,
        )
        planner = Planner(
            storage=self._audio_storage,
            channel=route.reading.channel,
            timeout_seconds=reading.audio_timeout,
            segmentation=requested.long_audio.segmentation,
            keep_parts=requested.long_audio.partial == "keep",
            limits=route.limits,
        )
        return RecognizeSettings(
            context=self._context,
            spec=spec,
            reader=reader,
            tar_storage=self._storage,
            planner=planner,
            prompt=route.model.prompt,
            route=number,
            max_segment_seconds=route.long_audio.max_segment_seconds,
            batch_size=route.batching.batch_size,
            max_batch_seconds=route.batching.max_batch_seconds,
        )

    def rows_identity(self, rows: Iterable[Row | WebDatasetTar]) -> dict[str, Any]:
        """Returns what the journal of a run with these rows says of them."""
        return rows_identity(sum_rows(self._check_rows(), rows))

    def row_groups(self, rows: Iterable[Row | WebDatasetTar]) -> Iterator[str]:
        """Yields the group of each row: the part of its id that equal rows have in common."""
        return map(self._check_rows().group_of, rows)

    def checked(self, rows: Iterable[Row | WebDatasetTar]) -> Iterator[Any]:
        """Yields what rows are once they are checked, in this process: work, or a ``Failure``."""
        check = self._check_rows()
        check.start_bundle()
        for row in rows:
            for result in check.process(row):
                yield result.value if isinstance(result, TaggedOutput) else result

    def _check_rows(self, step: type[CheckRows] = CheckRows) -> CheckRows:
        names, grouped = self.settings.names, self._journal is not None
        return step(names.filepath_key, names.channel_key, self._tars, grouped, self._routing)

    def expand(self, rows: PCollection[Row | Record | WebDatasetTar]) -> Transcribed:
        context = self._context
        is_plain = rows.is_bounded and rows.windowing.is_default()
        check = self._check_rows(CheckRows if is_plain else CheckWindowedRows)
        checked = rows | "Validate" >> beam.ParDo(check).with_outputs(
            "failures", "statistics", main="work"
        )
        finishing: list[Any] = []
        work, start = checked.work, None
        if context.journal is not None:
            start = self._start(checked.statistics)
            identified = group_equal_rows(work, context.journal) | "Identify" >> wait_for(
                start, AssignRowIds(context)
            ).with_outputs(*OUTPUTS, main="work")
            work = identified.work
            finishing.append(identified)
        if self._tars is not None:
            work = self._by_shard(work, self._tars)
        if not context.routing.is_multi_model and (
            self._tars is not None or context.journal is None
        ):
            work |= "SpreadWork" >> PackedReshuffle()
        recognized = self._recognize("", work, start)
        finishing += recognized
        failures, filtered, statistics = [checked.failures], [], [checked.statistics]
        if (of_files := input_statistics(rows)) is not None:
            statistics.append(of_files)
        if self.settings.long_audio.segmentation != "none":
            if not rows.is_bounded and rows.windowing.is_default():
                raise SetupError(
                    "rows without an end, in the global window, cannot be put together from "
                    "segments: give them windows, as beam.WindowInto(FixedWindows(600)), or choose "
                    "segmentation='none'"
                )
            planned, segments, stitched = self._recognize_long(recognized, start)
            finishing += segments
            failures += [planned.failures, stitched.failures]
            filtered.append(planned.filtered)
            statistics += [planned.statistics, stitched.statistics]
        transcripts = [outputs.transcripts for outputs in finishing]
        if self.settings.long_audio.segmentation != "none":
            transcripts.append(stitched.transcripts)
        failures += [outputs.failures for outputs in finishing]
        filtered += [outputs.filtered for outputs in finishing]
        statistics += [outputs.statistics for outputs in finishing]
        # A writer that fails must not make the model recognize anything again.
        return Transcribed(
            tuple(transcripts) | "KeepTranscripts" >> PackedReshuffle(),
            tuple(failures) | "KeepFailures" >> PackedReshuffle(),
            statistics | "AllStatistics" >> beam.Flatten().with_output_types(Statistics),
            tuple(filtered) | "KeepFiltered" >> PackedReshuffle(),
        )

    def _recognize(
        self, label: str, work: PCollection[Any], start: PCollection[JobStart] | None
    ) -> list[Any]:
        """Adds the steps that have the models, each after its chunks.

        Each model has its own steps, so that a worker needs one model for a bundle of theirs; a
        runner that runs step after step never swaps models.
        """
        if not self._context.routing.is_multi_model:
            parts = [("", work)]
        else:
            tags = [str(route) for route in range(len(self._settings))]
            split = work | f"ByModel{label}" >> beam.FlatMap(_by_route, len(tags)).with_outputs(
                *tags
            )
            parts = [
                (f"[{tag}]", split[tag] | f"Spread{label}[{tag}]" >> PackedReshuffle())
                for tag in tags
            ]
        steps = []
        for settings, (name, part) in zip(self._settings, parts, strict=True):
            chunks = self._in_chunks(f"Windows{label}{name}", part)
            model = wait_for(start, RecognizeChunk(settings))
            if self._accelerator is not None:
                model = model.with_resource_hints(accelerator=self._accelerator)
            outputs = model.with_outputs(*OUTPUTS, "long", "segments", "rows")
            steps.append(chunks | f"Transcribe{label}{name}" >> outputs)
        return steps

    def _recognize_long(
        self, recognized: list[Any], start: PCollection[JobStart] | None
    ) -> tuple[Any, list[Any], Any]:
        """Adds the steps that plan long rows, recognize their segments, and stitch them.

        Returns the outputs of these three steps, of the second one for each model.
        """
        plan = PlanSegments(self._context, [settings.planner for settings in self._settings])
        planned = (
            [outputs.long for outputs in recognized]
            | "AllLong" >> beam.Flatten()
            | "SpreadLong" >> beam.Reshuffle()
            | "PlanSegments"
            >> beam.ParDo(plan).with_outputs(
                "rows", "failures", "filtered", "statistics", main="groups"
            )
        )
        groups = planned.groups | "SpreadStretches" >> beam.Reshuffle()
        segments = self._recognize("Segments", groups, start)
        parts = [part for outputs in recognized for part in (outputs.rows, outputs.segments)]
        stitched = (
            (*parts, planned.rows, *(outputs.segments for outputs in segments))
            | "AllSegments" >> beam.Flatten()
            | "ByRow" >> beam.GroupByKey()
            | "Stitch" >> beam.ParDo(StitchRows(self._context)).with_outputs(*OUTPUTS)
        )
        return planned, segments, stitched

    def _in_chunks(self, name: str, work: PCollection[Any]) -> PCollection[list[Any]]:
        # Fixed sizes: otherwise BatchElements adapts them to measured times.
        if work.is_bounded:
            return work | name >> beam.BatchElements(
                min_batch_size=CHUNK_SECONDS,
                max_batch_size=CHUNK_SECONDS,
                element_size_fn=_chunk_seconds,
            )
        return work | name >> beam.ParDo(BatchWithinBundle(_chunk_seconds, CHUNK_SECONDS))

    def _start(self, statistics: PCollection[Statistics]) -> PCollection[JobStart]:
        """Returns what is known once all rows have been read and the journal is this run's."""
        return (
            statistics
            | "SumRows" >> beam.CombineGlobally(total)
            | "Begin" >> beam.Map(_start_job, self._context)
        )

    def _by_shard(self, work: PCollection[Any], tars: Mapping[int, str]) -> PCollection[Any]:
        """Groups the clips in tars of a data set by their tars; other work stays as it is."""
        split = work | "InTars" >> beam.ParDo(_split).with_outputs("in_tars", main="others")
        all_tars = work.pipeline | "TarredAudio" >> beam.Create(list(tars.items()))
        by_shard = {"tars": all_tars, "clips": split.in_tars} | "ByShard" >> beam.CoGroupByKey()
        return (
            split.others,
            by_shard | "Shards" >> beam.FlatMap(_shards),
        ) | "AllWork" >> beam.Flatten()


def _content(storage: Storage, model_name: str, engine: str) -> str | None:
    """Returns the digest of a model file; None if the file cannot be read from here."""
    if not ENGINES[engine].is_file_name(model_name):
        return None
    try:
        return files.digest(storage, model_name)
    except FileNotFoundError:
        return None
    except StorageError:
        raise
    except Exception as error:
        raise StorageError(
            f"the model {model_name!r} cannot be read: {problem_of(error)}"
        ) from error


def _start_job(statistics: Statistics, context: JobContext) -> JobStart:
    if context.journal is not None:
        known = {"rows_invalid": statistics.rows_invalid, "tars": statistics.tars}
        context.journal.begin({**rows_identity(statistics), **known})
    if context.max_failure_fraction is not None and not statistics.tars:
        failure_limit.check_invalid(statistics, context.max_failure_fraction)
    return JobStart(None if statistics.tars else statistics.rows_in)


def wait_for(start: PCollection[JobStart] | None, step: beam.DoFn) -> beam.ParDo:
    """Returns a step that processes nothing before a job's start; at once if that is None.

    Args:
        step: its ``process`` takes what is known of the start as ``start``.
    """
    return beam.ParDo(step) if start is None else beam.ParDo(step, start=AsSingleton(start))


def _split(item: Clip | TarredClip | WebDatasetTar) -> Iterator[Any]:
    if isinstance(item, TarredClip):
        yield beam.pvalue.TaggedOutput("in_tars", (item.number, item))
    else:
        yield item


def _shards(by_shard: tuple[int, dict[str, list[Any]]]) -> Iterator[NemoTar]:
    """Yields the tar for each model of its clips; without clips, for the first, which counts it."""
    (tar,), items = by_shard[1]["tars"], list(by_shard[1]["clips"])
    remaining: dict[int, list[Clip]] = defaultdict(list)
    for item in items:
        if not item.done:
            remaining[item.clip.route].append(item.clip)
    for route, clips in remaining.items() or [(0, [])]:
        of_route = {id(clip) for clip in clips}
        others = [item.clip.audio for item in items if id(item.clip) not in of_route]
        yield NemoTar(tar, clips, others, route)


def _by_route(
    item: Clip | SegmentGroup | WebDatasetTar | NemoTar, models: int
) -> Iterator[TaggedOutput]:
    """Tags an item with its model; a tar whose rows have not been read, with each model."""
    if isinstance(item, WebDatasetTar):
        for route in range(models):
            yield TaggedOutput(str(route), item._replace(route=route))
        return
    route = item.clip.route if isinstance(item, SegmentGroup) else item.route
    yield TaggedOutput(str(route), item)


def _identity(routing: Routing) -> dict[str, Any]:
    """Returns what two runs must have in common of their models."""
    identities = [route.identity for route in routing.routes]
    if not routing.is_multi_model:
        return identities[0]
    return {
        "models": identities,
        "route_key": routing.key,
        "routes": dict(routing.by_value),
        "rules": [[rule.when.text, rule.route_index] for rule in routing.rules],
        "default_route": routing.default,
    }


def _chunk_seconds(item: Clip | SegmentGroup | WebDatasetTar | NemoTar) -> int:
    """Returns an item's size in a chunk, below the chunk's: BatchElements takes no larger ones."""
    if isinstance(item, SegmentGroup):
        seconds = item.seconds
    elif isinstance(item, Clip):
        seconds = UNKNOWN_SECONDS if item.duration is None else item.duration
    else:
        return CHUNK_SECONDS - 1
    return min(max(1, round(seconds)), CHUNK_SECONDS - 1)
