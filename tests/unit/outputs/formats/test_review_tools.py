"""What Label Studio imports, and what NeMo's Speech Data Explorer opens."""

from __future__ import annotations

import json

from beam_asr.outputs.formats import label_studio, sde
from beam_asr.outputs.formats.base import FieldKeys

KEYS = FieldKeys()
ROW = {"audio_filepath": "/data/a b.wav", "duration": 2.5, "text": "one two", "speaker": "x"}


def encoded(format, *records: dict) -> str:
    lines = [json.dumps(record).encode() + b"\n" for record in records]
    return b"".join(format.encode_shard(lines, KEYS)).decode()


def test_tasks_have_the_audio_the_rows_fields_and_the_text_of_the_whole():
    record = {**ROW, "pred_text": "one", "confidence": 0.7, "wer": 0.5, "words": []}
    (task,) = json.loads(encoded(label_studio, record))
    assert task["data"] == {**ROW, "audio": "/data/local-files/?d=data/a%20b.wav"}
    (prediction,) = task["predictions"]
    assert (prediction["score"], prediction["model_version"]) == (0.7, "beam-asr")
    (result,) = prediction["result"]
    assert result == {
        "from_name": "transcription",
        "to_name": "audio",
        "type": "textarea",
        "value": {"text": ["one"]},
    }


def test_sentences_and_parts_of_files_are_regions():
    segments = [
        {"segment": "one.", "start": 0.1, "end": 0.5},
        {"segment": "b", "start": 1, "end": 2},
    ]
    of_segments = {"audio_filepath": "gs://b/a.wav", "pred_text": "one. b", "segments": segments}
    part = {**ROW, "offset": 3.0, "channel": 1, "pred_text": "one"}
    first, second = json.loads(encoded(label_studio, of_segments, part))
    assert first["data"]["audio"] == "gs://b/a.wav"
    results = first["predictions"][0]["result"]
    assert [each["id"] for each in results] == ["region-1", "region-1", "region-2", "region-2"]
    assert results[0]["value"] == {"start": 0.1, "end": 0.5, "channel": 0, "labels": ["Speech"]}
    assert results[1]["value"] == {"start": 0.1, "end": 0.5, "channel": 0, "text": ["one."]}
    (_, text) = second["predictions"][0]["result"]
    assert text["value"] == {"start": 3.0, "end": 5.5, "channel": 1, "text": ["one"]}
    assert json.loads(encoded(label_studio)) == []


def test_the_explorer_gets_rows_with_references_all_with_the_same_fields():
    records = [
        {**ROW, "pred_text": "one", "offset": 1.0},
        {**ROW, "pred_text": "", "n": 1},
        {**ROW, "pred_text": "one", "text": " "},
        {**ROW, "pred_text": "one", "duration": None},
    ]
    lines = list(map(json.loads, encoded(sde, *records).splitlines()))
    place = {"audio_filepath": ROW["audio_filepath"], "duration": 2.5, "text": "one two"}
    assert lines == [
        {**place, "offset": 1.0, "pred_text": "one"},
        {**place, "offset": 0.0, "pred_text": ""},
    ]


def test_without_any_reference_the_explorer_gets_what_was_recognized():
    records = [{**ROW, "text": None, "pred_text": "one"}, {**ROW, "text": 3, "pred_text": "two"}]
    lines = list(map(json.loads, encoded(sde, *records).splitlines()))
    assert [line["text"] for line in lines] == ["one", "two"]
    assert all("pred_text" not in line for line in lines)
