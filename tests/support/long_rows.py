"""A row of a long recording, cut into segments."""

from __future__ import annotations

from beam_asr.records.row import Row
from beam_asr.records.work import Clip, Segment, SegmentPlan

ROW = Row('{"audio_filepath": "a.flac", "offset": 100.0}', id="g.0")


SEGMENTS = (Segment(0.0, 10.0), Segment(10.0, 20.0), Segment(16.0, 26.0, True), Segment(40.0, 50.0))


LONG = SegmentPlan("g.0", Clip(ROW, "a.flac", 100.0, None), SEGMENTS, 60.0)
