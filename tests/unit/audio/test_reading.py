"""What a user of `read_audio` would notice, on real files of every kind."""

from __future__ import annotations

import functools
import http.server
import io
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.storage import retry
from tests.support.audio_files import (
    RATE,
    CountingFileSystem,
    check_error,
    chirp,
    encode,
    read,
    tone,
)


@pytest.mark.parametrize("name", ["clip.wav", "clip.txt", "clip", "clip.g722"])
def test_content_not_the_name_chooses_the_decoder(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, chirp(), RATE, format="FLAC")

    np.testing.assert_allclose(read(path), chirp(), atol=1 / 2**15)


def test_channels_are_averaged_or_chosen(tmp_path):
    stereo = np.stack([chirp(), chirp()[::-1]], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, RATE, subtype="FLOAT")

    np.testing.assert_allclose(read(tmp_path / "stereo.wav"), stereo.mean(axis=1), atol=1e-7)
    np.testing.assert_array_equal(read(tmp_path / "stereo.wav", channel=0), stereo[:, 0])
    np.testing.assert_array_equal(read(tmp_path / "stereo.wav", channel=1), stereo[:, 1])


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_pitch_level_and_length(tmp_path, rate):
    soundfile.write(tmp_path / "tone.wav", tone(rate), rate, subtype="FLOAT")

    samples = read(tmp_path / "tone.wav")

    assert len(samples) == 2 * RATE
    middle = slice(RATE // 10, -RATE // 10)  # the filter rings at the ends
    np.testing.assert_allclose(samples[middle], tone(RATE)[middle], atol=1e-4)


@pytest.mark.parametrize("frames", [44_099, 44_100, 44_101, 300_001])
def test_resampled_length_is_rounded_to_nearest(tmp_path, frames):
    soundfile.write(tmp_path / "tone.wav", tone(44_100, frames / 44_100), 44_100)

    assert len(read(tmp_path / "tone.wav")) == round(frames * RATE / 44_100)


def test_halves_round_up(tmp_path):
    soundfile.write(tmp_path / "clip.wav", chirp(), RATE, subtype="FLOAT")

    samples = read(tmp_path / "clip.wav", offset=2.5 / RATE, duration=4.5 / RATE)

    np.testing.assert_array_equal(samples, chirp()[3:8])


def test_a_range_is_counted_in_the_rate_of_the_file(tmp_path):
    soundfile.write(tmp_path / "clip.wav", tone(44_100), 44_100)

    samples = read(tmp_path / "clip.wav", offset=0.5, duration=1.0)

    assert len(samples) == RATE
    middle = slice(1600, -1600)
    np.testing.assert_allclose(samples[middle], tone(RATE)[8000:24_000][middle], atol=1e-3)


def test_a_duration_rounded_past_the_end_is_cut_to_what_is_there(tmp_path):
    soundfile.write(tmp_path / "clip.wav", chirp(3.0), RATE)

    assert len(read(tmp_path / "clip.wav", offset=1.0, duration=2.4)) == 2 * RATE


def test_one_second_of_ten_minutes_reads_little(counting):
    samples = read("counting://clip.wav", offset=301.0, duration=1.0)

    np.testing.assert_allclose(samples, chirp(10)[RATE : 2 * RATE], atol=1 / 2**15)
    assert counting.bytes_read < len(counting.content) / 100


@pytest.mark.parametrize("kind", [ConnectionResetError, RuntimeError])
def test_a_storage_failure_is_not_taken_for_the_end_of_the_file(counting, kind, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    counting.fail_after, counting.failure = 5_000_000, kind("the line went dead")

    with pytest.raises(kind, match="the line went dead"):
        read("counting://clip.wav")


def test_any_fsspec_uri_is_read_by_many_threads_at_once(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, chirp(), RATE, format="FLAC")
    fsspec.filesystem("memory").pipe("/clips/clip.flac", buffer.getvalue())
    encode(tmp_path / "clip.m4a", chirp(), codec="alac")
    paths = ["memory://clips/clip.flac", f"file://{tmp_path}/clip.m4a"] * 50

    with ThreadPoolExecutor(8) as pool:
        for samples in pool.map(read, paths):
            np.testing.assert_allclose(samples, chirp(), atol=1 / 2**15)


def test_http_is_read_even_without_range_requests(tmp_path):
    pytest.importorskip("aiohttp")
    soundfile.write(tmp_path / "clip.wav", chirp(), RATE)
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        np.testing.assert_allclose(read(f"{url}/clip.wav"), chirp(), atol=1 / 2**15)
        with pytest.raises(errors.AudioNotFoundError):
            read(f"{url}/missing.wav")
        with pytest.raises(errors.AudioAccessError):
            read(f"{url}/forbidden.wav")
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def send_head(self):
        if "forbidden" in self.path:
            self.send_error(403)
            return None
        return super().send_head()

    def log_message(self, *_):
        pass


def test_a_missing_file(tmp_path):
    check_error(tmp_path / "no.wav", errors.AudioNotFoundError)
    check_error("memory://no.wav", errors.AudioNotFoundError)
    assert issubclass(errors.AudioNotFoundError, FileNotFoundError)


@pytest.mark.parametrize(
    "refusal", [PermissionError(13, "Permission denied"), OSError("Forbidden: b/clip.wav")]
)
@pytest.mark.usefixtures("counting")
def test_a_refused_file(monkeypatch, refusal):  # root may read anything: no chmod
    def refuse(*_, **__):
        raise refusal

    monkeypatch.setattr(CountingFileSystem, "_open", refuse)
    check_error("counting://clip.wav", errors.AudioAccessError)
    assert issubclass(errors.AudioAccessError, PermissionError)


def test_a_folder(tmp_path):
    check_error(tmp_path, errors.NotAudioError, "folder")


def test_zero_bytes(tmp_path):
    (tmp_path / "clip.wav").write_bytes(b"")
    check_error(tmp_path / "clip.wav", errors.EmptyAudioError)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers(tmp_path, bad):
    samples = chirp()
    samples[20_000] = bad
    soundfile.write(tmp_path / "clip.wav", samples, RATE, subtype="FLOAT")
    check_error(tmp_path / "clip.wav", errors.CorruptAudioError, "NaN")


@pytest.mark.usefixtures("counting")
def test_memory_holds_one_clip_and_a_block():
    tracemalloc.start()
    samples = read("counting://clip.wav")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1.25 * samples.nbytes + 2**22


def test_a_row_that_asks_for_more_than_there_is(tmp_path):
    soundfile.write(tmp_path / "clip.wav", chirp(3.0), RATE)
    check_error(tmp_path / "clip.wav", errors.TruncatedAudioError, "3.00 s", offset=1, duration=2.6)


def test_digital_silence(tmp_path):
    samples = np.concatenate([np.zeros(2 * RATE, "f4"), chirp(2)])
    soundfile.write(tmp_path / "half.wav", samples, RATE)
    soundfile.write(tmp_path / "all.wav", np.zeros(RATE, "f4"), RATE)

    check_error(tmp_path / "all.wav", errors.SilentAudioError)
    check_error(tmp_path / "half.wav", errors.SilentAudioError, duration=1.5)
    assert len(read(tmp_path / "half.wav")) == 4 * RATE


def test_a_quiet_recording_is_not_silence(tmp_path):
    samples = np.zeros(RATE, "<i2")
    samples[1234] = 1
    soundfile.write(tmp_path / "clip.wav", samples, RATE)

    assert np.count_nonzero(read(tmp_path / "clip.wav")) == 1


@pytest.mark.parametrize("offset", [3.0, 3.5, 1e9])
def test_an_offset_beyond_the_end(tmp_path, offset):
    soundfile.write(tmp_path / "clip.wav", chirp(3.0), RATE)
    check_error(tmp_path / "clip.wav", errors.OffsetBeyondEndError, "3.00 s", offset=offset)
    encode(tmp_path / "clip.m4a", chirp(3.0), codec="alac")
    check_error(tmp_path / "clip.m4a", errors.OffsetBeyondEndError, "3.00 s", offset=offset)


@pytest.mark.parametrize("channel", [2, -1])
def test_a_channel_the_file_lacks(tmp_path, channel):
    soundfile.write(tmp_path / "clip.wav", np.stack([chirp(), chirp()], axis=1), RATE)
    check_error(tmp_path / "clip.wav", errors.ChannelError, "it has 2", channel=channel)


@pytest.mark.parametrize(
    "options",
    [{"offset": -1}, {"offset": np.nan}, {"duration": 0}, {"duration": -1}, {"duration": np.inf}],
)
def test_an_impossible_range_is_the_callers_fault(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))) as caught:
        read(tmp_path / "any.wav", **options)
    assert not isinstance(caught.value, errors.AudioError)
