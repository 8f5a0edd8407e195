"""Computes the ids of rows, which do not depend on their places in manifests.

Equal rows form a group, named by a hash of their fields and of their audio's location. An id is the
group's name and a number within it, so equal rows stay distinct and reordered ones the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

HASH_BYTES = 12
_CHANNEL = re.compile(r"\.c\d+$")  # as `id_of_channel` has it
MODULUS = 2 ** (8 * HASH_BYTES)
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))  # json.dumps would make each


def group_of(fields: Mapping[str, Any], audio: str) -> str:
    """Returns the group of a row, by its fields in any order and notation, and its audio."""
    return _hash(audio, _ENCODER.encode(fields))


def group_of_text(*parts: str) -> str:
    """Returns the group of something without fields: an invalid line, a tar."""
    return _hash(*parts)


def id_of(group: str, number: int) -> str:
    """Returns the id of a row, by its group and its number in the group."""
    return f"{group}.{number}"


def id_of_channel(row_id: str, channel: int) -> str:
    """Returns the id of one channel of a row, by the channel's number from 0."""
    return f"{row_id}.c{channel}"


def id_of_tar(row_id: str) -> str:
    """Returns the id of a tar's own failure, by the tar's id or that of one of its samples."""
    return ".".join((*row_id.split(".")[:2], "tar"))


def without_channel(row_id: str) -> str:
    """Returns the id of a row, by its own or by that of one of its channels."""
    return _CHANNEL.sub("", row_id)


def channel_of_id(row_id: str) -> int:
    """Returns the channel in the id of one channel of a row; 0 for that of a whole row."""
    if ".c" not in row_id:
        return 0
    channel = _CHANNEL.search(row_id)
    return int(channel[0][2:]) if channel else 0


def group_of_id(row_id: str) -> str:
    """Returns the group of a row's id."""
    return row_id.partition(".")[0]


def number_of_group(group: str) -> int:
    """Returns the number of a group; sums modulo `MODULUS` are the same in any order of rows."""
    return int(group, 16)


def name_of(row_ids: list[str]) -> str:
    """Returns a name for a set of rows."""
    return _hash(*sorted(row_ids))


def _hash(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=HASH_BYTES).hexdigest()
