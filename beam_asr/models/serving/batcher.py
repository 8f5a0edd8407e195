"""Clips that have been read and wait for the model, and the batches that are with it."""

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
from beam_asr.records.work import Clip
from beam_asr.settings import NO_PROMPT, Prompt

FIRST_SECONDS = 80  # of audio: the model shall not wait for more before it begins
MAX_SECONDS = 20 * 60  # that wait: 77 MB at 16 kHz
MAX_BATCHES = 4  # that wait, of a device whose batches are so long that this is more
GROWTH = 1.5  # by which more may wait each time; then 2.5 times what was given is read meanwhile
SHARE = 1 / 3  # of the audio that waits, given at a time
# Times as much audio as may wait at most; when so much has come after a clip, it waits no longer.
MAX_WAIT = 2.0


class Result(NamedTuple):
    """What became of a clip.

    Attributes:
        recognition: the text, or why there is none.
        attempts: the forward passes that it took part in.
        waveform: its audio.
    """

    clip: Clip
    recognition: Recognition | Exception
    attempts: int
    waveform: np.ndarray


class Batch(NamedTuple):
    """A batch that is done.

    Attributes:
        passes: through the model; several if it had to be divided.
    """

    results: list[Result]
    audio_seconds: float
    padded_seconds: float
    passes: list[ForwardPass]


class _Queued(NamedTuple):
    """A clip that waits for the model.

    Attributes:
        seconds: as the model takes it.
        place: seconds of audio up to it, of all that were ever added.
    """

    clip: Clip
    waveform: np.ndarray
    seconds: float
    place: float
    prompt: Prompt


class _InFlight(NamedTuple):
    """A batch that is with the model."""

    clips: list[Clip]
    waveforms: list[np.ndarray]
    padded_seconds: float
    done: Future[ForwardPass]
    prompt: Prompt


class Batcher:
    """Puts clips into batches and hands them to the model, whose results come with later calls.

    The longer clips wait, the better they can be put together, and the longer the model waits. So
    as soon as enough wait, the cheapest batches are given, for a share of the audio; to the others
    clips that come later may be added. The results of the share before are taken then, so that the
    model always has a share to work on while more is read.

    A clip that has waited for long is given with its batch, whatever that costs: the results of the
    clips that came with it are kept only when it is done too.

    Args:
        batch_size: most clips in a batch.
        max_batch_seconds: most padded seconds in a batch; None leaves it to the model's device.
    """

    def __init__(self, host: ModelHost, batch_size: int, max_batch_seconds: float | None):
        self._host = host
        self._batch_size = batch_size
        self._max_batch_seconds = max_batch_seconds
        self._began = time.monotonic()
        self._waiting: list[_Queued] = []
        self._seconds = 0.0  # that wait
        self._added = 0.0
        self._enough: float = FIRST_SECONDS
        self._given: list[_InFlight] = []

    def add(self, clip: Clip, waveform: np.ndarray, prompt: Prompt = NO_PROMPT) -> Iterator[Batch]:
        """Takes in a clip; gives the batches that are done, if it is time to look.

        Clips with different prompts are in different batches.
        """
        seconds = padded_clip_seconds(waveform, self._host.sample_rate)
        self._added += seconds
        self._seconds += seconds
        self._waiting.append(_Queued(clip, waveform, seconds, self._added, prompt))
        before: list[_InFlight] = []
        if self._seconds >= min(self._enough, self._most):
            self._enough = min(self._enough, self._most) * GROWTH
            before, self._given = self._given, self._give(SHARE)
        return map(self._take, before)

    def drain(self) -> Iterator[Batch]:
        """Gives all that waits, and every batch when it is done."""
        before, self._given = self._given + self._give(1.0), []
        return map(self._take, before)

    @property
    def _budget(self) -> float:
        budget = self._max_batch_seconds or self._host.default_batch_seconds
        return min(budget, self._host.memory_limit_seconds)

    @property
    def _most(self) -> float:
        """Seconds that may wait."""
        return max(MAX_SECONDS, MAX_BATCHES * self._budget)

    def _give(self, share: float) -> list[_InFlight]:
        latest = self._added - MAX_WAIT * self._most
        clips = [
            batch_plan.WaitingClip(each.seconds, each.prompt, each.place < latest)
            for each in self._waiting
        ]
        overhead = self._host.batch_overhead_seconds
        limits = batch_plan.BatchLimits(self._budget, self._batch_size, overhead)
        plan = batch_plan.PLANNER.plan(clips, limits, share)
        given = [self._submit([self._waiting[index] for index in indices]) for indices in plan]
        gone = {index for indices in plan for index in indices}
        self._waiting = [each for index, each in enumerate(self._waiting) if index not in gone]
        self._seconds = sum(each.seconds for each in self._waiting)
        return given

    def _submit(self, batch: list[_Queued]) -> _InFlight:
        clips, waveforms = [each.clip for each in batch], [each.waveform for each in batch]
        names, prompt = [clip.audio for clip in clips], batch[0].prompt
        done = self._host.submit(waveforms, self._began, names, prompt)
        padded = batch_plan.padded_seconds([each.seconds for each in batch])
        return _InFlight(clips, waveforms, padded, done, prompt)

    def _take(self, given: _InFlight) -> Batch:
        passes: list[ForwardPass] = []

        def transcribe(indices: Sequence[int]) -> list[Recognition | ModelError]:
            whole = len(indices) == len(given.clips)
            done = given.done
            if not whole:
                waveforms = [given.waveforms[index] for index in indices]
                names = [given.clips[index].audio for index in indices]
                done = self._host.submit(waveforms, time.monotonic(), names, given.prompt)
            passes.append(done.result())
            return passes[-1].results

        heard = isolation.apply_bisecting(transcribe, range(len(given.clips)))
        seconds = [len(waveform) / self._host.sample_rate for waveform in given.waveforms]
        results = [
            Result(clip, each, attempts, waveform)
            for clip, (each, attempts), waveform in zip(
                given.clips, heard, given.waveforms, strict=True
            )
        ]
        return Batch(results, sum(seconds), given.padded_seconds, passes)
