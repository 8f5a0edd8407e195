"""Files on a disk: written whole or not at all."""

from __future__ import annotations

import builtins
import errno
import os
import signal
import subprocess
import sys

import pytest

from beam_asr.errors import WriteError
from beam_asr.storage import local_files, retry
from beam_asr.storage.storage import Storage
from tests.support.broken_lines import broken_lines


def test_a_local_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "x.jsonl"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        Storage().write(str(target), broken_lines())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_created_on_a_disk_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert Storage().create_exclusive(str(tmp_path / "a"), b"first")
    assert not Storage().create_exclusive(str(tmp_path / "a"), b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a"]


WRITER = """
import sys
from beam_asr.storage.storage import Storage

def lines():
    yield b"x" * 2**20
    print("writing", flush=True)
    sys.stdin.readline()
    yield b"end"

Storage().write(sys.argv[1], lines())
"""


def test_what_dead_writers_left_is_deleted_and_what_is_written_stays(tmp_path):
    dead, living = (
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / name)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("dead.jsonl", "living.jsonl")
    )
    with dead, living:
        for writer in (dead, living):
            assert writer.stdout.readline() == b"writing\n"
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        others = ["a.part", f"{'0' * 32}.part", f"a.{'g' * 32}.part", f"a.{'0' * 32}.part.txt"]
        for name in others:
            (tmp_path / name).touch()
        (tmp_path / f"folder.{'0' * 32}.part").mkdir()
        assert len(os.listdir(tmp_path)) == len(others) + 3
        (deleted,) = Storage().delete_leftovers(str(tmp_path))
        assert deleted.startswith("dead.jsonl.")
        assert Storage().delete_leftovers(str(tmp_path)) == []
        living.stdin.write(b"\n")
        living.stdin.flush()
        assert living.wait() == 0
    assert (tmp_path / "living.jsonl").stat().st_size == 2**20 + 3
    left = {*others, "living.jsonl", f"folder.{'0' * 32}.part"}
    assert set(os.listdir(tmp_path)) == left
    assert Storage().delete_leftovers(str(tmp_path / "none")) == []


def test_files_of_writers_that_cannot_be_identified_are_leftovers_when_they_are_old(
    tmp_path, monkeypatch
):
    import fcntl

    def refuse(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    Storage().write(str(tmp_path / "a"), [b"x"])
    old, new = (tmp_path / f"{name}.{'0' * 32}.part" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    assert Storage().delete_leftovers(str(tmp_path)) == [old.name]
    assert new.exists()


@pytest.mark.parametrize("way", ["write", "create"])
def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_too(tmp_path, monkeypatch, way):
    done = []
    for name in ("fsync", "replace", "link"):
        real = getattr(os, name)

        def traced(*args, real=real, name=name):
            if name == "fsync":
                done.append(os.readlink(f"/proc/self/fd/{args[0]}"))
            else:
                done.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, traced)
    target = str(tmp_path / "a")
    if way == "write":
        Storage().write(target, [b"x"])
    else:
        Storage().create_exclusive(target, b"x")
    part, named, folder = done
    assert local_files.PARTIAL_FILE.fullmatch(os.path.basename(part))
    assert (named, folder) == ("replace" if way == "write" else "link", str(tmp_path))


def test_a_disk_that_fails_after_a_file_was_created_ends_the_writing(tmp_path, monkeypatch):
    stat = os.stat

    def failing(path, *args, **kwargs):
        if str(path).endswith(".part"):
            raise OSError(errno.EIO, "the disk fails")
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(WriteError, match="the disk fails"):
        Storage().write(str(tmp_path / "a"), [b"a"])
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


def test_a_small_file_is_read_and_created_again_after_a_stale_handle(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    fsync, stale = os.fsync, [OSError(errno.ESTALE, "stale")]

    def once(descriptor):
        if stale:
            raise stale.pop()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", once)
    assert Storage().create_exclusive(str(tmp_path / "a"), b"content")
    assert os.listdir(tmp_path) == ["a"]

    stale.append(OSError(errno.ESTALE, "stale"))
    opened = builtins.open

    def stale_once(*args, **kwargs):
        if stale:
            raise stale.pop()
        return opened(*args, **kwargs)

    monkeypatch.setattr(builtins, "open", stale_once)
    assert Storage().read(str(tmp_path / "a")) == b"content"
