"""Defines the events of recognition, which the job's steps count and write.

Events without fields are not tuples, which would all be equal.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, SegmentPlan, SegmentRef


class Started(NamedTuple):
    """Rows or segments with these ids are being recognized; each ends as a separate event."""

    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class FoundInFolder:
    """A row of a tar has its record in the output folder already, to which the run appends."""


@dataclasses.dataclass(frozen=True)
class ChunkClosed:
    """A chunk is complete: the journal stores what started since the last such event together."""


class Done(NamedTuple):
    """A row was transcribed; ``resumed`` if by an earlier run or attempt."""

    row: Row
    outcome: Outcome
    resumed: bool = False


class Failed(NamedTuple):
    """A row could not be transcribed; attributes as in ``Done``."""

    row: Row
    outcome: Outcome
    resumed: bool = False


class Filtered(NamedTuple):
    """The limits of audio refuse a row, and the job filters such rows."""

    row: Row
    outcome: Outcome
    resumed: bool = False


class RowSplit(NamedTuple):
    """A row became a record for each of its channels, which end as events of their own.

    Attributes:
        channels: how many.
        outcome: of the row, with those of its channels; None where they are planned.
        resumed: as in ``Done``.
    """

    channels: int
    outcome: Outcome | None = None
    resumed: bool = False


class SegmentDone(NamedTuple):
    """A segment of a long row was transcribed; ``resumed`` as in ``Done``."""

    segment: SegmentRef
    outcome: Outcome
    resumed: bool = False


class SegmentFailed(NamedTuple):
    """A segment of a long row could not be transcribed."""

    segment: SegmentRef
    outcome: Outcome
    resumed: bool = False


class TooLong(NamedTuple):
    """A row must be cut into segments, of at most ``longest`` seconds."""

    clip: Clip
    longest: float


class Planned(NamedTuple):
    """A long row in a tar was cut into segments, which follow."""

    plan: SegmentPlan


class ClipRead(NamedTuple):
    """A clip was read, or failed to be, in ``seconds`` of wall time.

    It may be the row of a file that goes on after it (`audio.limits.is_shorter_than_file`).
    """

    seconds: float
    shorter_than_file: bool = False


class Silent(NamedTuple):
    """In ``seconds`` of audio nobody speaks, so they skip the model."""

    seconds: float
    whole_row: bool


@dataclasses.dataclass(frozen=True)
class SampleFound:
    """A sample of a WebDataset was read, which is a row."""


class MemberWithoutRow(NamedTuple):
    """A file in a tar of a tarred data set has no row."""

    name: str


@dataclasses.dataclass(frozen=True)
class TarWithoutRows:
    """A tar of a tarred data set has no rows, and is not read."""


RowEnded = Done | Failed | Filtered
SegmentEnded = SegmentDone | SegmentFailed
