"""What has been done, kept while a job runs, so that another run can go on with it.

    OUTPUT/_journal/run.json              what makes two runs the same: model, options, rows
    OUTPUT/_journal/lock.json             who writes into the folder (`folder_lock`)
    OUTPUT/_journal/windows/NAME.jsonl    what became of the rows of a window

A window's file is written, whole or not at all, as soon as its last row is done. Its name
follows from the rows alone, so a bundle that is tried again writes the same file.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from beam_asr import process
from beam_asr.errors import FolderTakenError, ResumeError
from beam_asr.outputs.folder import JOURNAL, LOCK, RUN
from beam_asr.outputs.folder_lock import FolderLock
from beam_asr.records import row_ids
from beam_asr.records.outcome import Outcome
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

logger = logging.getLogger(__name__)

CHUNKS = "windows"
WRITING_THREADS = 8
HEARTBEAT_SECONDS = 30.0
UNKNOWN = frozenset(["model_content"])  # None where it could not be found out


@dataclasses.dataclass(frozen=True)
class Journal:
    """The journal of one run in an output folder.

    Attributes:
        output: the output folder.
        storage: how its storage is opened.
        resume: whether what is there is gone on with.
        retry_failures: whether rows that failed are done again.
        lock: of the output folder, if this run has it.
        workers_beat: whether workers give signs of life for it, since the launcher need not stay.
    """

    output: str
    storage: Storage = dataclasses.field(default_factory=Storage)
    resume: bool = False
    retry_failures: bool = True
    lock: FolderLock | None = None
    workers_beat: bool = False

    def check(self, identity: Mapping[str, Any]) -> None:
        """Checks that the run there, if there is one, can be gone on with.

        Args:
            identity: what makes two runs the same.

        Raises:
            ResumeError: says what differs.
        """
        there = self._run()
        if self.resume and there is not None:
            _compare(self.output, there, identity)

    def begin(self, identity: Mapping[str, Any], run: str) -> None:
        """Makes the journal that of a run, before its first window is written.

        What an earlier run has left goes, unless it is gone on with. A second call by the same run,
        whose first steps were tried again, leaves all as it is.

        Args:
            run: its id.

        Raises:
            ResumeError: says what differs.
        """
        there = self._run()
        if there is not None and there.get("run") == run:
            return
        if self.resume and there is not None:
            _compare(self.output, there, identity)
        else:
            self.storage.delete_folder(join(self.folder, CHUNKS))
        for folder in (self.output, join(self.folder, CHUNKS)):
            self.storage.delete_leftovers(folder)
        content = json.dumps({"run": run, **identity}, indent=2).encode() + b"\n"
        self.storage.write(join(self.folder, RUN), [content])

    def names(self) -> list[str]:
        """Of the windows that are there."""
        return self.storage.list_names(join(self.folder, CHUNKS))

    def read(self, name: str) -> list[Outcome]:
        """The outcomes of a window; none if it is not there.

        A line that is damaged is left out, and its row is done again.
        """
        try:
            content = self.storage.read(join(self.folder, CHUNKS, name))
        except FileNotFoundError:
            return []
        return list(_outcomes(content, name))

    def write(self, outcomes: Iterable[Outcome]) -> None:
        """Makes the outcomes of a window durable."""
        lines = {outcome.row_id: _encode(outcome) for outcome in outcomes}
        name = chunk_name(list(lines))
        self.storage.write(join(self.folder, CHUNKS, name), lines.values())

    def remove(self) -> None:
        """Removes all of it: first what makes it a run's, last the lock."""
        self.storage.delete(join(self.folder, RUN))
        self.storage.delete_folder(join(self.folder, CHUNKS))
        self.storage.delete_folder(self.folder)

    @property
    def folder(self) -> str:
        return folder_in(self.output)

    def _run(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.storage.read(join(self.folder, RUN))))
        except FileNotFoundError:
            return None
        except ValueError:
            raise ResumeError(
                f"{join(self.folder, RUN)} is damaged, so what was done cannot be gone on with; "
                "begin anew with `overwrite`"
            ) from None


def folder_in(output: str) -> str:
    return join(output, JOURNAL)


def lock_in(output: str) -> str:
    return join(folder_in(output), LOCK)


def chunk_name(ids: list[str]) -> str:
    """The file of a window with these rows."""
    return f"{row_ids.name_of(ids)}.jsonl"


class _Chunk:
    """Rows that are made durable together."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome | None] = {}
        self.left = 0
        self.closed = False

    @property
    def done(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes.values() if outcome is not None]


class JournalWriter:
    """Collects the outcomes of windows, in any order, and writes each window when it is done.

    Writing is done by other threads. Used by one thread, while another one may call ``save``.
    """

    def __init__(self, journal: Journal):
        self._journal = journal
        self._open = _Chunk()
        self._window_of: dict[str, _Chunk] = {}
        self._writes: list[concurrent.futures.Future[None]] = []
        self._lock = threading.Lock()
        process.register(self)

    def expect(self, row_id: str) -> None:
        """Puts a row into the open window."""
        with self._lock:
            self._open.outcomes[row_id] = None
            self._open.left += 1
            self._window_of[row_id] = self._open

    def forget(self, row_id: str) -> None:
        """Takes out a row of which nothing becomes here."""
        with self._lock:
            window = self._window_of.pop(row_id)
            del window.outcomes[row_id]
            window.left -= 1
            self._write_if_done(window)

    def close_chunk(self) -> None:
        """Ends the open window; rows that come later are in the next one."""
        with self._lock:
            window, self._open = self._open, _Chunk()
            window.closed = True
            self._write_if_done(window)

    def add(self, outcome: Outcome) -> None:
        """Takes in what became of a row that is expected.

        Raises:
            Exception: of an earlier write that failed.
        """
        with self._lock:
            window = self._window_of.pop(outcome.row_id)
            window.outcomes[outcome.row_id] = outcome
            window.left -= 1
            self._write_if_done(window)
        self._take_written()

    def finish(self) -> None:
        """Waits until all is written.

        Raises:
            Exception: of a write that failed.
        """
        self.close_chunk()
        for write in self._writes:
            write.result()
        self._writes = []

    def save(self) -> None:
        """Writes what is done of windows that are not, and waits for all that is being written."""
        with self._lock:
            windows = {id(window): window for window in self._window_of.values()}
            windows[id(self._open)] = self._open
            done = [window.done for window in windows.values() if window.done]
            writes = list(self._writes)
        writes += [_writing().submit(self._journal.write, outcomes) for outcomes in done]
        concurrent.futures.wait(writes)

    def _write_if_done(self, window: _Chunk) -> None:
        if window.closed and not window.left and window.outcomes:
            self._writes.append(_writing().submit(self._write, window.done))

    def _write(self, outcomes: list[Outcome]) -> None:
        self._journal.write(outcomes)
        if self._journal.lock is not None and self._journal.workers_beat:
            _heartbeat(self._journal.lock)

    def _take_written(self) -> None:
        while self._writes and self._writes[0].done():
            self._writes.pop(0).result()


@functools.cache
def _writing() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(WRITING_THREADS, "beam-asr-journal")


_last_heartbeat = 0.0


def _heartbeat(lock: FolderLock) -> None:
    """A sign of life of a job whose launcher may be gone, now and then."""
    global _last_heartbeat
    if time.monotonic() - _last_heartbeat > HEARTBEAT_SECONDS:
        _last_heartbeat = time.monotonic()
        try:
            # Of many workers one is enough; a store takes about a write a second to an object.
            lock.heartbeat(HEARTBEAT_SECONDS)
        except FolderTakenError:
            raise
        except Exception as error:
            logger.warning("no sign of life could be given in %s: %r", lock.uri, error)


def _encode(outcome: Outcome) -> bytes:
    fields: dict[str, Any] = {"id": outcome.row_id}
    if outcome.error is None:
        fields |= {"recognition": outcome.recognition, "seconds": outcome.seconds}
    else:
        fields["error"] = outcome.error
    return json.dumps(fields).encode() + b"\n"


def _outcomes(content: bytes, name: str) -> Iterator[Outcome]:
    for line in content.splitlines():
        try:
            fields = json.loads(line)
            yield Outcome(
                fields["id"],
                fields.get("recognition"),
                fields.get("error"),
                fields.get("seconds", 0.0),
            )
        except (ValueError, KeyError, TypeError):
            logger.warning("a line of the journal's %s is damaged; its row is done again", name)


def _compare(output: str, there: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    differing = [
        f"the {name.replace('_', ' ')} was {there[name]!r} and is {value!r}"
        for name, value in identity.items()
        if name in there
        and there[name] != value
        and not (name in UNKNOWN and None in (there[name], value))
    ]
    if differing:
        raise ResumeError(
            f"the run in {output!r} cannot be gone on with, since this one is not the same: "
            f"{'; '.join(differing)}. Give it what it was begun with, or begin anew with "
            "`overwrite`"
        )
