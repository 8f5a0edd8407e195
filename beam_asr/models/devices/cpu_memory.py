"""Predicts the memory of a forward pass on a CPU, and refuses a pass that would not fit.

A GPU that has too little memory raises an exception, and the clip fails alone. Linux promises more
memory than there is, and kills the process that uses it, at the same clip each time. So a long pass
is refused beforehand, by an exception, if it would not fit.

The prediction comes from passes of three short clips of noise. A pass is a sequence of operations,
the same for each length; the memory that is alive after one of them is a polynomial of the length:
linear for convolutions, quadratic for full attention. The three clips determine each of these
polynomials, and a pass takes as much as the highest of them at its length. (The peaks of short
passes would not suffice: there convolutions dominate, and attention cannot be seen.)
"""

from __future__ import annotations

import logging
import math
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from beam_asr.models.devices.batch_size import MEMORY_SHARE

logger = logging.getLogger(__name__)

# Padded seconds up to which a pass is not checked; ordinary batches are far below.
UNCHECKED_SECONDS = 120.0
# Multiples of 256 frames after eightfold subsampling, so that rounding a length up, as in local
# attention, adds the same to each of them and does not look like growth.
PROBE_SECONDS = (20.48, 40.96, 61.44)

V1_CACHE = ("total_active_file", "total_inactive_file")
V2_CACHE = ("active_file", "inactive_file")


class CpuMemoryGuard:
    """Refuses the passes of one model for which there is too little memory.

    Args:
        encode_noise: runs a pass of one clip of noise, whose seconds it is given.
    """

    def __init__(self, encode_noise: Callable[[float], object]):
        self._encode_noise = encode_noise
        self._memory_model: MemoryModel | None = None

    def check(self, clips: int, seconds: float) -> None:
        """Checks that a pass fits.

        The first long one costs three short passes, which measure the model.

        Args:
            clips: number of clips in the pass.
            seconds: of the longest of them.

        Raises:
            MemoryError: it would take more than is available.
        """
        if clips * seconds <= UNCHECKED_SECONDS or math.isinf(free := available()):
            return
        self._memory_model = self._memory_model or self._measure()
        needed = clips * self._memory_model.bytes_for(seconds)
        if needed > MEMORY_SHARE * free:
            raise MemoryError(
                f"a forward pass of {_clips(clips, seconds)} would take about {_gib(needed)} of "
                f"memory, and may take {MEMORY_SHARE:.0%} of the {_gib(free)} that can be had. Cut "
                "the audio into shorter rows (offset, duration), or take a machine with more "
                "memory or a model with local attention"
            )

    def _measure(self) -> MemoryModel:
        try:
            return MemoryModel.measure(self._encode_noise)
        except Exception as error:  # then it may still transcribe
            logger.warning(
                "The memory that long clips take could not be measured. If it is too much, the "
                "system may kill this process: %s: %s",
                type(error).__name__,
                error,
            )
            return MemoryModel(PROBE_SECONDS, [[0]] * len(PROBE_SECONDS))


class MemoryModel:
    """Models how the memory of a forward pass of one clip grows with its length.

    Args:
        seconds: three lengths of clips, equally spaced.
        traces: for each length, the bytes that are alive after each operation of its pass.
    """

    def __init__(self, seconds: Sequence[float], traces: Sequence[Sequence[int]]):
        if len(set(map(len, traces))) > 1:  # not the same operations: use the peaks alone
            traces = [[max(trace)] for trace in traces]
        fitted = np.polyfit(seconds, np.array(traces, float), 2)
        # Negative coefficients come from rounding, and must not dominate for long clips.
        self._coefficients = np.maximum(fitted, 0.0)

    @classmethod
    def measure(cls, encode_noise: Callable[[float], object]) -> MemoryModel:
        """Measures a model by passes of short clips."""
        encode_noise(max(PROBE_SECONDS))  # allocates what is made once, for the longest clip so far
        traces = [live_bytes(partial(encode_noise, seconds)) for seconds in PROBE_SECONDS]
        memory_model = cls(PROBE_SECONDS, traces)
        logger.info("A pass takes %s for 10 minutes of audio", _gib(memory_model.bytes_for(600.0)))
        return memory_model

    def bytes_for(self, seconds: float) -> float:
        """Returns the peak bytes of a pass of one clip of this length."""
        return float(np.polyval(self._coefficients, seconds).max())


def live_bytes(function: Callable[[], object]) -> list[int]:
    """Returns the bytes of the live tensors that a function has made, after each operation.

    Only this thread counts, and no tensor that existed before.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    trace: list[int] = [0]
    alive: dict[int, int] = {}  # bytes by the address of a tensor's storage

    class Trace(TorchDispatchMode):
        def __torch_dispatch__(
            self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            with self:  # a composite operation is seen as its parts
                result = operation.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            result = operation(*args, **kwargs)
            known = {address for address, _ in storages((args, kwargs))}
            for address, storage in storages(result):
                if address not in known and address not in alive:
                    alive[address] = storage.nbytes()
                    weakref.finalize(storage, alive.pop, address).atexit = False
            trace.append(sum(alive.values()))
            return result

    def storages(values: Any) -> Iterator[tuple[int, Any]]:
        for value in tree_leaves(values):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                yield storage._cdata, storage

    with Trace():  # type: ignore[no-untyped-call]
        function()
    return trace


def available(root: Path = Path("/")) -> float:
    """Returns the bytes that this process can still allocate; infinite where that is unknown.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    memory = _fields(root / "proc/meminfo").get("MemAvailable:", math.inf)
    return max(0.0, min([1024 * memory, *_group_bytes(root)]))


def _group_bytes(root: Path) -> Iterator[float]:
    """Yields the bytes that remain in each control group of this process, v1 and v2."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, limit, usage, cache = "sys/fs/cgroup", "memory.max", "memory.current", V2_CACHE
        elif "memory" in controllers.split(","):
            top, cache = "sys/fs/cgroup/memory", V1_CACHE
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container the path may be the host's, and the group is then the top that is seen.
        inner = Path(group.strip("/"))
        for folder in (root / top / part for part in (inner, *inner.parents)):
            maximum, used = _number(folder / limit), _number(folder / usage)
            if maximum is not None and used is not None:
                statistics = _fields(folder / "memory.stat")
                # Cached pages of files count as used, and are freed when memory is needed.
                yield maximum - used + sum(statistics.get(name, 0.0) for name in cache)


def _fields(path: Path) -> dict[str, float]:
    """Returns the numbers of a file that has a name and a number on each line."""
    fields = re.findall(r"^(\S+)\s+(\d+)", _read(path), re.MULTILINE)
    return {name: float(number) for name, number in fields}


def _number(path: Path) -> float | None:
    text = _read(path).strip()
    return float(text) if text.isdigit() else None  # "max" is no limit


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _clips(clips: int, seconds: float) -> str:
    length = f"{seconds:.0f} s ({seconds / 3600:.1f} h)" if seconds >= 3600 else f"{seconds:.0f} s"
    return f"a clip of {length}" if clips == 1 else f"{clips} clips of up to {length}"


def _gib(number: float) -> str:
    return f"{number / 2**30:,.1f} GiB"
