"""Shards: their names, their bytes, and which of an earlier run go."""

from __future__ import annotations

import json

import pytest

from beam_asr.inputs import json_lines
from beam_asr.outputs.shards import compressed, delete_stale, encode, shard_count, shard_name
from beam_asr.storage.storage import Storage


def test_records_keep_text_readable_and_order():
    line = encode({"z": 1, "a": "žluťoučký 日本", "f": 1e-7})
    assert line == '{"z": 1, "a": "žluťoučký 日本", "f": 1e-07}\n'.encode()


def test_a_lone_surrogate_is_kept_as_an_escape():
    assert json.loads(encode({"a": "\ud800"})) == {"a": "\ud800"}


def test_a_large_result_is_split_into_shards():
    counts = [shard_count("transcripts", n) for n in (0, 1, 50_000, 50_001)]
    assert counts == [1, 1, 1, 2]
    assert shard_name("transcripts", 3, 12) == "transcripts-00003-of-00012.jsonl"


def test_a_number_of_shards_is_that_of_transcripts():
    assert shard_count("transcripts", 7, num_shards=12) == 12
    assert shard_count("failures", 7, num_shards=12) == 1
    name = shard_name("transcripts", 3, 12, "zstd")
    assert name == "transcripts-00003-of-00012.jsonl.zst"


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_a_shard_is_the_same_bytes_in_every_try_and_reads_as_its_lines(compression, tmp_path):
    written = [b'{"n": %d}\n' % n for n in range(1000)]
    shards = [b"".join(compressed(iter(written), compression)) for _ in range(2)]
    assert shards[0] == shards[1]
    path = tmp_path / shard_name("transcripts", 0, 1, compression)
    path.write_bytes(shards[0])
    assert [f"{line}\n".encode() for line in json_lines.read_lines(Storage(), str(path))] == written
    path.write_bytes(b"".join(compressed([], compression)))
    assert list(json_lines.read_lines(Storage(), str(path))) == []


def test_stale_shards_go_and_other_files_stay(tmp_path):
    for name in ("transcripts-00001-of-00002.jsonl", "failures-00000-of-00001.jsonl", "mine.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "transcripts-00000-of-00001.jsonl").touch()
    delete_stale(Storage(), str(tmp_path), ["transcripts-00000-of-00001.jsonl"])
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == ["mine.jsonl", "transcripts-00000-of-00001.jsonl"]
