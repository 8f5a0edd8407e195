import bz2
import gzip
import io
import json
import lzma
import posixpath
import random
import re
import tarfile
import tracemalloc

import fsspec
import numpy as np
import pytest
import soundfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beam_asr.errors import BadRecordError, MissingMemberError, NotAnObjectError, NotJsonError
from beam_asr.inputs.nemo_tarred import Member, MemberWithoutRow, RowsWithoutMember, nemo_members
from beam_asr.inputs.tar_stream import TarError
from beam_asr.inputs.webdataset import member_uri, webdataset_samples

PACK = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]
END = 1024  # bytes of zeros that end a tar


def tar_of(*members, fmt=tarfile.PAX_FORMAT):
    """A tar of (name, content) or `TarInfo`, without the padding to a record that follows its end.

    A header with a size gets no content.
    """
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=fmt) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                header = tarfile.TarInfo(member[0])
                header.size = len(member[1])
                tar.addfile(header, io.BytesIO(member[1]))
        end = tar.offset + END
    return made.getvalue()[:end]


def special(name, kind, target="x.wav"):
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = target
    return header


class Pipe:
    """A file that can only be read, forwards; it counts, and fails where it is told to."""

    def __init__(self, parts, fail_at=None, error=None):
        self._parts = iter([parts] if isinstance(parts, bytes) else parts)
        self._left = b""
        self._fail_at, self._error = fail_at, error
        self.reads, self.bytes, self.largest = 0, 0, 0

    def read(self, size=-1):
        assert size > 0
        if self.reads == self._fail_at:
            raise self._error
        if not self._left:
            self._left = next(self._parts, b"")
        data, self._left = self._left[:size], self._left[size:]
        self.reads, self.bytes = self.reads + 1, self.bytes + len(data)
        self.largest = max(self.largest, size)
        return data


def events(tar, *names):
    """What comes of a tar whose rows are their own names."""
    return list(nemo_members(Pipe(tar), "T.tar", [(name, name) for name in names]))


def samples(tar):
    """The samples of a tar, and the error that they end with."""
    found = []
    try:
        for sample in webdataset_samples(Pipe(tar), "T.tar"):
            found.append(sample)
    except TarError as error:
        return found, error
    return found, None


def rows_in(found):
    return [row for event in found if not isinstance(event, MemberWithoutRow) for row in event.rows]


def flac(seconds):
    made = io.BytesIO()
    soundfile.write(made, np.zeros(int(16000 * seconds)), 16000, format="FLAC")
    return made.getvalue()


# NeMo's tarred form


@pytest.mark.parametrize("packing", PACK)
def test_each_member_comes_with_its_rows_in_the_order_of_the_tar(packing):
    tar = tar_of(("b.flac", flac(2)), ("readme", b"?"), ("a.flac", flac(1)))
    file = Pipe(PACK[packing](tar))
    rows = [("a.flac", 1), ("b-sub2.flac", {"offset": 1.0}), ("c.flac", 3), ("b-sub1.flac", 4)]
    b, readme, a, rest = nemo_members(file, "T.tar", rows)
    assert (b.name, b.rows, a.name, a.rows) == ("b.flac", [{"offset": 1.0}, 4], "a.flac", [1])
    assert [soundfile.info(io.BytesIO(m.content)).duration for m in (b, a)] == [2, 1]
    assert readme == MemberWithoutRow("readme")
    assert rest == RowsWithoutMember([3], None)


def test_a_tar_that_answers_every_row_ends_without_more():
    assert events(tar_of(("x.wav", b"1")), "x.wav") == [Member("x.wav", b"1", ["x.wav"])]
    assert events(tar_of()) == []


@pytest.mark.parametrize(
    ("rows", "members", "expected"),
    [
        (["./x.wav"], ["x.wav"], {"x.wav": ["./x.wav"]}),
        (["x.wav"], ["./x.wav"], {"./x.wav": ["x.wav"]}),
        (["d/x-sub12.wav"], ["d/x.wav"], {"d/x.wav": ["d/x-sub12.wav"]}),
        (["x-sub1"], ["x"], {"x": ["x-sub1"]}),
        (["x-sub1-sub2.wav"], ["x.wav", "x-sub1.wav"], {"x-sub1.wav": ["x-sub1-sub2.wav"]}),
        (["x-sub.wav", "x-sub1a.wav"], ["x.wav"], {}),
        (["x.wav"], ["x-sub1.wav", "X.wav", "x.flac"], {}),
        # Names whose only difference is a folder, which only one of them has.
        (["/data/d/x.wav"], ["x.flac"], {"x.flac": ["/data/d/x.wav"]}),
        (["/data/x-sub1.wav"], ["x.wav"], {"x.wav": ["/data/x-sub1.wav"]}),
        (["/data/x-sub1.wav"], ["x-sub1.wav"], {"x-sub1.wav": ["/data/x-sub1.wav"]}),
        (["x.wav"], ["d/x.wav", "e/x.wav"], {"d/x.wav": ["x.wav"]}),
        (["d/x.wav"], ["e/x.wav"], {}),
        (["x.wav"], ["x.flac"], {}),
        (["d/x.wav"], ["./x.wav"], {"./x.wav": ["d/x.wav"]}),
        # One that has the name comes before one that has the file id, and ids can be ambiguous.
        (["d/x.wav", "x.wav"], ["x.wav", "d/x.wav"], {"x.wav": ["x.wav"], "d/x.wav": ["d/x.wav"]}),
        (["d/x.wav", "x.wav"], ["x.wav", "x.wav"], {"x.wav": ["x.wav"]}),
        (["d/x.wav", "e/x.wav"], ["x.wav"], {}),
        (["d/x-sub1.wav", "d/x.wav"], ["x.wav"], {"x.wav": ["d/x-sub1.wav", "d/x.wav"]}),
        # What comes first in the tar.
        (["x-sub1.wav"], ["x.wav", "x-sub1.wav"], {"x.wav": ["x-sub1.wav"]}),
        (["x-sub1.wav"], ["x-sub1.wav", "x.wav"], {"x-sub1.wav": ["x-sub1.wav"]}),
        (["ü/日本.wav"], ["ü/日本.wav"], {"ü/日本.wav": ["ü/日本.wav"]}),
        (
            ["l" * 300 + "-sub1.wav"],
            ["l" * 300 + ".wav"],
            {"l" * 300 + ".wav": ["l" * 300 + "-sub1.wav"]},
        ),
    ],
)
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_row_is_about_the_first_member_of_its_name(rows, members, expected, fmt):
    found = events(tar_of(*((name, b"") for name in members), fmt=fmt), *rows)
    assert {event.name: event.rows for event in found if isinstance(event, Member)} == expected
    assert sorted(rows_in(found)) == sorted(rows)


def test_the_first_of_two_members_with_one_name_has_the_rows():
    first, second = events(tar_of(("x.wav", b"1"), ("x.wav", b"2")), "x.wav", "x.wav")
    assert first == Member("x.wav", b"1", ["x.wav", "x.wav"])
    assert second == MemberWithoutRow("x.wav")


def test_links_and_devices_are_never_read():
    evil = "../../etc/passwd"
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    tar = tar_of(*(special(evil, kind, "/etc/passwd") for kind in kinds), ("x.wav", b"1"))
    *skipped, x, rest = events(tar, evil, "x.wav")
    assert skipped == [MemberWithoutRow(evil)] * len(kinds)
    assert (x.content, rest) == (b"1", RowsWithoutMember([evil], None))


def test_a_sparse_file_is_not_blown_up_to_what_it_claims():
    sparse = special("x.wav", tarfile.REGTYPE)
    sparse.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(64 << 20)}
    tar = tar_of(sparse, ("x.txt", b"t"))
    found = events(tar, "x.wav")
    names = [MemberWithoutRow("x.wav"), MemberWithoutRow("x.txt")]
    assert found == [*names, RowsWithoutMember(["x.wav"], None)]
    assert isinstance(samples(tar)[0][0].problem, MissingMemberError)


def test_a_directory_is_no_member():
    tar = tar_of(special("./", tarfile.DIRTYPE), special("d.wav", tarfile.DIRTYPE))
    assert events(tar, "d.wav") == [RowsWithoutMember(["d.wav"], None)]


def test_a_name_that_is_not_utf_8_is_still_text():
    tar = tar_of(("caf\udce9.wav", b""), fmt=tarfile.GNU_FORMAT)
    assert events(tar) == [MemberWithoutRow("caf\\udce9.wav")]
    assert events(tar, "caf\udce9.wav")[0].name.encode() == b"caf\\udce9.wav"


STEMS = st.sampled_from(["x", "x-sub1", "x-sub2", "y", "é", "l" * 120, "x.y"])
FOLDERS = st.sampled_from(["", "", "./", "d/", "./d/", "/abs/"])
NAMES = st.builds(lambda d, s, e: d + s + e, FOLDERS, STEMS, st.sampled_from([".wav", ".flac", ""]))
KINDS = [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
FILES = st.tuples(NAMES, st.binary(max_size=600))
MEMBERS = st.lists(st.one_of(FILES, FILES, st.builds(special, NAMES, st.sampled_from(KINDS))))


def is_directory(member):
    return isinstance(member, tarfile.TarInfo) and member.isdir()


@given(MEMBERS, st.lists(NAMES), st.sampled_from(FORMATS))
@settings(max_examples=300, deadline=None)
def test_every_row_and_every_member_comes_out_once(members, names, fmt):
    rows = list(enumerate(names))
    found = list(
        nemo_members(
            Pipe(tar_of(*members, fmt=fmt)), "T.tar", [(name, (i, name)) for i, name in rows]
        )
    )
    assert sorted(rows_in(found)) == rows
    listed = [m[0] if isinstance(m, tuple) else m.name for m in members if not is_directory(m)]
    assert [e.name for e in found if not isinstance(e, RowsWithoutMember)] == listed
    files = [m for m in members if isinstance(m, tuple)]
    for event in found:
        if isinstance(event, Member):
            assert (event.name, event.content) in files
            assert event.rows == sorted(event.rows)
            assert len({re.sub(r"-sub\d", "", posixpath.basename(n)) for _, n in event.rows}) == 1
    left = found[-1].rows if found and isinstance(found[-1], RowsWithoutMember) else []
    assert not {n.removeprefix("./") for _, n in left} & {n.removeprefix("./") for n, _ in files}


# Damage

CLIPS = [("a.wav", b"A" * 700), ("d/" + "b" * 120 + ".wav", b"B" * 512), ("c.wav", b"")]
CLIP_NAMES = [name for name, _ in CLIPS]


def assert_account(found, whole=None):
    """Every row came once; those with a member have its content; others have the cause."""
    assert sorted(rows_in(found)) == sorted(CLIP_NAMES)
    members = [event for event in found if isinstance(event, Member)]
    assert [(m.name, m.content) for m in members] == CLIPS[: len(members)]
    cause = found[-1].cause if isinstance(found[-1], RowsWithoutMember) else None
    assert len(members) == len(CLIPS) or cause
    assert whole is None or (cause is None) == whole


def test_a_tar_that_breaks_off_anywhere_is_noticed():
    tar = tar_of(*CLIPS)
    assert_account(events(tar, *CLIP_NAMES), whole=True)
    for cut in range(len(tar)):
        # Of the zeros at the end, 512 say that nothing is to come.
        assert_account(events(tar[:cut], *CLIP_NAMES), whole=cut >= len(tar) - END + 512)


@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz"])
def test_a_compressed_tar_that_breaks_off_anywhere_is_noticed(packing):
    packed = PACK[packing](tar_of(*CLIPS))
    assert_account(events(packed, *CLIP_NAMES), whole=True)
    for cut in range(len(packed)):
        assert_account(events(packed[:cut], *CLIP_NAMES), whole=False)


@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz"])
def test_no_damage_to_a_compressed_tar_passes_for_its_content(packing):
    content = random.Random(0).randbytes(700)
    packed = PACK[packing](tar_of(("x.wav", content)))
    for at in range(len(packed)):
        bad = bytearray(packed)
        bad[at] ^= 0x10
        found = events(bytes(bad), "x.wav")
        assert rows_in(found) == ["x.wav"]
        if getattr(found[-1], "cause", None) is None:
            assert found[0].content == content


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_the_bytes_are_every_row_comes_out_once(data):
    bad = bytearray(tar_of(*CLIPS, fmt=data.draw(st.sampled_from(FORMATS))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at : at + 1] = data.draw(st.binary(max_size=12))
    for start in range(0, len(bad) - 511, 512):  # what looks like a header passes for one
        if b"ustar" in bad[start + 257 : start + 265]:
            total = sum(bad[start : start + 148]) + 256 + sum(bad[start + 156 : start + 512])
            bad[start + 148 : start + 156] = b"%06o\0 " % total
    assert sorted(rows_in(events(bytes(bad), *CLIP_NAMES))) == sorted(CLIP_NAMES)
    samples(bytes(bad))  # raises nothing that it does not return


@pytest.mark.parametrize("no_tar", [b"", b"<html>" + b" " * 2000, b"x", b"\x1f\x8b\x08", b"{}\n"])
def test_what_is_no_tar_is_told(no_tar):
    (rest,) = events(no_tar, "x.wav")
    assert rest.rows == ["x.wav"]
    assert re.match(r"T\.tar is no tar, or is damaged from its start", str(rest.cause))
    found, error = samples(no_tar)
    assert found == []
    assert str(error) == str(rest.cause)


def test_damage_is_told_with_its_place():
    (*_, rest) = events(tar_of(*CLIPS)[:-END], *CLIP_NAMES)
    assert re.match(r"T\.tar .*breaks off in or after its member 'c\.wav'", str(rest.cause))
    tar = bytearray(tar_of(*CLIPS))
    tar[1536] ^= 1  # the second header
    (*_, rest) = events(bytes(tar), *CLIP_NAMES)
    assert rest.rows == CLIP_NAMES[1:]
    assert re.match(r"T\.tar is damaged .* 'a\.wav' .*bad checksum", str(rest.cause))


def test_a_tar_after_the_end_of_another_is_told():
    two = tar_of(("a.wav", b"")) + tar_of(("b.wav", b""))
    a, rest = events(two, "a.wav", "b.wav")
    assert (a.rows, rest.rows) == (["a.wav"], ["b.wav"])
    assert re.search("goes on after the end .* tar --concatenate", str(rest.cause))
    (sample,), error = samples(two)
    assert (sample.key, sample.problem, str(error)) == ("a", None, str(rest.cause))


@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz"])
def test_a_compressed_tar_may_be_of_several_streams(packing):
    tar, pack = tar_of(*CLIPS), PACK[packing]
    assert_account(events(pack(tar[:1000]) + pack(tar[1000:]), *CLIP_NAMES), whole=True)


@pytest.mark.parametrize("packing", PACK)
def test_a_file_may_give_less_than_it_is_asked_for(packing):
    packed = PACK[packing](tar_of(*CLIPS))
    bytewise = Pipe(packed[i : i + 1] for i in range(len(packed)))
    rows = [(name, name) for name in CLIP_NAMES]
    assert_account(list(nemo_members(bytewise, "T.tar", rows)), whole=True)


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("error", [ConnectionError("gone"), EOFError(), tarfile.ReadError("mine")])
def test_an_error_of_the_storage_reaches_the_caller_as_it_is(packing, error):
    tar = tar_of(("x.wav", random.Random(0).randbytes(300_000)), ("y.json", b"{}"))
    packed = PACK[packing](tar)
    whole = Pipe(packed)
    list(webdataset_samples(whole, "T.tar"))
    assert whole.reads > 4
    for fail_at in range(whole.reads):
        with pytest.raises(type(error)) as nemo:
            list(nemo_members(Pipe(packed, fail_at, error), "T.tar", [("x.wav", 1), ("z", 2)]))
        with pytest.raises(type(error)) as webdataset:
            list(webdataset_samples(Pipe(packed, fail_at, error), "T.tar"))
        assert nemo.value is webdataset.value is error


# Memory


def peak_of(consume):
    tracemalloc.start()
    consume()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def header_of(name, size):
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT)


READERS = {
    "nemo": lambda file: nemo_members(file, "T.tar", [("x.wav", 1)]),
    "webdataset": lambda file: webdataset_samples(file, "T.tar"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_member_that_nothing_asks_for_is_passed_over_unread(reader):
    size = 64 << 20
    parts = [header_of("y.png", size), *[bytes(1 << 16)] * (size >> 16), tar_of(("x.wav", b"1"))]
    file, found = Pipe(parts), []
    assert peak_of(lambda: found.extend(READERS[reader](file))) < 2 << 20
    assert found[-1].content == b"1"
    assert file.bytes == sum(map(len, parts))  # once each
    assert file.largest <= 1 << 20


def test_one_member_is_in_memory_at_a_time():
    size = 8 << 20
    parts = []
    for i in range(6):
        parts += [header_of(f"{i}.wav", size), *[bytes(1 << 16)] * (size >> 16)]
    parts.append(bytes(END))

    def consume(found):
        for item in found:
            assert len(item.content) == size
            del item

    rows = [(f"{i}.wav", i) for i in range(6)]
    assert peak_of(lambda: consume(nemo_members(Pipe(parts), "T.tar", rows))) < 2 * size
    assert peak_of(lambda: consume(webdataset_samples(Pipe(parts), "T.tar"))) < 2 * size


def test_the_headers_gone_by_are_not_kept():
    parts = [*(header_of(f"{i}.txt", 0) for i in range(5000)), bytes(END)]
    names = (event.name for event in nemo_members(Pipe(parts), "T.tar", []))
    assert peak_of(lambda: sum(map(len, names))) < 1 << 20


@pytest.mark.parametrize("size", [8 << 40, 1 << 62])
def test_a_size_is_not_believed_before_its_bytes_are_there(size):
    tar = header_of("x.wav", size) + bytes(5000)
    found = []
    assert peak_of(lambda: found.extend(events(tar, "x.wav"))) < 2 << 20
    assert found[0].rows == ["x.wav"]
    assert "unexpected end" in str(found[0].cause)


@pytest.mark.parametrize("size", [64 << 20, -512])
def test_an_extended_header_of_a_size_that_none_has_is_damage(size):
    long_name = special("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    long_name.size = size
    names = [b"n" * (1 << 16)] * 1024
    file = Pipe([long_name.tobuf(tarfile.GNU_FORMAT), *names, tar_of(("x.wav", b""))])
    found = []
    assert peak_of(lambda: found.extend(nemo_members(file, "T.tar", [("x.wav", 1)]))) < 2 << 20
    assert found[0].rows == [1]
    assert f"header of {size} bytes" in str(found[0].cause)


def test_a_negative_size_is_damage():
    header = tarfile.TarInfo("x.wav")
    header.pax_headers = {"size": "-5"}
    (rest,) = events(tar_of(header, ("y.wav", b"")), "x.wav")
    assert rest.rows == ["x.wav"]
    assert "-5" in str(rest.cause)


def test_the_file_is_left_open():
    file = io.BytesIO(gzip.compress(tar_of(*CLIPS)))
    list(nemo_members(file, "T.tar", []))
    file.seek(0)
    list(webdataset_samples(file, "T.tar"))
    assert not file.closed


# WebDataset


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


# URIs


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
