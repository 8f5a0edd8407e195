"""The models of a worker process: each is loaded once, and stays while there is memory for it.

Where one more model would leave too little of its device's memory, the one that was used least
recently goes first. One that somebody uses stays.
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

# Of the memory that can be had, as much may be taken by one more model; the rest is for batches.
MODEL_SHARE = 0.5
# What a model takes of memory over what its file takes of disk, where weights are stored by half.
FILE_GROWTH = 2.0
# Seconds that a load waits for room; bundles take minutes, and then the memory may do all the same.
TIMEOUT_SECONDS = 900.0


class ModelPool:
    """Hosts of models, lent to those who use them. Any thread may call it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._loading = threading.Lock()
        self._hosts: dict[ModelSpec, ModelHost] = {}  # the least recently used first
        self._users: dict[ModelSpec, int] = {}
        self._of_thread = threading.local()
        self._known_bytes: dict[ModelSpec, float] = {}
        self._evictions = 0

    def lease(self, spec: ModelSpec) -> ModelHost:
        """The host of a model, loaded by the first caller while the others wait.

        Raises:
            ModelLoadError: the model cannot be loaded.
        """
        host = self._take(spec)
        if host is None:
            with self._loading:  # one at a time: the next one sees what the last one left
                host = self._take(spec) or self._load(spec)
        self._of_thread.leases = self._own_leases + 1
        return host

    def release(self, spec: ModelSpec) -> None:
        """Gives back what was leased, by the same thread."""
        with self._changed:
            self._users[spec] -= 1
            self._changed.notify_all()
        self._of_thread.leases = self._own_leases - 1

    def take_evictions(self) -> int:
        """How many have not been counted yet; each is told once, to one caller."""
        with self._changed:
            evictions, self._evictions = self._evictions, 0
        return evictions

    @property
    def _own_leases(self) -> int:
        return getattr(self._of_thread, "leases", 0)

    def _take(self, spec: ModelSpec) -> ModelHost | None:
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
        """Lets models go until there is room for one, as far as any are idle or become so."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while needed > MODEL_SHARE * self._free():
            with self._changed:
                while not (idle := self._idle()):
                    left = deadline - time.monotonic()
                    # Who waits with a model in hand may be whom another one waits for.
                    if not self._hosts or self._own_leases or left <= 0:
                        return
                    self._changed.wait(left)
                host = self._remove(idle[0])
            host.close()

    def _evict_all(self) -> bool:
        """Lets all idle models go; whether there were any."""
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
        """What a model will take: what it took before, or by its file, or as the largest here."""
        if spec in self._known_bytes:
            return self._known_bytes[spec]
        if files.is_file_name(spec.model_name):
            path = files.local_copy(spec.storage, spec.model_name)
            return FILE_GROWTH * os.path.getsize(path)
        return max(self._known_bytes.values(), default=0.0)


def free_bytes(device: str) -> float:
    """Bytes of a device's memory that can be had."""
    if device.startswith("cuda"):
        import torch

        return gpu_memory.free(torch.device(device))
    return cpu_memory.available()


def _is_exhausted(error: BaseException | None) -> bool:
    return any(map(gpu_memory.is_exhausted, causes(error)))


pool = ModelPool()


def host(spec: ModelSpec) -> ModelHost:
    """A host that stays for as long as the process lives. Raises ModelLoadError."""
    return pool.lease(spec)
