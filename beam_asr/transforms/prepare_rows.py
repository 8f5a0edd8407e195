"""Prepares the work: checks rows, assigns their ids, and omits what an earlier run has done."""

from __future__ import annotations

import collections
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.transforms.window import BoundedWindow, GlobalWindow

from beam_asr.errors import ManifestError
from beam_asr.inputs import nemo_tarred
from beam_asr.models.routing import Routing
from beam_asr.outputs.journal import Journal
from beam_asr.outputs.progress import Counts
from beam_asr.outputs.shards import FAILURES
from beam_asr.records import parsing, row_ids
from beam_asr.records.events import FoundInFolder
from beam_asr.records.outcome import Outcome
from beam_asr.records.record import Failure, Record, error_of
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics, total
from beam_asr.records.work import Clip, TarredClip, WebDatasetTar, is_part
from beam_asr.storage import same_files
from beam_asr.transforms.bundles import at_window
from beam_asr.transforms.job_context import JobContext
from beam_asr.transforms.packing import PackedGroupByKey
from beam_asr.transforms.results import count_row, output_of

_GLOBAL = GlobalWindow()


REPORTED_ROWS = 100  # that were done already, at a time, for the progress of the job


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

    def process(self, element: Row | Record | WebDatasetTar) -> Iterator[Any]:
        # Beam takes longer to pass a window and a timestamp than the row takes to be parsed.
        return self._check(element, self._statistics[_GLOBAL])

    def finish_bundle(self) -> Iterator[Any]:
        for window, statistics in self._statistics.items():
            if not isinstance(window, GlobalWindow):
                statistics.inputs = frozenset(self._inputs[window] - {""})
            timestamp = self._timestamps.get(window)
            yield from at_window([TaggedOutput("statistics", statistics)], window, timestamp)

    def _check(
        self, element: Row | Record | WebDatasetTar, statistics: Statistics
    ) -> Iterator[Any]:
        if isinstance(element, WebDatasetTar):  # its rows are counted as it is read
            statistics.tars += 1
            group = row_ids.group_of_text("tar", element.file) if self._grouped else ""
            yield self._work(element, group, statistics)
            return
        statistics.rows_in += 1
        row = element if isinstance(element, Row) else _to_row(element)
        try:
            item, place = self._item(row)
            group = row_ids.group_of(row.fields, place) if self._grouped else ""
            yield self._work(item, group, statistics)
        except ManifestError as error:
            statistics.rows_invalid += 1
            group = row_ids.group_of_text(row.line, row.problem)
            _add_to_digest(group, statistics)
            failure = Failure(row.with_id(group), error_of(row, error))
            statistics.example_invalid = failure.error["message"]
            yield TaggedOutput("failures", failure)

    def group_of(self, element: Row | Record | WebDatasetTar) -> str:
        """Returns the group of `row_ids` that an element has."""
        if isinstance(element, WebDatasetTar):
            return row_ids.group_of_text("tar", element.file)
        row = element if isinstance(element, Row) else _to_row(element)
        try:
            return row_ids.group_of(row.fields, self._item(row)[1])
        except ManifestError:
            return row_ids.group_of_text(row.line, row.problem)

    def _item(self, row: Row) -> tuple[Clip | TarredClip, str]:
        """Returns a row as a unit of work, and where its audio is."""
        clip = parsing.parse(
            row, self._filepath_key, in_tar=self._tars is not None, channel_key=self._channel_key
        )
        if self._routing.is_multi_model:
            clip = clip._replace(route=self._routing.route_index(row.fields))
        if self._tars is None:
            # A manifest may be named in several ways, on a disk by a relative path as well.
            return clip, same_files.place_of(clip.audio)
        number = nemo_tarred.tar_number(row, self._tars)
        return TarredClip(number, clip), f"{self._tars[number]}: {clip.audio}"

    def _work(
        self, item: Clip | TarredClip | WebDatasetTar, group: str, statistics: Statistics
    ) -> Any:
        if not self._grouped:
            return item
        _add_to_digest(group, statistics)
        return group, _to_plain(item)


class CheckWindowedRows(CheckRows):
    """Checks rows in windows, or without an end: each window has its own sums and inputs."""

    def process(
        self,
        element: Row | Record | WebDatasetTar,
        window: Any = beam.DoFn.WindowParam,
        timestamp: Any = beam.DoFn.TimestampParam,
    ) -> Iterator[Any]:
        self._timestamps.setdefault(window, timestamp)
        if not isinstance(window, GlobalWindow):
            self._inputs[window].add(_input_of(element, self._filepath_key))
        return self._check(element, self._statistics[window])


def sum_rows(check: CheckRows, rows: Iterable[Row | WebDatasetTar]) -> Statistics:
    """Returns the sums over rows that are checked in this process, outside of a pipeline."""
    check.start_bundle()
    for row in rows:
        collections.deque(check.process(row), maxlen=0)
    return total(placed.value.value for placed in check.finish_bundle())


def rows_identity(statistics: Statistics) -> dict[str, Any]:
    """Returns what a journal says of the rows of its run, by the sums over them."""
    return {"rows": statistics.rows_in, "rows_digest": f"{statistics.rows_digest:x}"}


def group_equal_rows(work: PCollection[Any], journal: Journal) -> PCollection[Any]:
    """Groups equal rows, with their outcomes in an earlier run, and with what the folder has.

    Returns dicts of what belongs to each of some groups.
    """
    inputs = [work]
    if journal.resume:
        done = (
            work.pipeline
            | "Journal" >> beam.Create([journal])
            | "FindWindows" >> beam.FlatMap(Journal.names)
            | "SpreadWindows" >> beam.Reshuffle()
            | "ReadWindows" >> beam.FlatMap(_outcomes, journal)
        )
        inputs.append(done)
    if journal.part:
        in_folder = (
            work.pipeline
            | "Index" >> beam.Create([journal])
            | "FindIndexed" >> beam.FlatMap(_indexed_shards)
            | "SpreadIndexed" >> beam.Reshuffle()
            | "ReadIndexed" >> beam.FlatMap(_rows_in_folder, journal)
        )
        inputs.append(in_folder)
    return tuple(inputs) | "Group" >> PackedGroupByKey()


def _outcomes(name: str, journal: Journal) -> Iterator[tuple[str, Outcome]]:
    for outcome in journal.read(name):
        if is_part(outcome.row_id):  # looked up when its row is planned again
            continue
        if not (outcome.failed and journal.retry_failures):
            yield row_ids.group_of_id(outcome.row_id), _to_plain(outcome)


def _indexed_shards(journal: Journal) -> list[tuple[int, str]]:
    return journal.row_index.row_files()


def _rows_in_folder(shard: tuple[int, str], journal: Journal) -> Iterator[tuple[str, str]]:
    """Yields the ids of a shard's rows that need not be done again, by their groups."""
    part, name = shard
    if name.startswith(FAILURES) and journal.retry_failures:
        return
    for row in journal.row_index.rows(part, name):
        if row.row_id:
            row_id = row_ids.without_channel(row.row_id)
            yield row_ids.group_of_id(row_id), row_id


class AssignRowIds(beam.DoFn):
    """Yields the work of each group, with ids, and the results of what an earlier run has done.

    Takes dicts of some groups and, in any order, what belongs to each: its work, the outcomes of
    some of it, and the ids of rows of it that the output folder has already; these have no record
    again.
    """

    def __init__(self, context: JobContext):
        self._context = context

    def start_bundle(self) -> None:
        self._statistics = Statistics()
        self._counts = Counts()

    def process(
        self,
        groups: Mapping[str, list[Any]],
        start: JobStart,  # noqa: ARG002  (the journal is this run's before work starts)
    ) -> Iterator[Any]:
        for group, values in groups.items():
            yield from self._assign(group, map(_from_plain, values))
            if self._counts.rows >= REPORTED_ROWS:
                self._report()

    def _assign(
        self, group: str, values: Iterable[Clip | TarredClip | WebDatasetTar | Outcome | str]
    ) -> Iterator[Any]:
        work: list[Clip | TarredClip | WebDatasetTar] = []
        done: dict[str, Outcome] = {}
        in_folder: set[str] = set()
        for value in values:
            if isinstance(value, str):
                in_folder.add(value)
            elif not isinstance(value, Outcome):
                work.append(value)
            elif value.row_id not in done or done[value.row_id].failed:
                done[value.row_id] = value
        # The input may have changed since the earlier run, whose outcomes are then not used.
        ids = {row_ids.id_of(group, number) for number in range(len(work))}
        is_tar = any(isinstance(item, WebDatasetTar) for item in work)
        if not is_tar:  # whose rows are known only as it is read
            self._statistics.resumed_not_in_input += len(done.keys() - ids)
        for number, item in enumerate(work):
            row_id = row_ids.id_of(group, number)
            if isinstance(item, WebDatasetTar):
                there = dict.fromkeys(in_folder)
                yield item._replace(id=row_id, done={**done, **there})
                continue
            clip = item.clip if isinstance(item, TarredClip) else item
            row = clip.row.with_id(row_id)
            outcome = done.get(row_id)
            if row_id in in_folder:
                self._statistics.rows_in_folder += 1
                self._counts.add(FoundInFolder())
            elif outcome is not None:
                for event in self._context.row_resumed(row, outcome):
                    count_row(event, self._statistics)
                    self._counts.add(event)
                    resumed = output_of(event, self._context, clip.route)
                    if resumed is not None:
                        yield resumed
            is_done = outcome is not None or row_id in in_folder
            if isinstance(item, TarredClip):
                yield TarredClip(item.number, clip._replace(row=row), is_done)
            elif not is_done:
                yield clip._replace(row=row)

    def finish_bundle(self) -> Iterator[Any]:
        self._report()
        yield from at_window([TaggedOutput("statistics", self._statistics)], GlobalWindow())

    def _report(self) -> None:
        self._context.report(self._counts)
        self._counts = Counts()


def _to_plain(value: Clip | TarredClip | WebDatasetTar | Outcome) -> Any:
    """Returns a value as a tuple of plain ones, which takes a third of the time to be pickled.

    Only what there are many of, in all inputs: checked clips and outcomes.
    """
    if isinstance(value, Clip):
        row = value.row
        place = (row.line, row.manifest, row.line_number, row.input_number)
        return (*place, value.audio, value.offset, value.duration, value.channel, value.route)
    return tuple(value) if isinstance(value, Outcome) else value


def _from_plain(value: Any) -> Clip | TarredClip | WebDatasetTar | Outcome | str:
    """Returns the value that `_to_plain` made a tuple."""
    if type(value) is not tuple:
        return value
    if len(value) == len(Outcome._fields):
        return Outcome._make(value)
    line, manifest, line_number, number, audio, offset, duration, channel, route = value
    row = Row(line, manifest, line_number, input_number=number)
    return Clip(row, audio, offset, duration, channel, route=route)


def _add_to_digest(group: str, statistics: Statistics) -> None:
    statistics.rows_digest += row_ids.number_of_group(group)
    statistics.rows_digest %= row_ids.MODULUS


def _to_row(fields: Record) -> Row:
    try:
        return Row.of(fields)
    except ManifestError as error:
        return Row.broken(error)


def _input_of(element: Row | Record | WebDatasetTar, filepath_key: str) -> str:
    """Returns the file that an element comes from, or that it stands for; empty if it has none."""
    if isinstance(element, WebDatasetTar):
        return element.file
    if isinstance(element, Row) and element.manifest:
        return element.manifest
    try:
        fields = element.fields if isinstance(element, Row) else element
        return str(fields.get(filepath_key, ""))
    except ManifestError:
        return ""
