import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_asr.audio import vad
from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.audio.vad import FRAME_SAMPLES, RATE, Detector
from tests.support.voice_activity import detector_of

METHODS = ["silero", "energy"]


@pytest.fixture(scope="module")
def speech(prompts):
    """Half a minute of somebody speaking."""
    rows = [json.loads(line) for line in (prompts / "all.jsonl").read_text().splitlines()]
    long = [row for row in rows if row["duration"] > 3 and row["text"]][:6]
    return np.concatenate(
        [
            read_audio(str(prompts / row["audio_filepath"]), AudioRequest(sample_rate=RATE))
            for row in long
        ]
    )[: 30 * RATE]


def noise(seconds, decibels):
    """White noise of so many dBFS."""
    samples = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (samples * 10 ** (decibels / 20)).astype(np.float32)


def activity(audio, method="silero"):
    detector = detector_of(method)
    detector.add(audio)
    return detector.finish()


@pytest.mark.parametrize("method", METHODS)
def test_tells_speech_from_the_silence_around_it(speech, method):
    lead = 5 * RATE
    found = activity(np.pad(speech, (lead, lead)) + noise(len(speech) / RATE + 10, -70), method)
    inside = slice(lead // FRAME_SAMPLES, -(lead // FRAME_SAMPLES))
    assert (found.speech[inside] > 0.5).mean() > 0.7
    assert found.speech[: inside.start - 3].max() < 0.5
    assert found.speech[inside.stop + 3 :].max() < 0.5
    assert found.speech.dtype == found.level.dtype == np.float32
    assert found.speech.min() >= 0
    assert found.speech.max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_blocks_of_any_lengths_give_the_same(speech, method):
    whole = activity(speech, method)

    @settings(max_examples=6)
    @given(st.lists(st.integers(0, len(speech)), max_size=20))
    @example(list(range(0, len(speech), 997)))
    @example([1, FRAME_SAMPLES, FRAME_SAMPLES * 512, FRAME_SAMPLES * 512 + 1])
    def in_blocks(places):
        detector = detector_of(method)
        for block in np.split(speech, sorted(places)):
            detector.add(block)
        found = detector.finish()
        np.testing.assert_array_equal(found.speech, whole.speech)
        np.testing.assert_array_equal(found.level, whole.level)
        assert found[2:] == whole[2:]

    in_blocks()


def test_a_callers_block_may_be_used_again(speech):
    detector, block = Detector(), np.empty(RATE, np.float32)
    for start in range(0, len(speech) - RATE, RATE):
        block[:] = speech[start : start + RATE]
        detector.add(block)
        block[:] = 0
    whole = activity(speech[: start + RATE])
    np.testing.assert_array_equal(detector.finish().speech, whole.speech)


def by_stock_network(audio: np.ndarray) -> list[float]:
    """The probabilities of the package's stock model, which does not share its file."""
    folder = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0])
    stock = onnxruntime.InferenceSession(str(folder / "data" / "silero_vad_16k_op15.onnx"))
    state, expected = np.zeros((2, 1, 128), np.float32), []
    audio = np.pad(audio, (64, -len(audio) % FRAME_SAMPLES))
    for start in range(0, len(audio) - 64, FRAME_SAMPLES):
        frame = audio[None, start : start + 64 + FRAME_SAMPLES]
        inputs = {"input": frame, "state": state, "sr": np.array(RATE)}
        probability, state = stock.run(None, inputs)
        expected.append(probability.item())
    return expected


def test_in_noise_the_probabilities_are_those_of_the_network_that_goes_frame_by_frame(speech):
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    noisy = speech + 0.003 * noise
    np.testing.assert_allclose(activity(noisy).speech, by_stock_network(noisy), atol=1e-4)


def test_where_pauses_stand_out_all_that_the_network_hears_is_speech(speech):
    """There it gets only a part."""
    found = activity(speech).speech
    recognized = np.array(by_stock_network(speech)) >= 0.5
    assert set(np.unique(found)) == {0.0, 1.0}
    assert np.mean(found == 0) > 0.05
    assert np.mean(found[recognized]) > 0.97  # the network notices a pause late


def test_sounds_that_are_no_speech_are_none_where_pauses_stand_out_either():
    times = np.arange(32 * RATE) / RATE
    notes = 0.3 * np.sin(2 * np.pi * 440 * 2 ** (times // 0.5 % 12 / 12) * times)
    notes *= times % 0.5 < 0.4
    assert np.mean(activity(notes.astype(np.float32)).speech >= 0.5) < 0.02


@pytest.mark.parametrize("decibels", [-40, -60])
def test_speech_far_below_full_scale_is_found(speech, decibels):
    quiet = activity(speech * np.float32(10 ** (decibels / 20)))
    plain = activity(speech).speech > 0.5
    assert (quiet.speech[plain] > 0.35).mean() > 0.97


@pytest.mark.parametrize("decibels", [-20, -50, -90])
def test_noise_is_no_speech(decibels):
    assert (activity(noise(40, decibels)).speech > 0.5).sum() == 0


@pytest.mark.parametrize("decibels", [-50, -90])
def test_faint_noise_is_no_speech_by_its_level(decibels):
    assert (activity(noise(100, decibels), "energy").speech > 0.5).sum() == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [0, 1, FRAME_SAMPLES, 20 * RATE + 1])
def test_digital_silence_is_no_speech(method, samples):
    found = activity(np.zeros(samples, np.float32), method)
    assert found.seconds == samples / RATE
    assert len(found.speech) == len(found.level) == -(-samples // FRAME_SAMPLES)
    assert (found.speech < 0.5).all()
    assert (found.level == -120).all()


def test_the_level_is_that_of_the_samples_there_are():
    tone = np.sin(np.arange(FRAME_SAMPLES * 3 + 64) * np.pi / 8).astype(np.float32)
    np.testing.assert_allclose(activity(tone / 10 + 0.2).level, [-23.01] * 4, atol=0.01)


@pytest.mark.parametrize("missing", ["onnxruntime", "silero_vad"])
def test_without_the_network_the_level_decides_and_one_warning_says_so(
    monkeypatch, caplog, missing, speech
):
    caplog.set_level(logging.WARNING, logger=vad.__name__)  # others quieten the root
    vad._load_session.cache_clear()
    if missing == "onnxruntime":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        without = [path for path in sys.path if not (Path(path) / "silero_vad").exists()]
        monkeypatch.setattr(sys, "path", without)
    try:
        found = [activity(speech), activity(speech)]
    finally:
        vad._load_session.cache_clear()
    by_level = activity(speech, "energy").speech
    for each in found:
        np.testing.assert_array_equal(each.speech, by_level)
    (warning,) = caplog.records
    assert missing in warning.getMessage()


def test_neither_torch_nor_beam_is_imported():
    script = (
        "import sys, numpy as np\n"
        "from beam_asr.audio import segmentation, vad\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "detector = vad.Detector()\n"
        "detector.add(np.zeros(1000, np.float32))\n"
        "segmentation.plan_by_pauses(detector.finish(), 30)\n"
        "print({'torch', 'nemo', 'apache_beam', 'silero_vad'} & sys.modules.keys())\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
    assert not run.stderr


def test_digital_silence_need_not_be_recognized(monkeypatch):
    """Hours of it are a small file."""
    recognized = []
    monkeypatch.setattr(vad, "_run_network", lambda *_: recognized.append(1))
    noise = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    found = activity(1e-5 * noise + np.float32(0.001))  # with an offset, as of a microphone
    assert not found.speech.any()
    assert len(found.speech) == 40 * RATE // FRAME_SAMPLES
    assert not recognized
