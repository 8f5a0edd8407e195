"""Stores the outcomes of rows while a job runs, so that another run can resume it.

    OUTPUT/_journal/run.json                the identity of the run: model, options, rows
    OUTPUT/_journal/lock.json               the run that writes into the folder (`folder_lock`)
    OUTPUT/_journal/windows/NAME-RUN.jsonl  the outcomes of the rows of a chunk
    OUTPUT/_journal/progress/WORKER.json    how far a worker is (`progress`)
    OUTPUT/_journal/failures.jsonl          rows that failed, if these ended the run early

A chunk's file is written atomically as soon as its last row is done. Its name depends on the rows
and the run, so a bundle that is retried writes the same file, and no run replaces another's. Its
first line has the identity of the run, and a run reads only files of its own identity: whatever
writes late, or was left behind, is never taken for the work of this run.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from beam_asr import process
from beam_asr.errors import FolderTakenError, ResumeError
from beam_asr.outputs.fenced_storage import FencedStorage
from beam_asr.outputs.folder import JOURNAL, LOCK, RUN, SUMMARY
from beam_asr.outputs.folder_lock import FolderLock
from beam_asr.outputs.row_index import RowIndex
from beam_asr.outputs.shards import encode
from beam_asr.records import row_ids
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Failure
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

logger = logging.getLogger(__name__)

CHUNKS = "windows"
PROGRESS = "progress"
WRITING_THREADS = 8
HEARTBEAT_SECONDS = 30.0
RUN_DIGITS = 16  # of a run's id, in the names of its files
MODEL_CONTENT = "model_content"  # of an identity; None where it could not be determined
ERROR_KEYS = ("stage", "type", "message", "attempts")


class _Seal(NamedTuple):
    """Says which run has written a chunk's file; its first line.

    Attributes:
        run: the id of the run.
        identity: a digest of the run's identity, without the content of its models.
        model_content: of its identity.
    """

    run: str
    identity: str
    model_content: Any

    def fits(self, other: _Seal) -> bool:
        """Tells whether both are of runs with the same identity, as far as it is known."""
        contents = (self.model_content, other.model_content)
        return self.identity == other.identity and (None in contents or contents[0] == contents[1])


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
        run: the id of the run; empty until `for_run`.
        identity: what runs that resume each other must have in common.
        earlier_runs: the ids of the runs that this one resumes, last first.
        part: the number of the run, of those that append to a finished folder (`row_index`).
    """

    output: str
    storage: Storage = dataclasses.field(default_factory=Storage)
    resume: bool = False
    retry_failures: bool = True
    lock: FolderLock | None = None
    workers_renew: bool = False
    run: str = ""
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    earlier_runs: tuple[str, ...] = ()
    part: int = 0

    def for_run(self, run: str, identity: Mapping[str, Any]) -> Journal:
        """Returns the journal of a run, which may resume the one in the folder.

        Args:
            run: the id of the run.
            identity: what two runs must have in common.

        Raises:
            ResumeError: names what differs in the run in the folder.
        """
        self.check(identity)
        stored = (self._run() or {}) if self.resume else {}
        earlier = [*stored.get("earlier_runs", ()), stored.get("run")]
        names = tuple(str(name) for name in reversed(earlier) if name and name != run)
        return dataclasses.replace(self, run=run, identity=identity, earlier_runs=names)

    def check(self, identity: Mapping[str, Any]) -> None:
        """Checks that the run there, if any, can be resumed.

        Args:
            identity: what two runs must have in common.

        Raises:
            ResumeError: names what differs.
        """
        stored = self._run()
        if stored is None and self.part:
            finished = self.row_index.run(self.part - 1)
            stored = None if finished is None else dict(finished.identity)
        if self.resume and stored is not None:
            _compare(self.output, stored, identity)

    @property
    def row_index(self) -> RowIndex:
        """Returns the index of the rows that the folder holds."""
        return RowIndex(self.output, self.storage, self.part)

    def begin(self, rows: Mapping[str, Any]) -> None:
        """Starts the journal of the run, before its first chunk is written.

        Deletes the journal of an earlier run, unless it is resumed. A second call by the same run,
        whose first steps were retried, changes nothing.

        Args:
            rows: what is known of the run's rows. They may be others than those of the run that it
                resumes.

        Raises:
            ResumeError: names what differs.
            FolderTakenError: another run has taken the folder from this one.
        """
        stored = self._run()
        if stored is not None and stored.get("run") == self.run:
            return
        if self.resume and stored is not None:
            _compare(self.output, stored, self.identity)
        elif not self.resume:
            self._fenced.delete_folder(join(self.folder, CHUNKS))
        self._fenced.delete_folder(join(self.folder, PROGRESS))
        for folder in (self.output, join(self.folder, CHUNKS)):
            self.storage.delete_leftovers(folder)
        own = {"run": self.run, "earlier_runs": self.earlier_runs[::-1], "part": self.part}
        run = {**own, **rows, **self.identity}
        self._fenced.write(join(self.folder, RUN), [json.dumps(run, indent=2).encode() + b"\n"])

    def check_owner(self) -> None:
        """Checks that the folder is this run's, as far as a run with a lock can tell.

        Without its lock's file the folder is this run's if the journal is, or, once that is gone,
        the summary: somebody may have deleted the file, or this run's last step. Otherwise another
        run has taken the folder while this one was suspended, and has ended since.

        Raises:
            FolderTakenError: another run has taken the folder.
        """
        if self.lock is None or self.lock.check():
            return
        owner = self._owner()
        if owner not in (None, self.lock.run):
            raise FolderTakenError(
                f"another run has taken the folder {self.output!r} from this one, which stops, and "
                "has ended since: what the folder holds is that run's. Choose another folder for "
                "this one"
            )

    def names(self) -> list[str]:
        """Returns the names of the stored chunks, of any run."""
        return self.storage.list_names(join(self.folder, CHUNKS))

    def read_chunk(self, ids: list[str]) -> list[Outcome]:
        """Returns the outcomes of a chunk with these rows, by this run or an earlier one."""
        for run in (self.run, *self.earlier_runs):
            outcomes = self.read(chunk_name(ids, run))
            if outcomes:
                return outcomes
        return []

    def read(self, name: str) -> list[Outcome]:
        """Returns the outcomes of a file; none if it is not stored, or of another identity.

        A damaged line is omitted, and its row is done again.
        """
        try:
            content = self.storage.read(join(self.folder, CHUNKS, name))
        except FileNotFoundError:
            return []
        first, *lines = content.splitlines() or [b""]
        seal = _seal_of(first)
        if seal is None or not seal.fits(self._seal):
            logger.warning(
                "the journal's %s is not of this model and these settings, and is not used", name
            )
            return []
        return list(_outcomes(lines, name))

    def write(self, outcomes: Iterable[Outcome]) -> None:
        """Makes the outcomes of a chunk durable.

        Raises:
            FolderTakenError: another run has taken the folder from this one.
        """
        lines = {outcome.row_id: _encode(outcome) for outcome in outcomes}
        name = chunk_name(list(lines), self.run)
        seal = json.dumps(self._seal._asdict()).encode() + b"\n"
        self._fenced.write(join(self.folder, CHUNKS, name), [seal, *lines.values()])

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Writes failures of a run that ends early, for whoever looks for the cause."""
        self._fenced.write(self.failures_file, (encode(failure.record()) for failure in failures))

    def write_progress(self, name: str, content: bytes) -> None:
        """Stores how far a worker is."""
        self._fenced.write(join(self.folder, PROGRESS, name), [content])

    @property
    def failures_file(self) -> str:
        """Returns the path or URI of the failures of a run that has ended early."""
        return join(self.folder, "failures.jsonl")

    def remove(self) -> None:
        """Removes the journal: first the identity of the run, last the lock."""
        self.storage.delete(join(self.folder, RUN))
        self.storage.delete_folder(join(self.folder, CHUNKS))
        self.storage.delete_folder(self.folder)

    @property
    def folder(self) -> str:
        return folder_in(self.output)

    @property
    def _fenced(self) -> Storage:
        return FencedStorage.of(self.storage, self.check_owner)

    @property
    def _seal(self) -> _Seal:
        identity = {name: self.identity[name] for name in self.identity if name != MODEL_CONTENT}
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return _Seal(self.run, digest, self.identity.get(MODEL_CONTENT))

    def _owner(self) -> str | None:
        """Returns the id of the run whose journal, or else whose summary, the folder has."""
        for name in (join(self.folder, RUN), join(self.output, SUMMARY)):
            with contextlib.suppress(FileNotFoundError):
                content = self.storage.read(name)
                try:
                    run = json.loads(content).get("run")
                except (ValueError, AttributeError):  # it is damaged
                    continue
                return None if run is None else str(run)
        return None

    def stored(self) -> dict[str, Any]:
        """Returns the identity of the run in the folder, with what it knows of its rows."""
        return self._run() or {}

    def _run(self) -> dict[str, Any] | None:
        try:
            content = self.storage.read(join(self.folder, RUN))
        except FileNotFoundError:
            return None
        try:
            return dict(json.loads(content))
        except ValueError:
            raise ResumeError(
                f"{join(self.folder, RUN)} is damaged, so the run cannot be resumed; start again "
                "with `overwrite`"
            ) from None


def part_of_run(storage: Storage, output: str, append: bool) -> int:
    """Returns the number of a run among those that append to a folder; 0 for the first.

    It is that of the unfinished run in the folder, which is resumed, or else the next.

    Args:
        append: whether the run appends.
    """
    unfinished = Journal(output, storage).stored()
    if unfinished or not append:
        return int(unfinished.get("part", 0))
    return RowIndex(output, storage).next_part()


def folder_in(output: str) -> str:
    return join(output, JOURNAL)


def lock_in(output: str) -> str:
    return join(folder_in(output), LOCK)


def chunk_name(ids: list[str], run: str = "") -> str:
    """Returns the name of the file of a chunk with these rows, by a run with this id."""
    return f"{row_ids.name_of(ids)}-{run[:RUN_DIGITS]}.jsonl"


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


def _seal_of(line: bytes) -> _Seal | None:
    """Returns the first line of a chunk's file; None if it is none of ``write``."""
    try:
        return _Seal(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _outcomes(lines: Iterable[bytes], name: str) -> Iterator[Outcome]:
    for line in lines:
        try:
            fields = json.loads(line)
            yield _from_fields(fields["id"], fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("a line of the journal's %s is damaged; its row is done again", name)


def _from_fields(row_id: str, fields: Mapping[str, Any]) -> Outcome:
    """Converts a line of ``_encode`` to an outcome.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: the line is none of ``_encode``.
    """
    if not isinstance(row_id, str):
        raise TypeError("the id is no text")
    if "channels" in fields:
        channels = tuple(_from_fields("", channel) for channel in fields["channels"])
        if not channels:
            raise ValueError("no channels")
        return Outcome(row_id, channels=channels)
    if "error" in fields:
        error = fields["error"]
        if not all(isinstance(error[key], (str, int)) for key in ERROR_KEYS):
            raise TypeError("the error's fields are of other types")
        return Outcome(row_id, error=error)
    recognition, seconds = fields["recognition"], fields["seconds"]
    if not isinstance(seconds, (int, float)):
        raise TypeError("the seconds are no number")
    # Of a row it has a text with its seconds; what plans a long row has plans.
    if "plans" not in recognition and not (
        isinstance(recognition["text"], str) and isinstance(recognition["seconds"], (int, float))
    ):
        raise TypeError("the recognition's fields are of other types")
    return Outcome(row_id, recognition, seconds=seconds)


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns, for a message, which values of a run differ from those of a stored one.

    What is not stored, or not known, does not differ.
    """
    return [
        f"the {name.replace('_', ' ')} was {stored[name]!r} and is {value!r}"
        for name, value in now.items()
        if name in stored
        and stored[name] != value
        and not (name == MODEL_CONTENT and None in (stored[name], value))
    ]


def _compare(output: str, stored: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    differing = differences(stored, identity)
    if differing:
        raise ResumeError(
            f"the run in {output!r} cannot be resumed, since this one differs: "
            f"{'; '.join(differing)}. Start it with the same inputs and settings, or start again "
            "with `overwrite`"
        )
