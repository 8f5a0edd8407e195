"""`Transcribed`; outcomes to tagged outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from apache_beam.pvalue import PCollection, TaggedOutput

from beam_asr.audio.limits import is_refusal
from beam_asr.records import parsing
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Record
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.settings import TranscriptFields
from beam_asr.transcripts import transcript


def resumed_statistics(outcome: Outcome) -> Statistics:
    return Statistics(resumed_rows=1, resumed_seconds=outcome.seconds)


def tag_outcome(row: Row, outcome: Outcome, asked: TranscriptFields, route: int) -> TaggedOutput:
    """The terminal record of a row of which something became.

    Args:
        route: the number of its model.
    """
    if outcome.recognition is not None:
        record = transcript.transcript_record(row, outcome.recognition, asked, route)
        return TaggedOutput("transcripts", record)
    failed = {**parsing.parse_fields(row.line), "error": dict(outcome.error or {})}
    return TaggedOutput("failures", transcript.with_provenance(failed, row, asked, route))


class Transcribed(NamedTuple):
    """What ``Transcribe`` gives.

    Attributes:
        transcripts: each transcribed row, unchanged, with the text in its ``pred_text_key``.
        failures: each other row with its ``error: {stage, type, message, attempts}``.
        statistics: parts of the sums over the job: the rows in, and one element for each bundle.
        filtered: rows that were asked to be kept apart, with ``filtered`` saying why.
    """

    transcripts: PCollection[Record]
    failures: PCollection[Record]
    statistics: PCollection[Statistics]
    filtered: PCollection[Record]


def filtered_record(record: Record, filters: bool) -> Iterator[Any]:
    """A failure, or a filtered row if it is one of refused audio and these are to be filtered."""
    if not (filters and is_refusal(record.get("error"))):
        yield record
        return
    error = record["error"]
    why = {"by": "audio", "type": error["type"], "message": error["message"]}
    rest = {key: value for key, value in record.items() if key != "error"}
    yield TaggedOutput("filtered", {**rest, "filtered": why})
