"""Writes `summary.json`, and checks that no row is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from beam_asr.errors import LostRowsError
from beam_asr.records.statistics import Score, Statistics
from beam_asr.storage.uris import query_hidden, without_secrets
from beam_asr.transcripts import scoring


def encode_readable(record: dict[str, Any]) -> bytes:
    """Encodes a record over several lines, for a file that people read."""
    return json.dumps(record, ensure_ascii=False, indent=2).encode() + b"\n"


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


def check_complete(
    rows_in: int, transcribed: int, failed: int, filtered: int = 0, further_channels: int = 0
) -> None:
    """Raises LostRowsError unless every row has ended as exactly one record.

    Args:
        further_channels: records beyond one for each row, of rows with one for each channel.
    """
    expected = rows_in + further_channels
    if expected != transcribed + failed + filtered:
        filtered_note = f", {filtered} filtered rows" if filtered else ""
        channels_note = f" with {further_channels} further channels" if further_channels else ""
        raise LostRowsError(
            f"{rows_in} rows{channels_note} went in, but {transcribed} transcripts"
            f"{filtered_note} and {failed} failures came out: "
            f"{abs(expected - transcribed - failed - filtered)} rows are lost or doubled. This is "
            "a defect of the job; the output has no _SUCCESS and must not be used"
        )


def summarize(
    statistics: Statistics,
    transcribed: int,
    failures: Failures,
    filtered_by: Counter[str],
    wall_seconds: float | None,
    details: dict[str, Any],
) -> dict[str, Any]:
    """Returns the content of ``summary.json`` for a run, without what may be secret of a URL.

    RTFx is seconds of audio a second of wall time: ``rtfx_end_to_end`` over the whole job,
    ``rtfx_model`` over the forward passes and their decoding alone, summed over workers. The work
    of an earlier run counts in the hours and the rows only. Silence that the model skipped counts
    in the hours and in ``rtfx_end_to_end``.
    """
    numbers = _numbers(statistics, transcribed, failures, filtered_by, wall_seconds)
    # What the next run compares its inputs with (`folder.inputs_done`).
    inputs = {"inputs": sorted(map(query_hidden, statistics.inputs))} if statistics.inputs else {}
    return {**without_secrets({**numbers, **details}), **inputs}


def _numbers(
    statistics: Statistics,
    transcribed: int,
    failures: Failures,
    filtered_by: Counter[str],
    wall_seconds: float | None,
) -> dict[str, Any]:
    seconds = statistics.audio_seconds
    all_seconds = seconds + statistics.skipped_silence_seconds
    return {
        "rows_in": statistics.rows_in,
        "further_channels": statistics.further_channels,
        "transcribed": transcribed,
        "resumed": statistics.resumed_rows,
        "failed": failures.by_type.total(),
        "failed_by_type": dict(sorted(failures.by_type.items())),
        "failure_examples": dict(sorted(failures.examples.items())),
        "filtered": sum(filtered_by.values()),
        "filtered_by": dict(sorted(filtered_by.items())),
        "audio_hours": round((all_seconds + statistics.resumed_seconds) / 3600, 6),
        "wall_seconds": None if wall_seconds is None else round(wall_seconds, 3),
        "rtfx_end_to_end": _ratio(all_seconds, wall_seconds),
        "rtfx_model": _ratio(seconds, statistics.model_seconds),
        "model_seconds": round(statistics.model_seconds, 3),
        "model_wait_seconds": round(statistics.wait_seconds, 3),
        "model_wait_share": _ratio(
            statistics.wait_seconds, statistics.wait_seconds + statistics.model_seconds
        ),
        "batches": statistics.batches,
        "padding_efficiency": _ratio(seconds, statistics.padded_seconds),
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
        "input_files": statistics.input_files,
        "audio_files": statistics.audio_files,
        "ignored_files": sum(statistics.ignored_files.values()),
        "ignored_by_kind": dict(sorted(statistics.ignored_files.items())),
        "examples_ignored": list(statistics.examples_ignored),
        **({"scores": _scores(statistics)} if statistics.scored_by else {}),
    }


def _scores(statistics: Statistics) -> dict[str, Any]:
    """Returns the sums of scores by their groups."""
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
    return sums


def _ratio(value: float, divisor: float | None) -> float | None:
    return round(value / divisor, 4) if divisor else None
