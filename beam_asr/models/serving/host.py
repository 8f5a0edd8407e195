"""The one model of a worker process, and the one thread that drives it.

NeMo models are not thread-safe, and Beam runs as many DoFn instances in a process as it has
threads. So the model hangs on a process-wide strong reference, which no idle bundle processor takes
with it, and every call goes to one thread of its own, in which it was also loaded.
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
from beam_asr.models import engine
from beam_asr.models.devices import gpu_faults, gpu_memory
from beam_asr.models.devices.batch_size import BatchLimit
from beam_asr.models.engine import ModelSpec, Recognizer, padded_clip_seconds
from beam_asr.models.serving import batch_plan
from beam_asr.models.serving.watchdog import NOTHING_LOST, Watchdog, Work, listed
from beam_asr.records.outcome import Recognition
from beam_asr.settings import NO_PROMPT, Prompt

Result = TypeVar("Result")


class ForwardPass(NamedTuple):
    """A batch that has been through the model.

    Attributes:
        results: one for each waveform, in their order; some may be errors.
        seconds: that the model took, without those that it also worked on the batch before.
        idle_seconds: that the model had nothing to do before, though it could have.
    """

    results: list[Recognition | ModelError]
    seconds: float
    idle_seconds: float


@dataclasses.dataclass(eq=False)
class _Request:
    """A batch to be transcribed.

    Attributes:
        alone: that no other batch may be with the model meanwhile.
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
    """A model and its thread.

    The thread begins with a batch before it fetches the results of the one before: on a GPU, which
    works on by itself, neither ever waits for the other.
    """

    def __init__(self, spec: ModelSpec):
        self._tasks: queue.SimpleQueue[_Request | Callable[[], None]] = queue.SimpleQueue()
        self._ended = False
        threading.Thread(target=self._work, name="beam-asr-model", daemon=True).start()
        self._unreported_loads = 0
        self._lock = threading.Lock()
        self._last_ended = 0.0
        self._limit = BatchLimit()
        self._model: Recognizer = self._call(lambda: self._load(spec))
        self._watchdog = Watchdog(spec.batch_timeout)
        self._unreported_loads = 1
        self._prompts = {NO_PROMPT}  # that the model takes
        self.sample_rate = self._model.sample_rate
        self._read_properties()

    @property
    def memory_limit_seconds(self) -> float:
        """Most padded seconds of a batch for which the memory may do, by all that is known."""
        return self._limit.padded_seconds

    def warm_up(self, batch_size: int) -> None:
        """As ``Recognizer.warm_up``."""

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
        """Has a batch transcribed, after those that were submitted before.

        Args:
            since: from when on, by ``time.monotonic()``, the model counts as idle if it waits for
                this batch.
            names: of the clips, to be named if the process has to end with them.
            prompt: of all of them, one that ``check_prompt`` takes.
        """
        done: Future[ForwardPass] = Future()
        self._tasks.put(_Request(waveforms, since, Work(names), done, prompt))
        return done

    def close(self) -> None:
        """Ends the thread, and lets go of the model; nothing may be submitted any more."""

        def end() -> None:
            self._ended = True
            del self._model

        self._call(end)
        self._watchdog.close()
        gc.collect()  # models are full of cycles
        gpu_memory.empty_cache()

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises PromptError for one that the model does not take."""
        if prompt not in self._prompts:
            self._call(lambda: self._model.check_prompt(prompt))
            self._prompts.add(prompt)

    def take_loads(self) -> int:
        """How many loads have not been counted yet; each is told once, to one caller."""
        with self._lock:
            loads, self._unreported_loads = self._unreported_loads, 0
        return loads

    def _load(self, spec: ModelSpec) -> Recognizer:
        try:
            return engine.load(spec)
        except BaseException:
            self._ended = True  # nobody will have this host
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
        """Has a function called in the model's thread."""
        done: Future[Result] = Future()

        def task() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self._tasks.put(task)
        return done.result()

    def _work(self) -> None:
        begun = None
        try:
            while not self._ended:
                begun = self._step(begun)
        except BaseException as error:  # without this thread, callers would wait for ever
            process.exit_now(
                f"the model's thread came to an end by {_worded(error)}. {NOTHING_LOST}"
            )

    def _step(self, begun: _InFlight | None) -> _InFlight | None:
        """Begins with the next batch, if there is one, and ends the one before."""
        try:
            task = self._tasks.get(block=begun is None)
        except queue.Empty:
            task = None
        following = None
        if isinstance(task, _Request):
            if task.alone and begun is not None:
                self._end(begun, None)
                begun = None
            following = self._begin(task, begun)
        if begun is not None:
            self._end(begun, following)
        if task is not None and not isinstance(task, _Request):
            task()
        return following

    def _begin(self, request: _Request, before: _InFlight | None) -> _InFlight | None:
        started = time.monotonic()
        idle = 0.0 if before else max(0.0, started - max(request.since, self._last_ended))
        with self._watchdog.watching(request.work, before and before.request.work):
            try:
                encoded = self._model.encode(request.waveforms, request.prompt)
            except BaseException as error:
                self._fail(request, error, alone=before is None)
                return None
        return _InFlight(request, encoded, started, idle)

    def _end(self, begun: _InFlight, following: _InFlight | None) -> None:
        request = begun.request
        with self._watchdog.watching(request.work, following and following.request.work):
            try:
                results = self._model.decode(begun.encoded)
            except BaseException as error:
                self._fail(request, error, alone=following is None)
                return
        before, self._last_ended = self._last_ended, time.monotonic()
        seconds = self._last_ended - max(begun.started, before)
        self._limit.hold(len(request.waveforms), self._padded_seconds(request))
        request.done.set_result(ForwardPass(results, seconds, begun.idle_seconds))

    def _fail(self, request: _Request, error: BaseException, alone: bool) -> None:
        """Ends a batch with an error, unless it is not the batch's.

        Args:
            alone: whether no other batch is with the model.
        """
        self._last_ended = time.monotonic()
        _end_if_lost(error, f"while it worked on {listed(request.work.names)}")
        errors.release_frames(error)
        if gpu_memory.is_exhausted(error):
            gpu_memory.empty_cache()
            self._limit.fail(len(request.waveforms), self._padded_seconds(request))
            if len(request.waveforms) == 1:
                if not alone:  # then it may fit
                    request.alone = True
                    self._tasks.put(request)
                    return
                error = self._too_long(request.waveforms[0], error)
        # What is no Exception, such as SystemExit, is no failure of a clip: it ends the caller.
        request.done.set_exception(
            errors.without_tensors(error) if isinstance(error, Exception) else error
        )

    def _too_long(self, waveform: np.ndarray, cause: BaseException) -> ClipTooLongError:
        device = self.description.get("device", "cpu")
        rounded = self.description.get("precision") == "bfloat16"
        seconds = len(waveform) / self.sample_rate
        on_gpu = device.startswith("cuda")
        return ClipTooLongError.of(seconds, gpu_memory.total(device), cause, on_gpu and not rounded)

    def _padded_seconds(self, request: _Request) -> float:
        return batch_plan.padded_seconds(
            [padded_clip_seconds(waveform, self.sample_rate) for waveform in request.waveforms]
        )


def _end_if_lost(error: BaseException, when: str) -> None:
    """Ends the process if an error says that the device will do no more work for it."""
    if gpu_faults.is_lost(error):
        process.exit_now(
            f"the model's device is lost, {when}: {_worded(error)}. {NOTHING_LOST}. If it happens "
            "again on this machine, see `dmesg` and `nvidia-smi -q` for errors of its card"
        )


def _worded(error: BaseException) -> str:
    return f"{type(error).__name__}: {errors.shortened(error)}"
