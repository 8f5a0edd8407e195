import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from lhotse.augmentation import Resample
from lhotse.cut import MonoCut, MultiCut, PaddingCut

from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.errors import BadFieldError, BadRecordError, ManifestError
from beam_asr.records.lhotse_cuts import CutAudio, audio_of, is_cut, reference_of

RATE = 8000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise of 1.5 s: ``mono.wav``, ``stereo.wav`` and a file for each of three microphones."""
    folder = tmp_path_factory.mktemp("audio")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE * 3 // 2, 5))
    for name, channels in (
        ("mono", [0]),
        ("stereo", [1, 2]),
        ("m0", [3]),
        ("m1", [4]),
        ("m2", [0]),
    ):
        soundfile.write(folder / f"{name}.wav", noise[:, channels], RATE, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def array(folder):
    """A recording of three microphones, a file each, whose channels are 0, 4 and 7."""
    sources = [
        AudioSource("file", [channel], str(folder / f"m{index}.wav"))
        for index, channel in enumerate((0, 4, 7))
    ]
    return Recording("array", sources, RATE, RATE * 3 // 2, 1.5)


def cut_of(folder, name):
    return Recording.from_file(folder / f"{name}.wav").to_cut()


def fields_of(cut, folder):
    """The row that a cut is in the manifest that lhotse writes of it."""
    file = folder / "cuts.jsonl"
    CutSet.from_cuts([cut]).to_file(file)
    (line,) = file.read_text(encoding="utf-8").splitlines()
    return json.loads(line)


def samples_of(named, rate=RATE):
    return read_audio(
        named.audio,
        AudioRequest(
            sample_rate=rate, offset=named.offset, duration=named.duration, channel=named.channel
        ),
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda folder, _: cut_of(folder, "mono"),
        lambda folder, _: cut_of(folder, "mono").truncate(offset=0.25, duration=0.6250625),
        lambda folder, _: cut_of(folder, "stereo"),
        lambda folder, _: cut_of(folder, "stereo").truncate(offset=0.7),
        lambda folder, _: cut_of(folder, "stereo").with_channels(0),
        lambda folder, _: cut_of(folder, "stereo").truncate(offset=0.7).with_channels(1),
        lambda folder, _: cut_of(folder, "stereo").with_channels([1, 0]),
        lambda folder, _: MultiCut(
            "c", 0.7, 0.5, [1], recording=cut_of(folder, "stereo").recording
        ),
        lambda _, array: array.to_cut().with_channels(0),
        lambda _, array: array.to_cut().truncate(offset=0.1, duration=1).with_channels(4),
        lambda _, array: array.to_cut().with_channels(7),
    ],
)
def test_the_samples_named_are_those_that_lhotse_loads(folder, array, make):
    cut = make(folder, array)
    fields = fields_of(cut, folder)
    assert is_cut(fields)
    loaded = cut.load_audio().mean(axis=0)
    np.testing.assert_allclose(samples_of(audio_of(fields)), loaded, atol=1e-7)


def test_channels_are_numbered_by_the_recording_and_given_as_the_files():
    recording = Recording(
        "r",
        [AudioSource("file", [5, 2], "a.wav"), AudioSource("url", [9], "s3://b/c.wav")],
        RATE,
        RATE,
        1.0,
    )
    for channel, expected in ((5, ("a.wav", 0)), (2, ("a.wav", 1)), (9, ("s3://b/c.wav", 0))):
        cut = MonoCut("c", 0.25, 0.5, channel, recording=recording).to_dict()
        assert audio_of(cut) == CutAudio(expected[0], 0.25, 0.5, expected[1])
    both = MultiCut("c", 0, 1, [2, 5], recording=recording).to_dict()
    assert audio_of(both) == CutAudio("a.wav", 0.0, 1.0, None)


def test_a_resampled_cut_is_the_same_range_before_lhotse_resamples_it(folder):
    cut = cut_of(folder, "mono").truncate(offset=0.3, duration=0.5).resample(16_000)
    named = audio_of(fields_of(cut, folder))
    resampled = Resample(RATE, 16_000)(samples_of(named)[None])
    np.testing.assert_allclose(resampled, cut.load_audio(), atol=1e-7)


def test_every_kind_of_cut_is_known_as_one(folder):
    cut = cut_of(folder, "mono")
    padding = PaddingCut("p", 1.0, RATE, feat_value=-23.0, num_samples=RATE)
    features = MonoCut("f", 0, 1, 0).to_dict()
    kinds = [cut, cut_of(folder, "stereo"), cut.pad(duration=2), cut.append(cut), padding]
    assert all(is_cut(each.to_dict()) for each in kinds)
    assert is_cut(features)


@pytest.mark.parametrize("missing", ["id", "start", "duration", "channel"])
def test_a_cut_that_lacks_a_field_is_known_as_one_so_that_its_error_is_a_cuts(missing):
    cut = a_cut()
    del cut[missing]
    assert is_cut(cut)


@pytest.mark.parametrize(
    "fields",
    [
        {"audio_filepath": "a.wav", "duration": 1.5, "text": "x"},
        {"audio_filepath": "a.wav", "type": "speech", "recording": {"id": "r"}},
        {"audio_filepath": "a.wav", "type": "MonoCut", "id": "c", "duration": 1.5},
        {"audio_filepath": "a.wav", "type": "PaddingCut", "id": "c", "duration": 1.5},
        {"audio_filepath": "a.wav", "type": ["MonoCut"], "recording": {}},
        {"audio_filepath": "a.wav", "type": None},
        {},
    ],
)
def test_a_row_of_nemos_is_no_cut_whatever_its_type(fields):
    assert not is_cut(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cut: cut.perturb_speed(1.1), "transforms ['Speed']"),
        (lambda cut: cut.perturb_tempo(0.9), "transforms ['Tempo']"),
        (lambda cut: cut.resample(16_000).perturb_volume(2.0), "transforms ['Volume']"),
        (lambda cut: cut.clip_amplitude(), "transforms ['Clipping']"),
        (lambda cut: cut.reverb_rir(), "transforms ['ReverbWithImpulseResponse']"),
        (lambda cut: cut.pad(duration=5), "a MixedCut is no range of one file"),
        (lambda cut: cut.append(cut), "a MixedCut is no range of one file"),
        (lambda cut: cut.mix(cut, snr=10), "a MixedCut is no range of one file"),
        (lambda _: PaddingCut("p", 1, RATE, -23.0, num_samples=RATE), "a PaddingCut is no range"),
    ],
)
def test_a_cut_that_is_more_than_a_range_of_a_file_is_refused_with_a_remedy(
    folder, change, message
):
    fields = change(cut_of(folder, "mono")).to_dict()
    assert is_cut(fields)
    with pytest.raises(BadRecordError) as error:
        audio_of(fields)
    assert message in str(error.value)
    assert "cuts.save_audios(folder)" in str(error.value)


def test_the_remedy_works(folder, tmp_path):
    cut = cut_of(folder, "mono")
    changed = [cut.resample(16_000).perturb_volume(0.5), cut.append(cut), cut.pad(duration=5)]
    for saved in CutSet.from_cuts(changed).save_audios(tmp_path, progress_bar=False):
        samples = samples_of(audio_of(saved.to_dict()), saved.sampling_rate)
        np.testing.assert_allclose(samples, saved.load_audio()[0], atol=1e-7)


def a_cut(**changes):
    recording = {
        "id": "r",
        "sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}],
        "sampling_rate": RATE,
        "num_samples": RATE,
        "duration": 1.0,
    }
    source = {**recording["sources"][0], **changes.pop("source", {})}
    recording = {**recording, "sources": [source], **changes.pop("recording", {})}
    cut = {"type": "MonoCut", "id": "c", "start": 0, "duration": 1.0, "channel": 0}
    return {**cut, "recording": recording, **changes}


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (a_cut(source={"type": "command", "source": "cat a.wav"}), "shell command, and the job"),
        (a_cut(source={"type": "memory", "source": "UklGRg=="}), "of the type 'memory'"),
        (a_cut(source={"type": "shar", "source": ""}), "of the type 'shar'"),
        (a_cut(source={"type": None}), "of the type None"),
        (a_cut(type="MultiCut", channel=[0, 2]), r"takes the channels [0, 2] of [0, 1]"),
        (a_cut(type="MultiCut", channel=[0, 1], source={"channels": [0, 1, 2]}), "one channel"),
        (a_cut(channel=2), "channels [2] are in 0 of the recording's 1 sources"),
        (a_cut(recording={"sources": []}), "in 0 of the recording's 0 sources"),
        (a_cut(recording={"transforms": {"name": "Speed"}}), "transforms ['Speed']"),
        (a_cut(recording={"transforms": ["Resample", 3]}), "transforms [3]"),
    ],
)
def test_a_cut_that_is_no_range_of_one_file_is_refused_with_a_remedy(cut, message):
    with pytest.raises(BadRecordError) as error:
        audio_of(cut)
    assert message in str(error.value)
    assert "cuts.save_audios(folder)" in str(error.value)


def test_a_cut_over_several_files_is_refused_with_a_remedy_that_works(array):
    cut = array.to_cut()
    with pytest.raises(
        BadRecordError, match=r"3 of the recording's 3 .*cut.with_channels\(channel"
    ):
        audio_of(cut.to_dict())
    assert [audio_of(cut.with_channels(c).to_dict()).channel for c in (0, 4, 7)] == [0, 0, 0]


def test_a_cut_of_features_alone_is_refused():
    cut = MonoCut("c", 0, 1, 0).to_dict()
    with pytest.raises(BadRecordError, match="no recording, and features alone"):
        audio_of(cut)


NOT_SECONDS = ["1", None, True, -0.5, float("nan"), float("inf"), 10**400, [1], {}]


@pytest.mark.parametrize(
    ("cut", "message"),
    [(a_cut(start=value), "the cut's 'start' is") for value in NOT_SECONDS]
    + [(a_cut(duration=value), "the cut's 'duration' is") for value in [*NOT_SECONDS, 0, 0.0]]
    + [(a_cut(channel=value), "'channel' is") for value in (None, True, "0", -1, 0.0, [], [0, 0])]
    + [(a_cut(source={"channels": value}), "source's 'channels' is") for value in (None, [0, None])]
    + [(a_cut(source={"source": value}), "not the path or URI") for value in (None, " ", 3, ["a"])]
    + [(a_cut(recording={"sources": value}), "'sources' is") for value in (None, {}, "a", [3])]
    + [({**a_cut(), "recording": "r"}, "'recording' is 'r', not an object")],
)
def test_a_field_of_a_wrong_value_is_named_with_it(cut, message):
    with pytest.raises(BadFieldError) as error:
        audio_of(cut)
    assert message in str(error.value)


def places(value, path=()):
    """The paths to all values within a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


WHOLE = a_cut(recording={"transforms": [{"name": "Resample", "kwargs": {}}]}, channel=[0, 1])
PLACES = [path for path in places(WHOLE) if path]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=3))
def test_any_json_in_any_place_of_a_cut_is_a_range_or_an_error_in_the_manifest(changes):
    cut = copy.deepcopy(WHOLE)
    for path, value in changes:
        inner = cut
        try:
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    assert is_cut(cut) in (True, False)
    try:
        audio, offset, duration, channel = audio_of(cut)
    except ManifestError:
        return
    assert audio.strip()
    assert offset >= 0
    assert 0 < duration < float("inf")
    assert channel is None or channel >= 0


@given(st.dictionaries(st.sampled_from(["type", *WHOLE, "tracks"]), JSON))
def test_any_object_is_reported_from_a_cut(fields):
    assert is_cut(fields) in (True, False)
    with pytest.raises(ManifestError):
        audio_of(fields)


def test_the_module_is_light_to_import():
    code = (
        "import sys, beam_asr.records.lhotse_cuts; "
        "sys.exit(bool({'lhotse', 'torch'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def cut_with(folder, *texts, custom=None, **changes):
    """A cut of 1.5 s with a supervision of 0.4 s for each text and its start."""
    cut = cut_of(folder, "mono")
    cut.custom = custom
    cut.supervisions = [
        SupervisionSegment(f"s{n}", "mono", start, 0.4, text=text, **changes)
        for n, (start, text) in enumerate(texts)
    ]
    return cut


@pytest.mark.parametrize(
    ("texts", "custom", "expected"),
    [
        ([(0.2, "one two")], None, "one two"),
        ([(0.9, "three"), (0.1, "one"), (0.5, "two")], None, "one two three"),
        ([(0.1, "one"), (0.5, None), (0.9, "two")], None, "one two"),
        ([(0.1, ""), (0.5, "")], None, ""),
        ([(0.1, "one"), (0.5, "")], None, "one"),
        ([(0.1, "one")], {"text": "another"}, "one"),
        ([(0.1, None)], {"text": "of the cut"}, "of the cut"),
        ([], {"text": "of the cut"}, "of the cut"),
        ([], {"text": 3}, None),
        ([], None, None),
        ([(0.1, None)], None, None),
    ],
)
def test_the_reference_is_that_of_the_supervisions_in_the_order_of_their_starts(
    folder, texts, custom, expected
):
    cut = cut_with(folder, *texts, custom=custom)
    assert reference_of(fields_of(cut, folder), "text") == expected


def test_a_field_of_ones_own_is_that_of_the_supervisions_too(folder):
    cut = cut_with(folder, (0.5, "x"), (0.1, "y"), custom={"raw": "z"})
    cut.supervisions[0].custom = {"raw": "B."}
    cut.supervisions[1].custom = {"raw": "A,"}
    assert reference_of(fields_of(cut, folder), "raw") == "A, B."
    assert reference_of(fields_of(cut, folder), "speaker") is None


def test_a_text_that_says_more_than_its_cut_is_no_reference(folder):
    cut = cut_with(folder, (0.05, "one"), (0.85, "two"))
    windows = CutSet.from_cuts([cut]).cut_into_windows(0.5).to_eager()
    assert [len(window.supervisions) for window in windows] == [1, 1, 1]
    assert [reference_of(fields_of(w, folder), "text") for w in windows] == ["one", None, None]
    trimmed = CutSet.from_cuts([cut]).trim_to_supervisions().to_eager()
    assert [reference_of(fields_of(c, folder), "text") for c in trimmed] == ["one", "two"]


@pytest.mark.parametrize(
    "supervisions",
    [None, 3, {}, [3], ["x"], [None], [{}], [{"text": 3}], [{"text": None, "custom": 7}]],
)
def test_supervisions_of_another_shape_are_no_reference(supervisions):
    assert reference_of(a_cut(supervisions=supervisions, custom=[]), "text") is None
