"""Rows to what is to be done: steps that check them, tell which is which, and leave out what an
earlier run has done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import BoundedWindow, GlobalWindow

from beam_asr.errors import ManifestError
from beam_asr.inputs import nemo_tarred
from beam_asr.models.routing import Routing
from beam_asr.outputs.journal import Journal, ResumeError
from beam_asr.records import parsing, row_ids
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Record, failure
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import Clip, TarredClip, WebDatasetTar
from beam_asr.settings import TranscriptFields
from beam_asr.transcripts import transcript
from beam_asr.transforms.bundles import at_window
from beam_asr.transforms.results import resumed_statistics, tag_outcome


class JobStart(NamedTuple):
    """What is known of a job when its rows have been read.

    Attributes:
        rows: how many there are; None if tars hold some.
    """

    rows: int | None


class CheckRows(beam.DoFn):
    """Yields a ``Clip``, ``TarredClip`` or ``WebDatasetTar`` for each valid row; counts the rows.

    Args:
        tars: those of a tarred data set of NeMo's by their numbers, if that is the input.
        grouped: whether to give pairs, whose first is the group of `row_ids`.
        routing: which model takes which row.
    """

    def __init__(
        self,
        filepath_key: str,
        tars: Mapping[int, str] | None,
        grouped: bool,
        routing: Routing,
        asked: TranscriptFields,
    ):
        self._filepath_key = filepath_key
        self._tars = tars
        self._grouped = grouped
        self._routing = routing
        self._asked = asked

    def start_bundle(self) -> None:
        self._of_window: dict[BoundedWindow, Statistics] = defaultdict(Statistics)
        self._inputs: dict[BoundedWindow, set[str]] = defaultdict(set)
        self._timestamps: dict[BoundedWindow, Any] = {}

    def process(
        self,
        element: Row | Record | WebDatasetTar,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        self._statistics = self._of_window[window]
        self._timestamps.setdefault(window, timestamp)
        if isinstance(element, WebDatasetTar):  # its rows are counted as it is read
            self._statistics.tars += 1
            self._inputs[window].add(element.file)
            yield self._work(element, element.file)
            return
        self._statistics.rows_in += 1
        row = element if isinstance(element, Row) else _row_of(element)
        if not isinstance(window, GlobalWindow):
            self._inputs[window].add(row.manifest or _audio_file(row, self._filepath_key))
        try:
            yield self._of_row(row)
        except ManifestError as error:
            self._statistics.rows_invalid += 1
            self._sum(row_ids.group_of_text(row.line, row.problem))
            record = failure(row, "manifest", error)
            self._statistics.example_invalid = record["error"]["message"]
            yield TaggedOutput("failures", transcript.with_provenance(record, row, self._asked))

    def finish_bundle(self) -> Iterator[Any]:
        for window, statistics in self._of_window.items():
            if not isinstance(window, GlobalWindow):
                statistics.inputs = frozenset(self._inputs[window] - {""})
            at = self._timestamps[window]
            yield from at_window([TaggedOutput("statistics", statistics)], window, at)

    def _of_row(self, row: Row) -> Any:
        clip = parsing.parse(row, self._filepath_key, in_tar=self._tars is not None)
        if self._routing.is_multi_model:
            route = self._routing.route_index(parsing.parse_fields(row.line))
            clip = clip._replace(route=route)
        if self._tars is None:
            return self._work(clip, clip.audio, row)
        number = nemo_tarred.number_of(row, self._tars)
        return self._work(TarredClip(number, clip), f"{self._tars[number]}: {clip.audio}", row)

    def _work(
        self, item: Clip | TarredClip | WebDatasetTar, place: str, row: Row | None = None
    ) -> Any:
        if not self._grouped:
            return item
        if row is None:
            group = row_ids.group_of_text("tar", place)
        else:
            group = row_ids.group_of(parsing.parse_fields(row.line), place)
        self._sum(group)
        return group, item

    def _sum(self, group: str) -> None:
        self._statistics.rows_digest += row_ids.number_of_group(group)
        self._statistics.rows_digest %= row_ids.MODULUS


class AssignRowIds(beam.DoFn):
    """Gives the work of each group, with ids, and the records of what an earlier run has done.

    Takes a group and, in any order, its work and what became of some of it.
    """

    def __init__(self, journal: Journal, asked: TranscriptFields):
        self._journal = journal
        self._asked = asked

    def start_bundle(self) -> None:
        self._statistics = Statistics()

    def process(
        self,
        grouped: tuple[str, Iterable[Clip | TarredClip | WebDatasetTar | Outcome]],
        begun: JobStart,
    ) -> Iterator[Any]:
        del begun  # waited for: the journal is this run's before anything is done
        group, values = grouped
        work: list[Clip | TarredClip | WebDatasetTar] = []
        done: dict[str, Outcome] = {}
        for value in values:
            if not isinstance(value, Outcome):
                work.append(value)
            elif value.row_id not in done or done[value.row_id].error is not None:
                done[value.row_id] = value
        if not work:
            raise ResumeError(
                f"the journal in {self._journal.output!r} holds rows that are not among the input"
            )
        for number, item in enumerate(work):
            row_id = row_ids.id_of(group, number)
            if isinstance(item, WebDatasetTar):
                yield item._replace(id=row_id, done=done)
                continue
            clip = item.clip if isinstance(item, TarredClip) else item
            clip = clip._replace(row=clip.row._replace(id=row_id))
            outcome = done.get(row_id)
            if outcome is not None:
                self._statistics += resumed_statistics(outcome)
                yield tag_outcome(clip.row, outcome, self._asked, clip.route)
            if isinstance(item, TarredClip):
                yield TarredClip(item.number, clip, done=outcome is not None)
            elif outcome is None:
                yield clip

    def finish_bundle(self) -> Iterator[Any]:
        yield from at_window([TaggedOutput("statistics", self._statistics)], GlobalWindow())


def _row_of(fields: Record) -> Row:
    try:
        return Row.of(fields)
    except ManifestError as error:
        return Row.broken(error)


def _audio_file(row: Row, filepath_key: str) -> str:
    """What a row without a manifest was made of."""
    try:
        return str(parsing.parse_fields(row.line).get(filepath_key, ""))
    except ManifestError:
        return ""
