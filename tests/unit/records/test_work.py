"""Stretches of a long recording."""

from __future__ import annotations

from beam_asr.records.work import Segment, group_segments
from tests.support.long_rows import LONG


def test_stretches_hold_each_segment_once_and_are_some_minutes_long():
    segments = tuple(Segment(10.0 * n, 10.0 * n + 9.0) for n in range(200))
    row = LONG._replace(segments=segments)
    found = list(group_segments(row))
    assert tuple(each for stretch in found for each in stretch.segments) == segments
    assert [stretch.first for stretch in found] == [30 * n for n in range(7)]
    assert max(stretch.seconds for stretch in found) <= 300
    ids = [clip.row.id for stretch in found for clip in stretch.clips()]
    assert len(set(ids)) == 200
    (first, second, *_) = found[0].clips()
    assert (first.offset, first.duration) == (100.0, 9.0)
    left = [part for stretch in found for part in stretch.without({first.row.id})]
    assert [clip.row.id for part in left for clip in part.clips()] == ids[1:]
    assert second.row.id == ids[1]


def test_a_file_that_cannot_be_sought_in_is_read_a_few_times_only():
    segments = tuple(Segment(10.0 * n, 10.0 * n + 9.0) for n in range(3600))
    row = LONG._replace(segments=segments, seconds=36_000.0)
    assert len(list(group_segments(row))) == 120
    assert len(list(group_segments(row._replace(can_seek=False)))) == 8
