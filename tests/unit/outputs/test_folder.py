import json
from collections import Counter

import pytest

from beam_asr.inputs import json_lines
from beam_asr.outputs import failure_limit
from beam_asr.outputs.shards import compressed, delete_stale, encode, shard_count, shard_name
from beam_asr.outputs.summary import LostRowsError, check_complete, summarize
from beam_asr.records.statistics import Statistics
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
    assert [f"{line}\n".encode() for line in json_lines.lines_in(Storage(), str(path))] == written
    path.write_bytes(b"".join(compressed([], compression)))
    assert list(json_lines.lines_in(Storage(), str(path))) == []


def test_lost_and_doubled_rows_are_told_with_the_numbers():
    check_complete(10, 7, 3)
    with pytest.raises(LostRowsError, match=r"10 rows went in, but 6 .* 3 .* 1 rows"):
        check_complete(10, 6, 3)
    with pytest.raises(LostRowsError, match="2 rows"):
        check_complete(10, 9, 3)


def test_failures_fail_the_job_only_when_many_and_above_the_fraction():
    failure_limit.check_failures(99, Counter(a=99), 0.1)
    failure_limit.check_failures(1000, Counter(a=100), 0.1)
    with pytest.raises(
        failure_limit.TooManyFailuresError, match=r"101 of 1000 rows failed .*100 x a"
    ):
        failure_limit.check_failures(1000, Counter(a=100, b=1), 0.1)


def test_a_summary_gives_ratios_of_its_sums():
    part = {
        "audio_seconds": 3600.0,
        "padded_seconds": 4000.0,
        "model_seconds": 36.0,
        "wait_seconds": 2.0,
        "batches": 3,
        "models": frozenset([(("model", "m"),)]),
    }
    statistics = sum(
        [
            Statistics(rows_in=5),
            Statistics(**part),
            Statistics(**part),
            Statistics(resumed_rows=2, resumed_seconds=1800.0),
        ],
        Statistics(),
    )
    summary = summarize(statistics, 3, Counter(B=1, A=1), Counter(), 100.0, {"options": {"x": 1}})
    assert summary["rows_in"] == 5
    assert summary["failed"] == 2
    assert summary["failed_by_type"] == {"A": 1, "B": 1}
    assert summary["audio_hours"] == 2.5
    assert summary["resumed"] == 2
    assert summary["rtfx_end_to_end"] == 72
    assert summary["rtfx_model"] == 100
    assert summary["model_wait_share"] == pytest.approx(4 / 76, abs=1e-4)
    assert summary["padding_efficiency"] == 0.9
    assert summary["models"] == [{"model": "m"}]
    assert summary["options"] == {"x": 1}


def test_a_summary_of_nothing_divides_by_nothing():
    summary = summarize(Statistics(), 0, Counter(), Counter(), 1.0, {})
    assert summary["rtfx_model"] is None
    assert summary["padding_efficiency"] is None
    assert summary["model_wait_share"] is None


def test_stale_shards_go_and_other_files_stay(tmp_path):
    for name in ("transcripts-00001-of-00002.jsonl", "failures-00000-of-00001.jsonl", "mine.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "transcripts-00000-of-00001.jsonl").touch()
    delete_stale(Storage(), str(tmp_path), ["transcripts-00000-of-00001.jsonl"])
    there = sorted(path.name for path in tmp_path.iterdir())
    assert there == ["mine.jsonl", "transcripts-00000-of-00001.jsonl"]
