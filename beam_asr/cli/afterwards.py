"""Scores, filters, merges and exports the results of finished jobs, without their models."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_asr.cli.commands import add_storage_options
from beam_asr.cli.messages import for_terminal, started
from beam_asr.errors import ResumeError, SetupError
from beam_asr.records.setting_fields import all_settings, flatten, make_groups
from beam_asr.settings import GROUPS

if TYPE_CHECKING:
    from beam_asr.cli.options import TranscribeOptions
    from beam_asr.outputs.row_index import FinishedRun
    from beam_asr.transforms.read_output import StoredRun

SETTINGS = {setting.name: setting for setting in all_settings(GROUPS)}
# What may be others than those of the job.
SCORING = ("reference_key", "normalizer", "metrics", "text_steps", "quality", "keep")
OUTPUTS = ("output", "overwrite", "formats", "num_shards", "compression")
FIRST_ROWS = 100  # that are looked at for the fields that rows have
# Records cannot be identified or merged without these.
KEYS = ("filepath_key", "pred_text_key", "channel_key")
SEVERAL = "of several folders that were merged"


def add_arguments(parser: argparse.ArgumentParser, required: Iterable[str] = ()) -> None:
    """Adds the settings that may be others than those of the job; by default they are the same.

    Args:
        required: the names of those that must be given.
    """
    from beam_asr.cli.options import add_flag

    add_storage_options(parser)
    for name in (*SCORING, *OUTPUTS):
        needed = {"required": True} if name in required else {}
        if name == "output" and not needed:
            needed = {"required": False}
        add_flag(parser, SETTINGS[name], default=None, **needed)
    parser.set_defaults(beam_args=[])


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Adds the folder that is read."""
    parser.add_argument("folder", metavar="OUTPUT", help="output folder of a finished job")


def rewrite(arguments: argparse.Namespace) -> int:
    """Writes the results as a job with these settings would have written them."""
    source = find(arguments.folder, arguments.storage_options)
    summary = write([source], requested(source, arguments))
    if summary is not None:
        show(ended(summary, arguments.output))
    return 0


class Finished(NamedTuple):
    """Holds a finished folder: what its runs were, as one, and with which options."""

    folder: str
    run: FinishedRun
    options: TranscribeOptions


def find(folder: str, storage_options: Mapping[str, Any]) -> Finished:
    """Finds out what a folder holds.

    Raises:
        SetupError: it is not finished, or has no index of its rows.
    """
    from beam_asr.outputs.output import Output
    from beam_asr.outputs.row_index import RowIndex

    output = Output(folder, storage_options)
    run = RowIndex(folder, output.storage).finished()
    if run is None or not run.details.get("options"):
        raise ResumeError(
            f"{folder!r} has no index of its rows, as `beam-asr transcribe` writes it: it is of a "
            "job without an end, of another pipeline, or of an older release. Read it in Python, "
            "with `beam_asr.Output`"
        )
    return Finished(folder, run, _options(run.details["options"], storage_options))


def _options(stored: Mapping[str, Any], storage_options: Mapping[str, Any]) -> TranscribeOptions:
    from beam_asr.cli.options import TranscribeOptions

    values = {name: stored[name] for name in SETTINGS if name in stored}
    values |= {"storage_options": storage_options}
    values |= dict.fromkeys(("resume", "append", "overwrite"), False)
    return TranscribeOptions(**make_groups(GROUPS, values), beam_args=[])


def requested(finished: Finished, arguments: argparse.Namespace) -> TranscribeOptions:
    """Returns the options of a job, with those of a command line in place of its own.

    Raises:
        SetupError: they do not go together.
    """
    options = finished.options
    values = flatten(getattr(options, name) for name in GROUPS)
    for name in (*SCORING, *OUTPUTS):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    values["max_failure_fraction"] = 1.0  # the failures are those of the job
    changed = dataclasses.replace(
        options, **make_groups(GROUPS, values), beam_args=arguments.beam_args
    )
    scoring = changed.scoring
    if changed.names.reference_key is None:
        for name, value in (("normalizer", scoring.normalizer), ("metrics", scoring.metrics)):
            if value not in (None, (), "none"):
                raise SetupError(f"`{name}` needs `reference_key`, which is not given")
    return changed


def check(sources: Sequence[Finished], options: TranscribeOptions) -> None:
    """Checks that what is requested can be made of the records.

    Raises:
        SetupError: a format needs words, or a condition a field, that the records do not have.
    """
    from beam_asr.cli import input_checks
    from beam_asr.cli.job import timestamps
    from beam_asr.outputs.formats.registry import formats_of
    from beam_asr.outputs.output import Output
    from beam_asr.outputs.shards import FILTERED, TRANSCRIPTS

    for source in sources:
        timed = "word" in timestamps(source.options)
        for format in formats_of(options.outputs.formats):
            if format.needs_words and not timed:
                raise SetupError(
                    f"formats has {format.name!r}, which needs the times of words, and the "
                    f"transcripts in {source.folder!r} have none: transcribe again with "
                    "--timestamps=word"
                )
    names: set[str] = set()
    for source in sources:
        output = Output(source.folder, options.reading.storage_options)
        for record in itertools.islice(output.records(TRANSCRIPTS, FILTERED), FIRST_ROWS):
            names |= record.keys() - added_by(source)
    input_checks.check_condition(options, names)


def added_by(source: Finished) -> frozenset[str]:
    """Returns the fields of scores and signals that a job has added: they are made again."""
    from beam_asr.transcripts.job_fields import job_fields, setting_of

    settings = ("reference_key", "quality", "text_steps", "metrics")
    of_scoring = [
        name for name in job_fields() if (setting_of(name) or "").partition("=")[0] in settings
    ]
    return frozenset(of_scoring) - not_requested(source.options)


def not_requested(options: TranscribeOptions) -> frozenset[str]:
    """Returns the fields of jobs that this one did not add: in its records they are the rows'."""
    from beam_asr.cli.input_checks import is_requested
    from beam_asr.outputs.formats.base import TranscriptFormat
    from beam_asr.outputs.formats.registry import formats_of
    from beam_asr.transcripts.job_fields import job_fields, setting_of

    settings = {name: setting_of(name) for name in job_fields()}
    missing = {
        name
        for name, setting in settings.items()
        if setting is not None and not is_requested(setting, options)
    }
    formats = formats_of(options.outputs.formats)
    exported = any(isinstance(format, TranscriptFormat) for format in formats)
    return frozenset(missing if exported else {*missing, "exports"})


def stored_run(source: Finished, options: TranscribeOptions) -> StoredRun:
    """Returns what `ReadOutput` needs of a folder, for the formats of these options."""
    from beam_asr.outputs.formats.registry import formats_of
    from beam_asr.outputs.stored_records import StoredFields, shards_of
    from beam_asr.storage.storage import Storage
    from beam_asr.transforms.read_output import StoredRun

    storage = Storage(options.reading.storage_options)
    names, statistics = source.options.names, source.run.statistics.without_scores()
    tarred = source.options.inputs.tarred_audio is not None
    manifest = _only_manifest(storage, source)
    needs_place = any(format.needs_origin for format in formats_of(options.outputs.formats))
    unknown = needs_place and manifest is None
    fields = StoredFields(
        names.pred_text_key,
        not_requested(source.options),
        names.reference_key,
        names.channel_key,
        manifest or "",
        source.options.routing.models is not None,
        audio=names.filepath_key if unknown and not tarred else "",
        tar="shard_id" if unknown and tarred else "",
    )
    shards = shards_of(storage, source.folder)
    statistics.rows_in_folder = 0  # they are among those that are read
    return StoredRun(source.folder, storage, shards, fields, statistics)


def _only_manifest(storage: Any, source: Finished) -> str | None:
    """Returns the manifest of all rows; "" if they are of none, and None if there are several."""
    from beam_asr.storage.uris import is_glob

    statistics, inputs = source.run.statistics, source.options.inputs.input
    if statistics.audio_files == statistics.input_files:
        return ""
    one = len(inputs) == 1 and statistics.input_files == 1
    if not one or is_glob(inputs[0]) or storage.is_folder(inputs[0]):
        return None
    return inputs[0]


def write(
    sources: Sequence[Finished],
    options: TranscribeOptions,
    details: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Writes the records of finished folders as these options have them into a new one.

    Args:
        details: other fields of its summary.
        identity: of the run, in place of that of the last folder.

    Returns:
        The summary. It is None if the runner does not wait for the end; a line says so.

    Raises:
        SetupError: the new folder is one of those, or holds something.
    """
    from beam_asr.cli import beam_flags, launch, runners
    from beam_asr.outputs import folder
    from beam_asr.outputs.folder import SUMMARY
    from beam_asr.storage import same_files
    from beam_asr.storage.storage import Storage
    from beam_asr.storage.uris import join

    check(sources, options)
    storage, new = Storage(options.reading.storage_options), options.outputs.output
    for source in sources:
        if same_files.is_within(source.folder, new) or same_files.is_within(new, source.folder):
            raise SetupError(
                f"`output` is {new!r}, and {source.folder!r}, which is read, would not stay as it "
                "is: name a folder beside it"
            )
    folder.check_may_write(storage, new, options.outputs.overwrite)
    beam_options = beam_flags.parse(options.beam_args)
    runner = runners.profile_of(beam_options)
    runners.apply_runner_defaults(beam_options, None, options.resources)
    graph = functools.partial(
        _build,
        sources=sources,
        details=details or {},
        identity=identity or identity_of(sources[-1]),
    )
    launch.run(options, beam_options, graph)
    if not runner.waits(beam_options):
        show(started(new))
        return None
    return dict(json.loads(storage.read(join(new, SUMMARY))))


def identity_of(source: Finished) -> dict[str, Any]:
    """Returns what a run that appends to the new folder has to have in common with it."""
    own = ("run", "earlier_runs", "part")
    return {name: value for name, value in source.run.identity.items() if name not in own}


def _build(
    pipeline: Any,
    options: TranscribeOptions,
    lock: Any,
    workers_renew: bool,
    *,
    sources: Sequence[Finished],
    details: Mapping[str, Any],
    identity: Mapping[str, Any],
) -> None:
    """Adds the job to a pipeline, as `job.build`."""
    from beam_asr.cli import job
    from beam_asr.outputs.journal import Journal
    from beam_asr.storage.storage import Storage
    from beam_asr.transforms.read_output import ReadOutput

    storage = Storage(options.reading.storage_options)
    journal = Journal(
        options.outputs.output, storage, lock=lock, workers_renew=workers_renew
    ).for_run(lock.run, identity)
    runs = [stored_run(source, options) for source in sources]
    lang_key = lang_key_of(options)
    records = pipeline | "ReadOutput" >> ReadOutput(*runs)
    if job.needs_scoring(options):
        records |= "ScoreTranscripts" >> job.score_step(options, lang_key)
    seconds = sum(source.run.wall_seconds for source in sources)
    made_of = {"made_of": [source.folder for source in sources], **details}
    _ = records | "WriteManifest" >> job.write_step(options, journal, lang_key, made_of, seconds)
    journal.begin({})


def lang_key_of(options: TranscribeOptions) -> str:
    """Returns the field of a row's language."""
    from beam_asr.cli.job import recognition

    return "lang" if options.routing.models is None else recognition(options, None).lang_key


def ended(summary: Mapping[str, Any], folder: str) -> str:
    """Returns how a command ended, as lines for the console."""
    warnings = [f"warning: {warning}" for warning in summary.get("warnings", ())]
    counts = (
        f"{summary['rows_in']} rows: {summary['transcribed']} transcribed, {summary['failed']} "
        f"failed, {summary['filtered']} filtered; results in {folder}"
    )
    return "\n".join(
        [*warnings, *(score_lines(summary["scores"]) if "scores" in summary else ()), counts]
    )


def score_lines(scores: Mapping[str, Any]) -> list[str]:
    """Returns scores as a table of lines, for the console."""
    groups = [("all", scores["corpus"])]
    if "before_keep" in scores:
        groups.append(("before --keep", scores["before_keep"]))
    for grouping in ("by_language", "by_duration", "by_model"):
        named = scores.get(grouping, {}).items()
        groups += [(f"{grouping[3:]} {name}", score) for name, score in named]
    table = [["", "rows", "words", "WER %", "95 %", "CER %", "95 %"]]
    further = [name for name in SETTINGS["metrics"].choices if name in scores["corpus"]]
    table[0] += further
    for name, score in groups:
        rates = [_rate(score, rate) for rate in ("wer", "cer")]
        cells = [name, str(score["rows"]), str(score["words"]), *itertools.chain(*rates)]
        table.append([*cells, *(_shown(score.get(metric), metric) for metric in further)])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table
    ]
    if scores["without_reference"]:
        lines.append(f"{scores['without_reference']} rows without a reference")
    return lines


def _rate(score: Mapping[str, Any], name: str) -> tuple[str, str]:
    limits = score.get(f"{name}_interval")
    shown = "-" if limits is None else f"{100 * limits[0]:.2f} to {100 * limits[1]:.2f}"
    return _shown(score[name], name), shown


def _shown(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return f"{value if name in ('bleu', 'chrf') else 100 * value:.2f}"


def show(text: str) -> None:
    """Prints lines as a terminal may show them."""
    print(for_terminal(text))


def warn(text: str) -> None:
    """Prints a line to the standard error, as a terminal may show it."""
    print(f"beam-asr: {for_terminal(text)}", file=sys.stderr)
