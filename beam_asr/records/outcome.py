"""What became of a row, apart from the row itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What became of a row.

    Attributes:
        row_id: as in `row_ids`.
        recognition: the fields of what the model heard; None if the row failed.
        error: the ``error`` of its failure record; None if it was transcribed.
        seconds: of audio that the model got.
    """

    row_id: str
    recognition: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    seconds: float = 0.0
