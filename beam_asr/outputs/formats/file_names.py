"""Names the files that transcripts are exported to."""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from beam_asr.records import lhotse_cuts
from beam_asr.records.channels import channel_of
from beam_asr.storage import uris
from beam_asr.transcripts.job_fields import job_fields

MAX_CHARACTERS = 60
MAX_BYTES = 150  # of a plain name; file systems take 255, of which an unfinished file needs some
PUNCTUATION = frozenset(" ._-()[]&',+=@!")  # of plain names; no shell, glob or URI changes a file
HASH_DIGITS = 16
HASHED = re.compile(rf"(.+)-[0-9a-f]{{{HASH_DIGITS}}}")
NAMELESS = "audio"
# Windows treats these as devices, whatever follows the first dot.
RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])(\.|$)", re.IGNORECASE)


class Audio(NamedTuple):
    """Holds the audio of a record.

    Attributes:
        name: its path or URI, as the record has it; empty if it is missing.
        offset: seconds from the start of the file.
        duration: seconds, or None if unknown.
        channel: from 0, or None if the record names none.
    """

    name: str
    offset: float
    duration: float | None
    channel: int | None


def audio_of(record: Mapping[str, Any], filepath_key: str, channel_key: str = "channel") -> Audio:
    """Returns the audio of a record, which may be a Lhotse cut."""
    if record.get(filepath_key) is None and lhotse_cuts.is_cut(dict(record)):
        return Audio(*lhotse_cuts.audio_of(dict(record)))
    return Audio(
        str(record.get(filepath_key) or ""),
        _seconds(record.get("offset")) or 0.0,
        _seconds(record.get("duration")),
        channel_of(record, channel_key, filepath_key),
    )


def stem_of(audio: str) -> str:
    """Returns the name of an audio file without folders and extension; may be empty.

    It omits parts of a URI that may hold secrets: host, user, query, fragment, parameters.
    """
    if audio.startswith("data:"):
        return ""
    links = uris.split_chain(audio)  # a file in an archive comes before the archive
    for link in links:
        stem = posixpath.splitext(posixpath.basename(_path_in(link, link is links[-1])))[0]
        if stem:
            return stem
    return ""


def _path_in(link: str, is_last: bool) -> str:
    """Returns the path in a link of a URI, without its host, or bucket, if it is the last."""
    protocol = uris.protocol_of(link)
    if uris.is_local(link):
        path = uris.local_path(link) if is_last or uris.has_scheme(link) else ""
    else:
        path = link.partition("://")[2]
        if protocol == "http":  # in a store, these are characters as any other
            path = unquote(re.split("[?#;]", path, maxsplit=1)[0])
        if is_last:
            path = path.partition("/")[2]
    return path.replace("\\", "/")


def plain_name(record: Mapping[str, Any], filepath_key: str) -> str:
    """Returns the name of a record's files, without extension, if no other row has the same one.

    This is the name of the audio, so that players find captions beside it. A name that some file
    system, storage or shell does not take as it is becomes one of ASCII letters, digits, ``.``,
    ``_`` and ``-``. It is empty if it looks like a name with a hash.
    """
    stem = unicodedata.normalize("NFC", stem_of(audio_of(record, filepath_key).name))
    usable = (
        0 < len(stem.encode("utf-8", "replace")) <= MAX_BYTES
        and all(map(_is_plain, stem))
        and stem == stem.strip(" .-")
        and not RESERVED.match(stem)
    )
    name = stem if usable else _safe(stem)
    return "" if HASHED.fullmatch(name) else name


def _is_plain(character: str) -> bool:
    return (
        character in PUNCTUATION
        or character.isalnum()
        or unicodedata.category(character) in ("Mn", "Mc")
    )


def name_key(name: str) -> int:
    """Returns 64 bits that names have in common that any file system holds to be the same."""
    folded = unicodedata.normalize("NFKC", name.casefold()).casefold()
    return int.from_bytes(hashlib.sha256(folded.encode("utf-8", "replace")).digest()[:8], "big")


def hashed_name(
    record: Mapping[str, Any],
    filepath_key: str,
    output_fields: Collection[str] | None = None,
) -> str:
    """Returns the name of a record's files, without extension: the audio's and a hash.

    It is one part of a path on any storage and system: ASCII letters, digits, ``.``, ``_`` and
    ``-``. Equal rows have the same name, in every attempt; different rows have different names.
    A relative path names different files beside different manifests, so for rows with one the hash
    includes the results: equal names then have equal content.

    Args:
        output_fields: the fields that are results, and not the row's; None is `job_fields`.
    """
    audio = audio_of(record, filepath_key).name
    if output_fields is None:
        output_fields = job_fields()
    results = frozenset(output_fields) if _is_absolute(audio) else frozenset(["exports"])
    fields = {key: value for key, value in record.items() if key not in results}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    return f"{_safe(stem_of(audio))}-{digest}"


def _safe(stem: str) -> str:
    decomposed = unicodedata.normalize("NFKD", stem[: 4 * MAX_CHARACTERS])
    letters = "".join(character for character in decomposed if not unicodedata.combining(character))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", letters).strip("._-")[:MAX_CHARACTERS]
    if RESERVED.match(name):
        name = f"_{name}"
    return name or NAMELESS


def _is_absolute(audio: str) -> bool:
    return uris.has_scheme(audio) or audio.startswith(("/", "~/", "data:"))


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
