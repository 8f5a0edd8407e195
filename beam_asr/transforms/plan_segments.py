"""The step that plans long rows: each to stretches of segments, for any worker to take."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from beam_asr.audio import read_pool
from beam_asr.audio.limits import is_refusal
from beam_asr.audio.read_pool import Read, StalledError
from beam_asr.audio.segment_planner import Planner
from beam_asr.audio.source import for_message
from beam_asr.errors import AudioTimeoutError
from beam_asr.outputs import failure_limit
from beam_asr.outputs.journal import Journal, chunk_name
from beam_asr.records import record as manifest
from beam_asr.records import work
from beam_asr.records.outcome import Outcome
from beam_asr.records.work import Clip, LongClip, Segment, SegmentPlan, plan_id
from beam_asr.settings import TranscriptFields
from beam_asr.storage.retry import attempts_of
from beam_asr.transcripts import transcript
from beam_asr.transforms import bundles


class _PendingPlan(NamedTuple):
    item: LongClip
    read: Read[SegmentPlan]
    window: Any
    timestamp: Any


class PlanSegments(beam.DoFn):
    """Plans rows, as many at a time as there are processors.

    Gives stretches, to ``rows`` each row by its key with what is planned, and to ``failures`` those
    that cannot be read.

    Args:
        planners: by the numbers of the rows' models.
        journal: where plans are kept; None keeps none.
        run: the id of this run of the job.
        max_failure_fraction: as in ``Transcribe``.
        filters: whether rows whose audio is refused are no failures.
    """

    def __init__(
        self,
        planners: Sequence[Planner],
        asked: TranscriptFields,
        journal: Journal | None,
        run: str,
        max_failure_fraction: float | None,
        filters: bool = False,
    ):
        self._planners = planners
        self._asked = asked
        self._journal = journal
        self._run = run
        self._max_failure_fraction = max_failure_fraction
        self._filters = filters

    def setup(self) -> None:
        fraction = self._max_failure_fraction
        self._watch = None if fraction is None else failure_limit.watch(self._run, fraction)

    def start_bundle(self) -> None:
        self._begun: deque[_PendingPlan] = deque()

    def process(
        self,
        item: LongClip,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        at_a_time = os.cpu_count() or 1
        read = read_pool.pool(at_a_time).start(partial(self._plan, item))
        self._begun.append(_PendingPlan(item, read, window, timestamp))
        if len(self._begun) > at_a_time:
            yield from self._take(self._begun.popleft())

    def finish_bundle(self) -> Iterator[Any]:
        while self._begun:
            yield from self._take(self._begun.popleft())

    def _plan(self, item: LongClip) -> SegmentPlan:
        clip = item.clip
        if self._journal is None:
            return self._planners[clip.route].plan(clip, item.longest)
        for outcome in self._journal.read(chunk_name([plan_id(clip.row.id)])):
            if outcome.recognition is not None:  # of an earlier run, or an earlier try
                return _from_fields(clip, outcome.recognition)
        row = self._planners[clip.route].plan(clip, item.longest)
        self._journal.write([Outcome(plan_id(clip.row.id), _to_fields(row))])
        return row

    def _take(self, begun: _PendingPlan) -> Iterator[Any]:
        clip = begun.item.clip
        row = begun.read.result(self._planners[clip.route].time_limit(clip))
        if isinstance(row, Exception):
            outputs = [self._failed(clip, row)]
        else:
            planned = TaggedOutput("rows", (row.key, row))
            outputs = [planned, *work.group_segments(row)]
        yield from bundles.at_window(outputs, begun.window, begun.timestamp)

    def _failed(self, clip: Clip, error: Exception) -> TaggedOutput:
        if isinstance(error, StalledError):
            error = AudioTimeoutError(
                f"{for_message(clip.audio)}: could not be read to its end, and its storage does "
                "not answer. Mend the storage, or raise --audio_timeout."
            )
        record = manifest.failure(clip.row, "audio", error, attempts_of(error))
        if self._journal is not None:
            self._journal.write([Outcome(clip.row.id, error=record["error"])])
        if self._watch is not None:
            filtered = self._filters and is_refusal(record["error"])
            self._watch.add(None if filtered else record["error"], None)
        return TaggedOutput(
            "failures", transcript.with_provenance(record, clip.row, self._asked, clip.route)
        )


def _to_fields(row: SegmentPlan) -> dict[str, Any]:
    return {
        "segments": [list(segment) for segment in row.segments],
        "seconds": row.seconds,
        "unreadable_tail": row.unreadable_tail,
        "can_seek": row.can_seek,
    }


def _from_fields(clip: Clip, fields: Any) -> SegmentPlan:
    planned = tuple(Segment(*each) for each in fields["segments"])
    broken = None if fields["unreadable_tail"] is None else tuple(fields["unreadable_tail"])
    can_seek = fields["can_seek"]
    return SegmentPlan(clip.row.id, clip, planned, fields["seconds"], broken, can_seek)
