import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.audio.segmentation import OVERLAP, plan_by_pauses, plan_fixed
from beam_asr.audio.vad import FRAME_SAMPLES, RATE, Activity
from beam_asr.records.work import Segment
from tests.support.voice_activity import detector_of

METHODS = ["silero", "energy"]
FRAME_SECONDS = FRAME_SAMPLES / RATE
STEP = RATE // 100  # 10 ms, by which these tests tell speech from silence in clean prompts


def loud_steps(audio):
    """The steps of 10 ms that are less than 35 dB below the loudest."""
    steps = audio[: len(audio) // STEP * STEP].reshape(-1, STEP)
    level = 10 * np.log10((steps**2).mean(axis=1) + 1e-12)
    return np.flatnonzero(level > level.max() - 35)


@pytest.fixture(scope="module")
def spoken(prompts):
    """Prompts of 1 to 4 s in which nobody pauses, without the silence before and after."""
    rows = [json.loads(line) for line in (prompts / "all.jsonl").read_text().splitlines()]
    clips = []
    for row in rows:
        if not (row["text"] and 1 < row["duration"] < 4):
            continue
        audio = read_audio(str(prompts / row["audio_filepath"]), AudioRequest(sample_rate=RATE))
        loud = loud_steps(audio)
        if np.diff(loud).max() <= 8:
            clips.append(audio[loud[0] * STEP : (loud[-1] + 1) * STEP])
    return clips[:110]


def recording(clips, pauses, noise_db=-65):
    """Clips after one another, a pause before each, in white noise of so many dBFS.

    Returns:
        The samples; and of each clip its start and end in seconds.
    """
    parts, spans, at = [], [], 0
    for clip, pause in zip(clips, pauses):
        parts += [np.zeros(round(pause * RATE), np.float32), clip]
        at += len(parts[-2])
        spans.append((at / RATE, (at + len(clip)) / RATE))
        at += len(clip)
    noise = np.random.default_rng(0).standard_normal(at) * 10 ** (noise_db / 20)
    return (np.concatenate(parts) + noise).astype(np.float32), spans


def pauses_of(count):
    return np.random.default_rng(1).uniform(0.3, 1, count)


@pytest.fixture(scope="module")
def paused(spoken):
    """A recording with pauses of 0.3 to 1 s: its segments by each method, and its spans."""
    audio, spans = recording(spoken, pauses_of(len(spoken)))
    return {method: recognized(audio, method) for method in METHODS}, spans


def recognized(audio, method="silero"):
    detector = detector_of(method)
    detector.add(audio)
    return detector.finish()


def check(plan, seconds, longest):
    """What holds of any plan."""
    for segment in plan:
        assert 0 <= segment.start < segment.end <= seconds
        assert segment.end - segment.start <= longest
    for before, after in itertools.pairwise(plan):
        assert (after.start < before.end) == after.overlaps
        assert before.start < after.start
        assert before.end < after.end
    assert not plan or not plan[0].overlaps


def missed(plan, spans):
    """Seconds of the spans that are in no segment."""
    total = 0.0
    for start, end in spans:
        inside, last = 0.0, start
        for segment in plan:
            inside += max(0.0, min(segment.end, end) - max(segment.start, last))
            last = max(last, segment.end)
        total += end - start - inside
    return total


def cut_within(plan, spans):
    """The edges of segments that are in one of the spans."""
    edges = [edge for segment in plan for edge in segment[:2]]
    return [edge for edge in edges for start, end in spans if start < edge < end]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("longest", [10, 30, 120])
def test_every_cut_is_in_a_pause_and_no_speech_is_lost(paused, method, longest):
    activities, spans = paused
    found = plan_by_pauses(activities[method], longest)
    check(found, activities[method].seconds, longest)
    assert cut_within(found, spans) == []
    assert missed(found, spans) < 1e-6
    lengths = [segment.end - segment.start for segment in found]
    assert np.mean(lengths) > 0.6 * longest
    assert min(lengths) > 2


@pytest.mark.parametrize("noise_db", [-28, -32])
def test_in_noise_all_is_held_and_cut_in_pauses(spoken, noise_db):
    """Of 10 to 15 dB below the speech, that is."""
    spoken = spoken[:70]
    audio, spans = recording(spoken, pauses_of(len(spoken)), noise_db)
    found = plan_by_pauses(recognized(audio), 30)
    check(found, len(audio) / RATE, 30)
    assert cut_within(found, spans) == []
    assert missed(found, spans) < 0.1


def test_in_noise_the_level_alone_loses_nothing_either(spoken):
    audio, spans = recording(spoken, pauses_of(len(spoken)), -30)
    found = plan_by_pauses(recognized(audio, "energy"), 30)
    check(found, len(audio) / RATE, 30)
    assert missed(found, spans) < 0.1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise_db", [-60, -150])
def test_long_pauses_are_left_out(spoken, method, noise_db):
    audio, spans = recording(spoken[:20], [9.0] * 20, noise_db)
    found = plan_by_pauses(recognized(audio, method), 30)
    assert len(found) == 20
    assert missed(found, spans) < 1e-6
    kept = sum(segment.end - segment.start for segment in found)
    assert kept < sum(end - start for start, end in spans) + 20 * 0.9


@pytest.mark.parametrize("longest", [5, 30])
@pytest.mark.parametrize("method", METHODS)
def test_without_pauses_all_is_held_and_cut_where_the_level_dips(spoken, method, longest):
    spoken = spoken[:50]
    audio, spans = recording(spoken, [0.0] * len(spoken))
    activity = recognized(audio, method)
    found = plan_by_pauses(activity, longest)
    check(found, len(audio) / RATE, longest)
    assert missed(found, spans) < 0.1
    for before, after in itertools.pairwise(found):
        if not after.overlaps:
            place = round(before.end / FRAME_SECONDS)
            around = activity.level[max(place - 16, 0) : place + 16].max()
            assert activity.level[place] < around - 9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seconds", [0, 0.001, 1, 60])
def test_silence_has_no_segments(method, seconds):
    assert plan_by_pauses(recognized(np.zeros(round(seconds * RATE), np.float32), method), 30) == []


@pytest.mark.parametrize("decibels", [-20, -50, -80])
def test_noise_has_no_segments(decibels):
    noise = np.random.default_rng(0).standard_normal(60 * RATE) * 10 ** (decibels / 20)
    assert plan_by_pauses(recognized(noise.astype(np.float32)), 30) == []


@pytest.mark.parametrize("pitch", [110, 220, 440, 1000])
def test_tones_have_no_segments(pitch):
    """A note struck every half second, with its overtones; and one held on."""
    time = np.arange(30 * RATE) / RATE
    tone = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in (1, 2, 3)) * 0.1
    struck = tone * np.exp(-4 * (time % 0.5))
    assert plan_by_pauses(recognized(struck.astype(np.float32)), 30) == []
    assert plan_by_pauses(recognized(tone.astype(np.float32)), 30) == []


def activity_of(runs, speech_db=-20.0, pause_db=-60.0):
    """Of runs of seconds, by turns of silence and of speech."""
    counts = [round(run / FRAME_SECONDS) for run in runs]
    spoken = np.repeat(np.arange(len(runs)) % 2 == 1, counts)
    speech = np.where(spoken, 0.95, 0.05).astype(np.float32)
    level = np.where(spoken, speech_db, pause_db).astype(np.float32)
    return Activity(speech, level, len(level) * FRAME_SECONDS)


@pytest.mark.parametrize("longest", [5, 30, 600])
def test_speech_without_end_overlaps(longest):
    activity = activity_of([0, 2000])
    found = plan_by_pauses(activity, longest)
    check(found, activity.seconds, longest)
    assert missed(found, [(0, activity.seconds)]) < 1e-6
    overlap = min(OVERLAP, longest / 4)
    for before, after in itertools.pairwise(found):
        assert after.overlaps
        assert before.end - after.start == pytest.approx(overlap, abs=FRAME_SECONDS)
        assert before.end - before.start == pytest.approx(longest, abs=2 * FRAME_SECONDS)


def test_a_long_pause_is_preferred_and_a_late_one():
    early_and_long = activity_of([0, 16, 0.8, 11, 0.2, 20])
    assert plan_by_pauses(early_and_long, 30)[0].end == pytest.approx(16.4, abs=0.3)
    equal = activity_of([0, 16, 0.5, 10, 0.5, 20])
    assert plan_by_pauses(equal, 30)[0].end == pytest.approx(26.75, abs=0.2)
    only_early = activity_of([0, 4, 0.2, 50])
    assert plan_by_pauses(only_early, 30)[0].end == pytest.approx(4.1, abs=0.1)


def test_a_pause_is_preferred_to_a_dip_around_which_segments_overlap():
    activity = activity_of([0, 50])
    dip = round(25 / FRAME_SECONDS)
    activity.level[dip : dip + 3] = -40
    first, second = plan_by_pauses(activity, 30)
    assert second.overlaps
    assert first.end - second.start == pytest.approx(4.0, abs=0.04)
    assert (first.end + second.start) / 2 == pytest.approx(25.05, abs=0.06)
    pause = round(10 / FRAME_SECONDS)
    activity.speech[pause : pause + 5] = 0.1
    assert plan_by_pauses(activity, 30)[0].end == pytest.approx(10.08, abs=0.08)


def test_the_quietest_place_of_a_pause_is_cut():
    activity = activity_of([0, 25, 1.5, 25], pause_db=-50)
    quiet = round(25.4 / FRAME_SECONDS)
    activity.level[quiet - 1 : quiet + 1] = -70
    first, second = plan_by_pauses(activity, 30)
    assert first.end == second.start == pytest.approx(25.4, abs=0.02)


def test_what_is_left_for_the_end_is_no_sliver():
    activity = activity_of([0, 20, 0.3, 9, 0.3, 0.7])
    assert [segment.end for segment in plan_by_pauses(activity, 30)] == [
        pytest.approx(20.15, abs=0.1),
        pytest.approx(30.3, abs=0.1),
    ]


def test_a_word_alone_goes_with_the_words_after_it():
    (only,) = plan_by_pauses(activity_of([5, 0.4, 3, 10, 5]), 30)
    assert only == Segment(pytest.approx(4.75, abs=0.04), pytest.approx(18.65, abs=0.04))
    assert len(plan_by_pauses(activity_of([5, 0.4, 6, 10, 5]), 30)) == 2
    assert len(plan_by_pauses(activity_of([5, 2, 3, 10, 5]), 30)) == 2


def test_a_short_word_is_kept():
    runs = [10, 0.128, 10]
    (only,) = plan_by_pauses(activity_of(runs), 30)
    assert only.start < 10 - 0.2
    assert only.end > 10.128 + 0.2


@pytest.mark.parametrize(("probability", "kept"), [(0.6, 0), (0.9, 1)])
def test_a_burst_is_kept_if_it_is_surely_speech(probability, kept):
    activity = activity_of([10, 0.064, 10])
    activity.speech[activity.speech > 0.5] = probability
    assert len(plan_by_pauses(activity, 30)) == kept


seconds_of_runs = st.one_of(st.floats(0, 0.3), st.floats(0, 3), st.floats(0, 80))
longests = st.one_of(st.sampled_from([1, 5, 30, 600]), st.floats(1, 700))


@st.composite
def activities(draw):
    """Runs of speech and silence, with probabilities and levels that waver, somewhat or wildly."""
    activity = activity_of(draw(st.lists(seconds_of_runs, max_size=24)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    wild = draw(st.sampled_from([0, 0.05, 0.4, 1]))
    count = len(activity.speech)
    speech = np.clip(activity.speech + wild * random.uniform(-1, 1, count), 0, 1)
    level = np.clip(activity.level + 40 * wild * random.uniform(-1, 1, count), -120, 0)
    cut_off = draw(st.floats(0, FRAME_SECONDS * 0.99)) if count else 0
    return activity._replace(
        speech=speech.astype(np.float32),
        level=level.astype(np.float32),
        seconds=count * FRAME_SECONDS - cut_off,
    )


def surely_spoken(activity):
    """Spans of frames that are speech beyond doubt: three or more above the upper threshold."""
    likely = activity.speech >= 0.5
    spans, frame = [], 0
    for value, group in itertools.groupby(likely):
        count = len(list(group))
        if value and count >= 3:
            end = min((frame + count) * FRAME_SECONDS, activity.seconds)
            spans.append((frame * FRAME_SECONDS, end))
        frame += count
    return spans


@settings(max_examples=150)
@given(activities(), longests)
@example(activity_of([0, 0.5, 3, 30, 3, 0.5, 3, 4]), 5)
def test_any_plan_holds_all_speech_in_order_within_the_limit(activity, longest):
    found = plan_by_pauses(activity, longest)
    check(found, activity.seconds, longest)
    assert missed(found, surely_spoken(activity)) < 1e-6


@settings(max_examples=60)
@given(activities(), longests)
def test_no_plan_holds_much_silence_at_a_stretch(activity, longest):
    silent = activity.speech < 0.35
    frame = 0
    for value, group in itertools.groupby(silent):
        count = len(list(group))
        if value and count * FRAME_SECONDS > 4.1:
            inside = [(frame * FRAME_SECONDS + 0.6, (frame + count) * FRAME_SECONDS - 0.6)]
            assert missed(plan_by_pauses(activity, longest), inside) == pytest.approx(
                inside[0][1] - inside[0][0]
            )
        frame += count


@given(st.one_of(st.just(0.0), st.floats(0.001, 4000)), st.floats(1, 700))
@example(30.0, 30.0)
@example(56.0, 30.0)
def test_fixed_segments_hold_all_and_overlap(seconds, longest):
    found = plan_fixed(seconds, longest)
    check(found, seconds, longest)
    if not seconds:
        assert found == []
        return
    assert (found[0].start, found[-1].end) == (0, seconds)
    overlap = min(OVERLAP, longest / 4)
    for before, after in itertools.pairwise(found):
        assert before.end - after.start == pytest.approx(overlap)
    assert max(s.end - s.start for s in found) == pytest.approx(
        min(s.end - s.start for s in found), rel=1e-6
    )
    assert len(found) <= max(1, math.ceil((seconds - overlap) / (longest - overlap)) + 1)


@pytest.mark.parametrize("longest", [0, 0.9, -3, math.inf, math.nan])
def test_a_limit_out_of_range_is_refused(longest):
    with pytest.raises(ValueError, match=f"longest={longest}"):
        plan_by_pauses(activity_of([1, 1]), longest)
    with pytest.raises(ValueError, match=f"longest={longest}"):
        plan_fixed(100, longest)
