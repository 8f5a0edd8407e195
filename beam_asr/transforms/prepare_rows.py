"""Prepares the work: checks rows, assigns their ids, and omits what an earlier run has done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import BoundedWindow, GlobalWindow

from beam_asr.errors import ManifestError, ResumeError
from beam_asr.inputs import nemo_tarred
from beam_asr.models.routing import Routing
from beam_asr.records import parsing, row_ids
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Failure, Record, error_of
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import Clip, TarredClip, WebDatasetTar
from beam_asr.transforms.bundles import at_window
from beam_asr.transforms.job_context import JobContext
from beam_asr.transforms.results import output_of, row_statistics


class JobStart(NamedTuple):
    """Holds what is known of a job once its rows have been read.

    Attributes:
        rows: the number of rows; None if tars hold some.
    """

    rows: int | None


class CheckRows(beam.DoFn):
    """Yields a ``Clip``, ``TarredClip`` or ``WebDatasetTar`` for each valid row; counts the rows.

    Args:
        tars: the tars of a NeMo tarred data set by their numbers, if that is the input.
        grouped: whether to yield pairs of a group of `row_ids` and the work.
        routing: which model takes which row.
    """

    def __init__(
        self,
        filepath_key: str,
        channel_key: str,
        tars: Mapping[int, str] | None,
        grouped: bool,
        routing: Routing,
    ):
        self._filepath_key = filepath_key
        self._channel_key = channel_key
        self._tars = tars
        self._grouped = grouped
        self._routing = routing

    def start_bundle(self) -> None:
        self._statistics: dict[BoundedWindow, Statistics] = defaultdict(Statistics)
        self._inputs: dict[BoundedWindow, set[str]] = defaultdict(set)
        self._timestamps: dict[BoundedWindow, Any] = {}

    def process(
        self,
        element: Row | Record | WebDatasetTar,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        statistics = self._statistics[window]
        self._timestamps.setdefault(window, timestamp)
        if isinstance(element, WebDatasetTar):  # its rows are counted as it is read
            statistics.tars += 1
            self._inputs[window].add(element.file)
            group = row_ids.group_of_text("tar", element.file) if self._grouped else ""
            yield self._work(element, group, statistics)
            return
        statistics.rows_in += 1
        row = element if isinstance(element, Row) else _to_row(element)
        if not isinstance(window, GlobalWindow):
            self._inputs[window].add(row.manifest or _audio_file(row, self._filepath_key))
        try:
            item, place = self._item(row)
            group = row_ids.group_of(row.fields, place) if self._grouped else ""
            yield self._work(item, group, statistics)
        except ManifestError as error:
            statistics.rows_invalid += 1
            _add_to_digest(row_ids.group_of_text(row.line, row.problem), statistics)
            failure = Failure(row, error_of(row, error))
            statistics.example_invalid = failure.error["message"]
            yield TaggedOutput("failures", failure)

    def finish_bundle(self) -> Iterator[Any]:
        for window, statistics in self._statistics.items():
            if not isinstance(window, GlobalWindow):
                statistics.inputs = frozenset(self._inputs[window] - {""})
            timestamp = self._timestamps[window]
            yield from at_window([TaggedOutput("statistics", statistics)], window, timestamp)

    def _item(self, row: Row) -> tuple[Clip | TarredClip, str]:
        """Returns a row as a unit of work, and where its audio is."""
        clip = parsing.parse(
            row, self._filepath_key, in_tar=self._tars is not None, channel_key=self._channel_key
        )
        if self._routing.is_multi_model:
            clip = clip._replace(route=self._routing.route_index(row.fields))
        if self._tars is None:
            return clip, clip.audio
        number = nemo_tarred.tar_number(row, self._tars)
        return TarredClip(number, clip), f"{self._tars[number]}: {clip.audio}"

    def _work(
        self, item: Clip | TarredClip | WebDatasetTar, group: str, statistics: Statistics
    ) -> Any:
        if not self._grouped:
            return item
        _add_to_digest(group, statistics)
        return group, item


class AssignRowIds(beam.DoFn):
    """Yields the work of each group, with ids, and the results of what an earlier run has done.

    Takes a group and, in any order, its work and the outcomes of some of it.
    """

    def __init__(self, context: JobContext):
        self._context = context

    def start_bundle(self) -> None:
        self._statistics = Statistics()

    def process(
        self,
        grouped: tuple[str, Iterable[Clip | TarredClip | WebDatasetTar | Outcome]],
        start: JobStart,  # noqa: ARG002  (the journal is this run's before work starts)
    ) -> Iterator[Any]:
        group, values = grouped
        work: list[Clip | TarredClip | WebDatasetTar] = []
        done: dict[str, Outcome] = {}
        for value in values:
            if not isinstance(value, Outcome):
                work.append(value)
            elif value.row_id not in done or done[value.row_id].failed:
                done[value.row_id] = value
        if not work:
            output = "" if self._context.journal is None else self._context.journal.output
            raise ResumeError(f"the journal in {output!r} holds rows that are not among the input")
        for number, item in enumerate(work):
            row_id = row_ids.id_of(group, number)
            if isinstance(item, WebDatasetTar):
                yield item._replace(id=row_id, done=done)
                continue
            clip = item.clip if isinstance(item, TarredClip) else item
            clip = clip._replace(row=clip.row.with_id(row_id))
            outcome = done.get(row_id)
            if outcome is not None:
                for event in self._context.row_resumed(clip.row, outcome):
                    self._statistics += row_statistics(event)
                    resumed = output_of(event, self._context, clip.route)
                    if resumed is not None:
                        yield resumed
            if isinstance(item, TarredClip):
                yield TarredClip(item.number, clip, done=outcome is not None)
            elif outcome is None:
                yield clip

    def finish_bundle(self) -> Iterator[Any]:
        yield from at_window([TaggedOutput("statistics", self._statistics)], GlobalWindow())


def _add_to_digest(group: str, statistics: Statistics) -> None:
    statistics.rows_digest += row_ids.number_of_group(group)
    statistics.rows_digest %= row_ids.MODULUS


def _to_row(fields: Record) -> Row:
    try:
        return Row.of(fields)
    except ManifestError as error:
        return Row.broken(error)


def _audio_file(row: Row, filepath_key: str) -> str:
    """Returns the file that a row without a manifest stands for."""
    try:
        return str(row.fields.get(filepath_key, ""))
    except ManifestError:
        return ""
