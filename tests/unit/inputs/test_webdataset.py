"""Samples of WebDatasets."""

from __future__ import annotations

import gzip
import io
import itertools
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
from beam_asr.inputs.tar_stream import is_apple_double
from beam_asr.inputs.webdataset import (
    KEY_AND_EXTENSION,
    SkippedMember,
    member_uri,
    webdataset_samples,
)
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
    names = [name for name in names if not is_apple_double(name)]
    tar = tar_of(*((name, b"{}") for name in names), special("a.c", tarfile.SYMTYPE))
    files = tariterators.tar_file_expander([{"url": "T", "stream": io.BytesIO(tar)}])
    try:
        theirs = [sample["__key__"] for sample in tariterators.group_by_keys(files)]
    except ValueError:  # a name that comes twice, which ends WebDataset's reading
        assume(False)
    # Of a key whose recordings have dots in their names, each is a sample.
    ours = [KEY_AND_EXTENSION.match(f"{sample.key}.x")[1] for sample in samples(tar)[0]]
    assert [key for key, _ in itertools.groupby(ours)] == [k for k, _ in itertools.groupby(theirs)]


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
        ([("x.wav", b""), ("x.flac", b"")], BadRecordError, r"2 audio .* x\.wav, x\.flac;", {}),
        ([("x.b.wav", b""), ("x.b.flac", b"")], BadRecordError, r"2 audio .* x\.b\.flac;", {}),
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


def reported(tar):
    """What comes of the samples of a tar: fields, or the problem, by the audio's or their name."""
    found, error = samples(tar)
    assert error is None
    return {s.audio_name or s.key: str(s.problem) if s.problem else s.fields for s in found}


STEMS = [
    "Track 2.0 (Clean Version)",
    "rec_v1.0",
    "rec_v1.1",
    "2024.01.31",
    "2024.02.01",
    "d.e/f.g.h",
]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
@pytest.mark.parametrize("held", [0, 64 << 20])
def test_a_json_belongs_to_the_recording_of_its_name_dots_or_not(monkeypatch, order, held):
    monkeypatch.setattr("beam_asr.inputs.webdataset.MAX_HELD_BYTES", held)
    members = []
    for stem in STEMS:
        about = [
            (f"{stem}.FLAC", stem.encode()),
            (f"{stem}.json", json.dumps({"id": stem}).encode()),
            (f"{stem}.txt", b"said"),
        ]
        members += [about[place] for place in order]
    found, error = samples(tar_of(*members))
    assert error is None
    assert [(s.audio_name, s.content) for s in found] == [(f"{s}.FLAC", s.encode()) for s in STEMS]
    assert [sample.fields for sample in found] == [{"id": s, "text": "said"} for s in STEMS]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        # One recording: with a json of its name, or of the key as WebDataset has it.
        (["x.mic1.flac", "x.json"], {"x.mic1.flac": ["x.json"]}),
        (["x.mic1.flac", "x.mic1.json"], {"x.mic1.flac": ["x.mic1.json"]}),
        (["x.flac", "x.json", "x.meta.json"], {"x.flac": ["x.json"]}),
        (["x.mic1.flac", "x.mic1.json", "x.txt"], {"x.mic1.flac": ["x.mic1.json", "x.txt"]}),
        # One of either: the other one has no recording.
        (
            ["x.1.flac", "x.1.json", "x.json"],
            {"x.1.flac": ["x.1.json"], "x": "no audio, but recordings beside it .* have dots"},
        ),
        (
            ["x.1.flac", "x.1.json", "x.2.json"],
            {"x.1.flac": ["x.1.json"], "x.2": r"no audio.*x\.2\.wav"},
        ),
        # Several recordings.
        (["x.1.flac", "x.2.flac"], {"x.1.flac": [], "x.2.flac": []}),
        (
            ["x.flac", "x.2.flac", "x.json", "x.2.json"],
            {"x.flac": ["x.json"], "x.2.flac": ["x.2.json"]},
        ),
        (["x.1.flac", "x.1.json", "x.2.flac"], {"x.1.flac": ["x.1.json"], "x.2.flac": []}),
        (
            ["x.1.flac", "x.2.flac", "x.json"],
            dict.fromkeys(["x.1.flac", "x.2.flac"], r"'x\.json' .* any of the 2 .* first dot"),
        ),
        (
            ["x.flac", "x.json", "x.2.flac"],
            {"x.flac": ["x.json"], "x.2.flac": r"'x\.json' .* any of the 2 .* first dot"},
        ),
        (
            ["x.1.flac", "x.1.json", "x.2.flac", "x.2.json", "x.json"],
            {"x.1.flac": ["x.1.json"], "x.2.flac": ["x.2.json"], "x": "no audio"},
        ),
        (["x.1.json", "x.txt"], {"x": "no audio"}),
        (["x.1.json"], {"x.1": "no audio"}),
    ],
)
def test_what_may_belong_to_several_recordings_is_a_problem_of_those(names, rows):
    for ordered in itertools.permutations(names):
        found = reported(tar_of(*((name, json.dumps({name: 1}).encode()) for name in ordered)))
        assert found.keys() == rows.keys()
        for name, expected in rows.items():
            if isinstance(expected, str):
                assert re.search(expected, found[name])
            else:
                fields = {}
                for member in expected:
                    fields |= {"text": json.dumps({member: 1})} if "txt" in member else {member: 1}
                assert found[name] == fields


def test_recordings_of_one_key_are_not_all_in_memory():
    size = 4 << 20
    parts = []
    for day in range(64):
        parts += [header_of(f"2024.01.{day}.wav", size), *[bytes(1 << 16)] * (size >> 16)]
        parts.append(tar_of((f"2024.01.{day}.json", b"{}"))[:-END])
    parts += [tar_of(("2024.txt", b"all of it"))]
    found = []

    def consume():
        for sample in webdataset_samples(Pipe(parts), "T.tar"):
            found.append((sample.audio_name, len(sample.content or b""), sample.problem))
            del sample

    assert peak_of(consume) < (64 << 20) + 3 * size
    names = [f"2024.01.{day}.wav" for day in range(64)]
    assert [(name, length) for name, length, _ in found[:48]] == [
        (name, size) for name in names[:48]
    ]
    # A text that comes when some are gone is reported.
    assert "2024.txt" in " ".join(str(problem) for _, _, problem in found)


def test_what_macos_stores_is_no_part_of_a_sample_and_named():
    content = [("d/._a.flac", b"\0\5\x16\7"), ("d/a.flac", b"1"), ("._x.json", b"\0\5\x16\7")]
    content += [("d/a.json", b'{"a": 1}'), ("__MACOSX/d/._a.txt", b"\0"), ("d/a.txt", b"said")]
    content += [("d/b.flac", b"2"), ("__MACOSX/d/b.flac", b"\0")]
    tar = tar_of(special("._d", tarfile.DIRTYPE), *content)
    assert reported(tar) == {"d/a.flac": {"a": 1, "text": "said"}, "d/b.flac": {}}
    skipped = [
        s.name for s in webdataset_samples(Pipe(tar), "T.tar") if isinstance(s, SkippedMember)
    ]
    assert skipped == ["d/._a.flac", "._x.json", "__MACOSX/d/._a.txt", "__MACOSX/d/b.flac"]


def test_recordings_that_are_in_no_sample_are_named():
    tar = tar_of(
        special("d", tarfile.DIRTYPE), ("a.flac", b"1"), special("b.flac", tarfile.SYMTYPE),
        special("c.mp3", tarfile.LNKTYPE), (".d.flac", b"2"), ("__e__.flac", b"3"),
        ("README", b"4"), ("a.txt", b"another a"),
    )  # fmt: skip
    found = list(webdataset_samples(Pipe(tar), "T.tar"))
    skipped = [sample.name for sample in found if isinstance(sample, SkippedMember)]
    assert skipped == ["b.flac", "c.mp3", ".d.flac"]


def test_attributes_of_macos_in_extended_headers_change_nothing():
    member = tarfile.TarInfo("a.b.flac")
    member.size = 1
    attribute = "LIBARCHIVE.xattr.com.apple.metadata:kMDItemWhereFroms"
    member.pax_headers = {attribute: "x" * 3000, "SCHILY.xattr.com.apple.quarantine": "0081;"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(b"1"))
        member.name, member.size = "a.b.json", 8
        tar.addfile(member, io.BytesIO(b'{"a": 1}'))
    assert reported(packed.getvalue()) == {"a.b.flac": {"a": 1}}


NAMES = st.lists(st.sampled_from(["x", "x.1", "x.2", "y", "y.1.2"]), unique=True)
EXTENSIONS = st.lists(st.sampled_from(["flac", "wav", "json", "txt", "png"]), unique=True)


@given(NAMES.flatmap(lambda names: st.tuples(*(st.tuples(st.just(n), EXTENSIONS) for n in names))))
def test_no_recording_and_no_text_is_lost_or_with_another(stems):
    members = [
        (f"{stem}.{ext}", f'{{"of": "{stem}"}}'.encode()) for stem, exts in stems for ext in exts
    ]
    found, error = samples(tar_of(*members))
    assert error is None
    recognized = [sample.audio_name for sample in found if sample.content is not None]
    for stem, extensions in stems:
        audio = [f"{stem}.{extension}" for extension in extensions if extension in ("flac", "wav")]
        own = [s for s in found if s.content is not None and s.audio_name in audio]
        assert stem in [s.key for s in found] or not audio  # and once more, if texts come apart
        assert len(own) <= 1
        if own and "json" in extensions:
            assert own[0].fields["of"] == stem
        if own and "json" not in extensions and len(recognized) > 1:
            assert "of" not in own[0].fields or stem.startswith(own[0].fields["of"])


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
