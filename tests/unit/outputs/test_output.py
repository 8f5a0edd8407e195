"""What `Output` reads of a folder is what the job has written there."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pandas as pd
import pytest

from beam_asr import Output
from beam_asr.errors import ResumeError, UnfinishedError
from beam_asr.outputs import output as module
from beam_asr.outputs.row_index import IndexedRow, RowIndex
from beam_asr.outputs.shards import compressed, encode, shard_name
from beam_asr.records import json_numbers
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

ONE = {"audio_filepath": "a.wav", "n": 1, "pred_text": "číslo\ud800"}
TWO = {"audio_filepath": "b.wav", "n": 2, "pred_text": "two"}
FAILED = {"audio_filepath": "c.wav", "error": {"type": "EmptyAudioError", "message": "x"}}
FILTERED = {"audio_filepath": "d.wav", "filtered": {"by": "keep"}}


def write(
    folder: str | Path,
    transcripts: list[list[dict]],
    failures: list[dict] = (),
    filtered: list[dict] = (),
    compression: str | None = None,
    storage: Storage | None = None,
) -> str:
    """A finished folder with these records, in shards, and their index."""
    folder, storage = str(folder), storage or Storage()
    kinds = [("transcripts", transcripts), ("failures", [failures]), ("filtered", [filtered])]
    for kind, shards in kinds:
        for number, records in enumerate(shards):
            name = shard_name(kind, number, len(shards), compression)
            lines = [encode(record) for record in records]
            storage.write(join(folder, name), compressed(lines, compression))
            rows = [IndexedRow(f"{kind}{n}.0", "", "") for n in range(len(lines))]
            RowIndex(folder, storage).write_rows(name, rows)
    storage.write(join(folder, "summary.json"), [json.dumps({"run": uuid.uuid4().hex}).encode()])
    storage.write(join(folder, "_SUCCESS"), [])
    return folder


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
def test_a_folder_gives_its_records_by_kind_whatever_their_compression(tmp_path, compression):
    output = Output(write(tmp_path, [[ONE], [TWO]], [FAILED], [FILTERED], compression))
    assert list(output.transcripts()) == [ONE, TWO]
    assert list(output.failures()) == [FAILED]
    assert list(output.filtered()) == [FILTERED]
    assert list(output.records()) == [ONE, TWO, FAILED, FILTERED]
    assert [row_id for row_id, _ in output.with_row_ids("transcripts", "failures")] == [
        "transcripts0.0",
        "transcripts0.0",
        "failures0.0",
    ]
    assert b"".join(output.lines("failures")) == encode(FAILED)
    assert output.summary == next(output.summaries())


@pytest.mark.model
@pytest.mark.usefixtures("dataset_cache")
def test_a_bucket_is_read_as_a_disk(s3_bucket):
    storage = Storage(s3_bucket.storage_options)
    folder = write(f"{s3_bucket.uri}/out", [[ONE], [TWO]], [FAILED], (), "gzip", storage)
    output = Output(folder, s3_bucket.storage_options)
    assert list(output.records()) == [ONE, TWO, FAILED]
    assert output.to_dataset()["n"][:] == [1, 2]
    with pytest.raises(UnfinishedError):
        Output(f"{s3_bucket.uri}/none", s3_bucket.storage_options)


def test_a_folder_without_finished_results_is_refused(tmp_path):
    folder = Path(write(tmp_path / "out", [[ONE]]))
    (folder / "_journal").mkdir()
    (folder / "_journal" / "run.json").write_text("{}")  # of a run that appends
    with pytest.raises(UnfinishedError, match="no finished results"):
        Output(str(folder))
    (folder / "_SUCCESS").unlink()
    for unfinished in (folder, tmp_path / "none"):
        with pytest.raises(UnfinishedError, match="beam-asr status"):
            Output(str(unfinished))


def test_an_index_that_does_not_fit_its_shard_is_refused(tmp_path):
    output = Output(write(tmp_path, [[ONE, TWO]]))
    index = tmp_path / "_index" / "rows-00000" / "transcripts-00000-of-00001.jsonl.tsv"
    index.write_text("a.0\t\t\n")
    with pytest.raises(ResumeError, match="damaged"):
        list(output.with_row_ids())


def test_a_job_without_an_end_gives_the_records_of_its_finished_windows(tmp_path):
    write(tmp_path / "20260101T000000Z-0123abcd", [[ONE]])
    write(tmp_path / "20260101T001000.500000Z-0123abcd", [[TWO]], [FAILED])
    unfinished = Path(write(tmp_path / "20260101T002000Z-0123abcd", [[TWO]]))
    (unfinished / "_SUCCESS").unlink()
    write(tmp_path / "somebody's", [[TWO]])
    output = Output(str(tmp_path))
    assert list(output.records()) == [ONE, TWO, FAILED]
    assert len(list(output.summaries())) == 2
    with pytest.raises(UnfinishedError, match="each of its 2 windows"):
        _ = output.summary


def test_a_folder_may_be_a_path(tmp_path):
    write(tmp_path, [[ONE]])
    assert list(Output(tmp_path).records()) == [ONE]


def test_records_are_read_as_they_are_requested(tmp_path, monkeypatch):
    opened = []
    read = module.open_decompressed

    def noting(storage, path):
        opened.append(path)
        return read(storage, path)

    monkeypatch.setattr(module, "open_decompressed", noting)
    records = Output(write(tmp_path, [[ONE], [TWO]])).transcripts()
    assert opened == []
    assert next(records) == ONE
    assert len(opened) == 1


BIG = 2**60 + 1
MIXED = [
    {"id": BIG, "score": 1, "any": "x", "words": [{"word": "a", "start": 0}], "mixed": BIG},
    {"score": 0.1, "any": {"k": [1]}, "words": [], "huge": 10**30, "mixed": 0.5},
    {"id": 3, "flag": True, "words": [{"word": "b", "start": 0.5, "end": 1}], "none": None},
]


def test_a_table_has_all_fields_and_whole_numbers_to_the_digit(tmp_path):
    table = Output(write(tmp_path, [MIXED[:1], MIXED[1:]])).to_pandas()
    assert list(table.columns) == "id score any words mixed huge flag none".split()
    assert table["id"].tolist() == [BIG, pd.NA, 3]
    assert table["score"].dtype == float
    assert table["mixed"].tolist()[:2] == [BIG, 0.5]
    assert table["huge"][1] == 10**30
    assert table["any"].tolist()[:2] == ["x", {"k": [1]}]
    assert Output(write(tmp_path / "empty", [[]])).to_pandas().shape == (0, 0)


@pytest.fixture
def dataset_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("dataset_cache")
def test_a_dataset_has_all_fields_whatever_record_has_them(tmp_path):
    # More than are looked at for a type by the library itself.
    plain = [{"id": number, "text": "t"} for number in range(2000)]
    dataset = Output(write(tmp_path / "out", [plain, MIXED])).to_dataset()
    assert len(dataset) == 2003
    one, two, three = (dataset[number] for number in (2000, 2001, 2002))
    assert (one["id"], two["id"], three["id"]) == (BIG, None, 3)
    assert (one["score"], two["score"]) == (1.0, 0.1)
    assert [json_numbers.loads(each["any"]) for each in (one, two)] == ["x", {"k": [1]}]
    assert one["words"] == [{"word": "a", "start": 0.0, "end": None}]
    assert three["words"] == [{"word": "b", "start": 0.5, "end": 1}]
    assert json_numbers.loads(two["huge"]) == 10**30
    assert (one["mixed"], two["mixed"]) == (str(BIG), "0.5")
    assert three["flag"] is True


@pytest.mark.usefixtures("dataset_cache")
def test_a_dataset_of_a_folder_that_has_grown_is_not_that_of_before(tmp_path):
    folder = tmp_path / "out"
    assert Output(write(folder, [[TWO]])).to_dataset()["n"][:] == [2]
    assert Output(write(folder, [[TWO, TWO]])).to_dataset()["n"][:] == [2, 2]
