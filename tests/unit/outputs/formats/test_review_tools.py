"""What Label Studio imports, and what NeMo's Speech Data Explorer opens."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from beam_asr.outputs.formats import label_studio, sde
from beam_asr.outputs.formats.base import FieldKeys
from beam_asr.outputs.formats.label_studio import task

KEYS = FieldKeys()
ROW = {"audio_filepath": "/data/a b.wav", "duration": 2.5, "text": "one two", "speaker": "x"}


def encoded(module, *records: dict, manifest: str = "") -> tuple[str, Counter[str]]:
    """The file of these records, and what the summary counts of them."""
    made = [module.FORMAT.to_line(record, KEYS, manifest, False, True) for record in records]
    lines = [each.line for each in made if each.line is not None]
    counts = module.FORMAT.counted(Counter(each.left_out for each in made))
    return b"".join(module.FORMAT.encode_lines(lines)).decode(), counts


def tasks_of(*records: dict) -> list[dict]:
    return json.loads(encoded(label_studio, *records)[0])


def results_of(record: dict) -> list[dict]:
    (prediction,) = task(record, KEYS)["predictions"]
    return prediction["result"]


def test_tasks_have_the_audio_the_rows_fields_and_the_text():
    record = {**ROW, "pred_text": "one", "confidence": 0.7, "wer": 0.5, "words": []}
    (made,) = tasks_of(record)
    assert made["data"] == {**ROW, "audio": "/data/local-files/?d=data/a%20b.wav"}
    (prediction,) = made["predictions"]
    assert (prediction["score"], prediction["model_version"]) == (0.7, "beam-asr")
    assert [each["value"]["text"] for each in prediction["result"] if "text" in each["value"]] == [
        ["one"]
    ]


def test_each_text_is_that_of_a_region_so_that_one_labeling_configuration_shows_all():
    segments = [
        {"segment": "one.", "start": 0.1, "end": 0.5},
        {"segment": "b", "start": 1, "end": 2},
    ]
    of_segments = {**ROW, "pred_text": "one. b", "segments": segments}
    part = {**ROW, "offset": 0.1, "duration": 0.2, "channel": 1, "pred_text": "one"}
    results = results_of(of_segments)
    assert [each["id"] for each in results] == ["region-1", "region-1", "region-2", "region-2"]
    assert results[0]["value"] == {"start": 0.1, "end": 0.5, "channel": 0, "labels": ["Speech"]}
    assert results[1]["value"] == {"start": 0.1, "end": 0.5, "channel": 0, "text": ["one."]}
    for record, place in (
        (part, {"start": 0.1, "end": 0.3, "channel": 1}),
        ({**ROW, "pred_text": "one"}, {"start": 0.0, "end": 2.5, "channel": 0}),
        ({**ROW, "offset": 0, "pred_text": "one"}, {"start": 0.0, "end": 2.5, "channel": 0}),
    ):
        label, text = results_of(record)
        assert label["value"] == {**place, "labels": ["Speech"]}
        assert text["value"] == {**place, "text": ["one"]}
    assert tasks_of() == []


def test_a_region_without_text_is_not_labeled_as_speech():
    (result,) = results_of({**ROW, "pred_text": "", "segments": []})
    assert result["value"] == {"start": 0.0, "end": 2.5, "channel": 0, "text": [""]}


@pytest.mark.parametrize("segments", [["a"], [{"start": 1}], "a", 5, [{"segment": "a"}], [None]])
def test_segments_that_are_the_rows_own_field_are_no_regions(segments):
    record = {**ROW, "pred_text": "one", "segments": segments}
    assert results_of(record) == results_of({**ROW, "pred_text": "one"})


def test_a_relative_path_is_that_of_a_file_beside_the_manifest(tmp_path):
    record = {**ROW, "audio_filepath": "a/é.wav", "pred_text": "one"}
    manifest = str(tmp_path / "in.jsonl")
    (made,) = json.loads(encoded(label_studio, record, manifest=manifest)[0])
    assert made["data"]["audio_filepath"] == "a/é.wav"
    folder = str(tmp_path).lstrip("/")
    assert made["data"]["audio"] == f"/data/local-files/?d={folder}/a/%C3%A9.wav"
    lines, _ = encoded(sde, record, manifest=manifest)
    assert json.loads(lines)["audio_filepath"] == str(tmp_path / "a/é.wav")
    in_bucket, _ = encoded(label_studio, record, manifest="gs://b/lists/in.jsonl")
    assert json.loads(in_bucket)[0]["data"]["audio"] == "gs://b/lists/a/é.wav"
    here = task({"audio_filepath": "a.wav"}, KEYS)["data"]["audio"]
    assert here == f"/data/local-files/?d={os.getcwd().lstrip('/')}/a.wav"


def test_what_no_review_tool_can_open_is_left_out_and_counted():
    in_zip = {**ROW, "audio_filepath": "zip://a.wav::s3://b/c.zip", "pred_text": "one"}
    in_row = {**ROW, "audio_filepath": "data:audio/wav;base64,AA==", "pred_text": "one"}
    for uri in ("gs://b/a.wav", "s3://b/a.wav", "https://h/a.wav?token=1"):
        assert tasks_of({**ROW, "audio_filepath": uri})[0]["data"]["audio"] == uri
    text, counts = encoded(label_studio, in_zip, {**ROW, "audio_filepath": None}, in_row)
    assert (json.loads(text), counts) == ([], {"no_file": 3})
    text, counts = encoded(sde, in_zip, in_row, {**ROW, "duration": None})
    assert (text, counts) == ("", {"no_file": 2, "no_duration": 1})


def test_the_explorer_gets_rows_with_references_all_with_the_same_fields():
    records = [
        {**ROW, "pred_text": "one", "offset": 1.0},
        {**ROW, "pred_text": "", "n": 1},
        {**ROW, "pred_text": "one", "text": " "},
        {**ROW, "pred_text": "one", "duration": None},
    ]
    text, counts = encoded(sde, *records)
    place = {"audio_filepath": ROW["audio_filepath"], "duration": 2.5, "text": "one two"}
    assert list(map(json.loads, text.splitlines())) == [
        {**place, "offset": 1.0, "pred_text": "one"},
        {**place, "offset": 0.0, "pred_text": ""},
    ]
    assert counts == {"": 2, "no_reference": 1, "no_duration": 1}


def test_without_any_reference_the_explorer_gets_what_was_recognized():
    records = [{**ROW, "text": None, "pred_text": "one"}, {**ROW, "text": 3, "pred_text": "two"}]
    text, counts = encoded(sde, *records)
    lines = list(map(json.loads, text.splitlines()))
    assert [line["text"] for line in lines] == ["one", "two"]
    assert all("pred_text" not in line for line in lines)
    assert counts == {"": 2}
