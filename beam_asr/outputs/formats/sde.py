"""Writes manifests that NeMo's Speech Data Explorer opens (``tools/speech_data_explorer``).

Its ``data_explorer.py`` divides by each row's ``duration``, compares ``pred_text`` with ``text`` by
a library that takes no empty reference, and stops at a row that lacks a number, or the
``pred_text``, which other rows have. It opens one file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from beam_asr.outputs import shards
from beam_asr.outputs.formats.base import FieldKeys, FormatLine, ReviewFormat
from beam_asr.outputs.formats.file_names import audio_of
from beam_asr.outputs.formats.pseudo_labels import NO_DURATION, NO_FILE
from beam_asr.records import parsing
from beam_asr.storage import uris

REFERENCE, RECOGNIZED = "text", "pred_text"
NO_REFERENCE = "no_reference"


@dataclass(frozen=True, kw_only=True)
class ExplorerManifest(ReviewFormat):
    """Writes one manifest, whose rows all have the same fields.

    It has the rows with a reference, and the recognized text beside that. If no row has one, the
    recognized text is in its place.
    """

    def to_line(
        self,
        record: Mapping[str, Any],
        keys: FieldKeys,
        manifest: str,
        tarred: bool,  # noqa: ARG002
        transcribed: bool,  # noqa: ARG002
    ) -> FormatLine:
        audio = audio_of(record, keys.audio, keys.channel)
        if not audio.name or uris.is_chain(audio.name) or audio.name.startswith("data:"):
            return FormatLine(None, NO_FILE)
        if not audio.duration:
            return FormatLine(None, NO_DURATION)
        place = {
            "audio_filepath": parsing.located(audio.name, manifest),
            "offset": audio.offset,
            "duration": audio.duration,
        }
        reference = record.get(REFERENCE)
        if not isinstance(reference, str) or not reference.strip():
            reference = None
        text = str(record.get(keys.text) or "")
        line = shards.encode({**place, REFERENCE: reference, RECOGNIZED: text})
        return FormatLine(line, NO_REFERENCE if reference is None else "")

    def encode_lines(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        if any(json.loads(line)[REFERENCE] is not None for line in lines):
            yield from (line for line in lines if json.loads(line)[REFERENCE] is not None)
            return
        for line in lines:
            fields = json.loads(line)
            text = fields.pop(RECOGNIZED)
            yield shards.encode({**fields, REFERENCE: text})

    def counted(self, reasons: Counter[str]) -> Counter[str]:
        if reasons[""]:
            return reasons
        without = Counter({"": reasons[NO_REFERENCE]})
        return without + Counter({why: n for why, n in reasons.items() if why != NO_REFERENCE})


FORMAT = ExplorerManifest(name="sde", extension="json", stem="manifest", in_one_file=True)
