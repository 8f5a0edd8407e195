"""Elements are gathered into lists, each of one window."""

from __future__ import annotations

import itertools
from collections import Counter

import apache_beam as beam
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.transforms.bundles import BatchWithinBundle
from tests.support.windows import SIZE


def gathered(elements, most: int):
    """What a bundle of (seconds, time) gives: lists with their time and window."""
    gather = BatchWithinBundle(lambda element: element[0], most)
    gather.start_bundle()
    windowing = FixedWindows(SIZE)
    lists = []
    for element in elements:
        (window,) = windowing.assign(windowing.AssignContext(element[1]))
        lists += gather.process(element, window, Timestamp(element[1]))
    return [*lists, *gather.finish_bundle()]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 300)), max_size=60), st.integers(1, 40)
)
def test_nothing_is_lost_and_each_list_is_of_one_window_and_no_longer_than_it_may(elements, most):
    elements = [(*element, number) for number, element in enumerate(elements)]
    lists = gathered(elements, most)
    assert Counter(e for each in lists for e in each.value) == Counter(elements)
    for each in lists:
        (window,) = each.windows
        assert each.value
        assert all(window.start <= Timestamp(time) < window.end for _, time, _ in each.value)
        assert each.timestamp == Timestamp(each.value[0][1]), "that of the first holds the window"
        assert len(each.value) == 1 or sum(seconds for seconds, _, _ in each.value) <= most
        order = [number for _, _, number in each.value]
        assert order == sorted(order)


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(1, 40))
def test_lists_are_as_full_as_their_order_lets_them_be(sizes, most):
    lists = [each.value for each in gathered([(size, 0) for size in sizes], most)]
    for one, following in itertools.pairwise(lists):
        assert sum(seconds for seconds, _ in one) + following[0][0] > most


def test_lists_reach_the_next_step_in_their_windows():
    elements = [(5, (1, "a")), (65, (1, "b")), (6, (1, "c")), (7, (1, "d")), (66, (1, "e"))]

    def placed(each, window=beam.DoFn.WindowParam, timestamp=beam.DoFn.TimestampParam):
        return float(window.start), float(timestamp), [name for _, name in each]

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        lists = (
            pipeline
            | beam.Create([elements], reshuffle=False)  # in one bundle
            | beam.FlatMap(lambda each: [TimestampedValue(value, at) for at, value in each])
            | beam.WindowInto(FixedWindows(SIZE))
            | beam.ParDo(BatchWithinBundle(lambda element: element[0], 2))
            | beam.Map(placed)
        )
        expected = [(0.0, 5.0, ["a", "c"]), (0.0, 7.0, ["d"]), (60.0, 65.0, ["b", "e"])]
        assert_that(lists, equal_to(expected))
