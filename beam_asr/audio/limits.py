"""What audio must be like to be given to a model at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_asr import errors

# A job can take what they refuse for filtered, and not for failed.
REFUSAL_TYPES = frozenset(each.__name__ for each in errors.tree() if each.is_refusal)


def is_refusal(error: Mapping[str, Any] | None) -> bool:
    """Whether the ``error`` of a failure record says that audio was refused by these checks."""
    return error is not None and error.get("type") in REFUSAL_TYPES
