"""Units of work: `Clip`, segments of long rows and their groups, tars, members of tars."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row

GROUP_SECONDS = 5 * 60.0  # of a recording that is read at a time, and by one worker
# Of one of which a range is read with all that is before it, as an MP3: so it is read this many
# times, by half.
MAX_GROUPS = 8


class SegmentPlan(NamedTuple):
    """A row and the segments that it is planned into.

    Attributes:
        key: by which what became of its segments comes together.
        clip: the row's; its times, unlike those of segments, count from the file's beginning.
        segments: in order; none if there is no speech.
        seconds: of its audio, speech or not.
        can_seek: whether a range of it can be read without all that is before it.
        unreadable_tail: ``(start, end, error)`` of what could not be read, at its end, with the
            ``error`` of a failure record; None if all could be.
    """

    key: str
    clip: Clip
    segments: tuple[Segment, ...]
    seconds: float
    unreadable_tail: tuple[float, float, Mapping[str, Any]] | None = None
    can_seek: bool = True


class SegmentGroup(NamedTuple):
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
        ref = SegmentRef(self.key, self.first, self.stitched)
        return _part(self.clip, self.segments[0].start, self.segments[-1].end, ref)

    def without(self, done: Container[str]) -> list[SegmentGroup]:
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
                self.clip, segment.start, segment.end, SegmentRef(self.key, number, self.stitched)
            )._replace(row=self.clip.row.with_id(segment_id(self.clip.row.id, segment)))
            for number, segment in enumerate(self.segments, self.first)
        ]


class SegmentRef(NamedTuple):
    """Names a segment of a row; ``key`` and ``stitched`` are those of ``SegmentGroup``."""

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


def group_segments(row: SegmentPlan) -> Iterator[SegmentGroup]:
    """The segments of a row in groups of some minutes."""
    longest = GROUP_SECONDS
    if not row.can_seek:
        longest = max(longest, row.seconds / MAX_GROUPS)
    stitched = any(segment.overlaps for segment in row.segments)
    begin = 0
    for number, segment in enumerate(row.segments):
        if segment.end - row.segments[begin].start > longest and number > begin:
            yield SegmentGroup(row.key, row.clip, begin, row.segments[begin:number], stitched)
            begin = number
    if row.segments:
        yield SegmentGroup(row.key, row.clip, begin, row.segments[begin:], stitched)


def _part(clip: Clip, start: float, end: float, segment: SegmentRef) -> Clip:
    return clip._replace(offset=clip.offset + start, duration=end - start, segment=segment)


class Segment(NamedTuple):
    """What the model gets in one piece.

    Attributes:
        start: seconds from the beginning of the row's audio.
        end: likewise.
        overlaps: it begins before the end of the one before it, since no pause was found there; the
            two are stitched by their tokens.
    """

    start: float
    end: float
    overlaps: bool = False


class WebDatasetTar(NamedTuple):
    """A tar of samples, each an audio file with what is said of it: a WebDataset.

    Attributes:
        file: path or URI.
        id: the tar's, with which its samples' begin; empty where none is needed.
        done: what became of samples in an earlier run, by their ids.
        route: the number of the model whose samples are read (`routes`).
    """

    file: str
    id: str = ""
    done: Mapping[str, Outcome] = {}
    route: int = 0


class NemoTar(NamedTuple):
    """A tar of a tarred data set of NeMo's, and the rows whose audio is in it.

    Attributes:
        tar: path or URI.
        clips: each with the name of its file in the tar as its audio.
        done: the names of files that have rows, but need not be read.
        route: the number of the model of the clips (`routes`).
    """

    tar: str
    clips: list[Clip]
    done: Sequence[str] = ()
    route: int = 0


class Clip(NamedTuple):
    """A row that is fit to be transcribed.

    Attributes:
        row: the row, as it was read.
        audio: path or URI of the audio, no longer relative to the manifest.
        offset: seconds from the start of the audio.
        duration: seconds to read, or None for all that follows.
        channel: the channel that the row names, from 0; None if it names none.
        segment: which segment of a long row it is (`SegmentPlan`); None for a whole row.
        route: the number of the model that takes it (`routes`).
    """

    row: Row
    audio: str
    offset: float
    duration: float | None
    channel: int | None = None
    segment: SegmentRef | None = None
    route: int = 0


class TarredClip(NamedTuple):
    """A clip in a tar of a data set of NeMo's.

    Attributes:
        number: of the tar.
        done: whether it needs not be transcribed; it is here so that its file has a row.
    """

    number: int
    clip: Clip
    done: bool = False
