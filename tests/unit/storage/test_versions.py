"""Files that come in short parts, and files that are replaced while they are read."""

from __future__ import annotations

import io
import json
import os
import re

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem

from beam_asr.errors import ReplacedError, StorageError
from beam_asr.inputs import json_lines, parquet_tables, readers
from beam_asr.inputs.tar_clips import TarReader
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, NemoTar, WebDatasetTar
from beam_asr.storage import remote_file, retry
from beam_asr.storage.object_requests import Part
from beam_asr.storage.storage import Storage
from beam_asr.storage.versions import one_version, version_of
from tests.support.servers import proxy
from tests.support.tars import tar_of

FIRST_BLOCK = remote_file.FIRST_BLOCK_BYTES
LINES = b"".join(b'{"audio_filepath": "%d.wav"}\n' % number for number in range(60_000))
OTHER_LINES = LINES.replace(b".wav", b".mp3")  # as long


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)


def through(bucket, address):
    """The bucket's options, with another address of its server."""
    options = json.dumps(bucket.storage_options)
    return json.loads(re.sub(r"127\.0\.0\.1:\d+", address, options))


def address_of(bucket):
    return re.search(r"127\.0\.0\.1:\d+", json.dumps(bucket.storage_options))[0]


def test_an_object_that_comes_in_short_parts_is_read_to_its_end(bucket):
    uri = f"{bucket.uri}/m.jsonl"
    Storage(bucket.storage_options).write(uri, [LINES])
    assert len(LINES) > FIRST_BLOCK
    with proxy(address_of(bucket), 300_000) as address:
        with Storage(through(bucket, address)).open(uri) as file:
            assert file.read() == LINES
        with Storage(through(bucket, address)).open(uri) as file:
            file.seek(-10, io.SEEK_END)
            assert file.read() == LINES[-10:]


class PlainStore(AsyncFileSystem):
    """A store of another package, which gives only bytes, and those in short parts."""

    async def _cat_file(self, path, start=None, end=None, **_):  # noqa: ARG002
        return LINES[start:end][:30_000]

    async def _info(self, path, **_):
        return {"size": len(LINES), "type": "file", "name": path}


def test_an_object_of_an_unknown_store_is_read_to_its_end():
    ranges = remote_file.ObjectRanges(PlainStore(), "b/m.jsonl")
    assert io.BufferedReader(remote_file.RemoteFile(ranges)).read() == LINES


def test_an_object_that_is_decompressed_on_the_way_is_read_whole_or_not_at_all():
    """As GCS's objects with a Content-Encoding are, by the HTTP client."""

    def answering(total):
        async def request(*_):
            return Part(LINES[:5000], total)

        ranges = remote_file.ObjectRanges(PlainStore(), "b/m.jsonl")
        ranges._request = request
        return remote_file.RemoteFile(ranges)

    with io.BufferedReader(answering(total=1000)) as file:
        assert file.seek(0, io.SEEK_END) == 5000
        file.seek(0)
        assert file.read() == LINES[:5000]
    ranges = remote_file.ObjectRanges(PlainStore(), "b/m.jsonl")
    with pytest.raises(StorageError, match="Content-Encoding"):
        ranges._total(Part(LINES, 2 * FIRST_BLOCK - 1), FIRST_BLOCK, 2 * FIRST_BLOCK)
    with pytest.raises(StorageError, match="Content-Encoding"):
        ranges._total(Part(LINES, len(LINES) - 1), 0, FIRST_BLOCK)


def test_the_size_of_a_usual_object_costs_no_request(s3_bucket):
    uri = f"{s3_bucket.uri}/a"
    storage = Storage(s3_bucket.storage_options)
    storage.write(uri, [b"x" * 1000])
    log = s3_bucket.log.read_text()
    with storage.open(uri) as file:
        assert file.read() == b"x" * 1000
    requests = s3_bucket.log.read_text()[len(log) :]
    assert (requests.count("GET"), requests.count("HEAD")) == (1, 0)


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(bucket):
    storage, uri = Storage(bucket.storage_options), f"{bucket.uri}/m.jsonl"
    storage.write(uri, [LINES])
    with storage.open(uri) as file:
        assert file.read(100) == LINES[:100]
        storage.write(uri, [OTHER_LINES])
        with pytest.raises(ReplacedError, match=r"m\.jsonl"):
            file.read()
    with storage.open(uri) as file:
        assert file.read() == OTHER_LINES
        storage.write(uri, [b"short\n"])
        file.seek(FIRST_BLOCK + 10)
        with pytest.raises(ReplacedError):
            file.read(10)
    with storage.open(uri) as file:
        assert file.read() == b"short\n"


@pytest.mark.parametrize("behavior", [{"etag": True}, {"etag": True, "ranges": False}], ids=str)
def test_a_url_whose_file_is_replaced_while_it_is_read_is_an_error(http_server, behavior):
    http_server.files["m.jsonl"] = LINES
    url = http_server.behave("m.jsonl", **behavior)
    with Storage().open(f"{url}?signature=secret") as file:
        file.read(100)
        http_server.files["m.jsonl"] = OTHER_LINES
        if not behavior.get("ranges", True):  # then it was fetched whole
            assert file.read() == LINES[100:]
            return
        with pytest.raises(ReplacedError) as raised:
            file.read()
    assert url in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_url_whose_file_has_another_size_than_before_is_another_file(http_server):
    http_server.files["m.jsonl"] = LINES  # of a server without tags
    for other in (LINES + b"more\n", b"short\n"):
        with Storage().open(http_server.url("m.jsonl")) as file:
            file.read(100)
            http_server.files["m.jsonl"] = other
            with pytest.raises(ReplacedError):
                file.read()
        http_server.files["m.jsonl"] = LINES


def test_a_server_that_states_no_total_is_read_to_the_end(http_server, monkeypatch):
    from tests.support import servers

    http_server.files["m.jsonl"] = LINES
    http_server.behave("m.jsonl", head=403)
    send = servers._Handler.send_header

    def without_total(self, name, value):
        send(self, name, re.sub(r"/\d+$", "/*", value) if name == "Content-Range" else value)

    monkeypatch.setattr(servers._Handler, "send_header", without_total)
    http_server.files["short"] = b"short\n"
    with Storage().open(http_server.url("short")) as file:
        assert file.read() == b"short\n"


def replace_in_place(path, content):
    """As an editor or a download that writes over a file; in no case within a tick of the clock."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**7))


def replace_by_name(path, content):
    """As a program that writes beside a file, and renames."""
    other = path.with_suffix(".new")
    other.write_bytes(content)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**7))
    other.replace(path)


def test_a_local_file_that_is_changed_in_its_place_is_noticed(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(LINES)

    def read():
        with Storage().open(str(path)) as file, one_version(file, str(path)):
            file.read(100)
            replace_in_place(path, OTHER_LINES)
            file.read()

    with pytest.raises(ReplacedError, match=r"m\.jsonl"):
        read()


def test_a_local_file_that_another_one_replaces_is_read_as_it_was(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(LINES)
    with Storage().open(str(path)) as file, one_version(file, str(path)) as version:
        replace_by_name(path, OTHER_LINES)
        assert file.read() == LINES
    with Storage().open(str(path)) as file:
        assert version_of(file) != version
        with pytest.raises(ReplacedError), one_version(file, str(path), version):
            pass


def test_an_error_of_a_mixture_is_not_taken_for_damage(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def read():
        with open(path, "rb") as file, one_version(file, "a"):
            replace_in_place(path, b"new")
            raise ValueError("what was read makes no sense")

    with pytest.raises(ReplacedError) as raised:
        read()
    assert isinstance(raised.value.__cause__, ValueError)


def rows_of(storage, file_range):
    return [row.line for row in readers.read_rows(storage, file_range, "audio_filepath")]


@pytest.mark.parametrize("replace", [replace_in_place, replace_by_name])
def test_the_ranges_of_a_manifest_are_of_one_version(tmp_path, monkeypatch, replace):
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 300_000)
    path, storage = tmp_path / "m.jsonl", Storage()
    path.write_bytes(LINES)
    first, second, *_ = readers.split_file(storage, str(path))
    assert rows_of(storage, first)[0] == '{"audio_filepath": "0.wav"}'
    replace(path, OTHER_LINES)
    with pytest.raises(ReplacedError):
        rows_of(storage, second)


def test_the_ranges_of_a_manifest_in_a_bucket_are_of_one_version(s3_bucket, monkeypatch):
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 300_000)
    uri, storage = f"{s3_bucket.uri}/m.jsonl", Storage(s3_bucket.storage_options)
    storage.write(uri, [LINES])
    first, second, *_ = readers.split_file(storage, uri)
    assert rows_of(storage, first)[0] == '{"audio_filepath": "0.wav"}'
    storage.write(uri, [OTHER_LINES])
    with pytest.raises(ReplacedError):
        rows_of(storage, second)


def test_the_row_groups_of_a_table_are_of_one_version(tmp_path):
    import pyarrow
    from pyarrow import parquet

    def write(path, end):
        names = [f"{number}{end}" for number in range(100)]
        parquet.write_table(pyarrow.table({"audio_filepath": names}), path, row_group_size=10)

    path, storage = tmp_path / "m.parquet", Storage()
    write(path, ".wav")
    first, second, *_ = readers.split_file(storage, str(path))
    assert len(rows_of(storage, first)) == 10 * parquet_tables.RANGE_ROW_GROUPS
    write(tmp_path / "other", ".mp3")
    replace_by_name(path, (tmp_path / "other").read_bytes())
    with pytest.raises(ReplacedError):
        rows_of(storage, second)


def test_a_file_that_is_opened_again_after_a_failure_is_the_same_one(tmp_path):
    fs = fsspec.filesystem("file")
    (tmp_path / "a").write_bytes(b"old" * 10)
    opened = []

    def open_file():
        opened.append(fs.open(str(tmp_path / "a"), "rb"))
        opened[-1].details = fs.info(str(tmp_path / "a"))
        return opened[-1]

    ranges = remote_file.FileRanges(open_file, "a")
    assert ranges.fetch(0, 3, 1) == b"old"
    replace_in_place(tmp_path / "a", b"new" * 10)
    opened[0].close()  # as a connection that breaks
    with pytest.raises(ValueError, match="closed"):
        ranges.fetch(3, 6, 1)
    with pytest.raises(ReplacedError):
        ranges.fetch(3, 6, 1)


def test_a_tar_that_is_written_over_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(("a.wav", b"old"), ("b.wav", b"old")))
    named = NemoTar(str(path), [Clip(Row("{}"), name, 0.0, None) for name in ("a.wav", "b.wav")])
    for tar in (named, WebDatasetTar(str(path))):
        events = TarReader(Storage(), "audio_filepath").events(tar)
        next(events)
        replace_in_place(path, tar_of(("a.wav", b"new"), ("b.wav", b"new")))
        with pytest.raises(ReplacedError):
            list(events)
