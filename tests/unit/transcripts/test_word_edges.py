import json

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.transcripts.word_edges import find_pauses, refine
from beam_asr.transcripts.words import Token, by_word, spread, words

RATE = 16_000


def sound(seconds, level_db=-20.0, rate=RATE):
    """A voice's vowel: a pulse train of 120 Hz through a few harmonics."""
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 12))
    return wave * 10 ** (level_db / 20) / np.sqrt(np.mean(wave**2))


def recording(*stretches, noise_db=-70.0, rate=RATE):
    """Sounds and pauses in turn, of so many seconds, pause first; with noise all over."""
    parts = [
        sound(seconds, rate=rate) if index % 2 else np.zeros(round(seconds * rate))
        for index, seconds in enumerate(stretches)
    ]
    wave = np.concatenate(parts)
    if noise_db is not None:
        wave = wave + np.random.default_rng(0).normal(size=len(wave)) * 10 ** (noise_db / 20)
    return wave.astype(np.float32)


def edges(tokens, wave, rate=RATE):
    return [(word.start, word.end) for word in words(refine(tokens, wave, rate))]


def near(*pairs):
    return [pytest.approx(pair, abs=0.025) for pair in pairs]


@pytest.mark.parametrize("noise_db", [None, -90, -70, -50, -35])
@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 44_100])
def test_words_begin_and_end_with_their_sound(noise_db, rate):
    wave = recording(0.5, 0.8, 0.4, 0.6, 0.5, noise_db=noise_db, rate=rate)
    tokens = [
        Token("al", 0.62, 0.68),
        Token("pha", 0.9, 0.96),
        Token(" be", 1.78, 1.84),
        Token("ta", 1.9, 1.96),
    ]
    got = refine(tokens, wave, rate)
    assert edges(tokens, wave, rate) == near((0.5, 1.3), (1.7, 2.3))
    assert [token.text for token in got] == ["al", "pha", " be", "ta"]
    # Within a word they stay.
    assert (got[0].end, got[1].start) == (0.68, 0.9)


def test_a_word_of_one_token_has_both_edges_moved():
    wave = recording(0.5, 0.4, 0.5)
    assert edges([Token("yes", 0.6, 0.66, 0.9)], wave) == near((0.5, 0.9))
    assert refine([Token("yes", 0.6, 0.66, 0.9)], wave, RATE)[0].confidence == 0.9


def test_a_word_that_the_clip_cuts_off_ends_with_the_clip():
    assert edges([Token("ye", 0.6, 0.66), Token("s", 0.9, 1.0)], recording(0.5, 0.8)) == near(
        (0.5, 1.3)
    )


def test_a_start_in_the_pause_before_the_sound_moves_forward():
    assert edges([Token("yes", 0.35, 0.41)], recording(0.5, 0.4, 0.5)) == near((0.5, 0.9))


def test_edges_move_no_farther_than_the_limits():
    wave = recording(0.5, 3.0, 0.5)
    assert edges([Token("yes", 1.2, 1.3)], wave) == [(1.2, 1.3)]
    wave = recording(1.5, 0.3, 0.5)
    assert edges([Token("yes", 1.2, 1.3)], wave)[0][0] == 1.2


def test_words_without_a_pause_between_them_touch():
    wave = recording(0.5, 1.0, 0.5)
    tokens = [Token("al", 0.6, 0.66), Token(" be", 1.0, 1.06), Token("ta", 1.2, 1.26)]
    assert edges(tokens, wave) == near((0.5, 1.0), (1.0, 1.5))


def test_the_closure_of_a_plosive_is_no_pause():
    wave = recording(0.5, 0.3, 0.05, 0.3, 0.5)
    assert edges([Token("ot", 0.6, 0.66), Token("to", 0.9, 0.96)], wave) == near((0.5, 1.15))
    assert len(find_pauses(wave, RATE)[0]) == 2


def test_a_click_in_a_pause_is_no_word():
    wave = recording(0.5, 0.5, 0.06, 0.01, 0.06, 0.5, 0.3)
    tokens = [Token("al", 0.6, 0.66), Token(" be", 1.25, 1.31)]
    assert edges(tokens, wave) == near((0.5, 1.0), (1.13, 1.63))


def test_sound_that_no_word_explains_is_given_to_none():
    """Such as a breath between two words."""
    wave = recording(0.3, 0.5, 0.3, 0.4, 0.3, 0.5, 0.3)
    tokens = [Token("al", 0.4, 0.46), Token(" be", 1.9, 1.96)]
    assert edges(tokens, wave) == near((0.3, 0.8), (1.8, 2.3))


def test_a_last_sound_that_is_lost_in_the_noise_keeps_the_time_of_its_token():
    wave = recording(0.5, 0.5, 1.0, 0.5, 0.5)
    tokens = [Token("ye", 0.6, 0.66), Token("s", 1.1, 1.16), Token(" no", 2.1, 2.16)]
    assert edges(tokens, wave) == near((0.5, 1.16), (2.0, 2.5))


@pytest.mark.parametrize("rate", [11_025, 16_000])
def test_a_word_in_a_long_pause_is_found(rate):
    wave = recording(15.0, 1.0, 14.0, noise_db=-45, rate=rate)
    tokens = [Token("a", 15.1, 15.2), Token("b", 15.5, 15.6)]
    assert edges(tokens, wave, rate) == near((15.0, 16.0))


def test_digital_silence_around_a_noisy_recording_does_not_hide_its_pauses():
    noisy = recording(0.5, 0.5, 0.4, 0.5, 0.5, noise_db=-45)
    wave = np.concatenate([np.zeros(RATE), noisy])
    tokens = [Token("al", 1.6, 1.66), Token(" be", 2.5, 2.56)]
    assert edges(tokens, wave) == near((1.5, 2.0), (2.4, 2.9))


@pytest.mark.parametrize("wave", [np.zeros(0), np.zeros(50), np.zeros(RATE)])
def test_silence_moves_no_token_out_of_it(wave):
    assert refine([], wave, RATE) == []
    ((start, end),) = edges([Token("a", 0.2, 0.3)], wave)
    assert 0 <= start <= end <= len(wave) / RATE


times = st.floats(-1, 4)


@given(st.lists(st.tuples(times, times), max_size=8), st.integers(0, 2**32))
def test_times_of_any_tokens_go_forward_and_stay_in_the_waveform(spikes, seed):
    rng = np.random.default_rng(seed)
    wave = recording(*rng.uniform(0.02, 0.6, 6), noise_db=rng.choice([-80, -40, -10]))
    tokens = [Token(" a" if i % 3 else "b", *pair, 0.5) for i, pair in enumerate(spikes)]
    got = refine(tokens, wave, RATE)
    flat = [0, *(time for token in got for time in (token.start, token.end)), len(wave) / RATE]
    assert flat == sorted(flat)
    assert [(t.text, t.confidence) for t in got] == [(t.text, t.confidence) for t in tokens]


def trimmed(wave):
    """Speech without the silence around it: what is 40 dB below its loud frames."""
    size = RATE // 200
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    levels = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loud = np.flatnonzero(levels > np.quantile(levels, 0.95) - 40)
    return wave[loud[0] * size : (loud[-1] + 1) * size]


@pytest.mark.parametrize(("noise_db", "error"), [(-70, 0.03), (-45, 0.08)])
def test_edges_of_recorded_speech_are_found(prompts, noise_db, error):
    """Of prompts with pauses between them, and tokens as late and early as a model's."""
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (prompts / "all.jsonl").read_text().splitlines()]
    spoken = [row for row in rows if row["text"] and 0.5 < row["duration"] < 6][::7]
    starts, ends, raw_ends = [], [], []
    for first in range(0, len(spoken) - 4, 5):
        wave, tokens, truth, at = [], [], [], 0.0
        for row in spoken[first : first + 5]:
            clip, rate = soundfile.read(prompts / row["audio_filepath"])
            assert rate == RATE
            clip = trimmed(clip)
            pause = np.zeros(round(rng.uniform(0.3, 1.0) * RATE))
            wave += [pause, clip]
            start = at + len(pause) / RATE
            at = start + len(clip) / RATE
            truth.append((start, at))
            late = min(rng.uniform(0, 0.2), 0.3 * len(clip) / RATE)
            early = min(rng.uniform(0, 0.4), 0.4 * len(clip) / RATE)
            recognized = spread(row["text"], start + late, at - early)
            tokens += [recognized[0]._replace(text=" " + recognized[0].text), *recognized[1:]]
            tokens[-1] = tokens[-1]._replace(start=tokens[-1].end - 0.04)
            if len(recognized) == 1:
                tokens[-1] = tokens[-1]._replace(start=start + late)
        joined = np.concatenate([*wave, np.zeros(RATE // 2)])
        joined = joined + rng.normal(size=len(joined)) * 10 ** (noise_db / 20)
        got = refine(tokens, joined.astype(np.float32), RATE)
        assert [t.text for t in got] == [t.text for t in tokens]
        bounds = np.array([(g[0].start, g[-1].end) for g in by_word(got)])
        raw = np.array([g[-1].end for g in by_word(tokens)])
        for start, end in truth:
            starts.append(np.abs(bounds[:, 0] - start).min())
            ends.append(np.abs(bounds[:, 1] - end).min())
            raw_ends.append(np.abs(raw - end).min())
    assert len(starts) > 50
    assert np.median(raw_ends) > 0.1
    for errors in (starts, ends):
        assert np.median(errors) < error
        assert np.quantile(errors, 0.95) < 3 * error
