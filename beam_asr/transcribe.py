"""Rows to transcripts and failures: a PTransform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.transforms.window import BoundedWindow, GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from beam_asr import manifest, model_host, shards
from beam_asr.allowed import AllowedPrefixes
from beam_asr.backlog import Backlog, Batch
from beam_asr.clip_reader import UNKNOWN_SECONDS, ClipReader, Heard
from beam_asr.inputs import Tar
from beam_asr.manifest import Clip, Row
from beam_asr.manifest_errors import ManifestError
from beam_asr.model_host import ModelSpec
from beam_asr.options import DECODERS, DEVICES, PRECISIONS
from beam_asr.output import Statistics
from beam_asr.retrying import attempts_of
from beam_asr.storage import Storage
from beam_asr.tar_reader import Shard, TarReader

Record = dict[str, Any]

NAMESPACE = "beam_asr"
WINDOW_SECONDS = 20 * 60  # of audio in a window


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


class _TranscribeWindow(beam.DoFn):
    """Reads the audio of windows and has the process's model transcribe it.

    The results of a window's clips come with later windows, or with the end of the bundle.
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
        self._host.warm_up(self._settings.batch_size)

    def start_bundle(self) -> None:
        settings = self._settings
        self._backlog = Backlog(self._host, settings.batch_size, settings.max_batch_seconds)
        self._window: BoundedWindow = GlobalWindow()
        self._statistics = Statistics()

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
        last = chain.from_iterable(map(self._records, self._backlog.drain()))
        # The sums are complete when the last result has been taken.
        yield from _placed(last, self._window)
        yield from _placed([TaggedOutput("statistics", self._statistics)], self._window)

    def _transcribe_all(self, heard: Iterable[Heard]) -> Iterator[Any]:
        """Records: of clips that cannot be read, and of earlier ones that are transcribed."""
        self._model_loads.inc(self._host.take_loads())
        self._statistics.models = frozenset([tuple(sorted(self._host.description.items()))])
        for clip, waveform, seconds in heard:
            self._read_milliseconds.update(round(1000 * seconds))
            if isinstance(waveform, Exception):
                yield _failed(clip.row, "audio", waveform, attempts_of(waveform))
                continue
            for batch in self._backlog.add(clip, waveform):
                yield from self._records(batch)

    def _records(self, batch: Batch) -> Iterator[Any]:
        self._count(batch)
        for clip, heard, attempts in batch.results:
            if isinstance(heard, Exception):
                yield _failed(clip.row, "model", heard, attempts)
            else:
                yield manifest.transcript(clip.row, self._settings.pred_text_key, heard.text)

    def _count(self, batch: Batch) -> None:
        self._statistics.batches += 1
        self._statistics.audio_seconds += batch.audio_seconds
        self._statistics.padded_seconds += batch.padded_seconds
        self._batches.inc()
        self._audio_milliseconds.inc(round(1000 * batch.audio_seconds))
        self._padded_milliseconds.inc(round(1000 * batch.padded_seconds))
        for each in batch.passes:
            self._statistics.model_seconds += each.seconds
            self._statistics.wait_seconds += each.idle_seconds
            self._batch_milliseconds.update(round(1000 * each.seconds))
            self._wait_milliseconds.update(round(1000 * each.idle_seconds))


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
