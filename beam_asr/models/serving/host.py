"""Runs a model in a thread of its own, which loads it and makes every call.

NeMo models are not thread-safe, and Beam runs as many DoFn instances in a process as it has
threads. So the process holds a strong reference to the model (`pool`), which outlives idle bundle
processors, and every call goes to the model's one thread.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import numpy as np

from beam_asr import errors, process
from beam_asr.errors import ClipTooLongError, ModelError
from beam_asr.models import engine, error_tensors
from beam_asr.models.devices import gpu_faults, gpu_memory
from beam_asr.models.devices.batch_size import BatchLimit
from beam_asr.models.engine import ModelSpec, Recognizer, padded_clip_seconds
from beam_asr.models.serving import batch_plan
from beam_asr.models.serving.watchdog import NOTHING_LOST, Watchdog, Work, listed
from beam_asr.records.outcome import Recognition
from beam_asr.records.prompt import NO_PROMPT, Prompt

Result = TypeVar("Result")


class ForwardPass(NamedTuple):
    """Holds the results and times of a batch that has been through the model.

    Attributes:
        results: one for each waveform, in their order; some may be errors.
        seconds: of the model's work, without those shared with the batch before.
        idle_seconds: that the model waited for this batch.
    """

    results: list[Recognition | ModelError]
    seconds: float
    idle_seconds: float


@dataclasses.dataclass(eq=False)
class _Request:
    """A batch to be transcribed.

    Attributes:
        alone: whether no other batch may be with the model meanwhile.
    """

    waveforms: Sequence[np.ndarray]
    since: float
    work: Work
    done: Future[ForwardPass]
    prompt: Prompt = NO_PROMPT
    alone: bool = False


class _InFlight(NamedTuple):
    request: _Request
    encoded: Any
    started: float
    idle_seconds: float


class ModelHost:
    """Runs one model in its thread.

    The thread starts a batch before it fetches the results of the one before: on a GPU, which works
    asynchronously, neither ever waits for the other.
    """

    def __init__(self, spec: ModelSpec):
        self._tasks: queue.SimpleQueue[_Request | Callable[[], None]] = queue.SimpleQueue()
        self._ended = False
        threading.Thread(target=self._work, name="beam-asr-model", daemon=True).start()
        self._unreported_loads = 0
        self._lock = threading.Lock()
        self._last_finished = 0.0
        self._limit = BatchLimit()
        self._model: Recognizer = self._call(lambda: self._load(spec))
        self._watchdog = Watchdog(spec.batch_timeout)
        self._unreported_loads = 1
        self._prompts = {NO_PROMPT}  # that the model accepts
        self.sample_rate = self._model.sample_rate
        self._read_properties()

    @property
    def memory_limit_seconds(self) -> float:
        """Returns the maximum padded seconds of a batch that may fit into the memory so far."""
        return self._limit.padded_seconds

    def warm_up(self, batch_size: int) -> None:
        """Measures the device: see ``Recognizer.warm_up``."""

        def warm_up() -> None:
            try:
                self._model.warm_up(batch_size)
            except Exception as error:
                _end_if_lost(error, "while it was warmed up")
                raise

        self._call(warm_up)
        self._read_properties()

    def submit(
        self,
        waveforms: Sequence[np.ndarray],
        since: float = math.inf,
        names: Sequence[str] = (),
        prompt: Prompt = NO_PROMPT,
    ) -> Future[ForwardPass]:
        """Submits a batch, which is transcribed after those submitted before.

        Args:
            since: time, by ``time.monotonic()``, from which the model counts as idle if it waits
                for this batch.
            names: of the clips, for the message if the process has to end with them.
            prompt: of all of them, one that ``check_prompt`` accepts.
        """
        done: Future[ForwardPass] = Future()
        self._tasks.put(_Request(waveforms, since, Work(names), done, prompt))
        return done

    def close(self) -> None:
        """Ends the thread and frees the model; nothing may be submitted any more."""

        def end() -> None:
            self._ended = True
            del self._model

        self._call(end)
        self._watchdog.close()
        gc.collect()  # models are full of cycles
        gpu_memory.empty_cache()

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises PromptError for a prompt that the model does not accept."""
        if prompt not in self._prompts:
            self._call(lambda: self._model.check_prompt(prompt))
            self._prompts.add(prompt)

    def take_loads(self) -> int:
        """Returns the number of loads since the last call, and resets it."""
        with self._lock:
            loads, self._unreported_loads = self._unreported_loads, 0
        return loads

    def _load(self, spec: ModelSpec) -> Recognizer:
        try:
            return engine.load(spec)
        except BaseException:
            self._ended = True  # this host will never be used
            raise

    def _read_properties(self) -> None:
        self.default_batch_seconds = self._model.default_batch_seconds
        self.batch_overhead_seconds = self._model.batch_overhead_seconds
        self.max_clip_seconds = self._model.max_clip_seconds
        self.segment_seconds = self._model.segment_seconds
        self.weight_bytes = self._model.weight_bytes
        self.prompt_fields = self._model.prompt_fields
        self.description = self._model.describe()

    def _call(self, function: Callable[[], Result]) -> Result:
        """Calls a function in the model's thread."""
        done: Future[Result] = Future()

        def task() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self._tasks.put(task)
        return done.result()

    def _work(self) -> None:
        in_flight = None
        try:
            while not self._ended:
                in_flight = self._step(in_flight)
        except BaseException as error:  # without this thread, callers would wait for ever
            process.exit_now(
                f"the model's thread came to an end by {_one_line(error)}. {NOTHING_LOST}"
            )

    def _step(self, in_flight: _InFlight | None) -> _InFlight | None:
        """Starts the next batch, if there is one, and finishes the one before."""
        try:
            task = self._tasks.get(block=in_flight is None)
        except queue.Empty:
            task = None
        following = None
        if isinstance(task, _Request):
            if task.alone and in_flight is not None:
                self._finish(in_flight, None)
                in_flight = None
            following = self._start_batch(task, in_flight)
        if in_flight is not None:
            self._finish(in_flight, following)
        if task is not None and not isinstance(task, _Request):
            task()
        return following

    def _start_batch(self, request: _Request, before: _InFlight | None) -> _InFlight | None:
        started = time.monotonic()
        idle = 0.0 if before else max(0.0, started - max(request.since, self._last_finished))
        with self._watchdog.watching(request.work, before and before.request.work):
            try:
                encoded = self._model.encode(request.waveforms, request.prompt)
            except BaseException as error:
                self._fail(request, error, alone=before is None)
                return None
        return _InFlight(request, encoded, started, idle)

    def _finish(self, in_flight: _InFlight, following: _InFlight | None) -> None:
        request = in_flight.request
        with self._watchdog.watching(request.work, following and following.request.work):
            try:
                results = self._model.decode(in_flight.encoded)
            except BaseException as error:
                self._fail(request, error, alone=following is None)
                return
        before, self._last_finished = self._last_finished, time.monotonic()
        seconds = self._last_finished - max(in_flight.started, before)
        self._limit.record_success(len(request.waveforms), self._padded_seconds(request))
        request.done.set_result(ForwardPass(results, seconds, in_flight.idle_seconds))

    def _fail(self, request: _Request, error: BaseException, alone: bool) -> None:
        """Ends a batch with an error, unless the batch can be retried or the device is lost.

        Args:
            alone: whether no other batch is with the model.
        """
        self._last_finished = time.monotonic()
        _end_if_lost(error, f"while it worked on {listed(request.work.names)}")
        error_tensors.release_frames(error)
        if gpu_memory.is_exhausted(error):
            gpu_memory.empty_cache()
            self._limit.record_failure(len(request.waveforms), self._padded_seconds(request))
            if len(request.waveforms) == 1:
                if not alone:  # alone it may fit
                    request.alone = True
                    self._tasks.put(request)
                    return
                error = self._too_long(request.waveforms[0], error)
        # A BaseException such as SystemExit is not a failure of a clip: it ends the caller.
        request.done.set_exception(
            error_tensors.without_tensors(error) if isinstance(error, Exception) else error
        )

    def _too_long(self, waveform: np.ndarray, cause: BaseException) -> ClipTooLongError:
        device = self.description.get("device", "cpu")
        is_bf16 = self.description.get("precision") == "bfloat16"
        seconds = len(waveform) / self.sample_rate
        on_gpu = device.startswith("cuda")
        return ClipTooLongError.of(seconds, gpu_memory.total(device), cause, on_gpu and not is_bf16)

    def _padded_seconds(self, request: _Request) -> float:
        return batch_plan.padded_seconds(
            [padded_clip_seconds(waveform, self.sample_rate) for waveform in request.waveforms]
        )


def _end_if_lost(error: BaseException, when: str) -> None:
    """Ends the process if an error means that it can no longer use the device."""
    if gpu_faults.is_lost(error):
        process.exit_now(
            f"the model's device is lost, {when}: {_one_line(error)}. {NOTHING_LOST}. If it "
            "happens again on this machine, see `dmesg` and `nvidia-smi -q` for errors of its card"
        )


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {errors.shortened(error)}"
