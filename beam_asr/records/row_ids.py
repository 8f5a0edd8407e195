"""Which row is which: identities that do not depend on where in which manifest a row stands.

Equal rows make a group, named by a hash of what they say and of where their audio is. An id is the
group's name and a number within it, so equal rows stay distinct and reordered ones the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HASH_BYTES = 12
MODULUS = 2 ** (8 * HASH_BYTES)


def group_of(fields: Mapping[str, Any], audio: str) -> str:
    """The group of a row, by its fields in any order and any notation, and its resolved audio."""
    return _hash(audio, json.dumps(fields, sort_keys=True, separators=(",", ":")))


def group_of_text(*parts: str) -> str:
    """The group of what has no fields: a line that is no row, a tar."""
    return _hash(*parts)


def id_of(group: str, number: int) -> str:
    return f"{group}.{number}"


def group_of_id(row_id: str) -> str:
    return row_id.partition(".")[0]


def number_of_group(group: str) -> int:
    """By which groups are summed: the sum, with `MODULUS`, is that of the rows in any order."""
    return int(group, 16)


def name_of(row_ids: list[str]) -> str:
    """A name for a set of rows."""
    return _hash(*sorted(row_ids))


def _hash(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=HASH_BYTES).hexdigest()
