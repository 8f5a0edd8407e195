"""Rows in and records out: what a line of a manifest says, and what becomes of it.

The format is NeMo's: one JSON object a line, with ``audio_filepath`` and optionally ``duration``
and ``offset`` in seconds; every other field is carried along untouched.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import reprlib
import sys
from typing import Any, NamedTuple

from beam_asr import cuts
from beam_asr.manifest_errors import (
    BadFieldError,
    BadRecordError,
    ManifestError,
    MissingAudioError,
    NotAnObjectError,
    NotJsonError,
)

URI_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")
OUR_ERROR_KEYS = {"stage", "type", "message", "attempts"}


class Row(NamedTuple):
    """One line of a manifest, as it was read.

    Attributes:
        line: the line's text without its end; JSON if the manifest is right.
        manifest: path or URI of the manifest; empty for a row that comes from none.
        line_number: its place there, from 1; 0 for a row that comes from no manifest.
        problem: why what was read is no row; empty if it is one.
    """

    line: str
    manifest: str = ""
    line_number: int = 0
    problem: str = ""

    @classmethod
    def of(cls, fields: dict[str, Any], manifest: str = "", line_number: int = 0) -> Row:
        """A row from its fields.

        Raises:
            BadFieldError: a field holds what JSON has no form for.
        """
        try:
            return cls(_to_json(fields), manifest, line_number)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadFieldError(f"the row's fields cannot be written as JSON ({error})") from None


class Clip(NamedTuple):
    """A row that is fit to be transcribed.

    Attributes:
        row: the row, as it was read.
        audio: path or URI of the audio, no longer relative to the manifest.
        offset: seconds from the start of the audio.
        duration: seconds to read, or None for all that follows.
        channel: the channel that the row names, from 0; None if it names none.
    """

    row: Row
    audio: str
    offset: float
    duration: float | None
    channel: int | None = None


def parse_fields(line: str) -> dict[str, Any]:
    """The fields of a line, in their order.

    A failure record that comes in again, as a row, loses the ``error`` of the earlier run.

    Raises:
        NotJsonError, NotAnObjectError: it holds none.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"not JSON ({error}); a manifest holds one JSON object a line") from None
    if not isinstance(fields, dict):
        raise NotAnObjectError(
            f"JSON, but {_kind(fields)} and not an object; a manifest holds one JSON object a line"
        )
    if isinstance(fields.get("error"), dict) and fields["error"].keys() == OUR_ERROR_KEYS:
        del fields["error"]
    return fields


def parse(row: Row, filepath_key: str = "audio_filepath", in_tar: bool = False) -> Clip:
    """Checks a row's line and resolves its audio. A row may be a cut of Lhotse's.

    Args:
        in_tar: the audio is named as it is in a tar, so there is nothing to resolve.

    Raises:
        ManifestError: with what is wrong and what is allowed.
    """
    if row.problem:
        raise BadRecordError(row.problem)
    fields = parse_fields(row.line)
    audio = fields.get(filepath_key)
    if audio is None and cuts.is_cut(fields):
        cut = cuts.audio_of(fields)
        return Clip(row, resolve(cut.audio, row.manifest), *cut[1:])
    if audio is None:
        raise MissingAudioError(
            f"the row has no {filepath_key!r}; name its field with --filepath_key if it is another"
        )
    if not isinstance(audio, str) or not audio.strip():
        raise BadFieldError(f"{filepath_key!r} is {_kind(audio)}, not the path or URI of a file")
    offset = _seconds(fields, "offset")
    duration = _seconds(fields, "duration")
    if duration is not None and duration == 0:
        raise BadFieldError("'duration' is 0; leave it out to read to the end of the file")
    resolved = audio if in_tar else resolve(audio, row.manifest)
    return Clip(row, resolved, offset or 0.0, duration)


def resolve(audio: str, manifest: str) -> str:
    """The audio's path or URI, taken relative to its manifest's folder as NeMo does.

    NeMo looks in the working folder as well; so do we, second, for manifests on a local disk.
    """
    if URI_SCHEME.match(audio) or "::" in audio:
        return audio
    if os.path.isabs(audio) or audio.startswith("~"):
        return os.path.expanduser(audio)
    if not manifest:
        return audio
    if URI_SCHEME.match(manifest):
        # zip://lists/a.jsonl::gs://b/c.zip and https://host/lists/a.jsonl?token
        first, chained, rest = manifest.partition("::")
        scheme, path = first.split("://", 1)
        if scheme.lower() in ("http", "https"):
            path = path.partition("?")[0]
        beside = _without_dots(posixpath.join(posixpath.dirname(path), audio))
        return f"{scheme}://{beside}{chained}{rest}"
    beside = os.path.normpath(os.path.join(os.path.dirname(manifest), audio))
    if not os.path.exists(beside) and os.path.exists(audio):
        return os.path.abspath(audio)
    return beside


def transcript(row: Row, pred_text_key: str, text: str) -> dict[str, Any]:
    """The terminal record of a transcribed row: its fields, unchanged, and the text."""
    return {**parse_fields(row.line), pred_text_key: text}


def failure(row: Row, stage: str, error: BaseException, attempts: int = 1) -> dict[str, Any]:
    """The terminal record of a row that could not be transcribed.

    It carries the row's fields, or for a line that has none the raw line and its place, and
    ``error`` with the stage, the error's class, its message and how many attempts were made. The
    message of an error in the manifest begins with the place.
    """
    try:
        fields = parse_fields(row.line)
    except ManifestError:
        fields = {"line": row.line, "manifest": row.manifest, "line_number": row.line_number}
    message = " ".join(str(error).split())
    if row.manifest and stage == "manifest":
        message = f"{row.manifest}:{row.line_number}: {message}"
    if len(message) > 500:
        message = message[:497] + "..."
    return {
        **fields,
        "error": {
            "stage": stage,
            "type": type(error).__name__,
            "message": message,
            "attempts": attempts,
        },
    }


def _to_json(fields: dict[str, Any]) -> str:
    try:
        line = json.dumps(fields, ensure_ascii=False)
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(fields)
    return line


def _without_dots(path: str) -> str:
    """A path without ``.`` and ``..``; else as it is, since a key may hold ``//``."""
    plain = {".", ".."}.isdisjoint(path.split("/"))
    return path if plain else posixpath.normpath(path)


def _seconds(fields: dict[str, Any], key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadFieldError(f"{key!r} is {_kind(value)}, not a number of seconds")
    if not 0 <= value <= sys.float_info.max:  # NaN fails too
        shown = reprlib.repr(value)
        raise BadFieldError(f"{key!r} is {shown}; seconds are finite and not negative")
    return float(value)


def _kind(value: Any) -> str:
    kinds = {list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    kinds |= {str: "a string", int: "a number", float: "a number"}
    shown = json.dumps(value, ensure_ascii=False)
    return f"{kinds[type(value)]} ({shown if len(shown) <= 40 else shown[:37] + '...'})"
