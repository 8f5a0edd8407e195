"""One run at a time writes into a folder: a file there says which, and when it last gave a sign.

A run that finds the file of another one refuses to begin while that one lives. Whether it does is
certain on the same machine, where its process is looked for; of another machine only the time of
the last sign tells.
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

STALE_SECONDS = 600.0  # a run on another machine that gave no sign for so long is dead
HEARTBEAT_SECONDS = 30.0
LAST_HEARTBEAT_SECONDS = 30.0  # for a sign that is under way when it is to be the last
ATTEMPTS = 10
MAX_WAIT_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class FolderLock:
    """The lock of a folder, held by a run; a value, which the workers of the run get copies of.

    It says that no two runs begin at once. It does not keep a run from writing that has lost the
    folder (it stood still for longer than ``STALE_SECONDS``, or its file was deleted): such a run
    learns so from ``check`` or its next ``beat``, for as long as the other one has the folder.

    On storages where ``Storage.create`` is not atomic, two runs that begin in the same moment may
    both get it; then too, the one whose file was written over learns so.

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

        A run of this machine whose process is gone is no hindrance; neither is one of another
        machine that gave no sign for ``STALE_SECONDS``. A run of this very process is one until it
        has released the lock.

        Raises:
            FolderBusyError: says which run holds it and what to do.
        """
        run = uuid.uuid4().hex
        _acquire(storage, uri, _Holder.this_process(run))
        return cls(storage, uri, run)

    def heartbeat(self, seconds: float = 0.0) -> None:
        """Gives a sign of life, unless another worker has given one within so many seconds.

        One by another process than that which took the lock says that the run is more than this
        process; from then on the time of the last sign tells whether it lives. A file that is
        damaged is written anew. One that is gone stays so and the run goes on: the last step of the
        run may have deleted it, after which nobody would release it. If somebody else deleted it,
        this run holds the folder until another one takes it, and then learns so.

        Raises:
            FolderTakenError: another run holds the lock.
        """
        try:
            holder = self._holder()
        except FileNotFoundError:
            return
        now = datetime.now(timezone.utc)
        if holder is not None and holder.process is None and 0 <= _age(holder.beat) < seconds:
            return
        if holder is None:
            holder = dataclasses.replace(_Holder.this_process(self.run), process=None)
        elif not holder.is_of_this_process:
            holder = dataclasses.replace(holder, process=None)
        holder = dataclasses.replace(holder, beat=now, timeout=STALE_SECONDS)
        self.storage.write(self.uri, [holder.encode()])

    def hand_over(self, seconds: float) -> None:
        """Leaves the lock to the workers, whose first sign of life may take so many seconds.

        Raises:
            FolderTakenError: another run holds the lock.
        """
        with contextlib.suppress(FileNotFoundError):
            holder = self._holder() or _Holder.this_process(self.run)
            now = datetime.now(timezone.utc)
            left = dataclasses.replace(holder, process=None, beat=now, timeout=seconds)
            self.storage.write(self.uri, [left.encode()])

    def check(self) -> None:
        """Checks that no other run holds the lock. That nobody does is fine.

        Raises:
            FolderTakenError: says which run does.
        """
        with contextlib.suppress(FileNotFoundError):
            self._holder()

    def release(self) -> None:
        """Deletes the file, if it is there and this run's."""
        with contextlib.suppress(FileNotFoundError, FolderTakenError):
            if self._holder() is not None:
                self.storage.delete(self.uri)

    @contextlib.contextmanager
    def heartbeat_thread(
        self, on_taken: Callable[[FolderTakenError], object], seconds: float = HEARTBEAT_SECONDS
    ) -> Iterator[None]:
        """Beats from another thread for as long as the block runs.

        A beat that fails, as while the storage cannot be reached, is tried again at the next time.

        Args:
            on_taken: called by that thread, once, if another run has taken the lock; is to stop
                the job.
            seconds: from one beat to the next.
        """
        ended = threading.Event()

        def beat_until_ended() -> None:
            while not ended.wait(seconds):
                try:
                    self.heartbeat()
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

    def _holder(self) -> _Holder | None:
        """What the file says of this run; None if it is damaged.

        Raises:
            FileNotFoundError: it is not there.
            FolderTakenError: it is of another run.
        """
        holder = _Holder.decode(self.storage.read(self.uri))
        if holder is not None and holder.run != self.run:
            raise FolderTakenError(
                f"another run has taken the folder from this one, which stops: {self.uri} is that "
                f"of {holder}. Wait until it has ended, or stop it, before this one is begun again"
            )
        return holder


class _Process(NamedTuple):
    """What tells a process from any other that has, had or will have its id.

    Attributes:
        boot: the id of the boot of its machine.
        pid_namespace: the namespace, in a container or not, in which its id holds.
        start: when it started, in clock ticks after the boot.
    """

    boot: str
    pid_namespace: str
    start: str


@dataclasses.dataclass(frozen=True)
class _Holder:
    """What the file says.

    Attributes:
        run: the id of the run.
        host: the name of the machine that launched it.
        pid: the id of the process that launched it.
        process: that process; None if it cannot be told from others, or is not all of the run.
        started: when the lock was taken.
        beat: when the last sign of life was given.
        timeout: seconds after it, in which the run is not taken for dead.
    """

    run: str
    host: str
    pid: int
    process: _Process | None
    started: datetime
    beat: datetime
    timeout: float = STALE_SECONDS

    @classmethod
    def this_process(cls, run: str) -> _Holder:
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
    def decode(cls, content: bytes) -> _Holder | None:
        """None if that is not what ``encode`` gives."""
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
        here = _process()
        if self.process is not None and here is not None and self.process[:2] == here[:2]:
            runs = _runs(self.pid, self.process.start)
            if runs is not None:
                return runs
        return _is_recent(self.beat, self.timeout)

    def __str__(self) -> str:
        return (
            f"run {self.run[:8]} on {self.host} (process {self.pid}) since "
            f"{self.started:%Y-%m-%d %H:%M:%S} UTC, with the last sign of life at "
            f"{self.beat:%Y-%m-%d %H:%M:%S} UTC, {_ago(self.beat)}"
        )


def _acquire(storage: Storage, uri: str, holder: _Holder) -> None:
    """Makes a file, which at most one run has at a time, that of a run.

    The file of a dead run is replaced by who holds another one, whose name follows from the dead
    one's content. So of several that find it, one replaces it, and one that comes too late sees
    that it is no longer what it found.

    Raises:
        FolderBusyError: it is that of a run that lives.
    """
    content = holder.encode()
    for _ in range(ATTEMPTS):
        storage.create_exclusive(uri, content)
        with contextlib.suppress(FileNotFoundError):  # it has just been released
            found = storage.read(uri)
            if found == content:  # whatever came back of the request that wrote it
                return
            said = _refuse_if_living(storage, uri, found)
            guard = f"{uri}.{hashlib.sha256(found).hexdigest()[:16]}"
            _acquire(storage, guard, holder)
            try:
                if storage.read(uri) == found:
                    logger.warning("%s is %s; that run is dead", uri, said)
                    storage.write(uri, [content])
            finally:
                FolderLock(storage, guard, holder.run).release()
        time.sleep(random.uniform(0, MAX_WAIT_SECONDS))
    raise FolderBusyError(
        f"other runs take and release {uri} at this very moment; begin again when they have ended"
    )


def _refuse_if_living(storage: Storage, uri: str, content: bytes) -> str:
    """What a file that is there is, in words.

    Raises:
        FolderBusyError: it is that of a run that lives.
    """
    holder = _Holder.decode(content)
    if holder is not None:
        living, said = holder.lives, f"that of {holder}"
    else:
        written = storage.modified(uri)
        living = written is not None and _is_recent(written)
        said = f"damaged, and was written {_ago(written)}" if written else "damaged"
    if living:
        raise FolderBusyError(
            f"another run writes into the folder: {uri} is {said}. Wait until that run has ended, "
            "or stop it; if it is certainly dead, delete that file"
        )
    return said


def _is_recent(when: datetime, seconds: float = STALE_SECONDS) -> bool:
    """Whether a time is near, before or after now: clocks of machines differ."""
    return abs(_age(when)) < seconds


def _age(when: datetime) -> float:
    return (datetime.now(timezone.utc) - when).total_seconds()


def _ago(when: datetime) -> str:
    seconds = (datetime.now(timezone.utc) - when).total_seconds()
    return f"{seconds:.0f} s ago" if seconds >= 0 else f"{-seconds:.0f} s ahead of this clock"


def _process() -> _Process | None:
    """This process; None where there is no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return _Process(boot, os.readlink("/proc/self/ns/pid"), _start_of(os.getpid()))
    except OSError:
        return None


def _runs(pid: int, start: str) -> bool | None:
    """Whether a process that started then still runs; None if that may not be seen."""
    try:
        return _start_of(pid) == start
    except OSError:  # it is gone, or it is another user's
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return None


def _start_of(pid: int) -> str:
    """When a process started, in clock ticks after the boot; nothing if it is dead.

    Raises:
        OSError: there is none, or it may not be seen.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        after_name = file.read().decode(errors="replace").rpartition(")")[2].split()
    state, start = after_name[0], after_name[19]  # fields 3 and 22 of proc_pid_stat(5)
    return "" if state in "ZX" else start
