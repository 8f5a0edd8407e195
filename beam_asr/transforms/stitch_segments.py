"""The step that puts long rows together again, each of what became of its segments."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from beam_asr.errors import LostRowsError, SegmentsFailedError
from beam_asr.records.events import Done, RowEnded
from beam_asr.records.outcome import Outcome
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import Segment, SegmentOutcome, SegmentPlan
from beam_asr.transcripts import transcript
from beam_asr.transcripts.stitching import SegmentText, stitch
from beam_asr.transforms.job_context import JobContext
from beam_asr.transforms.results import output_of


class StitchRows(beam.DoFn):
    """Gives what becomes of each row, to ``transcripts`` or ``failures``; counts them.

    Takes a row's key and, in any order, the row and what became of its segments.
    """

    def __init__(self, context: JobContext):
        self._context = context

    def process(
        self, keyed: tuple[str, Iterable[SegmentPlan | SegmentOutcome]]
    ) -> Iterator[TaggedOutput | None]:
        row, ended = _in_order(keyed[1])
        yield TaggedOutput("statistics", _statistics(row, ended))
        event = self._event(row, ended)
        self._context.check_failure_limit(event)
        yield output_of(event, self._context, row.clip.route)

    def _event(self, row: SegmentPlan, ended: list[SegmentOutcome]) -> RowEnded:
        failed = _failed(row, ended)
        recognized = any(each.outcome.recognition is not None for each in ended)
        if failed and not (self._context.keep_partial and recognized):
            return self._context.row_failed(row.clip.row, *_failure(row, ended, failed))
        result = _together(row, ended)
        if failed:
            result["segments_failed"] = failed
        return Done(row.clip.row, Outcome(row.clip.row.id, result))


def _in_order(
    values: Iterable[SegmentPlan | SegmentOutcome],
) -> tuple[SegmentPlan, list[SegmentOutcome]]:
    """A row, and what became of each of its segments, in their order."""
    rows: list[SegmentPlan] = []
    outcomes: dict[int, SegmentOutcome] = {}
    for value in values:
        if isinstance(value, SegmentPlan):
            rows.append(value)
        elif value.number in outcomes:
            raise LostRowsError(f"segment {value.number} of a row has come out twice")
        else:
            outcomes[value.number] = value
    if len(rows) != 1 or set(outcomes) != set(range(len(rows[0].segments))):
        raise LostRowsError(
            f"of a long row {len(outcomes)} segments and {len(rows)} plans came out. This is a "
            "defect of the job"
        )
    return rows[0], [outcomes[number] for number in range(len(outcomes))]


def _statistics(row: SegmentPlan, ended: list[SegmentOutcome]) -> Statistics:
    heard = sum(segment.end - segment.start for segment in row.segments)
    overlaps = sum(
        before.end - after.start
        for before, after in itertools.pairwise(row.segments)
        if after.overlaps
    )
    unheard = max(0.0, row.seconds - heard + overlaps)
    resumed = bool(ended) and all(each.resumed for each in ended)
    return Statistics(
        resumed_rows=int(resumed),
        resumed_seconds=unheard if resumed else 0.0,
        long_rows=1,
        segments=len(ended),
        segments_failed=sum(each.outcome.error is not None for each in ended),
        unheard_seconds=0.0 if resumed else unheard,
        no_speech=int(not ended),
    )


def _failed(row: SegmentPlan, ended: list[SegmentOutcome]) -> list[dict[str, Any]]:
    """What of a row could not be transcribed, with its times in the file."""
    failed: list[tuple[float, float, Mapping[str, Any]]] = [
        (segment.start, segment.end, each.outcome.error)
        for segment, each in zip(row.segments, ended, strict=True)
        if each.outcome.error is not None
    ]
    if row.unreadable_tail is not None:
        failed.append(row.unreadable_tail)
    offset = row.clip.offset
    return [
        {
            "start": round(offset + start, transcript.DECIMALS),
            "end": round(offset + end, transcript.DECIMALS),
            "error": dict(error),
        }
        for start, end, error in failed
    ]


def _failure(
    row: SegmentPlan, ended: list[SegmentOutcome], failed: list[dict[str, Any]]
) -> tuple[SegmentsFailedError, int]:
    """The error and the attempts of a row that fails because segments did."""
    first = failed[0]["error"]
    whole = len(ended) == sum(each.outcome.error is not None for each in ended)
    remedy = "" if whole else " Give `partial=keep` for the transcript of the others."
    error = SegmentsFailedError(
        f"{len(failed)} of {len(ended) + (row.unreadable_tail is not None)} segments failed, the "
        f"first one from {failed[0]['start']:.2f} s to {failed[0]['end']:.2f} s of the file: "
        f"{first['type']}: {first['message']}{remedy}",
        first["stage"],
    )
    return error, max(each["error"]["attempts"] for each in failed)


def _together(row: SegmentPlan, ended: list[SegmentOutcome]) -> dict[str, Any]:
    """What was heard in a row, as in one clip (`transcripts.kept`)."""
    if not ended:
        return transcript.empty_result(row.seconds)
    heard = [
        (segment, each.outcome.recognition)
        for segment, each in zip(row.segments, ended, strict=True)
        if each.outcome.recognition is not None
    ]
    stitched = stitch([_part(segment, row.clip.offset, each) for segment, each in heard])
    seconds = round(row.seconds, transcript.DECIMALS)
    made: dict[str, Any] = {"text": stitched.text, "seconds": seconds}
    if stitched.tokens is not None:
        made["timed"] = all(each.get("timed", True) for _, each in heard)
        made["tokens"] = [list(token) for token in stitched.tokens]
    if any("n_best" in each for _, each in heard):  # a quiet segment has none
        made["score"] = sum(each.get("score", 0.0) for _, each in heard)
        if stitched.text == " ".join(filter(None, (each["text"] for _, each in heard))):
            made["n_best"] = _best_of([each.get("n_best", [["", 0.0]]) for _, each in heard])
        else:  # of segments that overlap, only the best are stitched
            made["n_best"] = [[stitched.text, made["score"]]]
    return made


def _part(segment: Segment, offset: float, recognition: Mapping[str, Any]) -> SegmentText:
    start, end = offset + segment.start, offset + segment.end
    found = transcript.stored_tokens(recognition)
    if found is not None and not recognition["timed"]:  # as if they came at an even pace
        pace = (end - start) / max(1, len(found))
        found = [
            token._replace(start=start + number * pace, end=start + (number + 1) * pace)
            for number, token in enumerate(found)
        ]
    return SegmentText(start, end, segment.overlaps, recognition["text"], found)


def _best_of(parts: list[list[list[Any]]]) -> list[list[Any]]:
    """The best ways to join one text of each part: a way's score is the sum of its texts'."""
    most = max(map(len, parts))
    best: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for part in parts:
        ways = [(before + score, (*texts, text)) for before, texts in best for text, score in part]
        best = sorted(ways, key=lambda way: -way[0])[:most]
    return [[" ".join(filter(None, texts)), score] for score, texts in best]
