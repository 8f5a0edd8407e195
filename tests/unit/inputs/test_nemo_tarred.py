"""NeMo's tarred form: which tar a row's audio is in, and which member."""

from __future__ import annotations

import contextlib
import io
import posixpath
import re
import tarfile
from collections import Counter, defaultdict

import pytest
import soundfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beam_asr.errors import BadFieldError, MissingMemberError
from beam_asr.inputs import nemo_tarred
from beam_asr.inputs.nemo_tarred import (
    Member,
    MemberWithoutRow,
    RowsOfSeveralMembers,
    RowsWithoutMember,
    nemo_members,
)
from beam_asr.records.row import Row
from tests.support.tars import (
    FORMATS,
    PACK,
    Pipe,
    events,
    flac,
    opening,
    rows_in,
    samples,
    special,
    tar_of,
)

TARS = {0: "audio_0.tar", 3: "audio_3.tar", 7: "audio_7.tar"}


def number(fields: str, manifest: str = "m.jsonl", tars=TARS) -> int:
    return nemo_tarred.tar_number(Row(f'{{"audio_filepath": "a.wav"{fields}}}', manifest, 1), tars)


def test_the_manifests_number_says_which_tar():
    assert number("", "gs://b/sharded_manifests/manifest_3.json") == 3
    assert number(', "shard_id": 3', "gs://b/sharded_manifests/manifest_3.json") == 3


def test_one_manifest_of_all_tars_says_it_row_by_row():
    assert number(', "shard_id": 7', "tarred_audio_manifest.json") == 7
    assert number(', "shard_id": 0', "failures-00000-of-00001.jsonl") == 0


def test_a_number_in_a_manifests_name_may_mean_something_else():
    assert number(', "shard_id": 7', "manifest_train_960.json") == 7


def test_in_a_single_tar_is_everything():
    assert number("", "m.jsonl", {5: "t.tar"}) == 5
    assert number(', "shard_id": 9', "manifest_2.json", {5: "t.tar"}) == 5


@pytest.mark.parametrize(
    ("fields", "manifest", "message"),
    [
        ("", "m.jsonl", "no 'shard_id'"),
        (', "shard_id": 7', "manifest_3.json", "'shard_id' is 7, but .* manifest is 3"),
        (', "shard_id": 4', "m.jsonl", "number 4, .* 3, from 0 to 7"),
        (', "shard_id": "3"', "m.jsonl", "number '3'"),
        (', "shard_id": true', "m.jsonl", "number True"),
        (', "shard_id": [3]', "m.jsonl", r"number \[3\]"),
        ("", "manifest_4.json", "number 4"),
    ],
)
def test_a_row_whose_tar_is_unknown_fails_with_why(fields, manifest, message):
    with pytest.raises(BadFieldError, match=message):
        number(fields, manifest)


@pytest.mark.parametrize("packing", PACK)
def test_each_member_comes_with_its_rows_in_the_order_of_the_tar(packing):
    tar = tar_of(("b.flac", flac(2)), ("readme", b"?"), ("a.flac", flac(1)))
    packed = PACK[packing](tar)
    rows = [("a.flac", 1), ("b-sub2.flac", {"offset": 1.0}), ("c.flac", 3), ("b-sub1.flac", 4)]
    # Whether the tar has a b-sub1.flac too is known at its end.
    readme, a, b, rest = nemo_members(opening(packed), "T.tar", rows)
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
        (["x.wav"], ["d/x.wav", "e/x.wav"], {}),
        (["x.wav"], ["d/x.wav", "x.wav"], {"x.wav": ["x.wav"]}),
        (["/data/x.wav"], ["x.flac", "x.opus"], {}),
        (["/data/x.wav"], ["x.flac", "x.json", "x.txt"], {"x.flac": ["/data/x.wav"]}),
        (["/data/x.wav"], ["x.flac", "x.wav"], {"x.wav": ["/data/x.wav"]}),
        (["/data/x-sub1.wav"], ["x.wav", "x-sub1.wav"], {"x-sub1.wav": ["/data/x-sub1.wav"]}),
        (["/data/x-sub1.wav"] * 2, ["x.wav", "x-sub1.wav"], {}),
        (["/data/x-sub1.wav"], ["x-sub1.flac", "x.wav"], {"x-sub1.flac": ["/data/x-sub1.wav"]}),
        (["d/x.wav"], ["e/x.wav"], {}),
        (["x.wav"], ["x.flac"], {}),
        (["d/x.wav"], ["./x.wav"], {"./x.wav": ["d/x.wav"]}),
        # One that has the name comes before one that has the file id, and ids can be ambiguous.
        (["d/x.wav", "x.wav"], ["x.wav", "d/x.wav"], {"x.wav": ["x.wav"], "d/x.wav": ["d/x.wav"]}),
        (["d/x.wav", "x.wav"], ["x.wav", "x.wav"], {"x.wav": ["x.wav"]}),
        (["d/x.wav", "e/x.wav"], ["x.wav"], {}),
        (["d/x-sub1.wav", "d/x.wav"], ["x.wav"], {"x.wav": ["d/x-sub1.wav", "d/x.wav"]}),
        # The own name first; but two rows of it may be a segment of the one and the other one.
        (["x-sub1.wav"], ["x.wav", "x-sub1.wav"], {"x-sub1.wav": ["x-sub1.wav"]}),
        (["x.wav", "x-sub1.wav"], ["x.wav"], {"x.wav": ["x.wav", "x-sub1.wav"]}),
        (
            ["x.wav", "x-sub1.wav", "x-sub2.wav"],
            ["x.wav", "x-sub1.wav"],
            {"x.wav": ["x.wav", "x-sub2.wav"], "x-sub1.wav": ["x-sub1.wav"]},
        ),
        (["x.wav", "x-sub1.wav", "x-sub1.wav"], ["x.wav", "x-sub1.wav"], {"x.wav": ["x.wav"]}),
        (["x-sub1.wav"] * 2, ["x-sub1.wav"], {"x-sub1.wav": ["x-sub1.wav"] * 2}),
        (["x-sub1.wav"] * 2, ["x.wav"], {"x.wav": ["x-sub1.wav"] * 2}),
        (["x-sub1-sub1.wav"], ["x.wav"], {}),
        (["x-sub1.wav"], ["x.wav", "d/x-sub1.wav"], {}),
        # What macOS stores beside files.
        (["x.wav"], ["._x.wav", "d/._x.wav", "__MACOSX/x.wav"], {}),
        (["ü/日本.wav"], ["ü/日本.wav"], {"ü/日本.wav": ["ü/日本.wav"]}),
        (
            ["l" * 300 + "-sub1.wav"],
            ["l" * 300 + ".wav"],
            {"l" * 300 + ".wav": ["l" * 300 + "-sub1.wav"]},
        ),
    ],
)
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_row_is_about_the_member_of_its_name_in_any_order(rows, members, expected, fmt):
    for ordered in (members, members[::-1]):
        found = events(tar_of(*((name, name.encode()) for name in ordered), fmt=fmt), *rows)
        of_members = defaultdict(list)
        for event in found:
            if isinstance(event, Member):
                assert event.content == event.name.encode()
                of_members[event.name] += event.rows
        assert of_members == expected
        assert sorted(rows_in(found)) == sorted(rows)


def test_rows_of_several_members_name_them():
    found = events(tar_of(("d/x.wav", b""), ("e/x.wav", b"")), "x.wav", "x.wav")
    several, *without_row = found
    assert several == RowsOfSeveralMembers(["x.wav", "x.wav"], ["d/x.wav", "e/x.wav"])
    assert without_row == [MemberWithoutRow("d/x.wav"), MemberWithoutRow("e/x.wav")]


def test_the_tar_is_read_again_only_if_a_row_has_another_name_than_its_member():
    tar = tar_of(("x.wav", b"1"), ("y-sub1.wav", b"2"), ("z.wav", b"3"), ("z.txt", bytes(2**20)))
    opened = []

    def members(*names, done=()):
        def open_tar():
            opened.append(Pipe(tar))
            return contextlib.nullcontext(opened[-1])

        opened.clear()
        found = nemo_members(open_tar, "T.tar", [(name, name) for name in names], done)
        return {event.name for event in found if isinstance(event, Member)}

    assert members("x.wav", "y-sub1.wav", "missing.wav") == {"x.wav", "y-sub1.wav"}
    assert len(opened) == 1
    assert members("x-sub1.wav", "x-sub2.wav", "z.wav") == {"x.wav", "z.wav"}
    assert len(opened) == 2
    assert opened[1].bytes < len(tar)  # up to the last member
    # What an earlier run has done is not read, but counts.
    assert members("z.wav", done=["x.wav", "x-sub1.wav"]) == {"z.wav"}
    assert len(opened) == 1


def test_rows_of_which_an_earlier_run_has_done_some_are_as_ambiguous_as_before():
    tar = tar_of(("x.wav", b"1"), ("x-sub1.wav", b"2"))
    (several, *_) = events(tar, "x-sub1.wav", done=["x-sub1.wav"])
    assert several == RowsOfSeveralMembers(["x-sub1.wav"], ["x-sub1.wav", "x.wav"])
    found = events(tar, "x-sub1.wav", done=["x.wav"])
    assert Member("x-sub1.wav", b"2", ["x-sub1.wav"]) in found


def test_a_tar_that_breaks_off_gives_no_row_to_a_member_of_another_name():
    tar = tar_of(("x.wav", b"1"), ("x-sub1.wav", b"2"))[:1024]
    member, rest = events(tar, "x-sub1.wav", "x.wav")
    assert member == Member("x.wav", b"1", ["x.wav"])
    assert rest.rows == ["x-sub1.wav"]
    assert "breaks off" in str(rest.cause)


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


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_row_whose_file_is_a_link_gets_no_other_file(kind):
    tar = tar_of(("x.wav", b"1"), ("y.wav", b"2"), special("x-sub1.wav", kind, "y.wav"))
    found = events(tar, "x-sub1.wav", "x-sub2.wav")
    assert Member("x.wav", b"1", ["x-sub2.wav"]) in found
    assert found[-1] == RowsWithoutMember(["x-sub1.wav"], None)


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
            opening(tar_of(*members, fmt=fmt)), "T.tar", [(name, (i, name)) for i, name in rows]
        )
    )
    assert sorted(rows_in(found)) == rows
    listed = [m[0] if isinstance(m, tuple) else m.name for m in members if not is_directory(m)]
    names_found = [e.name for e in found if isinstance(e, (Member, MemberWithoutRow))]
    # One that comes in both readings comes twice.
    assert Counter(listed) <= Counter(names_found) <= Counter(listed) + Counter(set(listed))
    files = [m for m in members if isinstance(m, tuple)]
    for event in found:
        if isinstance(event, Member):
            assert (event.name, event.content) in files
            assert event.rows == sorted(event.rows)
            assert len({re.sub(r"-sub\d", "", posixpath.basename(n)) for _, n in event.rows}) == 1
    # A row gets the member of its name, or else none where its name may mean two.
    held = {n.removeprefix("./") for n, _ in files}
    for event in found:
        for _, name in getattr(event, "rows", ()):
            bare = name.removeprefix("./")
            if bare in held and isinstance(event, Member):
                assert event.name.removeprefix("./") == bare
            elif bare in held:
                assert isinstance(event, RowsOfSeveralMembers)
                assert "-sub" in name
                assert [n.removeprefix("./") for n in names].count(bare) > 1


@given(st.permutations(range(8)), st.permutations(range(8)), st.lists(NAMES, max_size=8))
def test_no_order_of_members_or_rows_changes_what_a_row_gets(of_members, of_rows, names):
    members = [(name, str(n).encode()) for n, name in enumerate(dict.fromkeys(names))]
    rows = [
        *("x.wav", "x-sub1.wav", "x-sub1.wav", "d/x.wav", "y-sub2.flac", "/abs/y.wav"),
        *("x.y.wav", "é-sub1.wav"),
    ]

    def found(members, numbered):
        got = dict.fromkeys(range(len(rows)))
        for event in nemo_members(opening(tar_of(*members)), "T.tar", numbered):
            if isinstance(event, Member):
                got |= dict.fromkeys(event.rows, event.content)
        return got

    numbered = [(name, n) for n, name in enumerate(rows)]
    shuffled = [members[n] for n in of_members if n < len(members)]
    bare = [name.removeprefix("./") for name, _ in members]
    assume(len(set(bare)) == len(bare))
    assert found(members, numbered) == found(shuffled, [numbered[n] for n in of_rows])
