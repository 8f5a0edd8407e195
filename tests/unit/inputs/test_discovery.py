import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from beam_asr import ReadManifest
from beam_asr.inputs import discovery, readers
from beam_asr.inputs.readers import Piece
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import is_audio


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
    found = discovery.files_of(Storage(), str(bucket / pattern))
    assert found == [str(bucket / name) for name in expected]


def test_an_input_that_stands_for_nothing_is_named(bucket):
    for pattern, message in (("c.jsonl", "matches no file"), ("*.mp3", "matches no file")):
        with pytest.raises(discovery.NoInputError, match=message):
            discovery.files_of(Storage(), str(bucket / pattern))
    (bucket / "empty").mkdir()
    with pytest.raises(discovery.NoInputError, match="holds no audio files"):
        discovery.files_of(Storage(), str(bucket / "empty"))


def test_a_manifest_gives_its_lines_and_a_clip_itself(bucket):
    listed, clip = str(bucket / "a.jsonl"), str(bucket / "x.flac")
    assert list(readers.rows_of(Storage(), Piece(listed), "path")) == [
        Row('{"audio_filepath": "x.flac"}', listed, 1)
    ]
    assert list(readers.rows_of(Storage(), Piece(clip), "path")) == [Row.of({"path": clip})]


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


def test_braces_stand_for_all_their_files_and_a_missing_one_is_named(bucket):
    for number in range(3):
        (bucket / f"manifest_{number}.json").touch()
    storage, braces = Storage(), str(bucket / "manifest__OP_0..2_CL_.json")
    expected = [str(bucket / f"manifest_{number}.json") for number in range(3)]
    assert discovery.files_of(storage, braces) == expected
    assert discovery.files_of(storage, str(bucket / "manifest_{0..2}.json")) == expected
    (bucket / "manifest_1.json").unlink()
    with pytest.raises(discovery.NoInputError, match=r"3 files, of which 1 are missing: .*_1.json"):
        discovery.files_of(storage, braces)
    with pytest.raises(discovery.NoInputError, match=r"_1.json"):
        discovery.check(storage, braces)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(bucket):
    (bucket / "a[1].jsonl").touch()
    assert discovery.files_of(Storage(), str(bucket / "a[1].jsonl")) == [str(bucket / "a[1].jsonl")]


def test_a_check_looks_no_further_than_to_the_first_file(bucket, monkeypatch):
    monkeypatch.setattr(Storage, "find", lambda *_: pytest.fail("all were listed"))
    discovery.check(Storage(), str(bucket))
    discovery.check(Storage(), str(bucket / "**/*.flac"))


def test_a_long_manifest_is_read_in_pieces_with_the_numbers_of_its_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "PIECE_BYTES", 1000)
    listed = tmp_path / "m.jsonl"
    listed.write_text("".join(f'{{"audio_filepath": "{n}.wav"}}\n' for n in range(500)))
    pieces = readers.pieces_of(Storage(), str(listed))
    assert len(pieces) > 10
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | ReadManifest(str(listed)) | beam.Map(lambda row: tuple(row)[:3])
        expected = [(f'{{"audio_filepath": "{n}.wav"}}', str(listed), n + 1) for n in range(500)]
        assert_that(rows, equal_to(expected))


def test_what_cannot_be_split_is_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "PIECE_BYTES", 10)
    for name in ("m.jsonl.gz", "t.csv", "a.flac", "a.tar"):
        (tmp_path / name).write_bytes(bytes(100))
        file = str(tmp_path / name)
        assert readers.pieces_of(Storage(), file) == [Piece(file)]


def test_the_rows_of_a_table_are_numbered_and_a_wrong_one_keeps_its_place(tmp_path):
    (tmp_path / "t.csv").write_text("audio_filepath,duration,who\na.wav,1.5,007\nb.wav,2\n")
    file = str(tmp_path / "t.csv")
    good, bad = readers.rows_of(Storage(), Piece(file), "audio_filepath")
    assert good == Row('{"audio_filepath": "a.wav", "duration": 1.5, "who": "007"}', file, 2)
    assert (bad.manifest, bad.line_number) == (file, 3)
    assert "2 cells" in bad.problem
