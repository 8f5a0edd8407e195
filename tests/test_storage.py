"""Files on any storage: found, read, written whole or not at all."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile

import pytest

from beam_asr import retrying
from beam_asr import storage as storages
from beam_asr.storage import Storage, StorageError, StorageOptionsError


def broken_lines():
    yield b"new\n" * 1000
    raise OSError("disk full")


def test_a_local_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "x.jsonl"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        Storage().write(str(target), broken_lines())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_object_is_written_whole_or_not_at_all(bucket):
    storage, uri = Storage(bucket.storage_options), f"{bucket.uri}/out/x.jsonl"
    with pytest.raises(OSError, match="disk full"):
        storage.write(uri, broken_lines())
    assert not storage.exists(uri)
    storage.write(uri, [b"old\n"])
    with pytest.raises(OSError, match="disk full"):
        storage.write(uri, broken_lines())
    with storage.open(uri) as file:
        assert file.read() == b"old\n"


def test_objects_are_found_read_replaced_and_deleted(bucket):
    storage, folder = Storage(bucket.storage_options), f"{bucket.uri}/a folder"
    assert storage.names_in(folder) == []
    large = bytes(range(256)) * 2**15  # 8 MiB: more than one request, written in parts
    contents = {"a.jsonl": b"x\n", "deep/b.jsonl": large, "none.jsonl": b""}
    for name, content in contents.items():
        storage.write(f"{folder}/{name}", [content])
    assert storage.names_in(folder) == ["a.jsonl", "deep", "none.jsonl"]
    assert storage.is_folder(folder)
    assert not storage.is_folder(f"{folder}/a.jsonl")
    found = storage.find(f"{folder}/**/*.jsonl")
    assert found == storage.find(folder)
    assert [name.rpartition("a folder/")[2] for name in found] == sorted(contents)
    for uri, name in zip(found, sorted(contents), strict=True):
        with storage.open(uri) as file:
            assert file.read() == contents[name]
        assert storage.size(uri) == len(contents[name])
    with storage.open(f"{folder}/deep/b.jsonl") as file:
        file.seek(-300, 2)
        assert file.read(300) == large[-300:]
        file.seek(5_000_000)
        assert file.read(10) == large[5_000_000:5_000_010]

    before = storage.fingerprint(f"{folder}/a.jsonl")
    assert before == storage.fingerprint(f"{folder}/a.jsonl")
    storage.write(f"{folder}/a.jsonl", [b"longer\n"])
    assert before != storage.fingerprint(f"{folder}/a.jsonl")
    with storage.open(f"{folder}/a.jsonl") as file:
        assert file.read() == b"longer\n"
    storage.delete(f"{folder}/a.jsonl")
    storage.delete(f"{folder}/a.jsonl")
    assert storage.names_in(folder) == ["deep", "none.jsonl"]
    with pytest.raises(FileNotFoundError):
        storage.open(f"{folder}/a.jsonl")


def test_a_bucket_that_is_not_there_is_refused_before_anything_is_written(bucket):
    storage = Storage(bucket.storage_options)
    storage.check_writable(f"{bucket.uri}/any/folder")
    with pytest.raises(StorageError, match="no bucket"):
        storage.check_writable(f"{bucket.uri}-none/folder")


def test_a_member_of_an_archive_in_a_bucket_is_read_and_found(bucket, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("lists/m.jsonl", "one\n")
    storage, uri = Storage(bucket.storage_options), f"{bucket.uri}/a.zip"
    storage.write(uri, [(tmp_path / "a.zip").read_bytes()])
    with storage.open(f"zip://lists/m.jsonl::{uri}") as file:
        assert file.read() == b"one\n"
    assert storage.find(f"zip://lists/*.jsonl::{uri}") == [f"zip://lists/m.jsonl::{uri}"]


def test_options_of_one_name_of_a_storage_are_options_of_all_its_names(bucket):
    storage = Storage(bucket.storage_options)
    storage.write(f"{bucket.uri}/a", [b"x"])
    scheme, rest = bucket.uri.split("://")
    others = {"gs": "gcs", "s3": "s3a", "az": "abfs"}
    assert storage.exists(f"{others[scheme]}://{rest}/a")


def test_options_of_other_storages_do_not_reach_one():
    options = {"s3": {"no_such": 1}, "memory": {}, "file": {}}
    Storage(options).write("memory://options/a", [b"x"])
    assert Storage(options).names_in("memory://options") == ["a"]


def test_files_in_memory_are_found():
    storage = Storage()
    storage.write("memory://bucket/folder/a.jsonl", [b"x\n"])
    assert storage.names_in("memory://bucket/folder") == ["a.jsonl"]
    assert storage.find("memory://bucket/**/*.jsonl") == ["memory:///bucket/folder/a.jsonl"]
    storage.delete("memory://bucket/folder/a.jsonl")
    assert storage.names_in("memory://bucket/folder") == []


def test_a_question_mark_in_a_url_is_its_query_and_no_pattern(http_server):
    http_server.files["m.jsonl"] = b"x\n"
    signed = http_server.url("m.jsonl") + "?token=a/b*c"
    assert Storage().find(signed) == [signed]
    assert not Storage().is_folder(signed)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"nosuch": {}}, "nosuch"),
        ({"s3": "key"}, "'s3'"),
        ([], "object"),
    ],
)
def test_wrong_storage_options_are_refused_and_named(options, named):
    with pytest.raises((StorageError, StorageOptionsError), match=named):
        Storage(options)


def test_an_unknown_storage_is_refused_and_named():
    with pytest.raises(StorageError, match=r"'nosuch://b/a'.*nosuch://"):
        Storage().check("nosuch://b/a")


def test_a_storage_that_cannot_be_reached_at_launch_is_named_without_a_traceback(
    http_server, transcribe, tmp_path, monkeypatch
):
    monkeypatch.setattr(retrying, "FIRST_WAIT_SECONDS", 0.01)
    flags = [f"--output={tmp_path / 'out'}", "--model_name=m"]
    for status in (503, 403):
        listed = http_server.behave("m.jsonl", status=status)
        ended, _, errors = transcribe(f"--input={listed}", *flags)
        assert ended == 2
        assert f"cannot tell whether {listed} is there: {status}," in errors
        assert "Traceback" not in errors
    refused = json.dumps({"gs": {"endpoint_url": http_server.address, "token": "anon"}})
    http_server.behave(status=401)
    for flag in ("--input=gs://b/m.jsonl", "--input=gs://b/*.jsonl"):
        ended, _, errors = transcribe(flag, *flags, f"--storage_options={refused}")
        assert (ended, "401" in errors, "Traceback" in errors) == (2, True, False)


MISSING = {
    "s3://b/m.jsonl": "s3",
    "abfs://b/m.jsonl": "azure",
    "hf://datasets/a/b/m.jsonl": "hf",
}


def test_a_missing_package_is_named_at_launch_with_the_command_that_installs_it(tmp_path):
    (tmp_path / "m.jsonl").touch()
    flags = {"--input": tmp_path / "m.jsonl", "--output": tmp_path / "out", "--model_name": "m"}
    launches = [
        [f"{name}={value}" for name, value in (flags | {flag: uri}).items()]
        for uri in MISSING
        for flag in flags
    ]
    script = f"""
import sys
for package in ("s3fs", "adlfs", "huggingface_hub"):
    sys.modules[package] = None  # as if it were not installed
from beam_asr import cli
for args in {launches!r}:
    assert cli.main(["transcribe", *args]) == 2, args
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("beam-asr: error: ")]
    assert len(lines) == len(launches)
    for line, (uri, extra) in zip(lines, [each for each in MISSING.items() for _ in flags]):
        assert uri in line
        assert f"pip install 'beam-asr[{extra}]'" in line


def test_folders_that_are_made_as_they_are_written_need_not_be_there(tmp_path):
    for folder in ("memory://new/folder", str(tmp_path / "new/folder")):
        Storage().check_writable(folder)
        Storage().write(f"{folder}/a", [b"x"])
        assert Storage().names_in(folder) == ["a"]


@pytest.mark.parametrize("folder", ["http://h/out", "zip://out::a.zip", "data://x"])
def test_what_can_only_be_read_is_no_output(folder):
    with pytest.raises(StorageError, match="only read"):
        Storage().check_writable(folder)


def test_storages_travel_to_the_workers():
    storage = Storage({"memory": {}})
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert hash(storage) == hash(Storage({"memory": {}}))
    assert json.dumps(storage.options) == '{"memory": {}}'
    assert storages.protocol_of("zip://a::s3://b/c") == "zip"
