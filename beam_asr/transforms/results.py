"""Defines `Transcribed`, and turns events of rows into tagged outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput

from beam_asr.records import channels
from beam_asr.records.events import (
    Done,
    Failed,
    Filtered,
    Planned,
    RowSplit,
    SegmentDone,
    SegmentFailed,
    TooLong,
)
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Failure, FilteredRow, Record, Transcript, to_record
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import SegmentOutcome, TakenChannel
from beam_asr.transcripts.transcript import transcript_fields
from beam_asr.transforms.job_context import JobContext


def count_row(event: object, statistics: Statistics) -> None:
    """Adds an event to the sums of rows: a resumed one, or one of several channels."""
    match event:
        case RowSplit(count):
            statistics.further_channels += count - 1
        case Done(_, outcome, True) | Failed(_, outcome, True) | Filtered(_, outcome, True):
            statistics.resumed_rows += 1
            statistics.resumed_seconds += outcome.seconds


def output_of(event: object, context: JobContext, route: int) -> TaggedOutput | None:
    """Returns the output of a step for an event; None if it has none.

    Args:
        route: the number of the row's model.
    """
    match event:
        case Done(row, outcome):
            return TaggedOutput("transcripts", _transcript(row, outcome, context, route))
        case Failed(row, Outcome(error=error)):
            model = context.model_name(route)
            return TaggedOutput("failures", Failure(row, error or {}, model))
        case Filtered(row, Outcome(error=error)):
            model = context.model_name(route)
            return TaggedOutput("filtered", FilteredRow.refused(row, error or {}, model))
        case SegmentDone(segment, outcome, resumed) | SegmentFailed(segment, outcome, resumed):
            segment_outcome = SegmentOutcome(segment.number, outcome, resumed)
            return TaggedOutput("segments", (segment.key, segment_outcome))
        case TooLong():
            return TaggedOutput("long", event)
        case Planned(plan):
            return TaggedOutput("rows", (plan.key, plan))
    return None


def _transcript(row: Row, outcome: Outcome, context: JobContext, route: int) -> Transcript:
    assert outcome.recognition is not None
    result = transcript_fields(outcome.recognition, context.transcript_fields)
    model = context.model_name(route)
    if model is not None:
        result["model"] = model
    if "taken" in outcome.recognition:
        taken = TakenChannel(*outcome.recognition["taken"])
        result |= channels.taken_fields(
            row.fields, taken, context.channel_key, context.filepath_key
        )
    return Transcript(row, result, outcome.recognition["seconds"])


class Collections(NamedTuple):
    """Holds the collections of a `Transcribed` as they are between this package's steps.

    Their elements are those of `records.record`, or dicts from a step of the user's.
    """

    transcripts: PCollection[Transcript | Record]
    failures: PCollection[Failure | Record]
    statistics: PCollection[Statistics]
    filtered: PCollection[FilteredRow | Record]


class Transcribed(Collections):
    """Holds the results of ``Transcribe``.

    Attributes:
        transcripts: each transcribed row, unchanged, with the text in its ``pred_text_key``.
        failures: each other row with its ``error: {stage, type, message, attempts}``.
        statistics: parts of the sums over the job: the rows in, and one element for each bundle.
        filtered: rows that are filtered out, with the reason in ``filtered``.
    """

    @property
    def typed(self) -> Collections:
        """Returns the collections without the step that turns their elements into dicts."""
        return Collections(*self)

    @property
    def transcripts(self) -> PCollection[Record]:
        return _as_records(self[0])

    @property
    def failures(self) -> PCollection[Record]:
        return _as_records(self[1])

    @property
    def filtered(self) -> PCollection[Record]:
        return _as_records(self[3])


def _as_records(collection: Any) -> PCollection[Record]:
    """Returns a collection's elements as dicts; adds the step for that when first requested."""
    if not hasattr(collection, "beam_asr_records"):  # one step for all requests
        name = f"{collection.producer.full_label}.{collection.tag or 'main'}".replace("/", ".")
        to_dicts = beam.Map(to_record).with_output_types(Record)
        collection.beam_asr_records = collection | f"Records({name})" >> to_dicts
    records: PCollection[Record] = collection.beam_asr_records
    return records
