"""Writes tasks with predictions, which Label Studio imports, by its guide.

https://labelstud.io/guide/predictions has the format. The names are those of its template for
speech recognition by segments: ``<Audio name="audio" value="$audio"/>``, ``<Labels name="labels"
toName="audio">`` with ``Speech``, and ``<TextArea name="transcription" toName="audio"
perRegion="true"/>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FieldKeys, FormatLine, ReviewFormat
from beam_asr.outputs.formats.file_names import Audio, audio_of
from beam_asr.outputs.formats.pseudo_labels import NO_FILE
from beam_asr.records import parsing
from beam_asr.records.fields import is_float
from beam_asr.storage import uris
from beam_asr.transcripts.job_fields import input_fields

LOCAL_FILES = "/data/local-files/?d="  # of a server whose document root is /
AUDIO, LABEL = "audio", "Speech"
DIGITS = 6  # after the point of a second


@dataclass(frozen=True, kw_only=True)
class LabelStudioTasks(ReviewFormat):
    """Writes lists of tasks."""

    def to_line(
        self,
        record: Mapping[str, Any],
        keys: FieldKeys,
        manifest: str,
        tarred: bool,  # noqa: ARG002
        transcribed: bool,  # noqa: ARG002
    ) -> FormatLine:
        audio = audio_of(record, keys.audio, keys.channel).name
        if not audio or uris.is_chain(audio) or audio.startswith("data:"):
            return FormatLine(None, NO_FILE)
        return FormatLine(shards.encode(task(record, keys, manifest)))

    def encode_lines(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Encodes tasks as a list, each on a line of its own."""
        before = b"[\n"
        for line in lines:
            yield before + line.rstrip(b"\n")
            before = b",\n"
        yield (b"[" if before == b"[\n" else b"\n") + b"]\n"


class Region(NamedTuple):
    """Holds a part of the audio, in seconds from the start of the file, with its text."""

    start: float
    end: float
    text: str


def task(record: Mapping[str, Any], keys: FieldKeys, manifest: str = "") -> dict[str, Any]:
    """Returns the task of a transcript: its audio, its row's own fields, and its text.

    The text is that of regions: of the sentences of ``segments`` or, without these, of the range
    that was transcribed. Only a record without a ``duration`` has a text of the whole audio.

    Args:
        manifest: path or URI of the manifest that the row comes from; without it a relative path
            starts at the working folder, as for the job.
    """
    audio = audio_of(record, keys.audio, keys.channel)
    row_fields = input_fields(record, keys.text)
    prediction: dict[str, Any] = {
        "model_version": str(record.get("model") or "beam-asr"),
        "result": _results(record, audio, str(record.get(keys.text) or "")),
    }
    confidence = record.get("confidence")
    if is_float(confidence):
        prediction["score"] = confidence
    data = {**row_fields, AUDIO: _url(audio.name, manifest)}
    return {"data": data, "predictions": [prediction]}


def _results(record: Mapping[str, Any], audio: Audio, text: str) -> list[dict[str, Any]]:
    regions = _sentences(record.get("segments"))
    if not regions:
        if not audio.duration:
            return [_transcription({}, text)]
        end = round(audio.offset + audio.duration, DIGITS)
        regions = [Region(audio.offset, end, text)]
    results = []
    for number, region in enumerate(regions, 1):
        name = {"id": f"region-{number}"}
        place = {"start": region.start, "end": region.end, "channel": audio.channel or 0}
        if region.text.strip():  # what has no text is not known to be speech
            label = {"from_name": "labels", "to_name": AUDIO, "type": "labels"}
            results.append({**name, **label, "value": {**place, "labels": [LABEL]}})
        results.append({**name, **_transcription(place, region.text)})
    return results


def _sentences(segments: Any) -> list[Region]:
    """Returns the regions of ``segments``; none if a row has another field of this name."""
    if not isinstance(segments, list):
        return []
    regions = []
    for segment in segments:
        if not isinstance(segment, Mapping):
            return []
        region = Region(segment.get("start"), segment.get("end"), segment.get("segment"))  # type: ignore[arg-type]
        if not (is_float(region.start) and is_float(region.end) and isinstance(region.text, str)):
            return []
        regions.append(region)
    return regions


def _transcription(place: Mapping[str, Any], text: str) -> dict[str, Any]:
    value = {**place, "text": [text]}
    return {"from_name": "transcription", "to_name": AUDIO, "type": "textarea", "value": value}


def _url(audio: str, manifest: str) -> str:
    """Returns where Label Studio finds audio: a URI as it is, or a file on its server's disk."""
    if not audio or audio.startswith("data:"):
        return audio
    located = parsing.located(audio, manifest)
    if not uris.is_local(located):
        return located
    return LOCAL_FILES + quote(located.lstrip("/"), errors="replace")


FORMAT = LabelStudioTasks(name="label_studio", extension="json", stem="tasks")
