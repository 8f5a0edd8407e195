import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.models.serving.batch_plan import (
    PLANNER,
    BatchLimits,
    WaitingClip,
    padded_seconds,
    plan_batches,
    plan_most_efficient,
)

quarters = st.integers(0, 160).map(lambda n: n / 4)  # their sums are exact
length = st.one_of(st.integers(0, 8).map(float), st.floats(0, 100))
lengths = st.lists(length, max_size=60)
some_clips = st.lists(st.integers(1, 160).map(lambda n: n / 4), min_size=1, max_size=60)
few_lengths = st.lists(length, max_size=7)
limit = st.one_of(st.floats(1, 300), st.just(math.inf))
size = st.one_of(st.integers(1, 20), st.just(10**9))
overhead = st.floats(0, 100)
any_overhead = overhead | st.just(math.inf)
share = st.integers(1, 64).map(lambda n: n / 64)  # exact, of exact sums


def lengths_of(plan, seconds):
    return [[seconds[index] for index in batch] for batch in plan]


def cost(batches, overhead):
    return sum(padded_seconds(batch) + overhead for batch in batches)


def allowed(batch, limit, size):
    return len(batch) == 1 or (len(batch) <= size and padded_seconds(batch) <= limit)


def partitions(items):
    """Every way to part items into sets."""
    if not items:
        yield []
        return
    for partition in partitions(items[1:]):
        yield [items[:1], *partition]
        for i, part in enumerate(partition):
            yield [*partition[:i], items[:1] + part, *partition[i + 1 :]]


def allowed_partitions(seconds, limit, size):
    return (p for p in partitions(seconds) if all(allowed(batch, limit, size) for batch in p))


def least_cost_of_runs(seconds, limit, size, overhead):
    clips = sorted(seconds)
    least = [0.0]
    for end in range(1, len(clips) + 1):
        runs = ((begin, clips[begin:end]) for begin in range(end))
        least.append(
            min(
                least[begin] + cost([run], overhead)
                for begin, run in runs
                if allowed(run, limit, size)
            )
        )
    return least[-1]


@given(lengths, limit, size, overhead)
def test_every_clip_is_in_one_batch_and_every_batch_within_its_limits(
    seconds, limit, size, overhead
):
    plan = plan_batches(seconds, limit, size, overhead)
    assert sorted(index for batch in plan for index in batch) == list(range(len(seconds)))
    assert all(allowed(batch, limit, size) for batch in lengths_of(plan, seconds))


@given(lengths, limit, size, overhead)
def test_the_longest_clips_go_first_and_like_goes_with_like(seconds, limit, size, overhead):
    planned = lengths_of(plan_batches(seconds, limit, size, overhead), seconds)
    assert [clip for batch in planned for clip in batch] == sorted(seconds, reverse=True)


@given(few_lengths, limit, size, overhead)
def test_no_other_plan_costs_less(seconds, limit, size, overhead):
    planned = lengths_of(plan_batches(seconds, limit, size, overhead), seconds)
    least = min(cost(p, overhead) for p in allowed_partitions(seconds, limit, size))
    assert cost(planned, overhead) == pytest.approx(least)


@given(lengths, limit, size, overhead)
def test_no_other_plan_of_sorted_runs_costs_less_for_many_clips(seconds, limit, size, overhead):
    planned = lengths_of(plan_batches(seconds, limit, size, overhead), seconds)
    least = least_cost_of_runs(seconds, limit, size, overhead)
    assert cost(planned, overhead) == pytest.approx(least)


@given(few_lengths, limit, size)
def test_without_a_known_overhead_the_batches_are_as_few_as_can_be(seconds, limit, size):
    fewest = min(len(p) for p in allowed_partitions(seconds, limit, size))
    assert len(plan_batches(seconds, limit, size)) == fewest


@given(lengths, limit, size, overhead, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(seconds, limit, size, overhead, chance):
    shuffled = chance.sample(seconds, len(seconds))
    plans = [plan_batches(each, limit, size, overhead) for each in (seconds, shuffled)]
    assert lengths_of(plans[0], seconds) == lengths_of(plans[1], shuffled)


@given(st.lists(quarters, max_size=60), limit, size)
def test_without_overhead_nothing_is_padded(seconds, limit, size):
    for batch in lengths_of(plan_batches(seconds, limit, size, 0.0), seconds):
        assert len(set(batch)) == 1


@given(st.lists(quarters, max_size=60), limit, size, quarters, st.just(math.inf) | quarters)
def test_more_overhead_never_makes_more_batches(seconds, limit, size, one, other):
    less, more = sorted([one, other])
    many = plan_batches(seconds, limit, size, less)
    assert len(plan_batches(seconds, limit, size, more)) <= len(many)


@pytest.mark.parametrize("limit", [40, 80, 160, 320, 640])
def test_little_is_padding_where_lengths_differ_much(limit):
    chance = random.Random(0)
    real = padded = 0.0
    for _ in range(20):
        window = []
        while sum(window) < 20 * 60:
            window.append(40 ** chance.random())
        real += sum(window)
        padded += cost(lengths_of(plan_batches(window, limit, 128, 5.0), window), 0.0)
    assert real / padded >= 0.93


def test_of_equal_plans_the_one_with_the_fullest_first_batches_is_taken():
    assert plan_batches([1.0] * 10, 4.0, 100, 3.0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert plan_batches([1.0] * 5, 100.0, 2, 3.0) == [[0, 1], [2, 3], [4]]
    assert plan_batches([3.0, 1.0, 3.0, 2.0], 100.0, 100, 0.0) == [[0, 2], [3], [1]]
    assert plan_batches([2.0, 90.0, 2.0], 10.0, 100) == [[1], [0, 2]]


def test_an_overhead_is_paid_where_it_costs_less_than_padding():
    seconds = [10.0, 9.0, 2.0, 1.0]
    assert plan_batches(seconds, 100.0, 100, 0.95) == [[0], [1], [2], [3]]
    assert plan_batches(seconds, 100.0, 100, 1.0) == [[0, 1], [2, 3]]
    assert plan_batches(seconds, 100.0, 100, 15.0) == [[0, 1], [2, 3]]
    assert plan_batches(seconds, 100.0, 100, 16.0) == [[0, 1, 2, 3]]


def test_limits_may_be_met_exactly():
    assert len(plan_batches([0.1] * 10, 1.0, 10)) == 1


def cost_per_second(batch, overhead):
    return (padded_seconds(batch) + overhead) / sum(batch)


@given(some_clips, share, limit, size, any_overhead)
def test_the_cheapest_batches_are_those_of_the_plan_in_its_order(
    seconds, share, limit, size, overhead
):
    plan = plan_batches(seconds, limit, size, overhead)
    chosen = plan_most_efficient(seconds, share, limit, size, overhead)
    assert chosen == [batch for batch in plan if batch in chosen]


@given(some_clips, share, limit, size, any_overhead)
def test_no_batch_left_out_is_cheaper_than_one_that_is_given(seconds, share, limit, size, overhead):
    chosen = plan_most_efficient(seconds, share, limit, size, overhead)
    plan = plan_batches(seconds, limit, size, overhead)
    left = lengths_of([batch for batch in plan if batch not in chosen], seconds)
    dearest = max(cost_per_second(batch, overhead) for batch in lengths_of(chosen, seconds))
    assert all(cost_per_second(batch, overhead) >= dearest for batch in left)


@given(some_clips, share, limit, size, any_overhead)
def test_the_cheapest_batches_hold_their_share_and_none_of_them_is_too_many(
    seconds, share, limit, size, overhead
):
    chosen = lengths_of(plan_most_efficient(seconds, share, limit, size, overhead), seconds)
    held = sum(map(sum, chosen))
    assert held >= share * sum(seconds)
    costs = [cost_per_second(batch, overhead) for batch in chosen]
    equally_dear = [batch for batch, each in zip(chosen, costs) if each == max(costs)]
    assert held - max(map(sum, equally_dear)) < share * sum(seconds)


@given(some_clips, limit, size, any_overhead)
def test_the_cheapest_batches_of_everything_are_the_whole_plan(seconds, limit, size, overhead):
    plan = plan_batches(seconds, limit, size, overhead)
    assert plan_most_efficient(seconds, 1.0, limit, size, overhead) == plan


@given(some_clips, limit, size, any_overhead)
def test_of_a_tiny_share_one_batch_is_given(seconds, limit, size, overhead):
    assert len(plan_most_efficient(seconds, 1e-9, limit, size, overhead)) == 1


@given(share, limit, size, any_overhead)
def test_of_no_clips_there_are_no_cheapest_batches(share, limit, size, overhead):
    assert plan_most_efficient([], share, limit, size, overhead) == []


def test_a_share_may_be_met_exactly():
    assert plan_most_efficient([1.0] * 8, 0.5, 2.0, 2, 1.0) == [[0, 1], [2, 3]]


def test_padding_and_overhead_make_a_batch_dear():
    seconds = [9.0, 9.0, 2.0, 2.0, 2.0]
    assert plan_batches(seconds, 18.0, 6, 2.0) == [[0, 1], [2, 3, 4]]
    assert plan_most_efficient(seconds, 0.1, 18.0, 6, 2.0) == [[0, 1]]
    seconds = [9.0, 4.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert plan_batches(seconds, 18.0, 6, 5.0) == [[0, 1], [2, 3, 4, 5, 6, 7]]
    assert plan_most_efficient(seconds, 0.1, 18.0, 6, 5.0) == [[2, 3, 4, 5, 6, 7]]


def test_the_planner_of_batchers_gives_the_cheapest_batches_and_overdue_clips():
    clips = [WaitingClip(seconds) for seconds in (3.0, 1.0, 3.0, 1.0)]
    limits = BatchLimits(max_seconds=6.0, max_clips=2, overhead_seconds=1.0)
    assert PLANNER.plan(clips, limits, 0.5) == [[0, 2]]
    clips[1] = WaitingClip(1.0, overdue=True)
    assert PLANNER.plan(clips, limits, 0.1) == [[1, 3]]
    whole = PLANNER.plan(clips, limits, 1.0)
    assert sorted(index for batch in whole for index in batch) == [0, 1, 2, 3]


def test_the_planner_keeps_kinds_apart():
    clips = [WaitingClip(1.0, kind) for kind in ("en", "es", "en", "es")]
    plan = PLANNER.plan(clips, BatchLimits(100.0, 100, 1.0), 1.0)
    assert sorted(plan) == [[0, 2], [1, 3]]
