"""Checks the inputs of a job before it starts, and that its condition can be true of their rows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from beam_asr.cli.job import is_unbounded, timestamps
from beam_asr.cli.messages import as_flags
from beam_asr.cli.options import TranscribeOptions
from beam_asr.cli.usage_errors import as_usage_errors
from beam_asr.errors import SetupError, WrongInputError
from beam_asr.inputs import discovery, first_rows, nemo_tarred, readers
from beam_asr.inputs.first_rows import FirstRows
from beam_asr.outputs import folder
from beam_asr.outputs.shards import FAILURES, TRANSCRIPTS, shard_name
from beam_asr.records import conditions
from beam_asr.storage import patterns, same_files
from beam_asr.storage.listing import fixed_folder
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_glob, without_query
from beam_asr.transcripts import job_fields
from beam_asr.transforms import streaming

logger = logging.getLogger(__name__)

# Some of what a job writes, with different endings and depths.
OUTPUT_NAMES = (
    folder.SUMMARY,
    f"{folder.JOURNAL}/{folder.LOCK}",
    f"{folder.JOURNAL}/windows/0.jsonl",
    shard_name(TRANSCRIPTS, 0, 1),
    shard_name(FAILURES, 0, 1),
)


def check_inputs(storage: Storage, options: TranscribeOptions) -> None:
    """Checks that the inputs are there, that their rows can be right, and the condition true.

    Raises:
        UsageError: an input is refused, or cannot be read; the message names it.
        SetupError: the condition is refused.
    """
    filepath_key = options.names.filepath_key
    looks: list[FirstRows] = []
    # Some rows cannot be looked at.
    may_have_any_field = is_unbounded(options) or options.rows is not None
    for pattern in options.inputs.input:
        with as_usage_errors("--input", pattern):
            files = _check_input(storage, pattern, options)
            if options.inputs.limit is not None:
                _check_may_sample(files)
            of_input = first_rows.look(storage, files, filepath_key)
            if options.outputs.max_failure_fraction < 1:  # else all rows may fail
                first_rows.check(of_input, filepath_key)
            looks += of_input
            may_have_any_field |= any(map(_holds_unknown_rows, files))
    if options.inputs.tarred_audio is not None:
        with as_usage_errors("--tarred_audio"):
            tars = nemo_tarred.find_tars(storage, options.inputs.tarred_audio)
            _check_not_in_output(tars.values(), options)
    if not may_have_any_field:
        names = {name for looked in looks for name in looked.field_names()}
        check_condition(options, names)
        _warn_of_missing_fields(options, looks)


def _check_matches_no_output(pattern: str, options: TranscribeOptions) -> None:
    """Refuses a glob that would match what the job itself writes."""
    output = options.outputs.output
    globs = filter(is_glob, patterns.expand(pattern))
    if any(same_files.matches_below(glob, output, OUTPUT_NAMES) for glob in globs):
        raise WrongInputError(
            f"the input {pattern!r} also matches files of the output folder {output!r}, which a "
            "later run would read as rows: choose another output folder, or a narrower input"
        )


def _check_input(storage: Storage, pattern: str, options: TranscribeOptions) -> list[str]:
    """Returns the files of an input whose rows can be looked at."""
    if streaming.is_pubsub(pattern):
        streaming.ReadPubSub(pattern)
        return []
    if options.inputs.watch is not None:  # the files may come later
        storage.check(pattern)
        _check_matches_no_output(pattern, options)
        _check_not_in_output([pattern], options)
        return []
    files = discovery.check(storage, pattern)
    _check_matches_no_output(pattern, options)
    _check_not_in_output(files or [pattern], options)
    return files


def _check_not_in_output(files: Iterable[str], options: TranscribeOptions) -> None:
    """Refuses inputs that the job would replace, or would find again in its own output."""
    output = options.outputs.output
    if not options.outputs.overwrite and options.inputs.watch is None:
        return  # then the folder is empty, or is not replaced
    for file in files:
        if same_files.is_within(fixed_folder(file) if is_glob(file) else file, output):
            raise WrongInputError(
                f"the input {without_query(file)!r} is in the output folder {output!r}, where this "
                "job would replace it or read its own results: choose another output folder"
            )


def _check_may_sample(files: Iterable[str]) -> None:
    """Refuses a sample of tars, whose rows are known only when they are read."""
    for file in filter(_holds_unknown_rows, files):
        raise SetupError(
            f"`limit` cannot take rows of {without_query(file)!r}, which are known only when the "
            "file is read: name a part of the files instead"
        )


def _holds_unknown_rows(file: str) -> bool:
    reader = readers.find_reader(file)
    return reader.first_rows is None and not reader.is_row


def check_condition(options: TranscribeOptions, names: Collection[str]) -> None:
    """Refuses a condition on a field of the job that no setting requests, and no row has.

    Args:
        names: of the fields that the first rows have.

    Raises:
        SetupError: names the field, and the setting that it needs.
    """
    if options.scoring.keep is None:
        return
    names = {*names, options.names.pred_text_key}
    for name in conditions.parse(options.scoring.keep).names:
        field = name.partition(".")[0]
        setting = job_fields.setting_of(field)
        if setting is not None and field not in names and not is_requested(setting, options):
            raise SetupError(
                f"`keep` reads the field {field!r}, which no row would have: it needs `{setting}`"
            )


def _warn_of_missing_fields(options: TranscribeOptions, looks: Sequence[FirstRows]) -> None:
    """Warns of fields to be read that none of the first rows has; the job tells of all rows."""
    names = {name for looked in looks for name in looked.field_names()}
    if not names or "supervisions" in names:  # of cuts, which have the references in there
        return
    keep = options.scoring.keep
    read = [name.partition(".")[0] for name in (conditions.parse(keep).names if keep else ())]
    written = {*job_fields.job_fields(), options.names.pred_text_key, options.names.channel_key}
    wanted = {"keep": set(read) - written - {"duration"}}  # the job measures durations
    wanted["reference_key"] = {key for key in [options.names.reference_key] if key is not None}
    for setting, fields in wanted.items():
        for field in sorted(fields - names):
            text = f"the field {field!r} of `{setting}` is in none of the first rows of the input"
            logger.warning("%s", as_flags(text))


def is_requested(setting: str, options: TranscribeOptions) -> bool:
    """Returns whether a setting is requested that fields need, as ``timestamps=word``."""
    name, _, value = setting.partition("=")
    requested: dict[str, Any] = {
        "reference_key": options.names.reference_key,
        "quality": options.scoring.quality,
        "metrics": options.scoring.metrics,
        "text_steps": options.scoring.text_steps,
        "models": options.routing.models,
        "n_best": options.transcripts.n_best,
        "confidence": options.transcripts.confidence,
        "timestamps": timestamps(options),
    }
    if name == "timestamps" and value == "word" and options.transcripts.confidence == "word":
        return True
    return value in (requested[name] or ()) if value else bool(requested[name])
