"""Compressed text files: none of their lines is lost, and damage is no end."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest
import zstandard

from beam_asr.errors import DamagedInputError
from beam_asr.inputs import json_lines
from beam_asr.storage.storage import Storage

COMPRESSORS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the zstd command does
}


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_compressed_lines_are_read_over_all_parts_of_the_file(tmp_path, ending):
    path = tmp_path / f"m.jsonl{ending}"
    compress = COMPRESSORS[ending]
    path.write_bytes(compress(b"one\n" * 50_000) + compress(b"two\nthree"))
    assert list(json_lines.read_lines(Storage(), str(path))) == ["one"] * 50_000 + ["two", "three"]


@pytest.mark.parametrize("ending", COMPRESSORS)
@pytest.mark.parametrize("damage", ["cut short", "spoilt"])
def test_compressed_lines_that_are_not_whole_are_an_error_and_not_an_end(tmp_path, ending, damage):
    path = tmp_path / f"m.jsonl{ending}"
    content = bytearray(COMPRESSORS[ending](b"".join(b"%d\n" % n for n in range(200_000))))
    if damage == "spoilt":
        content[len(content) // 2 : len(content) // 2 + 64] = bytes(64)
    else:
        del content[-20:]
    path.write_bytes(content)
    with pytest.raises(DamagedInputError, match=f"m.jsonl{ending}"):
        list(json_lines.read_lines(Storage(), str(path)))


def test_an_empty_compressed_file_has_no_lines(tmp_path):
    for ending, compress in COMPRESSORS.items():
        path = tmp_path / f"m.jsonl{ending}"
        path.write_bytes(compress(b""))
        assert list(json_lines.read_lines(Storage(), str(path))) == []


@pytest.mark.parametrize("ending", COMPRESSORS)
@pytest.mark.parametrize("after", [b"garbage", b"\0\0\0\0garbage", "a second part, spoilt"])
def test_what_follows_compressed_lines_and_is_none_is_an_error_and_not_an_end(
    tmp_path, ending, after
):
    compress = COMPRESSORS[ending]
    if after == "a second part, spoilt":
        second = compress(b"two\n")
        after = b"?" + second[1:]
    path = tmp_path / f"m.jsonl{ending}"
    path.write_bytes(compress(b"one\n") + after)
    with pytest.raises(DamagedInputError, match=f"m.jsonl{ending}"):
        list(json_lines.read_lines(Storage(), str(path)))


@pytest.mark.parametrize("ending", [".gz", ".xz"])
@pytest.mark.parametrize("size", [4, 200_000])
def test_zeros_may_pad_the_parts_of_compressed_lines(tmp_path, ending, size):
    compress = COMPRESSORS[ending]
    path = tmp_path / f"m.jsonl{ending}"
    path.write_bytes(compress(b"one\n") + bytes(size) + compress(b"two\n") + bytes(size))
    assert list(json_lines.read_lines(Storage(), str(path))) == ["one", "two"]


def test_compressed_lines_that_ask_for_gigabytes_of_memory_are_refused(tmp_path):
    content = bytearray(lzma.compress(b"one\n", lzma.FORMAT_ALONE))
    path = tmp_path / "m.jsonl.xz"
    path.write_bytes(content)
    assert list(json_lines.read_lines(Storage(), str(path))) == ["one"]
    content[1:5] = b"\xff" * 4  # the size of the dictionary
    path.write_bytes(content)
    with pytest.raises(DamagedInputError, match="Memory usage limit"):
        list(json_lines.read_lines(Storage(), str(path)))
