"""Files on any storage: found, read, written whole or not at all."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest
import s3fs

from beam_asr.errors import StorageError, StorageOptionsError, StorageReadError
from beam_asr.storage import deletion, retry
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import protocol_of
from tests.support.broken_lines import broken_lines


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
    assert storage.list_names(folder) == []
    large = bytes(range(256)) * 2**15  # 8 MiB: more than one request, written in parts
    contents = {"a.jsonl": b"x\n", "deep/b.jsonl": large, "none.jsonl": b""}
    for name, content in contents.items():
        storage.write(f"{folder}/{name}", [content])
    assert storage.list_names(folder) == ["a.jsonl", "deep", "none.jsonl"]
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
    assert storage.list_names(folder) == ["deep", "none.jsonl"]
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
    assert Storage(options).list_names("memory://options") == ["a"]


def test_files_in_memory_are_found():
    storage = Storage()
    storage.write("memory://bucket/folder/a.jsonl", [b"x\n"])
    assert storage.list_names("memory://bucket/folder") == ["a.jsonl"]
    assert storage.find("memory://bucket/**/*.jsonl") == ["memory:///bucket/folder/a.jsonl"]
    storage.delete("memory://bucket/folder/a.jsonl")
    assert storage.list_names("memory://bucket/folder") == []


def test_a_question_mark_in_a_url_is_its_query_and_no_pattern(http_server):
    http_server.files["m.jsonl"] = b"x\n"
    signed = http_server.url("m.jsonl") + "?token=a/b*c"
    assert Storage().find(signed) == [signed]
    assert not Storage().is_folder(signed)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"nosuch": {}}, "nosuch"),
        ({"s3": "a-secret"}, "'s3'"),
        ({"s3": ["a-secret"]}, "'s3'"),
        ([], "object"),
        (["a-secret"], "object"),
    ],
)
def test_wrong_storage_options_are_refused_and_named(options, named):
    with pytest.raises((StorageError, StorageOptionsError), match=named) as raised:
        Storage(options)
    assert "a-secret" not in str(raised.value)


def test_storage_options_are_not_in_what_is_logged_of_a_storage():
    assert "a-secret" not in repr(Storage({"s3": {"secret": "a-secret"}}))


def test_an_unknown_storage_is_refused_and_named():
    with pytest.raises(StorageError, match=r"'nosuch://b/a'.*nosuch://"):
        Storage().check("nosuch://b/a")


def test_a_storage_that_cannot_be_reached_at_launch_is_named_without_a_traceback(
    http_server, transcribe, tmp_path, monkeypatch
):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
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


def test_what_a_store_refuses_to_list_or_to_read_is_named_with_the_reason(http_server):
    http_server.behave(status=403)
    storage = Storage({"gs": {"endpoint_url": http_server.address, "token": "anon"}})
    for action, request in (
        ("list", storage.list_names),
        ("list", lambda _: storage.find("gs://b/out/*")),
        ("look up", storage.exists),
        ("read", storage.read),
    ):
        with pytest.raises(StorageReadError, match=f"cannot {action} gs://b/out.*: access is refu"):
            request("gs://b/out")


MISSING = {
    "gs://b/m.jsonl": "gcp",
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
for package in ("gcsfs", "s3fs", "adlfs", "huggingface_hub"):
    sys.modules[package] = None  # as if it were not installed
from beam_asr.cli import main as cli
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
        assert Storage().list_names(folder) == ["a"]


@pytest.mark.parametrize("folder", ["http://h/out", "zip://out::a.zip", "data://x"])
def test_what_can_only_be_read_is_no_output(folder):
    with pytest.raises(StorageError, match="only read"):
        Storage().check_writable(folder)


ODD_NAMES = [
    *"h#1 q?x=1 pct%41%2F star* [ab] {a,b} ü漢😀 plus+&= 'quoted\" semi;comma, <x>&amp;".split(),
    *("a", "a b", "back\\slash", "~tilde", "a:b"),
]


@pytest.fixture(params=["disk", "memory", "gs", "s3", "az"])
def place(request, tmp_path):
    """A storage, and a folder there."""
    if request.param == "disk":
        return Storage(), str(tmp_path)
    if request.param == "memory":
        return Storage(), f"memory://{tmp_path.name}"
    bucket = request.getfixturevalue(f"{request.param}_bucket")
    return Storage(bucket.storage_options), bucket.uri


def write_many(storage, uris):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: storage.write(uri, [b"x"]), uris))


def test_a_file_is_created_only_if_there_is_none(place):
    storage, folder = place
    uri = f"{folder}/new folder/a.json"
    assert storage.create_exclusive(uri, b"first")
    assert not storage.create_exclusive(uri, b"second")
    assert storage.read(uri) == b"first"
    assert storage.list_names(f"{folder}/new folder") == ["a.json"]
    storage.delete(uri)
    assert storage.create_exclusive(uri, b"third")
    assert storage.create_exclusive(f"{folder}/new folder/empty", b"")
    assert not storage.create_exclusive(f"{folder}/new folder/empty", b"x")
    assert storage.read(f"{folder}/new folder/empty") == b""


def test_a_file_stays_where_a_server_of_s3_knows_no_conditions(s3_bucket, monkeypatch):
    with_conditions = s3fs.S3FileSystem._pipe_file

    async def put(self, path, content, mode):  # noqa: ARG001
        return await with_conditions(self, path, content)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", put)
    storage = Storage(s3_bucket.storage_options)
    assert storage.create_exclusive(f"{s3_bucket.uri}/a", b"first")
    assert not storage.create_exclusive(f"{s3_bucket.uri}/a", b"second")
    assert storage.read(f"{s3_bucket.uri}/a") == b"first"


@pytest.mark.parametrize("place", ["disk", "gs", "s3", "az"], indirect=True)
def test_of_many_who_create_a_file_at_once_one_does(place):
    storage, folder = place
    for number in range(5):
        uri, start = f"{folder}/{number}", threading.Barrier(8)

        def create(content, uri=uri, start=start):
            start.wait()
            return storage.create_exclusive(uri, content)

        contents = [b"%d" % n * 1000 for n in range(8)]
        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(create, contents))
        assert sum(created) == 1
        assert storage.read(uri) == contents[created.index(True)]


def test_a_file_is_read_as_another_process_left_it(place):
    storage, folder = place
    uri = f"{folder}/deep/a"
    with pytest.raises(FileNotFoundError):
        storage.read(uri)
    storage.write(uri, [b"old"])
    assert storage.find(folder) != []  # which a file system may remember
    script = (
        "import json, sys; from beam_asr.storage.storage import Storage\n"
        "Storage(json.loads(sys.argv[1])).write(sys.argv[2], [b'new' * 10**6])"
    )
    if not folder.startswith("memory:"):
        options = json.dumps(storage.options)
        subprocess.run([sys.executable, "-c", script, options, uri], check=True)
        assert storage.read(uri) == b"new" * 10**6
        script = script.replace("write", "delete").replace(", [b'new' * 10**6]", "")
        subprocess.run([sys.executable, "-c", script, options, uri], check=True)
        with pytest.raises(FileNotFoundError):
            storage.read(uri)
        assert storage.create_exclusive(uri, b"newer")
        assert storage.read(uri) == b"newer"


def test_reading_is_tried_again(http_server, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    http_server.files["a"] = b"content"
    for fault in ({"status": 503}, {"cut": 0.5}):
        http_server.behave("a", **fault, times=2)
        assert Storage().read(http_server.url("a")) == b"content"
    with pytest.raises(FileNotFoundError):
        Storage().read(http_server.url("none"))


def test_the_time_of_a_file_is_that_of_its_last_write(place):
    storage, folder = place
    with pytest.raises(FileNotFoundError):
        storage.modified(f"{folder}/a")
    storage.write(f"{folder}/a", [b"x"])
    assert abs((datetime.now(timezone.utc) - storage.modified(f"{folder}/a")).total_seconds()) < 60


def test_s3_deletes_a_thousand_objects_with_one_request(s3_bucket):
    fs, folder = Storage(s3_bucket.storage_options)._file_system(s3_bucket.uri)
    log = s3_bucket.log.read_text()
    deletion.delete_objects(fs, [f"{folder}/{n}" for n in range(1500)])
    requests = s3_bucket.log.read_text()[len(log) :]
    assert requests.count("POST") == 2
    assert "DELETE" not in requests


def test_what_s3_does_not_delete_is_an_error(http_server):
    options = {"endpoint_url": http_server.address, "key": "k", "secret": "s"}
    fs, _ = Storage({"s3": options})._file_system("s3://bucket")
    with pytest.raises(OSError, match="Not Implemented"):  # this server knows no DELETE
        deletion.delete_objects(fs, ["bucket/a", "bucket/b"])


def test_a_folder_is_deleted_with_all_below_it_and_nothing_beside_it(place):
    storage, root = place
    folder = f"{root}/out [a]*"
    inside = [f"{folder}/{n:03}.json" for n in range(200)]
    inside += [f"{folder}/odd/deep/{name}" for name in ODD_NAMES]
    beside = [f"{root}/out [a]*2/x", f"{root}/out [a]x", f"{root}/out a/x"]
    write_many(storage, inside + beside)
    storage.write(f"{folder}/empty", [])
    storage.delete_folder(folder)
    assert storage.list_names(folder) == []
    assert not storage.is_folder(folder)
    assert storage.list_names(root) == ["out [a]*2", "out [a]x", "out a"]
    storage.delete_folder(folder)
    assert all(storage.exist_many(beside))


@pytest.mark.parametrize("place", ["memory", "gs", "s3", "az"], indirect=True)
def test_a_file_is_no_folder_to_be_deleted(place):
    storage, root = place
    storage.write(f"{root}/a", [b"x"])
    storage.delete_folder(f"{root}/a")
    assert storage.list_names(root) == ["a"]


@pytest.mark.parametrize("place", ["disk", "memory"], indirect=True)
def test_a_folder_is_deleted_with_the_empty_folders_in_it(place):
    storage, root = place
    fs, path = storage._file_system(root)
    fs.makedirs(f"{path}/out/empty/deeper")
    fs.makedirs(f"{path}/out/other")
    storage.write(f"{root}/out/other/a", [b"x"])
    storage.delete_folder(f"{root}/out")
    assert not fs.exists(f"{path}/out")


def objects_of(bucket):
    """The keys of all objects as the store has them, those that stand for folders too."""
    fs = bucket.filesystem()
    root = bucket.uri.partition("://")[2]
    if bucket.uri.startswith("s3:"):
        answer = fs.call_s3("list_objects_v2", Bucket=root)
        return [item["Key"] for item in answer.get("Contents", [])]
    return [name.partition("/")[2] for name in fs.find(root)]


@pytest.mark.parametrize("store", ["gs", "s3"])
def test_objects_that_a_console_makes_for_folders_are_no_files_and_go_with_them(store, request):
    bucket = request.getfixturevalue(f"{store}_bucket")
    storage, root = Storage(bucket.storage_options), bucket.uri.partition("://")[2]
    fs = bucket.filesystem()
    for mark in ("out/", "out/empty/", "out/full/", "beside/"):
        if store == "s3":  # s3fs would leave out the slash
            fs.call_s3("put_object", Bucket=root, Key=mark, Body=b"")
        else:
            fs.pipe_file(f"{root}/{mark}", b"")
    assert "out/empty/" in objects_of(bucket)
    assert storage.list_names(f"{bucket.uri}/out/empty") == []
    storage.write(f"{bucket.uri}/out/full/a", [b"x"])
    assert storage.list_names(f"{bucket.uri}/out") == ["empty", "full"]
    storage.delete_folder(f"{bucket.uri}/out")
    assert objects_of(bucket) == ["beside/"]
    storage.delete_folder(f"{bucket.uri}/beside")
    assert objects_of(bucket) == []


@pytest.mark.parametrize("place", ["gs", "s3"], indirect=True)
def test_the_names_in_a_folder_are_those_of_all_pages(place):
    storage, root = place
    names = [f"{n:05}.json" for n in range(1005)]  # a page is a thousand
    fs, path = storage._file_system(f"{root}/many")
    fs.pipe({f"{path}/{name}": b"x" for name in names})
    assert storage.list_names(f"{root}/many") == names
    storage.delete_folder(f"{root}/many")
    assert storage.list_names(f"{root}/many") == []


def test_in_a_bucket_nothing_is_taken_for_a_leftover(gs_bucket, tmp_path, monkeypatch):
    storage, name = Storage(gs_bucket.storage_options), f"a.{'0' * 32}.part"
    monkeypatch.chdir(tmp_path)
    places = [gs_bucket.uri, gs_bucket.uri.partition("://")[2]]  # and a folder of the same name
    for place in places:
        storage.write(f"{place}/{name}", [b"x"])
    assert storage.delete_leftovers(gs_bucket.uri) == []
    assert [storage.list_names(place) for place in places] == [[name], [name]]


def test_storages_travel_to_the_workers():
    storage = Storage({"memory": {}})
    assert pickle.loads(pickle.dumps(storage)) == storage
    assert hash(storage) == hash(Storage({"memory": {}}))
    assert json.dumps(storage.options) == '{"memory": {}}'
    assert protocol_of("zip://a::s3://b/c") == "zip"
