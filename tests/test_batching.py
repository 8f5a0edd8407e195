from hypothesis import given
from hypothesis import strategies as st

from beam_asr.batching import padded_seconds, plan_batches

lengths = st.lists(st.floats(0.01, 100, allow_nan=False), max_size=60)


@given(lengths, st.floats(1, 300), st.integers(1, 20))
def test_every_clip_is_in_one_batch_and_every_batch_within_its_limits(seconds, most, size):
    batches = plan_batches(seconds, most, size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(seconds)))
    for batch in batches:
        cost = padded_seconds([seconds[index] for index in batch])
        assert len(batch) <= size
        assert cost <= most or len(batch) == 1


@given(lengths, st.floats(1, 300), st.integers(1, 20))
def test_the_longest_clips_go_first_and_like_goes_with_like(seconds, most, size):
    planned = [seconds[i] for batch in plan_batches(seconds, most, size) for i in batch]
    assert planned == sorted(seconds, reverse=True)


def test_a_batch_is_filled_before_the_next_is_begun():
    assert plan_batches([1.0] * 10, 4.0, 100) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert plan_batches([1.0] * 5, 100.0, 2) == [[0, 1], [2, 3], [4]]
    assert plan_batches([2.0, 90.0, 2.0], 10.0, 100) == [[1], [0, 2]]
