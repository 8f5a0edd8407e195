"""A model for pipelines that are composed of Beam's own ``RunInference``."""

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
from beam_asr.records.work import Clip
from beam_asr.settings import DECODERS, DEVICES, PRECISIONS
from beam_asr.storage.retry import attempts_of
from beam_asr.storage.storage import Storage

Example = Mapping[str, Any] | np.ndarray

CHUNK_SECONDS = 20 * 60  # of audio in what RunInference calls a batch
RATE = 16000  # Hz, of a waveform whose length is reckoned before the model is there
AUDIO_TIMEOUT = 300.0  # seconds
CONCURRENT_READS = 32


class NemoModelHandler(ModelHandler[Example, PredictionResult, ModelHost]):
    """A NeMo model for Beam's ``RunInference``.

    An example is a row, a dict with ``audio_filepath`` and optionally ``offset`` and ``duration``
    in seconds, or a waveform, float32 of shape ``(samples,)`` at the model's rate. Each gives a
    ``PredictionResult`` whose ``inference`` is ``{"pred_text": ...}``, or
    ``{"error": {"stage", "type", "message", "attempts"}}`` if it could not be read or transcribed:
    one bad clip fails alone, and none fails the batch.

    The model is the process's (`model_pool`), which handlers with the same arguments share, and
    ``Transcribe`` with them and ``segmentation="none"``. RunInference hands over some twenty
    minutes of audio at a time, which are divided here into forward passes of clips of like length.
    A clip is transcribed in one piece.

    Take ``Transcribe`` instead where recordings are long, since it cuts them in their pauses; where
    a run is to go on after a crash, since it keeps a journal; where failures are to be an output
    of their own; or where times, confidence or captions are wanted. It also reads on from one
    window to the next while the model works.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file.
        filepath_key: the field of a row that names the audio.
        pred_text_key: the field of ``inference`` that holds the text.
        batch_size: most clips in one forward pass.
        max_batch_seconds: most padded seconds in one forward pass (clips x longest clip); None
            chooses by the device.
        device: ``auto`` takes a GPU if there is one, ``cuda`` fails without one, ``cpu``.
        decoder: ``rnnt`` or ``ctc`` of a hybrid model; None is the model's own choice.
        precision: of the weights: ``fp32``, ``bf16``, or ``auto``, which is bf16 on a GPU that has
            it.
        storage_options: for each protocol what its fsspec file system is opened with.

    Raises:
        SetupError: an argument is out of its range.
    """

    def __init__(
        self,
        model_name: str,
        filepath_key: str = "audio_filepath",
        pred_text_key: str = "pred_text",
        batch_size: int = 128,
        max_batch_seconds: float | None = None,
        device: str = "auto",
        decoder: str | None = None,
        precision: str = "auto",
        storage_options: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        super().__init__(
            min_batch_size=CHUNK_SECONDS,
            max_batch_size=CHUNK_SECONDS,
            element_size_fn=_seconds_of,
        )
        if batch_size < 1:
            raise SetupError(f"batch_size is {batch_size}, but must be at least 1")
        if max_batch_seconds is not None and not max_batch_seconds > 0:
            raise SetupError(f"max_batch_seconds is {max_batch_seconds}, but must be above 0")
        for name, value, allowed in (
            ("device", device, DEVICES),
            ("decoder", decoder, (None, *DECODERS)),
            ("precision", precision, PRECISIONS),
        ):
            if value not in allowed:
                known = ", ".join(filter(None, allowed))
                raise SetupError(f"{name} is {value!r}, but must be one of {known}")
        storage = Storage(storage_options or {})
        self._spec = ModelSpec(
            model_name, device=device, decoder=decoder, precision=precision, storage=storage
        )
        self._reader = ClipReader(
            storage,
            channel=None,
            timeout_seconds=AUDIO_TIMEOUT,
            concurrency=CONCURRENT_READS,
        )
        self._filepath_key = filepath_key
        self._pred_text_key = pred_text_key
        self._batch_size = batch_size
        self._max_batch_seconds = max_batch_seconds

    def load_model(self) -> ModelHost:
        """The process's host of the model.

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
        """One result for each example, in their order."""
        del inference_args  # there are none, as `validate_inference_args` has seen
        window = _Chunk(Batcher(model, self._batch_size, self._max_batch_seconds))
        rows: list[Clip] = []
        for number, example in enumerate(batch):
            row = Row("", id=str(number))
            try:
                if isinstance(example, np.ndarray):
                    clip = Clip(row, f"waveform {number}", 0.0, None)
                    window.add(clip, _checked(example, number))
                elif not isinstance(example, Mapping):
                    raise BadFieldError(
                        f"an example is a row or a waveform, and not a {type(example).__name__}"
                    )
                else:
                    row = Row.of(dict(example)).with_id(str(number))
                    rows.append(parsing.parse(row, self._filepath_key))
            except ManifestError as error:
                window.fail(row, error)
            except ZeroLengthAudioError as error:
                window.fail(row, error)
        for read in self._reader.read(rows, model.sample_rate):
            if isinstance(read, Loaded):
                window.add(read.clip, read.waveform)
            elif isinstance(read, Unreadable):
                window.fail(read.clip.row, read.error, attempts_of(read.error), "audio")
            del read  # its waveform, before the next one is read
        ended = window.end()
        return [
            PredictionResult(
                example,
                {self._pred_text_key: each} if isinstance(each, str) else {"error": each},
                self._spec.model_name,
            )
            for example, each in zip(batch, ended, strict=True)
        ]

    def get_num_bytes(self, batch: Sequence[Example]) -> int:
        """Of waveforms their samples, of rows their JSON."""
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
                "stays for as long as its process: start the pipeline anew"
            )


@dataclasses.dataclass
class _Chunk:
    """What RunInference hands over in one call, while it is transcribed.

    Attributes:
        ended: the text of each example, or its error, by its number.
    """

    backlog: Batcher
    ended: dict[int, str | dict[str, Any]] = dataclasses.field(default_factory=dict)

    def add(self, clip: Clip, waveform: np.ndarray) -> None:
        self._take(self.backlog.add(clip, waveform))

    def fail(self, row: Row, error: Exception, attempts: int = 1, stage: str = "") -> None:
        self.ended[int(row.id)] = error_of(row, error, attempts, stage)

    def end(self) -> list[str | dict[str, Any]]:
        """What became of the examples, in their order."""
        self._take(self.backlog.drain())
        return [self.ended[number] for number in range(len(self.ended))]

    def _take(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            for clip, heard, attempts, _ in batch.results:
                if isinstance(heard, Exception):
                    self.fail(clip.row, heard, attempts, "model")
                else:
                    self.ended[int(clip.row.id)] = heard.text


def _checked(waveform: np.ndarray, number: int) -> np.ndarray:
    if waveform.ndim != 1 or waveform.dtype != np.float32:
        raise BadFieldError(
            f"a waveform is float32 of shape (samples,), and not {waveform.dtype} of shape "
            f"{waveform.shape}"
        )
    if not len(waveform):
        raise ZeroLengthAudioError(f"waveform {number}: it has no samples")
    return waveform


def _seconds_of(example: Any) -> int:
    """About how long an example is, before it is read; with its key, if it has one.

    Never as long as the window, before which BatchElements would give an empty one.
    """
    if isinstance(example, tuple):
        example = example[1]
    if isinstance(example, np.ndarray):
        return max(1, min(example.size // RATE, CHUNK_SECONDS - 1))
    seconds = example.get("duration") if isinstance(example, Mapping) else None
    if not isinstance(seconds, (int, float)) or not seconds > 0:
        return UNKNOWN_SECONDS
    return max(1, round(min(seconds, CHUNK_SECONDS - 1)))
