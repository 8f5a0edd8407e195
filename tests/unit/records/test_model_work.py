"""Sums of what models have done, by worker and by time."""

from __future__ import annotations

import functools
import json
import random

import pytest

from beam_asr.records.model_work import (
    MAX_SPANS,
    MAX_WORKERS,
    OTHER_WORKERS,
    ModelWork,
    Span,
    add_spans,
    add_workers,
)
from beam_asr.records.statistics import Statistics, from_json, to_json, total

NOON = 1_800_000_000 // 60 * 60


def sums(parts: dict) -> ModelWork:
    return ModelWork(*map(sum, zip(*parts.values())))


@pytest.mark.parametrize("minutes", [1, MAX_SPANS, MAX_SPANS + 1, 10_000])
def test_spans_grow_with_the_run_and_nothing_is_lost(minutes):
    parts = [
        {Span.of(NOON + 60 * n + 59): ModelWork(1, 2.0, 4.0, 0.5, 0.25)} for n in range(minutes)
    ]
    random.Random(3).shuffle(parts)
    spans = functools.reduce(add_spans, parts)
    assert MAX_SPANS / 3 < len(spans) <= MAX_SPANS or len(spans) == minutes
    (seconds,) = {span.seconds for span in spans}
    assert all(span.start % seconds == 0 for span in spans)
    assert sums(spans) == ModelWork(minutes, 2.0 * minutes, 4.0 * minutes, minutes / 2, minutes / 4)
    halves = [functools.reduce(add_spans, parts[start::2], {}) for start in range(2)]
    assert add_spans(*halves) == spans, "the order of the additions does not matter"


def test_of_very_many_workers_those_with_the_most_audio_are_kept_apart():
    count = 3 * MAX_WORKERS
    parts = [{f"w{n}": ModelWork(1, float(n))} for n in range(count)]
    workers = functools.reduce(add_workers, parts)
    assert len(workers) == MAX_WORKERS
    assert f"w{count - 1}" in workers
    assert sums(workers).batches == count
    assert workers[OTHER_WORKERS].batches == count - MAX_WORKERS + 1


def test_statistics_keep_them_through_json_and_sums():
    one, two = Statistics(), Statistics()
    one.add_work(ModelWork(1, 10.0, 12.0, 2.0, 0.5), "host:1", Span.of(NOON))
    two.add_work(ModelWork(1, 20.0, 24.0, 3.0, 0.5), "host:2", Span.of(NOON + 61))
    both = total([from_json(to_json(one)), two])
    assert (both.batches, both.audio_seconds, both.model_seconds) == (2, 30.0, 5.0)
    assert both.by_worker == {**one.by_worker, **two.by_worker}
    assert both.by_time == {
        Span(NOON): one.by_worker["host:1"], Span(NOON + 60): two.by_worker["host:2"],
    }  # fmt: skip
    again = from_json(json.loads(json.dumps(to_json(both))))
    assert again == both
    assert {type(work) for work in (*again.by_worker.values(), *again.by_time.values())} == {
        ModelWork
    }
    assert {type(span) for span in again.by_time} == {Span}
