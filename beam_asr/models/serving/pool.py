"""Loads each model of a worker process once, and evicts idle ones when memory is short.

Where one more model would leave too little of its device's memory, the model that was used least
recently is evicted first. A model in use stays.
"""

from __future__ import annotations

import math
import os
import threading
import time

from beam_asr.errors import causes
from beam_asr.models import files
from beam_asr.models.devices import cpu_memory, gpu_memory
from beam_asr.models.engine import ModelSpec
from beam_asr.models.serving.host import ModelHost

# Share of the free memory that one more model may take; the rest is for batches.
MODEL_SHARE = 0.5
# Ratio of a model's memory to its file's size, where weights are stored in half precision.
FILE_GROWTH = 2.0
# Seconds that a load waits for memory; bundles take minutes, and the memory may suffice after all.
TIMEOUT_SECONDS = 900.0


class ModelPool:
    """Leases hosts of models. Any thread may call it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._loading = threading.Lock()
        self._hosts: dict[ModelSpec, ModelHost] = {}  # the least recently used first
        self._users: dict[ModelSpec, int] = {}
        self._thread_state = threading.local()
        self._known_bytes: dict[ModelSpec, float] = {}
        self._evictions = 0

    def lease(self, spec: ModelSpec) -> ModelHost:
        """Returns the host of a model, loaded by the first caller while the others wait.

        Raises:
            ModelLoadError: the model cannot be loaded.
        """
        host = self._lease_loaded(spec)
        if host is None:
            with self._loading:  # one at a time: each sees the memory that the one before left
                host = self._lease_loaded(spec) or self._load(spec)
        self._thread_state.leases = self._thread_leases + 1
        return host

    def release(self, spec: ModelSpec) -> None:
        """Ends a lease, in the thread that took it."""
        with self._changed:
            self._users[spec] -= 1
            self._changed.notify_all()
        self._thread_state.leases = self._thread_leases - 1

    def take_evictions(self) -> int:
        """Returns the number of evictions since the last call, and resets it."""
        with self._changed:
            evictions, self._evictions = self._evictions, 0
        return evictions

    @property
    def _thread_leases(self) -> int:
        return getattr(self._thread_state, "leases", 0)

    def _lease_loaded(self, spec: ModelSpec) -> ModelHost | None:
        with self._changed:
            if spec not in self._hosts:
                return None
            host = self._hosts[spec] = self._hosts.pop(spec)
            self._users[spec] = self._users.get(spec, 0) + 1
            return host

    def _load(self, spec: ModelSpec) -> ModelHost:
        self._make_room(self._expected_bytes(spec))
        try:
            host = ModelHost(spec)
        except Exception as error:
            if not (_is_exhausted(error) and self._evict_all()):
                raise
            host = ModelHost(spec)
        with self._changed:
            self._hosts[spec] = host
            self._users[spec] = 1
            self._known_bytes[spec] = host.weight_bytes
        return host

    def _make_room(self, needed: float) -> None:
        """Evicts models until there is room for one, as far as any are idle or become idle."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while needed > MODEL_SHARE * self._free():
            with self._changed:
                while not (idle := self._idle()):
                    remaining = deadline - time.monotonic()
                    # A thread that waits while it has a lease could deadlock with another.
                    if not self._hosts or self._thread_leases or remaining <= 0:
                        return
                    self._changed.wait(remaining)
                host = self._remove(idle[0])
            host.close()

    def _evict_all(self) -> bool:
        """Evicts all idle models; returns whether there were any."""
        with self._changed:
            hosts = [self._remove(spec) for spec in self._idle()]
        for host in hosts:
            host.close()
        return bool(hosts)

    def _idle(self) -> list[ModelSpec]:
        return [spec for spec in self._hosts if not self._users[spec]]

    def _remove(self, spec: ModelSpec) -> ModelHost:
        self._evictions += 1
        return self._hosts.pop(spec)

    def _free(self) -> float:
        with self._changed:
            hosts = list(self._hosts.values())
        return free_bytes(hosts[-1].description.get("device", "cpu")) if hosts else math.inf

    def _expected_bytes(self, spec: ModelSpec) -> float:
        """Estimates a model's bytes: by its last load, its file, or the largest model here."""
        if spec in self._known_bytes:
            return self._known_bytes[spec]
        if files.is_file_name(spec.model_name):
            path = files.local_copy(spec.storage, spec.model_name)
            return FILE_GROWTH * os.path.getsize(path)
        return max(self._known_bytes.values(), default=0.0)


def free_bytes(device: str) -> float:
    """Returns the bytes of a device's memory that can be allocated."""
    if device.startswith("cuda"):
        import torch

        return gpu_memory.free(torch.device(device))
    return cpu_memory.available()


def _is_exhausted(error: BaseException | None) -> bool:
    return any(map(gpu_memory.is_exhausted, causes(error)))


pool = ModelPool()


def host(spec: ModelSpec) -> ModelHost:
    """Returns a host that stays as long as the process. Raises ModelLoadError."""
    return pool.lease(spec)
