import os
import pickle
import posixpath
import re
import threading
import zipfile
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import fsspec
import fsspec.core
import pytest
import yarl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_asr.errors import AudioError, NotAllowedError
from beam_asr.storage.allow_list import AllowList, RequestNotAllowedError
from beam_asr.storage.storage import Storage

SETTING = "`allowed_audio_prefixes`"


def allows(prefix: str, uri: str) -> bool:
    try:
        AllowList.of([prefix]).check(uri)
    except NotAllowedError:
        return False
    return True


@pytest.fixture
def disk(tmp_path):
    """An allowed folder beside secrets, with links into both."""
    root = tmp_path.resolve()
    for name in ("audio/a.wav", "audio/deep/b.wav", "audio-private/s.wav", "secret/s.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "audio/out").symlink_to(root / "secret")
    (root / "audio/out.wav").symlink_to("../secret/s.wav")
    (root / "audio/in.wav").symlink_to(root / "audio/deep/b.wav")
    (root / "alias").symlink_to(root / "audio")
    (root / "audio/loop").symlink_to("loop")
    return root


# Prefixes


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        " ",
        "gs://",
        "s3:///key",
        "https://",
        "https:///path",
        "https://./x",
        "https://h:port/x",
        "file://data",
        "file://localhost/data",
        "gs:/b",
        "file:/data",
        "://b",
        "/data://b",
        "zip://a::gs://b/x.zip",
        "gs://b/../c",
        "https://h/a/%2e%2e/b",
        "/data/../etc",
        "gs://b/audio?x=1",
        "gs://b/audio#1",
        "https://h/a?b",
        "https://h/a#b",
        "https://user@h/a",
        "https://user:word@h/a",
        "gs://user@b/a",
        "abfs://user:word@account.dfs.core.windows.net/a",
        "sftp://user@h/a",
        "gs://b/*",
        "/data/*",
        "gs://b/a\nb",
        "/data\0",
    ],
)
def test_a_prefix_that_is_none_is_refused_by_name(prefix):
    with pytest.raises(ValueError, match=re.escape(SETTING)) as error:
        AllowList.of(["/data", prefix])
    assert repr(prefix) in str(error.value)


def test_one_string_is_not_taken_for_a_list_of_one_letter_prefixes():
    with pytest.raises(ValueError, match="list"):
        AllowList.of("/data")


def test_local_prefixes_become_absolute_and_real(disk, monkeypatch):
    monkeypatch.chdir(disk)
    given = ["alias", "./audio/", f"file://{disk}/alias", "."]
    audio = str(disk / "audio")
    assert AllowList.of(given).prefixes == (audio, audio, audio, str(disk))
    assert AllowList.of(["/"]).prefixes == ("/",)


def test_equal_settings_are_equal_in_every_respect_and_survive_pickling():
    one, same = (
        AllowList.of(["GS://b/audio/", "/data"]),
        AllowList.of(["gs://b/audio", "/data/"]),
    )
    one.check("gs://b/audio/x")
    for a, b in (
        (one, same),
        (one, pickle.loads(pickle.dumps(one))),
        (one.http_middleware(), same.http_middleware()),
        (one.http_middleware(), pickle.loads(pickle.dumps(one.http_middleware()))),
    ):
        assert (a, hash(a), repr(a)) == (b, hash(b), repr(b))
    assert repr(one.http_middleware()) != repr(AllowList.of(["/data"]).http_middleware())


def test_no_prefix_allows_nothing(disk):
    with pytest.raises(NotAllowedError):
        AllowList.of([]).check(str(disk / "audio/a.wav"))


def test_a_refusal_is_a_clips_error_and_a_permission_error_that_names_the_way_out():
    with pytest.raises(NotAllowedError) as error:
        AllowList.of(["gs://b/audio"]).check("gs://c/x.wav")
    assert isinstance(error.value, AudioError)
    assert isinstance(error.value, PermissionError)
    assert "gs://c/x.wav" in str(error.value)
    assert SETTING in str(error.value)
    with pytest.raises(NotAllowedError) as error:
        AllowList.of(["gs://b/audio"]).check("data:audio/wav;base64," + "A" * 10_000)
    assert SETTING in str(error.value)[:500], "a record keeps the first 500 characters"


# Local files


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("{}/audio/a.wav", "audio/a.wav"),
        ("{}/audio", "audio"),
        ("{}/audio/", "audio"),
        ("{}/audio/not/there.wav", "audio/not/there.wav"),
        ("{}/audio/deep/../a.wav", "audio/a.wav"),
        ("{}/secret/../audio/a.wav", "audio/a.wav"),
        ("{}/alias/a.wav", "audio/a.wav"),
        ("{}/audio/in.wav", "audio/deep/b.wav"),
        ("file://{}/audio/a.wav", "audio/a.wav"),
        ("FILE://{}/audio/a.wav", "audio/a.wav"),
        ("local://{}/audio/a.wav", "audio/a.wav"),
        ("/{}/audio/a.wav", "audio/a.wav"),
        ("audio/a.wav", "audio/a.wav"),
        ("./audio//a.wav", "audio/a.wav"),
        ("~/audio/a.wav", "audio/a.wav"),
        ("{}/audio/ä %2e?#*.wav", "audio/ä %2e?#*.wav"),
        ("/proc/self/cwd/audio/a.wav", "audio/a.wav"),
    ],
)
def test_a_local_file_below_a_prefix_is_allowed_by_its_real_path(disk, monkeypatch, path, real):
    monkeypatch.chdir(disk)
    monkeypatch.setenv("HOME", str(disk))
    checked = AllowList.of([str(disk / "alias")]).check(path.format(disk))
    assert checked == str(disk / real)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "//etc/passwd",
        "file:///etc/passwd",
        "File:///etc/passwd",
        "local:///etc/passwd",
        "file:////etc/passwd",
        "file://localhost/etc/passwd",
        "file:/etc/passwd",
        "file:etc/passwd",
        "~/secret/s.wav",
        "file://~/secret/s.wav",
        "~root/x",
        "secret/s.wav",
        "../etc/passwd",
        "{}/audio-private/s.wav",
        "{}",
        "{}/audio/../secret/s.wav",
        "{}/audio/not-there/../../secret/s.wav",
        "{}/audio/a.wav/../../secret/s.wav",
        "{}/audio/out/s.wav",
        "{}/audio/out/../audio-private/s.wav",
        "{}/audio/out.wav",
        "{}/audio/out/not/there.wav",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd/secret/s.wav",
        "/dev/stdin",
        "{}/audio/a.wav\0",
        "{}/audio/\ud800",
        "",
        " {}/audio/a.wav",
        "{}/audio/x://a.wav",
    ],
)
def test_a_local_file_elsewhere_is_refused_however_it_is_written(disk, monkeypatch, path):
    monkeypatch.chdir(disk)
    monkeypatch.setenv("HOME", str(disk))
    assert not allows(str(disk / "audio"), path.format(disk))


def test_a_refusal_does_not_tell_whether_the_file_exists(disk):
    def refusal(path):
        with pytest.raises(NotAllowedError) as error:
            AllowList.of([str(disk / "audio")]).check(str(path))
        assert error.value.__cause__ is None
        return str(error.value).replace(str(path), "PATH")

    refused = [disk / "secret/s.wav", disk / "secret/none", disk / "audio/out.wav", disk / "secret"]
    assert len({refusal(path) for path in refused}) == 1


def test_a_link_made_after_the_check_is_not_followed(disk):
    later = disk / "audio/in.wav"
    checked = AllowList.of([str(disk / "audio")]).check(str(later))
    later.unlink()
    later.symlink_to(disk / "secret/s.wav")
    assert fsspec.open(checked).open().read() == b"audio/deep/b.wav"


def test_a_folder_that_fsspec_would_take_for_a_chain_is_a_folder(disk):
    inner = disk / "audio/x::" / str(disk / "secret")[1:]
    inner.mkdir(parents=True)
    (inner / "s.wav").write_bytes(b"not the secret")
    (disk / "audio/harmless").symlink_to(disk / "audio/x::")
    requested = str(disk / "audio/harmless" / str(disk / "secret/s.wav")[1:])
    storage = Storage(allowed=AllowList.of([str(disk / "audio")]))
    assert storage.read(requested) == b"not the secret"
    with storage.open(requested) as file:
        assert file.read() == b"not the secret"


def test_a_worker_whose_folder_is_a_link_reads_what_lies_there(disk):
    # Used and pickled where there is no such folder, unpickled where it is a link.
    here = AllowList.of([str(disk / "mount")])
    assert here.check(str(disk / "mount/a.wav"))
    pickled = pickle.dumps(here)
    (disk / "mount").symlink_to(disk / "audio")
    there = pickle.loads(pickled)
    assert there.check(str(disk / "mount/a.wav")) == str(disk / "audio/a.wav")
    with pytest.raises(NotAllowedError):
        there.check(str(disk / "mount/out.wav"))


names = st.sampled_from(
    ["..", ".", "", "audio", "secret", "alias", "out", "out.wav", "deep", "a.wav", "loop", "~", "é"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(segments=st.lists(names, max_size=8), start=st.sampled_from(["", "/audio", "/alias"]))
def test_exactly_what_really_lies_below_a_local_prefix_is_allowed(disk, segments, start):
    path = f"{disk}{start}/" + "/".join(segments)
    real = os.path.realpath(path)
    inside = os.path.commonpath([real, str(disk / "audio")]) == str(disk / "audio")
    for form in (path, f"file://{path}"):
        assert allows(str(disk / "audio"), form) == inside
        if inside:
            assert AllowList.of([str(disk / "audio")]).check(form) == real


# Object stores


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("gs://b", "gs://b/x.wav"),
        ("gs://b/", "gs://b/x.wav"),
        ("gs://b/audio", "gs://b/audio"),
        ("gs://b/audio", "gs://b/audio/x.wav"),
        ("gs://b/audio", "gcs://b/audio/x.wav"),
        ("gcs://b/audio", "GS://b/audio/x.wav"),
        ("gs://b/audio", "gs://b/audio/a b/ä%20[1]*?&@:.wav"),
        ("gs://b/audio", "gs://b/audio/x.wav#1234567890"),
        ("gs://b/audio", "gs://b/audio//x.wav"),
        ("gs://b/audio", "gs://b/audio/a%2520b.wav"),
        ("gs://b/audio", "gs://b/audio/..x/y...wav"),
        ("s3://b/audio", "s3a://b/audio/x.wav?versionId=abc"),
        ("s3a://b/audio", "s3://b/audio/run:1/x.wav"),
        ("az://c/audio", "abfs://c/audio/x.wav"),
        ("abfs://c/audio", "abfss://c/audio/x.wav"),
        ("az://c@a.dfs.core.windows.net/in", "abfss://c@a.dfs.core.windows.net/in/x.wav"),
        ("memory://audio", "memory://audio/x y.wav"),
        ("hdfs://node:8020/audio", "hdfs://node:8020/audio/x.wav"),
    ],
)
def test_an_object_below_a_prefix_is_allowed(prefix, uri):
    scheme, _, rest = uri.partition("://")
    assert AllowList.of([prefix]).check(uri) == f"{scheme.lower()}://{rest}"


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("gs://b/audio", "gs://b"),
        ("gs://b/audio", "gs://b/"),
        ("gs://b/audio", "gs://b/audio-private/x.wav"),
        ("gs://b/audio", "gs://b/AUDIO/x.wav"),
        ("gs://b/audio", "gs://b//audio/x.wav"),
        ("gs://b", "gs://bb/x.wav"),
        ("gs://b", "gs:///b/x.wav"),
        ("gs://b", "gs://gs://c/x.wav"),
        ("gs://b", "gs://b@c/x.wav"),
        ("gs://b", "gs://b?/x.wav"),
        ("gs://b", "s3://b/x.wav"),
        ("gs://b", "gs:b/x.wav"),
        ("gs://b", " gs://b/x.wav"),
        ("gs://b", "g\ts://b/x.wav"),
        ("gs://b/audio", "gs://b/audio/../secret/x.wav"),
        ("gs://b/audio", "gs://b/audio/./x.wav"),
        ("gs://b/audio", "gs://b/audio/%2e%2e/secret/x.wav"),
        ("gs://b/audio", "gs://b/audio/%252e%252e%252fsecret/x.wav"),
        ("gs://b/audio", "gs://b/audio\\..\\secret"),
        ("gs://b/audio", "gs://b/audio/..\\secret"),
        ("gs://b/audio", "gs://b/audio/x\0.wav"),
        ("gs://b/audio", "gs://b/audio/x\n.wav"),
        # gcsfs reads version 5 of the key '1/secret', see GCSFileSystem._split_path.
        ("gs://b/run:1", "gs://b/run:1/secret#5"),
        ("az://c", "az://c@other.dfs.core.windows.net/x.wav"),
        ("az://c@a.dfs.core.windows.net", "az://c/x.wav"),
        ("az://c@a.dfs.core.windows.net", "az://c@evil.dfs.core.windows.net/x.wav"),
        ("az://c@a.dfs.core.windows.net", "az://c:x@a.dfs.core.windows.net/x.wav"),
        ("memory://audio", "memory:///audio/x.wav"),
        ("memory://audio", "memory://secret/x.wav"),
        ("hdfs://node/audio", "hdfs://node@evil/audio/x.wav"),
        ("hdfs://node/audio", "hdfs://node/audio/x.wav?user=root"),
        ("hdfs://node/audio", "hdfs://node:1/audio/x.wav"),
        ("ftp://node/audio", "ftp://node/audio/%2e%2e/x.wav"),
    ],
)
def test_an_object_elsewhere_is_refused(prefix, uri):
    assert not allows(prefix, uri)


@pytest.mark.parametrize(
    "uri",
    [
        "memory://x.wav",
        "data:audio/wav;base64,UklGRg==",
        "data://x",
        "ssh://root@h/etc/passwd",
        "sftp://h/etc/passwd",
        "ftp://h/x.wav",
        "smb://h/share/x.wav",
        "git://path:repo@ref/x",
        "github://org:repo@main/x.wav",
        "jupyter://h/x",
        "hdfs://h/x",
        "webhdfs://h/x",
        "reference://x",
        "generic://gs://b/x",
        "async_wrapper://x",
        "dir://etc/passwd",
        "http://h/x.wav",
        "https://169.254.169.254/latest/meta-data",
        "x://y",
        "1x://y",
        "gs://h/x",
    ],
)
def test_a_scheme_that_no_prefix_names_is_refused(uri):
    with pytest.raises(NotAllowedError):
        AllowList.of(["/audio", "s3://b", "https://h"]).check(uri)


# HTTP


@pytest.mark.parametrize(
    ("prefix", "uri"),
    [
        ("https://h", "https://h/x.wav"),
        ("https://h/", "https://h"),
        ("https://h/audio", "https://h/audio"),
        ("https://h/audio/", "https://h/audio/x.wav?token=/../a%2fb#/../b"),
        ("https://h/audio", "HTTPS://H/audio/x.wav"),
        ("https://h/audio", "https://h:443/audio/x.wav"),
        ("http://h:80/audio", "http://h./audio/x.wav"),
        ("https://H.:443/audio", "https://h/audio/x.wav"),
        ("https://h:8443/audio", "https://h:8443/audio/x.wav"),
        ("https://h/audio", "https://h/%61udio/x.wav"),
        ("https://h/o", "https://h/o/folder%2Fx.wav?alt=media"),
        ("https://h/a b", "https://h/a%20b/ä.wav"),
        ("https://münchen.example", "https://xn--mnchen-3ya.example/x.wav"),
    ],
)
def test_a_url_below_a_prefix_is_allowed(prefix, uri):
    scheme, _, rest = uri.partition("://")
    assert AllowList.of([prefix]).check(uri) == f"{scheme.lower()}://{rest}"


@pytest.mark.parametrize(
    "uri",
    [
        "http://h/audio/x.wav",
        "http://h:443/audio/x.wav",
        "https://h/x.wav",
        "https://h/audio-private/x.wav",
        "https://h/audio;/x.wav",
        "https://h//audio/x.wav",
        "https://h:8443/audio/x.wav",
        "https://hh/audio/x.wav",
        "https://h.evil.example/audio/x.wav",
        "https://evil.example/https://h/audio/x.wav",
        "https://evil.example?https://h/audio/x.wav",
        "https://evil.example#@h/audio/x.wav",
        "https://h@evil.example/audio/x.wav",
        "https://h:443@evil.example/audio/x.wav",
        "https://user:word@h/audio/x.wav",
        "https://evil.example\\@h/audio/x.wav",
        "https://h\\@evil.example/audio/x.wav",
        "https://h\\.evil.example/audio/x.wav",
        "https://evil.example\t@h/audio/x.wav",
        "https://\uff48/audio\uff0fx.wav",
        "https://evil.example\uff0fh/audio/x.wav",
        "https:///h/audio/x.wav",
        "https:/h/audio/x.wav",
        "https:h/audio/x.wav",
        " https://h/audio/x.wav",
        "https://h/audio/../x.wav",
        "https://h/audio/..",
        "https://h/audio/./x.wav",
        "https://h/audio/%2e%2e/x.wav",
        "https://h/audio/.%2E/x.wav",
        "https://h/audio/..%2fx.wav",
        "https://h/audio%2f..%2fx.wav",
        "https://h/audio/%252e%252e/x.wav",
        "https://h/audio/%25252e%25252e/x.wav",
        "https://h/audio/%" + "25" * 30 + "2e./x.wav",
        "https://h/audio/" + "%" + "25" * 50_000 + "2e",
        "https://h/audio/..;/x.wav",
        "https://h/audio/..;a=b/x.wav",
        "https://h/audio/..\\x.wav",
        "https://h/audio/..%5cx.wav",
        "https://h/audio/..%00/x.wav",
        "https://h/audio/.\t./x.wav",
        "https://h/audio/.\n./x.wav",
        "https://h/audio/x\r\nHost: evil",
        "https://h/audio/x%0d%0aHost: evil",
        "https://h/audio/x?\r\nHost: evil",
        "https://h:99999/audio/x.wav",
        "https://h:x/audio/x.wav",
        "https://[::1]/audio/x.wav",
        "https://[/audio/x.wav",
    ],
)
def test_a_url_elsewhere_is_refused_however_it_is_written(uri):
    assert not allows("https://h/audio", uri)


def test_a_host_is_compared_in_the_form_that_the_client_asks_for():
    assert yarl.URL("https://\uff48/").raw_host == "h"
    assert allows("https://h/audio", "https://\uff48/audio/x")
    assert not allows("https://h/audio", "https://\uff48.evil.example/audio/x")


pieces = st.sampled_from(
    ["..", ".", "/", "\\", ";", "@", "#", "?", "%", "25", "2e", "2f", "5c", "%2e", "%2F", "%252e"]
    + ["audio", "x", "h", ":", "\t", "é", "\uff0e", " ", "evil.example", "https://", "//", "%00"]
)


@settings(max_examples=1000)
@given(middle=st.lists(pieces, max_size=3), rest=st.lists(pieces, max_size=8))
def test_no_url_that_is_allowed_is_sent_elsewhere(middle, rest):
    uri = f"https://h{''.join(middle)}/audio/{''.join(rest)}"
    if not allows("https://h/audio", uri):
        return
    sent = yarl.URL(AllowList.of(["https://h/audio"]).check(uri))
    assert (sent.scheme, sent.raw_host.rstrip("."), sent.port) == ("https", "h", 443)
    path = sent.raw_path
    for _ in range(5):  # some decode again, take \ for /, drop what follows a ;
        seen = posixpath.normpath(re.sub(";[^/]*", "", path.replace("\\", "/")))
        assert (seen + "/").startswith("/audio/")
        path = unquote(path)


@settings(max_examples=500)
@given(rest=st.text(max_size=20), scheme=st.sampled_from(["gs", "s3", "https", "memory", "file"]))
def test_what_was_allowed_stays_allowed_and_the_same(rest, scheme):
    allowed = AllowList.of(["gs://b", "s3://b", "https://b", "memory://b", "/"])
    try:
        checked = allowed.check(f"{scheme}://b/{rest}")
    except NotAllowedError:
        return
    assert allowed.check(checked) == checked


# Chains


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("zip://a.wav::gs://b/audio/x.zip", "zip://a.wav::gs://b/audio/x.zip"),
        ("tar://d/a.wav::GS://b/audio/x.tar", "tar://d/a.wav::gs://b/audio/x.tar"),
        ("simplecache::gs://b/audio/x.wav", "simplecache::gs://b/audio/x.wav"),
        ("filecache://::gs://b/audio/x.wav", "filecache://::gs://b/audio/x.wav"),
        ("blockcache::gs://b/audio/x.wav", "blockcache::gs://b/audio/x.wav"),
        ("zip://a::simplecache::gs://b/audio/x", "zip://a::simplecache::gs://b/audio/x"),
        ("zip://a?fo=/etc/passwd::gs://b/audio/x", "zip://a?fo=/etc/passwd::gs://b/audio/x"),
    ],
)
def test_a_chain_is_allowed_by_its_last_link(uri, opened):
    assert AllowList.of(["gs://b/audio"]).check(uri) == opened


@pytest.mark.parametrize(
    "uri",
    [
        "zip://a.wav::gs://b/secret.zip",
        "zip://a.wav::gs://b/audio/../x.zip",
        "gs://b/secret::gs://b/audio/x",
        "/etc/passwd::gs://b/audio/x",
        "file::gs://b/audio/x",
        "::gs://b/audio/x",
        "x::gs://b/audio/x",
        # fsspec opens a cache's own path in the storage of what follows it.
        "simplecache://b/secret::gs://b/audio/x",
        "filecache://b/secret::gs://b/audio/x",
        "blockcache:///b/secret::gs://b/audio/x",
        "zip://a::simplecache://b/secret.zip::gs://b/audio/x",
        "cached::gs://b/audio/x",
        "reference://x::gs://b/audio/x.json",
        "dir://../secret::gs://b/audio",
        "libarchive://x::gs://b/audio/x.7z",
        "generic://x::gs://b/audio/x",
        "async_wrapper::gs://b/audio/x",
        "github://org:repo@main/x::gs://b/audio/x",
        "data://x::gs://b/audio/x",
        "https://h/x::gs://b/audio/x",
        "ZIP://a::gs://b/audio/x",
        "zip::gs://b/audio/x",
        "zip:a::gs://b/audio/x",
        "zip://a::gs://b/audio/x::",
        "zip://a::",
        ":::gs://b/audio/x",
    ],
)
def test_a_chain_that_leads_elsewhere_is_refused(uri):
    assert not allows("gs://b/audio", uri)


@pytest.mark.parametrize("behind", ["secret", "y"])
def test_two_colons_behind_the_name_of_an_object_are_of_its_name(s3_bucket, behind):
    folder = f"{s3_bucket.uri}/audio"
    behind = f"{s3_bucket.uri}/secret" if behind == "secret" else behind
    objects = s3_bucket.filesystem()
    objects.pipe_file(f"{s3_bucket.uri}/secret", b"the secret")
    bucket, _, name = f"{folder}/x::{behind}".removeprefix("s3://").partition("/")
    objects.call_s3("put_object", Bucket=bucket, Key=name, Body=b"of that name")
    storage = Storage(s3_bucket.storage_options, AllowList.of([folder]))
    assert storage.read(f"{folder}/x::{behind}") == b"of that name"


def test_a_chain_opens_the_file_that_was_checked(disk):
    with zipfile.ZipFile(disk / "audio/x.zip", "w") as archive:
        archive.writestr("a.wav", "in the archive")
    (disk / "audio/link.zip").symlink_to(disk / "audio/x.zip")
    (disk / "audio/evil.zip").symlink_to(disk / "secret/x.zip")
    allowed = AllowList.of([str(disk / "audio")])
    real = disk / "audio/x.zip"
    for layers in ("zip://a.wav", "zip://a.wav::simplecache"):
        checked = allowed.check(f"{layers}::{disk}/audio/link.zip")
        assert checked == f"{layers}::{real}"
        fs, path = fsspec.core.url_to_fs(checked)
        assert fs.cat_file(path) == b"in the archive"
        with pytest.raises(NotAllowedError):
            allowed.check(f"{layers}::file://{disk}/audio/evil.zip")


def test_a_caches_own_path_would_escape_if_it_were_let_through(disk):
    chain = f"simplecache://{disk}/secret/s.wav::{disk}/audio/a.wav"
    assert fsspec.open(chain).open().read() == b"secret/s.wav", "fsspec has changed"
    assert not allows(str(disk / "audio"), chain)


# Requests


@contextmanager
def server(answers):
    """An HTTP server: paths to (status, headers, body); gives its address and its requests."""
    requests: Counter = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            requests[path] += 1
            status, headers, body = answers.get(path, (404, {}, b""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


def http(allowed):
    return fsspec.filesystem("http", client_kwargs={"middlewares": (allowed.http_middleware(),)})


def refusal(error):
    """The NotAllowedError behind an error of fsspec's."""
    while not isinstance(error, NotAllowedError):
        error = error.__cause__
    return error


@pytest.fixture
def forbidden():
    with server({"/secret": (200, {}, b"secret"), "/audio/x": (200, {}, b"x")}) as it:
        yield it


@pytest.fixture
def allowed_host(forbidden):
    """A server whose redirects lead back to itself, and to where they must not."""
    elsewhere = f"{forbidden[0]}/secret?signature=word"
    answers = {
        "/audio/x": (200, {}, b"x"),
        "/audio/moved": (302, {"Location": "../audio/x"}, b""),
        "/audio/up": (302, {"Location": "../secret"}, b""),
        "/audio/encoded": (302, {"Location": "/audio/%252e%252e/secret"}, b""),
        "/audio/twice": (302, {"Location": "/audio/302"}, b""),
        "/secret": (200, {}, b"secret"),
    }
    for status in (301, 302, 303, 307, 308):
        answers[f"/audio/{status}"] = (status, {"Location": elsewhere}, b"")
    with server(answers) as it:
        yield it


def calls(fs, url):
    return {
        "cat_file": lambda: fs.cat_file(url),
        "info": lambda: fs.info(url),
        "open": lambda: fs.open(url).read(),
        "open of a known size": lambda: fs.open(url, size=6).read(),
        "stream": lambda: fs.open(url, size=6, block_size=0).read(),
    }


@pytest.mark.parametrize("call", list(calls(None, "")))
@pytest.mark.parametrize("name", ["301", "302", "303", "307", "308", "twice"])
def test_a_redirect_elsewhere_is_refused_before_it_is_followed(allowed_host, forbidden, call, name):
    address, requested = allowed_host
    fs = http(AllowList.of([f"{address}/audio"]))
    with pytest.raises((NotAllowedError, FileNotFoundError)) as error:
        calls(fs, f"{address}/audio/{name}")[call]()
    message = str(refusal(error.value))
    assert f"{forbidden[0]}/secret" in message
    assert SETTING in message
    assert "word" not in message, "a signature in a redirect is no matter for a record"
    assert requested[f"/audio/{name}"]
    assert not forbidden[1]


def test_the_same_redirect_is_followed_without_an_allow_list(allowed_host, forbidden):
    assert fsspec.filesystem("http").cat_file(f"{allowed_host[0]}/audio/302") == b"secret"
    assert forbidden[1]["/secret"] == 1


@pytest.mark.parametrize("name", ["up", "encoded"])
def test_a_redirect_on_an_allowed_host_stays_below_the_prefix(allowed_host, name):
    address, requested = allowed_host
    with pytest.raises(RequestNotAllowedError):
        http(AllowList.of([f"{address}/audio"])).cat_file(f"{address}/audio/{name}")
    assert list(requested) == [f"/audio/{name}"]


def test_redirects_between_allowed_places_are_followed(allowed_host, forbidden):
    address, _ = allowed_host
    fs = http(AllowList.of([f"{address}/audio", forbidden[0]]))
    url = f"{address}/audio/moved"
    assert fs.cat_file(url) == b"x"
    assert fs.info(url)["size"] == 1
    assert fs.open(url).read() == b"x"
    assert fs.cat_file(f"{address}/audio/302") == b"secret"


def test_a_request_that_nobody_checked_is_refused_too(forbidden):
    with pytest.raises(RequestNotAllowedError):
        http(AllowList.of(["http://127.0.0.1:1/audio"])).cat_file(f"{forbidden[0]}/audio/x")
    assert not forbidden[1]


def test_redirects_of_archives_and_caches_are_refused_too(allowed_host, forbidden):
    address, _ = allowed_host
    allowed = AllowList.of([f"{address}/audio"])
    options = {"http": {"client_kwargs": {"middlewares": (allowed.http_middleware(),)}}}
    for layers in ("zip://a", "tar://a", "simplecache", "filecache", "zip://a::simplecache"):
        location = allowed.check(f"{layers}::{address}/audio/302")
        with pytest.raises((NotAllowedError, FileNotFoundError)) as error:
            fsspec.open(location, **options).open().read()
        assert refusal(error.value)
    assert not forbidden[1]


def test_equal_allow_lists_share_connections_and_others_do_not(allowed_host):
    address, _ = allowed_host
    one = http(AllowList.of([f"{address}/audio"]))
    assert http(AllowList.of([f"{address}/audio/"])) is one
    assert http(AllowList.of([address])) is not one
