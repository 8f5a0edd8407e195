"""The PTransforms: they wire and count; what they do stands in the modules they call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsIter, AsList, AsSingleton, PCollection

from beam_asr import audio, batching, containment, manifest, model_host, output, storage
from beam_asr.inputs import files_of, rows_of
from beam_asr.manifest import Clip, Row
from beam_asr.model_host import ModelSpec
from beam_asr.options import DECODERS, DEVICES
from beam_asr.output import Statistics
from beam_asr.recognizer import SHORTEST_SECONDS

Record = dict[str, Any]

NAMESPACE = "beam_asr"
WINDOW_SECONDS = 20 * 60  # of audio in a window: 77 MB of waveforms at 16 kHz
UNKNOWN_SECONDS = 15  # a clip without a duration is taken for in a window
READ_THREADS = 8


class Transcribed(NamedTuple):
    """What ``Transcribe`` gives.

    Attributes:
        transcripts: each transcribed row, unchanged, with the text in its ``pred_text_key``.
        failures: each other row with its ``error: {stage, type, message, attempts}``.
        statistics: parts of the sums over the job: the rows in, and one element for each window.
    """

    transcripts: PCollection[Record]
    failures: PCollection[Record]
    statistics: PCollection[Statistics]


class ReadManifest(beam.PTransform):
    """Reads the lines of manifests, or the audio files of folders, as rows.

    Lines are not judged here: one that is not right is a row too, which ``Transcribe`` fails.

    Args:
        pattern: path, URI, glob or folder, or several, also as one comma-separated string. Globs
            and folders of audio files (``bucket/audio/**/*.flac``) give a row for each file;
            anything else is a manifest of one JSON object a line, compressed or not.
        filepath_key: the field that names the audio, in the rows made of audio files.
    """

    def __init__(self, pattern: str | Iterable[str], filepath_key: str = "audio_filepath"):
        super().__init__()
        self._filepath_key = filepath_key
        patterns = [pattern] if isinstance(pattern, str) else list(pattern)
        self._patterns = [part.strip() for each in patterns for part in each.split(",")]
        if not all(self._patterns):
            raise ValueError(f"the input {pattern!r} holds an empty path")

    def expand(self, pbegin: Any) -> PCollection[Row]:
        return (
            pbegin
            | "Patterns" >> beam.Create(self._patterns)
            | "FindFiles" >> beam.FlatMap(files_of).with_output_types(str)
            | "SpreadFiles" >> beam.Reshuffle()
            | "ReadRows" >> beam.FlatMap(rows_of, self._filepath_key).with_output_types(Row)
        )


class Transcribe(beam.PTransform):
    """Transcribes rows with a NeMo model that each worker process loads once.

    Takes ``Row`` s, as ``ReadManifest`` gives them, or dicts with the fields of a manifest's row.
    Gives a ``Transcribed``. Every row ends in one of ``transcripts`` and ``failures``, once.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file.
        filepath_key: the field that names the audio.
        pred_text_key: the field that the text goes into.
        batch_size: most clips in one forward pass.
        max_batch_seconds: most padded seconds in one forward pass (clips x longest clip); None
            chooses by the device.
        device: ``auto`` takes a GPU if there is one, ``cuda`` fails without one, ``cpu``.
        channel: the channel of the audio to take, from 0; None averages them.
        decoder: ``rnnt`` or ``ctc`` of a hybrid model; None is the model's own choice.

    Raises:
        ValueError: an argument is out of its range; when the graph is built.
    """

    def __init__(
        self,
        model_name: str,
        filepath_key: str = "audio_filepath",
        pred_text_key: str = "pred_text",
        batch_size: int = 128,
        max_batch_seconds: float | None = None,
        device: str = "auto",
        channel: int | None = None,
        decoder: str | None = None,
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        if max_batch_seconds is not None and not max_batch_seconds > 0:
            raise ValueError(f"max_batch_seconds is {max_batch_seconds}, but must be above 0")
        if filepath_key == pred_text_key:
            raise ValueError(f"filepath_key and pred_text_key are both {filepath_key!r}")
        if device not in DEVICES:
            raise ValueError(f"device is {device!r}, but must be one of {', '.join(DEVICES)}")
        if decoder not in (None, *DECODERS):
            raise ValueError(f"decoder is {decoder!r}, but must be one of {', '.join(DECODERS)}")
        if channel is not None and channel < 0:
            raise ValueError(f"channel is {channel}, but channels count from 0")
        self._spec = ModelSpec(model_name, device, decoder)
        self._filepath_key = filepath_key
        self._pred_text_key = pred_text_key
        self._batch_size = batch_size
        self._max_batch_seconds = max_batch_seconds
        self._channel = channel

    def expand(self, rows: PCollection[Row | Record]) -> Transcribed:
        checked = rows | "Validate" >> beam.ParDo(_Validate(self._filepath_key)).with_outputs(
            "failures", main="clips"
        )
        rows_in = (
            rows
            | "CountRows" >> beam.combiners.Count.Globally()
            | "RowsIn" >> beam.Map(lambda count: Statistics(rows_in=count))
        )
        heard = (
            checked.clips
            | "SpreadClips" >> beam.Reshuffle()
            # Fixed sizes: left to adapt, BatchElements learns its own from measured times.
            | "Windows"
            >> beam.BatchElements(
                min_batch_size=WINDOW_SECONDS,
                max_batch_size=WINDOW_SECONDS,
                element_size_fn=_window_seconds,
            )
            | "Transcribe"
            >> beam.ParDo(
                _TranscribeWindow(
                    self._spec,
                    self._pred_text_key,
                    self._batch_size,
                    self._max_batch_seconds,
                    self._channel,
                )
            ).with_outputs("failures", "statistics", main="transcripts")
        )
        return Transcribed(
            # What the model did must not be done again because a writer failed.
            heard.transcripts | "KeepTranscripts" >> beam.Reshuffle(),
            (
                (checked.failures, heard.failures)
                | "AllFailures" >> beam.Flatten().with_output_types(Record)
                | "KeepFailures" >> beam.Reshuffle()
            ),
            (rows_in, heard.statistics)
            | "AllStatistics" >> beam.Flatten().with_output_types(Statistics),
        )


class _Validate(beam.DoFn):
    def __init__(self, filepath_key: str):
        self._filepath_key = filepath_key

    def process(self, element: Row | Record) -> Iterator[Any]:
        row = element if isinstance(element, Row) else Row(repr(element))
        try:
            if isinstance(element, dict):
                row = Row.of(element)
            yield manifest.parse(row, self._filepath_key)
        except manifest.ManifestError as error:
            yield _failed(row, "manifest", error)


class _TranscribeWindow(beam.DoFn):
    """Reads a window's audio, puts it into batches and hands them to the process's model."""

    def __init__(
        self,
        spec: ModelSpec,
        pred_text_key: str,
        batch_size: int,
        max_batch_seconds: float | None,
        channel: int | None,
    ):
        self._spec = spec
        self._pred_text_key = pred_text_key
        self._batch_size = batch_size
        self._max_batch_seconds = max_batch_seconds
        self._channel = channel
        self._model_loads = Metrics.counter(NAMESPACE, "model_loads")
        self._batch_milliseconds = Metrics.distribution(NAMESPACE, "batch_msec")

    def setup(self) -> None:
        self._host = model_host.host(self._spec)
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="beam-asr-read")

    def teardown(self) -> None:
        self._readers.shutdown(cancel_futures=True)

    def process(self, window: list[Clip]) -> Iterator[Any]:
        if not window:  # BatchElements gives one before an element above its target
            return
        self._model_loads.inc(self._host.take_loads())
        started = time.monotonic()
        read = list(self._readers.map(self._read, window))
        statistics = Statistics(wait_seconds=time.monotonic() - started)
        statistics.models = frozenset([tuple(sorted(self._host.description.items()))])

        clips: list[Clip] = []
        waveforms: list[np.ndarray] = []
        for clip, waveform in zip(window, read, strict=True):
            if isinstance(waveform, Exception):
                yield _failed(clip.row, "audio", waveform)
            else:
                clips.append(clip)
                waveforms.append(waveform)

        seconds = [len(waveform) / self._host.sample_rate for waveform in waveforms]
        taken = [max(length, SHORTEST_SECONDS) for length in seconds]  # by the model
        budget = self._max_batch_seconds or self._host.default_batch_seconds
        for batch in batching.plan_batches(taken, budget, self._batch_size):
            statistics.batches += 1
            statistics.audio_seconds += sum(seconds[index] for index in batch)
            statistics.padded_seconds += batching.padded_seconds([taken[index] for index in batch])
            results = containment.apply_to_each(
                lambda indices: self._transcribe([waveforms[i] for i in indices], statistics), batch
            )
            for index, (result, attempts) in zip(batch, results, strict=True):
                clip = clips[index]
                if isinstance(result, Exception):
                    yield _failed(clip.row, "model", result, attempts)
                else:
                    yield manifest.transcript(clip, self._pred_text_key, result.text)
        yield beam.pvalue.TaggedOutput("statistics", statistics)

    def _read(self, clip: Clip) -> np.ndarray | Exception:
        try:
            return audio.read_audio(
                clip.audio,
                sample_rate=self._host.sample_rate,
                offset=clip.offset,
                duration=clip.duration,
                channel=self._channel,
            )
        except Exception as error:  # whatever it is, it costs this row alone
            return error

    def _transcribe(self, waveforms: list[np.ndarray], statistics: Statistics) -> list[Any]:
        results, seconds = self._host.transcribe(waveforms)
        statistics.model_seconds += seconds
        self._batch_milliseconds.update(round(1000 * seconds))
        return results


class WriteManifest(beam.PTransform):
    """Writes records as shards of JSONL into a folder, then a summary, then ``_SUCCESS``.

    Takes the ``Transcribed`` of ``Transcribe``, of which it writes the failures too and checks that
    every row has ended as exactly one record; or any PCollection of dicts.

    Args:
        folder: the output folder, on any storage.
        overwrite: whether the results of an earlier run there may be replaced.
        max_failure_fraction: the job fails if a larger part of the rows, and at least 100, failed.
        details: what else is to stand in ``summary.json``.

    Raises:
        OutputExistsError: when the graph is built, if the folder is not empty.
    """

    def __init__(
        self,
        folder: str,
        overwrite: bool = False,
        max_failure_fraction: float = 0.1,
        details: Record | None = None,
    ):
        super().__init__()
        if not 0 <= max_failure_fraction <= 1:
            raise ValueError(f"max_failure_fraction is {max_failure_fraction}, not within 0 and 1")
        self._folder = folder
        self._overwrite = overwrite
        self._max_failure_fraction = max_failure_fraction
        self._details = details or {}

    def expand(self, records: Transcribed | PCollection[Record]) -> PCollection[Record]:
        output.check_may_write(self._folder, self._overwrite)
        started = time.time()
        if not isinstance(records, Transcribed):
            none = records | "None" >> beam.Filter(lambda _: False)
            rows_in = (
                records
                | "CountRows" >> beam.combiners.Count.Globally()
                | "RowsIn" >> beam.Map(lambda count: Statistics(rows_in=count))
            )
            records = Transcribed(records, none, rows_in)
        start = records.transcripts.pipeline | "Start" >> beam.Create([self._folder])
        ready = start | "Withdraw" >> beam.Map(_withdraw)
        written = [
            collection | f"Write_{kind}" >> _WriteShards(self._folder, kind, ready)
            for kind, collection in (
                (output.TRANSCRIPTS, records.transcripts),
                (output.FAILURES, records.failures),
            )
        ]
        return start | "Finish" >> beam.Map(
            _finish,
            started,
            self._max_failure_fraction,
            self._details,
            statistics=AsSingleton(
                records.statistics | "SumStatistics" >> beam.CombineGlobally(_sum_statistics)
            ),
            transcripts=AsList(written[0]),
            failures=AsList(written[1]),
        )


class _Shard(NamedTuple):
    """A shard that was written: its name and its records by type of error (none: ``""``)."""

    name: str
    records: Counter[str]


class _WriteShards(beam.PTransform):
    """Writes records as ``KIND-SSSSS-of-NNNNN.jsonl`` and gives a ``_Shard`` for each."""

    def __init__(self, folder: str, kind: str, ready: PCollection):
        super().__init__()
        self._folder = folder
        self._kind = kind
        self._ready = ready

    def expand(self, records: PCollection[Record]) -> PCollection[_Shard]:
        shards = (
            records
            | "Count" >> beam.combiners.Count.Globally()
            | "ShardCount" >> beam.Map(output.shard_count)
        )
        # Transcripts have at least one shard, so that a reader finds a file.
        every = [(0, None)] if self._kind == output.TRANSCRIPTS else []
        lines = records | "Shard" >> beam.Map(_keyed_by_shard, AsSingleton(shards))
        at_least = records.pipeline | "FirstShard" >> beam.Create(every)
        return (
            (lines, at_least)
            | "WithFirst" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
            | "Write"
            >> beam.Map(
                _write_shard,
                self._folder,
                self._kind,
                shards=AsSingleton(shards),
                ready=AsIter(self._ready),
            )
        )


def _keyed_by_shard(record: Record, shards: int) -> tuple[int, tuple[str, bytes]]:
    line = output.encode(record)
    error = record.get("error")
    kind = error["type"] if isinstance(error, dict) and "type" in error else ""
    return output.shard_of(line, shards), (kind, line)


def _write_shard(
    keyed: tuple[int, Iterable[tuple[str, bytes] | None]],
    folder: str,
    kind: str,
    shards: int,
    ready: Iterable[str],
) -> _Shard:
    shard, records = keyed
    list(ready)  # the folder is an unfinished one before the first file in it is replaced
    written: Counter[str] = Counter()

    def lines() -> Iterator[bytes]:
        for record in records:
            if record is not None:
                error_type, line = record
                written[error_type] += 1
                yield line

    name = output.shard_name(kind, shard, shards)
    storage.write(storage.join(folder, name), lines())
    return _Shard(name, written)


def _withdraw(folder: str) -> str:
    output.withdraw(folder)
    return folder


def _finish(
    folder: str,
    started: float,
    max_failure_fraction: float,
    details: Record,
    statistics: Statistics,
    transcripts: list[_Shard],
    failures: list[_Shard],
) -> Record:
    transcribed = sum(sum(shard.records.values()) for shard in transcripts)
    failed_by_type: Counter[str] = sum((shard.records for shard in failures), Counter())
    output.check_complete(statistics.rows_in, transcribed, sum(failed_by_type.values()))
    output.delete_stale(folder, [shard.name for shard in (*transcripts, *failures)])
    wall_seconds = time.time() - started
    summary = output.summary(statistics, transcribed, failed_by_type, wall_seconds, details)
    storage.write(storage.join(folder, output.SUMMARY), [output.encode_readable(summary)])
    output.check_failures(statistics.rows_in, failed_by_type, max_failure_fraction)
    storage.write(storage.join(folder, output.SUCCESS), [])
    return summary


def _sum_statistics(parts: Iterable[Statistics]) -> Statistics:
    return sum(parts, Statistics())


def _window_seconds(clip: Clip) -> int:
    """A clip's size in a window; none is above the window's, which BatchElements cannot take."""
    seconds = UNKNOWN_SECONDS if clip.duration is None else clip.duration
    return min(max(1, round(seconds)), WINDOW_SECONDS - 1)


def _failed(row: Row, stage: str, error: Exception, attempts: int = 1) -> Any:
    return beam.pvalue.TaggedOutput("failures", manifest.failure(row, stage, error, attempts))
