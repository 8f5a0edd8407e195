"""Queues clips, dispatches them to the model in batches, and collects the results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from beam_asr.errors import ModelError
from beam_asr.models.engine import padded_clip_seconds
from beam_asr.models.serving import batch_plan, isolation
from beam_asr.models.serving.host import ForwardPass, ModelHost
from beam_asr.records.outcome import Recognition
from beam_asr.records.prompt import NO_PROMPT, Prompt
from beam_asr.records.work import Clip

FIRST_SECONDS = 80  # of queued audio, after which the first batches are dispatched
MAX_SECONDS = 20 * 60  # of queued audio: 77 MB at 16 kHz
MAX_BATCHES = 4  # queued, for a device whose batches are so long that this is more
# Factor by which the queue grows each time; then 2.5 times what was dispatched is read meanwhile.
GROWTH = 1.5
SHARE = 1 / 3  # of the queued audio, dispatched at a time
# Multiple of the maximum queue; when as much audio has come after a clip, it waits no longer.
MAX_WAIT = 2.0


class Result(NamedTuple):
    """Holds the result of a clip.

    Attributes:
        clip: the clip.
        recognition: the text, or the error.
        attempts: number of forward passes that it was part of.
        waveform: its audio.
    """

    clip: Clip
    recognition: Recognition | Exception
    attempts: int
    waveform: np.ndarray


class Batch(NamedTuple):
    """Holds the results of a batch.

    Attributes:
        passes: through the model; several if it had to be divided.
    """

    results: list[Result]
    audio_seconds: float
    padded_seconds: float
    passes: list[ForwardPass]

    @property
    def model_seconds(self) -> float:
        """Returns the wall time of the passes and their decoding, in seconds."""
        return sum(forward_pass.seconds for forward_pass in self.passes)

    @property
    def wait_seconds(self) -> float:
        """Returns the wall time in which the model had nothing to do, in seconds."""
        return sum(forward_pass.idle_seconds for forward_pass in self.passes)


class _Queued(NamedTuple):
    """A clip that waits for the model.

    Attributes:
        seconds: as the model takes it.
        position: seconds of all audio that was ever added, up to its end.
    """

    clip: Clip
    waveform: np.ndarray
    seconds: float
    position: float
    prompt: Prompt


class _InFlight(NamedTuple):
    """A batch that is with the model."""

    clips: list[Clip]
    waveforms: list[np.ndarray]
    padded_seconds: float
    done: Future[ForwardPass]
    prompt: Prompt


class Batcher:
    """Puts clips into batches for the model, and returns results with later calls.

    The longer clips wait, the better they can be batched, and the longer the model waits. Once
    enough audio is queued, the most efficient batches, about a third of the audio, are dispatched.
    The rest stays queued, so that later clips can improve its batches. The results of the dispatch
    before are then collected, so that the model always has work while more is read.

    A clip that has waited for long is dispatched with its batch, whatever that costs: the results
    of the clips that came with it are stored only when it is done too.

    Args:
        batch_size: maximum clips in a batch.
        max_batch_seconds: maximum padded seconds in a batch; None chooses it for the model's
            device.
    """

    def __init__(self, host: ModelHost, batch_size: int, max_batch_seconds: float | None):
        self._host = host
        self._batch_size = batch_size
        self._max_batch_seconds = max_batch_seconds
        self._started = time.monotonic()
        self._queued: list[_Queued] = []
        self._seconds = 0.0  # that are queued
        self._added = 0.0
        self._dispatch_seconds: float = FIRST_SECONDS
        self._in_flight: list[_InFlight] = []

    def add(self, clip: Clip, waveform: np.ndarray, prompt: Prompt = NO_PROMPT) -> Iterator[Batch]:
        """Queues a clip; dispatches batches when it is time, and returns those before.

        Clips with different prompts are in different batches.
        """
        seconds = padded_clip_seconds(waveform, self._host.sample_rate)
        self._added += seconds
        self._seconds += seconds
        self._queued.append(_Queued(clip, waveform, seconds, self._added, prompt))
        before: list[_InFlight] = []
        if self._seconds >= min(self._dispatch_seconds, self._max_queued_seconds):
            self._dispatch_seconds = min(self._dispatch_seconds, self._max_queued_seconds) * GROWTH
            before, self._in_flight = self._in_flight, self._dispatch(SHARE)
        return map(self._collect, before)

    def drain(self) -> Iterator[Batch]:
        """Dispatches all that is queued, and yields every batch when it is done."""
        before, self._in_flight = self._in_flight + self._dispatch(1.0), []
        return map(self._collect, before)

    @property
    def _budget(self) -> float:
        budget = self._max_batch_seconds or self._host.default_batch_seconds
        return min(budget, self._host.memory_limit_seconds)

    @property
    def _max_queued_seconds(self) -> float:
        """Returns the maximum seconds in the queue."""
        return max(MAX_SECONDS, MAX_BATCHES * self._budget)

    def _dispatch(self, share: float) -> list[_InFlight]:
        latest = self._added - MAX_WAIT * self._max_queued_seconds
        clips = [
            batch_plan.WaitingClip(queued.seconds, queued.prompt, queued.position < latest)
            for queued in self._queued
        ]
        overhead = self._host.batch_overhead_seconds
        limits = batch_plan.BatchLimits(self._budget, self._batch_size, overhead)
        plan = batch_plan.PLANNER.plan(clips, limits, share)
        in_flight = [self._submit([self._queued[index] for index in indices]) for indices in plan]
        dispatched = {index for indices in plan for index in indices}
        self._queued = [
            queued for index, queued in enumerate(self._queued) if index not in dispatched
        ]
        self._seconds = sum(queued.seconds for queued in self._queued)
        return in_flight

    def _submit(self, batch: list[_Queued]) -> _InFlight:
        clips, waveforms = [queued.clip for queued in batch], [queued.waveform for queued in batch]
        names, prompt = [clip.audio for clip in clips], batch[0].prompt
        done = self._host.submit(waveforms, self._started, names, prompt)
        padded = batch_plan.padded_seconds([queued.seconds for queued in batch])
        return _InFlight(clips, waveforms, padded, done, prompt)

    def _collect(self, in_flight: _InFlight) -> Batch:
        passes: list[ForwardPass] = []

        def transcribe(indices: Sequence[int]) -> list[Recognition | ModelError]:
            whole = len(indices) == len(in_flight.clips)
            done = in_flight.done
            if not whole:
                waveforms = [in_flight.waveforms[index] for index in indices]
                names = [in_flight.clips[index].audio for index in indices]
                done = self._host.submit(waveforms, time.monotonic(), names, in_flight.prompt)
            passes.append(done.result())
            return passes[-1].results

        outcomes = isolation.apply_bisecting(transcribe, range(len(in_flight.clips)))
        seconds = [len(waveform) / self._host.sample_rate for waveform in in_flight.waveforms]
        results = [
            Result(clip, recognition, attempts, waveform)
            for clip, (recognition, attempts), waveform in zip(
                in_flight.clips, outcomes, in_flight.waveforms, strict=True
            )
        ]
        return Batch(results, sum(seconds), in_flight.padded_seconds, passes)
