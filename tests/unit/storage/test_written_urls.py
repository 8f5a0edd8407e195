"""URLs are requested as they are written, since a signature may be over their characters."""

from __future__ import annotations

import zipfile

import pytest

from beam_asr.errors import AudioAccessError, NotAllowedError, StorageError
from beam_asr.storage.allow_list import AllowList
from beam_asr.storage.storage import Storage
from tests.support.audio_files import read, wav_bytes
from tests.support.servers import FaultyHttpServer

NAME = "a@b 'c'/é:1.wav"
WRITTEN = "a%40b%20%27c%27%2F%C3%A9%3A1.wav"
QUERY = "X-Credential=key%2F2026%40x&X-Sig=a%2Bb+c%3D%3D&e=%27%3A~"


@pytest.fixture
def signed(http_server):
    http_server.files[NAME] = wav_bytes()
    return f"{http_server.address}/{WRITTEN}?{QUERY}"


def targets(server: FaultyHttpServer) -> set[str]:
    return {request.target for request in server.requests}


@pytest.mark.parametrize("ranges", [True, False])
def test_each_request_of_a_signed_url_is_as_it_is_written(http_server, signed, ranges):
    http_server.behave(NAME, ranges=ranges, head=403)
    storage = Storage()
    assert storage.exists(signed)
    assert storage.size(signed) == len(wav_bytes())
    assert storage.find(signed) == [signed]
    assert storage.read(signed) == wav_bytes()
    assert len(read(signed)) == 16_000
    assert targets(http_server) == {f"/{WRITTEN}?{QUERY}"}


def test_a_redirect_to_a_signed_url_is_followed_as_it_is_written(http_server, signed):
    http_server.behave("moved.wav", redirect=signed)
    assert len(read(http_server.url("moved.wav"))) == 16_000
    assert targets(http_server) == {"/moved.wav", f"/{WRITTEN}?{QUERY}"}


def test_a_signed_url_in_a_chain_is_requested_as_it_is_written(http_server, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.wav", wav_bytes())
    http_server.files["a@b.zip"] = (tmp_path / "a.zip").read_bytes()
    assert len(read(f"zip://a.wav::{http_server.address}/a%40b.zip?{QUERY}")) == 16_000
    assert targets(http_server) == {f"/a%40b.zip?{QUERY}"}


@pytest.mark.parametrize("redirected", [False, True])
def test_what_no_request_may_hold_is_encoded(http_server, redirected):
    http_server.files['call one é "100%".wav'] = wav_bytes()
    url = f'{http_server.address}/call one é "100%".wav'
    if redirected:
        http_server.behave("moved.wav", redirect=url.replace("é", "%C3%A9"))
        url = http_server.url("moved.wav")
    assert len(read(url)) == 16_000
    assert "/call%20one%20%C3%A9%20%22100%25%22.wav" in targets(http_server)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_signature_is_named_with_a_remedy_and_without_the_query(
    http_server, signed, status
):
    http_server.behave(NAME, status=status, head=status)
    with pytest.raises(AudioAccessError) as of_audio:
        read(signed)
    with pytest.raises(StorageError) as of_input:
        Storage().exists(signed)
    for message in (str(of_audio.value), str(of_input.value)):
        assert f"(status {status})" in message
        assert "sign the URL again" in message
        assert "account" not in message
        assert "X-Sig" not in message
        assert WRITTEN in message


def test_without_a_query_the_remedy_is_read_access(http_server):
    http_server.behave("x.wav", status=403)
    with pytest.raises(AudioAccessError, match="read access"):
        read(http_server.url("x.wav"))


def test_an_allow_list_knows_a_folder_however_it_is_written(http_server, signed, forbidden):
    http_server.files["a@b/x.wav"] = wav_bytes()
    for prefix in ("a@b", "a%40b"):
        allowed = Storage(allowed=AllowList.of([f"{http_server.address}/{prefix}"]))
        for name in ("a@b", "a%40b"):
            assert len(read(f"{http_server.address}/{name}/x.wav", storage=allowed)) == 16_000
        with pytest.raises(NotAllowedError):
            read(signed, storage=allowed)
        http_server.behave("a@b/away.wav", redirect=forbidden.url("x.wav"))
        with pytest.raises(NotAllowedError):
            read(f"{http_server.address}/{prefix}/away.wav", storage=allowed)
