import pytest

from beam_asr import inputs
from beam_asr.audio_names import is_audio
from beam_asr.manifest import Row


@pytest.fixture
def bucket(tmp_path):
    for name in ("a.jsonl", "b.jsonl", "x.flac", "deep/er/y.WAV", "deep/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"audio_filepath": "x.flac"}\n')
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("", ["deep/er/y.WAV", "x.flac"]),
        ("deep", ["deep/er/y.WAV"]),
        ("**/*.WAV", ["deep/er/y.WAV"]),
        ("x.flac", ["x.flac"]),
    ],
)
def test_an_input_stands_for_manifests_or_for_audio(bucket, pattern, expected):
    found = inputs.files_of(str(bucket / pattern))
    assert found == [str(bucket / name) for name in expected]


def test_an_input_that_stands_for_nothing_is_named(bucket):
    for pattern, message in (("c.jsonl", "matches no file"), ("*.mp3", "matches no file")):
        with pytest.raises(inputs.NoInputError, match=message):
            inputs.files_of(str(bucket / pattern))
    (bucket / "empty").mkdir()
    with pytest.raises(inputs.NoInputError, match="holds no audio files"):
        inputs.files_of(str(bucket / "empty"))


def test_a_manifest_gives_its_lines_and_a_clip_itself(bucket):
    listed, clip = str(bucket / "a.jsonl"), str(bucket / "x.flac")
    assert list(inputs.rows_of(listed, "path")) == [Row('{"audio_filepath": "x.flac"}', listed, 1)]
    assert list(inputs.rows_of(clip, "path")) == [Row.of({"path": clip})]


@pytest.mark.parametrize(
    ("name", "audio"),
    [
        ("gs://b/a.FLAC", True),
        ("https://h/a.mp3?token=x.json", True),
        ("a.jsonl", False),
        ("wav", False),
        ("a.wav.txt", False),
    ],
)
def test_audio_is_known_by_its_name(name, audio):
    assert is_audio(name) == audio
