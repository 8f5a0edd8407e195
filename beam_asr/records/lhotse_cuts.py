"""Reads Lhotse cuts as ranges of audio files.

The format is that of lhotse's ``cut.to_dict()``, one cut a line of a ``cuts.jsonl``; lhotse itself
is not needed to read it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from beam_asr.errors import BadFieldError, BadRecordError

# The fields that every cut of a type has.
REQUIRED = {
    "MonoCut": {"id", "start", "duration", "channel"},
    "MultiCut": {"id", "start", "duration", "channel"},
    "MixedCut": {"id", "tracks"},
    "PaddingCut": {"id", "duration", "sampling_rate", "feat_value"},
}
SLACK_SECONDS = 0.1  # by which a supervision may reach out of its cut: no more than a syllable
MAX_SECONDS = 1e9  # 31 years; samples far beyond that cannot be counted
REMEDY = "write its audio to a file first, with lhotse's cuts.save_audios(folder)"


class CutAudio(NamedTuple):
    """The audio of a cut.

    Attributes:
        audio: path or URI of the file, as in the cut.
        offset: seconds from the start of the file.
        duration: seconds to read.
        channel: the channel of the file, from 0; None averages all.
    """

    audio: str
    offset: float
    duration: float
    channel: int | None


def is_cut(fields: Mapping[str, Any]) -> bool:
    """Returns whether a row is a cut: by its ``type``, and by the fields of that type."""
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in REQUIRED:
        return False
    return isinstance(fields.get("recording"), dict) or fields.keys() >= REQUIRED[kind]


def audio_of(cut: Mapping[str, Any]) -> CutAudio:
    """Returns the range of a file that a cut describes.

    A recording that lhotse would resample is read at its file's rate, since the job resamples to
    the model's rate itself.

    Raises:
        BadFieldError: a required field is missing or has an impossible value.
        BadRecordError: the cut is not a range of one file.
    """
    kind = cut.get("type")
    if kind in ("MixedCut", "PaddingCut"):
        raise BadRecordError(f"a {kind} is no range of one file; {REMEDY}")
    recording = cut.get("recording")
    if recording is None:
        raise BadRecordError(
            "the cut has no recording, and features alone cannot be transcribed; make the cuts "
            "with their recordings"
        )
    if not isinstance(recording, dict):
        raise BadFieldError(f"the cut's 'recording' is {reprlib.repr(recording)}, not an object")
    _refuse_transforms(recording)
    required = _channels(cut.get("channel"), "the cut's 'channel'")
    source, channels = _source_with(required, recording)
    if len(required) > 1 and set(required) != set(channels):
        raise BadRecordError(
            f"the cut takes the channels {reprlib.repr(required)} of {reprlib.repr(channels)}, and "
            "the job takes one channel or averages all; make a cut of each with lhotse's "
            f"cut.with_channels(channel), or {REMEDY}"
        )
    return CutAudio(
        audio=_path(source),
        offset=_seconds(cut, "start"),
        duration=_seconds(cut, "duration"),
        channel=channels.index(required[0]) if len(required) == 1 else None,
    )


def channel_numbers(cut: Mapping[str, Any]) -> list[int]:
    """Returns the numbers that a cut's recording gives the channels of its file, in their order.

    Raises:
        BadFieldError, BadRecordError: as `audio_of`.
    """
    required = _channels(cut.get("channel"), "the cut's 'channel'")
    return _source_with(required, cut["recording"])[1]


def with_channel(cut: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Returns a cut of all channels of its file as that of one, like lhotse's ``with_channels``.

    Supervisions of other channels are left out.

    Args:
        index: of the channel in the file, from 0.
    """
    number = channel_numbers(cut)[index]
    supervisions = [
        {**supervision, "channel": number}
        for supervision in cut.get("supervisions") or []
        if isinstance(supervision, dict) and _has_channel(supervision, number)
    ]
    return {
        **cut,
        "id": f"{cut.get('id')}-{number}",
        "type": "MonoCut",
        "channel": number,
        "supervisions": supervisions,
    }


def _has_channel(supervision: Mapping[str, Any], number: int) -> bool:
    channel = supervision.get("channel")
    return number in channel if isinstance(channel, list) else channel == number


def _refuse_transforms(recording: dict[str, Any]) -> None:
    transforms = recording.get("transforms") or []
    if not isinstance(transforms, list):
        transforms = [transforms]
    names = [item.get("name") if isinstance(item, dict) else item for item in transforms]
    changes = [name for name in names if name != "Resample"]
    if changes:
        raise BadRecordError(
            f"the cut's recording has the transforms {reprlib.repr(changes)}, which the job does "
            f"not apply; {REMEDY}"
        )


def _source_with(
    required: list[int], recording: dict[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """Returns the source of a recording that holds the channels, and the channels it has."""
    sources = recording.get("sources")
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise BadFieldError(
            f"the recording's 'sources' is {reprlib.repr(sources)}, not a list of objects"
        )
    matches, any_of = [], set(required)
    for source in sources:
        channels = _channels(source.get("channels"), "a source's 'channels'")
        if not any_of.isdisjoint(channels):
            matches.append((source, channels))
    if len(matches) != 1:
        raise BadRecordError(
            f"the cut's channels {reprlib.repr(required)} are in {len(matches)} of the recording's "
            f"{len(sources)} sources, and the job reads a cut from one; make a cut of each channel "
            f"with lhotse's cut.with_channels(channel), or {REMEDY}"
        )
    return matches[0]


def _path(source: dict[str, Any]) -> str:
    kind, path = source.get("type"), source.get("source")
    if kind == "command":
        raise BadRecordError(
            f"the recording's source is a shell command, and the job runs none; {REMEDY}"
        )
    if kind not in ("file", "url"):
        raise BadRecordError(
            f"the recording's source is of the type {reprlib.repr(kind)}, and the job reads those "
            f"of 'file' and 'url'; {REMEDY}"
        )
    if not isinstance(path, str) or not path.strip():
        raise BadFieldError(
            f"the recording's source is {reprlib.repr(path)}, not the path or URI of a file"
        )
    return path


def _channels(value: Any, name: str) -> list[int]:
    channels = value if isinstance(value, list) else [value]
    numbers = [channel for channel in channels if type(channel) is int and channel >= 0]
    if not numbers or len(set(numbers)) != len(channels):
        raise BadFieldError(
            f"{name} is {reprlib.repr(value)}, not a channel's number or different ones in a list"
        )
    return numbers


def _seconds(cut: Mapping[str, Any], key: str) -> float:
    value: Any = cut.get(key)
    fits = _is_number(value) and 0 <= value <= MAX_SECONDS
    if not fits or (key == "duration" and value == 0):
        raise BadFieldError(
            f"the cut's {key!r} is {reprlib.repr(value)}; a cut's times are numbers of seconds "
            "below a billion, its start not negative and its duration above 0"
        )
    return float(value)


def reference_of(cut: Mapping[str, Any], key: str) -> str | None:
    """Returns a field of a cut's supervisions, such as their ``text``, as one text.

    Several supervisions are joined by spaces in the order of their starts, as they are spoken; one
    without the field says nothing, as in NeMo. If none has it, the field of the cut's ``custom``
    counts. The texts of supervisions are not cut with the audio, so if one that has text begins
    before the cut or ends after it, by more than `SLACK_SECONDS`, they are no reference of it.

    Args:
        key: of the supervisions, or of their ``custom``.

    Returns:
        The text; None if there is none.
    """
    supervisions = cut.get("supervisions")
    texts: list[tuple[float, str]] = []
    for supervision in supervisions if isinstance(supervisions, list) else []:
        text = _field(supervision, key)
        if text is None:
            continue
        start, end = _span(supervision)
        if start < -SLACK_SECONDS or end > _number(cut.get("duration")) + SLACK_SECONDS:
            texts = []
            break
        texts.append((start, text))
    if texts:
        spoken = (text for _, text in sorted(texts, key=lambda timed: timed[0]))
        return " ".join(filter(None, spoken))
    custom = cut.get("custom")
    return _field(custom, key)


def _field(values: Any, key: str) -> str | None:
    """Returns a text of an object, or of its ``custom``."""
    for fields in (values, values.get("custom") if isinstance(values, dict) else None):
        if isinstance(fields, dict) and isinstance(fields.get(key), str):
            return str(fields[key])
    return None


def _span(supervision: Mapping[str, Any]) -> tuple[float, float]:
    """Returns the start and end of a supervision in its cut, in seconds."""
    start = _number(supervision.get("start"))
    return start, start + _number(supervision.get("duration"))


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
