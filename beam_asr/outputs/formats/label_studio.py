"""Writes tasks with predictions, which Label Studio imports, by its guide.

https://labelstud.io/guide/predictions has the format. The names are those of its template for
speech recognition: ``<Audio name="audio" value="$audio"/>``, ``<TextArea name="transcription"
toName="audio"/>`` and, for regions, ``<Labels name="labels" toName="audio">`` with ``Speech``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FieldKeys, ShardFormat
from beam_asr.outputs.formats.file_names import audio_of
from beam_asr.records import json_numbers
from beam_asr.storage import uris
from beam_asr.transcripts.job_fields import input_fields

LOCAL_FILES = "/data/local-files/?d="  # of a server whose document root is /
AUDIO, LABEL = "audio", "Speech"


def encode_shard(lines: Iterable[bytes], keys: FieldKeys) -> Iterator[bytes]:
    """Encodes the transcripts of a shard as a list of tasks, each on a line of its own."""
    before = b"[\n"
    for line in lines:
        yield before + shards.encode(task(json_numbers.loads(line), keys)).rstrip(b"\n")
        before = b",\n"
    yield (b"[" if before == b"[\n" else b"\n") + b"]\n"


def task(record: Mapping[str, Any], keys: FieldKeys) -> dict[str, Any]:
    """Returns the task of a transcript: its audio, its row's own fields, and its text.

    The sentences of ``segments`` are regions, as is a row that is a part of its file; the text of
    any other is that of the whole audio.
    """
    audio = audio_of(record, keys.audio, keys.channel)
    row_fields = input_fields(record, keys.text)
    prediction: dict[str, Any] = {
        "model_version": str(record.get("model") or "beam-asr"),
        "result": _results(record, keys),
    }
    confidence = record.get("confidence")
    if isinstance(confidence, (int, float)):
        prediction["score"] = confidence
    data = {**row_fields, AUDIO: _url(audio.name)}
    return {"data": data, "predictions": [prediction]}


def _results(record: Mapping[str, Any], keys: FieldKeys) -> list[dict[str, Any]]:
    audio = audio_of(record, keys.audio, keys.channel)
    text = str(record.get(keys.text) or "")
    segments = record.get("segments")
    if not isinstance(segments, list):
        if not audio.offset or audio.duration is None:
            return [_transcription({}, text)]
        end = audio.offset + audio.duration
        segments = [{"segment": text, "start": audio.offset, "end": end}]
    results = []
    for number, segment in enumerate(segments, 1):
        place = {"start": segment["start"], "end": segment["end"], "channel": audio.channel or 0}
        region = {"id": f"region-{number}"}
        label = {"from_name": "labels", "to_name": AUDIO, "type": "labels"}
        results.append({**region, **label, "value": {**place, "labels": [LABEL]}})
        results.append({**region, **_transcription(place, segment["segment"])})
    return results


def _transcription(place: Mapping[str, Any], text: str) -> dict[str, Any]:
    value = {**place, "text": [text]}
    return {"from_name": "transcription", "to_name": AUDIO, "type": "textarea", "value": value}


def _url(audio: str) -> str:
    """Returns where Label Studio finds audio: a URI as it is, or a file on its server's disk."""
    if not audio or audio.startswith("data:") or not uris.is_local(audio):
        return audio
    return LOCAL_FILES + quote(uris.local_path(audio).lstrip("/"))


FORMAT = ShardFormat(name="label_studio", extension="json", stem="tasks", encode_shard=encode_shard)
