"""`Statistics` and `Score`: sums that can be added in any order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import astuple, dataclass

from beam_asr.records import row_ids

EXAMPLES = 10


@dataclasses.dataclass
class Statistics:
    """Sums over a part of the job; ``+`` joins two.

    Attributes:
        rows_in: lines and rows that came in.
        rows_digest: the sum of the numbers of their groups (`row_ids`), and of those of tars.
        rows_invalid: of them, those that failed before any audio was read.
        example_invalid: why one of them did.
        tars: inputs whose rows are counted as they are read.
        resumed_rows: rows that an earlier run had done.
        resumed_seconds: of their audio.
        audio_seconds: of the clips that the model got.
        padded_seconds: clips x longest clip, over all batches.
        model_seconds: wall time of the forward passes and their decoding.
        wait_seconds: wall time in which the model had nothing to do, from a bundle's start to
            its last batch.
        batches: forward passes.
        long_rows: rows that were cut into segments.
        segments: that they were cut into.
        segments_failed: of them.
        unheard_seconds: of them, that were not given to the model, since nobody speaks.
        no_speech: rows in which nobody speaks.
        inputs: the files that the rows come from, of an input without an end.
        models: descriptions of the models that were used.
        members_without_row: files in tars of a tarred data set that no row is about.
        examples_without_row: some of them.
        tars_without_rows: tars of which no row is; they are not read.
        model_loads: models that were loaded, over all worker processes.
        model_evictions: models that had to make room for others.
        scores: sums over rows that are kept, by what they are sums of and its value.
        scored_by: the field of the reference, and the normalizer.
        without_reference: rows that are kept, and have no reference.
    """

    rows_in: int = 0
    rows_digest: int = 0
    rows_invalid: int = 0
    example_invalid: str = ""
    tars: int = 0
    resumed_rows: int = 0
    resumed_seconds: float = 0.0
    audio_seconds: float = 0.0
    padded_seconds: float = 0.0
    model_seconds: float = 0.0
    wait_seconds: float = 0.0
    batches: int = 0
    long_rows: int = 0
    segments: int = 0
    segments_failed: int = 0
    unheard_seconds: float = 0.0
    no_speech: int = 0
    inputs: frozenset[str] = frozenset()
    models: frozenset[tuple[tuple[str, str], ...]] = frozenset()
    members_without_row: int = 0
    examples_without_row: tuple[str, ...] = ()
    tars_without_rows: int = 0
    model_loads: int = 0
    model_evictions: int = 0
    scores: dict[tuple[str, str], Score] = dataclasses.field(default_factory=dict)
    scored_by: frozenset[tuple[str, str]] = frozenset()
    without_reference: int = 0

    def __add__(self, other: Statistics) -> Statistics:
        examples = sorted({*self.examples_without_row, *other.examples_without_row})
        return Statistics(
            self.rows_in + other.rows_in,
            (self.rows_digest + other.rows_digest) % row_ids.MODULUS,
            self.rows_invalid + other.rows_invalid,
            self.example_invalid or other.example_invalid,
            self.tars + other.tars,
            self.resumed_rows + other.resumed_rows,
            self.resumed_seconds + other.resumed_seconds,
            self.audio_seconds + other.audio_seconds,
            self.padded_seconds + other.padded_seconds,
            self.model_seconds + other.model_seconds,
            self.wait_seconds + other.wait_seconds,
            self.batches + other.batches,
            self.long_rows + other.long_rows,
            self.segments + other.segments,
            self.segments_failed + other.segments_failed,
            self.unheard_seconds + other.unheard_seconds,
            self.no_speech + other.no_speech,
            self.inputs | other.inputs,
            self.models | other.models,
            self.members_without_row + other.members_without_row,
            tuple(examples[:EXAMPLES]),
            self.tars_without_rows + other.tars_without_rows,
            self.model_loads + other.model_loads,
            self.model_evictions + other.model_evictions,
            {
                key: self.scores.get(key, Score()) + other.scores.get(key, Score())
                for key in self.scores.keys() | other.scores.keys()
            },
            self.scored_by | other.scored_by,
            self.without_reference + other.without_reference,
        )

    def add_member_without_row(self, name: str) -> None:
        self.members_without_row += 1
        if len(self.examples_without_row) < EXAMPLES:
            self.examples_without_row += (name,)


def total(parts: Iterable[Statistics]) -> Statistics:
    return sum(parts, Statistics())


@dataclass(frozen=True)
class Score:
    """How many words and characters of some rows were heard right.

    Scores add up. Without arguments it is that of no row.

    Attributes:
        rows: how many.
        words: of the references, normalised.
        hits: words that are right.
        substitutions, deletions, insertions: words that are not.
        characters: of the references, with the spaces between their words.
        character_substitutions, character_deletions, character_insertions: those that are wrong.
        seconds: of audio.
        empty_references: rows whose reference has no word.
        empty_hypotheses: rows whose hypothesis has no word.
    """

    rows: int = 0
    words: int = 0
    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    characters: int = 0
    character_substitutions: int = 0
    character_deletions: int = 0
    character_insertions: int = 0
    seconds: float = 0.0
    empty_references: int = 0
    empty_hypotheses: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    @property
    def wer(self) -> float | None:
        """Wrong words by words of the references; None of no row.

        Where the references have no word at all it is the number of insertions, as jiwer has it.
        """
        wrong = self.substitutions + self.deletions + self.insertions
        return wrong / (self.words or 1) if self.rows else None

    @property
    def cer(self) -> float | None:
        """As ``wer``, of characters."""
        wrong = self.character_substitutions + self.character_deletions + self.character_insertions
        return wrong / (self.characters or 1) if self.rows else None
