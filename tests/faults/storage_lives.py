"""Output folders on a faulty storage: runs that fail, are gone on with, and must end right."""

from __future__ import annotations

import contextlib
import io
import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import soundfile

from beam_asr import process
from beam_asr.cli import main
from beam_asr.outputs import folder, folder_lock
from beam_asr.records.outcome import Recognition
from beam_asr.storage import retry
from beam_asr.storage.storage import Storage
from tests.faults.storage_faults import Fault, Faults, random_faults
from tests.support import naming_model

CLIPS = 8
RESUMES = 3
CLIENTS = ("gcsfs.retry", "gcsfs.core", "s3fs.core", "aiobotocore.endpoint")
FAILED_ROW_REMEDY = "--append"


class HearingRecognizer(naming_model.NamingRecognizer):
    """Recognizes its own name, and each sample."""

    def encode(self, waveforms: list[np.ndarray], _prompt: Any) -> list[str]:
        return [recognized(self.name, waveform) for waveform in waveforms]

    def decode(self, encoded: list[str]) -> list[Recognition]:
        return [Recognition(text) for text in encoded]


def recognized(name: str, waveform: np.ndarray) -> str:
    return f"{name} {zlib.crc32(np.ascontiguousarray(waveform, np.float32).tobytes()):08x}"


class _Asyncio:
    """asyncio, for a client's library, without its waits between attempts."""

    def __init__(self, module: Any):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    async def sleep(self, _seconds: float) -> None:
        await self._module.sleep(0.002)


class _Launches:
    """Has each run look like a process of its own, which ends with it."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.number = 0
        start_of = folder_lock._start_of
        own = start_of(process.os.getpid())

        def start(pid: int) -> str:
            start = start_of(pid)
            return f"{start}-{self.number}" if start == own else start

        patch.setattr(folder_lock, "_start_of", start)

    def next(self) -> None:
        self.number += 1
        with process._lock:
            process._savers.clear()


@contextlib.contextmanager
def quick_jobs() -> Iterator[_Launches]:
    """Small chunks, a free model, and hardly any wait between attempts."""
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        naming_model.install(patch, HearingRecognizer)
        patch.setattr(retry, "FIRST_WAIT_SECONDS", 0.002)
        patch.setattr(retry, "MAX_WAIT_SECONDS", 0.01)
        for name in CLIENTS:
            with contextlib.suppress(ImportError):
                module = importlib.import_module(name)
                patch.setattr(module, "asyncio", _Asyncio(module.asyncio))
        with contextlib.suppress(ImportError):
            from azure.storage.blob._shared import policies_async

            async def wait(_self: Any, _settings: Any, transport: Any) -> None:
                await transport.sleep(0.002)

            patch.setattr(policies_async.AsyncStorageRetryPolicy, "sleep", wait)
        yield _Launches(patch)


class Broken(AssertionError):
    """What was promised did not hold."""


@dataclass
class Life:
    """An output folder from its first run on.

    Attributes:
        place: a folder for all of it, on the storage.
        kinds: of faults that the storage has.
        requests: of a run, roughly; the faults come at these.
        struck: the faults that have struck in it so far.
    """

    storage: Storage
    place: str
    faults: Faults
    kinds: tuple[str, ...]
    chance: random.Random
    launches: _Launches
    requests: int
    struck: list[Fault] = field(default_factory=list)
    resumes: Counter[int] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    said: str = ""

    def live(self) -> None:
        """Has a first run, one that appends, and maybe one that overwrites with another model."""
        self.samples = self._write_clips()
        self.expected: tuple[str, list[int]] | None = None
        first = self.chance.sample(range(CLIPS), 5)
        more = [n for n in range(CLIPS) if n not in first]
        self._finish("org/one", first, "")
        self._finish("org/one", [*first, *more], "--append")
        if self.chance.random() < 0.3:
            self._finish("org/two", [*more, first[0]], "--overwrite")

    def _write_clips(self) -> list[np.ndarray]:
        noise = np.random.default_rng(CLIPS)
        samples = []
        for n in range(CLIPS):
            content = io.BytesIO()
            written = noise.uniform(-0.5, 0.5, naming_model.RATE).astype(np.float32)
            soundfile.write(content, written, naming_model.RATE, format="WAV", subtype="PCM_16")
            content.seek(0)
            samples.append(soundfile.read(content, dtype="float32")[0])
            self.storage.write(f"{self.place}/{n}.wav", [content.getvalue()])
        return samples

    def _finish(self, model: str, rows: list[int], mode: str) -> None:
        """Runs the job with faults, and without until it has done its work."""
        lines = [
            json.dumps({"audio_filepath": f"{n}.wav", "duration": 1.0, "n": n}) + "\n" for n in rows
        ]
        manifest = f"{self.place}/{len(self.story)}.jsonl"
        self.storage.write(manifest, [line.encode() for line in lines])
        wanted = (model, rows)
        status, struck = self._run(manifest, model, mode, self._faults(self.requests))
        if status and self.chance.random() < 0.4:  # the run that goes on meets faults too
            again = self._mode_after(mode)
            status, struck = self._run(manifest, model, again, self._faults(self.requests // 2))
        self._judge(status, wanted, struck)
        for resumes in range(RESUMES + 1):
            if status == 0 and not self._failed():
                self.expected = wanted
                self.resumes[resumes] += 1
                return
            if resumes < RESUMES:
                again = FAILED_ROW_REMEDY if status == 0 else self._mode_after(mode)
                status, _ = self._run(manifest, model, again, [])
                self._judge(status, wanted, [])
        raise Broken(f"not done after {RESUMES} resumes")

    def _faults(self, requests: int) -> list[Fault]:
        return random_faults(self.chance, self.kinds, requests)

    def _mode_after(self, mode: str) -> str:
        if mode == "--append":
            return mode
        if mode == "--overwrite" and folder.RUN not in self._names("out/_journal"):
            return mode  # it has changed nothing yet
        return "--resume"

    def _run(
        self, manifest: str, model: str, mode: str, planned: list[Fault]
    ) -> tuple[int, list[Fault]]:
        """Runs the job; gives its status and the faults that struck."""
        self.launches.next()
        options = {} if "://" not in self.place else self.storage.options
        flags = [
            f"--input={manifest}", f"--output={self.place}/out", f"--model_name={model}",
            *([mode] if mode else []),
            f"--storage_options={json.dumps({k: dict(v) for k, v in options.items()})}",
        ]  # fmt: skip
        said = io.StringIO()
        self.faults.begin(planned)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                status = main.main(["transcribe", *flags])
        finally:
            struck = self.faults.end()
            self.struck += struck
            self.said = said.getvalue()
        self.story.append(f"{mode or 'first'} of {self.faults.requests} requests: {struck}")
        self.story.append(f"  status {status}: {self.said.strip()[-3000:]}")
        return status, struck

    def _judge(self, status: int, wanted: tuple[str, list[int]], struck: list[Fault]) -> None:
        """Checks what the folder says of itself."""
        finished = folder.is_finished(self.storage, f"{self.place}/out")
        if status == 0 and not finished:
            raise Broken("status 0 of a folder that is not finished")
        if finished and status:  # as before the run, or as after it
            allowed = [each for each in (self.expected, wanted) if each is not None]
            if not any(self._is(each) for each in allowed):
                raise Broken("a folder that is finished has other records than either run's")
        if status == 0:
            if not self._is(wanted):
                raise Broken(f"status 0, and the records are {self._records()}")
            if self._failed() and not any(fault.may_fail_rows for fault in struck):
                raise Broken(f"rows failed: {self._lines('failures')}")
            if left := [name for name in self._names("out") if name.endswith(".part")]:
                raise Broken(f"left over: {left}")
            if "_journal" in self._names("out"):
                raise Broken("status 0, and the journal is still there")

    def _is(self, wanted: tuple[str, list[int]]) -> bool:
        """Tells whether each row has one record, and each transcript the right text."""
        model, rows = wanted
        right = {n: recognized(model, self.samples[n]) for n in rows}
        transcripts, failed = self._lines("transcripts"), self._lines("failures")
        texts = {record["n"]: record["pred_text"] for record in transcripts}
        once = Counter(record["n"] for record in [*transcripts, *failed]) == Counter(rows)
        summary = json.loads(self.storage.read(f"{self.place}/out/summary.json"))
        counts = [summary[name] for name in ("rows_in", "transcribed", "failed")]
        return (
            once
            and texts.items() <= right.items()
            and counts == [len(rows), len(transcripts), len(failed)]
        )

    def _failed(self) -> list[dict[str, Any]]:
        return self._lines("failures")

    def _records(self) -> Any:
        return self._lines("transcripts"), self._lines("failures"), self._names("out")

    def _names(self, name: str) -> list[str]:
        return self.storage.list_names(f"{self.place}/{name}")

    def _lines(self, kind: str) -> list[dict[str, Any]]:
        return [
            json.loads(line)
            for name in self._names("out")
            if name.startswith(kind)
            for line in self.storage.read(f"{self.place}/out/{name}").splitlines()
        ]


def live_until(
    storage: Storage,
    place: str,
    faults: Faults,
    kinds: tuple[str, ...],
    requests: int,
    number: int,
    seed: int,
) -> tuple[list[Fault], Counter[int]]:
    """Has folders live until so many faults have struck; gives these, and the resumes needed.

    Raises:
        Broken: with the story of the folder, and the seed by which it comes again.
    """
    struck: list[Fault] = []
    resumes: Counter[int] = Counter()
    with quick_jobs() as launches:
        while len(struck) < number:
            chance = random.Random(seed)
            life = Life(storage, f"{place}/{seed}", faults, kinds, chance, launches, requests)
            try:
                life.live()
            except BaseException as error:
                story = "\n".join(life.story)
                raise Broken(f"seed {seed} on {place}: {error}\n{story}") from error
            struck += life.struck
            resumes += life.resumes
            seed += 1
    return struck, resumes
