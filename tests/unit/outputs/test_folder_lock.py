"""Two runs in one folder: the second is refused while the first lives, and only then."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

import pytest

from beam_asr.errors import FolderBusyError, FolderTakenError
from beam_asr.outputs.folder_lock import STALE_SECONDS, FolderLock
from beam_asr.storage.storage import Storage

PATIENCE = 60.0  # for what comes at once, unless the machine is busy

LAUNCHER = """
import json, os, signal, sys
from beam_asr.errors import FolderBusyError, FolderTakenError
from beam_asr.outputs.folder_lock import FolderLock
from beam_asr.storage.storage import Storage

class Dying(Storage):
    def write(self, uri, lines):
        os.kill(os.getpid(), signal.SIGKILL)

storage = json.loads(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    what, _, uri = line.rstrip("\\n").partition(" ")
    try:
        if what == "take":
            lock = None
            lock = FolderLock.take(Storage(storage), uri)
        elif what == "die":
            FolderLock.take(Dying(storage), uri)
        elif what == "check":
            lock.check()
        elif what == "leave":
            lock.hand_over(float(uri))
        elif what == "beat":
            uri, run, *seconds = uri.split(" ")
            FolderLock(Storage(storage), uri, run).heartbeat(*map(float, seconds))
        print("done", flush=True)
    except (FolderBusyError, FolderTakenError) as error:
        print(type(error).__name__, flush=True)
"""


class Place(NamedTuple):
    storage: Storage
    folder: str

    @property
    def lock(self) -> str:
        return f"{self.folder}/_journal/lock.json"

    def take(self) -> FolderLock:
        return FolderLock.take(self.storage, self.lock)

    def content(self, uri: str | None = None) -> dict:
        return json.loads(self.storage.read(uri or self.lock))

    def change(self, **fields: object) -> None:
        self.storage.write(self.lock, [json.dumps(self.content() | fields).encode()])


class Launcher:
    """Another process, which does what it reads."""

    def __init__(self, storage: Storage):
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, json.dumps(storage.options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

    def tell(self, what: str, uri: str = "") -> None:
        self.process.stdin.write(f"{what} {uri}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self.process.stdout.readline().strip()

    def do(self, what: str, uri: str = "") -> str:
        self.tell(what, uri)
        return self.answer()

    def kill(self) -> None:
        """Its parent does not ask for its status: it stays as what is dead and not yet gone."""
        self.process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)


@pytest.fixture(params=["disk", "gs", "s3", "az"])
def place(request, tmp_path) -> Place:
    if request.param == "disk":
        return Place(Storage(), str(tmp_path / "out"))
    bucket = request.getfixturevalue(f"{request.param}_bucket")
    return Place(Storage(bucket.storage_options), f"{bucket.uri}/out")


@pytest.fixture
def disk(tmp_path) -> Place:
    return Place(Storage(), str(tmp_path))


@pytest.fixture
def launch():
    launchers = []

    def begin(storage: Storage) -> Launcher:
        launchers.append(Launcher(storage))
        return launchers[-1]

    yield begin
    for launcher in launchers:
        launcher.process.kill()
        launcher.process.communicate()


def seconds_ago(seconds: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(seconds=seconds)).isoformat()


def elsewhere(place: Place) -> dict:
    """The process of a run on another machine."""
    return {"process": place.content()["process"] | {"boot": "of another machine"}}


def test_the_second_run_is_refused_until_the_first_has_released_the_folder(place):
    first = place.take()
    with pytest.raises(FolderBusyError) as raised:
        place.take()
    assert place.content()["run"] == first.run
    since = place.content()["started"][:19].replace("T", " ")
    for said in (place.lock, socket.gethostname(), f"process {os.getpid()}", since, "delete that"):
        assert said in str(raised.value)
    first.release()
    first.release()
    assert place.storage.list_names(f"{place.folder}/_journal") == []
    second = place.take()
    assert second.run != first.run
    second.check()


def test_the_lock_of_a_killed_run_is_no_hindrance(place, launch):
    launcher = launch(place.storage)
    assert launcher.do("take", place.lock) == "done"
    with pytest.raises(FolderBusyError, match=f"process {launcher.process.pid}"):
        place.take()
    launcher.kill()
    place.take().check()
    assert place.content()["pid"] == os.getpid()
    assert place.storage.list_names(f"{place.folder}/_journal") == ["lock.json"]


def test_a_process_that_is_there_is_a_living_run_however_long_it_gave_no_sign(disk):
    disk.take()
    disk.change(beat=seconds_ago(86_400))
    with pytest.raises(FolderBusyError):
        disk.take()


def test_a_process_that_got_the_id_of_a_dead_run_is_another_one(disk):
    disk.take()
    disk.change(process=disk.content()["process"] | {"start": "1"})
    disk.take()


@pytest.mark.parametrize("what", ["boot", "pid_namespace"])
@pytest.mark.parametrize("share", [0.0, 0.9, -0.9])
def test_a_run_of_another_machine_lives_while_its_last_sign_is_near(disk, what, share):
    disk.take()
    process = disk.content()["process"] | {what: "another"}
    disk.change(process=process, host="worker-7", pid=1, beat=seconds_ago(share * STALE_SECONDS))
    with pytest.raises(FolderBusyError, match=r"worker-7 \(process 1\)"):
        disk.take()


@pytest.mark.parametrize("share", [1.1, -1.1, 1000, -1000])
def test_a_run_of_another_machine_without_a_sign_is_dead(place, share):
    place.take()
    place.change(**elsewhere(place), beat=seconds_ago(share * STALE_SECONDS))
    place.take().check()


@pytest.mark.parametrize("process", [None, {"boot": "b", "pid_namespace": "p", "start": "1"}])
def test_without_a_process_the_last_sign_tells(disk, process):
    disk.take()
    disk.change(process=process)
    with pytest.raises(FolderBusyError):
        disk.take()
    disk.change(beat=seconds_ago(1.1 * STALE_SECONDS))
    disk.take()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"run": "x"}'])
def test_a_damaged_lock_counts_by_the_time_at_which_it_was_written(disk, content):
    disk.storage.write(disk.lock, [content])
    with pytest.raises(FolderBusyError, match=r"lock\.json is damaged"):
        disk.take()
    long_ago = datetime.now().timestamp() - 1.1 * STALE_SECONDS
    os.utime(disk.lock, (long_ago, long_ago))
    disk.take().check()


def test_a_damaged_lock_counts_by_its_time_in_stores_too(place):
    place.storage.write(place.lock, [b"{"])
    with pytest.raises(FolderBusyError, match=r"lock\.json is damaged"):
        place.take()


@pytest.mark.parametrize("stale", [False, True])
def test_of_two_runs_that_begin_at_once_one_gets_the_folder(place, launch, stale):
    runs = [launch(place.storage), launch(place.storage)]
    place.take()
    place.change(**elsewhere(place), beat=seconds_ago(2 * STALE_SECONDS))
    dead = place.storage.read(place.lock)
    for number in range(20):
        lock = f"{place.folder}/{number}/lock.json"
        if stale:
            place.storage.write(lock, [dead])
        for run in runs:
            run.tell("take", lock)
        answers = [run.answer() for run in runs]
        assert sorted(answers) == ["FolderBusyError", "done"]
        winner = runs[answers.index("done")]
        assert winner.do("check") == "done"
        assert place.content(lock)["pid"] == winner.process.pid
        assert place.storage.list_names(f"{place.folder}/{number}") == ["lock.json"]


class Paused(Storage):
    """Waits before it writes over a file."""

    waits = threading.Event()
    goes_on = threading.Event()

    def write(self, uri, lines):
        self.waits.set()
        assert self.goes_on.wait(PATIENCE)
        super().write(uri, lines)


def test_while_a_run_takes_the_folder_over_another_one_is_refused(place):
    Paused.waits.clear()
    Paused.goes_on.clear()
    place.take()
    place.change(**elsewhere(place), beat=seconds_ago(2 * STALE_SECONDS))
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(FolderLock.take, Paused(place.storage.options), place.lock)
        assert Paused.waits.wait(PATIENCE)
        with pytest.raises(FolderBusyError, match=f"process {os.getpid()}"):
            place.take()
        Paused.goes_on.set()
        taking.result().check()


def test_a_run_that_is_killed_while_it_takes_the_folder_over_is_no_hindrance(place, launch):
    place.take()
    place.change(**elsewhere(place), beat=seconds_ago(2 * STALE_SECONDS))
    for _ in range(2):
        launcher = launch(place.storage)
        launcher.tell("die", place.lock)
        launcher.process.wait()
    place.take().check()


def test_a_beat_renews_the_time_and_nothing_else(place):
    lock = place.take()
    before = place.content()
    lock.heartbeat()
    after = place.content()
    assert after.pop("beat") > before.pop("beat")
    assert after == before


def test_a_beat_of_a_worker_says_that_the_run_is_more_than_its_launcher(disk, launch):
    launcher, worker = launch(disk.storage), launch(disk.storage)
    assert launcher.do("take", disk.lock) == "done"
    assert worker.do("beat", f"{disk.lock} {disk.content()['run']}") == "done"
    assert disk.content()["pid"] == launcher.process.pid
    launcher.kill()
    with pytest.raises(FolderBusyError):
        disk.take()
    disk.change(beat=seconds_ago(1.1 * STALE_SECONDS))
    disk.take()


def test_a_launcher_that_leaves_keeps_the_folder_for_workers_that_are_yet_to_begin(disk, launch):
    launcher = launch(disk.storage)
    assert launcher.do("take", disk.lock) == "done"
    patience = 10 * STALE_SECONDS
    assert launcher.do("leave", str(patience)) == "done"
    launcher.kill()
    for share in (0.0, 0.9, -0.9):
        disk.change(beat=seconds_ago(share * patience))
        with pytest.raises(FolderBusyError, match=f"process {launcher.process.pid}"):
            disk.take()
    disk.change(beat=seconds_ago(1.1 * patience))
    disk.take().check()
    assert disk.content()["pid"] == os.getpid()


def test_with_the_first_sign_of_a_worker_the_patience_is_that_for_any_run(disk, launch):
    left = disk.take()
    left.hand_over(10 * STALE_SECONDS)
    assert launch(disk.storage).do("beat", f"{disk.lock} {left.run}") == "done"
    with pytest.raises(FolderBusyError):
        disk.take()
    disk.change(beat=seconds_ago(1.1 * STALE_SECONDS))
    disk.take()


def test_who_has_lost_the_folder_cannot_leave_it_to_anyone(place):
    lock = place.take()
    lock.hand_over(5.0)
    place.change(beat=seconds_ago(6.0))
    found = place.take()
    with pytest.raises(FolderTakenError, match=f"run {found.run[:8]}"):
        lock.hand_over(5.0)
    found.check()
    found.release()
    lock.hand_over(5.0)  # the job has ended already
    assert place.storage.list_names(f"{place.folder}/_journal") == []


def test_of_many_workers_one_gives_the_sign(place):
    lock = place.take()
    lock.hand_over(5.0)
    left = place.content()
    lock.heartbeat(3600.0)
    assert place.content() == left
    lock.heartbeat()
    assert place.content()["beat"] > left["beat"]


@pytest.mark.parametrize("age", [3.0, -3.0])
def test_a_sign_that_is_old_or_of_a_clock_that_is_ahead_does_not_spare_one(disk, age):
    lock = disk.take()
    lock.hand_over(5.0)
    disk.change(beat=seconds_ago(age))
    before = disk.content()["beat"]
    lock.heartbeat(2.0)
    assert disk.content()["beat"] != before


def test_the_first_sign_of_a_worker_is_given_however_young_the_launchers_is(disk, launch):
    launcher, worker = launch(disk.storage), launch(disk.storage)
    assert launcher.do("take", disk.lock) == "done"
    assert worker.do("beat", f"{disk.lock} {disk.content()['run']} 3600") == "done"
    launcher.kill()
    with pytest.raises(FolderBusyError):
        disk.take()


def test_a_run_that_has_lost_the_folder_learns_by_whom(place):
    lost = place.take()
    place.change(**elsewhere(place), beat=seconds_ago(2 * STALE_SECONDS))
    found = place.take()
    by_whom = rf"run {found.run[:8]} on .* \(process {os.getpid()}\)"
    for learn in (lost.check, lost.heartbeat):
        with pytest.raises(FolderTakenError, match=by_whom):
            learn()
    lost.release()
    assert place.content()["run"] == found.run
    found.check()


def test_a_run_whose_lock_was_deleted_goes_on_and_leaves_it_deleted(place):
    lock = place.take()
    place.storage.delete_folder(f"{place.folder}/_journal")
    lock.check()
    lock.heartbeat()
    lock.release()
    assert place.storage.list_names(place.folder) == []
    other = place.take()
    with pytest.raises(FolderTakenError):
        lock.heartbeat()
    assert place.content()["run"] == other.run


def test_a_beat_fixes_a_damaged_lock(disk):
    lock = disk.take()
    disk.storage.write(disk.lock, [b""])
    lock.check()
    lock.heartbeat()
    assert disk.content()["run"] == lock.run
    lock.check()


def test_locks_travel_to_the_workers(place):
    lock = place.take()
    copy = pickle.loads(pickle.dumps(lock))
    assert copy == lock
    copy.check()
    copy.release()
    place.take()


class Watched(Storage):
    """Tells when it has written or could not read."""

    wrote = threading.Event()
    failed = threading.Event()

    def read(self, uri):
        try:
            return super().read(uri)
        except Exception:
            self.failed.set()
            raise

    def write(self, uri, lines):
        super().write(uri, lines)
        self.wrote.set()

    def beats(self) -> bool:
        self.wrote.clear()
        return self.wrote.wait(PATIENCE)


@pytest.fixture
def watched(tmp_path) -> Place:
    Watched.wrote.clear()
    Watched.failed.clear()
    return Place(Watched(), str(tmp_path))


def test_a_lock_is_kept_alive_for_as_long_as_the_block_runs(watched):
    lock = watched.take()
    with lock.heartbeat_thread(pytest.fail, seconds=0.01):
        before = watched.content()["beat"]
        assert watched.storage.beats()
        assert watched.storage.beats()
        assert watched.content()["beat"] > before
    last = watched.content()["beat"]
    assert [each.name for each in threading.enumerate() if each.name == "beam-asr-lock"] == []
    assert watched.content()["beat"] == last
    lock.release()
    assert watched.storage.list_names(f"{watched.folder}/_journal") == []


def test_a_storage_that_is_away_for_a_moment_does_not_end_the_beats(watched):
    lock = watched.take()
    with lock.heartbeat_thread(pytest.fail, seconds=0.01):
        assert watched.storage.beats()
        os.rename(f"{watched.folder}/_journal", f"{watched.folder}/away")
        open(f"{watched.folder}/_journal", "w").close()  # so that reading below it is an error
        assert watched.storage.failed.wait(PATIENCE)
        os.unlink(f"{watched.folder}/_journal")
        os.rename(f"{watched.folder}/away", f"{watched.folder}/_journal")
        assert watched.storage.beats()
    lock.check()


def test_a_heartbeat_reports_once_that_its_lock_is_taken(disk):
    lock = disk.take()
    reported, recognized = [], threading.Event()

    def on_taken(error):
        reported.append(error)
        recognized.set()

    with lock.heartbeat_thread(on_taken, seconds=0.01):
        for _ in range(round(PATIENCE / 0.1)):  # a beat that is under way may write over a change
            disk.change(run="another")
            if recognized.wait(0.1):
                break
    assert [type(error) for error in reported] == [FolderTakenError]
    assert "run another" in str(reported[0])
    assert disk.content()["run"] == "another"
