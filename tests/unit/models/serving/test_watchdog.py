"""The seconds in which the model works, and those in which it waits."""

from __future__ import annotations

import pytest

from beam_asr.models import engine
from beam_asr.models.serving import host as model_host
from tests.support.noting_model import batch, submitted_together


def test_the_seconds_of_batches_that_overlap_are_counted_once(model, monkeypatch):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(model_host.time, "monotonic", lambda: float(next(clock)))
    done = submitted_together(host, model, [1, 2])
    first, second = (each.result(30) for each in done)
    # 1 begins at 0, 2 at 10; 1 ends at 20, 2 at 30.
    assert (first.seconds, second.seconds) == (20.0, 10.0)
    assert second.idle_seconds == 0


@pytest.mark.usefixtures("model")
def test_time_without_a_batch_is_idle_only_from_when_it_counts(monkeypatch):
    host = model_host.ModelHost(engine.ModelSpec("any"))
    now = [100.0]
    monkeypatch.setattr(model_host.time, "monotonic", lambda: now[0])
    assert host.submit(batch(1), since=90.0).result(30).idle_seconds == 10.0
    now[0] = 130.0
    assert host.submit(batch(2), since=90.0).result(30).idle_seconds == 30.0
    now[0] = 170.0
    assert host.submit(batch(3)).result(30).idle_seconds == 0
