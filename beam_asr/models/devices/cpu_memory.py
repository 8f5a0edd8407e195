"""The memory that a forward pass takes on a CPU, told before it is begun.

A GPU that has too little memory raises an exception, and the clip fails alone. Linux promises more
memory than there is, and kills the process that comes to use it, at the same clip each time. So a
long pass is refused beforehand, by an exception, if it would not fit.

What it would take is told from passes of three short clips of noise. A pass is a sequence of
operations, the same for each length; what is alive in memory after one of them is a polynomial of
the length: linear for convolutions, quadratic for full attention. The three clips give each
of these polynomials, and a pass takes as much as the highest of them at its length. (The peaks of
short passes alone would not tell: there convolutions take the most, and attention cannot be seen.)
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

# Padded seconds up to which a pass is not checked: what ordinary batches stay below by far.
UNCHECKED_SECONDS = 120.0
# Multiples of 256 frames after eightfold subsampling, so that whatever rounds a length up, as local
# attention does, adds as much to each of them and looks like no growth.
PROBE_SECONDS = (20.48, 40.96, 61.44)

V1_CACHE = ("total_active_file", "total_inactive_file")
V2_CACHE = ("active_file", "inactive_file")


class CpuMemoryGuard:
    """Refuses the passes of one model for which there is too little memory.

    Args:
        encode_noise: makes a pass of one clip of so many seconds.
    """

    def __init__(self, encode_noise: Callable[[float], object]):
        self._encode_noise = encode_noise
        self._growth: MemoryModel | None = None

    def check(self, clips: int, seconds: float) -> None:
        """Lets a pass go on that fits.

        The first one that is long costs three short passes, by which the model is measured.

        Args:
            clips: in the pass.
            seconds: the longest of them.

        Raises:
            MemoryError: it would take more than can be had.
        """
        if clips * seconds <= UNCHECKED_SECONDS or math.isinf(free := available()):
            return
        self._growth = self._growth or self._measured()
        needed = clips * self._growth.bytes_for(seconds)
        if needed > MEMORY_SHARE * free:
            raise MemoryError(
                f"a forward pass of {_clips(clips, seconds)} would take about {_gib(needed)} of "
                f"memory, and may take {MEMORY_SHARE:.0%} of the {_gib(free)} that can be had. Cut "
                "the audio into shorter rows (offset, duration), or take a machine with more "
                "memory or a model with local attention"
            )

    def _measured(self) -> MemoryModel:
        try:
            return MemoryModel.measured(self._encode_noise)
        except Exception as error:  # then it may still do what it is asked for
            logger.warning(
                "What memory long clips take cannot be told, and if it is too much the system may "
                "kill this process: %s: %s",
                type(error).__name__,
                error,
            )
            return MemoryModel(PROBE_SECONDS, [[0]] * len(PROBE_SECONDS))


class MemoryModel:
    """How the memory of a forward pass of one clip grows with its length.

    Args:
        seconds: three lengths of clips, equally spaced.
        traces: for each of them the bytes that are alive after each operation of its pass.
    """

    def __init__(self, seconds: Sequence[float], traces: Sequence[Sequence[int]]):
        if len(set(map(len, traces))) > 1:  # not step by step the same: then by the peaks alone
            traces = [[max(trace)] for trace in traces]
        fitted = np.polyfit(seconds, np.array(traces, float), 2)
        # What would shrink with the length is rounding, and must not win over long clips.
        self._coefficients = np.maximum(fitted, 0.0)

    @classmethod
    def measured(cls, encode_noise: Callable[[float], object]) -> MemoryModel:
        """That of a model, by passes of short clips."""
        encode_noise(max(PROBE_SECONDS))  # what is made once, for the longest clip so far
        traces = [live_bytes(partial(encode_noise, seconds)) for seconds in PROBE_SECONDS]
        growth = cls(PROBE_SECONDS, traces)
        logger.info("A pass takes %s for 10 minutes of audio", _gib(growth.bytes_for(600.0)))
        return growth

    def bytes_for(self, seconds: float) -> float:
        """The most bytes that a pass of so long a clip takes at one time."""
        return float(np.polyval(self._coefficients, seconds).max())


def live_bytes(function: Callable[[], object]) -> list[int]:
    """The bytes of the tensors that a function has made and still holds, after each operation.

    Only this thread counts, and nothing that was there before.
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
            with self:  # an operation that is made of others is seen as these
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

    with Trace():
        function()
    return trace


def available(root: Path = Path("/")) -> float:
    """Bytes that this process can still take without being killed; infinite where none can tell.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    memory = _fields(root / "proc/meminfo").get("MemAvailable:", math.inf)
    return max(0.0, min([1024 * memory, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[float]:
    """Bytes that each control group leaves which this process is in, of both versions."""
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
            most, taken = _number(folder / limit), _number(folder / usage)
            if most is not None and taken is not None:
                statistics = _fields(folder / "memory.stat")
                # Cached pages of files count as taken, and are given up when memory is wanted.
                yield most - taken + sum(statistics.get(name, 0.0) for name in cache)


def _fields(path: Path) -> dict[str, float]:
    """The numbers of a file that has a name and a number on each line."""
    found = re.findall(r"^(\S+)\s+(\d+)", _read(path), re.MULTILINE)
    return {name: float(number) for name, number in found}


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
