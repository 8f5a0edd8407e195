from __future__ import annotations

from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.transforms import packing
from beam_asr.transforms.packing import PackedReshuffle


def clips(count: int) -> list[Clip]:
    return [
        Clip(Row(f'{{"n": {n}}}', "m.jsonl", n + 1), f"{n}.wav", 0.0, None) for n in range(count)
    ]


def packs_of(elements: list[Any]) -> list[list[Any]]:
    """The elements of each pack that one bundle gives."""
    pack = packing._Pack()
    pack.start_bundle()
    given = [each for element in elements for each in pack.process(element)]
    given += [each.value for each in pack.finish_bundle()]
    return [list(packing._unpack(each)) for each in given]


@pytest.mark.parametrize("count", [0, 1, 100, 3000])
def test_elements_come_out_as_they_went_in(count: int):
    elements = clips(count)
    with TestPipeline(runner="FnApiRunner") as pipeline:
        spread = pipeline | beam.Create(elements) | PackedReshuffle()
        assert_that(spread, equal_to(elements))


def test_several_inputs_become_one():
    with TestPipeline(runner="FnApiRunner") as pipeline:
        one = pipeline | "One" >> beam.Create([{"n": 1}, {"n": 2}])
        other = pipeline | "Other" >> beam.Create([{"n": 3}])
        assert_that((one, other) | PackedReshuffle(), equal_to([{"n": 1}, {"n": 2}, {"n": 3}]))


def test_few_rows_are_spread_one_by_one_and_many_in_packs_that_are_a_small_part_of_them():
    sizes = [len(pack) for pack in packs_of(clips(20_000))]
    assert sizes[:64] == [1] * 64
    assert max(sizes) == packing.MAX_ELEMENTS
    assert all(size <= 1 + sum(sizes[:n]) / 50 for n, size in enumerate(sizes) if n > 64)


def test_a_pack_of_large_elements_is_bounded_in_bytes():
    large = [bytes([n % 256]) * 300_000 for n in range(1000)]
    packs = packs_of(large)
    assert [each for pack in packs for each in pack] == large
    assert max(map(len, packs)) == 4  # the fourth is the first one above a MiB


def test_elements_in_windows_of_time_keep_them():
    class WithTime(beam.DoFn):
        def process(self, element: int, timestamp: Any = beam.DoFn.TimestampParam) -> Any:
            yield element, int(timestamp)

    with TestPipeline(runner="FnApiRunner") as pipeline:
        windowed = (
            pipeline
            | beam.Create([1, 12, 25])
            | beam.Map(lambda n: TimestampedValue(n, n))
            | beam.WindowInto(FixedWindows(10))
        )
        spread = windowed | PackedReshuffle()
        assert spread.windowing.windowfn == FixedWindows(10)
        assert_that(spread | beam.ParDo(WithTime()), equal_to([(1, 1), (12, 12), (25, 25)]))
