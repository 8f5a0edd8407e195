"""Samples of WebDatasets."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import random
import re
import tarfile

import fsspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beam_asr.errors import BadRecordError, MissingMemberError, NotAnObjectError, NotJsonError
from beam_asr.inputs.webdataset import member_uri, webdataset_samples
from tests.support.tars import (
    END,
    PACK,
    Pipe,
    flac,
    header_of,
    peak_of,
    samples,
    special,
    tar_of,
)


def test_samples_written_by_webdataset_are_read(tmp_path):
    writer = pytest.importorskip("webdataset.writer")
    audio = flac(1)
    with writer.TarWriter(str(tmp_path / "s.tar.gz")) as tar:
        tar.write(
            {"__key__": "d/one", "flac": audio, "json": {"id": 7, "lang": "de"}, "txt": "Ja."}
        )
        tar.write({"__key__": "d/two", "flac": audio, "png": b"?", "cls": 3})
    one, two = samples((tmp_path / "s.tar.gz").read_bytes())[0]
    assert one.fields == {"id": 7, "lang": "de", "text": "Ja."}
    assert (one.key, one.audio_name, one.content) == ("d/one", "d/one.flac", audio)
    assert (two.key, two.fields, two.content, two.problem) == ("d/two", {}, audio, None)


PARTS = st.text("ab._/", min_size=1, max_size=6)


ODD = st.builds(lambda head, tail: head + tail, PARTS, st.sampled_from(["", ".WAV", ".json"]))


@given(st.lists(st.one_of(ODD, st.sampled_from(["__a__/b.wav", "./a.wav", "a/__b__.x", "b\n.a"]))))
@settings(max_examples=300, deadline=None)
def test_the_keys_are_those_that_webdataset_reads(names):
    tariterators = pytest.importorskip("webdataset.tariterators")
    tar = tar_of(*((name, b"{}") for name in names), special("a.c", tarfile.SYMTYPE))
    files = tariterators.tar_file_expander([{"url": "T", "stream": io.BytesIO(tar)}])
    try:
        theirs = [sample["__key__"] for sample in tariterators.group_by_keys(files)]
    except ValueError:  # a name that comes twice, which ends WebDataset's reading
        assume(False)
    assert [sample.key for sample in samples(tar)[0]] == theirs


def one_sample(*members):
    (sample,), error = samples(tar_of(*members))
    assert error is None
    return sample


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        ([], {}),
        ([("x.txt", "\ufeffÜber\r\n")], {"text": "Über"}),
        ([("x.TXT", "a\n\n")], {"text": "a\n"}),
        ([("x.json", '\ufeff{"a": 1}'), ("x.txt", "t")], {"a": 1, "text": "t"}),
        ([("x.txt", "t"), ("x.json", '{"text": "j"}')], {"text": "j"}),
        ([("x.meta.json", "["), ("x.json.txt", "t"), ("x.png", "?")], {}),
    ],
)
def test_json_and_txt_are_the_fields_and_json_wins(members, fields):
    sample = one_sample(("x.wav", b"1"), *((name, text.encode()) for name, text in members))
    assert (sample.fields, sample.content, sample.problem) == (fields, b"1", None)


@pytest.mark.parametrize("name", ["x.mic1.FLAC", "d.e/x.opus", "x.what?.wav"])
def test_audio_is_known_by_the_last_extension(name):
    assert one_sample((name, b"1")).audio_name == name


@pytest.mark.parametrize(
    ("members", "kind", "message", "fields"),
    [
        ([("x.txt", b"t")], MissingMemberError, r"'x' of T\.tar has no audio", {"text": "t"}),
        ([("x.wav", b""), ("x.json", b"{")], NotJsonError, r"'x\.json' of T\.tar is not JSON", {}),
        ([("x.wav", b""), ("x.json", b'{"\xff": 1}')], NotJsonError, "is not JSON", {}),
        ([("x.wav", b""), ("x.json", b"[" * 100000)], NotJsonError, "is not JSON", {}),
        (
            [("x.json", b"[]"), ("x.wav", b"")],
            NotAnObjectError,
            r"'x\.json' .* one JSON object",
            {},
        ),
        (
            [("x.wav", b""), ("x.txt", b"\xff"), ("x.json", b'{"a": 1}')],
            BadRecordError,
            r"UTF-8",
            {"a": 1},
        ),
        (
            [("x.wav", b""), ("x.mic2.wav", b"")],
            BadRecordError,
            r"2 audio .* x\.wav, x\.mic2\.wav;",
            {},
        ),
        ([("x.wav", b""), ("x.wav", b"")], BadRecordError, r"2 audio members, x\.wav, x\.wav;", {}),
        ([("x.wav", b""), ("x.json", b"{}"), ("x.json", b"{}")], BadRecordError, "comes twice", {}),
        (
            [special("x.wav", tarfile.SYMTYPE), ("x.txt", b"t")],
            MissingMemberError,
            "no audio",
            {"text": "t"},
        ),
    ],
)
def test_a_sample_that_cannot_be_used_says_why(members, kind, message, fields):
    sample = one_sample(*members)
    assert type(sample.problem) is kind
    assert re.search(message, str(sample.problem))
    assert (sample.content, sample.fields) == (None, fields)


@pytest.mark.parametrize("extension", ["json", "txt"])
def test_a_text_of_a_size_that_none_has_is_not_read(extension):
    size = (16 << 20) + 512
    parts = [
        header_of(f"x.{extension}", size),
        *[b" " * 512] * (size // 512),
        tar_of(("x.wav", b"")),
    ]
    found = []
    assert peak_of(lambda: found.extend(webdataset_samples(Pipe(parts), "T.tar"))) < 4 << 20
    assert [type(sample.problem) for sample in found] == [BadRecordError]
    assert re.search(rf"'x\.{extension}' .* {size} bytes; .* 16777216", str(found[0].problem))


@pytest.mark.parametrize("packing", PACK)
def test_a_sample_in_which_the_tar_breaks_off_is_not_passed_off_as_whole(packing):
    content = random.Random(0).randbytes(600)
    members = []
    for key in "abc":
        members += [(f"{key}.json", json.dumps({"key": key}).encode()), (f"{key}.wav", content)]
        members.append((f"{key}.txt", key.encode()))
    packed = PACK[packing](tar_of(*members))
    whole, error = samples(packed)
    assert error is None
    assert [sample.fields for sample in whole] == [{"key": key, "text": key} for key in "abc"]
    for cut in range(0, len(packed) - END if packing == "plain" else len(packed), 7):
        found, error = samples(packed[:cut])
        assert error
        good = [sample for sample in found if not sample.problem]
        assert good == whole[: len(good)]
        for sample in found[len(good) :]:
            assert sample is found[-1]
            assert sample.content is None
            assert str(error) in str(sample.problem)


def test_a_key_that_comes_again_later_is_another_sample():
    found, _ = samples(tar_of(("a.wav", b"1"), ("b.wav", b"2"), ("a.flac", b"3")))
    assert [(s.key, s.content) for s in found] == [("a", b"1"), ("b", b"2"), ("a", b"3")]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.xz"])
def test_fsspec_opens_a_member_by_its_uri(tmp_path, ending):
    names = [
        "a/b.flac",
        "./c.wav",
        "x y.wav",
        "ü/日本.wav",
        "h#1.wav",
        "q?.wav",
        "p%20.wav",
        "*[1].wav",
    ]
    names += ["../e.wav", "/abs.wav", "~t.wav", "s://x.wav", "{a}.wav", "a:b.wav"]
    path = tmp_path / f"my tar{ending}"
    pack = {".tar": bytes, ".tar.gz": gzip.compress, ".tar.xz": lzma.compress}[ending]
    path.write_bytes(pack(tar_of(*((name, name.encode()) for name in names))))
    for tar_uri in (str(path), f"file://{path}"):
        for name in names:
            with fsspec.open(member_uri(tar_uri, name)) as file:
                assert file.read() == name.encode()


@pytest.mark.parametrize("name", ["a.wav::/etc/other.tar", "tar://a.wav"])
def test_a_member_whose_uri_would_open_something_else_has_none(name):
    with pytest.raises(BadRecordError, match=r"T\.tar has no URI.*rename"):
        member_uri("T.tar", name)
