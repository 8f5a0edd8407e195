"""Writes `summary.json`, and checks that no row is lost."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from beam_asr.errors import LostRowsError, NothingKeptError
from beam_asr.records.model_work import ModelWork
from beam_asr.records.statistics import Score, Statistics
from beam_asr.storage.uris import query_hidden, without_secrets
from beam_asr.transcripts import job_fields, scoring

# An object or a list without others in it. Texts of JSON hold no line end, so none is cut here.
_INNERMOST = re.compile(r"([\[{])\n([^\[\]{}]*)\n *([\]}])")
LINE_LENGTH = 200


def encode_readable(record: dict[str, Any]) -> bytes:
    """Encodes a record for a file that people read: a line for each field, and for small values."""
    text = json.dumps(record, ensure_ascii=False, indent=2)
    return _INNERMOST.sub(_in_a_line, text).encode() + b"\n"


def _in_a_line(value: re.Match[str]) -> str:
    line = value[1] + " ".join(part.strip() for part in value[2].split("\n")) + value[3]
    return line if len(line) <= LINE_LENGTH else value[0]


SHOWN_REASONS = 3  # of failures, on the console


class Failures:
    """Counts the failures of a job by the types of their errors, with an example of each."""

    def __init__(self) -> None:
        self.by_type: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, by_type: Mapping[str, int], examples: Mapping[str, str]) -> None:
        """Adds the numbers, and the messages that are examples, of failures by type."""
        self.by_type.update(by_type)
        for kind, message in examples.items():
            self.examples[kind] = min(message, self.examples.get(kind, message))

    def reasons(self) -> list[str]:
        """Returns the most frequent types, each with its number and an example's message."""
        return [
            f"{count} x {kind}, as: {self.examples[kind]}"
            if self.examples.get(kind)
            else f"{count} x {kind}"
            for kind, count in self.by_type.most_common(SHOWN_REASONS)
        ]


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Counts the records of a run, or of several.

    Attributes:
        transcribed: the transcripts.
        failures: with the types of their errors.
        filtered_by: the filtered rows, by what filtered them.
    """

    transcribed: int
    failures: Failures
    filtered_by: Counter[str]

    @property
    def records(self) -> int:
        """Returns the number of all records."""
        return self.transcribed + self.failures.by_type.total() + self.filtered_by.total()

    def with_failures(self, by_type: Mapping[str, int]) -> Outcomes:
        """Returns the outcomes with other numbers of failures, and the same examples."""
        failures = Failures()
        examples = self.failures.examples
        failures.add(by_type, {kind: examples[kind] for kind in by_type if kind in examples})
        return dataclasses.replace(self, failures=failures)

    def __add__(self, other: Outcomes) -> Outcomes:
        failures = Failures()
        for each in (self.failures, other.failures):
            failures.add(each.by_type, each.examples)
        return Outcomes(
            self.transcribed + other.transcribed, failures, self.filtered_by + other.filtered_by
        )


def check_complete(statistics: Statistics, outcomes: Outcomes) -> None:
    """Raises LostRowsError unless every row has ended as one record, or as one for each channel."""
    if statistics.records == outcomes.records:
        return
    filtered, channels = outcomes.filtered_by.total(), statistics.further_channels
    filtered_note = f", {filtered} filtered rows" if filtered else ""
    channels_note = f" with {channels} further channels" if channels else ""
    there = statistics.rows_in_folder
    there_note = f", {there} of them in the folder already" if there else ""
    raise LostRowsError(
        f"{statistics.rows_in} rows{channels_note} went in{there_note}, but {outcomes.transcribed} "
        f"transcripts{filtered_note} and {outcomes.failures.by_type.total()} failures came out: "
        f"{abs(statistics.records - outcomes.records)} rows are lost or doubled. This is a defect "
        "of the job; the output has no _SUCCESS and must not be used"
    )


def warnings(statistics: Statistics) -> list[str]:
    """Returns what a finished run says of fields that it was to read, and that no row has."""
    said = []
    unscored = 0
    for key, _ in statistics.scored_by:
        unscored = statistics.without_reference_before_keep or statistics.without_reference
        if unscored and not statistics.scores:
            said.append(
                f"none of the {unscored} transcribed rows has a reference in the field {key!r}, so "
                "there are no scores; correct `reference_key`"
            )
    rows = statistics.judged_rows
    for name in _unknown_fields(statistics):
        if not (said and unscored and name in job_fields.SCORES):  # which says why
            said.append(
                f"none of the {rows} transcribed rows has the field {name!r} that `keep` reads; "
                "correct its name"
            )
    return said


def _unknown_fields(statistics: Statistics) -> list[str]:
    """Returns the fields that the condition reads, and that no row has but may have."""
    return [
        name
        for name, missing in sorted(statistics.rows_without.items())
        if missing == statistics.judged_rows and name not in job_fields.OCCASIONAL
    ]


def check_kept(statistics: Statistics, transcribed: int, resumable: bool = True) -> None:
    """Raises NothingKeptError if the condition keeps no row, and reads a field that no row has.

    Args:
        resumable: whether the run is one that transcribes, and can go on.
    """
    if statistics.judged_rows and not transcribed and _unknown_fields(statistics):
        reasons = "; ".join(warnings(statistics))
        then = (
            "Then continue with `resume`, which transcribes nothing again"
            if resumable
            else "Then run the command again with `overwrite`"
        )
        raise NothingKeptError(
            f"`keep` keeps none of {statistics.judged_rows} rows: {reasons}. {then}"
        )


def summarize(
    statistics: Statistics,
    outcomes: Outcomes,
    wall_seconds: float | None,
    details: dict[str, Any],
) -> dict[str, Any]:
    """Returns the content of ``summary.json`` for a run, without what may be secret of a URL.

    RTFx is seconds of audio a second of wall time: ``rtfx_end_to_end`` over the whole job,
    ``rtfx_model`` over the forward passes and their decoding alone, summed over workers. The work
    of an earlier run counts in the hours and the rows only. Silence that the model skipped counts
    in the hours and in ``rtfx_end_to_end``.
    """
    numbers = _numbers(statistics, outcomes, wall_seconds)
    # What the next run compares its inputs with (`folder.inputs_done`).
    inputs = {"inputs": sorted(map(query_hidden, statistics.inputs))} if statistics.inputs else {}
    return {**without_secrets({**numbers, **details}), **inputs}


def _numbers(
    statistics: Statistics, outcomes: Outcomes, wall_seconds: float | None
) -> dict[str, Any]:
    failures, filtered_by = outcomes.failures, outcomes.filtered_by
    work = _figures(statistics.work)
    all_seconds = statistics.audio_seconds + statistics.skipped_silence_seconds
    return {
        "rows_in": statistics.rows_in,
        "further_channels": statistics.further_channels,
        "transcribed": outcomes.transcribed,
        "resumed": statistics.resumed_rows,
        "rows_in_folder": statistics.rows_in_folder,
        "resumed_not_in_input": statistics.resumed_not_in_input,
        "failed": failures.by_type.total(),
        "failed_by_type": dict(sorted(failures.by_type.items())),
        "failure_examples": dict(sorted(failures.examples.items())),
        "filtered": sum(filtered_by.values()),
        "filtered_by": dict(sorted(filtered_by.items())),
        "audio_hours": round((all_seconds + statistics.resumed_seconds) / 3600, 6),
        "wall_seconds": None if wall_seconds is None else round(wall_seconds, 3),
        "rtfx_end_to_end": _ratio(all_seconds, wall_seconds),
        "rtfx_model": work["rtfx_model"],
        "model_seconds": round(statistics.model_seconds, 3),
        "model_wait_seconds": round(statistics.wait_seconds, 3),
        "model_wait_share": work["model_wait_share"],
        "batches": work["batches"],
        "padding_efficiency": work["padding_efficiency"],
        **_work(statistics),
        "long_rows": statistics.long_rows,
        "segments": statistics.segments,
        "segments_failed": statistics.segments_failed,
        "no_speech": statistics.no_speech,
        "rows_shorter_than_file": statistics.rows_shorter_than_file,
        "unheard_hours": round(statistics.skipped_silence_seconds / 3600, 6),
        "models": [dict(model) for model in sorted(statistics.models)],
        "model_loads": statistics.model_loads,
        "model_evictions": statistics.model_evictions,
        "members_without_row": statistics.members_without_row,
        "examples_without_row": list(statistics.examples_without_row),
        "tars_without_rows": statistics.tars_without_rows,
        **_files(statistics),
        **_merged(statistics),
        "warnings": warnings(statistics),
        **({"scores": scores(statistics)} if statistics.scored_by else {}),
    }


def _work(statistics: Statistics) -> dict[str, Any]:
    """Returns what the model did in each worker process, and in each span of time."""
    workers = sorted(
        statistics.by_worker.items(), key=lambda item: (-item[1].audio_seconds, item[0])
    )
    return {
        "workers": [{"worker": name, **_figures(work)} for name, work in workers],
        "over_time": [
            {"start": _utc(span.start), "seconds": span.seconds, **_figures(work)}
            for span, work in sorted(statistics.by_time.items())
        ],
    }


def _figures(sums: ModelWork) -> dict[str, Any]:
    return {
        "batches": sums.batches,
        "audio_hours": round(sums.audio_seconds / 3600, 6),
        "rtfx_model": _ratio(sums.audio_seconds, sums.model_seconds),
        "model_wait_share": _ratio(sums.wait_seconds, sums.wait_seconds + sums.model_seconds),
        "padding_efficiency": _ratio(sums.audio_seconds, sums.padded_seconds),
    }


def _utc(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%MZ}"


def _files(statistics: Statistics) -> dict[str, Any]:
    """Returns how many files were read, ignored and named more than once."""
    return {
        "input_files": statistics.input_files,
        "audio_files": statistics.audio_files,
        "ignored_files": sum(statistics.ignored_files.values()),
        "ignored_by_kind": dict(sorted(statistics.ignored_files.items())),
        "examples_ignored": list(statistics.examples_ignored),
        "repeated_files": statistics.repeated_files,
        "examples_repeated": list(statistics.examples_repeated),
    }


def _merged(statistics: Statistics) -> dict[str, Any]:
    """Returns how many rows came from several folders; nothing if folders were not merged so."""
    if not statistics.rows_of_several_runs:
        return {}
    return {
        "rows_of_several_runs": statistics.rows_of_several_runs,
        "conflicts": statistics.conflicts,
        "examples_conflicts": list(statistics.examples_conflicts),
    }


def scores(statistics: Statistics) -> dict[str, Any]:
    """Returns the sums of scores by their groups, of a run that has scored."""
    ((reference_key, normalizer),) = statistics.scored_by
    sums: dict[str, Any] = {
        "reference_key": reference_key,
        "normalizer": normalizer,
        "without_reference": statistics.without_reference,
        "corpus": scoring.summary(Score()),
    }
    for (grouping, value), score in sorted(statistics.scores.items()):
        if value:
            sums.setdefault(grouping, {})[value] = scoring.summary(score)
        else:
            sums[grouping] = scoring.summary(score)
    if statistics.judged_rows:
        before = sums.setdefault("before_keep", scoring.summary(Score()))
        before["without_reference"] = statistics.without_reference_before_keep
    return sums


def _ratio(value: float, divisor: float | None) -> float | None:
    return round(value / divisor, 4) if divisor else None
