"""Rows to transcripts and failures: a PTransform."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.transforms.window import BoundedWindow, GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_asr import batching, containment, manifest, model_host, shards
from beam_asr.allowed import AllowedPrefixes
from beam_asr.clip_reader import UNKNOWN_SECONDS, ClipReader, Heard
from beam_asr.inputs import Tar
from beam_asr.manifest import Clip, Row
from beam_asr.manifest_errors import ManifestError
from beam_asr.model_host import ModelSpec, Pass
from beam_asr.options import DECODERS, DEVICES, PRECISIONS
from beam_asr.output import Statistics
from beam_asr.recognizer import SHORTEST_SECONDS, Recognition
from beam_asr.retrying import attempts_of
from beam_asr.storage import Storage
from beam_asr.tar_reader import Shard, TarReader

Record = dict[str, Any]

NAMESPACE = "beam_asr"
WINDOW_SECONDS = 20 * 60  # of audio in a window: 77 MB of waveforms at 16 kHz
FIRST_WINDOW_SECONDS = 80  # so that the model need not wait for all of a bundle's first window


class Transcribed(NamedTuple):
    """What ``Transcribe`` gives.

    Attributes:
        transcripts: each transcribed row, unchanged, with the text in its ``pred_text_key``.
        failures: each other row with its ``error: {stage, type, message, attempts}``.
        statistics: parts of the sums over the job: the rows in, and one element for each bundle.
    """

    transcripts: PCollection[Record]
    failures: PCollection[Record]
    statistics: PCollection[Statistics]


class Transcribe(beam.PTransform):
    """Transcribes rows with a NeMo model that each worker process loads once.

    Takes what ``ReadManifest`` gives, or dicts with the fields of a manifest's row. Gives a
    ``Transcribed``. Every row ends in one of ``transcripts`` and ``failures``, once.

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
        precision: of the model's weights: ``fp32``, ``bf16``, or ``auto``, which is bf16 on a GPU
            that has it.
        tarred_audio: the tars of a tarred data set of NeMo's, in which the rows' audio is: path,
            URI, glob or brace expansion, or several.
        storage_options: for each protocol what its fsspec file system is opened with.
        audio_timeout: seconds that reading a file may take.
        max_concurrent_reads: most files that a worker process reads at one time.
        allowed_audio_prefixes: what a row may point to; None is everything.

    Raises:
        ValueError: an argument is out of its range; when the graph is built.
        NoInputError: no tar is there.
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
        precision: str = "auto",
        tarred_audio: str | Iterable[str] | None = None,
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
        audio_timeout: float = 300.0,
        max_concurrent_reads: int = 32,
        allowed_audio_prefixes: Iterable[str] | None = None,
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
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision is {precision!r}, but must be one of {', '.join(PRECISIONS)}"
            )
        if channel is not None and channel < 0:
            raise ValueError(f"channel is {channel}, but channels count from 0")
        if not audio_timeout > 0:
            raise ValueError(f"audio_timeout is {audio_timeout}, but must be above 0")
        if max_concurrent_reads < 1:
            raise ValueError(
                f"max_concurrent_reads is {max_concurrent_reads}, but must be at least 1"
            )
        storage = Storage(storage_options or {})
        prefixes = allowed_audio_prefixes
        allowed = None if prefixes is None else AllowedPrefixes.of(prefixes)
        self._filepath_key = filepath_key
        self._tars = None if tarred_audio is None else shards.tars_of(storage, tarred_audio)
        self._settings = _Settings(
            ModelSpec(model_name, device, decoder, precision, storage),
            ClipReader(
                Storage(storage.options, allowed), channel, audio_timeout, max_concurrent_reads
            ),
            storage,
            filepath_key,
            pred_text_key,
            batch_size,
            max_batch_seconds,
        )

    def expand(self, rows: PCollection[Row | Record | Tar]) -> Transcribed:
        checked = rows | "Validate" >> beam.ParDo(
            _Validate(self._filepath_key, self._tars)
        ).with_outputs("failures", "statistics", "in_tars", main="work")
        work = checked.work
        if self._tars is not None:
            every = rows.pipeline | "TarredAudio" >> beam.Create(list(self._tars.items()))
            by_shard = {"tars": every, "clips": checked.in_tars} | "ByShard" >> beam.CoGroupByKey()
            in_tars = by_shard | "Shards" >> beam.Map(_shard)
            work = (work, in_tars) | "AllWork" >> beam.Flatten()
        heard = (
            work
            | "SpreadWork" >> beam.Reshuffle()
            # Fixed sizes: left to adapt, BatchElements learns its own from measured times.
            | "Windows"
            >> beam.BatchElements(
                min_batch_size=WINDOW_SECONDS,
                max_batch_size=WINDOW_SECONDS,
                element_size_fn=_window_seconds,
            )
            | "Transcribe"
            >> beam.ParDo(_TranscribeWindow(self._settings)).with_outputs(
                "failures", "statistics", main="transcripts"
            )
        )
        return Transcribed(
            # What the model did must not be done again because a writer failed.
            heard.transcripts | "KeepTranscripts" >> beam.Reshuffle(),
            (
                (checked.failures, heard.failures)
                | "AllFailures" >> beam.Flatten().with_output_types(Record)
                | "KeepFailures" >> beam.Reshuffle()
            ),
            (checked.statistics, heard.statistics)
            | "AllStatistics" >> beam.Flatten().with_output_types(Statistics),
        )


class _Settings(NamedTuple):
    spec: ModelSpec
    reader: ClipReader
    tar_storage: Storage
    filepath_key: str
    pred_text_key: str
    batch_size: int
    max_batch_seconds: float | None


class _Validate(beam.DoFn):
    """Gives clips, and with tars, clips keyed by the number of theirs; counts the rows."""

    def __init__(self, filepath_key: str, tars: Mapping[int, str] | None):
        self._filepath_key = filepath_key
        self._tars = tars

    def start_bundle(self) -> None:
        self._rows_in = 0
        self._window: BoundedWindow = GlobalWindow()

    def process(
        self, element: Row | Record | Tar, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        self._window = window
        if isinstance(element, Tar):  # its rows are counted as it is read
            yield element
            return
        self._rows_in += 1
        row = element if isinstance(element, Row) else Row(repr(element))
        try:
            if isinstance(element, dict):
                row = Row.of(element)
            if self._tars is None:
                yield manifest.parse(row, self._filepath_key)
            else:
                clip = manifest.parse(row, self._filepath_key, in_tar=True)
                number = shards.number_of(row, self._tars)
                yield TaggedOutput("in_tars", (number, clip))
        except ManifestError as error:
            yield _failed(row, "manifest", error)

    def finish_bundle(self) -> Iterator[Any]:
        rows_in = TaggedOutput("statistics", Statistics(rows_in=self._rows_in))
        yield from _placed([rows_in], self._window)


class _Batch(NamedTuple):
    """A batch on its way through the model."""

    clips: list[Clip]
    waveforms: list[np.ndarray]
    done: Future[Pass]


class _TranscribeWindow(beam.DoFn):
    """Reads a window's audio, puts it into batches and hands them to the process's model.

    While the model works on one window, the next one is read: the batches of a window are given to
    the model's thread, and their results are taken when those of the next window have been given,
    or the bundle ends.
    """

    def __init__(self, settings: _Settings):
        self._settings = settings
        self._model_loads = Metrics.counter(NAMESPACE, "model_loads")
        self._batches = Metrics.counter(NAMESPACE, "batches")
        self._batch_milliseconds = Metrics.distribution(NAMESPACE, "batch_msec")
        self._wait_milliseconds = Metrics.distribution(NAMESPACE, "model_wait_msec")
        self._audio_milliseconds = Metrics.counter(NAMESPACE, "audio_msec")
        self._padded_milliseconds = Metrics.counter(NAMESPACE, "padded_msec")
        self._read_milliseconds = Metrics.distribution(NAMESPACE, "read_msec")

    def setup(self) -> None:
        self._host = model_host.host(self._settings.spec)

    def start_bundle(self) -> None:
        self._began = time.monotonic()
        self._in_flight: list[_Batch] = []
        self._window: BoundedWindow = GlobalWindow()
        self._statistics = Statistics()
        self._seconds_to_give = FIRST_WINDOW_SECONDS

    def process(
        self, work: list[Clip | Tar | Shard], window: Any = beam.DoFn.WindowParam
    ) -> Iterator[Any]:
        if not work:  # BatchElements gives an empty window before an element above its target
            return
        self._window = window
        reader, rate = self._settings.reader, self._host.sample_rate
        tars = TarReader(self._settings.tar_storage, self._settings.filepath_key)
        clips = [item for item in work if isinstance(item, Clip)]
        in_tars = (tars.contents(item) for item in work if not isinstance(item, Clip))
        yield from self._transcribe_all(
            chain(reader.read(clips, rate), reader.decode(chain.from_iterable(in_tars), rate))
        )
        for unread in tars.unread:
            yield _failed(unread.row, unread.stage, unread.error, attempts_of(unread.error))
        self._statistics += tars.statistics

    def finish_bundle(self) -> Iterator[Any]:
        last = self._take(self._in_flight)
        # The sums are complete when the last result has been taken.
        yield from _placed(last, self._window)
        yield from _placed([TaggedOutput("statistics", self._statistics)], self._window)

    def _transcribe_all(self, heard: Iterable[Heard]) -> Iterator[Any]:
        """The records of clips that come; those of the last window come with later calls."""
        self._model_loads.inc(self._host.take_loads())
        self._statistics.models = frozenset([tuple(sorted(self._host.description.items()))])
        clips: list[Clip] = []
        waveforms: list[np.ndarray] = []
        held = 0
        for clip, waveform, seconds in heard:
            self._read_milliseconds.update(round(1000 * seconds))
            if isinstance(waveform, Exception):
                yield _failed(clip.row, "audio", waveform, attempts_of(waveform))
                continue
            clips.append(clip)
            waveforms.append(waveform)
            held += len(waveform)
            if held >= min(self._seconds_to_give, WINDOW_SECONDS) * self._host.sample_rate:
                yield from self._exchange(clips, waveforms)
                clips, waveforms, held = [], [], 0
        yield from self._exchange(clips, waveforms)

    def _exchange(self, clips: Sequence[Clip], waveforms: Sequence[np.ndarray]) -> Iterator[Any]:
        """Gives a window to the model, and takes the results of the one before."""
        if clips:
            self._seconds_to_give *= 2
            before, self._in_flight = self._in_flight, self._give(clips, waveforms)
            yield from self._take(before)

    def _give(self, clips: Sequence[Clip], waveforms: Sequence[np.ndarray]) -> list[_Batch]:
        seconds = [len(waveform) / self._host.sample_rate for waveform in waveforms]
        taken = [max(length, SHORTEST_SECONDS) for length in seconds]  # by the model
        budget = self._settings.max_batch_seconds or self._host.default_batch_seconds
        plan = batching.plan_batches(
            taken,
            min(budget, self._host.most_batch_seconds),
            self._settings.batch_size,
            self._host.batch_overhead_seconds,
        )
        batches = []
        for indices in plan:
            audio = sum(seconds[index] for index in indices)
            padded = batching.padded_seconds([taken[index] for index in indices])
            self._statistics.batches += 1
            self._statistics.audio_seconds += audio
            self._statistics.padded_seconds += padded
            self._batches.inc()
            self._audio_milliseconds.inc(round(1000 * audio))
            self._padded_milliseconds.inc(round(1000 * padded))
            batch = [waveforms[index] for index in indices]
            done = self._host.submit(batch, self._began)
            batches.append(_Batch([clips[index] for index in indices], batch, done))
        return batches

    def _take(self, batches: Iterable[_Batch]) -> Iterator[Any]:
        for batch in batches:
            first: Future[Pass] | None = batch.done

            def transcribe(indices: Sequence[int], batch: _Batch = batch) -> list[Recognition]:
                nonlocal first
                waveforms = [batch.waveforms[index] for index in indices]
                done = first or self._host.submit(waveforms, time.monotonic())
                first = None
                return self._counted(done.result())

            results = containment.apply_to_each(transcribe, range(len(batch.clips)))
            for clip, (result, attempts) in zip(batch.clips, results, strict=True):
                if isinstance(result, Exception):
                    yield _failed(clip.row, "model", result, attempts)
                else:
                    yield manifest.transcript(clip.row, self._settings.pred_text_key, result.text)

    def _counted(self, done: Pass) -> list[Recognition]:
        self._statistics.model_seconds += done.seconds
        self._statistics.wait_seconds += done.idle_seconds
        self._batch_milliseconds.update(round(1000 * done.seconds))
        self._wait_milliseconds.update(round(1000 * done.idle_seconds))
        return done.results


def _shard(by_shard: tuple[int, dict[str, list[Any]]]) -> Shard:
    (tar,), clips = by_shard[1]["tars"], by_shard[1]["clips"]
    return Shard(tar, list(clips))


def _placed(outputs: Iterable[Any], window: BoundedWindow) -> Iterator[Any]:
    """Outputs of a bundle's end, which belong to no element, at the end of a window."""
    for output in outputs:
        tagged = isinstance(output, TaggedOutput)
        value = output.value if tagged else output
        placed = WindowedValue(value, window.max_timestamp(), [window])
        yield TaggedOutput(output.tag, placed) if tagged else placed


def _window_seconds(item: Clip | Tar | Shard) -> int:
    """An item's size in a window; none is above the window's, which BatchElements cannot take."""
    if not isinstance(item, Clip):
        return WINDOW_SECONDS - 1
    seconds = UNKNOWN_SECONDS if item.duration is None else item.duration
    return min(max(1, round(seconds)), WINDOW_SECONDS - 1)


def _failed(row: Row, stage: str, error: Exception, attempts: int = 1) -> Any:
    return TaggedOutput("failures", manifest.failure(row, stage, error, attempts))
