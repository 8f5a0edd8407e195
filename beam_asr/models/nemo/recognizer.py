"""A NeMo model, driven by its forward and its decoding."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from beam_asr import errors
from beam_asr.errors import ModelError, NotFiniteError
from beam_asr.models.devices import batch_size as batch_budget
from beam_asr.models.devices import cpu_memory, gpu_memory
from beam_asr.models.devices.batch_size import BatchTrial, Budget
from beam_asr.models.engine import MIN_SECONDS
from beam_asr.models.nemo import hypotheses
from beam_asr.models.nemo.cuda_graphs import DecodingGraphs
from beam_asr.models.nemo.decoding import CONFIDENCE, TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families import base, registry
from beam_asr.models.nemo.long_context import Chunked, use_local
from beam_asr.records.outcome import Recognition
from beam_asr.settings import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


if TYPE_CHECKING:
    import torch


logger = logging.getLogger(__name__)
# On two cores, batches of 20 to 60 padded seconds are the fastest: caches hold them.
CPU_BATCH_SECONDS = 40.0
# What a batch costs whatever it holds; too little is the worse guess.
CPU_OVERHEAD_SECONDS = 2.0
# For a GPU both are measured, with clips of this length: about the longest of most corpora, and
# what a second of audio takes grows with the length of its clip.
TRIAL_SECONDS = 30.0
# Longer clips are decoded without a CUDA graph.
MAX_GRAPH_SECONDS = 120.0


class Encoded(NamedTuple):
    """A batch between the two halves of its forward pass, on the model's device.

    Attributes:
        tensors: what its decoder takes, the prompt too where it is for the decoder.
        finite: for each clip, whether it is free of NaN and infinity; one that is not, is blank.
        done: the event of the device by which they are there.
        samples: of the clips, as they were given.
    """

    tensors: tuple[torch.Tensor, ...]
    finite: torch.Tensor
    done: Any
    samples: Sequence[int]


class NemoRecognizer:
    """Drives a NeMo model by its forward and its decoding, without ``transcribe()``'s data loader.

    On a GPU the encoder works in one stream and the decoder in another, so that the one goes on
    with the next batch while the other's results are fetched. On a CPU, streams do nothing.
    """

    def __init__(
        self,
        model: Any,
        model_name: str,
        device: torch.device,
        extras: DecodingRequest = TEXT_ONLY,
        attention: str = "full",
    ):
        import torch

        self._model = model.to(device)
        self._name = model_name
        self._device = device
        self._extras = extras
        self._teller = registry.family_of(model, extras)
        self._family: base.Family = self._teller
        self._chunked: Chunked | None = None
        self._attention = attention
        if attention == "local":
            use_local(model)
        elif attention == "chunked":
            self._family = self._chunked = Chunked(self._teller, model)
        self._graphs = DecodingGraphs(model if self._teller.has_decoding_graphs else None)
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
        return self._teller.has_timestamps

    @property
    def weight_bytes(self) -> int:
        held = [*self._model.parameters(), *self._model.buffers()]
        return sum(tensor.nbytes for tensor in held)

    @property
    def prompt_fields(self) -> frozenset[str]:
        return self._teller.prompt_fields

    def check_prompt(self, prompt: Prompt) -> None:
        self._teller.check_prompt(prompt)

    def warm_up(self, batch_size: int) -> None:
        if self._device.type == "cpu" or batch_size <= self._warm_for:
            return
        self._capture_graphs(batch_size)
        self._family = self._teller  # a window is shorter than a trial
        self._budget = self._measured_budget(batch_size)
        if self._chunked is not None:
            self._family = self._chunked
            self._chunked.pass_seconds = self._budget.batch_seconds
        self._warm_for = batch_size

    def encode(self, waveforms: Sequence[np.ndarray], prompt: Prompt = NO_PROMPT) -> Encoded:
        import torch

        if self._device.type == "cpu" and self._chunked is None:  # whose memory is bounded
            longest = max(map(len, waveforms)) / self.sample_rate
            self._cpu_memory.check(len(waveforms), longest)
        self._model.eval()  # transcribe(), by anyone, leaves parts of it in train mode
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
            with self._graphs.fitting(clips, encoded.tensors[0].shape[-1]):
                decoded = self._family.decode(*encoded.tensors)
            finite = encoded.finite.tolist()
            # Whoever gets the memory of the batch next works in the other stream.
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
        """Both halves, of one batch."""
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
        if self._extras.confidence:
            named = (f"{name}={value}" for name, value in CONFIDENCE.items())
            description["confidence"] = ", ".join(named)
        if self._device.type != "cpu":
            description["device_name"] = torch.cuda.get_device_name(self._device)
            description["cuda_graphs"] = self._graphs.mode
        return description

    def _recognition(self, hypothesis: Any, samples: int) -> Recognition:
        """Of a clip of so many samples."""
        heard: dict[str, Any] = {"text": hypotheses.text(hypothesis)}
        if self._extras.n_best:
            heard["n_best"] = hypotheses.n_best(hypothesis, self._extras.n_best, self._teller.score)
            heard["score"] = heard["n_best"][0][1]
        if self._extras.tokens:
            tokens = self._teller.tokens(hypothesis)
            heard["pieces"] = tuple(tokens.pieces)
            if self._extras.confidence and tokens.confidences is not None:
                heard["confidences"] = tuple(tokens.confidences)
            if tokens.spans is not None:
                padding = _padding(samples, self._shortest) / self.sample_rate
                duration = samples / self.sample_rate
                for name, side in (("starts", 0), ("ends", 1)):
                    heard[name] = tuple(
                        min(max(span[side] - padding, 0.0), duration) for span in tokens.spans
                    )
        return Recognition(**heard)

    @property
    def _shortest(self) -> int:
        """Samples that a clip is padded to."""
        return int(MIN_SECONDS * self.sample_rate)

    def _encode_noise(self, seconds: float) -> Encoded:
        return self.encode([_noise(seconds, self.sample_rate)], self._teller.any_prompt())

    def _capture_graphs(self, batch_size: int) -> None:
        """Captures the decoding graphs at their ceiling."""
        if not self._graphs.wanted:
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
        """The padded seconds that a pass takes well, and what a pass costs in any case."""
        clip, prompt = _noise(TRIAL_SECONDS, self.sample_rate), self._teller.any_prompt()

        def attempt(clips: int) -> BatchTrial | None:
            try:
                self.transcribe([clip] * clips, prompt)  # the first of a shape is slower
                before, started = gpu_memory.reset_peak(self._device), time.monotonic()
                self.transcribe([clip] * clips, prompt)
            except Exception as error:
                if not gpu_memory.is_exhausted(error):
                    raise
                errors.release_frames(error)
                gpu_memory.empty_cache()
                return None
            return BatchTrial(time.monotonic() - started, gpu_memory.peak(self._device) - before)

        free = gpu_memory.free(self._device)
        found = batch_budget.find(attempt, TRIAL_SECONDS, free, batch_size)
        budget = found or Budget(TRIAL_SECONDS, math.inf)  # too little memory: short clips may do
        logger.info("%s: batches of %.0f padded seconds", self._name, budget.batch_seconds)
        return budget

    def _batch(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero-padded float32 of shape (batch, samples), and int64 lengths (batch,)."""
        import torch

        padded = [_pad_both_sides(waveform, self._shortest) for waveform in waveforms]
        samples = self._independent_length(max(map(len, padded)))
        # From pinned memory a GPU copies by itself, while the thread goes on.
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
        """How long to make a batch so that no clip's number of frames depends on the others.

        Subsampling by stacking counts a clip's frames as ``(frames + padding) // factor`` with the
        padding of the whole batch (StackingSubsampling in
        nemo/collections/asr/parts/submodules/subsampling.py), so that the last frame of a clip
        comes and goes with its neighbours. A batch of a multiple of the factor needs no padding
        and rounds each of them down, which is what a clip alone gets: there the spectrogram is a
        frame longer than the clip's ``samples // hop`` frames.
        """
        encoder: Any = getattr(self._model, "encoder", None)
        subsampling: Any = getattr(encoder, "pre_encode", None)
        if type(subsampling).__name__ != "StackingSubsampling":
            return samples
        hop = self._model.preprocessor.featurizer.hop_length
        frames = samples // hop + 1
        return samples + -frames % subsampling.subsampling_factor * hop


def _pad_both_sides(waveform: np.ndarray, shortest: int) -> np.ndarray:
    missing = max(0, shortest - len(waveform))
    before = _padding(len(waveform), shortest)
    return np.pad(waveform, (before, missing - before)) if missing else waveform


def _padding(samples: int, shortest: int) -> int:
    """Samples that are put before a clip."""
    return max(0, shortest - samples) // 2


def _blank(states: torch.Tensor, clips: torch.Tensor) -> None:
    """Zeros some clips: of NaN a decoder might make tokens without end."""
    states.masked_fill_(clips.view(-1, *[1] * (states.dim() - 1)), 0.0)


def _noise(seconds: float, rate: int) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal(round(seconds * rate), np.float32)
    return samples / 10


# Seconds of audio that are taken in one piece. 40 s is what models are trained with, multitask ones
# above all. The memory of local attention grows by 4 MB a second, and a chunked encoder takes any
# length; but then a row is no work for several workers.
MAX_SEGMENT_SECONDS = {"full": 40.0, "local": 300.0, "chunked": 1200.0}
MIN_SEGMENT_SECONDS = 10.0  # of a segment


def segment_seconds(model: Any, attention: str) -> float:
    """Seconds of the segments that audio is cut into which is too long to be taken in one piece.

    Of a CTC model or a transducer with full attention it is as many frames as the encoder is wide,
    within 10 and 40 s: attention, which grows with the square of the frames, has made the encoder
    about a fifth slower there, and twice as slow at three times as many (benchmarks/RESULTS.md),
    while the text is the same. It follows from the model alone, so that any machine plans alike.
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
