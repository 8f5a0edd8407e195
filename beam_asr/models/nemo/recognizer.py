"""Runs a NeMo model by its forward pass and its decoding."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from beam_asr.errors import ModelError, NotFiniteError
from beam_asr.models import error_tensors
from beam_asr.models.devices import cpu_memory, gpu_memory
from beam_asr.models.devices.batch_size import BatchTrial, Budget, find_budget
from beam_asr.models.engine import MIN_SECONDS
from beam_asr.models.nemo import hypotheses
from beam_asr.models.nemo.cuda_graphs import DecodingGraphs
from beam_asr.models.nemo.decoding import CONFIDENCE, TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families import base, registry
from beam_asr.models.nemo.long_context import Chunked, use_local
from beam_asr.records.outcome import Recognition
from beam_asr.records.prompt import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


logger = logging.getLogger(__name__)
# On two cores, batches of 20 to 60 padded seconds are the fastest: they fit into the caches.
CPU_BATCH_SECONDS = 40.0
# The fixed cost of a batch; an estimate that is too low does more harm than one too high.
CPU_OVERHEAD_SECONDS = 2.0
# For a GPU both are measured, with clips of this length: about the longest of most corpora, and the
# cost of a second of audio grows with the length of its clip.
TRIAL_SECONDS = 30.0
# Longer clips are decoded without a CUDA graph.
MAX_GRAPH_SECONDS = 120.0


class Encoded(NamedTuple):
    """Holds a batch between the two halves of its forward pass, on the model's device.

    Attributes:
        tensors: the arguments of the family's ``decode``, with the prompt where it needs that.
        finite: for each clip, whether it is free of NaN and infinity; one that is not is zeroed.
        done: the event of the device after which they are computed.
        samples: of each clip, without padding.
    """

    tensors: tuple[torch.Tensor, ...]
    finite: torch.Tensor
    done: Any
    samples: Sequence[int]


class NemoRecognizer:
    """Runs a NeMo model by its forward pass and its decoding, without a data loader.

    ``transcribe()`` would use one. On a GPU the encoder runs in one stream and the decoder in
    another, so that the encoder continues with the next batch while the decoder's results are
    fetched. On a CPU, streams do nothing.
    """

    def __init__(
        self,
        model: Any,
        model_name: str,
        device: torch.device,
        request: DecodingRequest = TEXT_ONLY,
        attention: str = "full",
    ):
        import torch

        self._model = model.to(device)
        self._name = model_name
        self._device = device
        self._request = request
        self._decoder_family = registry.family_of(model, request)
        self._family: base.Family = self._decoder_family
        self._chunked: Chunked | None = None
        self._attention = attention
        if attention == "local":
            use_local(model)
        elif attention == "chunked":
            self._family = self._chunked = Chunked(self._decoder_family, model)
        self._graphs = DecodingGraphs(model if self._decoder_family.has_decoding_graphs else None)
        self._streams: Any = torch.get_device_module(device)
        self._decoding_stream = self._streams.Stream()
        self._budget = Budget(CPU_BATCH_SECONDS, CPU_OVERHEAD_SECONDS)
        self._warm_for = 0
        self._cpu_memory = cpu_memory.CpuMemoryGuard(self._encode_noise)
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        # As transcribe() does: no noise added, no frames beyond the batch's longest.
        featurizer = getattr(getattr(model, "preprocessor", None), "featurizer", None)
        for name, value in (("dither", 0.0), ("pad_to", 0)):
            if hasattr(featurizer, name):
                setattr(featurizer, name, value)

    @property
    def sample_rate(self) -> int:
        return int(self._model.cfg.get("sample_rate") or self._model.preprocessor._sample_rate)

    @property
    def default_batch_seconds(self) -> float:
        return self._budget.batch_seconds

    @property
    def batch_overhead_seconds(self) -> float:
        return self._budget.overhead_seconds

    @property
    def max_clip_seconds(self) -> float:
        return MAX_SEGMENT_SECONDS[self._attention]

    @property
    def segment_seconds(self) -> float:
        return segment_seconds(self._model, self._attention)

    @property
    def has_timestamps(self) -> bool:
        return self._decoder_family.has_timestamps

    @property
    def weight_bytes(self) -> int:
        tensors = [*self._model.parameters(), *self._model.buffers()]
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def prompt_fields(self) -> frozenset[str]:
        return self._decoder_family.prompt_fields

    def check_prompt(self, prompt: Prompt) -> None:
        self._decoder_family.check_prompt(prompt)

    def warm_up(self, batch_size: int) -> None:
        if self._device.type == "cpu" or batch_size <= self._warm_for:
            return
        self._capture_graphs(batch_size)
        self._family = self._decoder_family  # a context chunk is shorter than a trial
        self._budget = self._measured_budget(batch_size)
        if self._chunked is not None:
            self._family = self._chunked
            self._chunked.pass_seconds = self._budget.batch_seconds
        self._warm_for = batch_size

    def encode(self, waveforms: Sequence[np.ndarray], prompt: Prompt = NO_PROMPT) -> Encoded:
        import torch

        if self._device.type == "cpu" and self._chunked is None:  # which bounds its memory
            longest = max(map(len, waveforms)) / self.sample_rate
            self._cpu_memory.check(len(waveforms), longest)
        self._model.eval()  # any transcribe() call leaves parts of it in train mode
        with torch.inference_mode():
            tensors = self._family.encode(*self._batch(waveforms), prompt)
            finite = self._family.finite(*tensors)
            _blank(tensors[0], ~finite)
        done = self._streams.Event()
        done.record()
        return Encoded(tensors, finite, done, [len(waveform) for waveform in waveforms])

    def decode(self, encoded: Encoded) -> list[Recognition | ModelError]:
        import torch

        clips = len(encoded.tensors[0])
        with torch.inference_mode(), self._streams.stream(self._decoding_stream):
            self._decoding_stream.wait_event(encoded.done)
            # A transducer's states are of shape (batch, width, frames).
            with self._graphs.limited_to(clips, encoded.tensors[0].shape[-1]):
                decoded = self._family.decode(*encoded.tensors)
            finite = encoded.finite.tolist()
            # The memory of the batch is next used in the other stream.
            finished = self._streams.Event()
            finished.record()
            finished.synchronize()
        if len(decoded) != clips:
            raise RuntimeError(
                f"the model {self._name!r} gave {len(decoded)} results for {clips} clips; "
                "their order cannot be trusted"
            )
        return [
            self._recognition(hypothesis, samples) if is_finite else NotFiniteError()
            for hypothesis, samples, is_finite in zip(decoded, encoded.samples, finite, strict=True)
        ]

    def transcribe(
        self, waveforms: Sequence[np.ndarray], prompt: Prompt = NO_PROMPT
    ) -> list[Recognition | ModelError]:
        """Runs both halves for one batch."""
        return self.decode(self.encode(waveforms, prompt)) if waveforms else []

    def describe(self) -> dict[str, str]:
        import nemo
        import torch

        description = {
            "model": self._name,
            "class": type(self._model).__name__,
            "device": str(self._device),
            "precision": str(next(self._model.parameters()).dtype).removeprefix("torch."),
            "nemo": nemo.__version__,
            "torch": torch.__version__,
        }
        if self._attention != "full":
            description["attention"] = self._attention
        if self._request.confidence:
            settings = (f"{name}={value}" for name, value in CONFIDENCE.items())
            description["confidence"] = ", ".join(settings)
        if self._device.type != "cpu":
            description["device_name"] = torch.cuda.get_device_name(self._device)
            description["cuda_graphs"] = self._graphs.mode
        return description

    def _recognition(self, hypothesis: Any, samples: int) -> Recognition:
        """Makes the result of a clip of ``samples`` samples."""
        fields: dict[str, Any] = {"text": hypotheses.text(hypothesis)}
        if self._request.n_best:
            fields["n_best"] = hypotheses.n_best(
                hypothesis, self._request.n_best, self._decoder_family.score
            )
            fields["score"] = fields["n_best"][0][1]
        if self._request.tokens:
            tokens = self._decoder_family.tokens(hypothesis)
            fields["pieces"] = tuple(tokens.pieces)
            if self._request.confidence and tokens.confidences is not None:
                fields["confidences"] = tuple(tokens.confidences)
            if tokens.spans is not None:
                padding = _padding(samples, self._min_samples) / self.sample_rate
                duration = samples / self.sample_rate
                for name, side in (("starts", 0), ("ends", 1)):
                    fields[name] = tuple(
                        min(max(span[side] - padding, 0.0), duration) for span in tokens.spans
                    )
        return Recognition(**fields)

    @property
    def _min_samples(self) -> int:
        """Returns the samples that a shorter clip is padded to."""
        return int(MIN_SECONDS * self.sample_rate)

    def _encode_noise(self, seconds: float) -> Encoded:
        return self.encode([_noise(seconds, self.sample_rate)], self._decoder_family.any_prompt())

    def _capture_graphs(self, batch_size: int) -> None:
        """Captures the decoding graphs at their maximum size."""
        if not self._graphs.enabled:
            return
        import torch

        states, lengths = self._encode_noise(TRIAL_SECONDS).tensors
        frames = round(states.shape[-1] * MAX_GRAPH_SECONDS / TRIAL_SECONDS)
        with torch.inference_mode():
            empty = states.new_zeros(batch_size, states.shape[1], frames)
            lengths = lengths.new_ones(batch_size)
            samples = [0] * batch_size
            encoded = Encoded((empty, lengths), lengths.bool(), self._streams.Event(), samples)
        self._streams.synchronize()
        self._graphs.capture(lambda: self.decode(encoded), batch_size, frames)

    def _measured_budget(self, batch_size: int) -> Budget:
        """Measures the best padded seconds of a pass, and the fixed cost of a pass."""
        clip, prompt = _noise(TRIAL_SECONDS, self.sample_rate), self._decoder_family.any_prompt()

        def attempt(clips: int) -> BatchTrial | None:
            try:
                self.transcribe([clip] * clips, prompt)  # the first of a shape is slower
                before, started = gpu_memory.reset_peak(self._device), time.monotonic()
                self.transcribe([clip] * clips, prompt)
            except Exception as error:
                if not gpu_memory.is_exhausted(error):
                    raise
                error_tensors.release_frames(error)
                gpu_memory.empty_cache()
                return None
            return BatchTrial(time.monotonic() - started, gpu_memory.peak(self._device) - before)

        free = gpu_memory.free(self._device)
        measured = find_budget(attempt, TRIAL_SECONDS, free, batch_size)
        # Without memory for one clip of a trial, shorter clips may fit.
        budget = measured or Budget(TRIAL_SECONDS, math.inf)
        logger.info("%s: batches of %.0f padded seconds", self._name, budget.batch_seconds)
        return budget

    def _batch(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns zero-padded float32 of shape (batch, samples), and int64 lengths (batch,)."""
        import torch

        padded = [_pad_both_sides(waveform, self._min_samples) for waveform in waveforms]
        samples = self._independent_length(max(map(len, padded)))
        # From pinned memory a GPU copies by itself, while the thread continues.
        pinned = self._device.type != "cpu"
        signal = torch.zeros(len(padded), samples, pin_memory=pinned)
        for row, waveform in zip(signal.numpy(), padded, strict=True):
            row[: len(waveform)] = waveform
        lengths = torch.tensor([len(waveform) for waveform in padded], pin_memory=pinned)
        return (
            signal.to(self._device, non_blocking=True),
            lengths.to(self._device, non_blocking=True),
        )

    def _independent_length(self, samples: int) -> int:
        """Returns a batch length with which no clip's number of frames depends on the others.

        Subsampling by stacking counts a clip's frames as ``(frames + padding) // factor`` with the
        padding of the whole batch (StackingSubsampling in
        nemo/collections/asr/parts/submodules/subsampling.py), so that the last frame of a clip
        comes and goes with its neighbors. A batch of a multiple of the factor needs no padding
        and rounds each of them down, as for a clip alone: there the spectrogram is a frame
        longer than the clip's ``samples // hop`` frames.
        """
        encoder: Any = getattr(self._model, "encoder", None)
        subsampling: Any = getattr(encoder, "pre_encode", None)
        if type(subsampling).__name__ != "StackingSubsampling":
            return samples
        hop = self._model.preprocessor.featurizer.hop_length
        frames = samples // hop + 1
        return samples + -frames % subsampling.subsampling_factor * hop


def _pad_both_sides(waveform: np.ndarray, min_samples: int) -> np.ndarray:
    missing = max(0, min_samples - len(waveform))
    before = _padding(len(waveform), min_samples)
    return np.pad(waveform, (before, missing - before)) if missing else waveform


def _padding(samples: int, min_samples: int) -> int:
    """Returns the samples of padding before a clip."""
    return max(0, min_samples - samples) // 2


def _blank(states: torch.Tensor, clips: torch.Tensor) -> None:
    """Zeros some clips: from NaN a decoder might produce tokens without end."""
    states.masked_fill_(clips.view(-1, *[1] * (states.dim() - 1)), 0.0)


def _noise(seconds: float, rate: int) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(seconds * rate), np.float32)
    return samples / 10


# Seconds of audio that are taken in one piece. Models, above all multitask ones, are trained with
# 40 s. The memory of local attention grows by 4 MB a second, and a chunked encoder takes any
# length; but then several workers cannot share a row.
MAX_SEGMENT_SECONDS = {"full": 40.0, "local": 300.0, "chunked": 1200.0}
MIN_SEGMENT_SECONDS = 10.0  # of a segment


def segment_seconds(model: Any, attention: str) -> float:
    """Returns the seconds of the segments of audio that is too long to be taken in one piece.

    For a CTC model or a transducer with full attention it is as many frames as the encoder is wide,
    within 10 and 40 s: attention, which grows with the square of the frames, makes the encoder
    about a fifth slower there, and twice as slow at three times as many (benchmarks/RESULTS.md),
    while the text is the same. It depends on the model only, so that all machines plan alike.
    """
    encoder = getattr(model, "encoder", None)
    width, factor = getattr(encoder, "d_model", None), getattr(encoder, "subsampling_factor", None)
    if attention != "full" or not isinstance(width, int) or factor is None:
        return MAX_SEGMENT_SECONDS[attention]
    if registry.family_class(model).attends_to_whole_clip:
        return MAX_SEGMENT_SECONDS[attention]
    stride = float(model.cfg.preprocessor.get("window_stride") or 0.01)
    return min(
        max(width * stride * int(factor), MIN_SEGMENT_SECONDS), MAX_SEGMENT_SECONDS[attention]
    )
