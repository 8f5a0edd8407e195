"""Writes records as shards, with a summary and ``_SUCCESS``, as a PTransform."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, AsList, AsSingleton, PCollection

from beam_asr.errors import SetupError, TooManyFailuresError
from beam_asr.outputs import failure_limit
from beam_asr.outputs.fenced_storage import FencedStorage
from beam_asr.outputs.folder import (
    SUCCESS,
    SUMMARY,
    check_may_write,
    folder_name,
    mark_unfinished,
)
from beam_asr.outputs.formats import registry
from beam_asr.outputs.formats.base import FieldKeys, LineFormat, ShardFormat, TranscriptFormat
from beam_asr.outputs.formats.exports_index import INDEX, forget_started
from beam_asr.outputs.formats.file_names import name_key
from beam_asr.outputs.journal import Journal
from beam_asr.outputs.row_index import FinishedRun, IndexedRow, RowIndex
from beam_asr.outputs.shards import (
    EXTENSIONS,
    FAILURES,
    FILTERED,
    KINDS,
    TRANSCRIPTS,
    check_once,
    check_present,
    compressed,
    delete_stale,
    shard_count,
    shard_name,
)
from beam_asr.outputs.summary import (
    Failures,
    Outcomes,
    check_complete,
    check_kept,
    encode_readable,
    summarize,
)
from beam_asr.records.record import Record
from beam_asr.records.setting_fields import with_flags
from beam_asr.records.statistics import Statistics, total
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join
from beam_asr.transforms.results import Collections, Transcribed
from beam_asr.transforms.shard_lines import (
    LineSettings,
    PackLines,
    ShardKey,
    ShardLines,
    by_shard,
    failure_examples,
    format_line,
    in_order,
    packed,
    places,
    record_line,
    sample_order,
)
from beam_asr.transforms.write_formats import SharedNames, WriteFormats

logger = logging.getLogger(__name__)

SAMPLED_PLACES = 10_000  # which divide the input into equal shards, to a few per cent


class WriteManifest(beam.PTransform):
    """Writes records as shards of JSONL into a folder, then a summary, then ``_SUCCESS``.

    Records in windows, as of an unbounded input, are written into a folder for each window, below
    the output folder, when the window has passed.

    Takes a ``Transcribed``, of which it writes the failures too, and checks that every row ended as
    exactly one record; or any PCollection of dicts.

    Args:
        folder: the output folder, on any storage.
        overwrite: whether the results of an earlier run may be replaced.
        num_shards: the number of shards of transcripts; None chooses it by their number, and is
            one for each window.
        compression: ``gzip``, ``zstd`` or None.
        max_failure_fraction: the job fails if a larger part of the rows, and at least 100, failed.
        details: other fields of ``summary.json``.
        storage_options: for each protocol the arguments of its fsspec file system.
        journal: the run's journal, which is removed when the output is complete.
        formats: further formats of transcripts (`registry.FORMATS`): with a file for each
            transcript, for which all but ``txt`` need the times of words; or with many transcripts
            in a file.
        filepath_key: the field of the audio, for the formats.
        pred_text_key: the field of the text, for the formats.
        lang_key: the field of the language, for the formats.
        channel_key: the field of the channel, for the formats.
        tarred: whether the rows are those of a NeMo tarred data set.
        flags: settings that messages in records name as flags: ``--name``, not in backticks.
        order: ``input`` sorts records over all shards as the rows of the input; None sorts those of
            each shard that has less than 64 MiB. In windows nothing is sorted.
        absolute_paths: whether rows have the whole path of their audio, resolved as it was read;
            not if ``tarred``, nor of cuts.
        earlier_seconds: of the runs whose results are written again; None for a run that measures
            its own.

    Raises:
        OutputExistsError: when the graph is built, if the folder is not empty.
    """

    def __init__(
        self,
        folder: str,
        overwrite: bool = False,
        num_shards: int | None = None,
        compression: str | None = None,
        max_failure_fraction: float = 0.1,
        details: Record | None = None,
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
        journal: Journal | None = None,
        formats: Iterable[str] = (),
        filepath_key: str = "audio_filepath",
        pred_text_key: str = "pred_text",
        lang_key: str = "lang",
        channel_key: str = "channel",
        tarred: bool = False,
        flags: Collection[str] = (),
        order: str | None = None,
        absolute_paths: bool = False,
        earlier_seconds: float | None = None,
    ):
        super().__init__()
        requested = registry.formats_of(formats)
        self._formats = tuple(
            format.name for format in requested if isinstance(format, TranscriptFormat)
        )
        self._lines_as = LineSettings(frozenset(flags), filepath_key, absolute_paths and not tarred)
        if order not in (None, "input"):
            raise SetupError(f"order is {order!r}, but must be input, or None")
        if not 0 <= max_failure_fraction <= 1:
            raise SetupError(f"max_failure_fraction is {max_failure_fraction}, not within 0 and 1")
        if tarred:
            registry.check_tarred(requested)
        if num_shards is not None and num_shards < 1:
            raise SetupError(f"num_shards is {num_shards}, but must be at least 1")
        if compression not in EXTENSIONS:
            raise SetupError(f"compression is {compression!r}, but must be gzip or zstd")
        self._overwrite = overwrite
        self._max_failure_fraction = max_failure_fraction
        self._details = details or {}
        self._earlier_seconds = earlier_seconds
        self._target = OutputTarget(
            folder,
            _storage_of(Storage(storage_options or {}), journal),
            num_shards,
            compression,
            journal,
            tuple(format.name for format in requested if not isinstance(format, TranscriptFormat)),
            FieldKeys(filepath_key, pred_text_key, lang_key, channel_key),
            tarred,
            flags=self._lines_as.flags,
            in_order=order == "input",
            has_exports=bool(self._formats),
        )

    def expand(self, records: Transcribed | PCollection[Record]) -> PCollection[Record]:
        parts = records.typed if isinstance(records, Transcribed) else _all_transcribed(records)
        if not parts.transcripts.windowing.is_default():
            return self._by_window(parts)
        target = self._target
        resume = target.journal is not None and target.journal.resume
        check_may_write(
            target.storage, target.folder, self._overwrite, resume, append=target.part > 0
        )
        started = time.time()
        start = parts.transcripts.pipeline | "Start" >> beam.Create([target])
        # A run that fails before it has a journal then leaves an earlier one's results finished.
        sums = AsSingleton(parts.statistics | "SumStatistics" >> beam.CombineGlobally(total))
        ready = start | "Withdraw" >> beam.Map(_mark_unfinished, journaled=sums)
        exported = self._write_exports(parts, target, ready)
        packed = [
            lines | f"Pack{number}" >> beam.ParDo(PackLines()).with_outputs("counts", main="packs")
            for number, lines in enumerate(self._lines(exported))
        ]
        counts = [outputs.counts for outputs in packed] | "Counts" >> beam.Flatten()
        counts |= "CountKinds" >> beam.CombinePerKey(sum)
        packs = [outputs.packs for outputs in packed] | "Lines" >> beam.Flatten()
        samples = {"samples": AsDict(_sample(packs))} if target.in_order else {}
        written = (
            packs
            | "Shard" >> beam.FlatMap(by_shard, target.num_shards, AsDict(counts), **samples)
            | "ByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard, target, ready=AsIter(ready))
        )
        return start | "Finish" >> beam.Map(
            _finish,
            started,
            self._earlier_seconds,
            self._max_failure_fraction,
            self._details,
            statistics=sums,
            shards=AsList(written),
        )

    def _write_exports(
        self, records: Collections, target: OutputTarget, ready: PCollection[Any] | None = None
    ) -> Collections:
        """Returns the records, once the files of their transcripts are written.

        Args:
            ready: waits until the files of an earlier run are deleted; None in windows.
        """
        if not self._formats:
            return records
        shared: dict[str, Any] = {}
        if ready is not None:
            taken = ready | "TakenNames" >> beam.FlatMap(_taken_names, self._formats)
            names = records.transcripts | "SharedNames" >> SharedNames(taken, target.keys)
            shared = {"shared": AsSingleton(names)}
        export = WriteFormats(target.storage, target.folder_of, self._formats, target.keys)
        written = records.transcripts | "WriteExports" >> beam.ParDo(export, **shared)
        return records._replace(transcripts=written)

    def _lines(self, records: Collections) -> list[PCollection[Any]]:
        """Returns the lines with their kinds, for each kind of record."""
        lines = [
            records.transcripts
            | "Transcripts" >> beam.Map(record_line, TRANSCRIPTS, self._lines_as),
            records.failures | "Failures" >> beam.Map(record_line, FAILURES, self._lines_as),
            records.filtered | "Filtered" >> beam.Map(record_line, FILTERED, self._lines_as),
        ]
        target = self._target
        for format in target.line_formats:
            arguments = (format.name, target.keys, target.tarred)
            lines.append(
                records.transcripts
                | f"Lines_{format.name}" >> beam.Map(format_line, *arguments, True)
            )
            if target.tarred:  # NeMo needs an entry for each file in a tar
                others = (
                    records.failures,
                    records.filtered,
                ) | f"Others_{format.name}" >> beam.Flatten()
                lines.append(
                    others | f"NoLines_{format.name}" >> beam.Map(format_line, *arguments, False)
                )
        return lines

    def _by_window(self, records: Collections) -> PCollection[Record]:
        target = self._target._replace(run=uuid.uuid4().hex)
        # A window's side inputs may be read before they are complete, so the number of its shards
        # cannot depend on the number of its records.
        shards = self._target.num_shards or 1
        written = (
            self._lines(self._write_exports(records, target))
            | "Lines" >> beam.Flatten()
            | "Packs" >> beam.MapTuple(lambda kind, line: (kind, packed([line])))
            | "Shard"
            >> beam.FlatMap(
                by_shard, shards, {(kind, None): 1 for kind in (*KINDS, *target.formats)}
            )
            | "ByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard_of_window, target)
        )
        sums = (
            records.statistics | "SumStatistics" >> beam.CombineGlobally(total).without_defaults()
        )
        # Grouping makes both complete, once for each window.
        return (
            {
                "statistics": sums | "OneStatistics" >> beam.Map(lambda sums: ("", sums)),
                "shards": written | "OneShards" >> beam.Map(lambda shard: ("", shard)),
            }
            | "OfWindow" >> beam.CoGroupByKey()
            | "Finish"
            >> beam.Map(_finish_window, target, self._max_failure_fraction, self._details)
        )


def _sample(packs: PCollection[Any]) -> PCollection[Any]:
    """Returns the places of a sample of the records, by their kinds."""
    return (
        packs
        | "Records" >> beam.Filter(lambda pack: pack[0][0] in KINDS)
        | "Places" >> beam.FlatMap(places)
        | "Sample" >> beam.combiners.Top.PerKey(SAMPLED_PLACES, key=sample_order, reverse=True)
    )


def _storage_of(storage: Storage, journal: Journal | None) -> Storage:
    """Returns the storage of the output, which a run that has lost the folder cannot change."""
    if journal is None or journal.lock is None:
        return storage
    return FencedStorage.of(storage, journal.check_owner)


def _all_transcribed(records: PCollection[Record]) -> Collections:
    none = records | "None" >> beam.Filter(lambda _: False)
    counted = records | "CountRows" >> beam.Map(lambda _: Statistics(rows_in=1))
    return Collections(records, none, counted, none)


class OutputTarget(NamedTuple):
    """Holds where and how records are written.

    Attributes:
        formats: names of the formats with many transcripts in a file.
        keys: the fields of the audio, the text and the language.
        tarred: whether the rows are those of a NeMo tarred data set.
        run: the id of the run if the input is unbounded, with a folder for each window; else empty.
        flags: settings that messages name as flags.
        in_order: whether the shards together have the order of the input.
        has_exports: whether each transcript has files of its own.
    """

    folder: str
    storage: Storage
    num_shards: int | None
    compression: str | None
    journal: Journal | None
    formats: tuple[str, ...]
    keys: FieldKeys
    tarred: bool
    run: str = ""
    flags: frozenset[str] = frozenset()
    in_order: bool = False
    has_exports: bool = False

    def folder_of(self, window: Any) -> str:
        if not self.run:
            return self.folder
        return join(self.folder, folder_name(float(window.start), self.run))

    def for_window(self, window: Any) -> OutputTarget:
        return self._replace(folder=self.folder_of(window))

    @property
    def line_formats(self) -> list[LineFormat]:
        """Returns the formats that are `LineFormat`."""
        formats = registry.formats_of(self.formats)
        return [format for format in formats if isinstance(format, LineFormat)]

    @property
    def shard_formats(self) -> list[ShardFormat]:
        """Returns the formats that are `ShardFormat`, and the index if there are exports."""
        formats = registry.formats_of(self.formats)
        index = [INDEX] if self.has_exports else []
        return [format for format in formats if isinstance(format, ShardFormat)] + index

    @property
    def part(self) -> int:
        """Returns the number of the run, of those that append; 0 for the first."""
        return 0 if self.journal is None else self.journal.part

    @property
    def row_index(self) -> RowIndex:
        """Returns the index of the rows, of which only a run with a journal has the ids."""
        return RowIndex(self.folder, self.storage, self.part)

    def check(self) -> None:
        """Raises FolderTakenError if another job has taken the folder over."""
        if self.journal is not None:
            self.journal.check_owner()

    def beside(self, shards: int) -> Iterator[str]:
        """Yields the paths of the files that are written with the shards of transcripts."""
        for format in self.shard_formats:
            yield from (format.path(number, shards, self.part) for number in range(shards))

    def write_shard(self, shard: ShardKey, lines: Iterable[bytes]) -> str:
        """Writes a shard, from lines that can be iterated more than once; returns its name."""
        kind, number, shards = shard
        for format in self.line_formats:
            if kind == format.name:
                if shards is None:
                    name = format.path_of_tar(number)
                else:
                    name = format.path(number, shards, self.part)
                # In a tarred data set, a record without a tar has no line.
                if shards is None or not self.tarred:
                    self.storage.write(join(self.folder, name), format.encode_lines(lines))
                return name
        assert shards is not None  # only lines of formats go by tars
        name = shard_name(kind, number, shards, self.compression, self.part)
        self.storage.write(join(self.folder, name), compressed(lines, self.compression))
        if kind == TRANSCRIPTS:
            for shard_format in self.shard_formats:
                path = join(self.folder, shard_format.path(number, shards, self.part))
                self.storage.write(path, shard_format.encode_shard(lines, self.keys))
        return name


class _Shard(NamedTuple):
    """Describes a written shard.

    Attributes:
        kind: as in `ShardKey`.
        name: its path, relative to the folder.
        records: the number of its records by reason: the type of a failure's error, the ``by`` of a
            filtered row, why a format omits a record, and "" where there is no reason.
        examples: a failure's message, by the type of its error.
    """

    kind: str
    name: str
    records: Counter[str]
    examples: dict[str, str]


def _write_shard(
    keyed: tuple[tuple[str, int, int | None], Iterable[bytes]],
    target: OutputTarget,
    ready: Iterable[OutputTarget],
) -> _Shard:
    key, lines = ShardKey(*keyed[0]), ShardLines(keyed[1])
    list(ready)  # waits until the folder is marked as unfinished, before a file is replaced
    if not target.run:
        lines = in_order(lines, always=target.in_order)
    written = Counter(entry[0] for entry in lines.entries())
    examples = failure_examples(lines.entries()) if key.kind == FAILURES else {}
    name = target.write_shard(key, lines)
    if target.journal is not None and key.kind in KINDS:
        rows = (
            IndexedRow.of(row_id, line, why, seconds)
            for why, line, row_id, _, seconds in lines.entries()
        )
        target.row_index.write_rows(name, rows)
    return _Shard(key.kind, name, written, examples)


def _write_shard_of_window(
    keyed: tuple[tuple[str, int, int | None], Iterable[bytes]],
    target: OutputTarget,
    window: Any = beam.DoFn.WindowParam,
) -> _Shard:
    return _write_shard(keyed, target.for_window(window), [])


def _mark_unfinished(
    target: OutputTarget,
    journaled: Statistics,  # noqa: ARG001  (the journal exists, so the run can be resumed)
) -> OutputTarget:
    mark_unfinished(target.storage, target.folder)
    target.row_index.clear()
    registry.delete_stale(target.storage, target.folder, target.part)
    return target


def _taken_names(target: OutputTarget, formats: tuple[str, ...]) -> Iterator[int]:
    """Yields the keys of the names of files that are not this run's."""
    return map(name_key, registry.names_taken(target.storage, target.folder, formats))


def _finish(
    target: OutputTarget,
    started: float,
    earlier_seconds: float | None,
    max_failure_fraction: float,
    details: Record,
    statistics: Statistics,
    shards: list[_Shard],
) -> Record:
    target.check()
    storage, folder = target.storage, target.folder
    wall_seconds = time.time() - started if earlier_seconds is None else earlier_seconds
    summary, outcomes = _complete(target, wall_seconds, details, statistics, shards)
    failure_limit.check_failures(outcomes.records, outcomes.failures, max_failure_fraction)
    check_kept(statistics, outcomes.transcribed, resumable=earlier_seconds is None)
    if target.journal is not None:
        target.row_index.drop_redone_failures()
    if target.has_exports:
        forget_started(storage, folder)
    storage.write(join(folder, SUCCESS), [])
    if target.journal is not None:
        target.journal.remove()
    return summary


def _finish_window(
    keyed: tuple[str, dict[str, Iterable[Any]]],
    target: OutputTarget,
    max_failure_fraction: float,
    details: Record,
    window: Any = beam.DoFn.WindowParam,
) -> Record:
    target = target.for_window(window)
    (statistics,), shards = keyed[1]["statistics"], list(keyed[1]["shards"])
    summary, outcomes = _complete(target, None, details, statistics, shards)
    for warning in summary["warnings"]:
        logger.warning("%s: %s", target.folder, warning)
    try:
        failure_limit.check_failures(
            outcomes.records, outcomes.failures, max_failure_fraction, all_may_fail=True
        )
    except TooManyFailuresError as error:
        # The runner would retry an error for ever, and delay the next windows.
        logger.error("%s is left without %s: %s", target.folder, SUCCESS, error)
        return summary
    target.storage.write(join(target.folder, SUCCESS), [])
    return summary


def _complete(
    target: OutputTarget,
    wall_seconds: float | None,
    details: Record,
    statistics: Statistics,
    shards: list[_Shard],
) -> tuple[Record, Outcomes]:
    """Completes the folder except for its marker; returns the summary, and all its outcomes."""
    storage, folder = target.storage, target.folder
    outcomes = _outcomes(shards)
    check_complete(statistics, outcomes)
    check_once(folder, [shard.name for shard in shards])
    names = {shard.name for shard in shards if shard.kind in KINDS}
    # There are as many files as requested, if need be empty ones. A run that appends needs none.
    count = shard_count(TRANSCRIPTS, outcomes.transcribed, target.num_shards)
    if target.part and not outcomes.transcribed:
        count = 0
    for number in range(count):
        if shard_name(TRANSCRIPTS, number, count, target.compression, target.part) not in names:
            name = target.write_shard(ShardKey(TRANSCRIPTS, number, count), [])
            names.add(name)
            if target.journal is not None:
                target.row_index.write_rows(name, [])
    delete_stale(storage, folder, names, target.part)
    names.update(target.beside(count))
    lines: dict[str, Counter[str]] = {}
    for format in target.line_formats:
        format_shards = [shard for shard in shards if shard.kind == format.name]
        written = {shard.name for shard in format_shards}
        if written or not target.part:
            format.finish(storage, folder, written, target.tarred, statistics.tars_without_rows)
        names.update(written if not target.tarred else ())  # of which some have no lines
        reasons = sum((shard.records for shard in format_shards), Counter[str]())
        lines[format.name] = format.counted(reasons)
    check_present(storage, folder, names)
    if target.journal is not None:
        run = FinishedRun(
            target.journal.stored(), details, statistics, outcomes, wall_seconds or 0.0, lines
        )
        run = target.row_index.add(run)
        statistics, outcomes, wall_seconds = run.statistics, run.outcomes, run.wall_seconds
        lines = dict(run.lines)
        if target.journal.lock is not None:
            details = {"run": target.journal.lock.run, "appended": target.part, **details}
    details = {**details, **{name: _line_counts(counts) for name, counts in lines.items()}}
    summary = summarize(statistics, outcomes, wall_seconds, details)
    summary["warnings"] = [with_flags(text, target.flags) for text in summary["warnings"]]
    storage.write(join(folder, SUMMARY), [encode_readable(summary)])
    return summary, outcomes


def _line_counts(counts: Counter[str]) -> Record:
    """Returns what the summary says of the lines of a format."""
    left_out = {why: count for why, count in sorted(counts.items()) if why}
    return {"rows": counts[""], "left_out": left_out}


def _outcomes(shards: list[_Shard]) -> Outcomes:
    """Returns the sums over the shards of the job's own kinds."""
    failures = Failures()
    for shard in shards:
        if shard.kind == FAILURES:
            failures.add(shard.records, shard.examples)
    return Outcomes(
        sum(shard.records.total() for shard in shards if shard.kind == TRANSCRIPTS),
        failures,
        sum((shard.records for shard in shards if shard.kind == FILTERED), Counter()),
    )
