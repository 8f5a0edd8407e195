"""The model's thread: what it does in which order, and what an error costs."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from beam_asr import model_host, recognizer
from beam_asr.nemo_recognizer import Recognition


class Notes:
    """A recognizer that notes what it is asked to do; its waveforms hold their own name."""

    sample_rate = 10
    default_batch_seconds = 40.0
    batch_overhead_seconds = 2.0

    def __init__(self):
        self.done = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.errors = {}

    def warm_up(self, batch_size):
        self.done.append(("warm up", batch_size))
        self.default_batch_seconds = 7.0

    def encode(self, waveforms):
        self.go_on.wait(30)
        name = waveforms[0][0]
        self._do("encode", name)
        return [name] * len(waveforms)

    def decode(self, encoded):
        self._do("decode", encoded[0])
        return [Recognition(str(name)) for name in encoded]

    def describe(self):
        return {"model": "notes"}

    def _do(self, what, name):
        self.done.append((what, name))
        if (what, name) in self.errors:
            raise self.errors[what, name]


@pytest.fixture
def model(monkeypatch):
    notes = Notes()
    monkeypatch.setattr(recognizer, "load", lambda *_: notes)
    return notes


def batch(name, clips=1, samples=10):
    return [np.full(samples, name)] * clips


def submitted_together(host, model, names, since=0.0):
    """So that each waits while the one before is begun."""
    model.go_on.clear()
    done = [host.submit(batch(name), since) for name in names]
    model.go_on.set()
    return done


def test_a_batch_is_begun_before_the_one_before_is_fetched(model):
    host = model_host.ModelHost(model_host.ModelSpec("any"))
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
    host = model_host.ModelHost(model_host.ModelSpec("any"))
    for name in (1, 2):
        assert host.submit(batch(name)).result(30).results[0].text == str(name)
    assert model.done == [("encode", 1), ("decode", 1), ("encode", 2), ("decode", 2)]


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_an_error_in_either_half_is_that_batch_alone(model, half):
    host = model_host.ModelHost(model_host.ModelSpec("any"))
    model.errors[half, 2] = ValueError("poison")
    done = submitted_together(host, model, [1, 2, 3])
    assert done[0].result(30).results[0].text == "1"
    with pytest.raises(ValueError, match="poison"):
        done[1].result(30)
    assert done[2].result(30).results[0].text == "3"
    assert host.transcribe(batch(4))[0].text == "4"


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_out_of_memory_in_either_half_halves_the_budget(model, half):
    host = model_host.ModelHost(model_host.ModelSpec("any"))
    model.errors[half, 1] = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        host.submit(batch(1, clips=6, samples=40)).result(30)
    assert host.most_batch_seconds == 6 * 4.0 / 2
    model.errors["encode", 3] = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        host.submit(batch(3, clips=60, samples=40)).result(30)
    assert host.most_batch_seconds == 12.0, "what was too much stays too much"


def test_clips_below_a_second_count_as_one_when_the_memory_is_exhausted(model):
    host = model_host.ModelHost(model_host.ModelSpec("any"))
    model.errors["encode", 1] = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        host.submit(batch(1, clips=6, samples=1)).result(30)
    assert host.most_batch_seconds == 6 * 1.0 / 2


def test_the_seconds_of_batches_that_overlap_are_counted_once(model, monkeypatch):
    host = model_host.ModelHost(model_host.ModelSpec("any"))
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(model_host.time, "monotonic", lambda: float(next(clock)))
    done = submitted_together(host, model, [1, 2])
    first, second = (each.result(30) for each in done)
    # 1 begins at 0, 2 at 10; 1 ends at 20, 2 at 30.
    assert (first.seconds, second.seconds) == (20.0, 10.0)
    assert second.idle_seconds == 0


@pytest.mark.usefixtures("model")
def test_time_without_a_batch_is_idle_only_from_when_it_counts(monkeypatch):
    host = model_host.ModelHost(model_host.ModelSpec("any"))
    now = [100.0]
    monkeypatch.setattr(model_host.time, "monotonic", lambda: now[0])
    assert host.submit(batch(1), since=90.0).result(30).idle_seconds == 10.0
    now[0] = 130.0
    assert host.submit(batch(2), since=90.0).result(30).idle_seconds == 30.0
    now[0] = 170.0
    assert host.submit(batch(3)).result(30).idle_seconds == 0


def test_what_warming_up_finds_is_told(model):
    host = model_host.ModelHost(model_host.ModelSpec("any"))
    assert host.default_batch_seconds == 40.0
    host.warm_up(16)
    assert model.done == [("warm up", 16)]
    assert host.default_batch_seconds == 7.0


def test_a_model_that_cannot_be_loaded_leaves_no_thread_behind(monkeypatch):
    def fails(*_):
        raise recognizer.ModelLoadError("no such model")

    def threads():
        return [each for each in threading.enumerate() if each.name == "beam-asr-model"]

    monkeypatch.setattr(recognizer, "load", fails)
    before = len(threads())
    with pytest.raises(recognizer.ModelLoadError, match="no such model"):
        model_host.ModelHost(model_host.ModelSpec("any"))
    deadline = time.monotonic() + 10
    while len(threads()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(threads()) == before


@pytest.mark.usefixtures("model")
def test_a_batch_that_is_done_is_not_held():
    import gc
    import weakref

    host = model_host.ModelHost(model_host.ModelSpec("any"))
    waveform = np.full(10, 1)
    gone = weakref.ref(waveform)
    assert host.transcribe([waveform])[0].text == "1"
    del waveform
    deadline = time.monotonic() + 10
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
