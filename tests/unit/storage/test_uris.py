"""What the name of a file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_asr.storage import uris
from beam_asr.storage.file_kinds import is_audio
from beam_asr.storage.storage import Storage


@pytest.mark.parametrize(
    ("name", "audio"),
    [
        ("gs://b/a.FLAC", True),
        ("https://h/a.mp3?token=x.json", True),
        ("https://h/a.json?token=x.mp3", False),
        ("/calls/1599(22?02).wav", True),
        ("s3://b/is it?.wav", True),
        ("gs://b/a.wav?x", False),
        ("zip://in/a.wav::s3://b/c.zip", True),
        ("simplecache::https://h/a.wav?x=.json", True),
        ("a::b.wav", True),
        ("a.jsonl", False),
        ("wav", False),
        ("a.wav.txt", False),
    ],
)
def test_audio_is_known_by_its_name(name, audio):
    assert is_audio(name) == audio


@pytest.mark.parametrize(
    "name",
    ["a::b.wav", "/x/a::b.wav", "gs::1.wav", "s3://b/a::b.wav", "https://h/a::b", "gs://b/::"],
)
def test_a_name_with_two_colons_is_no_chain(name):
    assert uris.split_chain(name) == [name]


@pytest.mark.parametrize(
    "chain",
    [
        "zip://a.wav::s3://b/c.zip",
        "tar://a::b.tar",
        "simplecache::s3://b/a.wav",
        "filecache://::gs://b/a.wav",
        "zip://a::simplecache::https://h/c.zip",
        "ours://a::s3://b/c.zip",
    ],
)
def test_links_of_protocols_that_wrap_others_are_a_chain(chain):
    assert uris.split_chain(chain) == chain.split("::")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/call%20one%20%C3%A9.wav", "/a/call one é.wav"),
        ("file:/a/call%20one.wav", "/a/call one.wav"),
        ("FILE:///a/50%25.wav", "/a/50%.wav"),
        ("file://localhost/a/x.wav", "/a/x.wav"),
        ("file://LOCALHOST/a%3Fx.wav", "/a?x.wav"),
        ("file:///a/x?y#z.wav", "/a/x?y#z.wav"),
        ("file://calls/x%20y.wav", "calls/x y.wav"),
        ("local:///a/x%20y.wav", "/a/x%20y.wav"),
        ("/a/x%20y.wav", "/a/x%20y.wav"),
        ("x%20y.wav", "x%20y.wav"),
        ("file:///a/100%.wav", "/a/100%.wav"),
        ("file:///a/%E9.wav", "/a/\udce9.wav"),  # a name that is not UTF-8
    ],
)
def test_a_file_uri_is_decoded_and_a_path_is_not(uri, path):
    assert uris.local_path(uri) == path
    assert uris.is_local(uri)


@pytest.mark.parametrize("name", ["call one é.wav", "100%.wav", "50%25.wav", "a#b?c.wav", "~x.wav"])
def test_a_file_is_found_by_its_uri_and_by_its_name_after_the_scheme(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"it")
    for uri in (
        path.as_uri(),
        path.as_uri().replace("file://", "file://localhost"),
        f"file://{path}",
    ):
        assert Storage().find(uri) == [uri]
        assert Storage().read(uri) == b"it"
        assert Storage().size(uri) == 2


def test_a_folder_is_listed_by_its_uri(tmp_path):
    folder = tmp_path / "two words"
    folder.mkdir()
    (folder / "a%20b.wav").touch()
    assert Storage().find(folder.as_uri()) == [str(folder / "a%20b.wav")]
    assert Storage().find(f"{folder.as_uri()}/*.wav") == [str(folder / "a%20b.wav")]


def test_a_uri_that_may_be_read_in_two_ways_is_percent_encoded(tmp_path):
    (tmp_path / "a b").write_bytes(b"decoded")
    Path(tmp_path / "a%20b").write_bytes(b"as written")
    assert Storage().read(f"file://{tmp_path}/a%20b") == b"decoded"
    assert Storage().read(f"{tmp_path}/a%20b") == b"as written"


def test_no_query_of_a_url_is_shown():
    assert uris.without_query("https://h/a?X-Signature=s") == "https://h/a"
    assert uris.without_query("zip://a?::https://h/a.zip?s") == "zip://a?::https://h/a.zip"
    assert uris.without_query("s3://b/is it?.wav") == "s3://b/is it?.wav"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/a?X-Signature=s%2B/+=&b='(1),'", "https://h/a?...),'"),
        ("'https://h/a?sig=s' matches no file", "'https://h/a?...' matches no file"),
        ("https://h/a.wav?sig=s: no such file", "https://h/a.wav?...: no such file"),
        ("(HTTPS://h/a?s). Then", "(HTTPS://h/a?...). Then"),
        ("--input=http://h/a?s,http://h/b?t", "--input=http://h/a?..."),
        ("zip://a?::https://h/a.zip?s", "zip://a?::https://h/a.zip?..."),
        ('{"url": "https://h/a?s", "b": 1}', '{"url": "https://h/a?...", "b": 1}'),
        ("https://h/a?... is it? yes", "https://h/a?... is it? yes"),
        ("sftp://me:secret@h/a ftp://me@h/b", "sftp://h/a ftp://me@h/b"),
        ("https://me:secret@h/a?s", "https://h/a?..."),
        ("s3://b/is it?.wav az://c@account/a?b /a?b", "s3://b/is it?.wav az://c@account/a?b /a?b"),
    ],
)  # fmt: skip
def test_what_may_be_secret_of_a_url_is_not_shown(text, shown):
    assert uris.without_secrets(text) == shown
    assert uris.without_secrets(shown) == shown
    assert uris.without_secrets({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


def test_inputs_that_differ_in_their_query_alone_stay_apart_without_it():
    first, second, plain = map(uris.query_hidden, ("https://h/a?s=1", "https://h/a?s=2", "/a?b"))
    assert first != second
    assert first.startswith("https://h/a?")
    assert "s=1" not in first
    assert plain == "/a?b"
