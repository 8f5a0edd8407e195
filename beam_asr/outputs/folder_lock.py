"""Locks an output folder for one run at a time, by a file with its last heartbeat.

A run that finds the file of another run refuses to start while that run lives. On the same machine
this is certain, since its process is looked up; on another machine only the time of the last
heartbeat shows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

from beam_asr.errors import FolderBusyError, FolderTakenError
from beam_asr.storage.storage import Storage

logger = logging.getLogger(__name__)

STALE_SECONDS = 600.0  # without a heartbeat, a run on another machine is then dead
HEARTBEAT_SECONDS = 30.0
LAST_HEARTBEAT_SECONDS = 30.0  # waits for one in flight when the run ends
ATTEMPTS = 10
MAX_WAIT_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class FolderLock:
    """Locks a folder for a run; a value, of which the workers of the run get copies.

    It prevents two runs from starting at once. It does not prevent a run from writing that has lost
    the folder (it was suspended for longer than ``STALE_SECONDS``, or its file was deleted): such a
    run finds out by ``check`` or its next ``heartbeat``; once the other run has ended, by what is
    in the folder (`journal.Journal.check_owner`).

    On storages where ``Storage.create_exclusive`` is not atomic, two runs that start at the same
    moment may both get it; then too, the run whose file was overwritten finds out.

    Attributes:
        storage: how the file's storage is opened.
        uri: the file.
        run: the random id of the run that holds it.
    """

    storage: Storage
    uri: str
    run: str

    @classmethod
    def take(cls, storage: Storage, uri: str) -> FolderLock:
        """Takes the lock for a new run, of which this process is the launcher.

        Replaces the lock of a run on this machine whose process has ended, and of a run on another
        machine without a heartbeat for ``STALE_SECONDS``. A run of this process holds the lock
        until it releases it.

        Raises:
            FolderBusyError: names the run that holds it and what to do.
        """
        run = uuid.uuid4().hex
        _acquire(storage, uri, Holder.this_process(run))
        return cls(storage, uri, run)

    def heartbeat(self, seconds: float = 0.0) -> bool:
        """Writes a heartbeat, unless another worker has written one within ``seconds``.

        A heartbeat by another process than the launcher shows that the run is more than that
        process; from then on the time of the last heartbeat decides whether it lives. A damaged
        file is rewritten. A missing file stays missing: the last step of the run may have deleted
        it, after which nothing would release it.

        Returns:
            Whether the file exists.

        Raises:
            FolderTakenError: another run holds the lock.
        """
        try:
            holder = self._holder()
        except FileNotFoundError:
            return False
        now = datetime.now(timezone.utc)
        if holder is not None and holder.process is None and 0 <= _age(holder.beat) < seconds:
            return True
        if holder is None:
            holder = dataclasses.replace(Holder.this_process(self.run), process=None)
        elif not holder.is_of_this_process:
            holder = dataclasses.replace(holder, process=None)
        holder = dataclasses.replace(holder, beat=now, timeout=STALE_SECONDS)
        self.storage.write(self.uri, [holder.encode()])
        return True

    def hand_over(self, seconds: float) -> None:
        """Hands the lock over to the workers, whose first heartbeat may take ``seconds``.

        Raises:
            FolderTakenError: another run holds the lock.
        """
        with contextlib.suppress(FileNotFoundError):
            holder = self._holder() or Holder.this_process(self.run)
            now = datetime.now(timezone.utc)
            handed_over = dataclasses.replace(holder, process=None, beat=now, timeout=seconds)
            self.storage.write(self.uri, [handed_over.encode()])

    def check(self) -> bool:
        """Checks that no other run holds the lock; returns whether this run does, or it is free.

        Raises:
            FolderTakenError: names the other run that holds it.
        """
        try:
            self._holder()
        except FileNotFoundError:
            return False
        return True

    def release(self) -> None:
        """Deletes the file, if it exists and is this run's."""
        with contextlib.suppress(FileNotFoundError, FolderTakenError):
            if self._holder() is not None:
                self.storage.delete(self.uri)

    @contextlib.contextmanager
    def heartbeat_thread(
        self,
        on_taken: Callable[[FolderTakenError], object],
        check_owner: Callable[[], object] | None = None,
        seconds: float = HEARTBEAT_SECONDS,
    ) -> Iterator[None]:
        """Writes heartbeats from another thread for as long as the block runs.

        A heartbeat that fails, as while the storage is unreachable, is retried at the next time.

        Args:
            on_taken: called by that thread, once, if another run has taken the lock; must stop the
                job.
            check_owner: called where the file is missing; raises FolderTakenError if the folder is
                another run's by now.
            seconds: from one heartbeat to the next.
        """
        ended = threading.Event()

        def beat_until_ended() -> None:
            while not ended.wait(seconds):
                try:
                    if not self.heartbeat() and check_owner is not None:
                        check_owner()
                except FolderTakenError as error:
                    on_taken(error)
                    return
                except Exception as error:
                    logger.warning(
                        "no sign of life could be given in %s, it is tried again: %r",
                        self.uri,
                        error,
                    )

        thread = threading.Thread(target=beat_until_ended, daemon=True, name="beam-asr-lock")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(LAST_HEARTBEAT_SECONDS)

    def _holder(self) -> Holder | None:
        """Returns the content of the file for this run; None if it is damaged.

        Raises:
            FileNotFoundError: the file does not exist.
            FolderTakenError: it is that of another run.
        """
        holder = Holder.decode(self.storage.read(self.uri))
        if holder is not None and holder.run != self.run:
            raise FolderTakenError(
                f"another run has taken the folder from this one, which stops: {self.uri} is that "
                f"of {holder}. Wait until it has ended, or stop it, before you start this one again"
            )
        return holder


class _Process(NamedTuple):
    """Identifies a process among all that have, had or will have its id.

    Attributes:
        boot: the id of the boot of its machine.
        pid_namespace: the namespace, in a container or not, in which its id holds.
        start: when it started, in clock ticks after the boot.
    """

    boot: str
    pid_namespace: str
    start: str


def holder_of(storage: Storage, uri: str) -> Holder | None:
    """Returns the run that holds a lock; None if no run does, or the file is damaged."""
    try:
        return Holder.decode(storage.read(uri))
    except FileNotFoundError:
        return None


@dataclasses.dataclass(frozen=True)
class Holder:
    """Describes the run that holds a lock: the content of the file.

    Attributes:
        run: the id of the run.
        host: the name of the machine that launched it.
        pid: the id of the process that launched it.
        process: that process; None if it cannot be identified, or is not all of the run.
        started: when the lock was taken.
        beat: when the last heartbeat was written.
        timeout: seconds after the last heartbeat until the run is considered dead.
    """

    run: str
    host: str
    pid: int
    process: _Process | None
    started: datetime
    beat: datetime
    timeout: float = STALE_SECONDS

    @classmethod
    def this_process(cls, run: str) -> Holder:
        now = datetime.now(timezone.utc)
        return cls(run, socket.gethostname(), os.getpid(), _process(), now, now)

    def encode(self) -> bytes:
        fields = dataclasses.asdict(self) | {
            "process": self.process._asdict() if self.process else None,
            "started": self.started.isoformat(),
            "beat": self.beat.isoformat(),
        }
        return json.dumps(fields, indent=2).encode() + b"\n"

    @classmethod
    def decode(cls, content: bytes) -> Holder | None:
        """Decodes the file's content; None if it is not of ``encode``."""
        try:
            fields = json.loads(content)
            process = fields["process"]
            return cls(
                run=str(fields["run"]),
                host=str(fields["host"]),
                pid=int(fields["pid"]),
                process=None if process is None else _Process(**process),
                started=datetime.fromisoformat(fields["started"]).astimezone(timezone.utc),
                beat=datetime.fromisoformat(fields["beat"]).astimezone(timezone.utc),
                timeout=float(fields["timeout"]),
            )
        except (ValueError, TypeError, KeyError):
            return None

    @property
    def is_of_this_process(self) -> bool:
        return self.pid == os.getpid() and self.process == _process()

    @property
    def lives(self) -> bool:
        """Tells whether the run lives, as far as can be seen from this machine."""
        current = _process()
        if self.process is not None and current is not None and self.process[:2] == current[:2]:
            running = _is_running(self.pid, self.process.start)
            if running is not None:
                return running
        return _is_recent(self.beat, self.timeout)

    def __str__(self) -> str:
        return (
            f"run {self.run[:8]} on {self.host} (process {self.pid}) since "
            f"{self.started:%Y-%m-%d %H:%M:%S} UTC, with the last sign of life at "
            f"{self.beat:%Y-%m-%d %H:%M:%S} UTC, {_ago(self.beat)}"
        )


def _acquire(storage: Storage, uri: str, holder: Holder) -> None:
    """Takes a file, which at most one run holds at a time, for a run.

    The file of a dead run is replaced by the run that holds a second file, the guard, whose name
    depends on the dead run's content. So one of several runs that find the file replaces it, and a
    run that comes too late sees that the content has changed.

    Raises:
        FolderBusyError: it is that of a living run.
    """
    content = holder.encode()
    for _ in range(ATTEMPTS):
        storage.create_exclusive(uri, content)
        with contextlib.suppress(FileNotFoundError):  # it has just been released
            existing = storage.read(uri)
            if existing == content:  # whatever the request that wrote it returned
                return
            description = _refuse_if_living(storage, uri, existing)
            guard = f"{uri}.{hashlib.sha256(existing).hexdigest()[:16]}"
            _acquire(storage, guard, holder)
            try:
                if storage.read(uri) == existing:
                    logger.warning("%s is %s; that run is dead", uri, description)
                    storage.write(uri, [content])
            finally:
                FolderLock(storage, guard, holder.run).release()
        time.sleep(random.uniform(0, MAX_WAIT_SECONDS))
    raise FolderBusyError(
        f"other runs take and release {uri} at this very moment; begin again when they have ended"
    )


def _refuse_if_living(storage: Storage, uri: str, content: bytes) -> str:
    """Returns a description of an existing file.

    Raises:
        FolderBusyError: it is that of a living run.
    """
    holder = Holder.decode(content)
    if holder is not None:
        alive, description = holder.lives, f"that of {holder}"
    else:
        written = storage.modified(uri)
        alive = written is not None and _is_recent(written)
        description = f"damaged, and was written {_ago(written)}" if written else "damaged"
    if alive:
        raise FolderBusyError(
            f"another run writes into the folder: {uri} is {description}. Wait until that run has "
            "ended, or stop it; if it is certainly dead, delete that file"
        )
    return description


def _is_recent(when: datetime, seconds: float = STALE_SECONDS) -> bool:
    """Returns whether a time is near, before or after now: clocks of machines differ."""
    return abs(_age(when)) < seconds


def _age(when: datetime) -> float:
    return (datetime.now(timezone.utc) - when).total_seconds()


def _ago(when: datetime) -> str:
    seconds = (datetime.now(timezone.utc) - when).total_seconds()
    return f"{seconds:.0f} s ago" if seconds >= 0 else f"{-seconds:.0f} s ahead of this clock"


def _process() -> _Process | None:
    """Returns this process; None without /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return _Process(boot, os.readlink("/proc/self/ns/pid"), _start_of(os.getpid()))
    except OSError:
        return None


def _is_running(pid: int, start: str) -> bool | None:
    """Returns whether a process that started then still runs; None if that cannot be seen."""
    try:
        return _start_of(pid) == start
    except OSError:  # it has ended, or it is another user's
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return None


def _start_of(pid: int) -> str:
    """Returns when a process started, in clock ticks after the boot; empty if it is dead.

    Raises:
        OSError: there is no such process, or it cannot be seen.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        after_name = file.read().decode(errors="replace").rpartition(")")[2].split()
    state, start = after_name[0], after_name[19]  # fields 3 and 22 of proc_pid_stat(5)
    return "" if state in "ZX" else start
