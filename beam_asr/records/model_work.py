"""Sums what models have done, by worker process and by time."""

from __future__ import annotations

import functools
import operator
import os
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_WORKERS = 200  # of which the figures are kept apart
OTHER_WORKERS = "others"
MAX_SPANS = 120  # of time; the spans grow with the run
MINUTE = 60


class ModelWork(NamedTuple):
    """Sums over forward passes. `add` adds two.

    Attributes:
        batches: their number.
        audio_seconds: of their clips.
        padded_seconds: clips x longest clip, over all batches.
        model_seconds: wall time of the passes and their decoding.
        wait_seconds: wall time in which the model had nothing to do.
    """

    batches: int = 0
    audio_seconds: float = 0.0
    padded_seconds: float = 0.0
    model_seconds: float = 0.0
    wait_seconds: float = 0.0


class Span(NamedTuple):
    """Identifies a span of time.

    Attributes:
        start: seconds since the epoch, a multiple of ``seconds``.
        seconds: its length, a minute times a power of two.
    """

    start: int
    seconds: int = MINUTE

    @classmethod
    def of(cls, seconds: float) -> Span:
        """Returns the minute of a time, in seconds since the epoch."""
        return cls(int(seconds) // MINUTE * MINUTE)

    def within(self, seconds: int) -> Span:
        """Returns the span of this length, at least its own, that this one is in."""
        return Span(self.start // seconds * seconds, seconds)


def add(one: ModelWork, other: ModelWork) -> ModelWork:
    """Adds two sums."""
    return ModelWork(*map(operator.add, one, other))


def add_workers(
    one: Mapping[str, ModelWork], other: Mapping[str, ModelWork]
) -> dict[str, ModelWork]:
    """Adds sums by worker, of which those with the most audio are kept apart."""
    if not one or not other:
        return dict(one or other)
    sums = _added(one, other)
    if len(sums) <= MAX_WORKERS:
        return sums
    rest = sums.pop(OTHER_WORKERS, ModelWork())
    by_audio = sorted(sums.items(), key=lambda item: (-item[1].audio_seconds, item[0]))
    rest = functools.reduce(add, (work for _, work in by_audio[MAX_WORKERS - 1 :]), rest)
    return {**dict(by_audio[: MAX_WORKERS - 1]), OTHER_WORKERS: rest}


def add_spans(
    one: Mapping[Span, ModelWork], other: Mapping[Span, ModelWork]
) -> dict[Span, ModelWork]:
    """Adds sums by spans of time, which become longer if there are too many."""
    if not one or not other:
        return dict(one or other)
    seconds = max((span.seconds for span in (*one, *other)), default=MINUTE)
    while True:
        sums = _added(_in_spans(one, seconds), _in_spans(other, seconds))
        if len(sums) <= MAX_SPANS:
            return sums
        seconds *= 2


def _in_spans(work: Mapping[Span, ModelWork], seconds: int) -> dict[Span, ModelWork]:
    sums: dict[Span, ModelWork] = {}
    for span, part in work.items():
        within = span.within(seconds)
        sums[within] = add(sums.get(within, ModelWork()), part)
    return sums


def _added(one: Mapping[Any, ModelWork], other: Mapping[Any, ModelWork]) -> dict[Any, ModelWork]:
    none = ModelWork()
    return {key: add(one.get(key, none), other.get(key, none)) for key in {**one, **other}}


@functools.cache
def worker_name() -> str:
    """Returns the name of this process, which no other of the job has."""
    return f"{socket.gethostname()}:{os.getpid()}"
