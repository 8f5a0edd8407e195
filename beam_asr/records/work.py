"""Rows that are too long for the model in one piece, and the segments that they are cut into."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

from beam_asr.audio.segmentation import Segment
from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Clip

STRETCH_SECONDS = 5 * 60.0  # of a recording that is read at a time, and by one worker
# Of one of which a range is read with all that is before it, as an MP3: so it is read this many
# times, by half.
MOST_STRETCHES = 8


class LongRow(NamedTuple):
    """A row and the segments that it is planned into.

    Attributes:
        key: by which what became of its segments comes together.
        clip: the row's; its times, unlike those of segments, count from the file's beginning.
        segments: in order; none if there is no speech.
        seconds: of its audio, speech or not.
        can_seek: whether a range of it can be read without all that is before it.
        broken: ``(start, end, error)`` of what could not be read, at its end, with the ``error`` of
            a failure record; None if all could be.
    """

    key: str
    clip: Clip
    segments: tuple[Segment, ...]
    seconds: float
    broken: tuple[float, float, Mapping[str, Any]] | None = None
    can_seek: bool = True


class Stretch(NamedTuple):
    """Segments of a row that follow each other, to be read in one go.

    Attributes:
        first: the number of the first one in the row.
        stitched: whether some segments of the row overlap, so that their tokens are needed.
    """

    key: str
    clip: Clip
    first: int
    segments: tuple[Segment, ...]
    stitched: bool

    @property
    def seconds(self) -> float:
        return self.segments[-1].end - self.segments[0].start

    def whole(self) -> Clip:
        """The range of the file that it is."""
        piece = Piece(self.key, self.first, self.stitched)
        return _part(self.clip, self.segments[0].start, self.segments[-1].end, piece)

    def without(self, done: Container[str]) -> list[Stretch]:
        """What is left of it when segments with these ids need not be read."""
        if not any(clip.row.id in done for clip in self.clips()):
            return [self]
        return [
            self._replace(first=number, segments=(segment,))
            for number, segment in enumerate(self.segments, self.first)
            if segment_id(self.clip.row.id, segment) not in done
        ]

    def clips(self) -> list[Clip]:
        """Its segments, each with an id that follows from the row's."""
        return [
            _part(
                self.clip, segment.start, segment.end, Piece(self.key, number, self.stitched)
            )._replace(row=self.clip.row._replace(id=segment_id(self.clip.row.id, segment)))
            for number, segment in enumerate(self.segments, self.first)
        ]


class Piece(NamedTuple):
    """Which segment of which row a clip is; ``key`` and ``stitched`` are those of ``Stretch``."""

    key: str
    number: int
    stitched: bool


class SegmentOutcome(NamedTuple):
    """What became of a segment.

    Attributes:
        number: of the segment in its row.
        resumed: whether an earlier run had done it.
    """

    number: int
    outcome: Outcome
    resumed: bool = False


def segment_id(row_id: str, segment: Segment) -> str:
    """The id of a segment, for the journal; empty for a row that has none."""
    return row_id and f"{row_id}/{segment.start:.3f}-{segment.end:.3f}"


def plan_id(row_id: str) -> str:
    """The id of a row's plan, for the journal."""
    return f"{row_id}/plan"


def is_part(an_id: str) -> bool:
    """Whether an id in the journal is not that of a row."""
    return "/" in an_id


def stretches(row: LongRow) -> Iterator[Stretch]:
    """The segments of a row in groups of some minutes."""
    longest = STRETCH_SECONDS
    if not row.can_seek:
        longest = max(longest, row.seconds / MOST_STRETCHES)
    stitched = any(segment.overlaps for segment in row.segments)
    begin = 0
    for number, segment in enumerate(row.segments):
        if segment.end - row.segments[begin].start > longest and number > begin:
            yield Stretch(row.key, row.clip, begin, row.segments[begin:number], stitched)
            begin = number
    if row.segments:
        yield Stretch(row.key, row.clip, begin, row.segments[begin:], stitched)


def _part(clip: Clip, start: float, end: float, piece: Piece) -> Clip:
    return clip._replace(offset=clip.offset + start, duration=end - start, piece=piece)
