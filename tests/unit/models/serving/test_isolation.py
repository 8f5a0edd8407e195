from hypothesis import given
from hypothesis import strategies as st

from beam_asr.models.serving.isolation import apply_bisecting


@given(st.lists(st.booleans(), max_size=40))
def test_what_fails_fails_alone_and_the_others_keep_their_results_and_places(poison):
    def transcribe(items):
        if any(poison[item] for item in items):
            raise RuntimeError(f"cannot take {[item for item in items if poison[item]]}")
        return [f"text {item}" for item in items]

    results = apply_bisecting(transcribe, range(len(poison)))
    assert len(results) == len(poison)
    for index, (result, attempts) in enumerate(results):
        assert attempts >= 1
        if poison[index]:
            assert str(result) == f"cannot take [{index}]"
        else:
            assert result == f"text {index}"


def test_a_batch_that_works_is_done_once():
    calls = []
    apply_bisecting(lambda items: calls.append(items) or items, [1, 2, 3])
    assert calls == [[1, 2, 3]]


def test_a_batch_too_large_for_memory_is_halved_until_it_fits():
    def three_at_most(items):
        if len(items) > 3:
            raise MemoryError("out of memory")
        return items

    assert [result for result, _ in apply_bisecting(three_at_most, list(range(10)))] == list(
        range(10)
    )
