"""The one model of a worker process, and the one thread that drives it.

NeMo models are not thread-safe, and Beam runs as many DoFn instances in a process as it has
threads. So the model hangs on a process-wide strong reference, which no idle bundle processor takes
with it, and every call goes to one thread of its own, in which it was also loaded.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import numpy as np

from beam_asr import batching, device_memory, recognizer
from beam_asr.nemo_recognizer import seconds_taken
from beam_asr.recognizer import Recognition, Recognizer
from beam_asr.storage import Storage

Result = TypeVar("Result")


class ModelSpec(NamedTuple):
    """Which model, and how: what makes two users of a process share one."""

    model_name: str
    device: str = "auto"
    decoder: str | None = None
    precision: str = "auto"
    storage: Storage = Storage()


class Pass(NamedTuple):
    """A batch that has been through the model.

    Attributes:
        results: one for each waveform, in their order.
        seconds: that the model took, without those that it also worked on the batch before.
        idle_seconds: that the model had nothing to do before, though it could have.
    """

    results: list[Recognition]
    seconds: float
    idle_seconds: float


class _Request(NamedTuple):
    waveforms: Sequence[np.ndarray]
    since: float
    done: Future[Pass]


class _Begun(NamedTuple):
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
        # What has been too much for the device's memory is not tried again in this process.
        self.most_batch_seconds = math.inf
        self._model: Recognizer = self._call(lambda: self._load(spec))
        self._unreported_loads = 1
        self.sample_rate = self._model.sample_rate
        self._read_properties()

    def warm_up(self, batch_size: int) -> None:
        """As ``Recognizer.warm_up``."""
        self._call(lambda: self._model.warm_up(batch_size))
        self._read_properties()

    def submit(self, waveforms: Sequence[np.ndarray], since: float = math.inf) -> Future[Pass]:
        """Has a batch transcribed, after those that were submitted before.

        Args:
            since: from when on, by ``time.monotonic()``, the model counts as idle if it waits for
                this batch.
        """
        done: Future[Pass] = Future()
        self._tasks.put(_Request(waveforms, since, done))
        return done

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Recognition]:
        """The texts of one batch."""
        return self.submit(waveforms).result().results

    def take_loads(self) -> int:
        """How many loads have not been counted yet; each is told once, to one caller."""
        with self._lock:
            loads, self._unreported_loads = self._unreported_loads, 0
        return loads

    def _load(self, spec: ModelSpec) -> Recognizer:
        try:
            return recognizer.load(*spec)
        except BaseException:
            self._ended = True  # nobody will have this host
            raise

    def _read_properties(self) -> None:
        self.default_batch_seconds = self._model.default_batch_seconds
        self.batch_overhead_seconds = self._model.batch_overhead_seconds
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
        while not self._ended:
            begun = self._step(begun)

    def _step(self, begun: _Begun | None) -> _Begun | None:
        """Begins with the next batch, if there is one, and ends the one before."""
        try:
            task = self._tasks.get(block=begun is None)
        except queue.Empty:
            task = None
        following = None
        if isinstance(task, _Request):
            following = self._begin(task, busy=begun is not None)
        if begun is not None:
            self._end(begun)
        if task is not None and not isinstance(task, _Request):
            task()
        return following

    def _begin(self, request: _Request, busy: bool) -> _Begun | None:
        started = time.monotonic()
        idle = 0.0 if busy else max(0.0, started - max(request.since, self._last_ended))
        try:
            encoded = self._model.encode(request.waveforms)
        except Exception as error:
            self._fail(request, error)
            return None
        return _Begun(request, encoded, started, idle)

    def _end(self, begun: _Begun) -> None:
        try:
            results = self._model.decode(begun.encoded)
        except Exception as error:
            self._fail(begun.request, error)
            return
        before, self._last_ended = self._last_ended, time.monotonic()
        seconds = self._last_ended - max(begun.started, before)
        begun.request.done.set_result(Pass(results, seconds, begun.idle_seconds))

    def _fail(self, request: _Request, error: Exception) -> None:
        self._last_ended = time.monotonic()
        if device_memory.is_exhausted(error):
            taken = [seconds_taken(waveform, self.sample_rate) for waveform in request.waveforms]
            padded = batching.padded_seconds(taken)
            self.most_batch_seconds = min(self.most_batch_seconds, padded / 2)
            device_memory.give_back()
        request.done.set_exception(error)


_hosts: dict[ModelSpec, ModelHost] = {}
_hosts_lock = threading.Lock()


def host(spec: ModelSpec) -> ModelHost:
    """The process's host of this model, loaded by the first caller while the others wait.

    Raises:
        ModelLoadError: the model cannot be loaded.
    """
    with _hosts_lock:
        if spec not in _hosts:
            _hosts[spec] = ModelHost(spec)
        return _hosts[spec]
