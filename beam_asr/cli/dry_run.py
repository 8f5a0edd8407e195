"""Says what a job would do, and what it would take, without transcribing anything."""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from apache_beam.options.pipeline_options import PipelineOptions

from beam_asr.audio.reading import probe_duration
from beam_asr.cli import runners
from beam_asr.cli.job import recognition, routing, row_source
from beam_asr.cli.options import TranscribeOptions
from beam_asr.errors import AudioError
from beam_asr.records import row_ids
from beam_asr.records.record import Failure
from beam_asr.records.work import Clip, TarredClip, WebDatasetTar
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import without_query, without_secrets

SHOWN_FILES = 10
EXAMPLES = 3  # of rows that are not valid, and of audio that cannot be read
PROBED = 20  # clips without a duration, whose headers are read
AUDIO_SECONDS = 3 * 20 * 60.0  # that a worker holds: to be batched, with the model, read ahead
BYTES_A_SECOND = 16_000 * 4
SHUFFLED_BYTES = 1600  # of a row, in the shuffles of a job (docs/scale.md)


class Machine(NamedTuple):
    """A worker of docs/scale.md, with its speed and prices for 1,000 hours of audio."""

    name: str
    gpu: str
    rtfx: int
    on_demand: float
    spot: float
    dataflow: float


# The table "One worker" of docs/scale.md.
MACHINES = (
    Machine("g2-standard-8", "L4", 465, 1.83, 0.73, 2.65),
    Machine("a2-highgpu-1g", "A100 40 GB", 2_412, 1.52, 0.61, 1.86),
    Machine("a3-highgpu-1g", "H100", 5_196, 2.14, 1.28, 2.74),
)


@dataclasses.dataclass
class Work:
    """Counts the rows of a job, before anything is transcribed.

    Attributes:
        rows: all rows that are known.
        tars: tars whose rows are known only when they are read.
        invalid: rows that would fail before any audio is read.
        problems: the messages of some of them.
        manifests: rows by their file; audio that is named itself has none.
        models: valid rows by the number of their model.
        seconds: of the audio of rows that have a duration.
        timed: the number of these rows.
        untimed: some of the others, chosen at random, with the keys that order them.
    """

    rows: int = 0
    tars: int = 0
    invalid: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    manifests: Counter[str] = dataclasses.field(default_factory=Counter)
    models: Counter[int] = dataclasses.field(default_factory=Counter)
    seconds: float = 0.0
    timed: int = 0
    untimed: list[tuple[str, Clip]] = dataclasses.field(default_factory=list)

    def add(self, item: Any) -> None:
        """Counts a row that was checked (`Transcribe.checked`)."""
        if isinstance(item, WebDatasetTar):
            self.tars += 1
            return
        self.rows += 1
        clip = item.clip if isinstance(item, TarredClip) else item  # or a failure
        self.manifests[clip.row.manifest] += 1
        if isinstance(item, Failure):
            self.invalid += 1
            if len(self.problems) < EXAMPLES:
                self.problems.append(str(item.error["message"]))
            return
        self.models[clip.route] += 1
        if clip.duration is not None:
            self.seconds += clip.duration
            self.timed += 1
        elif not isinstance(item, TarredClip):
            key = row_ids.group_of_text(clip.audio, str(self.rows))
            self.untimed.append((key, clip))
            if len(self.untimed) >= 100 * PROBED:
                self.untimed = heapq.nsmallest(PROBED, self.untimed, key=lambda pair: pair[0])


def describe(options: TranscribeOptions, beam_options: PipelineOptions) -> str:
    """Describes a job: its rows and models, the options of the runner, and estimates.

    It reads all manifests in this process, and the headers of some audio.
    """
    work = Work()
    for item in recognition(options, None).checked(row_source(options).read_here()):
        work.add(item)
    return "\n".join(
        [
            *_rows(work),
            *_models(work, options),
            *_audio(work, Storage(options.reading.storage_options)),
            f"output: {options.outputs.output}",
            f"runner: {runners.name(beam_options)}{_settings(beam_options)}",
            "nothing was transcribed: leave out --dry_run to start the job",
        ]
    )


def _rows(work: Work) -> Iterator[str]:
    tars = f", and those of {work.tars:,} tars, which are not read now" if work.tars else ""
    manifests = len(work.manifests.keys() - {""})
    files = f" of {manifests:,} file{'s' if manifests > 1 else ''}" if manifests else ""
    yield f"input: {work.rows:,} rows{files}{tars}"
    for manifest, rows in work.manifests.most_common(SHOWN_FILES if manifests else 0):
        yield f"  {without_query(manifest) or 'audio files'}: {rows:,} rows"
    if work.invalid:
        yield f"{work.invalid:,} of them would fail before any audio is read, as:"
        yield from (f"  {problem}" for problem in work.problems)


def _models(work: Work, options: TranscribeOptions) -> Iterator[str]:
    routes = routing(Storage(options.reading.storage_options), options)
    names = [options.model.model_name] if routes is None else routes.names
    for number, name in enumerate(names):
        yield f"model: {name}, for {work.models[number]:,} rows"


def _audio(work: Work, storage: Storage) -> Iterator[str]:
    """Yields the hours of audio, measured or estimated, and what they would take."""
    untimed = sum(work.models.values()) - work.timed
    seconds = work.seconds
    if work.timed:
        yield f"audio: {seconds / 3600:,.2f} h in the {work.timed:,} rows with a duration"
    probed, problems = _probe(work, storage)
    if problems:
        yield f"{len(problems)} of {len(probed) + len(problems)} files could not be read, as:"
        yield from (f"  {problem}" for problem in problems[:EXAMPLES])
    known = probed or ([seconds / work.timed] if work.timed else [])
    if untimed and known:
        missing = untimed * sum(known) / len(known)
        of = f"by the headers of {len(probed)}" if probed else "by the others"
        yield f"audio: about {missing / 3600:,.2f} h in the {untimed:,} rows without, {of}"
        seconds += missing
    if seconds:
        yield from _estimates(work, seconds)


def _probe(work: Work, storage: Storage) -> tuple[list[float], list[str]]:
    """Returns the durations of some clips by their headers, and why others have none."""
    durations, problems = [], []
    for _, clip in heapq.nsmallest(PROBED, work.untimed, key=lambda pair: pair[0]):
        try:
            whole = probe_duration(clip.audio, storage=storage)
        except AudioError as error:
            problems.append(str(error))
            continue
        if whole is not None:
            durations.append(max(0.0, whole - clip.offset))
    return durations, problems


def _estimates(work: Work, seconds: float) -> Iterator[str]:
    hours = seconds / 3600
    yield (
        "estimate of one GPU worker that has started, for parakeet-tdt-0.6b-v3 and clips of 8 s "
        "(docs/scale.md; nothing of it was run):"
    )
    for machine in MACHINES:
        thousands = hours / 1000
        yield (
            f"  {machine.name} ({machine.gpu}): {hours / machine.rtfx:,.2f} h, "
            f"${thousands * machine.on_demand:,.2f} on demand, ${thousands * machine.spot:,.2f} "
            f"Spot, ${thousands * machine.dataflow:,.2f} on Dataflow"
        )
    held = min(seconds, AUDIO_SECONDS) * BYTES_A_SECOND / 1e6
    yield (
        f"memory: a worker holds up to {held:,.0f} MB of audio beside its model; the shuffles "
        f"of all rows are {work.rows * SHUFFLED_BYTES / 1e6:,.1f} MB"
    )


def _settings(beam_options: PipelineOptions) -> str:
    """Returns the runner's options that differ from Beam's defaults."""
    changed: Mapping[str, Any] = beam_options.get_all_options(drop_default=True)
    texts = [f"{name}={without_secrets(value)}" for name, value in sorted(changed.items()) if value]
    return f" ({', '.join(texts)})" if texts else ""
