"""Channels that cancel each other in their average, through real codecs, and those that do not."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio.cancellation import CancellationDetector
from beam_asr.audio.clip_reader import ClipReader
from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.audio.segment_planner import Planner
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, TakenChannel
from beam_asr.storage.storage import Storage
from tests.support.audio_files import RATE, encode
from tests.support.tiny_models import speechlike

CONTAINERS = ("wav", "flac", "opus", "ogg", "mp3", "m4a", "webm")


@functools.cache
def voice(seed: int, seconds: float = 4.0) -> np.ndarray:
    return speechlike(seconds, seed)


def beside(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, axis=1).astype(np.float32)


def write(path, samples, rate=RATE):
    if path.suffix == ".m4a":
        encode(path, samples, codec="aac", rate=rate, layout="stereo")
    elif path.suffix == ".webm":
        encode(path, samples, codec="libopus", rate=rate, layout="stereo")
    elif path.suffix == ".opus":
        soundfile.write(path, samples, rate, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, samples, rate)
    return path


def average_of(path) -> np.ndarray:
    return read_audio(str(path), AudioRequest(sample_rate=RATE))


def cancelled(path) -> errors.CancelledChannelsError:
    with pytest.raises(errors.CancelledChannelsError) as caught:
        average_of(path)
    return caught.value


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    size = 2 * max(len(one), len(other))
    spectrum = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    return float(np.fft.irfft(spectrum, size).max() / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("ending", CONTAINERS)
def test_an_inverted_channel_is_found_through_every_codec(tmp_path, ending):
    noise = np.random.default_rng(2).uniform(-1, 1, (len(voice(1)), 2)) / 2**15
    path = write(tmp_path / f"a.{ending}", beside(voice(1), -voice(1)) + noise.astype("f4"))
    error = cancelled(path)
    assert error.channel in (0, 1)
    assert "cancel each other" in str(error)
    assert "channel=each" in str(error)
    (recognized,) = ClipReader(Storage(), None, 60.0, 1).read(
        [Clip(Row("{}"), str(path), 0, None)], RATE
    )
    assert recognized.clip.taken == TakenChannel(error.channel, 2, louder=True)
    assert (
        likeness(recognized.waveform, voice(1)) > 0.9
        or likeness(recognized.waveform, -voice(1)) > 0.9
    )


@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_one_of_two_talkers_in_turn_is_inverted(tmp_path, ending):
    turns = np.concatenate([beside(voice(1), voice(1)), 0.2 * beside(voice(2), -voice(2))])
    error = cancelled(write(tmp_path / f"a.{ending}", turns))
    assert error.channel in (0, 1)
    assert "first at 4." in str(error)


@pytest.mark.parametrize("ending", ["flac", "opus"])
def test_no_channel_is_taken_where_each_lacks_a_talker(tmp_path, ending):
    independent = beside(voice(1), voice(2))
    both = np.concatenate([independent, beside(voice(3), -voice(3))])
    error = cancelled(write(tmp_path / f"a.{ending}", both))
    assert error.channel is None
    assert "No channel alone" in str(error)
    outcomes = ClipReader(Storage(), None, 60.0, 1).read(
        [Clip(Row("{}"), str(tmp_path / f"a.{ending}"), 0.0, None)], RATE
    )
    assert [type(outcome.error) for outcome in outcomes] == [errors.CancelledChannelsError]


def with_click(samples: np.ndarray) -> np.ndarray:
    samples = samples.copy()
    samples[20_000:20_060] += (0.7, -0.7)
    return samples


def with_hum(samples: np.ndarray, hertz: float, level: float) -> np.ndarray:
    hum = level * np.sin(2 * np.pi * hertz * np.arange(len(samples)) / RATE)
    return samples + beside(hum, -hum)


def with_pause(samples: np.ndarray) -> np.ndarray:
    return np.concatenate([samples, np.zeros((RATE, 2)), samples]).astype(np.float32)


AVERAGED = {
    "two talkers at once": beside(voice(1), voice(2)),
    "two talkers in turn": np.concatenate(
        [beside(voice(1), 0 * voice(1)), beside(0 * voice(2), voice(2))]
    ),
    "one talker": beside(voice(1), voice(1)),
    "one channel is silent": beside(voice(1), 0 * voice(1)),
    "a delay between the channels": beside(voice(1), np.roll(voice(1), 12)),
    "a click": with_click(beside(voice(1), voice(2))),
    "hum of one talker": with_hum(with_pause(beside(voice(1), voice(1))), 50, 0.2),
    "hum of two talkers": with_hum(with_pause(beside(voice(1), voice(2))), 60, 0.2),
    "offsets": with_pause(beside(voice(1), voice(2))) + np.float32((0.2, -0.2)),
    "a quieter inverted echo": beside(voice(1), voice(2) - 0.4 * voice(1)),
    "noise": np.random.default_rng(1).normal(0, 1e-3, (3 * RATE, 2)).astype(np.float32),
    "shorter than a tenth of a second": beside(voice(1), voice(2))[4000:5000],
}


@pytest.mark.parametrize("ending", ["wav", "ogg"])
@pytest.mark.parametrize("name", AVERAGED)
def test_what_is_averaged(tmp_path, name, ending):
    samples = AVERAGED[name]
    recognized = average_of(write(tmp_path / f"a.{ending}", samples))
    assert likeness(recognized, samples.mean(axis=1)) > (0.99 if ending == "wav" else 0.7)


def test_many_pairs_of_talkers_are_averaged():
    for seeds in itertools.combinations(range(10, 20), 2):
        detector = CancellationDetector(RATE)
        one, other = map(voice, seeds)
        detector.add(beside(one / np.abs(one).max(), other / np.abs(other).max()))
        assert detector.finish() is None, seeds


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("size", [1, 37, 4096, 10**6])
def test_the_blocks_of_a_decoder_change_nothing(rate, size):
    if size == 1:
        rate = 1_000  # in single samples more would take long
    rng = np.random.default_rng(rate)
    voiced = rng.normal(0, 0.1, 3 * rate).cumsum() / 20
    samples = np.concatenate([beside(voiced, voiced), beside(voiced, -voiced)])
    whole, parts = CancellationDetector(rate), CancellationDetector(rate)
    whole.add(samples)
    for start in range(0, len(samples), size):
        parts.add(samples[start : start + size])
    found = whole.finish()
    assert found is not None
    assert found == parts.finish()
    assert found.start == pytest.approx(3.0, abs=0.2)
    assert found.end == pytest.approx(6.0, abs=0.2)


def test_more_than_two_channels():
    surround = [voice(1), -voice(1), voice(1), -voice(1), 0 * voice(1), 0 * voice(1)]
    detector = CancellationDetector(RATE)
    detector.add(beside(*surround))
    assert detector.finish().channel == 0
    detector = CancellationDetector(RATE)
    detector.add(beside(*(voice(seed) for seed in range(1, 7))))
    assert detector.finish() is None


@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_long_and_short_rows_take_the_same_channel(tmp_path, ending):
    """A talker is inverted for some seconds only: whole, and as segments of any length."""
    first, second = voice(1, 20.0), voice(2, 10.0)
    samples = np.concatenate(
        [0.5 * beside(first, first), beside(second, -second), beside(first, first)]
    )
    path = write(tmp_path / f"a.{ending}", samples)
    clip = Clip(Row("{}"), str(path), 0.0, None)
    (short,) = ClipReader(Storage(), None, 60.0, 1).read([clip], RATE)
    taken = short.clip.taken
    assert taken is not None
    assert taken.louder
    for segmentation, longest in (("vad", 20.0), ("vad", 8.0), ("fixed", 10.0)):
        (plan,) = Planner(Storage(), None, 60.0, segmentation, False).plan(clip, longest)
        assert plan.clip.taken == taken
        assert plan.clip.channel == taken.channel
        assert any(segment.start < 25 < segment.end for segment in plan.segments)


def test_segments_are_not_judged_by_themselves(tmp_path):
    """A part of an average that was planned is read as the average, whatever is in it."""
    turns = np.concatenate([beside(voice(1), voice(2)), 0.02 * beside(voice(3), -voice(3))])
    path = write(tmp_path / "a.flac", turns)
    (plan,) = Planner(Storage(), None, 60.0, "fixed", False).plan(
        Clip(Row("{}"), str(path), 0.0, None), 2.0
    )
    assert plan.clip.taken is None
    request = AudioRequest(sample_rate=RATE, offset=5.0, duration=2.0)
    with pytest.raises(errors.CancelledChannelsError):
        read_audio(str(path), request)
    read_audio(
        str(path),
        AudioRequest(**{**vars(request), "cancellation_allowed": True, "silence_allowed": True}),
    )


@pytest.mark.parametrize("keep_parts", [False, True])
def test_a_recording_that_is_damaged_behind_channels_that_cancel(tmp_path, keep_parts):
    """What a decoder finds wrong itself leaves no part of the average either."""
    first = write(tmp_path / "a.mp3", beside(voice(1, 8.0), -voice(1, 8.0))).read_bytes()
    path = tmp_path / "joined.mp3"
    path.write_bytes(first + write(tmp_path / "b.mp3", beside(voice(2), voice(2))).read_bytes())
    clip = Clip(Row("{}"), str(path), 0.0, None)
    planner = Planner(Storage(), None, 60.0, "fixed", keep_parts)
    assert cancelled(path).channel == 0
    if not keep_parts:
        with pytest.raises(errors.CorruptAudioError):
            planner.plan(clip, 5.0)
        return
    (plan,) = planner.plan(clip, 5.0)
    assert plan.clip.taken == TakenChannel(0, 2, louder=True)
    assert plan.unreadable_tail is not None


@pytest.mark.parametrize("seconds", [40, 400])
def test_silence_makes_no_pause_loud(seconds):
    """The hum of pauses may cancel, also if nearly all of a recording is a hole."""
    talk = beside(voice(1), voice(1))
    hum = np.random.default_rng(3).standard_normal(4 * RATE).astype(np.float32) * 1e-4
    for hole in (0, seconds):
        detector = CancellationDetector(RATE)
        for block in (talk, np.zeros((hole * RATE, 2), np.float32), beside(hum, -hum)):
            if len(block):
                detector.add(block)
        assert detector.finish() is None
