"""Checks the fields of rows, and parses them to a `Clip` with a resolved path."""

from __future__ import annotations

import functools
import os
import posixpath
import reprlib
from collections.abc import Mapping
from typing import Any

from beam_asr import errors
from beam_asr.errors import BadFieldError, MissingAudioError
from beam_asr.records import lhotse_cuts
from beam_asr.records.channels import named_channel
from beam_asr.records.json_objects import kind
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage import uris


def parse(
    row: Row,
    filepath_key: str = "audio_filepath",
    in_tar: bool = False,
    channel_key: str = "channel",
) -> Clip:
    """Checks a row's line and resolves its audio. A row may be a Lhotse cut.

    Args:
        in_tar: the audio has its name in a tar, which needs no resolving.
        channel_key: the field of the channel.

    Raises:
        ManifestError: the row is invalid; the message states the problem and what is allowed.
    """
    if row.problem:
        raise getattr(errors, row.problem_type)(row.problem, row.line)
    fields = row.fields
    duration: float | None
    channel: int | str | None
    if fields.get(filepath_key) is None and lhotse_cuts.is_cut(fields):
        (audio, offset, duration, channel), in_tar = lhotse_cuts.audio_of(fields), False
    else:
        audio, offset, duration = _range(fields, filepath_key)
        channel = named_channel(fields, channel_key)
    if "\0" in audio:
        raise BadFieldError(f"the audio's path is {kind(audio)}, and no path holds a NUL")
    return Clip(row, audio if in_tar else resolve(audio, row.manifest), offset, duration, channel)


def resolve(audio: str, manifest: str) -> str:
    """Resolves the audio's path or URI relative to its manifest's folder, as NeMo does.

    Like NeMo, it tries the working folder as well, second, for manifests on a local disk. A name
    that begins with ``~`` is a file beside the manifest too, if there is one.
    """
    if os.path.isabs(audio) or uris.has_scheme(audio):
        return audio
    in_home = os.path.expanduser(audio)
    if not manifest:
        return in_home
    folder = _local_folder(manifest)
    if folder is not None:
        beside = os.path.normpath(os.path.join(folder, audio))
        if os.path.exists(beside):
            return beside
        if in_home == audio and os.path.exists(audio):
            return os.path.abspath(audio)
        return beside if in_home == audio else in_home
    return in_home if audio.startswith("~/") else _beside(manifest, audio)


def absolute(audio: str, manifest: str) -> str:
    """Returns the audio's path or URI, resolved, such that it depends on no working folder."""
    *inner, last = uris.split_chain(resolve(audio, manifest))
    if not uris.has_scheme(last):
        last = os.path.abspath(os.path.expanduser(last))
    return "::".join([*inner, last])


def located(audio: str, manifest: str) -> str:
    """Returns where audio is: an absolute path if it is on a local disk, else its URI."""
    resolved = resolve(audio, manifest)
    if not uris.is_local(resolved):
        return resolved
    return os.path.abspath(uris.local_path(resolved))


def with_absolute_audio(record: dict[str, Any], manifest: str, filepath_key: str) -> dict[str, Any]:
    """Returns the record of a row with the path or URI of its audio resolved.

    Args:
        manifest: path or URI of the row's manifest; empty if it comes from none.
    """
    audio = record.get(filepath_key)
    if not isinstance(audio, str) or not audio.strip():
        return record
    return {**record, filepath_key: absolute(audio, manifest)}


@functools.lru_cache(maxsize=1024)  # most rows are of the manifest of the row before
def _local_folder(manifest: str) -> str | None:
    """Returns the folder of a manifest; None if it is not on the local disk."""
    return os.path.dirname(uris.local_path(manifest)) if uris.is_local(manifest) else None


def _beside(manifest: str, audio: str) -> str:
    """Returns the URI of a file in the folder of a manifest that is not on the local disk."""
    # zip://lists/a.jsonl::gs://b/c.zip and https://host/lists/a.jsonl?token
    links = uris.split_chain(manifest)
    paths = [link.partition("://")[2] for link in links]
    at = next((number for number, path in enumerate(paths) if path), len(links) - 1)
    scheme, separator, path = links[at].rpartition("://")
    if uris.protocol_of(links[at]) == "http":
        path = path.partition("?")[0]
    beside = _without_dots(posixpath.join(posixpath.dirname(path), audio))
    return "::".join([*links[:at], f"{scheme}{separator}{beside}", *links[at + 1 :]])


def _range(fields: Mapping[str, Any], filepath_key: str) -> tuple[str, float, float | None]:
    """Returns the audio of a row in NeMo's format, as written there, its offset and duration."""
    audio = fields.get(filepath_key)
    if audio is None:
        raise MissingAudioError(
            f"the row has no {filepath_key!r}; name its field with `filepath_key` if it is another"
        )
    if not isinstance(audio, str) or not audio.strip():
        raise BadFieldError(f"{filepath_key!r} is {kind(audio)}, not the path or URI of a file")
    offset = _seconds(fields, "offset")
    duration = _seconds(fields, "duration")
    if duration is not None and duration == 0:
        raise BadFieldError("'duration' is 0; leave it out to read to the end of the file")
    return audio, offset or 0.0, duration


def _without_dots(path: str) -> str:
    """Normalizes a path only if it has ``.`` or ``..``, since a key may hold ``//``."""
    plain = {".", ".."}.isdisjoint(path.split("/"))
    return path if plain else posixpath.normpath(path)


def _seconds(fields: Mapping[str, Any], key: str) -> float | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        has_comma = isinstance(value, str) and "," in value
        remedy = "; write it with a decimal point, and without any comma" if has_comma else ""
        raise BadFieldError(f"{key!r} is {kind(value)}, not a number of seconds{remedy}")
    if not 0 <= value <= lhotse_cuts.MAX_SECONDS:  # NaN fails too
        shown = reprlib.repr(value)
        raise BadFieldError(f"{key!r} is {shown}; seconds are not negative and below a billion")
    return float(value)
