"""Stores the outcomes of rows while a job runs, so that another run can resume it.

    OUTPUT/_journal/run.json              the identity of the run: model, options, rows
    OUTPUT/_journal/lock.json             the run that writes into the folder (`folder_lock`)
    OUTPUT/_journal/windows/NAME.jsonl    the outcomes of the rows of a chunk

A chunk's file is written atomically as soon as its last row is done. Its name depends on the rows
alone, so a bundle that is retried writes the same file.
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
UNKNOWN = frozenset(["model_content"])  # None where it could not be determined


@dataclasses.dataclass(frozen=True)
class Journal:
    """Stores the outcomes of one run in an output folder.

    Attributes:
        output: the output folder.
        storage: how its storage is opened.
        resume: whether the run there is resumed.
        retry_failures: whether rows that failed are done again.
        lock: the lock of the output folder, if this run holds it.
        workers_renew: whether workers renew the lock, since the launcher may have ended.
    """

    output: str
    storage: Storage = dataclasses.field(default_factory=Storage)
    resume: bool = False
    retry_failures: bool = True
    lock: FolderLock | None = None
    workers_renew: bool = False

    def check(self, identity: Mapping[str, Any]) -> None:
        """Checks that the run there, if any, can be resumed.

        Args:
            identity: what two runs must have in common.

        Raises:
            ResumeError: names what differs.
        """
        stored = self._run()
        if self.resume and stored is not None:
            _compare(self.output, stored, identity)

    def begin(self, identity: Mapping[str, Any], run: str) -> None:
        """Starts the journal of a run, before its first chunk is written.

        Deletes the journal of an earlier run, unless it is resumed. A second call by the same run,
        whose first steps were retried, changes nothing.

        Args:
            run: the id of the run.

        Raises:
            ResumeError: names what differs.
        """
        stored = self._run()
        if stored is not None and stored.get("run") == run:
            return
        if self.resume and stored is not None:
            _compare(self.output, stored, identity)
        else:
            self.storage.delete_folder(join(self.folder, CHUNKS))
        for folder in (self.output, join(self.folder, CHUNKS)):
            self.storage.delete_leftovers(folder)
        content = json.dumps({"run": run, **identity}, indent=2).encode() + b"\n"
        self.storage.write(join(self.folder, RUN), [content])

    def names(self) -> list[str]:
        """Returns the names of the stored chunks."""
        return self.storage.list_names(join(self.folder, CHUNKS))

    def read(self, name: str) -> list[Outcome]:
        """Returns the outcomes of a chunk; none if it is not stored.

        A damaged line is omitted, and its row is done again.
        """
        try:
            content = self.storage.read(join(self.folder, CHUNKS, name))
        except FileNotFoundError:
            return []
        return list(_outcomes(content, name))

    def write(self, outcomes: Iterable[Outcome]) -> None:
        """Makes the outcomes of a chunk durable."""
        lines = {outcome.row_id: _encode(outcome) for outcome in outcomes}
        name = chunk_name(list(lines))
        self.storage.write(join(self.folder, CHUNKS, name), lines.values())

    def remove(self) -> None:
        """Removes the journal: first the identity of the run, last the lock."""
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
    """Returns the name of the file of a chunk with these rows."""
    return f"{row_ids.name_of(ids)}.jsonl"


class _Chunk:
    """Holds rows that are made durable together."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome | None] = {}
        self.remaining = 0
        self.closed = False

    @property
    def done(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes.values() if outcome is not None]


class JournalWriter:
    """Collects the outcomes of chunks, in any order, and writes each chunk when it is done.

    Other threads write. One thread uses this object, while another one may call ``save``.
    """

    def __init__(self, journal: Journal):
        self._journal = journal
        self._open = _Chunk()
        self._chunk_of_row: dict[str, _Chunk] = {}
        self._writes: list[concurrent.futures.Future[None]] = []
        self._lock = threading.Lock()
        process.register(self)

    def expect(self, row_id: str) -> None:
        """Adds a row to the open chunk."""
        with self._lock:
            self._open.outcomes[row_id] = None
            self._open.remaining += 1
            self._chunk_of_row[row_id] = self._open

    def forget(self, row_id: str) -> None:
        """Removes a row that gets no outcome in this chunk."""
        with self._lock:
            chunk = self._chunk_of_row.pop(row_id)
            del chunk.outcomes[row_id]
            chunk.remaining -= 1
            self._write_if_done(chunk)

    def close_chunk(self) -> None:
        """Closes the open chunk; later rows are in the next one."""
        with self._lock:
            chunk, self._open = self._open, _Chunk()
            chunk.closed = True
            self._write_if_done(chunk)

    def add(self, outcome: Outcome) -> None:
        """Adds the outcome of an expected row.

        Raises:
            Exception: the error of an earlier write.
        """
        with self._lock:
            chunk = self._chunk_of_row.pop(outcome.row_id)
            chunk.outcomes[outcome.row_id] = outcome
            chunk.remaining -= 1
            self._write_if_done(chunk)
        self._check_written()

    def finish(self) -> None:
        """Waits until all is written.

        Raises:
            Exception: the error of a write.
        """
        self.close_chunk()
        for write in self._writes:
            write.result()
        self._writes = []

    def save(self) -> None:
        """Writes the outcomes of unfinished chunks, and waits for all pending writes."""
        with self._lock:
            chunks = {id(chunk): chunk for chunk in self._chunk_of_row.values()}
            chunks[id(self._open)] = self._open
            done = [chunk.done for chunk in chunks.values() if chunk.done]
            writes = list(self._writes)
        writes += [_writers().submit(self._journal.write, outcomes) for outcomes in done]
        concurrent.futures.wait(writes)

    def _write_if_done(self, chunk: _Chunk) -> None:
        if chunk.closed and not chunk.remaining and chunk.outcomes:
            self._writes.append(_writers().submit(self._write, chunk.done))

    def _write(self, outcomes: list[Outcome]) -> None:
        self._journal.write(outcomes)
        if self._journal.lock is not None and self._journal.workers_renew:
            _heartbeat(self._journal.lock)

    def _check_written(self) -> None:
        while self._writes and self._writes[0].done():
            self._writes.pop(0).result()


@functools.cache
def _writers() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(WRITING_THREADS, "beam-asr-journal")


_last_heartbeat = 0.0


def _heartbeat(lock: FolderLock) -> None:
    """Renews the lock of a job whose launcher may have ended, now and then."""
    global _last_heartbeat
    if time.monotonic() - _last_heartbeat > HEARTBEAT_SECONDS:
        _last_heartbeat = time.monotonic()
        try:
            # One of many workers is enough; a store accepts about a write a second to an object.
            lock.heartbeat(HEARTBEAT_SECONDS)
        except FolderTakenError:
            raise
        except Exception as error:
            logger.warning("no sign of life could be given in %s: %r", lock.uri, error)


def _encode(outcome: Outcome) -> bytes:
    return json.dumps({"id": outcome.row_id, **_to_fields(outcome)}).encode() + b"\n"


def _to_fields(outcome: Outcome) -> dict[str, Any]:
    if outcome.channels:
        return {"channels": [_to_fields(channel) for channel in outcome.channels]}
    if outcome.error is None:
        return {"recognition": outcome.recognition, "seconds": outcome.seconds}
    return {"error": outcome.error}


def _outcomes(content: bytes, name: str) -> Iterator[Outcome]:
    for line in content.splitlines():
        try:
            fields = json.loads(line)
            yield _from_fields(fields["id"], fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("a line of the journal's %s is damaged; its row is done again", name)


def _from_fields(row_id: str, fields: Mapping[str, Any]) -> Outcome:
    return Outcome(
        row_id,
        fields.get("recognition"),
        fields.get("error"),
        fields.get("seconds", 0.0),
        tuple(_from_fields("", channel) for channel in fields.get("channels", ())),
    )


def _compare(output: str, stored: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    differing = [
        f"the {name.replace('_', ' ')} was {stored[name]!r} and is {value!r}"
        for name, value in identity.items()
        if name in stored
        and stored[name] != value
        and not (name in UNKNOWN and None in (stored[name], value))
    ]
    if differing:
        raise ResumeError(
            f"the run in {output!r} cannot be gone on with, since this one is not the same: "
            f"{'; '.join(differing)}. Give it what it was begun with, or begin anew with "
            "`overwrite`"
        )
