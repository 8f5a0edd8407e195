"""The one model of a worker process, and the one thread that drives it.

NeMo models are not thread-safe, and Beam runs as many DoFn instances in a process as it has
threads. So the model hangs on a process-wide strong reference, which no idle bundle processor takes
with it, and every call goes to one thread of its own, in which it was also loaded.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from beam_asr import batching, recognizer
from beam_asr.recognizer import Recognition, Recognizer
from beam_asr.storage import Storage


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
        seconds: that the model took.
        idle_seconds: that the model had nothing to do before, though it could have.
    """

    results: list[Recognition]
    seconds: float
    idle_seconds: float


class ModelHost:
    """A model and its thread."""

    def __init__(self, spec: ModelSpec):
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beam-asr-model")
        self._unreported_loads = 0
        self._lock = threading.Lock()
        loaded = self._thread.submit(recognizer.load, *spec)
        self._model: Recognizer = loaded.result()
        self._unreported_loads = 1
        self.sample_rate = self._model.sample_rate
        self.default_batch_seconds = self._model.default_batch_seconds
        self.batch_overhead_seconds = self._model.batch_overhead_seconds
        self.description = self._model.describe()
        self._last_ended = 0.0
        # What has been too much for the device's memory is not tried again in this process.
        self.most_batch_seconds = math.inf

    def submit(self, waveforms: Sequence[np.ndarray], since: float = math.inf) -> Future[Pass]:
        """Has a batch transcribed, after those that were submitted before.

        Args:
            since: from when on, by ``time.monotonic()``, the model counts as idle if it waits for
                this batch.
        """
        return self._thread.submit(self._timed, waveforms, since)

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Recognition]:
        """As ``Recognizer.transcribe``."""
        return self.submit(waveforms).result().results

    def take_loads(self) -> int:
        """How many loads have not been counted yet; each is told once, to one caller."""
        with self._lock:
            loads, self._unreported_loads = self._unreported_loads, 0
        return loads

    def _timed(self, waveforms: Sequence[np.ndarray], since: float) -> Pass:
        started = time.monotonic()
        idle = max(0.0, started - max(since, self._last_ended))
        try:
            results = self._model.transcribe(waveforms)
        except Exception as error:
            if is_out_of_memory(error):
                longest = max(len(waveform) for waveform in waveforms) / self.sample_rate
                padded = batching.padded_seconds([longest] * len(waveforms))
                self.most_batch_seconds = min(self.most_batch_seconds, padded / 2)
                _free_memory()
            raise
        finally:
            self._last_ended = time.monotonic()
        return Pass(results, self._last_ended - started, idle)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a batch was too much for the memory of its device."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On a CPU torch raises a RuntimeError of these words.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _free_memory() -> None:
    """Gives back what torch keeps for reuse, in pieces that may be too small now."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
