"""Reads the results of finished runs, as ``Transcribe`` gives them, and merges those of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PBegin, TaggedOutput
from apache_beam.transforms.window import GlobalWindow

from beam_asr.outputs.shards import KINDS
from beam_asr.outputs.stored_records import StoredFields, StoredShard, read_shard
from beam_asr.records import row_ids
from beam_asr.records.record import Envelope, Failure, Transcript
from beam_asr.records.statistics import EXAMPLES, Statistics
from beam_asr.storage.storage import Storage
from beam_asr.transforms.bundles import at_window
from beam_asr.transforms.results import Transcribed

MAX_LINES = 2**32  # of a shard
MAX_TEXT = 80  # characters of a text in an example


class StoredRun(NamedTuple):
    """Describes the results that are read of a folder.

    Attributes:
        statistics: the sums of its runs, without those of scoring.
    """

    folder: str
    storage: Storage
    shards: Sequence[StoredShard]
    fields: StoredFields
    statistics: Statistics


class ReadOutput(beam.PTransform):
    """Reads the records of finished runs, and gives them as a ``Transcribed``.

    Rows with the same id, of several runs, become one: of the run that has transcribed most of it,
    which is more than one record where each channel has its own, and of the later run if that is
    the same. A row for which runs have different texts is a conflict, which the statistics count.

    Args:
        runs: where each is; of several, all have their texts in the same field.
    """

    def __init__(self, *runs: StoredRun):
        super().__init__()
        self._runs = runs

    def expand(self, begin: PBegin) -> Transcribed:
        shards = [
            (number, place, shard)
            for number, run in enumerate(self._runs)
            for place, shard in enumerate(run.shards)
        ]
        read = (
            begin.pipeline
            | "Shards" >> beam.Create(shards)
            | "SpreadShards" >> beam.Reshuffle()
            | "ReadShards" >> beam.FlatMap(_read, self._runs)
        )
        sums = [run.statistics for run in self._runs]
        if len(self._runs) == 1:
            parts = read | "ByKind" >> beam.ParDo(_ByKind()).with_outputs(*KINDS)
        else:
            sums = [_without_rows(each) for each in sums]
            parts = (
                read
                | "ById" >> beam.Map(_with_row_id)
                | "SameRows" >> beam.GroupByKey()
                | "Choose"
                >> beam.ParDo(_Choose(self._runs[-1].fields.text)).with_outputs(
                    *KINDS, "statistics"
                )
            )
        statistics = begin.pipeline | "Sums" >> beam.Create(sums)
        if len(self._runs) > 1:
            statistics = (statistics, parts.statistics) | "AllSums" >> beam.Flatten()
        return Transcribed(parts.transcripts, parts.failures, statistics, parts.filtered)


_Numbered = tuple[int, Envelope]  # the number of the run that it is of


def _read(numbered: tuple[int, int, StoredShard], runs: Sequence[StoredRun]) -> Iterator[_Numbered]:
    """Yields the records of a shard, whose rows are in the order of the shards and their lines."""
    number, place, shard = numbered
    run = runs[number]
    records = read_shard(run.storage, run.folder, StoredShard(*shard), run.fields)
    for line, envelope in enumerate(records):
        row = envelope.row.with_input_number(place * MAX_LINES + line)
        yield number, envelope._replace(row=row)


def _tagged(envelope: Envelope) -> TaggedOutput:
    match envelope:
        case Transcript():
            return TaggedOutput("transcripts", envelope)
        case Failure():
            return TaggedOutput("failures", envelope)
    return TaggedOutput("filtered", envelope)


class _ByKind(beam.DoFn):
    def process(self, numbered: _Numbered) -> Iterable[TaggedOutput]:
        yield _tagged(numbered[1])


def _with_row_id(numbered: _Numbered) -> tuple[str, _Numbered]:
    return row_ids.without_channel(numbered[1].row.id), numbered


class _Choose(beam.DoFn):
    """Chooses the records of a row among those of several runs, and counts conflicts."""

    def __init__(self, text_key: str):
        self._text_key = text_key

    def start_bundle(self) -> None:
        self._statistics = Statistics()

    def process(self, keyed: tuple[str, Iterable[_Numbered]]) -> Iterator[TaggedOutput]:
        row_id, numbered = keyed
        by_run: dict[int, list[Envelope]] = {}
        for number, envelope in numbered:
            by_run.setdefault(number, []).append(envelope)
        chosen = max(by_run, key=lambda number: _preference(number, by_run[number]))
        records = by_run[chosen]
        # Invalid lines that are equal have one id, as the channels of a row have theirs of one.
        rows = 1 if any(each.row.id != row_id for each in records) else len(records)
        statistics = self._statistics
        statistics.rows_in += rows
        statistics.further_channels += len(records) - rows
        number = row_ids.number_of_group(row_ids.group_of_id(row_id))
        statistics.rows_digest += rows * number
        statistics.rows_digest %= row_ids.MODULUS
        statistics.rows_of_several_runs += rows if len(by_run) > 1 else 0
        self._compare(row_id, by_run, chosen)
        yield from map(_tagged, records)

    def finish_bundle(self) -> Iterator[Any]:
        yield from at_window([TaggedOutput("statistics", self._statistics)], GlobalWindow())

    def _compare(self, row_id: str, by_run: dict[int, list[Envelope]], chosen: int) -> None:
        found = {number: self._text(each) for number, each in by_run.items()}
        texts = {number: text for number, text in found.items() if text is not None}
        if len(set(texts.values())) < 2:
            return
        statistics = self._statistics
        statistics.conflicts += 1
        if len(statistics.examples_conflicts) < EXAMPLES:
            shown = [
                f"{text[:MAX_TEXT]!r} of folder {number + 1}" + " (taken)" * (number == chosen)
                for number, text in sorted(texts.items())
            ]
            statistics.examples_conflicts += (f"row {row_id}: {', '.join(shown)}",)

    def _text(self, records: Sequence[Envelope]) -> str | None:
        """Returns the texts of a row's transcripts, by their channels; None without any."""
        transcripts = [record for record in records if isinstance(record, Transcript)]
        transcripts.sort(key=lambda transcript: transcript.row.id)
        texts = [str(transcript.result[self._text_key]) for transcript in transcripts]
        return " / ".join(texts) if texts else None


def _preference(number: int, records: Sequence[Envelope]) -> tuple[int, int, int]:
    """Returns what makes the records of a run be chosen: the larger, the rather."""
    transcripts = sum(isinstance(record, Transcript) for record in records)
    return transcripts, len(records), number


def _without_rows(statistics: Statistics) -> Statistics:
    """Returns sums in which the rows are not counted, which are counted once they are chosen."""
    return statistics + Statistics(
        rows_in=-statistics.rows_in,
        rows_digest=-statistics.rows_digest,
        further_channels=-statistics.further_channels,
    )
