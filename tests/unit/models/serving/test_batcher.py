"""Clips that wait for the model: which are given to it when, and what comes back."""

from __future__ import annotations

import functools
import itertools
import math
import random
import time
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.models.serving import batch_plan, batcher
from beam_asr.models.serving.batcher import Batch, Batcher
from beam_asr.models.serving.host import ForwardPass
from beam_asr.records.outcome import Recognition
from beam_asr.records.prompt import NO_PROMPT
from beam_asr.records.row import Row
from beam_asr.records.work import Clip

RATE = 8  # samples a second: sums of lengths are exact

lengths = st.lists(st.integers(1, 400) | st.integers(1, 12), max_size=120)  # in samples
few_lengths = st.lists(st.integers(1, 60), min_size=1, max_size=40)
limit = st.floats(1, 200)
size = st.integers(1, 20) | st.just(128)
overhead = st.floats(0, 20) | st.just(math.inf)


class Answer(Future):
    """What becomes of a batch; the model is done with it when it is waited for."""

    def __init__(self, on_wait):
        super().__init__()
        self._on_wait = on_wait

    def result(self, timeout=None):
        if not self.done():
            self._on_wait(self)
        assert self.done()
        return super().result(timeout)


class Host:
    """Stands in for a model: hears of each clip its number, which its samples are, and its length.

    Fails on a batch that holds a clip of ``poison``, or more clips than ``most_clips``.
    """

    sample_rate = RATE

    def __init__(self, budget=40.0, overhead=2.0, poison=(), most_clips=math.inf):
        self.default_batch_seconds = budget
        self.batch_overhead_seconds = overhead
        self.memory_limit_seconds = math.inf
        self.poison = set(poison)
        self.most_clips = most_clips
        self.batches = []  # lists of numbers
        self.seconds = []  # of audio of each batch
        self.padded = []
        self.since = []
        self.names = []
        self.waited_for = []  # places of batches, and how many had been submitted by then
        self.passes = []

    def submit(self, waveforms, since=math.inf, names=(), prompt=NO_PROMPT):  # noqa: ARG002
        place = len(self.batches)
        self.batches.append([int(waveform[0]) for waveform in waveforms])
        taken = [max(len(waveform) / RATE, 1.0) for waveform in waveforms]
        self.seconds.append(sum(map(len, waveforms)) / RATE)
        self.padded.append(len(taken) * max(taken))
        self.since.append(since)
        self.names.append(list(names))
        return Answer(lambda answer: self._answer(answer, place, waveforms))

    def _answer(self, answer, place, waveforms):
        self.waited_for.append((place, len(self.batches)))
        if guilty := self.poison & set(self.batches[place]):
            answer.set_exception(RuntimeError(f"cannot take {sorted(guilty)}"))
        elif len(waveforms) > self.most_clips:
            answer.set_exception(MemoryError("out of memory"))
        else:
            recognized = [Recognition(text_of(int(each[0]), len(each))) for each in waveforms]
            self.passes.append(ForwardPass(recognized, 1.0 + place, 0.0))
            answer.set_result(self.passes[-1])


def text_of(number, samples):
    return f"clip {number} of {samples} samples"


def clip_of(number, samples):
    return Clip(Row("{}"), f"{number}.wav", 0.0, None), np.full(samples, number, np.float32)


def run(host, samples, batch_size=128, max_batch_seconds=None):
    """The batches that come of clips of these lengths."""
    waiting = Batcher(host, batch_size, max_batch_seconds)
    batches = []
    for number, each in enumerate(samples):
        batches += waiting.add(*clip_of(number, each))
    return batches + list(waiting.drain())


def number_of(result):
    return int(result.clip.audio.removesuffix(".wav"))


def texts(batches):
    """What was recognized in each clip, by its number."""
    recognized = {}
    for batch in batches:
        for result in batch.results:
            assert number_of(result) not in recognized
            recognized[number_of(result)] = getattr(result.recognition, "text", result.recognition)
    return recognized


def numbers(batches):
    return [[number_of(result) for result in batch.results] for batch in batches]


def speech(clips, seed=0):
    """Lengths in samples, log-uniform from 1 to 40 seconds."""
    chance = random.Random(seed)
    return [round(RATE * 40 ** chance.random()) for _ in range(clips)]


class Step(NamedTuple):
    """What the model and we got when a clip was added."""

    waits: float  # seconds that waited then, with the clip
    given: range  # places of the batches that the model got
    waited_for: list[tuple[int, int]]
    batches: list[Batch]


@functools.cache
def fed(budget, clips=1500, seed=0):
    """Feeds a corpus; gives the host and a step for each clip."""
    host, samples, steps = Host(budget), speech(clips, seed), []
    waiting = Batcher(host, 128, None)
    read = 0.0
    for number, each in enumerate(samples):
        submitted, requested = len(host.batches), len(host.waited_for)
        read += each / RATE
        waits = read - sum(host.seconds)
        batches = list(waiting.add(*clip_of(number, each)))
        submitted_now = range(submitted, len(host.batches))
        steps.append(Step(waits, submitted_now, host.waited_for[requested:], batches))
    return host, steps


@given(lengths, limit | st.none(), size, overhead)
def test_every_clip_comes_out_once_with_its_own_text(samples, limit, size, overhead):
    recognized = texts(run(Host(overhead=overhead), samples, size, limit))
    assert recognized == {number: text_of(number, each) for number, each in enumerate(samples)}


def test_the_clips_of_a_long_corpus_come_out_with_their_own_texts():
    samples = speech(2000)
    recognized = texts(run(Host(), samples))
    assert recognized == {number: text_of(number, each) for number, each in enumerate(samples)}


@given(lengths, limit, size, overhead)
def test_no_batch_is_larger_than_it_may_be(samples, limit, size, overhead):
    host = Host(limit, overhead)
    run(host, samples, size)
    assert all(len(batch) <= size for batch in host.batches)
    for batch, padded in zip(host.batches, host.padded):
        assert padded <= limit or len(batch) == 1


@given(lengths, limit, limit)
def test_a_limit_that_is_set_counts_instead_of_the_devices_own(samples, limit, own):
    host, same = Host(own), Host(limit)
    run(host, samples, max_batch_seconds=limit)
    run(same, samples)
    assert host.batches == same.batches


@pytest.mark.parametrize("limit", [None, 80.0])
def test_what_proved_too_much_on_the_way_is_not_given_again(limit):
    host = Host(40.0)
    waiting = Batcher(host, 128, limit)
    for number, each in enumerate(speech(600)):
        if number == 300:
            lowered, host.memory_limit_seconds = len(host.batches), 25.0
        list(waiting.add(*clip_of(number, each)))
    list(waiting.drain())
    assert max(host.padded[:lowered]) > 30.0
    later = list(zip(host.batches, host.padded))[lowered:]
    assert max(padded for batch, padded in later if len(batch) > 1) <= 25.0
    assert max(padded for _, padded in later) > 35.0  # a clip alone


@pytest.mark.parametrize("budget", [5.0, 40.0, 3000.0])
@given(st.lists(st.integers(8, 400), min_size=90, max_size=90))
def test_the_model_begins_as_soon_as_a_little_waits(budget, samples):
    host = Host(budget)
    waiting = Batcher(host, 128, None)
    read = 0
    for number, each in enumerate(samples):
        read += each
        assert list(waiting.add(*clip_of(number, each))) == []
        if read / RATE >= batcher.FIRST_SECONDS:
            break
        assert host.batches == []
    assert host.batches


@pytest.mark.parametrize("budget", [40.0, 1000.0])
def test_of_what_waits_the_model_gets_a_share(budget):
    host, steps = fed(budget)
    gifts = [step for step in steps if step.given]
    assert len(gifts) > 5
    for step in gifts[3:]:  # the first are of few batches
        share = sum(host.seconds[place] for place in step.given)
        assert 0 <= share - batcher.SHARE * step.waits <= budget


@pytest.mark.parametrize("budget", [10.0, 40.0, 250.0, 600.0])
def test_what_waits_is_bounded(budget):
    _, steps = fed(budget)
    most = max(batcher.MAX_SECONDS, batcher.MAX_BATCHES * budget)
    assert max(step.waits for step in steps) < most + 40
    later = [step.waits for step in steps if step.given][10:]  # once it has grown to that
    assert later
    assert all(waits >= most for waits in later)


def test_what_waits_grows_by_steps_so_that_the_model_is_never_long_without():
    """While the model has what it got last, no more than some times as much is read."""
    host, steps = fed(600.0)
    samples = speech(len(steps))
    gifts = [place for place, step in enumerate(steps) if step.given]
    for last, now in itertools.pairwise(gifts):
        got = sum(host.seconds[place] for place in steps[last].given)
        read = sum(samples[last + 1 : now + 1]) / RATE
        assert read <= 3 * got + 40


@pytest.mark.parametrize("budget", [40.0, 600.0])
def test_the_results_of_a_share_are_taken_when_the_next_one_has_been_given(budget):
    host, steps = fed(budget)
    before = range(0)
    for step in steps:
        if step.given:
            assert step.waited_for == [(place, step.given.stop) for place in before]
            assert numbers(step.batches) == [host.batches[place] for place in before]
            before = step.given
        else:
            assert step.waited_for == []
            assert step.batches == []
    assert before.stop == len(host.batches) > 20


@given(lengths)
def test_at_the_end_all_is_given_before_any_result_is_waited_for(samples):
    host = Host()
    waiting = Batcher(host, 128, None)
    for number, each in enumerate(samples):
        list(waiting.add(*clip_of(number, each)))
    requested = len(host.waited_for)
    last = numbers(waiting.drain())
    assert sorted(itertools.chain(*host.batches)) == list(range(len(samples)))
    assert last == host.batches[requested:]
    assert host.waited_for[requested:] == [
        (place, len(host.batches)) for place in range(requested, len(host.batches))
    ]


def test_what_has_been_drained_is_not_there_any_more():
    host = Host()
    waiting = Batcher(host, 128, None)
    assert list(waiting.drain()) == []
    for number, each in enumerate(speech(100)):
        list(waiting.add(*clip_of(number, each)))
    assert list(waiting.drain())
    given = len(host.batches)
    assert list(waiting.drain()) == []
    assert len(host.batches) == given
    list(waiting.add(*clip_of(100, 8)))
    assert numbers(waiting.drain()) == [[100]]


@given(few_lengths, st.data())
def test_a_clip_that_the_model_cannot_take_fails_alone(samples, data):
    poison = data.draw(st.sets(st.integers(0, len(samples) - 1), max_size=3))
    host = Host(poison=poison)
    recognized = texts(run(host, samples))
    assert len(recognized) == len(samples)
    for number, each in enumerate(samples):
        if number in poison:
            assert isinstance(recognized[number], RuntimeError)
            assert str(recognized[number]) == f"cannot take [{number}]"
        else:
            assert recognized[number] == text_of(number, each)


@given(few_lengths, st.data())
def test_attempts_are_the_batches_that_a_clip_was_part_of(samples, data):
    poison = data.draw(st.sets(st.integers(0, len(samples) - 1), max_size=3))
    host = Host(poison=poison)
    for batch in run(host, samples):
        for result in batch.results:
            assert result.attempts == sum(number_of(result) in each for each in host.batches)


@given(few_lengths, st.data())
def test_every_pass_that_worked_is_reported_with_its_batch(samples, data):
    poison = data.draw(st.sets(st.integers(0, len(samples) - 1), max_size=3))
    host = Host(poison=poison)
    batches = run(host, samples)
    assert [each for batch in batches for each in batch.passes] == host.passes
    for batch in batches:
        in_passes = [recognized.text for each in batch.passes for recognized in each.results]
        in_results = [
            r.recognition.text for r in batch.results if isinstance(r.recognition, Recognition)
        ]
        assert in_passes == in_results


@given(few_lengths, st.data())
def test_the_model_gets_the_names_of_the_clips_it_gets(samples, data):
    poison = data.draw(st.sets(st.integers(0, len(samples) - 1), max_size=2))
    host = Host(poison=poison)
    run(host, samples)
    assert host.names == [[f"{number}.wav" for number in batch] for batch in host.batches]


def test_a_batch_too_large_for_the_memory_is_divided_until_it_fits():
    host = Host(most_clips=3)
    batches = run(host, [40] * 16)
    assert texts(batches) == {number: text_of(number, 40) for number in range(16)}
    assert numbers(batches) == host.batches[:2]
    assert [len(batch) for batch in host.batches] == [8, 8, 4, 2, 2, 4, 2, 2, 4, 2, 2, 4, 2, 2]
    assert {result.attempts for batch in batches for result in batch.results} == {3}
    assert [len(batch.passes) for batch in batches] == [4, 4]


@given(lengths, st.data())
def test_short_clips_are_padded_to_a_second_and_count_as_they_are(samples, data):
    poison = data.draw(st.sets(st.integers(0, max(0, len(samples) - 1)), max_size=1))
    for batch in run(Host(poison=poison), samples):
        seconds = [samples[number] / RATE for number in numbers([batch])[0]]
        assert batch.audio_seconds == sum(seconds)
        assert batch.padded_seconds == len(seconds) * max(1.0, *seconds)


def test_the_model_waits_for_a_batch_since_the_beginning_and_for_a_part_since_its_division():
    host = Host(poison={5})
    before = time.monotonic()
    waiting = Batcher(host, 128, None)
    began = time.monotonic()
    for number in range(8):
        list(waiting.add(*clip_of(number, 40)))
    read = time.monotonic()
    list(waiting.drain())
    whole, *parts = host.since
    assert before <= whole <= began
    assert len(parts) == 6
    assert all(read <= part <= time.monotonic() for part in parts)


@pytest.mark.parametrize("seed", range(3))
def test_clips_that_wait_go_together_better_than_window_by_window(seed):
    samples = speech(2000, seed)
    host = Host(40.0, 2.0)
    run(host, samples)
    through_backlog = sum(host.padded) + 2.0 * len(host.padded)

    seconds = [each / RATE for each in samples]
    windows = [[]]
    for each in seconds:
        if sum(windows[-1]) >= batcher.MAX_SECONDS:
            windows.append([])
        windows[-1].append(each)
    assert through_backlog <= 0.995 * sum(map(cost_at_once, windows))
    assert through_backlog <= 1.015 * cost_at_once(seconds)


def cost_at_once(seconds):
    plan = batch_plan.plan_batches(seconds, 40.0, 128, 2.0)
    return sum(batch_plan.padded_seconds([seconds[i] for i in batch]) + 2.0 for batch in plan)


def longest_wait(host, samples):
    """Most seconds of audio that were added after a clip before its result came."""
    waiting = Batcher(host, 128, None)
    added, place, waited = 0.0, {}, []
    for number, each in enumerate(samples):
        added += max(each / RATE, 1.0)
        place[number] = added
        for batch in waiting.add(*clip_of(number, each)):
            waited += [added - place.pop(number_of(result)) for result in batch.results]
    waited += [added - each for each in place.values()]
    return max(waited)


def most_wait(budget):
    """It is overdue, is given when enough waits again, and is taken when it does the next time."""
    most = max(batcher.MAX_SECONDS, batcher.MAX_BATCHES * budget)
    return (batcher.MAX_WAIT + 2) * most + 2 * 40


@pytest.mark.parametrize("budget", [40.0, 600.0])
@given(st.lists(st.integers(8, 320), min_size=1, max_size=12), st.integers(0, 100))
def test_no_clip_waits_for_more_than_a_bounded_amount_of_audio(budget, samples, seed):
    chance = random.Random(seed)
    rare, common = samples[0], samples[1:] or [240]
    stream = [rare if chance.random() < 0.002 else chance.choice(common) for _ in range(800)]
    assert longest_wait(Host(budget), stream) <= most_wait(budget)


@pytest.mark.parametrize("overhead", [0.5, 2.0, 20.0])
def test_a_clip_that_goes_with_no_other_does_not_wait_for_one_for_ever(overhead):
    """A second of audio among half minutes is the dearest batch of every plan."""
    assert longest_wait(Host(60.0, overhead), [240] * 5 + [8] + [240] * 600) <= most_wait(60.0)
