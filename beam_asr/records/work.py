"""Defines units of work: clips, segments of long rows and their groups, and tars."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row

GROUP_SECONDS = 5 * 60.0  # of a recording that one worker reads at a time
# A range of some files, as an MP3, is read with everything before it. With this many groups, such a
# file is read half as many times.
MAX_GROUPS = 8


class SegmentPlan(NamedTuple):
    """A row with its planned segments.

    Attributes:
        key: groups the outcomes of its segments.
        clip: the row's; its times, unlike those of segments, count from the file's beginning.
        segments: in order; empty if there is no speech.
        seconds: of its audio, speech or not.
        can_seek: whether a range of it can be read without everything before it.
        shorter_than_file: whether it has no offset, and ends before its file does.
        unreadable_tail: ``(start, end, error)`` of the unreadable part at its end, with the
            ``error`` of a failure record; None if all could be read.
    """

    key: str
    clip: Clip
    segments: tuple[Segment, ...]
    seconds: float
    unreadable_tail: tuple[float, float, Mapping[str, Any]] | None = None
    can_seek: bool = True
    shorter_than_file: bool = False


class SegmentGroup(NamedTuple):
    """Consecutive segments of a row, which are read at once.

    Attributes:
        first: the number of the first segment in the row.
        stitched: whether some segments of the row overlap, so that their tokens are needed.
    """

    key: str
    clip: Clip
    first: int
    segments: tuple[Segment, ...]
    stitched: bool

    @property
    def seconds(self) -> float:
        """Returns the length of its range in seconds."""
        return self.segments[-1].end - self.segments[0].start

    def whole(self) -> Clip:
        """Returns its range of the file as one clip."""
        ref = SegmentRef(self.key, self.first, self.stitched)
        return _part(self.clip, self.segments[0].start, self.segments[-1].end, ref)

    def without(self, done: Container[str]) -> list[SegmentGroup]:
        """Returns the groups that remain without the segments with these ids."""
        if not any(clip.row.id in done for clip in self.clips()):
            return [self]
        return [
            self._replace(first=number, segments=(segment,))
            for number, segment in enumerate(self.segments, self.first)
            if segment_id(self.clip, segment) not in done
        ]

    def clips(self) -> list[Clip]:
        """Returns its segments as clips, with ids derived from the row's."""
        return [
            _part(
                self.clip, segment.start, segment.end, SegmentRef(self.key, number, self.stitched)
            )._replace(row=self.clip.row.with_id(segment_id(self.clip, segment)))
            for number, segment in enumerate(self.segments, self.first)
        ]


class SegmentRef(NamedTuple):
    """Names a segment of a row; ``key`` and ``stitched`` are those of ``SegmentGroup``."""

    key: str
    number: int
    stitched: bool


class TakenChannel(NamedTuple):
    """Describes the one channel that was read of a file of several.

    Attributes:
        channel: from 0.
        channels: how many the file has.
        louder: whether it was chosen because the channels cancel each other in their average.
    """

    channel: int
    channels: int
    louder: bool = False


class ChannelRef(NamedTuple):
    """Names a channel of a row whose channels are recognized together.

    Attributes:
        key: of the row, among those that a process has in hand.
        number: of the channel, from 0.
    """

    key: int
    number: int


class SegmentOutcome(NamedTuple):
    """The outcome of a segment.

    Attributes:
        number: of the segment in its row.
        resumed: whether it comes from an earlier run.
    """

    number: int
    outcome: Outcome
    resumed: bool = False


def segment_id(clip: Clip, segment: Segment) -> str:
    """Returns the id of a segment of a row, for the journal; empty for a row without one.

    It is another one for each version of the file, so that none resumes what another one said.
    """
    if not clip.row.id:
        return ""
    version = hashlib.blake2b(clip.version.encode(), digest_size=6).hexdigest()
    return f"{clip.row.id}/{segment.start:.3f}-{segment.end:.3f}/{version}"


def plan_id(row_id: str) -> str:
    """Returns the id of a row's plan, for the journal."""
    return f"{row_id}/plan"


def is_part(journal_id: str) -> bool:
    """Returns whether an id in the journal is that of a segment or plan, not of a row."""
    return "/" in journal_id


def group_segments(row: SegmentPlan) -> Iterator[SegmentGroup]:
    """Yields the segments of a row in groups of some minutes."""
    longest = GROUP_SECONDS
    if not row.can_seek:
        longest = max(longest, row.seconds / MAX_GROUPS)
    stitched = any(segment.overlaps for segment in row.segments)
    first = 0
    for number, segment in enumerate(row.segments):
        if segment.end - row.segments[first].start > longest and number > first:
            yield SegmentGroup(row.key, row.clip, first, row.segments[first:number], stitched)
            first = number
    if row.segments:
        yield SegmentGroup(row.key, row.clip, first, row.segments[first:], stitched)


def _part(clip: Clip, start: float, end: float, segment: SegmentRef) -> Clip:
    return clip._replace(offset=clip.offset + start, duration=end - start, segment=segment)


class Segment(NamedTuple):
    """A range of a row's audio that the model processes at once.

    Attributes:
        start: seconds from the beginning of the row's audio.
        end: likewise.
        overlaps: it starts before the end of the previous one, since there is no pause; the two are
            stitched by their tokens.
    """

    start: float
    end: float
    overlaps: bool = False


class WebDatasetTar(NamedTuple):
    """A WebDataset tar of samples, each an audio file with its fields.

    Attributes:
        file: path or URI.
        id: the tar's, the prefix of its samples' ids; empty where none is needed.
        done: outcomes of samples in an earlier run, by their ids; None for those that the output
            folder has already.
        route: the number of the model whose samples are read (`models.routing`).
    """

    file: str
    id: str = ""
    done: Mapping[str, Outcome | None] = {}
    route: int = 0


class NemoTar(NamedTuple):
    """A tar of NeMo's tarred data sets, with the rows whose audio is in it.

    Attributes:
        tar: path or URI.
        clips: with the names of their files in the tar as audio.
        done: the names of files that have rows, but need not be read.
        route: the number of the clips' model (`models.routing`).
    """

    tar: str
    clips: list[Clip]
    done: Sequence[str] = ()
    route: int = 0


class Clip(NamedTuple):
    """A checked row that can be transcribed.

    Attributes:
        row: the row, as it was read.
        audio: path or URI of the audio, no longer relative to the manifest.
        offset: seconds from the start of the audio.
        duration: seconds to read; None reads to the end.
        channel: the channel that the row names, from 0, or `AVERAGE`; None if it names no channel.
        segment: its segment of a long row (`SegmentPlan`); None for a whole row.
        route: the number of its model (`models.routing`).
        taken: the channel that was read of a file of several; None before, and if all were read.
        part: its channel of a row of which every channel is a record; None for other rows.
        version: that its file must have (`storage.versions`), of a row that was planned; empty is
            any.
    """

    row: Row
    audio: str
    offset: float
    duration: float | None
    channel: int | str | None = None
    segment: SegmentRef | None = None
    route: int = 0
    taken: TakenChannel | None = None
    part: ChannelRef | None = None
    version: str = ""


class TarredClip(NamedTuple):
    """A clip in one of the tars of NeMo's tarred data sets.

    Attributes:
        number: of the tar.
        done: whether it is transcribed already; it is included so that its file has a row.
    """

    number: int
    clip: Clip
    done: bool = False
