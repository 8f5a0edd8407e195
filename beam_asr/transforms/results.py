"""`Transcribed`; what happened to rows as tagged outputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput

from beam_asr.records.events import (
    Done,
    Failed,
    Filtered,
    Planned,
    SegmentDone,
    SegmentFailed,
    TooLong,
)
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Failure, FilteredRow, Record, Transcript, to_record
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import SegmentOutcome
from beam_asr.transcripts.transcript import transcript_fields
from beam_asr.transforms.job_context import JobContext


def resumed_statistics(outcome: Outcome) -> Statistics:
    return Statistics(resumed_rows=1, resumed_seconds=outcome.seconds)


def output_of(event: object, context: JobContext, route: int) -> TaggedOutput | None:
    """What a step gives on for an event; None if that is nothing.

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
            ended = SegmentOutcome(segment.number, outcome, resumed)
            return TaggedOutput("segments", (segment.key, ended))
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
    return Transcript(row, result, outcome.recognition["seconds"])


class Collections(NamedTuple):
    """The collections of a `Transcribed` as they are between our own steps.

    Their elements are those of `records.record`, or dicts that a step of the user's made.
    """

    transcripts: PCollection[Transcript | Record]
    failures: PCollection[Failure | Record]
    statistics: PCollection[Statistics]
    filtered: PCollection[FilteredRow | Record]


class Transcribed(Collections):
    """What ``Transcribe`` gives.

    Attributes:
        transcripts: each transcribed row, unchanged, with the text in its ``pred_text_key``.
        failures: each other row with its ``error: {stage, type, message, attempts}``.
        statistics: parts of the sums over the job: the rows in, and one element for each bundle.
        filtered: rows that were asked to be kept apart, with ``filtered`` saying why.
    """

    @property
    def typed(self) -> Collections:
        """The collections without the step that makes dicts of their elements."""
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
    """A collection's elements as dicts: a step that is there only if somebody asks for it."""
    if not hasattr(collection, "beam_asr_records"):  # one for all who ask
        name = f"{collection.producer.full_label}.{collection.tag or 'main'}".replace("/", ".")
        made = beam.Map(to_record).with_output_types(Record)
        collection.beam_asr_records = collection | f"Records({name})" >> made
    records: PCollection[Record] = collection.beam_asr_records
    return records
