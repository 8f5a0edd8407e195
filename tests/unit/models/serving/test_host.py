"""The model's thread: what it does in which order, and what an error costs."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch

from beam_asr.errors import ClipTooLongError, ModelLoadError
from beam_asr.models import engine
from beam_asr.models.serving import batcher
from beam_asr.models.serving import host as model_host
from beam_asr.records.outcome import Recognition
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from tests.support.noting_model import Notes, batch, submitted_together
from tests.support.waiting import wait_until


def test_a_batch_is_started_before_the_one_before_is_fetched(model):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    done = submitted_together(host, model, [1, 2, 3])
    assert [each.result(30).results[0].text for each in done] == ["1", "2", "3"]
    assert model.done == [
        ("encode", 1),
        ("encode", 2),
        ("decode", 1),
        ("encode", 3),
        ("decode", 2),
        ("decode", 3),
    ]


def test_a_lone_batch_is_fetched_at_once(model):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    for name in (1, 2):
        assert host.submit(batch(name)).result(30).results[0].text == str(name)
    assert model.done == [("encode", 1), ("decode", 1), ("encode", 2), ("decode", 2)]


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_an_error_in_either_half_is_that_batch_alone(model, half):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    model.errors[half, 2] = ValueError("poison")
    done = submitted_together(host, model, [1, 2, 3])
    assert done[0].result(30).results[0].text == "1"
    with pytest.raises(ValueError, match="poison"):
        done[1].result(30)
    assert done[2].result(30).results[0].text == "3"
    assert host.submit(batch(4)).result().results[0].text == "4"


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_out_of_memory_in_either_half_halves_the_budget(model, half):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    model.errors[half, 1] = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        host.submit(batch(1, clips=6, samples=40)).result(30)
    assert host.memory_limit_seconds == 6 * 4.0 / 2
    model.errors["encode", 3] = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        host.submit(batch(3, clips=60, samples=40)).result(30)
    assert host.memory_limit_seconds == 12.0, "what was too much stays too much"


def test_clips_below_a_second_count_as_one_when_the_memory_is_exhausted(model):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    model.errors["encode", 1] = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        host.submit(batch(1, clips=6, samples=1)).result(30)
    assert host.memory_limit_seconds == 6 * 1.0 / 2


def test_what_warming_up_finds_is_reported(model):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    assert host.default_batch_seconds == 40.0
    host.warm_up(16)
    assert model.done == [("warm up", 16)]
    assert host.default_batch_seconds == 7.0


def test_a_model_that_cannot_be_loaded_leaves_no_thread_behind(monkeypatch):
    def fails(*_, **__):
        raise ModelLoadError("no such model")

    def threads():
        return [each for each in threading.enumerate() if each.name == "beam-asr-model"]

    monkeypatch.setattr(engine, "load", fails)
    before = len(threads())
    with pytest.raises(ModelLoadError, match="no such model"):
        model_host.ModelHost(engine.ModelSpec("any"))
    wait_until(lambda: len(threads()) <= before)
    assert len(threads()) == before


@pytest.mark.usefixtures("model")
def test_a_batch_that_is_done_is_not_held():
    import gc
    import weakref

    host = model_host.ModelHost(engine.ModelSpec("any"))
    waveform = np.full(10, 1)
    gone = weakref.ref(waveform)
    assert host.submit([waveform]).result().results[0].text == "1"
    del waveform

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    wait_until(is_gone)
    assert gone() is None


def test_a_clip_that_does_not_fit_alone_is_too_long(model):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    model.errors["encode", 1] = torch.OutOfMemoryError("CUDA out of memory. Tried 20 GiB")
    with pytest.raises(ClipTooLongError) as raised:
        host.submit(batch(1, samples=36_000)).result(30)
    assert "3600.0 s" in str(raised.value)
    assert "`max_segment_seconds`" in str(raised.value)
    assert "Tried 20 GiB" in str(raised.value)
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert host.memory_limit_seconds == float("inf"), "of batches of other clips it says nothing"


class Cramped(Notes):
    """A model whose device, in one half of a pass, has room for batch 2 only without another."""

    def __init__(self, half):
        super().__init__()
        self.half = half
        self.started = set()
        self.tried = []

    def _do(self, what, name):
        self.started.add(name)
        self.tried.append((what, name))
        if (what, name) == (self.half, 2) and len(self.started) > 1:
            self.started.remove(name)
            raise torch.OutOfMemoryError("CUDA out of memory")
        super()._do(what, name)
        if what == "decode":
            self.started.remove(name)


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_a_clip_is_not_too_long_before_it_had_the_memory_for_itself(monkeypatch, half):
    model = Cramped(half)
    monkeypatch.setattr(engine, "load", lambda *_, **__: model)
    host = model_host.ModelHost(engine.ModelSpec("any"))
    done = submitted_together(host, model, [1, 2, 3])
    assert [each.result(30).results[0].text for each in done] == ["1", "2", "3"]
    assert model.tried.count((half, 2)) == 2, "the second time alone"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("half", ["encode", "decode"])
def test_whatever_the_model_raises_no_caller_waits_for_ever(model, half, error):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    model.errors[half, 2] = error
    done = submitted_together(host, model, [1, 2, 3])
    assert done[0].result(30).results[0].text == "1"
    with pytest.raises(type(error)):
        done[1].result(30)
    assert done[2].result(30).results[0].text == "3"


def test_a_failure_says_what_happened_in_one_short_line(model):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    model.errors["encode", 1] = ValueError(f"poison: {torch.zeros(50, 50)}\n" + "x" * 1_000_000)
    with pytest.raises(ValueError, match=r"^poison: tensor\(...\) x+\.\.\.$") as raised:
        host.submit(batch(1)).result(30)
    assert len(str(raised.value)) <= 500


RATE = 10


class Memory(Notes):
    """A model whose device holds so many padded seconds, and 20 times as many of one clip."""

    default_batch_seconds = max_clip_seconds = segment_seconds = 400.0
    weight_bytes, prompt_fields = 0, frozenset()
    batch_overhead_seconds = float("inf")  # batches are filled as far as they go

    def __init__(self, holds):
        super().__init__()
        self.holds = holds
        self.passes = []  # clips, padded seconds, whether they fitted

    def encode(self, waveforms, _prompt):
        padded = len(waveforms) * max(max(map(len, waveforms)) / RATE, 1.0)
        fits = padded <= self.holds * (20 if len(waveforms) == 1 else 1)
        self.passes.append((len(waveforms), padded, fits))
        if not fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")
        return waveforms

    def decode(self, waveforms):
        return [Recognition("recognized")] * len(waveforms)

    def padded(self, fits):
        return [padded for clips, padded, each in self.passes if each is fits and clips > 1]


class Feed:
    """Hands clips of one to thirty seconds, and others, to a model through a backlog."""

    def __init__(self, monkeypatch, memory):
        monkeypatch.setattr(engine, "load", lambda *_, **__: memory)
        self.host = model_host.ModelHost(engine.ModelSpec("any"))
        self._backlog = batcher.Batcher(self.host, 128, None)
        self._chance = random.Random(0)
        self.failed = []

    def clips(self, count):
        for _ in range(count):
            self.clip(30 ** self._chance.random())

    def clip(self, seconds):
        waveform = np.ones(round(seconds * RATE), np.float32)
        self._take(self._backlog.add(Clip(Row("{}"), "x.wav", 0.0, None), waveform))

    def end(self):
        self._take(self._backlog.drain())

    def _take(self, batches):
        for done in batches:
            self.failed += [
                each.recognition for each in done.results if not hasattr(each.recognition, "text")
            ]


@pytest.mark.parametrize("holds", [330.0, 100.0, 45.0])
def test_the_budget_settles_just_below_what_the_memory_holds(monkeypatch, holds):
    memory = Memory(holds)
    feed = Feed(monkeypatch, memory)
    feed.clips(3000)
    assert 0.85 * holds <= feed.host.memory_limit_seconds <= holds
    settled = len(memory.passes)
    feed.clips(1000)
    feed.end()
    assert feed.failed == []
    assert len(memory.padded(fits=False)) <= 0.05 * len(memory.passes)
    later = [padded for clips, padded, _ in memory.passes[settled:-20] if clips > 1]
    assert np.median(later) >= 0.75 * holds


def test_a_giant_clip_costs_the_others_nothing(monkeypatch):
    memory = Memory(300.0)
    feed = Feed(monkeypatch, memory)
    feed.clips(500)
    before = feed.host.memory_limit_seconds
    for _ in range(20):
        feed.clip(9000.0)
        feed.clips(30)
    feed.end()
    assert [type(each) for each in feed.failed] == [ClipTooLongError] * 20
    assert "9000.0 s" in str(feed.failed[0])
    assert feed.host.memory_limit_seconds >= 0.85 * min(before, 300.0)


def test_memory_that_is_short_for_a_moment_does_not_make_batches_tiny_for_ever(monkeypatch):
    memory = Memory(300.0)
    feed = Feed(monkeypatch, memory)
    feed.clips(500)
    memory.holds = 2.0  # another process has taken the rest
    feed.clips(200)
    memory.holds = 300.0
    tiny = feed.host.memory_limit_seconds
    assert tiny <= 10.0
    feed.clips(4000)
    assert feed.host.memory_limit_seconds >= 0.85 * 300.0
    feed.end()
    assert feed.failed == []
