"""Tars as a stream: damage is noticed, and memory holds one member."""

from __future__ import annotations

import gzip
import io
import random
import re
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_asr.inputs.nemo_tarred import Member, RowsWithoutMember, nemo_members
from beam_asr.inputs.webdataset import webdataset_samples
from tests.support.tars import (
    END,
    FORMATS,
    PACK,
    Pipe,
    events,
    header_of,
    opening,
    peak_of,
    rows_in,
    samples,
    special,
    tar_of,
)

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
def test_what_is_no_tar_is_reported(no_tar):
    (rest,) = events(no_tar, "x.wav")
    assert rest.rows == ["x.wav"]
    assert re.match(r"T\.tar is no tar, or is damaged from its start", str(rest.cause))
    found, error = samples(no_tar)
    assert found == []
    assert str(error) == str(rest.cause)


def test_damage_is_reported_with_its_place():
    (*_, rest) = events(tar_of(*CLIPS)[:-END], *CLIP_NAMES)
    assert re.match(r"T\.tar .*breaks off in or after its member 'c\.wav'", str(rest.cause))
    tar = bytearray(tar_of(*CLIPS))
    tar[1536] ^= 1  # the second header
    (*_, rest) = events(bytes(tar), *CLIP_NAMES)
    assert rest.rows == CLIP_NAMES[1:]
    assert re.match(r"T\.tar is damaged .* 'a\.wav' .*bad checksum", str(rest.cause))


def test_a_tar_after_the_end_of_another_is_reported():
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
def test_a_file_may_give_less_than_it_is_requested(packing):
    packed = PACK[packing](tar_of(*CLIPS))
    bytewise = Pipe(packed[i : i + 1] for i in range(len(packed)))
    rows = [(name, name) for name in CLIP_NAMES]
    assert_account(list(nemo_members(opening(bytewise), "T.tar", rows)), whole=True)


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
            list(
                nemo_members(
                    opening(Pipe(packed, fail_at, error)), "T.tar", [("x.wav", 1), ("z", 2)]
                )
            )
        with pytest.raises(type(error)) as webdataset:
            list(webdataset_samples(Pipe(packed, fail_at, error), "T.tar"))
        assert nemo.value is webdataset.value is error


READERS = {
    "nemo": lambda file: nemo_members(opening(file), "T.tar", [("x.wav", 1)]),
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
    assert peak_of(lambda: consume(nemo_members(opening(Pipe(parts)), "T.tar", rows))) < 2 * size
    assert peak_of(lambda: consume(webdataset_samples(Pipe(parts), "T.tar"))) < 2 * size


def test_the_headers_gone_by_are_not_kept():
    parts = [*(header_of(f"{i}.txt", 0) for i in range(5000)), bytes(END)]
    names = (event.name for event in nemo_members(opening(Pipe(parts)), "T.tar", []))
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
    assert (
        peak_of(lambda: found.extend(nemo_members(opening(file), "T.tar", [("x.wav", 1)])))
        < 2 << 20
    )
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
    list(nemo_members(opening(file), "T.tar", []))
    file.seek(0)
    list(webdataset_samples(file, "T.tar"))
    assert not file.closed
