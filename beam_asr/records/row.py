"""Rows in and records out: what a line of a manifest says, and what becomes of it.

The format is NeMo's: one JSON object a line, with ``audio_filepath`` and optionally ``duration``
and ``offset`` in seconds; every other field is carried along untouched.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_asr import manifest_errors
from beam_asr.manifest_errors import (
    BadFieldError,
    BadRecordError,
    ManifestError,
    MissingAudioError,
)
from beam_asr.records import lhotse_cuts as cuts
from beam_asr.records.json_objects import kind, parse_object

if TYPE_CHECKING:
    from beam_asr.records.work import Piece

URI_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")
OUR_ERROR_KEYS = {"stage", "type", "message", "attempts"}
REPLACED = "replaced"  # a fifth, for a field that the row itself calls "error"
LONGEST_MESSAGE = 500


class Row(NamedTuple):
    """One line of a manifest, as it was read.

    Attributes:
        line: the line's text without its end; JSON if the manifest is right.
        manifest: path or URI of the manifest; empty for a row that comes from none.
        line_number: its place there, from 1; 0 for a row that comes from no manifest.
        problem: why what was read is no row; empty if it is one.
        id: the row's stable identity (`row_ids`); empty where none is needed.
        problem_type: the class of the problem, by its name.
    """

    line: str
    manifest: str = ""
    line_number: int = 0
    problem: str = ""
    id: str = ""
    problem_type: str = BadRecordError.__name__

    @classmethod
    def of(cls, fields: dict[str, Any], manifest: str = "", line_number: int = 0) -> Row:
        """A row from its fields.

        Raises:
            BadFieldError: a field holds what JSON has no form for; with the fields as Python shows
                them.
        """
        try:
            return cls(_to_json(fields), manifest, line_number)
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"the row's fields cannot be written as JSON ({error})"
            raise BadFieldError(problem, _as_python(fields)) from None

    @classmethod
    def broken(cls, error: ManifestError, manifest: str = "", line_number: int = 0) -> Row:
        """A row for what cannot be one, so that it fails with this error."""
        name = type(error).__name__
        return cls(error.line, manifest, line_number, problem=str(error), problem_type=name)


class Clip(NamedTuple):
    """A row that is fit to be transcribed.

    Attributes:
        row: the row, as it was read.
        audio: path or URI of the audio, no longer relative to the manifest.
        offset: seconds from the start of the audio.
        duration: seconds to read, or None for all that follows.
        channel: the channel that the row names, from 0; None if it names none.
        piece: which segment of a long row it is (`long_rows`); None for a whole row.
        route: the number of the model that takes it (`routes`).
    """

    row: Row
    audio: str
    offset: float
    duration: float | None
    channel: int | None = None
    piece: Piece | None = None
    route: int = 0


def parse_fields(line: str) -> dict[str, Any]:
    """The fields of a line, in their order.

    A failure record that comes in again, as a row, loses the ``error`` of the earlier run, and gets
    back its own if it had one.

    Raises:
        ManifestError: it holds none; as ``parse_object``.
    """
    fields = parse_object(line, "the line")
    error = fields.get("error")
    if isinstance(error, dict) and error.keys() - {REPLACED} == OUR_ERROR_KEYS:
        if REPLACED in error:
            fields["error"] = error[REPLACED]
        else:
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
        raise getattr(manifest_errors, row.problem_type)(row.problem, row.line)
    fields = parse_fields(row.line)
    if fields.get(filepath_key) is None and cuts.is_cut(fields):
        clip, in_tar = Clip(row, *cuts.audio_of(fields)), False
    else:
        clip = _clip(row, fields, filepath_key)
    if "\0" in clip.audio:
        raise BadFieldError(f"the audio's path is {kind(clip.audio)}, and no path holds a NUL")
    return clip if in_tar else clip._replace(audio=resolve(clip.audio, row.manifest))


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


def transcript(row: Row, made: Mapping[str, Any]) -> dict[str, Any]:
    """The terminal record of a transcribed row: its fields, unchanged, and those that are made."""
    return {**parse_fields(row.line), **made}


def failure(row: Row, stage: str, error: BaseException, attempts: int = 1) -> dict[str, Any]:
    """The terminal record of a row that could not be transcribed.

    It carries the row's fields, or for a line that has none the raw line and its place, and
    ``error`` with the stage, the error's class, its message and how many attempts were made; if the
    row has a field ``error`` itself, that is kept in it, as ``replaced``. The message of an error
    in the manifest begins with the place.
    """
    fields = _carried(row)
    replaced = {REPLACED: fields["error"]} if "error" in fields else {}
    place = f"{row.manifest}:{row.line_number}: " if row.manifest and stage == "manifest" else ""
    return {
        **fields,
        "error": {
            "stage": stage,
            "type": type(error).__name__,
            "message": _message(place + str(error)),
            "attempts": attempts,
            **replaced,
        },
    }


def _clip(row: Row, fields: dict[str, Any], filepath_key: str) -> Clip:
    """The clip of a row of NeMo's, its audio as it is written there."""
    audio = fields.get(filepath_key)
    if audio is None:
        raise MissingAudioError(
            f"the row has no {filepath_key!r}; name its field with --filepath_key if it is another"
        )
    if not isinstance(audio, str) or not audio.strip():
        raise BadFieldError(f"{filepath_key!r} is {kind(audio)}, not the path or URI of a file")
    offset = _seconds(fields, "offset")
    duration = _seconds(fields, "duration")
    if duration is not None and duration == 0:
        raise BadFieldError("'duration' is 0; leave it out to read to the end of the file")
    return Clip(row, audio, offset or 0.0, duration)


def _carried(row: Row) -> dict[str, Any]:
    """What a failure says of its row."""
    if not row.problem:
        with contextlib.suppress(ManifestError):
            return parse_fields(row.line)
    return {"line": row.line, "manifest": row.manifest, "line_number": row.line_number}


def _message(text: str) -> str:
    """An error's message on one line, in characters that can be written, and not long."""
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    if len(line) <= LONGEST_MESSAGE:
        return line
    half = (LONGEST_MESSAGE - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"  # the remedy is at the end


def _as_python(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # of numbers too long, of nesting too deep, or of any class's own
        return f"{type(value).__name__} that cannot be shown"


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
        raise BadFieldError(f"{key!r} is {kind(value)}, not a number of seconds")
    if not 0 <= value <= cuts.MOST_SECONDS:  # NaN fails too
        shown = reprlib.repr(value)
        raise BadFieldError(f"{key!r} is {shown}; seconds are not negative and below a billion")
    return float(value)
