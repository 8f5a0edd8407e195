"""Provides a Beam ``ModelHandler`` of NeMo models, for pipelines with ``RunInference``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from beam_asr.audio.clip_reader import UNKNOWN_SECONDS, ClipReader, Loaded, Unreadable
from beam_asr.errors import BadFieldError, ManifestError, SetupError, ZeroLengthAudioError
from beam_asr.models.engine import ModelSpec
from beam_asr.models.serving import pool
from beam_asr.models.serving.batcher import Batch, Batcher
from beam_asr.models.serving.host import ModelHost
from beam_asr.records import parsing
from beam_asr.records.record import error_of
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import make_groups, unknown_setting
from beam_asr.records.work import Clip
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage
from beam_asr.transforms.transcribe import TRANSCRIBE_GROUPS, TranscribeSettings

Example = Mapping[str, Any] | np.ndarray

CHUNK_SECONDS = 20 * 60  # of audio in what RunInference calls a batch
RATE = 16000  # Hz, assumed of a waveform whose length is estimated before the model is loaded
SETTINGS = (
    "filepath_key",
    "pred_text_key",
    "channel_key",
    "batch_size",
    "max_batch_seconds",
    "device",
    "decoder",
    "precision",
    "storage_options",
)


class NemoModelHandler(ModelHandler[Example, PredictionResult, ModelHost]):
    """Serves a NeMo model to Beam's ``RunInference``.

    An example is a row, a dict with ``audio_filepath`` and optionally ``offset`` and ``duration``
    in seconds and ``channel``, or a waveform, float32 of shape ``(samples,)`` at the model's rate.
    Each yields a ``PredictionResult`` whose ``inference`` is ``{"pred_text": ...}``, or
    ``{"error": {"stage", "type", "message", "attempts"}}`` if it could not be read or transcribed:
    a bad clip fails alone, and never the batch. Where channels cancel each other in their average,
    it has the ``channel`` that was taken and ``channels_cancel``.

    The model comes from the process's pool (`serving.pool`). Handlers with the same arguments share
    it, as does a ``Transcribe`` with them and ``segmentation="none"``. RunInference hands over some
    twenty minutes of audio at a time, which are divided here into forward passes of clips of like
    length.
    A clip is transcribed in one piece.

    Use ``Transcribe`` instead for long recordings, which it cuts in their pauses; for a run that
    must resume after a crash, since it keeps a journal; for failures as a separate output; or for
    times, confidence or captions. It also reads the next chunk while the model works.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file.
        settings: settings of ``Transcribe`` by name, each of `SETTINGS`.

    Raises:
        TypeError: a setting is unknown.
        SetupError: a value is out of its range.
    """

    def __init__(self, model_name: str, **settings: Any):
        super().__init__(
            min_batch_size=CHUNK_SECONDS,
            max_batch_size=CHUNK_SECONDS,
            element_size_fn=_seconds_of,
        )
        for name in settings:
            if name not in SETTINGS:
                raise unknown_setting(name, SETTINGS)
        requested = TranscribeSettings(
            **make_groups(TRANSCRIBE_GROUPS, {"model_name": model_name, **settings})
        )
        storage = Storage(requested.reading.storage_options)
        self._spec = ModelSpec(
            model_name,
            device=requested.model.device,
            decoder=requested.model.decoder,
            precision=requested.model.precision,
            storage=storage,
        )
        self._reader = ClipReader(
            storage,
            channel=None,
            timeout_seconds=requested.reading.audio_timeout,
            concurrency=requested.reading.max_concurrent_reads,
        )
        self._filepath_key = requested.names.filepath_key
        self._pred_text_key = requested.names.pred_text_key
        self._channel_key = requested.names.channel_key
        self._batch_size = requested.batching.batch_size
        self._max_batch_seconds = requested.batching.max_batch_seconds

    def load_model(self) -> ModelHost:
        """Returns the process's host of the model.

        Raises:
            ModelLoadError: the model cannot be loaded.
        """
        host = pool.host(self._spec)
        host.warm_up(self._batch_size)
        return host

    def run_inference(
        self,
        batch: Sequence[Example],
        model: ModelHost,
        inference_args: dict[str, Any] | None = None,
    ) -> list[PredictionResult]:
        """Returns one result for each example, in their order."""
        del inference_args  # always empty: `validate_inference_args` refuses any
        batcher = Batcher(model, self._batch_size, self._max_batch_seconds)
        chunk = _Chunk(batcher, self._pred_text_key)
        clips: list[Clip] = []
        for number, example in enumerate(batch):
            row = Row("", id=str(number))
            try:
                if isinstance(example, np.ndarray):
                    clip = Clip(row, f"waveform {number}", 0.0, None)
                    chunk.add(clip, _check_waveform(example, number))
                elif not isinstance(example, Mapping):
                    raise BadFieldError(
                        f"an example is a row or a waveform, and not a {type(example).__name__}"
                    )
                else:
                    row = Row.of(dict(example)).with_id(str(number))
                    clips.append(
                        parsing.parse(row, self._filepath_key, channel_key=self._channel_key)
                    )
            except ManifestError as error:
                chunk.fail(row, error)
            except ZeroLengthAudioError as error:
                chunk.fail(row, error)
        for read in self._reader.read(clips, model.sample_rate):
            if isinstance(read, Loaded):
                chunk.add(read.clip, read.waveform)
            elif isinstance(read, Unreadable):
                chunk.fail(read.clip.row, read.error, attempts_of(read.error), "audio")
            del read  # its waveform, before the next one is read
        results = chunk.finish()
        return [
            PredictionResult(
                example,
                result,
                self._spec.model_name,
            )
            for example, result in zip(batch, results, strict=True)
        ]

    def get_num_bytes(self, batch: Sequence[Example]) -> int:
        """Returns the bytes of a batch: of waveforms their samples, of rows their JSON."""
        return sum(
            example.nbytes
            if isinstance(example, np.ndarray)
            else len(json.dumps(dict(example), default=str))
            for example in batch
        )

    def get_metrics_namespace(self) -> str:
        return "beam_asr"

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        if inference_args:
            raise SetupError(
                f"inference_args has {', '.join(map(repr, inference_args))}, but the model takes "
                "none: give NemoModelHandler its arguments"
            )

    def update_model_path(self, model_path: str | None = None) -> None:
        if model_path and model_path != self._spec.model_name:
            raise SetupError(
                f"the model was to be replaced by {model_path!r}, but one that has been loaded "
                "stays for as long as its process: start the pipeline again"
            )


@dataclasses.dataclass
class _Chunk:
    """Holds what RunInference hands over in one call, while it is transcribed.

    Attributes:
        pred_text_key: the field of the text.
        results: what is inferred of each example, by its number.
    """

    batcher: Batcher
    pred_text_key: str
    results: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def add(self, clip: Clip, waveform: np.ndarray) -> None:
        self._store(self.batcher.add(clip, waveform))

    def fail(self, row: Row, error: Exception, attempts: int = 1, stage: str = "") -> None:
        self.results[int(row.id)] = {"error": error_of(row, error, attempts, stage)}

    def finish(self) -> list[dict[str, Any]]:
        """Returns the results of the examples, in their order."""
        self._store(self.batcher.drain())
        return [self.results[number] for number in range(len(self.results))]

    def _store(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            for clip, recognition, attempts, _ in batch.results:
                if isinstance(recognition, Exception):
                    self.fail(clip.row, recognition, attempts, "model")
                    continue
                inference: dict[str, Any] = {self.pred_text_key: recognition.text}
                if clip.taken is not None and clip.taken.louder:
                    inference |= {"channel": clip.taken.channel, "channels_cancel": True}
                self.results[int(clip.row.id)] = inference


def _check_waveform(waveform: np.ndarray, number: int) -> np.ndarray:
    if waveform.ndim != 1 or waveform.dtype != np.float32:
        raise BadFieldError(
            f"a waveform is float32 of shape (samples,), and not {waveform.dtype} of shape "
            f"{waveform.shape}"
        )
    if not len(waveform):
        raise ZeroLengthAudioError(f"waveform {number}: it has no samples")
    return waveform


def _seconds_of(example: Any) -> int:
    """Estimates the length of an example, with its key if it has one, before it is read.

    It is below the length of a chunk, since BatchElements emits an empty chunk before an element
    of that length.
    """
    if isinstance(example, tuple):
        example = example[1]
    if isinstance(example, np.ndarray):
        return max(1, min(example.size // RATE, CHUNK_SECONDS - 1))
    seconds = example.get("duration") if isinstance(example, Mapping) else None
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        return UNKNOWN_SECONDS
    return max(1, round(min(seconds, CHUNK_SECONDS - 1)))
