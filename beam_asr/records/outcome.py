"""What became of a row, apart from the row itself."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Recognition:
    """What a model heard in one clip. Holds no tensor, so that it can cross a shuffle.

    Attributes:
        text: the best one.
        pieces: its tokens as the tokenizer has them ("▁he", "##llo", "a", " "), in order; of a
            model that tells times of words alone, its words, each with "▁" before it. None if
            neither times nor confidence were asked for.
        starts: of the pieces, in seconds from the first sample of the waveform, within it. None if
            they were not asked for, or the model told none.
        ends: of the pieces, likewise.
        confidences: of the pieces, from 0 to 1; None if they were not asked for.
        score: NeMo's of the text; None if the n best were not asked for.
        n_best: texts with their scores, best first, all of them different; None likewise.
    """

    text: str
    pieces: tuple[str, ...] | None = None
    starts: tuple[float, ...] | None = None
    ends: tuple[float, ...] | None = None
    confidences: tuple[float, ...] | None = None
    score: float | None = None
    n_best: tuple[tuple[str, float], ...] | None = None
