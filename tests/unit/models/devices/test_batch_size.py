"""The batch that suits a device, found with devices whose speed and memory are known."""

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.models.devices import batch_size
from beam_asr.models.devices.batch_size import BatchTrial


@dataclasses.dataclass
class Device:
    """Takes ``fixed`` for any batch and as long for fewer clips than it has lanes as for all."""

    fixed: float = 0.0
    per_clip: float = 1.0
    lanes: int = 1
    base: float = 0.0  # of memory
    each: float = 1.0  # of memory
    fits: float = math.inf  # clips
    noise: random.Random | None = None
    tried: list[int] = dataclasses.field(default_factory=list)

    def attempt(self, clips):
        self.tried.append(clips)
        if clips > self.fits:
            return None
        seconds = self.fixed + self.per_clip * max(clips, self.lanes)
        if self.noise:
            seconds *= self.noise.uniform(0.98, 1.02)
        return BatchTrial(seconds, self.base + self.each * clips)

    def find(self, clip_seconds=30.0, free=math.inf, most=1024):
        return batch_size.find_budget(self.attempt, clip_seconds, free, most)


def of_times(times):
    """A device that takes these times for 1, 2, 4, ... clips."""
    return lambda clips: BatchTrial(times[clips.bit_length() - 1], 0.0)


devices = st.builds(
    Device,
    fixed=st.floats(0.0, 100.0),
    per_clip=st.floats(0.01, 10.0),
    lanes=st.integers(1, 300),
    base=st.floats(0.0, 100.0),
    each=st.floats(0.0, 10.0),
    fits=st.integers(1, 600) | st.just(math.inf),
)
most_clips = st.integers(1, 300)


@pytest.mark.parametrize("most", [1, 2, 3, 48, 64, 100, 128])
def test_where_twice_as_many_are_clearly_faster_the_batch_is_as_large_as_it_may_be(most):
    device = Device(fixed=1000.0, per_clip=0.01)
    assert device.find(clip_seconds=30.0, most=most).batch_seconds == 30.0 * most
    assert max(device.tried) == most


def test_where_the_speed_levels_off_the_smallest_batch_near_the_best_is_taken():
    device = Device(fixed=1.0, per_clip=1.0)  # of its full speed 16 clips have 94 %, 64 have 98 %
    assert device.find(clip_seconds=10.0).batch_seconds == 160.0
    assert device.tried == [1, 2, 4, 8, 16, 32, 64]
    device = Device(fixed=0.0, per_clip=1.0, lanes=8)
    assert device.find(clip_seconds=10.0).batch_seconds == 80.0
    assert device.tried == [1, 2, 4, 8, 16]


def test_a_device_without_parallelism_takes_one_clip_at_a_time():
    device = Device()
    assert device.find(clip_seconds=10.0).batch_seconds == 10.0
    assert device.tried == [1, 2]


def test_a_batch_that_is_slower_than_a_smaller_one_is_not_taken():
    budget = batch_size.find_budget(of_times([8.0, 8.0, 8.0, 40.0, 1.0]), 10.0, math.inf, 1024)
    assert budget.batch_seconds == 40.0


@given(devices, most_clips, st.floats(1.0, 1000.0))
def test_the_batch_is_the_smallest_of_those_that_are_about_as_fast_as_any_tried(device, most, free):
    budget = device.find(1.0, free, most)
    held = [clips for clips in device.tried if clips <= device.fits]
    speeds = {clips: clips / device.attempt(clips).seconds for clips in held}
    near = [clips for clips in held if speeds[clips] >= 0.95 * max(speeds.values())]
    assert budget.batch_seconds == min(near)


@given(devices, most_clips, st.floats(1.0, 1000.0))
def test_no_batch_is_tried_twice_or_beyond_the_most(device, most, free):
    device.find(1.0, free, most)
    assert device.tried == sorted(set(device.tried))
    assert device.tried[0] == 1
    assert device.tried[-1] <= most


@given(devices, most_clips, st.floats(1.0, 1000.0))
def test_no_batch_is_tried_that_would_leave_too_little_memory(device, most, free):
    device.find(1.0, free, most)
    for before, clips in zip(device.tried, device.tried[1:]):
        memory = device.base + device.each * before
        assert memory * clips / before <= 0.7 * free


def test_memory_is_used_as_far_as_it_may_be():
    def largest(free, most):
        device = Device(fixed=1000.0, per_clip=0.01)
        device.find(1.0, free, most)
        return device.tried[-1]

    assert largest(100.0, 1024) == 64
    assert largest(91.0, 1024) == 32
    assert largest(60.0, 40) == 40
    assert largest(56.0, 40) == 32
    assert largest(1.0, 1024) == 1


def test_what_does_not_fit_ends_the_search_at_what_held():
    device = Device(fixed=1000.0, per_clip=0.01, fits=20)
    assert device.find(clip_seconds=10.0).batch_seconds == 160.0
    assert device.tried == [1, 2, 4, 8, 16, 32]


def test_where_not_even_one_clip_fits_there_is_no_budget():
    device = Device(fits=0)
    assert device.find() is None
    assert device.tried == [1]


@pytest.mark.parametrize("seconds", [1.0, 30.0])
@pytest.mark.parametrize(("fixed", "per_clip"), [(3.0, 0.5), (0.02, 0.04), (0.5, 8.0)])
def test_what_any_batch_costs_is_found(fixed, per_clip, seconds):
    overhead = Device(fixed=fixed, per_clip=per_clip).find(clip_seconds=seconds).overhead_seconds
    assert overhead == pytest.approx(seconds * fixed / per_clip, rel=0.1)


@pytest.mark.parametrize("seed", range(10))
def test_what_any_batch_costs_is_found_although_times_vary(seed):
    device = Device(fixed=1.0, per_clip=1.0, noise=random.Random(seed))
    assert device.find(clip_seconds=10.0).overhead_seconds == pytest.approx(10.0, rel=0.1)


def test_a_device_to_which_a_batch_costs_nothing_has_no_overhead():
    assert Device().find().overhead_seconds == pytest.approx(0.0, abs=1e-9)


def test_a_device_that_slows_down_with_the_batch_has_no_overhead():
    budget = batch_size.find_budget(of_times([1.0, 3.0]), 10.0, math.inf, 1024)
    assert budget.overhead_seconds == 0.0


@pytest.mark.parametrize("most", [1, 100])
def test_of_a_single_pass_nothing_is_known_and_batches_are_to_be_filled(most):
    device = Device(fixed=1.0, fits=1)
    assert device.find(clip_seconds=10.0, most=most) == (10.0, math.inf)


def test_a_device_that_is_the_faster_the_more_it_gets_is_to_be_filled():
    budget = batch_size.find_budget(of_times([4.0, 3.0, 2.0]), 10.0, math.inf, 4)
    assert budget == (40.0, math.inf)


@given(st.lists(st.floats(1e-3, 1e3), min_size=12, max_size=12), most_clips)
def test_whatever_the_times_the_overhead_is_a_number_and_not_below_zero(times, most):
    def attempt(clips):
        return BatchTrial(times[math.ceil(math.log2(clips))], 0.0)

    assert batch_size.find_budget(attempt, 10.0, math.inf, most).overhead_seconds >= 0.0
