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
from beam_asr.transforms.packing import PackedGroupByKey, PackedReshuffle


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


def grouped_packs(pairs: list[tuple[str, Any]]) -> list[tuple[int, bytes]]:
    """The packs with their buckets that one bundle gives."""
    pack = packing._PackByKey()
    pack.start_bundle()
    given = [each for pair in pairs for each in pack.process(pair)]
    return given + [each.value for each in pack.finish_bundle()]


def test_all_values_of_a_key_come_together_from_all_inputs():
    keys = [f"{n:024x}" for n in range(2000)]
    values = {key: sorted([n, -n, f"of {n}"], key=str) for n, key in enumerate(keys)}

    def sorted_items(groups: dict[str, list[Any]]) -> list[tuple[str, list[Any]]]:
        return [(key, sorted(found, key=str)) for key, found in groups.items()]

    with TestPipeline(runner="FnApiRunner") as pipeline:
        numbers = [(key, sign * n) for n, key in enumerate(keys) for sign in (1, -1)]
        one = pipeline | "One" >> beam.Create(numbers)
        other = pipeline | "Other" >> beam.Create([(k, f"of {n}") for n, k in enumerate(keys)])
        groups = (one, other) | PackedGroupByKey() | beam.FlatMap(sorted_items)
        assert_that(groups, equal_to(list(values.items())))


def test_a_single_input_may_be_empty():
    with TestPipeline(runner="FnApiRunner") as pipeline:
        pairs = pipeline | beam.Create([("a", 1)]) | beam.Filter(lambda _: False)
        assert_that((pairs,) | PackedGroupByKey(), equal_to([]))


def test_a_bucket_depends_on_nothing_but_the_key():
    """Bundles, in whatever process, must agree on it."""
    (one,), (other,) = grouped_packs([("c7bb4ae1", 1)]), grouped_packs([("c7bb4ae1", "other")])
    assert one[0] == other[0] == 2216


def test_few_keys_are_almost_always_alone_and_many_share_their_buckets_evenly():
    few = grouped_packs([(f"{n:024x}", n) for n in range(100)])
    assert len(few) >= 95
    many = grouped_packs([(f"{n:024x}", n) for n in range(40_960)])
    sizes = [len(packing._values_by_key((bucket, [pack]))) for bucket, pack in many]
    assert len(sizes) == packing.BUCKETS
    assert max(sizes) < 30  # of ten on the average


def test_what_a_bundle_gathers_for_its_buckets_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(packing, "BUCKETS_BYTES", 2**20)
    pack = packing._PackByKey()
    pack.start_bundle()
    rounds = [len(list(pack.process((f"{n:024x}", "x" * 100_000)))) for n in range(30)]
    assert [count for count in rounds if count] == [11, 11]
