"""Defines `Statistics` and `Score`: sums that can be added in any order."""

from __future__ import annotations

import dataclasses
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from beam_asr.records import row_ids
from beam_asr.records.model_work import ModelWork, Span, add_spans, add_workers

EXAMPLES = 10
MAX_KINDS = 50  # of ignored files
OTHER_KINDS = "other"
MERGE = "merge"  # in a field's metadata: merges two values; a field without it is a sum
# What describes the input of a run: later runs into the folder may read the same files again.
OF_INPUT = (
    "rows_in_folder",
    "resumed_not_in_input",
    "input_files",
    "audio_files",
    "ignored_files",
    "examples_ignored",
    "repeated_files",
    "examples_repeated",
    "members_without_row",
    "examples_without_row",
    "tars_without_rows",
)

# What the step that scores and filters counts.
OF_SCORING = (
    "scores",
    "scored_by",
    "without_reference",
    "without_reference_before_keep",
    "judged_rows",
    "rows_without",
)


def _field(default: Any, merge: Callable[[Any, Any], Any]) -> Any:
    return dataclasses.field(default=default, metadata={MERGE: merge})


def _first_examples(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other})[:EXAMPLES])


def add_counts(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Adds two counts by their keys, of which the most frequent `MAX_KINDS` are kept.

    The others are counted together, as `OTHER_KINDS`, so that no input makes the sum large.
    """
    counts = Counter(one) + Counter(other)
    rest = counts.pop(OTHER_KINDS, 0)
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest += sum(count for _, count in by_count[MAX_KINDS:])
    return dict(by_count[:MAX_KINDS]) | ({OTHER_KINDS: rest} if rest else {})


def _sum_counts(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return dict(Counter(one) + Counter(other))


def _sum_by_key(one: dict[Any, Score], other: dict[Any, Score]) -> dict[Any, Score]:
    keys = one.keys() | other.keys()
    return {key: one.get(key, Score()) + other.get(key, Score()) for key in keys}


@dataclasses.dataclass
class Statistics:
    """Sums over a part of the job; ``+`` adds two.

    Attributes:
        rows_in: lines and rows that came in.
        rows_digest: the sum of the numbers of their groups (`row_ids`), and of those of tars.
        further_channels: records of rows beyond one for each, where channels have their own.
        rows_invalid: of them, those that failed before any audio was read.
        example_invalid: the reason of one of them.
        tars: inputs whose rows are counted as they are read.
        resumed_rows: rows that an earlier run had done.
        resumed_seconds: of their audio.
        rows_in_folder: of ``rows_in``, those that the output folder has already, of a run that
            appends.
        resumed_not_in_input: rows that an earlier run had done, and that are no longer among the
            input; they have no record.
        audio_seconds: of the clips that went to the model.
        padded_seconds: clips x longest clip, over all batches.
        model_seconds: wall time of the forward passes and their decoding.
        wait_seconds: wall time in which the model had nothing to do, from a bundle's start to
            its last batch.
        batches: forward passes.
        by_worker: what the model did in each worker process.
        by_time: what it did in each span of time.
        long_rows: rows that were cut into segments.
        segments: of long rows.
        segments_failed: of them.
        skipped_silence_seconds: of audio that skipped the model, since nobody speaks.
        no_speech: rows in which nobody speaks.
        rows_shorter_than_file: rows without an ``offset`` whose ``duration`` is shorter than their
            file, of which the rest is not transcribed.
        input_files: the files that the inputs stand for.
        audio_files: of them, those that are a row each.
        ignored_files: the files that folders and globs leave out, by extension or by the reason.
        examples_ignored: some of them.
        repeated_files: names of files that are read by another name already.
        examples_repeated: some of them.
        inputs: the files that the rows come from, of an input without an end.
        models: descriptions of the models that were used.
        members_without_row: files in tars of a tarred data set that no row names; in WebDatasets
            links, recordings without a key, and what macOS has stored.
        examples_without_row: some of them.
        tars_without_rows: tars without any row, which are not read.
        model_loads: models that were loaded, over all worker processes.
        model_evictions: models that had to make room for others.
        scores: sums over rows that pass the filter, by the field of the breakdown and its value,
            and over all rows that it judges, as ``before_keep``.
        scored_by: the field of the reference, and the normalizer.
        without_reference: rows that pass the filter, and have no reference.
        without_reference_before_keep: rows that the filter judges, and that have none.
        judged_rows: rows that the filter judges.
        rows_without: of them, those that lack a field which its condition reads, by the field.
        rows_of_several_runs: rows that several of the folders have that were merged.
        conflicts: of them, those whose transcripts have different texts.
        examples_conflicts: some of them.
    """

    rows_in: int = 0
    rows_digest: int = _field(0, lambda one, other: (one + other) % row_ids.MODULUS)
    further_channels: int = 0
    rows_invalid: int = 0
    example_invalid: str = _field("", lambda one, other: one or other)
    tars: int = 0
    resumed_rows: int = 0
    resumed_seconds: float = 0.0
    rows_in_folder: int = 0
    resumed_not_in_input: int = 0
    audio_seconds: float = 0.0
    padded_seconds: float = 0.0
    model_seconds: float = 0.0
    wait_seconds: float = 0.0
    batches: int = 0
    by_worker: dict[str, ModelWork] = dataclasses.field(
        default_factory=dict, metadata={MERGE: add_workers}
    )
    by_time: dict[Span, ModelWork] = dataclasses.field(
        default_factory=dict, metadata={MERGE: add_spans}
    )
    long_rows: int = 0
    segments: int = 0
    segments_failed: int = 0
    skipped_silence_seconds: float = 0.0
    no_speech: int = 0
    rows_shorter_than_file: int = 0
    input_files: int = 0
    audio_files: int = 0
    ignored_files: dict[str, int] = dataclasses.field(
        default_factory=dict, metadata={MERGE: add_counts}
    )
    examples_ignored: tuple[str, ...] = _field((), _first_examples)
    repeated_files: int = 0
    examples_repeated: tuple[str, ...] = _field((), _first_examples)
    inputs: frozenset[str] = _field(frozenset(), operator.or_)
    models: frozenset[tuple[tuple[str, str], ...]] = _field(frozenset(), operator.or_)
    members_without_row: int = 0
    examples_without_row: tuple[str, ...] = _field((), _first_examples)
    tars_without_rows: int = 0
    model_loads: int = 0
    model_evictions: int = 0
    scores: dict[tuple[str, str], Score] = dataclasses.field(
        default_factory=dict, metadata={MERGE: _sum_by_key}
    )
    scored_by: frozenset[tuple[str, str]] = _field(frozenset(), operator.or_)
    without_reference: int = 0
    without_reference_before_keep: int = 0
    judged_rows: int = 0
    rows_without: dict[str, int] = dataclasses.field(
        default_factory=dict, metadata={MERGE: _sum_counts}
    )
    rows_of_several_runs: int = 0
    conflicts: int = 0
    examples_conflicts: tuple[str, ...] = _field((), _first_examples)

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            **{
                field.name: field.metadata.get(MERGE, operator.add)(
                    getattr(self, field.name), getattr(other, field.name)
                )
                for field in _FIELDS
            }
        )

    @property
    def records(self) -> int:
        """Returns the number of records that the rows must end as."""
        return self.rows_in - self.rows_in_folder + self.further_channels

    @property
    def work(self) -> ModelWork:
        """Returns what the model did, in all workers."""
        return ModelWork(
            self.batches,
            self.audio_seconds,
            self.padded_seconds,
            self.model_seconds,
            self.wait_seconds,
        )

    def without_scores(self) -> Statistics:
        """Returns these sums without those of scoring, which another scoring counts again."""
        none = Statistics()
        return dataclasses.replace(self, **{name: getattr(none, name) for name in OF_SCORING})

    def with_input_of(self, other: Statistics) -> Statistics:
        """Returns these sums, with what the other ones say of their input."""
        return dataclasses.replace(self, **{name: getattr(other, name) for name in OF_INPUT})

    def add_work(self, work: ModelWork, worker: str, span: Span) -> None:
        """Counts a batch."""
        self.batches += work.batches
        self.audio_seconds += work.audio_seconds
        self.padded_seconds += work.padded_seconds
        self.model_seconds += work.model_seconds
        self.wait_seconds += work.wait_seconds
        self.by_worker = add_workers(self.by_worker, {worker: work})
        self.by_time = add_spans(self.by_time, {span: work})

    def add_member_without_row(self, name: str) -> None:
        """Counts a file in a tar that has no row."""
        self.members_without_row += 1
        if len(self.examples_without_row) < EXAMPLES:
            self.examples_without_row += (name,)


_FIELDS = dataclasses.fields(Statistics)


def to_json(statistics: Statistics) -> dict[str, Any]:
    """Converts statistics to values that JSON can hold."""
    return {field.name: _to_json(getattr(statistics, field.name)) for field in _FIELDS}


def from_json(values: Mapping[str, Any]) -> Statistics:
    """Converts the values of ``to_json`` to statistics; those of fields that are gone are left."""
    names = {field.name for field in _FIELDS}
    return Statistics(**{name: _from_json(values[name]) for name in names & values.keys()})


def _to_json(value: Any) -> Any:
    """Converts a value; what JSON has no type for becomes an object with the type's name."""
    match value:
        case Score():
            sums = {name: list(numbers) for name, numbers in value.sums.items()}
            return {"score": [*_COUNTS(value), sums]}
        case ModelWork():
            return {"work": list(value)}
        case Span():
            return {"span": list(value)}
        case frozenset():
            return {"set": sorted(map(_to_json, value), key=repr)}
        case tuple():
            return {"tuple": list(map(_to_json, value))}
        case dict():
            return {"dict": [[_to_json(key), _to_json(each)] for key, each in value.items()]}
    return value


def _from_json(value: Any) -> Any:
    match value:
        case {"score": numbers}:
            return _score_of(numbers)
        case {"work": values}:
            return ModelWork(*values)
        case {"span": values}:
            return Span(*values)
        case {"set": values}:
            return frozenset(map(_from_json, values))
        case {"tuple": values}:
            return tuple(map(_from_json, values))
        case {"dict": items}:
            return {_from_json(key): _from_json(each) for key, each in items}
    return value


def _score_of(numbers: list[Any]) -> Score:
    """Returns the score of the numbers of `to_json`; those of older releases have no sums."""
    *counts, sums = numbers if isinstance(numbers[-1], dict) else [*numbers, {}]
    of_names = {name: tuple(values) for name, values in sums.items()}
    return Score(*counts, of_names)  # type: ignore[call-arg]


def total(parts: Iterable[Statistics]) -> Statistics:
    """Returns the sum of statistics."""
    return sum(parts, Statistics())


@dataclass(frozen=True)
class Score:
    """Counts of correct and wrong words and characters of some rows.

    Scores can be added. Without arguments it is the score of no row.

    Attributes:
        rows: number of rows.
        words: of the references, normalized.
        hits: words that are right.
        substitutions, deletions, insertions: words that are not.
        characters: of the references, with the spaces between their words.
        character_substitutions, character_deletions, character_insertions: those that are wrong.
        seconds: of audio.
        empty_references: rows whose reference has no word.
        empty_hypotheses: rows whose hypothesis has no word.
        sums: further numbers by the names of their rates, each with its number of rows first: what
            the confidence intervals of rates need, and the counts of `metrics`.
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
    sums: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def __add__(self, other: Score) -> Score:
        counts = map(operator.add, _COUNTS(self), _COUNTS(other))
        return Score(*counts, _added(self.sums, other.sums))  # type: ignore[call-arg]

    def sums_of(self, name: str) -> tuple[int, ...] | None:
        """Returns the numbers of a rate, without that of rows; None unless all rows have them."""
        rows, *numbers = self.sums.get(name, (0,))
        return tuple(numbers) if rows == self.rows > 0 else None

    @property
    def errors(self) -> int:
        """Returns the number of wrong words."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def character_errors(self) -> int:
        """Returns the number of wrong characters."""
        return self.character_substitutions + self.character_deletions + self.character_insertions

    @property
    def wer(self) -> float | None:
        """Returns the wrong words divided by the words of the references; None without rows.

        If the references have no word at all it is the number of insertions, as in jiwer.
        """
        return self.errors / (self.words or 1) if self.rows else None

    @property
    def cer(self) -> float | None:
        """Returns as ``wer``, for characters."""
        return self.character_errors / (self.characters or 1) if self.rows else None


_COUNTS = operator.attrgetter(*(each.name for each in dataclasses.fields(Score)[:-1]))


def _added(
    one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Returns the sums of two scores; what one lacks is that of the other."""
    both = {
        name: tuple(map(operator.add, one[name], numbers)) if name in one else numbers
        for name, numbers in other.items()
    }
    return {**one, **both}
