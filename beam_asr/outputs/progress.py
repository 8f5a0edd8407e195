"""Stores how far the workers of a run are, for whoever watches the job.

    OUTPUT/_journal/progress/WORKER.json    what a worker process has done in this run

The files are for people: nothing is decided by them. A bundle that is retried counts twice.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from beam_asr.outputs.journal import PROGRESS, Journal
from beam_asr.records.events import (
    Done,
    Failed,
    Filtered,
    FoundInFolder,
    RowSplit,
    SegmentDone,
    SegmentFailed,
    Silent,
)
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_local, join

logger = logging.getLogger(__name__)

READING_THREADS = 16
WORKER_FILE = re.compile(r"[0-9a-f]{16}\.json")
LOCAL_SECONDS, REMOTE_SECONDS = 2.0, 10.0  # from one write of a worker to its next

EVENTS = 32  # between two looks at the clock
COUNTED = frozenset(
    [Done, Failed, Filtered, FoundInFolder, RowSplit, SegmentDone, SegmentFailed, Silent]
)

READING = "reading the inputs"
LOADING = "loading the model"
TRANSCRIBING = "transcribing"
STITCHING = "stitching long rows"
WRITING = "writing the results"


def interval_of(output: str) -> float:
    """Returns the seconds from one write of a worker to its next, or from one look to the next."""
    return LOCAL_SECONDS if is_local(output) else REMOTE_SECONDS


@dataclasses.dataclass
class Counts:
    """Counts what workers have done; ``+`` adds two.

    Attributes:
        rows: records that rows have ended as.
        failed: of them.
        earlier: of them, and rows that need no record: what an earlier run has done.
        further_channels: records of rows beyond one for each.
        long_rows: rows that were cut into segments.
        long_rows_ended: of them, those that have ended.
        segments: of long rows.
        segments_ended: of them.
        audio_seconds: that went to the model, and silence that skipped it.
        model_seconds: wall time of the forward passes and their decoding.
        wait_seconds: wall time in which the model had nothing to do.
    """

    rows: int = 0
    failed: int = 0
    earlier: int = 0
    further_channels: int = 0
    long_rows: int = 0
    long_rows_ended: int = 0
    segments: int = 0
    segments_ended: int = 0
    audio_seconds: float = 0.0
    model_seconds: float = 0.0
    wait_seconds: float = 0.0

    def add(self, event: object) -> None:
        """Counts an event of recognition."""
        if type(event) is Done:  # of almost every row
            self.rows += 1
            self.earlier += event.resumed
            return
        match event:
            case Failed() | Filtered():
                self.rows += 1
                self.failed += isinstance(event, Failed)
                self.earlier += event.resumed
            case SegmentDone() | SegmentFailed():
                self.segments_ended += 1
            case FoundInFolder():
                self.rows += 1
                self.earlier += 1
            case RowSplit(channels):
                self.further_channels += channels - 1
            case Silent(seconds):
                self.audio_seconds += seconds

    def __add__(self, other: Counts) -> Counts:
        sums = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Counts(**sums)


class Reporter:
    """Counts what this process does for a run, and stores it from time to time."""

    def __init__(self, journal: Journal):
        self._journal = journal
        self._seconds = interval_of(journal.output)
        self._name = f"{uuid.uuid4().hex[:16]}.json"
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # so that no older counts replace newer ones
        self._counts = Counts()
        self._models: dict[str, Mapping[str, str]] = {}
        self._started: float | None = None
        self._written = 0.0
        self._changed = False
        self._events = 0

    def add(self, event: object) -> None:
        """Counts an event of recognition (`Counts.add`)."""
        if type(event) not in COUNTED:
            return
        with self._lock:
            self._counts.add(event)
            self._changed = True
            self._events += 1
        if self._events % EVENTS == 0:
            self._write_in_time()

    def merge(self, counts: Counts) -> None:
        """Adds what was counted apart."""
        with self._lock:
            self._counts += counts
            self._changed = True
        self._write_in_time()

    def model_loaded(self, description: Mapping[str, str]) -> None:
        """Stores what a model is, once it is loaded."""
        with self._lock:
            if self._models.get(description["model"]) == description:
                return
            self._models[description["model"]] = dict(description)
            self._started = self._started or time.time()
            self._changed = True
        self.flush()

    def flush(self) -> None:
        """Stores what has been counted since the last time."""
        with self._writing:
            self._write()

    def _write(self) -> None:
        with self._lock:
            if not self._changed:
                return
            self._written, self._changed = time.monotonic(), False
            content = {
                "run": self._journal.run,
                "started": self._started,
                "models": list(self._models.values()),
                **vars(self._counts),
            }
        try:
            self._journal.write_progress(self._name, json.dumps(content).encode() + b"\n")
        except Exception as error:  # the job does not depend on it
            logger.debug("the progress could not be stored: %r", error)

    def _write_in_time(self) -> None:
        if time.monotonic() - self._written < self._seconds:
            return
        if self._writing.acquire(blocking=False):  # else another thread is just writing
            try:
                self._write()
            finally:
                self._writing.release()


_reporters: dict[str, Reporter] = {}
_reporters_lock = threading.Lock()


def reporter_of(journal: Journal) -> Reporter:
    """Returns the process's reporter for the run of a journal."""
    found = _reporters.get(journal.run)
    if found is None:
        with _reporters_lock:
            found = _reporters.setdefault(journal.run, Reporter(journal))
    return found


@dataclasses.dataclass(frozen=True)
class Progress:
    """Describes how far a run is.

    Attributes:
        has_begun: whether all inputs have been read.
        rows: the rows of the job; None if that is not known before their tars are read.
        rows_invalid: of them, those that failed before any audio was read.
        counts: what all workers have done.
        models: descriptions of the models that are loaded.
        started: when the first model was loaded, in seconds since 1970; None before that.
    """

    has_started: bool = False
    rows: int | None = None
    rows_invalid: int = 0
    counts: Counts = dataclasses.field(default_factory=Counts)
    models: tuple[Mapping[str, str], ...] = ()
    started: float | None = None

    @classmethod
    def read(cls, storage: Storage, output: str) -> Progress:
        """Reads how far the run is that writes into an output folder, or has last done so."""
        journal = Journal(output, storage)
        run = journal.stored()
        if not run:
            return cls()
        folder = join(journal.folder, PROGRESS)
        names = filter(WORKER_FILE.fullmatch, storage.list_names(folder))  # not those half written
        files = [join(folder, name) for name in names]
        with ThreadPoolExecutor(READING_THREADS) as pool:
            read = pool.map(lambda file: _read(storage, file), files)
            workers = [worker for worker in read if worker.get("run") == run.get("run")]
        fields = {field.name for field in dataclasses.fields(Counts)}
        counts = [Counts(**{name: worker[name] for name in fields}) for worker in workers]
        models = {model["model"]: model for worker in workers for model in worker["models"]}
        return cls(
            has_started=True,
            rows=None if run.get("tars") else run.get("rows"),
            rows_invalid=run.get("rows_invalid", 0),
            counts=sum(counts, Counts()),
            models=tuple(models.values()),
            started=min((w["started"] for w in workers if w["started"]), default=None),
        )

    @property
    def rows_ended(self) -> int:
        """Returns the number of records that rows have ended as."""
        return self.counts.rows + self.rows_invalid

    @property
    def failed(self) -> int:
        """Returns the number of rows that have failed."""
        return self.counts.failed + self.rows_invalid

    @property
    def records(self) -> int | None:
        """Returns the number of records that all rows will end as, as far as it is known."""
        return None if self.rows is None else self.rows + self.counts.further_channels

    @property
    def phase(self) -> str:
        """Returns what the run is doing."""
        counts = self.counts
        if not self.has_started:
            return READING
        if self.records is not None and self.rows_ended >= self.records:
            return WRITING
        if self.started is None:
            return LOADING
        waiting = counts.long_rows - counts.long_rows_ended
        others_ended = self.records is not None and self.rows_ended + waiting >= self.records
        if waiting and others_ended and counts.segments_ended >= counts.segments:
            return STITCHING
        return TRANSCRIBING

    @property
    def fraction(self) -> float | None:
        """Returns the part of the work that is done; None if it is not known.

        A row counts as one, a long row as many as it has segments.
        """
        if self.records is None:
            return None
        total = self.records - self.counts.long_rows + self.counts.segments
        return min(1.0, self._ended / total) if total else 1.0

    def seconds_left(self, now: float) -> float | None:
        """Returns how long the transcription will still take, at its pace so far.

        Args:
            now: seconds since 1970.
        """
        done_here = self._ended - self.counts.earlier - self.rows_invalid
        fraction = self.fraction
        if fraction is None or self.started is None or done_here <= 0:
            return None
        left = self._ended / fraction - self._ended
        return left * max(0.0, now - self.started) / done_here

    def rtfx(self, now: float) -> float | None:
        """Returns seconds of audio a second of wall time since the first model was loaded."""
        if self.started is None or now <= self.started or not self.counts.audio_seconds:
            return None
        return self.counts.audio_seconds / (now - self.started)

    @property
    def wait_share(self) -> float | None:
        """Returns the part of their time in which the models had nothing to do."""
        counts = self.counts
        total = counts.model_seconds + counts.wait_seconds
        return counts.wait_seconds / total if total else None

    @property
    def _ended(self) -> int:
        return self.rows_ended - self.counts.long_rows_ended + self.counts.segments_ended


def _read(storage: Storage, file: str) -> dict[str, Any]:
    try:
        return dict(json.loads(storage.read(file)))
    except (FileNotFoundError, ValueError):  # the run has just ended, or started again
        return {}
