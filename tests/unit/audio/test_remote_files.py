"""Audio behind a real HTTP server that is good, poor, faulty or hostile."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem

from beam_asr.audio import read_pool
from beam_asr.audio.clip_reader import ClipReader, Loaded
from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.errors import (
    AudioAccessError,
    AudioNotFoundError,
    AudioTimeoutError,
    NotAllowedError,
    UnreachableError,
)
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage import remote_file, retry
from beam_asr.storage.allow_list import AllowList
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage
from tests.support import servers
from tests.support.emulators import free_port
from tests.support.tiny_models import speechlike

RATE = 16_000
MEBIBYTE = 2**20


def encoded(samples: np.ndarray, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def short() -> np.ndarray:
    return speechlike(3.0, seed=1)


@pytest.fixture(scope="module")
def long() -> np.ndarray:
    """Ten minutes: 19 MB as WAV, each second of it another one."""
    noise = np.random.default_rng(5).normal(0, 0.1, 600 * RATE).astype(np.float32)
    return np.clip(noise, -1, 1)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.02)


@pytest.fixture
def server(http_server, short, long):
    http_server.files |= {"short.wav": encoded(short), "long.wav": encoded(long)}
    return http_server


def read(uri: str, allowed=None, seconds: float = 30.0, **fields):
    """One clip's waveform, or the exception in its place."""
    return read_all([Clip(Row("{}"), uri, **{"offset": 0.0, "duration": None, **fields})],
                    allowed, seconds)[0]  # fmt: skip


def read_all(clips, allowed=None, seconds: float = 30.0, concurrency: int = 4):
    reader = ClipReader(Storage({}, allowed), None, seconds, concurrency)
    return [
        read.waveform if isinstance(read, Loaded) else read.error
        for read in reader.read(clips, RATE)
    ]


def assert_same(waveform, samples):
    assert not isinstance(waveform, Exception), repr(waveform)
    np.testing.assert_allclose(waveform, samples, atol=1 / 2**15)


@pytest.mark.parametrize(
    "behavior",
    [
        {},
        {"ranges": False},
        {"ranges": False, "length": "chunked"},
        {"ranges": False, "length": "close"},
        {"head": 403},
        {"head": 405, "ranges": False, "length": "close"},
    ],
    ids=str,
)
def test_a_clip_is_read_from_any_server(server, short, long, behavior):
    server.behave(**behavior)
    assert_same(read(server.url("short.wav")), short)
    assert_same(read(server.url("long.wav")), long)


def test_a_usual_clip_takes_one_request(server):
    read(server.url("short.wav"))
    (request,) = server.requests
    assert request.method == "GET"
    # Else a server may compress it, and a range of that cannot be decompressed.
    assert request.headers["accept-encoding"] == "identity"


def test_ten_rows_of_a_long_recording_fetch_little_more_than_they_need(server, long):
    starts = [57.0 * n for n in range(1, 11)]
    clips = [Clip(Row("{}"), server.url("long.wav"), start, 10.0) for start in starts]
    waveforms = read_all(clips)
    for start, waveform in zip(starts, waveforms, strict=True):
        assert_same(waveform, long[int(start * RATE) : int((start + 10) * RATE)])
    needed = 10 * 10 * RATE * 2
    assert server.bytes_sent < 2 * needed


def test_a_segment_near_the_end_of_a_flac_fetches_a_small_part(server, long):
    server.files["long.flac"] = encoded(long, "FLAC")
    waveform = read(server.url("long.flac"), offset=550.0, duration=10.0)
    assert_same(waveform, long[550 * RATE : 560 * RATE])
    assert server.bytes_sent < len(server.files["long.flac"]) / 5


def test_a_server_that_is_busy_twice_and_then_serves_costs_nothing(server, short):
    server.behave("short.wav", status=503, times=2)
    assert_same(read(server.url("short.wav")), short)
    assert server.count("short.wav") == 3


def test_a_server_that_stays_busy_fails_the_row_with_the_number_of_attempts(server):
    server.behave("short.wav", status=503)
    error = read(server.url("short.wav"))
    assert "503" in str(error)
    assert attempts_of(error) == retry.ATTEMPTS == server.count("short.wav")


def test_a_host_that_refuses_connections_fails_the_row_with_attempts_and_a_remedy():
    uri = f"http://127.0.0.1:{free_port()}/short.wav"
    error = read(uri)
    assert isinstance(error, UnreachableError)
    assert attempts_of(error) == retry.ATTEMPTS
    assert f"{uri}: its storage cannot be reached" in str(error)
    assert "in 5 attempts" in str(error)
    assert "Correct the host" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, AudioNotFoundError), (403, AudioAccessError), (401, AudioAccessError)],
)
def test_what_is_not_there_or_forbidden_is_requested_once(server, status, kind):
    server.behave("short.wav", status=status)
    error = read(server.url("short.wav"))
    assert type(error) is kind
    assert server.url("short.wav") in str(error)
    assert (attempts_of(error), server.count("short.wav")) == (1, 1)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_cut_in_the_middle_is_read_on(server, long, ranges):
    server.behave("long.wav", cut=0.5, times=2, ranges=ranges)
    assert_same(read(server.url("long.wav")), long)


def test_a_connection_that_is_always_cut_is_not_taken_for_the_end(server):
    server.behave("long.wav", cut=0.5)
    error = read(server.url("long.wav"))
    assert isinstance(error, Exception)
    assert attempts_of(error) == retry.ATTEMPTS


def test_a_range_cut_short_by_its_server_is_not_taken_for_the_end(server):
    whole = server.files["long.wav"]

    fetched = []

    class Ranges:
        def fetch(self, start, end, _):
            fetched.append((start, end))
            data = whole[start:end]
            return data if start == 0 or len(fetched) > 3 else b""

        def size(self, _):
            return len(whole)

        def close(self):
            pass

    file = io.BufferedReader(remote_file.RemoteFile(Ranges()))
    assert file.read() == whole


def test_a_server_that_sends_ranges_in_parts_is_read_to_the_end(server, long, monkeypatch):
    span = servers._span

    def capped(header, size):
        start, end = span(header, size)
        return start, min(end, start + 300_000)

    monkeypatch.setattr(servers, "_span", capped)
    assert_same(read(server.url("long.wav")), long)


def test_a_stalled_server_costs_its_row_and_no_other(server, short):
    stalled = server.behave("stalled.wav", stall=0.3)
    server.files["stalled.wav"] = server.files["long.wav"]
    clips = [
        Clip(Row("{}"), uri, 0.0, None) for uri in [stalled] * 6 + [server.url("short.wav")] * 6
    ]
    outcomes = read_all(clips, seconds=1.5, concurrency=2)
    assert [type(outcome) for outcome in outcomes[:6]] == [AudioTimeoutError] * 6
    assert "`audio_timeout`" in str(outcomes[0])
    for outcome in outcomes[6:]:
        assert_same(outcome, short)


def test_a_stalled_request_is_cancelled_and_made_again(server, short, monkeypatch):
    monkeypatch.setattr(remote_file, "REQUEST_SECONDS", 0.5)
    server.behave("short.wav", stall=0.5, times=1)
    assert_same(read(server.url("short.wav")), short)
    assert server.count("short.wav") == 2


class PipeFileSystem(MemoryFileSystem):
    """Whatever is opened is a pipe without a writer."""

    protocol = "pipe"
    pipe = ""

    def _open(self, *_, **__):
        return open(self.pipe, "rb")


def test_a_read_that_never_comes_back_is_left_behind(tmp_path, short, monkeypatch):
    """A pipe without a writer blocks its reader in the kernel, where nothing can be cancelled."""
    monkeypatch.setattr(read_pool, "GRACE_SECONDS", 0.2)
    fsspec.register_implementation("pipe", PipeFileSystem, clobber=True)
    PipeFileSystem.pipe = str(tmp_path / "pipe")
    os.mkfifo(PipeFileSystem.pipe)
    soundfile.write(tmp_path / "short.wav", short, RATE)
    uris = ["pipe://pipe.wav"] * 4 + [str(tmp_path / "short.wav")] * 3
    outcomes = read_all([Clip(Row("{}"), uri, 0.0, None) for uri in uris], None, 0.5, 2)
    assert [type(outcome) for outcome in outcomes[:4]] == [AudioTimeoutError] * 4
    assert "pipe.wav" in str(outcomes[0])
    for outcome in outcomes[4:]:
        assert_same(outcome, short)


def test_a_redirect_is_followed(server, short):
    server.behave("moved.wav", redirect=server.url("short.wav"))
    assert_same(read(server.url("moved.wav")), short)


def test_a_redirect_to_a_forbidden_address_is_not(server, short, forbidden):
    allowed = AllowList.of([server.address])
    assert_same(read(server.url("short.wav"), allowed), short)
    error = read(server.behave("moved.wav", redirect=forbidden.url("secret")), allowed)
    assert isinstance(error, NotAllowedError)
    assert "`allowed_audio_prefixes`" in str(error)
    error = read(forbidden.url("secret"), allowed)
    assert isinstance(error, NotAllowedError)


def test_local_files_outside_the_allowed_folder_are_not_read(tmp_path, short):
    (tmp_path / "in").mkdir()
    for name in ("in/a.wav", "secret.wav"):
        soundfile.write(tmp_path / name, short, RATE)
    (tmp_path / "in/link.wav").symlink_to(tmp_path / "secret.wav")
    allowed = AllowList.of([str(tmp_path / "in")])
    assert_same(read(str(tmp_path / "in/a.wav"), allowed), short)
    for name in ("secret.wav", "in/../secret.wav", "in/link.wav"):
        assert isinstance(read(str(tmp_path / name), allowed), NotAllowedError)
    assert isinstance(read("/etc/passwd", allowed), NotAllowedError)


def test_reads_are_many_at_a_time_and_no_more_than_allowed(server):
    server.behave(latency=0.05)
    clips = [Clip(Row("{}"), server.url("short.wav"), 0.0, None)] * 40
    read_all(clips, concurrency=7)
    assert server.most_at_once == 7


def test_all_threads_share_the_connections_of_a_server(server, short):
    pools = [ThreadPoolExecutor(1) for _ in range(8)]  # a thread each, all alive
    for pool in pools:
        read_alone = pool.submit(
            read_audio, server.url("short.wav"), AudioRequest(sample_rate=RATE)
        )
        assert_same(read_alone.result(), short)
    for pool in pools:
        pool.shutdown()
    assert server.connections == 1


def test_samples_of_one_file_of_a_tar_are_decoded_without_a_file(short):
    reader = ClipReader(Storage(), None, 10.0, 2)
    clips = [(Clip(Row("{}"), "t.tar: a.wav", n / 2, 0.5), encoded(short)) for n in range(5)]
    for n, recognized in enumerate(reader.decode(iter(clips), RATE)):
        assert_same(recognized.waveform, short[n * RATE // 2 : (n + 1) * RATE // 2])
