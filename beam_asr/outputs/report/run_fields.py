"""Reads what a run's summary says of its records: the names of fields, and how rows were scored."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_asr.errors import UNPRINTABLE, ManifestError
from beam_asr.records import lhotse_cuts
from beam_asr.records.channels import channel_of, is_split
from beam_asr.records.parsing import parse
from beam_asr.records.record import Record
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import all_settings, with_flags
from beam_asr.records.work import Clip
from beam_asr.settings import GROUPS
from beam_asr.storage.uris import is_glob, without_secrets

NONE = "none"  # stands for the language of a row without one


class RunFields(NamedTuple):
    """Names the fields of a run's records, and how its rows were scored.

    Attributes:
        reference: the field of the reference text; None for a run without.
        normalizer: of the texts, before they are scored.
        language: the field by which rows have their models, or their language.
        inputs: the patterns of the manifests.
    """

    audio: str = "audio_filepath"
    text: str = "pred_text"
    channel: str = "channel"
    reference: str | None = None
    normalizer: str = "none"
    language: str = "lang"
    inputs: tuple[str, ...] = ()

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> RunFields:
        """Returns those of a ``summary.json``."""
        options = summary.get("options") or {}
        scores = summary.get("scores") or {}
        inputs = options.get("input") or ()
        return cls(
            audio=options.get("filepath_key") or "audio_filepath",
            text=options.get("pred_text_key") or "pred_text",
            channel=options.get("channel_key") or "channel",
            reference=scores.get("reference_key") or options.get("reference_key"),
            normalizer=scores.get("normalizer") or options.get("normalizer") or "none",
            language=options.get("route_key") or "lang",
            inputs=(inputs,) if isinstance(inputs, str) else tuple(inputs),
        )

    def text_of(self, record: Record) -> str:
        """Returns the transcript of a record; empty without one."""
        text = record.get(self.text)
        return text if isinstance(text, str) else ""

    def reference_of(self, record: Record) -> str | None:
        """Returns the reference of a record, as it was scored; None without one."""
        if self.reference is None or is_split(record):
            return None
        reference = record.get(self.reference)
        if reference is None and lhotse_cuts.is_cut(record):
            reference = lhotse_cuts.reference_of(record, self.reference)
        return reference if isinstance(reference, str) else None

    def language_of(self, record: Record) -> str:
        """Returns the language of a record, or what else its model was chosen by."""
        value = record.get(self.language)
        return NONE if value is None else shown(value)[:80]

    def place_of(self, record: Record) -> tuple[str, float, int | None]:
        """Returns the audio of a record as it is written there, its offset and its channel."""
        if record.get(self.audio) is None and lhotse_cuts.is_cut(record):
            with contextlib.suppress(ManifestError):
                cut = lhotse_cuts.audio_of(record)
                return str(cut.audio), cut.offset, channel_of(record, self.channel, self.audio)
        offset = number(record.get("offset")) or 0.0
        audio = record.get(self.audio)
        return (
            audio if isinstance(audio, str) else "",
            offset,
            channel_of(record, self.channel, self.audio),
        )

    def clips_of(self, record: Record) -> list[Clip]:
        """Returns the clip of a record, for each manifest that its audio may be relative to."""
        manifests = [pattern for pattern in self.inputs if not is_glob(pattern)] or [""]
        clips: dict[str, Clip] = {}
        for manifest in manifests:
            with contextlib.suppress(ManifestError, ValueError):
                clip = parse(Row.of(record, manifest), self.audio, channel_key=self.channel)
                clips.setdefault(clip.audio, clip)
        return list(clips.values())


def as_flags(message: str) -> str:
    """Returns a message with the settings in it, which are in backticks, as flags."""
    return with_flags(message, {setting.name for setting in all_settings(GROUPS)})


def command_of(options: Mapping[str, Any], *further: str) -> str:
    """Returns the command line of a run, without what may be secret, from its options.

    Args:
        further: names of settings to add.
    """
    words = ["beam-asr", "transcribe"]
    for setting in all_settings(GROUPS):
        value = options.get(setting.name)
        if value in (None, [], {}) or value == _as_stored(setting.default):
            continue
        if setting.name in ("resume", "overwrite", "append"):
            continue
        if setting.name == "storage_options":  # a summary has their names alone
            words.append(f"--{setting.name}=OPTIONS")
        elif isinstance(value, bool):
            name = setting.name if value else f"no_{setting.name}"
            words.append(f"--{name}")
        elif isinstance(value, (list, tuple)):
            words.append(f"--{setting.name}={','.join(map(str, value))}")
        else:
            words.append(f"--{setting.name}={value}")
    words += options.get("beam_args") or []
    words += [f"--{name}" for name in further]
    return shlex.join(shown(without_secrets(str(word))) for word in words)


def _as_stored(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def number(value: Any) -> float | None:
    """Returns a finite number as a float; None for anything else."""
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            return None
    return value if isinstance(value, float) and math.isfinite(value) else None


def shown(value: Any) -> str:
    """Returns a text of anyone's as a page shows it: without what could hide or turn other text."""
    return UNPRINTABLE.sub("\ufffd", value if isinstance(value, str) else str(value))


def shown_place(audio: str) -> str:
    """Returns a path or URI as a page shows it: without what may be secret of a URL."""
    return shown(without_secrets(audio))
