"""Records to shards, a summary and ``_SUCCESS``: a PTransform."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, AsList, AsSingleton, PCollection

from beam_asr.errors import SetupError, TooManyFailuresError, with_flags
from beam_asr.outputs import failure_limit
from beam_asr.outputs import folder as output
from beam_asr.outputs.folder import folder_name
from beam_asr.outputs.formats import pseudo_labels, registry, shard_files
from beam_asr.outputs.journal import Journal
from beam_asr.outputs.shards import (
    EXTENSIONS,
    FAILURES,
    FILTERED,
    TRANSCRIPTS,
    compressed,
    delete_stale,
    encode,
    shard_count,
    shard_name,
    shard_of,
)
from beam_asr.outputs.summary import check_complete, encode_readable, summarize
from beam_asr.records.record import Envelope, Record, to_record, with_duration
from beam_asr.records.statistics import Statistics, total
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join
from beam_asr.transforms import write_formats
from beam_asr.transforms.results import Collections, Transcribed
from beam_asr.transforms.write_formats import WriteFormats

logger = logging.getLogger(__name__)

LABELS = "labels"
KINDS = (TRANSCRIPTS, FAILURES, FILTERED, LABELS)


class WriteManifest(beam.PTransform):
    """Writes records as shards of JSONL into a folder, then a summary, then ``_SUCCESS``.

    Records in windows of time, as of an input without an end, are written into a folder for each
    window, below it, when the window has passed.

    Takes the ``Transcribed`` of ``Transcribe``, of which it writes the failures too and checks that
    every row has ended as exactly one record; or any PCollection of dicts.

    Args:
        folder: the output folder, on any storage.
        overwrite: whether the results of an earlier run there may be replaced.
        num_shards: how many shards of transcripts to write; None goes by their number, and is one
            for each window of time.
        compression: ``gzip``, ``zstd`` or None.
        max_failure_fraction: the job fails if a larger part of the rows, and at least 100, failed.
        details: what else is to stand in ``summary.json``.
        storage_options: for each protocol what its fsspec file system is opened with.
        journal: of the run, which is removed when the output is whole.
        formats: in which each transcript is also written to a file of its own
            (`registry.FORMATS`), of which all but ``txt`` need the times of words; or all of them
            (`shard_files`), for which a row that does not say its ``duration`` gets the measured
            one.
        filepath_key: the field of the audio, for them.
        pred_text_key: the field of the text, for them.
        lang_key: the field of the language, for them.
        tarred: whether the rows are those of a tarred data set of NeMo's.
        flags: settings that messages in records name as flags, as ``--name`` and not in backticks.

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
        tarred: bool = False,
        flags: Collection[str] = (),
    ):
        super().__init__()
        asked = tuple(dict.fromkeys(formats))
        known = (*registry.FORMATS, *shard_files.FORMATS)
        for each in asked:
            if each not in known:
                raise SetupError(f"formats has {each!r}, which is none of {', '.join(known)}")
        self._formats = tuple(each for each in asked if each in registry.FORMATS)
        self._labels = shard_files.NEMO in asked
        self._durations = any(each in shard_files.FORMATS for each in asked)
        self._tarred = tarred
        self._flags = frozenset(flags)
        if not 0 <= max_failure_fraction <= 1:
            raise SetupError(f"max_failure_fraction is {max_failure_fraction}, not within 0 and 1")
        if num_shards is not None and num_shards < 1:
            raise SetupError(f"num_shards is {num_shards}, but must be at least 1")
        if compression not in EXTENSIONS:
            raise SetupError(f"compression is {compression!r}, but must be gzip or zstd")
        self._overwrite = overwrite
        self._max_failure_fraction = max_failure_fraction
        self._details = details or {}
        self._keys = (filepath_key, pred_text_key)
        self._target = OutputTarget(
            folder,
            Storage(storage_options or {}),
            num_shards,
            compression,
            journal,
            tuple(each for each in asked if each in shard_files.FORMATS),
            (filepath_key, pred_text_key, lang_key),
            tarred,
        )

    def expand(self, records: Transcribed | PCollection[Record]) -> PCollection[Record]:
        parts = records.typed if isinstance(records, Transcribed) else _all_transcribed(records)
        if not parts.transcripts.windowing.is_default():
            return self._by_window(parts)
        target = self._target
        resume = target.journal is not None and target.journal.resume
        output.check_may_write(target.storage, target.folder, self._overwrite, resume)
        started = time.time()
        start = parts.transcripts.pipeline | "Start" >> beam.Create([target])
        ready = start | "Withdraw" >> beam.Map(_withdraw)
        lines = self._lines(self._exported(parts, target, ready=AsIter(ready)))
        counts = lines | "Kinds" >> beam.Keys() | "CountKinds" >> beam.combiners.Count.PerElement()
        written = (
            lines
            | "Shard" >> beam.Map(_by_shard, target.num_shards, AsDict(counts))
            | "ByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard, target, ready=AsIter(ready))
        )
        return start | "Finish" >> beam.Map(
            _finish,
            started,
            self._max_failure_fraction,
            self._details,
            statistics=AsSingleton(
                parts.statistics | "SumStatistics" >> beam.CombineGlobally(total)
            ),
            shards=AsList(written),
        )

    def _exported(self, records: Collections, target: OutputTarget, **after: Any) -> Collections:
        """The records, when the files of their transcripts are written."""
        if not self._formats:
            return records
        export = WriteFormats(
            target.storage, target.folder_of, self._formats, *self._keys, durations=self._durations
        )
        written = records.transcripts | "WriteExports" >> beam.ParDo(export, **after)
        return records._replace(transcripts=written)

    def _lines(self, records: Collections) -> PCollection[Any]:
        lines = [
            records.transcripts
            | "Transcripts" >> beam.Map(_line, TRANSCRIPTS, self._flags, self._durations),
            records.failures | "Failures" >> beam.Map(_line, FAILURES, self._flags),
            records.filtered | "Filtered" >> beam.Map(_line, FILTERED, self._flags),
        ]
        if self._labels:
            how = (*self._keys, self._tarred)
            lines.append(records.transcripts | "Labels" >> beam.Map(_label, *how))
            if self._tarred:  # of each file in a tar NeMo wants to know something
                others = (records.failures, records.filtered) | "Others" >> beam.Flatten()
                lines.append(others | "NoLabels" >> beam.Map(_label, *how, recognized=False))
        return lines | "Lines" >> beam.Flatten()

    def _by_window(self, records: Collections) -> PCollection[Record]:
        target = self._target._replace(run=uuid.uuid4().hex)
        # A window's side inputs may be read before they are whole, so its shards follow from no
        # count of its records.
        shards = self._target.num_shards or 1
        written = (
            self._lines(self._exported(records, target))
            | "Shard" >> beam.Map(_by_shard, shards, {(kind, None): 1 for kind in KINDS})
            | "ByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard_of_window, target)
        )
        sums = (
            records.statistics | "SumStatistics" >> beam.CombineGlobally(total).without_defaults()
        )
        # By their grouping both are whole, once for each window.
        return (
            {
                "statistics": sums | "OneStatistics" >> beam.Map(lambda sums: ("", sums)),
                "shards": written | "OneShards" >> beam.Map(lambda shard: ("", shard)),
            }
            | "OfWindow" >> beam.CoGroupByKey()
            | "Finish"
            >> beam.Map(_finish_window, target, self._max_failure_fraction, self._details)
        )


def _all_transcribed(records: PCollection[Record]) -> Collections:
    none = records | "None" >> beam.Filter(lambda _: False)
    counted = records | "CountRows" >> beam.Map(lambda _: Statistics(rows_in=1))
    return Collections(records, none, counted, none)


class OutputTarget(NamedTuple):
    """Where and how records are written.

    Attributes:
        formats: of `sharded_formats.FORMATS`.
        keys: the fields of the audio, the text and the language.
        tarred: whether the rows are those of a tarred data set of NeMo's.
        run: of an input without an end, whose windows have folders of their own.
    """

    folder: str
    storage: Storage
    num_shards: int | None
    compression: str | None
    journal: Journal | None
    formats: tuple[str, ...]
    keys: tuple[str, str, str]
    tarred: bool
    run: str = ""

    def folder_of(self, window: Any) -> str:
        if not self.run:
            return self.folder
        return join(self.folder, folder_name(float(window.start), self.run))

    def of_window(self, window: Any) -> OutputTarget:
        return self._replace(folder=self.folder_of(window))

    def check(self) -> None:
        """Raises FolderTakenError if another job has taken the folder over."""
        if self.journal is not None and self.journal.lock is not None:
            self.journal.lock.check()

    def write_shard(self, shard: ShardKey, lines: Iterable[bytes]) -> str:
        """Writes a shard, from lines that can be gone through more than once; gives its name."""
        kind, number, shards = shard
        if shards is None:
            name = shard_files.path_of_tar(number)
            self.storage.write(join(self.folder, name), lines)
            return name
        if kind == LABELS:
            name = shard_files.path(shard_files.NEMO, number, shards)
            if not self.tarred:  # else what is about no tar has no line
                self.storage.write(join(self.folder, name), lines)
            return name
        name = shard_name(kind, number, shards, self.compression)
        self.storage.write(join(self.folder, name), compressed(lines, self.compression))
        for format in shard_files.OF_SHARDS:
            if kind != TRANSCRIPTS or format not in self.formats:
                continue
            path = shard_files.path(format, number, shards)
            content = shard_files.content(format, lines, *self.keys)
            self.storage.write(join(self.folder, path), content)
        return name


class ShardKey(NamedTuple):
    """Which shard of the output a line goes to.

    It crosses shuffles as a plain tuple, which Beam encodes without pickling it.

    Attributes:
        kind: one of ``KINDS``.
        number: of the shard from 0, or of the tar that it is about.
        shards: of the kind; None if they go by tars.
    """

    kind: str
    number: int
    shards: int | None


class _Shard(NamedTuple):
    """A shard that was written: its kind, its name, and its records by why they are there: the type
    of a failure's error, what a filtered row was filtered by, why nothing is to be learnt from a
    label, and "" for what needs no reason."""

    kind: str
    name: str
    records: Counter[str]


# A kind, and the number of a tar or None.
Kind = tuple[str, int | None]


def _line(
    element: Envelope | Record, kind: str, flags: frozenset[str], durations: bool = False
) -> tuple[Kind, tuple[str, bytes]]:
    """A record as a line, with its kind and why it is of it."""
    if durations:
        element = with_duration(element)
    record, why = to_record(element), ""
    if kind == FAILURES:
        why = record["error"]["type"]
        record = {**record, "error": _worded(record["error"], flags)}
    elif kind == FILTERED:
        why = record["filtered"]["by"]
        record = {**record, "filtered": _worded(record["filtered"], flags)}
    elif "segments_failed" in record:
        record = {**record, "segments_failed": _worded(record["segments_failed"], flags)}
    return (kind, None), (why, encode(record))


def _worded(why: Any, flags: frozenset[str]) -> Any:
    """What a record says of failures, with flags in their messages."""
    if isinstance(why, list):
        return [_worded(each, flags) for each in why]
    if not isinstance(why, dict):
        return why
    message = why.get("message")
    if isinstance(message, str):
        return {**why, "message": with_flags(message, flags)}
    return {**why, "error": _worded(why["error"], flags)} if "error" in why else why


def _label(
    element: Envelope | Record,
    filepath_key: str,
    pred_text_key: str,
    tarred: bool,
    recognized: bool = True,
) -> tuple[Kind, tuple[str, bytes]]:
    """A record as a line of a manifest that NeMo trains on, with why nothing is to be learnt from
    it; the line is empty if it has none. Of a tarred set its kind has the number of its tar."""
    origin = "" if isinstance(element, dict) else element.origin
    record = to_record(with_duration(element))
    if not recognized:
        record = {**record, pred_text_key: ""}
    to_label = pseudo_labels.tarred_label if tarred else pseudo_labels.label
    label = to_label(record, filepath_key, pred_text_key, origin)
    return (LABELS, label.shard), (label.left_out, label.line or b"")


def _by_shard(
    keyed: tuple[Kind, tuple[str, bytes]], num_shards: int | None, counts: dict[Kind, int]
) -> tuple[Any, tuple[str, bytes]]:
    (kind, tar), (why, line) = keyed
    if tar is not None:
        return tuple(ShardKey(kind, tar, shards=None)), (why, line)
    shards = shard_count(kind, counts[kind, None], num_shards)
    return tuple(ShardKey(kind, shard_of(line, shards), shards)), (why, line)


def _write_shard(
    keyed: tuple[tuple[str, int, int | None], Iterable[tuple[str, bytes]]],
    target: OutputTarget,
    ready: Iterable[OutputTarget],
) -> _Shard:
    key, records = ShardKey(*keyed[0]), keyed[1]
    list(ready)  # the folder is an unfinished one before the first file in it is replaced
    target.check()
    written = Counter(why for why, _ in records)
    return _Shard(key.kind, target.write_shard(key, _Lines(records)), written)


class _Lines:
    """The lines of a shard's records, which Beam can bring more than once."""

    def __init__(self, records: Iterable[tuple[str, bytes]]):
        self._records = records

    def __iter__(self) -> Iterator[bytes]:
        return (line for _, line in self._records if line)


def _write_shard_of_window(
    keyed: tuple[tuple[str, int, int | None], Iterable[tuple[str, bytes]]],
    target: OutputTarget,
    window: Any = beam.DoFn.WindowParam,
) -> _Shard:
    return _write_shard(keyed, target.of_window(window), [])


def _withdraw(target: OutputTarget) -> OutputTarget:
    target.check()
    output.mark_unfinished(target.storage, target.folder)
    write_formats.delete_stale(target.storage, target.folder)
    shard_files.delete_stale(target.storage, target.folder)
    return target


def _finish(
    target: OutputTarget,
    started: float,
    max_failure_fraction: float,
    details: Record,
    statistics: Statistics,
    shards: list[_Shard],
) -> Record:
    target.check()
    storage, folder = target.storage, target.folder
    wall_seconds = time.time() - started
    summary, failed_by_type = _complete(target, wall_seconds, details, statistics, shards)
    failure_limit.check_failures(statistics.rows_in, failed_by_type, max_failure_fraction)
    storage.write(join(folder, output.SUCCESS), [])
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
    target = target.of_window(window)
    (statistics,), shards = keyed[1]["statistics"], list(keyed[1]["shards"])
    summary, failed_by_type = _complete(target, None, details, statistics, shards)
    try:
        failure_limit.check_failures(statistics.rows_in, failed_by_type, max_failure_fraction)
    except TooManyFailuresError as error:
        # To raise it would have the runner try this again for ever, and hold the next windows up.
        logger.error("%s is left without %s: %s", target.folder, output.SUCCESS, error)
        return summary
    target.storage.write(join(target.folder, output.SUCCESS), [])
    return summary


def _complete(
    target: OutputTarget,
    wall_seconds: float | None,
    details: Record,
    statistics: Statistics,
    shards: list[_Shard],
) -> tuple[Record, Counter[str]]:
    """Makes the folder whole but for its marker; gives the summary, and the failures by type."""
    storage, folder = target.storage, target.folder
    transcribed = sum(sum(each.records.values()) for each in shards if each.kind == TRANSCRIPTS)
    failed_by_type, filtered_by = (
        sum((each.records for each in shards if each.kind == kind), Counter())
        for kind in (FAILURES, FILTERED)
    )
    check_complete(
        statistics.rows_in,
        transcribed,
        sum(failed_by_type.values()),
        sum(filtered_by.values()),
    )
    names = {each.name for each in shards if each.kind != LABELS}
    # A reader finds as many files as were asked for, if empty ones.
    count = shard_count(TRANSCRIPTS, transcribed, target.num_shards)
    for shard in range(count):
        if shard_name(TRANSCRIPTS, shard, count, target.compression) not in names:
            names.add(target.write_shard(ShardKey(TRANSCRIPTS, shard, count), []))
    delete_stale(storage, folder, names)
    if shard_files.NEMO in target.formats:
        labels = [each for each in shards if each.kind == LABELS]
        _complete_labels(target, statistics, {each.name for each in labels})
        left_out: Counter[str] = sum((each.records for each in labels), Counter())
        rows = left_out.pop("", 0)
        details = {**details, "nemo": {"rows": rows, "left_out": dict(sorted(left_out.items()))}}
    summary = summarize(statistics, transcribed, failed_by_type, filtered_by, wall_seconds, details)
    storage.write(join(folder, output.SUMMARY), [encode_readable(summary)])
    return summary, failed_by_type


def _complete_labels(target: OutputTarget, statistics: Statistics, names: set[str]) -> None:
    """Writes those of NeMo's manifests that no line is in: the only one, or one for each tar."""
    if not target.tarred:
        if not names:
            target.write_shard(ShardKey(LABELS, 0, 1), [])
        return
    of_tars = {name for name in names if shard_files.is_of_tar(name)}
    every = range(len(of_tars) + statistics.tars_without_rows)
    missing = {shard_files.path_of_tar(number) for number in every} - of_tars
    if len(missing) == statistics.tars_without_rows:  # the tars are numbered from 0
        for name in missing:
            target.storage.write(join(target.folder, name), [])
