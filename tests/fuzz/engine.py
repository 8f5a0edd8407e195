"""What a fuzzing process does: mutate, run, keep what ends in a new way, note what may not be."""

from __future__ import annotations

import faulthandler
import hashlib
import mmap
import random
import resource
import struct
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import beam_asr
from tests.fuzz.mutations import LONGEST, WORDS, Mutator
from tests.fuzz.targets import HEADER

Target = Callable[[bytes], Hashable]

ADDRESS_SPACE = 6 * 2**30  # bytes; above it there is a MemoryError, or a crash
LARGE = 2**30  # bytes of memory that no input of `LONGEST` bytes may need


class Finding(NamedTuple):
    """An input that misbehaves.

    Attributes:
        signature: the kind and place; findings of one signature count as one.
        report: what happened.
        data: the input.
    """

    signature: str
    report: str
    data: bytes

    def save(self, folder: Path, target: str) -> None:
        """Writes the input and its report, unless there is a shorter input of this signature."""
        name = f"{target}-{hashlib.sha256(self.signature.encode()).hexdigest()[:12]}"
        file = folder / f"{name}.bin"
        if not file.exists() or file.stat().st_size > len(self.data):
            report = f"{self.signature}\n\n{self.report}\n"
            file.with_suffix(".txt").write_text(report, "utf-8")
            file.write_bytes(self.data)


def run_one(target: Target, data: bytes) -> Hashable | Finding:
    """How an input ends: as the target says, or as a finding."""
    before = _peak_memory()
    try:
        end = target(data)
    except Exception as error:
        return Finding(_signature(error), "".join(traceback.format_exception(error)), data)
    taken = _peak_memory() - before
    if taken > LARGE:
        report = f"an input of {len(data)} bytes took {taken / 2**20:.0f} MiB of memory"
        return Finding(f"memory of {data[HEADER : HEADER + 4]!r}", report, data)
    return end


class Explorer:
    """Runs seeds and their mutations, and learns which endings there are.

    Attributes:
        findings: the shortest of each signature.
    """

    def __init__(self, name: str, target: Target, seeds: Sequence[bytes], seed: int) -> None:
        self.findings: dict[str, Finding] = {}
        self._target = target
        self._seeds = list(seeds)
        self._corpus = list(seeds)
        self._mutator = Mutator(random.Random(seed), WORDS[name])
        self._ends: set[Hashable] = set()

    def mutations(self) -> Iterator[bytes]:
        """Inputs without end; half are made of a seed, half of what has ended in a new way."""
        rng = self._mutator.random
        while True:
            base = rng.choice(self._seeds if rng.random() < 0.5 else self._corpus)
            yield self._mutator.mutate(base, self._corpus)

    def run(self, data: bytes) -> Finding | None:
        """Runs an input, and gives what it has found, if that is new or shorter."""
        end = run_one(self._target, data)
        if isinstance(end, Finding):
            known = self.findings.get(end.signature)
            if known and len(known.data) <= len(end.data):
                return None
            self.findings[end.signature] = end
            return end
        if end not in self._ends:
            self._ends.add(end)
            self._corpus.append(data)
        return None


class Journal:
    """Which input is running, and how many have run, in a file that outlives a crash."""

    SIZES = struct.Struct("<QQ")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self.SIZES.size + HEADER + LONGEST))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    @property
    def runs(self) -> int:
        return self.SIZES.unpack_from(self._memory)[0]

    @property
    def data(self) -> bytes:
        size = self.SIZES.unpack_from(self._memory)[1]
        return self._memory[self.SIZES.size : self.SIZES.size + size]

    def begin(self, data: bytes) -> None:
        self._memory[self.SIZES.size : self.SIZES.size + len(data)] = data
        self.SIZES.pack_into(self._memory, 0, self.runs + 1, len(data))


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


class Watchdog:
    """Ends the process, with a report of where it was, if an input takes too long.

    Args:
        seconds: that an input may take.
        log: where the report goes.
    """

    def __init__(self, seconds: float, log: IO[str]) -> None:
        self._seconds = seconds
        self._log = log
        self._armed = float("-inf")

    def begin(self) -> None:
        now = time.monotonic()
        if now - self._armed > 1:  # starting its thread for each input would take as long as many
            self._armed = now
            faulthandler.dump_traceback_later(self._seconds + 1, exit=True, file=self._log)

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()


def _signature(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _is_ours(frame.filename)]
    last = (ours or frames)[-1]
    said = f": {error}" if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}{said[:80]}"


OURS = (Path(beam_asr.__file__).parent, Path(__file__).parent)


def _is_ours(file: str) -> bool:
    return any(Path(file).is_relative_to(folder) for folder in OURS)


def _peak_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
