"""Inputs whose content is not what their names say: recordings, archives, other text."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import soundfile

from beam_asr.errors import NoInputError
from beam_asr.inputs import contents, discovery, readers
from beam_asr.storage.storage import Storage
from tests.support.audio_files import chirp, encode

RECORDINGS = {
    "wav": {"format": "WAV"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG"},
    "gsm": {"format": "RAW", "subtype": "GSM610"},
    "mp4": {"codec": "aac", "container": "mp4", "video": True},
    "mp3": {"codec": "mp3", "container": "mp3"},
    "ts": {"codec": "aac", "container": "mpegts"},
    "mpg": {"codec": "mp2", "container": "mpeg", "rate": 48_000, "video": True},
    "flv": {"codec": "aac", "container": "flv", "rate": 44_100},
    "mp2": {"codec": "mp2", "container": "mp2", "rate": 48_000},
    "latm": {"codec": "aac", "container": "latm"},
    "wv": {"codec": "wavpack", "container": "wv"},
}


def recording(kind: str, path) -> bytes:
    how = dict(RECORDINGS[kind])
    rate = how.pop("rate", 16_000)
    if "codec" in how:
        encode(path, chirp(1.0, rate), rate=rate, **how)
    else:
        soundfile.write(path, chirp(1.0, 8000), 8000, **how)
    return path.read_bytes()


def rows_of(storage: Storage, file: str):
    ranges = readers.split_file(storage, file)
    return [row for part in ranges for row in readers.read_rows(storage, part, "audio_filepath")]


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path):
    if request.param == "disk":
        return Storage(), str(tmp_path)
    bucket = request.getfixturevalue("s3_bucket")
    return Storage(bucket.storage_options), bucket.uri


@pytest.mark.parametrize("kind", RECORDINGS)
@pytest.mark.parametrize("name", ["recording", "call.mp4.download", "call.jsonl"])
def test_a_recording_is_a_row_and_no_manifest_whatever_its_name(tmp_path, kind, name):
    (tmp_path / name).write_bytes(recording(kind, tmp_path / "original"))
    file = str(tmp_path / name)
    discovery.check(Storage(), file)
    (row,) = rows_of(Storage(), file)
    assert row.fields == {"audio_filepath": file}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.random.default_rng(0).bytes(5000), "is no text, and no manifest"),
        (b"%PDF-1.7\nmore\n", "is a PDF document, and no manifest"),
        (b"PAR1" + bytes(100), "end its name in .parquet"),
        (b"<!DOCTYPE html>\n<p>Log in\n", "is an HTML page, and no manifest"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a Git LFS pointer"),
        ('{"audio_filepath": "a.wav"}\n'.encode("utf-16"), "save it as UTF-8"),
        (gzip.compress(b"{}\n"), "end its name in .gz"),
    ],
)
def test_what_is_no_text_is_one_clear_failure_and_refused_if_it_is_named(place, content, said):
    storage, folder = place
    for name in ("list", "list.json"):
        storage.write(f"{folder}/{name}", [content])
        (row,) = rows_of(storage, f"{folder}/{name}")
        assert said in row.problem
        assert len(row.problem) < 250
        with pytest.raises(NoInputError) as caught:
            discovery.check(storage, f"{folder}/{name}")
        assert said in str(caught.value)


def test_a_compressed_recording_is_one_clear_failure(tmp_path):
    file = tmp_path / "call.wav.gz"
    file.write_bytes(gzip.compress(recording("wav", tmp_path / "original")))
    (row,) = rows_of(Storage(), str(file))
    assert "is a compressed recording, and no manifest; decompress it" in row.problem


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b'{"audio_filepath": "a.wav"}\n',
        b'\xef\xbb\xbf{"audio_filepath": "a.wav"}\n' + bytes(3000),
        b'{"audio_filepath": "a.wav"}\n' + bytes(3000),
        bytes(300) + b'\n{"audio_filepath": "a.wav"}\n',  # damage that costs its own line
        b"not json\n",
        "{'audio_filepath': 'é.wav'}\n".encode("latin-1"),
        b"[]\n",
        b"\xe0\xf3\xe4\xe8\xee\t\xf2\xe5\xea\xf1\xf2\n" * 99,
        b"GGGG" * 600 + b"\n",
        b"VIDEO " * 600,
    ],
)
def test_text_is_read_line_by_line_whatever_it_says(tmp_path, content):
    file = tmp_path / "m.jsonl"
    file.write_bytes(content)
    assert contents.kind_of(Storage(), str(file)) is None
    discovery.check(Storage(), str(file))


def test_typescript_is_no_transport_stream(place, tmp_path):
    storage, folder = place
    source = b"export const greeting: string = 'hello'\n" * 40
    storage.write(f"{folder}/code.ts", [source])
    storage.write(f"{folder}/video.ts", [recording("ts", tmp_path / "x.ts")])
    storage.write(f"{folder}/broken.ts", [b"\x00" * 500])
    assert contents.is_source_code(storage, f"{folder}/code.ts")
    assert not contents.is_source_code(storage, f"{folder}/video.ts")
    assert not contents.is_source_code(storage, f"{folder}/broken.ts")
    assert not contents.is_source_code(storage, f"{folder}/gone.ts")  # its row says so
    with pytest.raises(NoInputError, match="is source code"):
        discovery.check(storage, f"{folder}/code.ts")
