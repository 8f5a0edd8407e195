"""What happens while rows are recognized, as values: steps count and write by them.

Those without fields are no tuples, which would all be equal.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, SegmentPlan, SegmentRef


class Started(NamedTuple):
    """Rows or segments with these ids are being recognized, each to end as an event of its own."""

    ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ChunkClosed:
    """What started since the last such event is kept together, and nothing else with it."""


class Done(NamedTuple):
    """A row is transcribed; ``resumed`` if an earlier run or attempt did it."""

    row: Row
    outcome: Outcome
    resumed: bool = False


class Failed(NamedTuple):
    """A row could not be transcribed; the attributes are those of ``Done``."""

    row: Row
    outcome: Outcome
    resumed: bool = False


class Filtered(NamedTuple):
    """The limits of audio refuse a row, and such rows are to be left out."""

    row: Row
    outcome: Outcome
    resumed: bool = False


class SegmentDone(NamedTuple):
    """A segment of a long row is transcribed; ``resumed`` as of ``Done``."""

    segment: SegmentRef
    outcome: Outcome
    resumed: bool = False


class SegmentFailed(NamedTuple):
    """A segment of a long row could not be transcribed."""

    segment: SegmentRef
    outcome: Outcome
    resumed: bool = False


class TooLong(NamedTuple):
    """A row is to be cut into segments, of at most ``longest`` seconds."""

    clip: Clip
    longest: float


class Planned(NamedTuple):
    """A long row in a tar is cut into segments, which follow."""

    plan: SegmentPlan


class ClipRead(NamedTuple):
    """A clip was read, or could not be, in ``seconds`` of wall time."""

    seconds: float


class Silent(NamedTuple):
    """In ``seconds`` of audio nobody speaks, so the model does not get it."""

    seconds: float
    whole_row: bool


@dataclasses.dataclass(frozen=True)
class SampleFound:
    """A sample of a WebDataset, which is a row."""


class MemberWithoutRow(NamedTuple):
    """A file in a tar of a tarred data set that no row is about."""

    name: str


@dataclasses.dataclass(frozen=True)
class TarWithoutRows:
    """A tar of a tarred data set of which no row is; it is not read."""


RowEnded = Done | Failed | Filtered
SegmentEnded = SegmentDone | SegmentFailed
