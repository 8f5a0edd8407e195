"""One corpus in every form that it can come in gives the same transcripts."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import tarfile

import pyarrow
import pyarrow.parquet
import pytest
import soundfile
import webdataset
import zstandard

from beam_asr.inputs import json_lines, readers
from beam_asr.storage.storage import Storage
from tests.support.job_files import read_records, transcripts_of, write_manifest
from tests.support.tiny_models import speechlike

RATE = 16_000
CLIPS = 7


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("ctc_bpe")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips of their own, and a long one of which three rows are segments."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for n in range(CLIPS):
        soundfile.write(folder / f"{n}.flac", speechlike(0.7 + 0.3 * n, seed=n), RATE)
        rows.append({"audio_filepath": f"{n}.flac", "duration": 0.7 + 0.3 * n, "n": n})
    soundfile.write(folder / "long.flac", speechlike(6.0, seed=99), RATE)
    for n, start in enumerate([0.0, 1.5, 4.25], CLIPS):
        row = {"audio_filepath": "long.flac", "offset": start, "duration": 1.5, "n": n}
        rows.append(row)
    write_manifest(folder / "m.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def rows(corpus):
    return [json.loads(line) for line in (corpus / "m.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def expected(corpus, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out"
    return texts(transcripts_of(corpus / "m.jsonl", model, out))


def texts(records) -> dict[int, str]:
    recognized = {int(record["n"]): record["pred_text"] for record in records}
    assert len(recognized) == len(records)
    return recognized


@pytest.fixture
def hear(model, transcribe, tmp_path):
    """Runs the job over an input; gives its transcripts, its failures and its summary."""

    def run(*flags):
        out = tmp_path / "out"
        status, _, errors = transcribe(
            *flags, f"--output={out}", f"--model_name={model}", "--overwrite"
        )
        assert status == 0, errors
        summary = json.loads((out / "summary.json").read_text())
        assert summary["rows_in"] == summary["transcribed"] + summary["failed"]
        return read_records(out, "transcripts"), read_records(out, "failures"), summary

    return run


COMPRESSORS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("ending", COMPRESSORS)
def test_a_compressed_manifest(corpus, expected, hear, ending):
    compressed = corpus / f"m.json.{ending}"
    compressed.write_bytes(COMPRESSORS[ending]((corpus / "m.jsonl").read_bytes()))
    assert texts(hear(f"--input={compressed}")[0]) == expected


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["list.json", "list.jsonl.gz"])
def test_a_manifest_that_is_a_list_in_a_store(
    corpus, rows, expected, hear, http_server, indent, name
):
    content = json.dumps(
        [{**row, "audio_filepath": str(corpus / row["audio_filepath"])} for row in rows],
        indent=indent,
    )
    packed = gzip.compress(content.encode()) if name.endswith("gz") else content.encode()
    (corpus / name).write_bytes(packed)
    http_server.files = corpus
    records, failures, _ = hear(f"--input={http_server.url(name)}")
    assert texts(records) == expected
    assert failures == []


@pytest.mark.parametrize("name", ["open.csv", "open.csv.gz"])
@pytest.mark.parametrize("closing", ["", 'and closed"'])
def test_a_quote_that_stays_open_costs_the_row_of_its_line(corpus, expected, hear, name, closing):
    notes = ["", "", '"opened', "", "", closing, ""]
    lines = ["n,audio_filepath,note", *(f"{n},{n}.flac,{note}" for n, note in enumerate(notes))]
    content = "\n".join(lines).encode()
    (corpus / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    records, (failure,), _ = hear(f"--input={corpus / name}")
    assert texts(records) == {n: expected[n] for n in range(7) if n != 2}
    assert (failure["line"], failure["line_number"]) == ('2,2.flac,"opened', 4)
    assert "a quote opens in the record of this line" in failure["error"]["message"]


def test_a_manifest_in_pieces_of_a_few_rows(corpus, expected, hear, monkeypatch):
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 100)
    assert texts(hear(f"--input={corpus / 'm.jsonl'}")[0]) == expected


NOTE = 'a "quoted",\ntab\t and more'


@pytest.mark.parametrize(
    ("name", "delimiter", "note"),
    [
        ("t.csv", ",", NOTE),
        ("t.csv", ";", NOTE),
        ("t.csv.gz", "\t", NOTE),
        ("t.tsv", "\t", '"An opening quote'),
        ("t.tsv.gz", "\t", 'a "quoted", ""one""'),
    ],
)
def test_a_table_of_text(corpus, rows, expected, hear, name, delimiter, note):
    text = io.StringIO()
    quoting = {"quoting": csv.QUOTE_NONE, "quotechar": None} if ".tsv" in name else {}
    writer = csv.DictWriter(
        text,
        ["n", "audio_filepath", "offset", "duration", "note"],
        delimiter=delimiter,
        **quoting,
    )
    writer.writeheader()
    for row in rows:
        numbers = {key: row[key] for key in ("offset", "duration") if key in row}
        if delimiter == ";":
            numbers = {key: str(value).replace(".", ",") for key, value in numbers.items()}
        writer.writerow({**row, **numbers, "note": note})
    data = text.getvalue().encode()
    (corpus / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    records, failures, _ = hear(f"--input={corpus / name}")
    assert texts(records) == expected
    assert failures == []
    assert {record["note"] for record in records} == {note}
    assert {type(record["duration"]) for record in records} == {float}


def test_a_parquet_table(corpus, rows, expected, hear):
    table = pyarrow.Table.from_pylist([{"offset": None, **row} for row in rows])
    pyarrow.parquet.write_table(table, corpus / "t.parquet", row_group_size=2)
    assert len(readers.split_file(Storage(), str(corpus / "t.parquet"))) > 1
    records, _, _ = hear(f"--input={corpus / 't.parquet'}")
    assert texts(records) == expected
    assert records[0].keys() == {"offset", "audio_filepath", "duration", "n", "pred_text"}


def test_cuts_of_lhotse(corpus, rows, expected, hear):
    from lhotse import CutSet, Recording, SupervisionSegment

    cuts = []
    for row in rows:
        recording = Recording.from_file(corpus / row["audio_filepath"])
        recording.sources[0].source = row["audio_filepath"]
        cut = recording.to_cut()
        if "offset" in row:
            cut = cut.truncate(offset=row["offset"], duration=row["duration"])
        cut.custom = {"n": row["n"]}
        words = expected[row["n"]].split()
        if row["n"]:  # the first has no reference
            cut.supervisions = [
                SupervisionSegment(f"{n}", recording.id, start, 0.1, text=" ".join(text))
                for n, start, text in ((1, 0.3, words[1:]), (0, 0.1, words[:1]))
            ]
        cuts.append(cut.with_id(str(row["n"])))
    CutSet.from_cuts(cuts).to_file(corpus / "cuts.jsonl.gz")
    records, _, summary = hear(f"--input={corpus / 'cuts.jsonl.gz'}", "--reference_key=text")
    assert summary["scores"]["without_reference"] == 1
    assert summary["scores"]["corpus"]["rows"] == len(rows) - 1
    assert summary["scores"]["corpus"]["wer"] == 0
    assert texts([{**record, "n": record["id"]} for record in records]) == expected
    assert {record["type"] for record in records} == {"MonoCut"}


@pytest.fixture(scope="module")
def tarred(corpus, rows, tmp_path_factory):
    """As NeMo's convert_to_tarred_audio_dataset.py lays it out, in three shards."""
    folder = tmp_path_factory.mktemp("tarred")
    (folder / "sharded_manifests").mkdir()
    shards = [[], [], []]
    for row in rows:
        name = row["audio_filepath"]
        shard = 2 if name == "long.flac" else row["n"] % 3
        stem, _, ending = name.partition(".")
        sub = f"-sub{row['n']}" if name == "long.flac" else ""
        named = {**row, "audio_filepath": f"{stem}{sub}.{ending}", "shard_id": shard}
        shards[shard].append((named, name))
    for number, shard in enumerate(shards):
        with tarfile.open(folder / f"audio_{number}.tar", "w") as tar:
            for name in dict.fromkeys(name for _, name in shard):
                tar.add(corpus / name, arcname=name)
        write_manifest(
            folder / f"sharded_manifests/manifest_{number}.json", [row for row, _ in shard]
        )
    write_manifest(
        folder / "tarred_audio_manifest.json", [row for shard in shards for row, _ in shard]
    )
    return folder


@pytest.mark.parametrize(
    "manifests", ["sharded_manifests/manifest__OP_0..2_CL_.json", "tarred_audio_manifest.json"]
)
@pytest.mark.parametrize("tars", ["audio__OP_0..2_CL_.tar", "audio_{0..2}.tar", "*.tar"])
def test_a_tarred_data_set(tarred, expected, hear, manifests, tars):
    records, failures, summary = hear(
        f"--input={tarred / manifests}", f"--tarred_audio={tarred / tars}"
    )
    assert texts(records) == expected
    assert failures == []
    assert summary["members_without_row"] == 0


def test_a_tarred_data_set_in_a_bucket(bucket, tarred, expected, hear):
    storage = Storage(bucket.storage_options)
    for path in [*tarred.glob("*.tar"), tarred / "tarred_audio_manifest.json"]:
        storage.write(f"{bucket.uri}/set/{path.name}", [path.read_bytes()])
    records, failures, _ = hear(
        f"--input={bucket.uri}/set/tarred_audio_manifest.json",
        f"--tarred_audio={bucket.uri}/set/audio__OP_0..2_CL_.tar",
        f"--storage_options={json.dumps(bucket.storage_options)}",
    )
    assert texts(records) == expected
    assert failures == []


def test_each_tar_is_fetched_once_or_twice_if_it_has_segments(http_server, tarred, expected, hear):
    http_server.files = tarred
    records, _, _ = hear(
        f"--input={tarred / 'tarred_audio_manifest.json'}",
        f"--tarred_audio={http_server.url('audio_')}{{0..2}}.tar",
    )
    assert texts(records) == expected
    for number in range(3):
        name = f"audio_{number}.tar"
        sent = sum(request.sent for request in http_server.requests if request.name == name)
        times = 2 if number == 2 else 1  # of the rows long-subN.flac, only the end tells
        assert sent == times * (tarred / name).stat().st_size


def test_a_row_gets_the_file_of_its_own_name_behind_one_named_as_its_recording(
    corpus, expected, hear, tmp_path
):
    with tarfile.open(tmp_path / "audio_0.tar", "w") as tar:
        for name, source in (("call.flac", 0), ("call-sub1.flac", 1), ("d/other.flac", 2)):
            tar.add(corpus / f"{source}.flac", arcname=name)
    names = ["call.flac", "call-sub1.flac", "call-sub2.flac", "other.flac"]
    rows = [{"audio_filepath": name, "n": n} for n, name in enumerate(names)]
    flags = [f"--tarred_audio={tmp_path / 'audio_0.tar'}", f"--input={tmp_path / 'm.json'}"]
    write_manifest(tmp_path / "m.json", rows)
    records, failures, _ = hear(*flags)
    wanted = [expected[0], expected[1], expected[0], expected[2]]
    assert texts(records) == dict(enumerate(wanted))
    assert failures == []
    write_manifest(tmp_path / "m.json", [*rows, {**rows[1], "n": 4}])
    records, failures, _ = hear(*flags)
    assert texts(records) == {n: wanted[n] for n in (0, 2, 3)}
    assert sorted(failure["n"] for failure in failures) == [1, 4]
    for failure in failures:
        assert failure["error"]["type"] == "MissingMemberError"
        assert "'call-sub1.flac', 'call.flac'" in failure["error"]["message"]


def test_a_tarred_data_set_whose_manifest_and_tars_do_not_agree(tarred, expected, hear, tmp_path):
    lines = (tarred / "tarred_audio_manifest.json").read_text().splitlines()
    kept = [json.loads(line) for line in lines if json.loads(line)["n"] not in (3, 4)]
    strays = [
        {"audio_filepath": "stray.flac", "shard_id": 1},
        {"audio_filepath": "0.flac", "shard_id": 7},
        {"audio_filepath": "0.flac"},
    ]
    listed = write_manifest(tmp_path / "tarred.json", kept + strays)
    records, failures, summary = hear(
        f"--input={listed}", f"--tarred_audio={tarred / 'audio_{0..2}.tar'}"
    )
    assert texts(records) == {n: text for n, text in expected.items() if n not in (3, 4)}
    errors = [failure.pop("error") for failure in failures]
    reported = {error["type"]: error["message"] for error in errors}
    assert sorted(error["type"] for error in errors) == [
        "BadFieldError",
        "BadFieldError",
        "MissingMemberError",
    ]
    assert "stray.flac" in reported["MissingMemberError"]
    assert "audio_1.tar" in reported["MissingMemberError"]
    assert sorted(failures, key=str) == sorted(strays, key=str)
    assert summary["members_without_row"] == 2
    assert summary["examples_without_row"] == [
        f"{tarred}/audio_0.tar: 3.flac",
        f"{tarred}/audio_1.tar: 4.flac",
    ]


def test_a_tar_without_rows_is_reported(tarred, hear):
    _, _, summary = hear(
        f"--input={tarred / 'sharded_manifests/manifest_0.json'}",
        f"--tarred_audio={tarred / 'audio_{0..2}.tar'}",
    )
    assert summary["tars_without_rows"] == 2


def test_a_tar_cut_short_costs_the_rows_behind_the_cut(tarred, expected, hear, tmp_path):
    data = (tarred / "audio_2.tar").read_bytes()
    with tarfile.open(tarred / "audio_2.tar") as tar:
        second = tar.getmembers()[1]
    (tmp_path / "audio_2.tar").write_bytes(data[: second.offset_data + 700])
    records, failures, _ = hear(
        f"--input={tarred / 'sharded_manifests/manifest_2.json'}",
        f"--tarred_audio={tmp_path / 'audio_2.tar'}",
    )
    assert texts(records) == {2: expected[2]}
    assert sorted(failure["n"] for failure in failures) == [5, 7, 8, 9]
    assert {failure["error"]["type"] for failure in failures} == {"TarError"}


def test_the_failures_of_a_tarred_data_set_come_in_again(tarred, expected, hear, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(3):
        data = (tarred / f"audio_{number}.tar").read_bytes()
        (broken / f"audio_{number}.tar").write_bytes(data if number else data[:700])
    flags = [f"--input={tarred / 'tarred_audio_manifest.json'}"]
    records, failures, _ = hear(*flags, f"--tarred_audio={broken / '*.tar'}")
    again = write_manifest(tmp_path / "failures-00000-of-00001.jsonl", failures)
    more, failures, _ = hear(f"--input={again}", f"--tarred_audio={tarred / '*.tar'}")
    assert failures == []
    assert texts(records + more) == expected


@pytest.fixture(scope="module")
def samples(corpus, rows, tmp_path_factory):
    """WebDataset tars: a sample for each row, a segment as a file of its own."""
    folder = tmp_path_factory.mktemp("samples")
    with webdataset.ShardWriter(str(folder / "s-%04d.tar"), maxcount=4, verbose=0) as writer:
        for row in rows:
            audio = (corpus / row["audio_filepath"]).read_bytes()
            if "offset" in row:
                start, count = round(row["offset"] * RATE), round(row["duration"] * RATE)
                part, _ = soundfile.read(corpus / "long.flac", frames=count, start=start)
                file = io.BytesIO()
                soundfile.write(file, part, RATE, format="FLAC")
                audio = file.getvalue()
            about = {key: row[key] for key in ("n", "offset") if key in row}
            writer.write(
                {"__key__": f"clip{row['n']:03d}", "flac": audio, "json": about, "txt": "said"}
            )
    return folder


@pytest.mark.parametrize("pattern", ["", "*.tar", "s-{0000..0002}.tar"])
def test_tars_of_samples(samples, expected, hear, pattern):
    records, failures, summary = hear(f"--input={samples / pattern}")
    assert texts(records) == expected
    assert failures == []
    assert summary["rows_in"] == len(expected)
    assert {record["text"] for record in records} == {"said"}
    first = next(record for record in records if record["n"] == 0)
    assert first["audio_filepath"] == f"tar://clip000.flac::{samples / 's-0000.tar'}"


def test_samples_whose_names_have_dots_and_what_macos_adds(corpus, expected, hear, tmp_path):
    """In a tar as `tar` of macOS makes it of files with dots in their names."""
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for n in range(3):
            for ending in ("flac", "json"):
                apple = tarfile.TarInfo(f"d/._rec_v1.{n}.{ending}")
                apple.size = 4
                tar.addfile(apple, io.BytesIO(b"\0\5\x16\7"))
                if ending == "flac":
                    tar.add(corpus / f"{n}.flac", arcname=f"d/rec_v1.{n}.flac")
                else:
                    about = tarfile.TarInfo(f"d/rec_v1.{n}.json")
                    about.size = 8
                    tar.addfile(about, io.BytesIO(b'{"n": %d}' % n))
    records, failures, summary = hear(f"--input={tmp_path / 's.tar'}")
    assert texts(records) == {n: expected[n] for n in range(3)}
    assert failures == []
    assert (summary["rows_in"], summary["members_without_row"]) == (3, 6)
    assert summary["examples_without_row"][0] == f"{tmp_path}/s.tar: d/._rec_v1.0.flac"


def test_a_tar_of_samples_with_bad_ones(corpus, expected, hear, tmp_path):
    good = {"flac": (corpus / "1.flac").read_bytes(), "json": {"n": 1}}
    with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
        writer.write({"__key__": "silent", "txt": "no audio"})
        writer.write({"__key__": "good", **good})
        writer.write({"__key__": "noise", "flac": b"this is no recording" * 20})
        writer.write({"__key__": "list", "flac": good["flac"], "json": b"[1, 2]"})
    records, failures, summary = hear(f"--input={tmp_path / 's.tar'}")
    assert texts(records) == {1: expected[1]}
    reported = {
        failure["audio_filepath"].partition("::")[0]: failure["error"]["type"]
        for failure in failures
    }
    assert reported == {
        "tar://silent": "MissingMemberError",
        "tar://noise.flac": "NotAudioError",
        "tar://list.flac": "NotAnObjectError",
    }
    assert summary["rows_in"] == 4


def test_a_failed_sample_comes_in_again_by_its_own_name(samples, expected, hear, tmp_path):
    records, _, _ = hear(f"--input={samples}")
    as_failed = [
        {key: value for key, value in record.items() if key not in ("pred_text", "offset")}
        for record in records
    ]
    again = write_manifest(tmp_path / "failures.jsonl", as_failed)
    assert texts(hear(f"--input={again}")[0]) == expected


def test_a_tar_of_samples_cut_short_keeps_what_came_before(samples, expected, hear, tmp_path):
    data = (samples / "s-0000.tar").read_bytes()
    with tarfile.open(samples / "s-0000.tar") as tar:
        third = [member for member in tar.getmembers() if member.name.startswith("clip002")]
    (tmp_path / "s.tar").write_bytes(data[: third[0].offset_data + 100])
    records, failures, summary = hear(f"--input={tmp_path / 's.tar'}")
    assert texts(records) == {n: expected[n] for n in (0, 1)}
    assert any(failure["error"]["type"] == "TarError" for failure in failures)
    assert str(tmp_path / "s.tar") in json.dumps(failures)
    assert summary["rows_in"] == 2 + len(failures)


def test_tars_that_make_no_data_set_are_refused_at_launch(tarred, model, transcribe, tmp_path):
    flags = [
        f"--input={tarred / 'tarred_audio_manifest.json'}",
        f"--output={tmp_path / 'out'}",
        f"--model_name={model}",
    ]
    missing = f"--tarred_audio={tarred / 'audio_{0..3}.tar'}"
    status, _, errors = transcribe(*flags, missing)
    assert (status, "audio_3.tar" in errors) == (2, True)
    (tmp_path / "audio_1.tar").touch()
    status, _, errors = transcribe(*flags, f"--tarred_audio={tarred}/*.tar,{tmp_path}/audio_1.tar")
    assert (status, "have the number 1" in errors) == (2, True)
    (tmp_path / "other.tar").touch()
    status, _, errors = transcribe(*flags, f"--tarred_audio={tarred}/*.tar,{tmp_path}/other.tar")
    assert (status, "other.tar' has no number" in errors) == (2, True)
