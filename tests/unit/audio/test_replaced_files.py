"""Recordings that are replaced while they are read: no waveform is of two of them."""

from __future__ import annotations

import builtins
import errno
import io
import os

import numpy as np
import pytest
import soundfile

from beam_asr.audio import reading, source
from beam_asr.audio.clip_reader import ClipReader, Loaded
from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.audio.segment_planner import Planner
from beam_asr.errors import ReplacedError
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, group_segments
from beam_asr.storage import retry
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage

RATE = 16_000


def encoded(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def versions():
    """Two recordings of the same length, too long for one request."""
    generator = np.random.default_rng(3)
    return [generator.uniform(-0.5, 0.5, 166 * RATE).astype(np.float32) for _ in range(2)]


def serve_the_other_from(server, versions, request, *, back=False):
    """Serves the first recording, and from a request on (from 1) the other one, or both in turn."""
    contents, served = [encoded(version) for version in versions], []

    def read(_):
        served.append(None)
        later = len(served) >= request
        return contents[len(served) % 2 if back and later else later]

    server.read = read
    return server.behave("a.wav", etag=True)


def read_all(uri, clips=None):
    clips = clips or [Clip(Row("{}"), uri, 0.0, None)]
    return list(ClipReader(Storage(), None, 30.0, 1).read(clips, RATE))


@pytest.mark.parametrize("request_number", [2, 3, 4])
def test_a_recording_that_is_replaced_is_read_again_from_its_start(
    http_server, versions, request_number
):
    url = serve_the_other_from(http_server, versions, request_number)
    (read,) = read_all(url)
    assert isinstance(read, Loaded), read
    np.testing.assert_allclose(read.waveform, versions[1], atol=1 / 2**15)


def test_a_recording_that_is_replaced_over_and_over_fails_and_says_why(http_server, versions):
    url = serve_the_other_from(http_server, versions, 2, back=True)
    (read,) = read_all(url)
    assert isinstance(read.error, ReplacedError)
    assert attempts_of(read.error) == 2
    assert url in str(read.error)


def planner():
    return Planner(Storage(), None, 30.0, "fixed", keep_parts=True)


def test_a_long_recording_that_is_replaced_is_planned_again_from_its_start(http_server, versions):
    url = serve_the_other_from(http_server, versions, 3)
    (plan,) = planner().plan(Clip(Row("{}").with_id("r"), url, 0.0, None), 30.0)
    assert plan.unreadable_tail is None
    for read in read_all(url, list(group_segments(plan))):
        start = round(read.clip.offset * RATE)
        expected = versions[1][start : start + len(read.waveform)]
        np.testing.assert_allclose(read.waveform, expected, atol=1 / 2**15)


def test_the_segments_of_a_plan_are_read_of_no_other_recording(tmp_path, versions):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(versions[0]))
    clip = Clip(Row("{}").with_id("r"), str(path), 0.0, None)
    (before,) = planner().plan(clip, 30.0)
    assert not reading.is_replaced(str(path), before.clip.version)
    path.write_bytes(encoded(versions[1]))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**7))
    assert reading.is_replaced(str(path), before.clip.version)
    for read in read_all("", list(group_segments(before))):
        assert isinstance(read.error, ReplacedError)
    (after,) = planner().plan(clip, 30.0)
    ids = [{part.row.id for group in group_segments(plan) for part in group.clips()}
           for plan in (before, after)]  # fmt: skip
    assert ids[0].isdisjoint(ids[1])  # the journal's outcomes of one are not those of the other


def test_a_local_recording_that_is_written_over_is_read_again(tmp_path, versions, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(versions[0]))
    blocks, started = reading._stream_range, []

    def written_over(*args):
        for number, block in enumerate(blocks(*args)):
            yield block
            if number == 0 and not started:
                started.append(None)
                path.write_bytes(encoded(versions[1]))
                os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**7))

    monkeypatch.setattr(reading, "_stream_range", written_over)
    samples = read_audio(str(path), AudioRequest(sample_rate=RATE))
    np.testing.assert_allclose(samples, versions[1], atol=1 / 2**15)


def fails_first(function, error, times):
    """A function that raises an error at its first calls."""
    left = [None] * times

    def failing(*args, **kwargs):
        if left:
            left.pop()
            raise error
        return function(*args, **kwargs)

    return failing


STALE = OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_local_file_that_nfs_calls_stale_is_opened_again(tmp_path, versions, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(versions[0]))
    for module, name in ((os, "stat"), (builtins, "open"), (os, "pread")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails_first(getattr(module, name), STALE, 2))
            (read,) = read_all(str(path))
        assert isinstance(read, Loaded), (name, read)


def test_a_local_file_that_stays_stale_fails_with_the_number_of_attempts(
    tmp_path, versions, monkeypatch
):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(versions[0]))
    monkeypatch.setattr(source.os, "stat", fails_first(os.stat, STALE, 100))
    (read,) = read_all(str(path))
    assert "Stale" in str(read.error)
    assert attempts_of(read.error) == retry.ATTEMPTS
