"""Stitches long rows, each from the outcomes of its segments."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from beam_asr.errors import LostRowsError, SegmentsFailedError
from beam_asr.outputs.progress import Counts
from beam_asr.records.events import Done, RowEnded
from beam_asr.records.outcome import Outcome
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import Segment, SegmentOutcome, SegmentPlan
from beam_asr.transcripts import transcript
from beam_asr.transcripts.stitching import SegmentText, stitch
from beam_asr.transforms.job_context import JobContext
from beam_asr.transforms.results import output_of


class StitchRows(beam.DoFn):
    """Yields each long row, to ``transcripts`` or ``failures``; counts them.

    Takes a row's key and, in any order, its plan and the outcomes of its segments.
    """

    def __init__(self, context: JobContext):
        self._context = context

    def process(
        self, keyed: tuple[str, Iterable[SegmentPlan | SegmentOutcome]]
    ) -> Iterator[TaggedOutput | None]:
        plan, results = _in_order(keyed[1])
        yield TaggedOutput("statistics", _statistics(plan, results))
        event = self._event(plan, results)
        self._context.count(event)
        self._context.report(Counts(long_rows_ended=1))
        yield output_of(event, self._context, plan.clip.route)

    def _event(self, plan: SegmentPlan, results: list[SegmentOutcome]) -> RowEnded:
        failed = _failed(plan, results)
        recognized = any(result.outcome.recognition is not None for result in results)
        if failed and not (self._context.keep_partial and recognized):
            return self._context.row_failed(plan.clip.row, *_failure(plan, results, failed))
        stored = transcript.with_channel(_stitched(plan, results), plan.clip.taken)
        if failed:
            stored["segments_failed"] = failed
        return Done(plan.clip.row, Outcome(plan.clip.row.id, stored))


def _in_order(
    values: Iterable[SegmentPlan | SegmentOutcome],
) -> tuple[SegmentPlan, list[SegmentOutcome]]:
    """Returns a row's plan, and the outcomes of its segments, in their order."""
    plans: list[SegmentPlan] = []
    outcomes: dict[int, SegmentOutcome] = {}
    for value in values:
        if isinstance(value, SegmentPlan):
            plans.append(value)
        elif value.number in outcomes:
            raise LostRowsError(f"segment {value.number} of a row has come out twice")
        else:
            outcomes[value.number] = value
    if len(plans) != 1 or set(outcomes) != set(range(len(plans[0].segments))):
        raise LostRowsError(
            f"of a long row {len(outcomes)} segments and {len(plans)} plans came out. This is a "
            "defect of the job"
        )
    return plans[0], [outcomes[number] for number in range(len(outcomes))]


def _statistics(plan: SegmentPlan, results: list[SegmentOutcome]) -> Statistics:
    covered = sum(segment.end - segment.start for segment in plan.segments)
    overlaps = sum(
        before.end - after.start
        for before, after in itertools.pairwise(plan.segments)
        if after.overlaps
    )
    skipped = max(0.0, plan.seconds - covered + overlaps)
    resumed = bool(results) and all(result.resumed for result in results)
    return Statistics(
        resumed_rows=int(resumed),
        resumed_seconds=skipped if resumed else 0.0,
        long_rows=1,
        segments=len(results),
        segments_failed=sum(result.outcome.error is not None for result in results),
        skipped_silence_seconds=0.0 if resumed else skipped,
        no_speech=int(not results),
        rows_shorter_than_file=int(plan.shorter_than_file),
    )


def _failed(plan: SegmentPlan, results: list[SegmentOutcome]) -> list[dict[str, Any]]:
    """Returns the parts of a row that could not be transcribed, with their times in the file."""
    failed: list[tuple[float, float, Mapping[str, Any]]] = [
        (segment.start, segment.end, result.outcome.error)
        for segment, result in zip(plan.segments, results, strict=True)
        if result.outcome.error is not None
    ]
    if plan.unreadable_tail is not None:
        failed.append(plan.unreadable_tail)
    offset = plan.clip.offset
    return [
        {
            "start": round(offset + start, transcript.DECIMALS),
            "end": round(offset + end, transcript.DECIMALS),
            "error": dict(error),
        }
        for start, end, error in failed
    ]


def _failure(
    plan: SegmentPlan, results: list[SegmentOutcome], failed: list[dict[str, Any]]
) -> tuple[SegmentsFailedError, int]:
    """Returns the error and the attempts of a row that fails because segments did."""
    first = failed[0]["error"]
    whole = len(results) == sum(result.outcome.error is not None for result in results)
    remedy = "" if whole else " Give `partial=keep` for the transcript of the others."
    error = SegmentsFailedError(
        f"{len(failed)} of {len(results) + (plan.unreadable_tail is not None)} segments failed, "
        f"the first one from {failed[0]['start']:.2f} s to {failed[0]['end']:.2f} s of the file: "
        f"{first['type']}: {first['message']}{remedy}",
        first["stage"],
    )
    return error, max(part["error"]["attempts"] for part in failed)


def _stitched(plan: SegmentPlan, results: list[SegmentOutcome]) -> dict[str, Any]:
    """Returns what was recognized in a row, as for one clip (`transcript.to_stored`)."""
    if not results:
        return transcript.empty_result(plan.seconds)
    recognized = [
        (segment, result.outcome.recognition)
        for segment, result in zip(plan.segments, results, strict=True)
        if result.outcome.recognition is not None
    ]
    stitched = stitch(
        [
            _segment_text(segment, plan.clip.offset, recognition)
            for segment, recognition in recognized
        ]
    )
    seconds = round(plan.seconds, transcript.DECIMALS)
    stored: dict[str, Any] = {"text": stitched.text, "seconds": seconds}
    if stitched.tokens is not None:
        stored["timed"] = all(recognition.get("timed", True) for _, recognition in recognized)
        stored["tokens"] = [list(token) for token in stitched.tokens]
    # A quiet segment has no n_best.
    if any("n_best" in recognition for _, recognition in recognized):
        stored["score"] = sum(recognition.get("score", 0.0) for _, recognition in recognized)
        if stitched.text == " ".join(
            filter(None, (recognition["text"] for _, recognition in recognized))
        ):
            stored["n_best"] = _best_of(
                [recognition.get("n_best", [["", 0.0]]) for _, recognition in recognized]
            )
        else:  # of segments that overlap, only the best are stitched
            stored["n_best"] = [[stitched.text, stored["score"]]]
    return stored


def _segment_text(segment: Segment, offset: float, recognition: Mapping[str, Any]) -> SegmentText:
    start, end = offset + segment.start, offset + segment.end
    tokens = transcript.stored_tokens(recognition)
    if tokens is not None and not recognition["timed"]:  # spread at an even pace
        pace = (end - start) / max(1, len(tokens))
        tokens = [
            token._replace(start=start + number * pace, end=start + (number + 1) * pace)
            for number, token in enumerate(tokens)
        ]
    return SegmentText(start, end, segment.overlaps, recognition["text"], tokens)


def _best_of(parts: list[list[list[Any]]]) -> list[list[Any]]:
    """Returns the best ways to join one text of each part, by the sums of the texts' scores."""
    count = max(map(len, parts))
    best: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for part in parts:
        ways = [(before + score, (*texts, text)) for before, texts in best for text, score in part]
        best = sorted(ways, key=lambda way: -way[0])[:count]
    return [[" ".join(filter(None, texts)), score] for score, texts in best]
