"""Network file systems lose a file for a moment (ESTALE): all is tried again, nothing is lost."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from beam_asr.errors import ReplacedError, StorageReadError, WriteError
from beam_asr.inputs import discovery
from beam_asr.storage import listing, local_files, retry
from beam_asr.storage.storage import Storage

LASTING = 10**6


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "a file")


@pytest.fixture
def stale(monkeypatch) -> Callable[..., list[int]]:
    """Has a function raise ESTALE, or another error, the first times that it is called."""

    def make(owner: Any, name: str, times: int = 1, number: int = errno.ESTALE) -> list[int]:
        left, function = [times], getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise error(number)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)
        return left

    return make


@pytest.mark.parametrize("name", ["makedirs", "stat", "fsync", "replace"])
def test_a_file_is_written_again(tmp_path, stale, name):
    left = stale(os, name)
    Storage().write(str(tmp_path / "a"), [b"one ", b"two"])
    assert (left, (tmp_path / "a").read_bytes()) == ([0], b"one two")
    assert os.listdir(tmp_path) == ["a"]


def test_what_can_be_iterated_only_once_is_not_written_again_without_its_start(tmp_path, stale):
    stale(os, "fsync")
    with pytest.raises(WriteError, match=os.strerror(errno.ESTALE)):
        Storage().write(str(tmp_path / "a"), iter([b"one"]))
    assert os.listdir(tmp_path) == []


def test_a_folder_is_deleted(tmp_path, stale):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    left = stale(shutil.os, "unlink")
    Storage().delete_folder(str(tmp_path / "in"))
    assert (left, os.listdir(tmp_path)) == ([0], [])


class LosingFile(io.FileIO):
    """A file whose handle is stale from the third read on, until it is opened again."""

    reads, before_error = 0, staticmethod(lambda: None)

    def _count(self) -> None:
        self.reads += 1
        if self.reads == 3:
            self.before_error()
            raise error(errno.ESTALE)

    def readinto(self, buffer: Any) -> int:
        self._count()
        return super().readinto(memoryview(buffer)[:5])

    def read(self, size: int = -1) -> bytes:
        self._count()
        return super().read(min(size, 5))


@pytest.fixture
def losing(monkeypatch) -> type:
    class Losing(local_files.LocalFile, LosingFile):
        pass

    monkeypatch.setattr("beam_asr.storage.storage.LocalFile", Losing)
    return Losing


@pytest.mark.parametrize(
    "read",
    [lambda file: file.read(), lambda file: b"".join(file), lambda file: file.raw.readall()],
)
@pytest.mark.usefixtures("losing")
def test_an_open_file_is_read_on_where_it_was_lost(tmp_path, read):
    content = b"".join(b"line %d\n" % n for n in range(9))
    (tmp_path / "m.jsonl").write_bytes(content)
    with Storage().open(str(tmp_path / "m.jsonl")) as file:
        assert read(file) == content
        assert file.raw.reads > 3


def test_another_file_in_its_place_is_not_read_on(tmp_path, losing):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"the first version")
    losing.before_error = staticmethod(lambda: path.write_bytes(b"another version"))
    with Storage().open(str(path)) as file, pytest.raises(ReplacedError, match="was replaced"):
        file.read()


def test_an_input_that_cannot_be_looked_up_is_not_said_to_be_missing(tmp_path, stale):
    path = tmp_path / "m.jsonl"
    path.touch()
    left = stale(os, "stat", 2)
    assert discovery.find_files(Storage(), str(path)) == [str(path)]
    assert left == [0]
    for number in (errno.ESTALE, errno.EIO, errno.EACCES):
        stale(os, "stat", LASTING, number)
        with pytest.raises(StorageReadError, match=f"cannot look up {path}: "):
            discovery.find_files(Storage(), str(path))


@pytest.mark.parametrize("name", ["none", "m.jsonl/a", "a" * 300, "a\0b", "self"])
def test_what_cannot_be_there_does_not_exist(tmp_path, name):
    (tmp_path / "m.jsonl").touch()
    (tmp_path / "self").symlink_to("self")
    assert not Storage().exists(f"{tmp_path}/{name}")
    assert not Storage().is_folder(f"{tmp_path}/{name}")


@pytest.mark.parametrize("pattern", ["", "/*.wav", "/**"])
@pytest.mark.parametrize("name", ["stat", "scandir"])
def test_a_folder_is_listed_again(tmp_path, stale, pattern, name):
    (tmp_path / "a.wav").touch()
    left = stale(os, name)
    assert Storage().find(f"{tmp_path}{pattern}") == [f"{tmp_path}/a.wav"]
    assert left == [0]
    stale(os, name, LASTING, errno.EIO)
    with pytest.raises(StorageReadError, match="the disk fails: look at the system's log"):
        Storage().find(f"{tmp_path}{pattern}")


class Entry:
    """An entry of a folder whose kind the system must look up, as NFS may."""

    name, path = "a.wav", "in/a.wav"

    def __init__(self, errors: list[int]):
        self.errors = errors

    def is_dir(self) -> bool:
        if self.errors:
            raise error(self.errors.pop())
        return False

    def is_file(self) -> bool:
        return True

    def is_symlink(self) -> bool:
        return False


@pytest.mark.parametrize("errors", [[errno.ESTALE], [errno.EIO]])
def test_a_file_that_cannot_be_looked_up_is_no_broken_link(tmp_path, monkeypatch, errors):
    lasting = errors == [errno.EIO]
    monkeypatch.setattr(listing, "_entries", lambda _: [Entry(errors)])
    if lasting:
        with pytest.raises(StorageReadError, match=f"cannot list {tmp_path}: the disk fails"):
            Storage().find(str(tmp_path))
    else:
        assert Storage().find(str(tmp_path)) == ["in/a.wav"]
