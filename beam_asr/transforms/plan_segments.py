"""Plans long rows as groups of segments, in a DoFn; any worker can take a group."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from beam_asr.audio import read_pool
from beam_asr.audio.read_pool import Read, StalledError
from beam_asr.audio.reading import is_replaced
from beam_asr.audio.segment_planner import Planner
from beam_asr.audio.source import shown
from beam_asr.errors import AudioTimeoutError
from beam_asr.outputs.progress import Counts
from beam_asr.records import work
from beam_asr.records.events import Planned, RowSplit, TooLong
from beam_asr.records.outcome import Outcome
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import Clip, Segment, SegmentPlan, TakenChannel, plan_id
from beam_asr.storage.retry import attempts_of
from beam_asr.transforms import bundles
from beam_asr.transforms.job_context import JobContext
from beam_asr.transforms.results import count_row, output_of


class _PendingPlan(NamedTuple):
    item: TooLong
    read: Read[list[SegmentPlan]]
    window: Any
    timestamp: Any


class PlanSegments(beam.DoFn):
    """Plans rows, as many at a time as there are processors.

    Yields groups of segments; in ``rows`` the plan of each row by its key, or of each of its
    channels; in ``failures`` and ``filtered`` the rows that cannot be read; and in ``statistics``
    sums.

    Args:
        planners: the planner of each model, by the models' numbers.
    """

    def __init__(self, context: JobContext, planners: Sequence[Planner]):
        self._context = context
        self._planners = planners

    def start_bundle(self) -> None:
        self._pending: deque[_PendingPlan] = deque()

    def process(
        self,
        item: TooLong,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        max_pending = os.cpu_count() or 1
        read = read_pool.pool(max_pending).start(partial(self._plan, item))
        self._pending.append(_PendingPlan(item, read, window, timestamp))
        if len(self._pending) > max_pending:
            yield from self._finish(self._pending.popleft())

    def finish_bundle(self) -> Iterator[Any]:
        while self._pending:
            yield from self._finish(self._pending.popleft())

    def _plan(self, item: TooLong) -> list[SegmentPlan]:
        clip, journal = item.clip, self._context.journal
        if journal is None:
            return self._planners[clip.route].plan(clip, item.longest)
        for outcome in journal.read_chunk([plan_id(clip.row.id)]):
            if outcome.recognition is not None:  # by an earlier run, or an earlier attempt
                try:
                    plans = _from_fields(clip, outcome.recognition)
                except (KeyError, TypeError, ValueError):  # it is damaged
                    continue
                version, storage = plans[0].clip.version, self._planners[clip.route].storage
                if not is_replaced(clip.audio, version, storage=storage):
                    return plans
        plans = self._planners[clip.route].plan(clip, item.longest)
        journal.write([Outcome(plan_id(clip.row.id), _to_fields(plans))])
        return plans

    def _finish(self, pending: _PendingPlan) -> Iterator[Any]:
        clip = pending.item.clip
        plans = pending.read.result(self._planners[clip.route].time_limit(clip))
        if isinstance(plans, Exception):
            outputs = [self._failed(clip, plans)]
        else:
            outputs = list(self._planned(clip, plans))
        yield from bundles.at_window(outputs, pending.window, pending.timestamp)

    def _planned(self, clip: Clip, plans: list[SegmentPlan]) -> Iterator[Any]:
        if len(plans) > 1:
            statistics = Statistics()
            split = RowSplit(len(plans))
            count_row(split, statistics)
            self._context.count(split)
            yield TaggedOutput("statistics", statistics)
        segments = sum(len(plan.segments) for plan in plans)
        self._context.report(Counts(long_rows=len(plans), segments=segments))
        for plan in self._context.split_plans(clip.row, plans):
            yield output_of(Planned(plan), self._context, clip.route)
            yield from work.group_segments(plan)

    def _failed(self, clip: Clip, error: Exception) -> TaggedOutput | None:
        if isinstance(error, StalledError):
            error = AudioTimeoutError.stalled(shown(clip.audio), None)
        event = self._context.row_failed(clip.row, error, attempts_of(error), "audio")
        if self._context.journal is not None:
            self._context.journal.write([event.outcome])
        self._context.count(event)
        return output_of(event, self._context, clip.route)


def _to_fields(plans: list[SegmentPlan]) -> dict[str, Any]:
    return {
        "plans": [
            {
                "segments": [list(segment) for segment in plan.segments],
                "seconds": plan.seconds,
                "unreadable_tail": plan.unreadable_tail,
                "can_seek": plan.can_seek,
                "shorter_than_file": plan.shorter_than_file,
                "channel": plan.clip.channel,
                "taken": plan.clip.taken,
                "version": plan.clip.version,
            }
            for plan in plans
        ]
    }


def _from_fields(clip: Clip, fields: Any) -> list[SegmentPlan]:
    return [_plan_of(clip, plan) for plan in fields["plans"]]


def _plan_of(clip: Clip, fields: Any) -> SegmentPlan:
    segments = tuple(Segment(*segment) for segment in fields["segments"])
    tail, taken = fields["unreadable_tail"], fields["taken"]
    clip = clip._replace(
        channel=fields["channel"],
        taken=None if taken is None else TakenChannel(*taken),
        version=fields.get("version", ""),  # an older release has none
    )
    return SegmentPlan(
        clip.row.id,
        clip,
        segments,
        fields["seconds"],
        None if tail is None else tuple(tail),
        fields["can_seek"],
        fields["shorter_than_file"],
    )
