"""Defines the outcome of a row, and what a model recognized in a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """The outcome of a row.

    Attributes:
        row_id: as in `row_ids`.
        recognition: the fields of the model's recognition; None if the row failed.
        error: the ``error`` of its failure record; None if it was transcribed.
        seconds: of audio that went to the model.
        channels: the outcomes, without ids, of a row's channels if each is a record of its own; the
            row itself then has neither recognition nor error.
    """

    row_id: str
    recognition: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    seconds: float = 0.0
    channels: tuple[Outcome, ...] = ()

    @property
    def failed(self) -> bool:
        """Returns whether the row failed, or one of its channels."""
        return self.error is not None or any(channel.failed for channel in self.channels)


@dataclasses.dataclass(frozen=True)
class Recognition:
    """A model's recognition of one clip. Holds no tensor, so that it can cross a shuffle.

    Attributes:
        text: the best one.
        pieces: its tokens as the tokenizer has them ("▁he", "##llo", "a", " "), in order; for a
            model that has times of words alone, its words, each with "▁" before it. None if
            neither times nor confidence were requested.
        starts: of the pieces, in seconds from the first sample of the waveform, within it. None if
            they were not requested, or the model has none.
        ends: of the pieces, likewise.
        confidences: of the pieces, from 0 to 1; None if they were not requested.
        score: NeMo's score of the text; None if the n best were not requested.
        n_best: texts with their scores, best first, all of them different; None likewise.
    """

    text: str
    pieces: tuple[str, ...] | None = None
    starts: tuple[float, ...] | None = None
    ends: tuple[float, ...] | None = None
    confidences: tuple[float, ...] | None = None
    score: float | None = None
    n_best: tuple[tuple[str, float], ...] | None = None
