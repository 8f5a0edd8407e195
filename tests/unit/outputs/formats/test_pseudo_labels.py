"""Manifests of pseudo-labels: their lines, and that NeMo's own data loader reads them."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.cli import main
from beam_asr.errors import BadFieldError
from beam_asr.outputs.formats import pseudo_labels
from beam_asr.outputs.formats.base import FormatLine
from beam_asr.outputs.formats.pseudo_labels import label, tarred_label
from beam_asr.records import record as manifest
from beam_asr.records.row import Row
from tests.support.job_files import SAMPLE_MODEL, SAMPLES, read_records

ROW = {"audio_filepath": "/data/a.flac", "duration": 2.5, "pred_text": "recognized"}
MADE = {
    "words": [],
    "segments": [],
    "chars": [],
    "confidence": 0.5,
    "n_best": [],
    "wer": 0.5,
    "most_repeats": 1,
    "exports": {"srt": "a.srt"},
    "replaced": {"words": "by hand"},
}


def line_of(record, **arguments) -> dict:
    return json.loads(label(record, **arguments).line)


def test_what_was_recognized_is_the_text_and_the_row_is_kept():
    record = {**ROW, **MADE, "offset": 1.5, "text": "said", "lang": "cs", "speaker": "Řehoř"}
    made = label(record)
    assert json.loads(made.line) == {
        "audio_filepath": "/data/a.flac",
        "offset": 1.5,
        "duration": 2.5,
        "text": "recognized",
        "reference": "said",
        "lang": "cs",
        "speaker": "Řehoř",
    }
    assert "Řehoř".encode() in made.line
    assert made.line.endswith(b"}\n")
    assert made.left_out == ""


def test_a_reference_of_the_row_stays():
    record = {**ROW, "text": "said", "reference": "mine"}
    assert line_of(record)["reference"] == "mine"
    assert "reference" not in line_of({**ROW, "text": "recognized"}, pred_text_key="text")


def test_names_of_fields_become_those_of_nemo():
    record = {"path": "/a.flac", "duration": 1.0, "recognized": "yes", "pred_text": "old"}
    line = line_of(record, filepath_key="path", pred_text_key="recognized")
    expected = {"audio_filepath": "/a.flac", "text": "yes", "offset": 0.0, "duration": 1.0}
    assert line == {**expected, "pred_text": "old"}


def test_audio_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def located(audio: str, manifest_path: str) -> str:
        return line_of({**ROW, "audio_filepath": audio}, manifest_path=manifest_path)[
            "audio_filepath"
        ]

    assert located("a.flac", "/data/in/m.jsonl") == "/data/in/a.flac"
    assert located("../a.flac", "/data/in/m.jsonl") == "/data/a.flac"
    assert located("a.flac", "in/m.jsonl") == str(tmp_path / "in/a.flac")
    assert located("a.flac", "") == str(tmp_path / "a.flac")
    assert located("a.flac", "gs://b/in/m.jsonl") == "gs://b/in/a.flac"
    assert located("s3://b/a.flac", "/data/m.jsonl") == "s3://b/a.flac"
    assert located("file:///data/a.flac", "gs://b/m.jsonl") == "/data/a.flac"
    assert located("~/a.flac", "/data/m.jsonl") == os.path.expanduser("~/a.flac")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**ROW, "pred_text": ""}, pseudo_labels.NO_TEXT),
        ({**ROW, "pred_text": " \n"}, pseudo_labels.NO_TEXT),
        ({**ROW, "duration": None}, pseudo_labels.NO_DURATION),
        ({**ROW, "duration": "x"}, pseudo_labels.NO_DURATION),
        ({**ROW, "segments_failed": [{}]}, pseudo_labels.PARTIAL),
        ({**ROW, "_skipme": True}, pseudo_labels.SKIPPED),
    ],
)
def test_what_cannot_be_trained_on_is_left_out_and_in_a_tarred_set_passed_over(record, reason):
    assert label(record) == FormatLine(None, reason)
    made = tarred_label({**record, "shard_id": 3})
    assert (made.left_out, made.shard) == (reason, 3)
    skipped = json.loads(made.line)
    assert skipped.pop("duration", 2.5) == 2.5
    same = {"audio_filepath": "/data/a.flac", "text": "", "shard_id": 3, "_skipme": True}
    assert skipped == same


@pytest.mark.parametrize(
    "audio", ["tar://a.flac::/b.tar", "zip://a.flac::s3://b/c.zip", "data:audio/wav;base64,AA", 5]
)
def test_audio_that_is_no_file_is_left_out(audio):
    assert label({**ROW, "audio_filepath": audio}) == FormatLine(None, pseudo_labels.NO_FILE)


def test_a_sampling_rate_stays_where_nemo_can_believe_it():
    whole = line_of({**ROW, "sampling_rate": 8000})
    assert whole["sampling_rate"] == 8000
    assert "offset" not in whole
    for record in ({"sampling_rate": 8000, "offset": 1.0}, {"sample_rate": "8000"}):
        line = line_of({**ROW, **record})
        assert line["offset"] == record.get("offset", 0.0)
        assert not {"sampling_rate", "sample_rate"} & line.keys()


def test_a_cut_becomes_a_line_of_nemo():
    source = {"type": "file", "channels": [0], "source": "a.wav"}
    cut = {"type": "MonoCut", "id": "c", "start": 1.0, "duration": 2.0, "channel": 0}
    cut |= {"recording": {"sources": [source]}, "supervisions": [], "custom": {"x": 1}}
    line = line_of({**cut, "pred_text": "yes"}, manifest_path="/in/cuts.jsonl")
    expected = {"audio_filepath": "/in/a.wav", "offset": 1.0, "duration": 2.0, "text": "yes"}
    assert line == {**expected, "custom": {"x": 1}}


def test_the_row_or_its_manifest_names_the_tar():
    record = {**ROW, "audio_filepath": "x/a.flac", "offset": 0.0}
    made = tarred_label(record, manifest_path="gs://b/sharded_manifests/manifest_7.json")
    expected = {"audio_filepath": "x/a.flac", "duration": 2.5, "text": "recognized", "shard_id": 7}
    assert json.loads(made.line) == expected
    assert made.shard == 7
    assert tarred_label({**record, "shard_id": 2}, manifest_path="manifest_7.json").shard == 2
    assert tarred_label(record) == FormatLine(None, pseudo_labels.NO_SHARD)


def test_a_failure_in_a_tarred_set_is_passed_over():
    failed = manifest.failure(
        Row('{"audio_filepath": "a.flac", "shard_id": 1}'), ValueError("no"), stage="audio"
    )
    line = json.loads(tarred_label(failed).line)
    assert line == {"audio_filepath": "a.flac", "text": "", "shard_id": 1, "_skipme": True}
    broken = manifest.failure(Row("no json"), BadFieldError("no"))
    assert tarred_label(broken) == FormatLine(None, pseudo_labels.NO_FILE)


@given(
    st.dictionaries(
        st.sampled_from([*ROW, *MADE, "offset", "text", "lang", "shard_id", "sample_rate", "type"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    )
)
def test_any_record_is_a_line_or_left_out(record):
    for made in (label(record), tarred_label(record)):
        assert made.left_out or json.loads(made.line)["text"] == record["pred_text"]


@pytest.fixture(scope="module")
def load():
    """Reads a manifest as training does: for each line audio, what is said and its fields."""
    import lhotse.dataset  # noqa: F401
    import torch
    from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config

    class Batches(torch.utils.data.Dataset):
        def __getitem__(self, cuts):
            return list(cuts)

    def read(**config) -> dict[str, tuple[np.ndarray, dict]]:
        config = {"batch_size": 2, "seed": 0, "shard_seed": 0, "force_finite": True, **config}
        batches = get_lhotse_dataloader_from_config(
            config, global_rank=0, world_size=1, dataset=Batches()
        )
        cuts = [cut for batch in batches for cut in batch]
        read = {
            cut.supervisions[0].text: (cut.load_audio()[0], {**cut.custom, "cut": cut})
            for cut in cuts
        }
        assert len(read) == len(cuts)
        return read

    return read


def samples(name: str, start: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """A clip's samples at its own rate, which is 16 kHz."""
    audio, rate = soundfile.read(SAMPLES / name, dtype="float32")
    assert rate == 16000
    audio = audio[round(rate * start) :]
    return audio if seconds is None else audio[: round(rate * seconds)]


def assert_same(recognized: np.ndarray, expected: np.ndarray) -> None:
    assert abs(len(recognized) - len(expected)) <= 1  # times of lines are rounded
    shorter = min(len(recognized), len(expected))
    np.testing.assert_allclose(recognized[:shorter], expected[:shorter], atol=1e-4)


def write(path: Path, labels: list[FormatLine]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(each.line for each in labels if each.line))
    return str(path)


def test_nemo_reads_the_audio_and_its_labels(load, tmp_path):
    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    records = [{**row, "pred_text": f"label {number}"} for number, row in enumerate(rows)]
    records[0] |= {"offset": 1.0, "duration": 2.0, "sampling_rate": 16000, "lang": "en"}
    records[1] |= {"duration": 0.5}  # of a longer file
    records[2] |= {"sampling_rate": 16000}
    records[3] |= {"pred_text": ""}
    records[4] |= {"duration": None}
    labels = [label(record, manifest_path=str(SAMPLES / "manifest.jsonl")) for record in records]
    reasons = ["no_text", "no_duration"]
    assert [each.left_out for each in labels] == [""] * 3 + reasons + [""] * (len(rows) - 5)
    recognized = load(manifest_filepath=write(tmp_path / "out/nemo.jsonl", labels))
    assert recognized.keys() == {each["pred_text"] for each in records} - {"", "label 4"}
    assert_same(recognized["label 0"][0], samples(rows[0]["audio_filepath"], 1.0, 2.0))
    assert_same(recognized["label 1"][0], samples(rows[1]["audio_filepath"], 0.0, 0.5))
    for number, row in enumerate(rows):
        if number not in (0, 1, 3, 4):
            assert_same(recognized[f"label {number}"][0], samples(row["audio_filepath"]))
    _, fields = recognized["label 0"]
    assert fields["cut"].supervisions[0].language == "en"
    assert fields["reference"] == rows[0]["text"]
    assert fields["prompt"] == rows[0]["prompt"]


@pytest.fixture
def tarred(tmp_path) -> tuple[str, list[dict]]:
    """Two tars with four clips each, and the transcripts of their rows; one clip is two rows."""
    clips = sorted(SAMPLES.glob("*.flac"))[:8]
    records = []
    for shard, members in enumerate((clips[:4], clips[4:])):
        with tarfile.open(tmp_path / f"audio_{shard}.tar", "w") as tar:
            for clip in members:
                tar.add(clip, clip.name)
                duration = soundfile.info(clip).duration
                row = {"audio_filepath": clip.name, "duration": duration, "shard_id": shard}
                records.append({**row, "pred_text": f"label {clip.stem}"})
    name = Path(records[0]["audio_filepath"])
    parts = [
        {
            **records[0],
            "audio_filepath": f"{name.stem}-sub{number}{name.suffix}",
            "offset": offset,
            "duration": 1.5,
            "pred_text": f"part {number}",
        }
        for number, offset in ((1, 0.5), (2, 2.0))
    ]
    return f"{tmp_path}/audio__OP_0..1_CL_.tar", [*parts, *records[1:]]


def expected_of(records: list[dict]) -> dict[str, np.ndarray]:
    clips = {record["pred_text"]: record for record in records}
    return {
        text: samples(
            record["audio_filepath"].replace("-sub1", "").replace("-sub2", ""),
            record.get("offset", 0.0),
            record["duration"],
        )
        for text, record in clips.items()
    }


@pytest.mark.parametrize("sharded", [False, True], ids=["one manifest", "one for each tar"])
def test_nemo_reads_a_tarred_set_of_which_rows_are_left_out(load, tarred, tmp_path, sharded):
    tars, records = tarred
    failed = {"stage": "audio", "type": "X", "message": "no", "attempts": 1}
    recognized_of = [records[0], *records[2:4], *records[6:]]
    given = [
        *recognized_of,
        {**records[1], "pred_text": ""},
        {**records[4], "segments_failed": [{}]},
        {**{key: records[5][key] for key in ("audio_filepath", "shard_id")}, "error": failed},
    ]
    labels = [tarred_label(record) for record in given]
    assert [each.left_out for each in labels[-3:]] == ["no_text", "partial", "no_text"]
    path = write(tmp_path / "nemo.jsonl", labels)
    if sharded:
        path = f"{tmp_path}/manifest__OP_0..1_CL_.json"
        for shard in (0, 1):
            write(
                tmp_path / f"manifest_{shard}.json",
                [each for each in labels if each.shard == shard],
            )
    recognized = load(manifest_filepath=path, tarred_audio_filepaths=tars)
    expected = expected_of(recognized_of)
    assert recognized.keys() == expected.keys()
    for text, audio in expected.items():
        assert_same(recognized[text][0], audio)


def test_nemo_reads_what_the_command_makes_of_a_tarred_set(load, tarred, tmp_path):
    tars, records = tarred
    rows = [{key: each[key] for key in each if key != "pred_text"} for each in records]
    rows[3]["offset"] = 99.0  # beyond its end
    apart = rows[6]["audio_filepath"]
    for shard in (0, 1):
        mine = [json.dumps(row) for row in rows if row["shard_id"] == shard]
        (tmp_path / f"manifest_{shard}.json").write_text("\n".join(mine))
    out = tmp_path / "out"
    flags = [
        f"--input={tmp_path}/manifest__OP_0..1_CL_.json",
        f"--tarred_audio={tars}",
        f"--output={out}",
        f"--model_name={SAMPLE_MODEL}",
        f"--keep=audio_filepath != '{apart}'",
        "--formats=nemo",
    ]
    assert main.main(["transcribe", *flags]) == 0
    assert len(read_records(out, "failures")) == len(read_records(out, "filtered")) == 1
    found = read_records(out, "transcripts")
    manifests = f"{out}/nemo/manifest__OP_0..1_CL_.json"
    recognized = load(manifest_filepath=manifests, tarred_audio_filepaths=tars)
    expected = expected_of([record for record in found if record["pred_text"]])
    assert len(recognized) >= 5
    assert recognized.keys() == expected.keys()
    for text, audio in expected.items():
        assert_same(recognized[text][0], audio)


def test_nemo_stops_at_a_file_that_no_line_is_about_by_default(load, tarred, tmp_path):
    tars, records = tarred
    kept = [record for record in records if record is not records[4]]
    path = write(tmp_path / "nemo.jsonl", [tarred_label(record) for record in kept])
    where = {"manifest_filepath": path, "tarred_audio_filepaths": tars}
    with pytest.raises(RuntimeError, match="Mismatched entry"):
        load(**where)
    recognized = load(**where, skip_missing_manifest_entries=True)
    assert recognized.keys() == expected_of(kept).keys()


def test_nemo_reads_a_tarred_set_of_a_single_tar(load, tarred, tmp_path):
    _, records = tarred
    shutil.copy(tmp_path / "audio_1.tar", tmp_path / "audio_5.tar")
    rows = [{**record, "shard_id": None} for record in records if record["shard_id"] == 1]
    labels = [tarred_label(record, manifest_path="/in/manifest_5.json") for record in rows]
    path = write(tmp_path / "nemo.jsonl", labels)
    recognized = load(manifest_filepath=path, tarred_audio_filepaths=str(tmp_path / "audio_5.tar"))
    assert recognized.keys() == {record["pred_text"] for record in rows}
