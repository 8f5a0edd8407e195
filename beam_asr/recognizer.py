"""A NeMo model behind a narrow protocol: load it, hand it waveforms, get texts.

Nothing of torch or NeMo is imported before a model is loaded: importing NeMo takes half a minute,
which only the worker that needs it may pay.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from beam_asr import model_archive, model_files
from beam_asr.options import DECODERS, DEVICES, PRECISIONS
from beam_asr.storage import Storage

if TYPE_CHECKING:
    import torch


# transcribe() pads a shorter clip with zeros on both sides to this many seconds, the odd sample
# behind, and counts the padding as audio (TranscriptionTensorDataset in
# nemo/collections/asr/parts/mixins/transcription.py). The same text takes the same input; and it
# keeps clips of less than a frame, of which NeMo makes nothing or an exception, from the model.
SHORTEST_SECONDS = 1.0

# The defaults of transcribe() for what a prompt-conditioned model's configuration leaves open.
PROMPT_LANGUAGE = "auto"
MULTITASK_SLOTS = {"source_lang": "en", "target_lang": "en", "task": "asr", "pnc": "yes"}

# On two cores, batches of 20 to 60 padded seconds are the fastest: caches hold them.
CPU_BATCH_SECONDS = 40.0
# What a batch costs whatever it holds; too little is the worse guess.
CPU_OVERHEAD_SECONDS = 2.0
CUDA_OVERHEAD_SECONDS = 20.0
# How long OpenMP's threads spin for the next operation before they sleep. By default it is so long
# that they take the processor from the threads that read; asleep at once, they wake too late.
SPIN_COUNT = "10000"
# A careful first choice for the largest models that NeMo publishes, about a billion parameters.
CUDA_BATCH_SECONDS_A_GIB = 20.0


@dataclasses.dataclass(frozen=True)
class Recognition:
    """What a model heard in one clip. Holds no tensor, so that it can cross a shuffle."""

    text: str


class Recognizer(Protocol):
    """A loaded model. One thread at a time may call it."""

    @property
    def sample_rate(self) -> int:
        """The rate of the waveforms it takes, in Hz."""

    @property
    def default_batch_seconds(self) -> float:
        """Padded seconds that a forward pass takes well on its device."""

    @property
    def batch_overhead_seconds(self) -> float:
        """Seconds of audio that it would transcribe in the time that any batch costs."""

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Recognition]:
        """Transcribes one batch in one forward pass.

        Args:
            waveforms: mono float32 in [-1, 1] of shape ``(samples,)``, at least one sample each, at
                the model's rate.

        Returns:
            One result for each waveform, in their order. A clip's text does not depend on its
            neighbours in the batch.
        """

    def describe(self) -> dict[str, str]:
        """What it is: model, class, device, precision, versions."""


class ModelLoadError(RuntimeError):
    """A model cannot be loaded; says which, why, and what to do."""


def load(
    model_name: str,
    device: str = "auto",
    decoder: str | None = None,
    precision: str = "auto",
    storage: Storage | None = None,
) -> Recognizer:
    """Loads a NeMo model.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file.
        device: ``auto`` takes the GPU if there is one, ``cuda`` fails without one.
        decoder: ``rnnt`` or ``ctc`` of a hybrid model; None is the model's own choice.
        precision: of the weights: ``fp32``, ``bf16``, or ``auto``, which is bf16 on a GPU that has
            it and fp32 elsewhere.
        storage: how the storage of a URI is opened.

    Raises:
        ModelLoadError: the model, the device or the decoder asked for cannot be had.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is imported
    torch_device = _choose_device(device)
    # What they say of telemetry and training set-up is of no use to who transcribes.
    logging.getLogger("nv_one_logger").setLevel(logging.ERROR)
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)
    try:
        if model_files.is_file_name(model_name):
            path = model_files.local_copy(storage or Storage(), model_name)
            model_archive.check_archive(path)
            model = ASRModel.restore_from(path, map_location=torch_device)
        else:
            with model_files.machine_lock(model_name):  # one download, however many processes
                model = ASRModel.from_pretrained(model_name, map_location=torch_device)
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:600]
        raise ModelLoadError(
            f"cannot load the model {model_name!r}: {cause}. {_remedy(model_name)}"
        ) from error
    if decoder is not None:
        _choose_decoder(model, model_name, decoder)
    if _choose_precision(precision, torch_device) == "bf16":
        _to_bf16(model)
    return NemoRecognizer(model, model_name, torch_device)


class NemoRecognizer:
    """Drives a NeMo model by its forward and its decoding, without ``transcribe()``'s data loader.

    Every decoder family has its route; a model of another family goes through ``transcribe()``.
    """

    def __init__(self, model: Any, model_name: str, device: torch.device):
        self._model = model.to(device)
        self._name = model_name
        self._device = device
        self._decode = self._route()
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
        if self._device.type == "cpu":
            return CPU_BATCH_SECONDS
        import torch

        free, _ = torch.cuda.mem_get_info(self._device)
        return CUDA_BATCH_SECONDS_A_GIB * free / 2**30

    @property
    def batch_overhead_seconds(self) -> float:
        return CPU_OVERHEAD_SECONDS if self._device.type == "cpu" else CUDA_OVERHEAD_SECONDS

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Recognition]:
        if not waveforms:
            return []
        import torch

        self._model.eval()  # transcribe(), by anyone, leaves parts of it in train mode
        with torch.inference_mode():
            hypotheses = self._decode(waveforms)
        if len(hypotheses) != len(waveforms):
            raise RuntimeError(
                f"the model {self._name!r} gave {len(hypotheses)} results for {len(waveforms)} "
                "clips; their order cannot be trusted"
            )
        return [Recognition(_text(hypothesis)) for hypothesis in hypotheses]

    def describe(self) -> dict[str, str]:
        import nemo
        import torch

        return {
            "model": self._name,
            "class": type(self._model).__name__,
            "device": str(self._device),
            "precision": str(next(self._model.parameters()).dtype).removeprefix("torch."),
            "nemo": nemo.__version__,
            "torch": torch.__version__,
        }

    def _route(self) -> Callable[[Sequence[np.ndarray]], list[Any]]:
        from nemo.collections.asr import models

        model = self._model
        if isinstance(model, models.EncDecMultiTaskModel):
            return self._decode_multitask
        if isinstance(model, models.EncDecRNNTModel):
            return self._decode_transducer  # hybrids and prompt-conditioned ones too
        if isinstance(model, models.EncDecCTCModel):
            return self._decode_ctc
        return self._decode_by_transcribe

    def _decode_ctc(self, waveforms: Sequence[np.ndarray]) -> list[Any]:
        signal, lengths = self._batch(waveforms)
        log_probs, frames, _ = self._model(input_signal=signal, input_signal_length=lengths)
        return self._model.decoding.ctc_decoder_predictions_tensor(
            log_probs, decoder_lengths=frames
        )

    def _decode_transducer(self, waveforms: Sequence[np.ndarray]) -> list[Any]:
        import torch

        signal, lengths = self._batch(waveforms)
        inputs = {"input_signal": signal, "input_signal_length": lengths}
        languages = self._model.cfg.get("model_defaults", {}).get("prompt_dictionary")
        if languages is not None:  # one target language for each clip, transcribe()'s default
            prompts = torch.full((len(waveforms),), languages[PROMPT_LANGUAGE])
            inputs["prompt_indices"] = prompts.to(self._device)
        encoded, frames = self._model(**inputs)
        if getattr(self._model, "cur_decoder", "rnnt") == "ctc":
            log_probs = self._model.ctc_decoder(encoder_output=encoded)
            return self._model.ctc_decoding.ctc_decoder_predictions_tensor(
                log_probs, decoder_lengths=frames
            )
        return self._model.decoding.rnnt_decoder_predictions_tensor(encoded, frames)

    def _decode_multitask(self, waveforms: Sequence[np.ndarray]) -> list[Any]:
        signal, lengths = self._batch(waveforms)
        _, _, states, mask = self._model(input_signal=signal, input_signal_length=lengths)
        prompt = self._model.prompt.encode_dialog(turns=self._turns())["context_ids"]
        return self._model.decoding.decode_predictions_tensor(
            encoder_hidden_states=states,
            encoder_input_mask=mask,
            decoder_input_ids=prompt.unsqueeze(0).repeat(len(waveforms), 1).to(self._device),
            return_hypotheses=False,
        )

    def _turns(self) -> list[dict[str, Any]]:
        """The prompt of a multitask model: its own defaults, and for want of them English ASR."""
        turns = []
        for turn in self._model.prompt.get_default_dialog_slots():
            slots = {
                slot: MULTITASK_SLOTS.get(slot, "") if value is None else str(value)
                for slot, value in turn["slots"].items()
            }
            if "source_lang" in slots:
                # encode_dialog() takes all slots for encoded already unless one is a plain word.
                slots["source_lang"] = slots["source_lang"].removeprefix("<|").removesuffix("|>")
            turns.append({**turn, "slots": slots})
        return turns

    def _decode_by_transcribe(self, waveforms: Sequence[np.ndarray]) -> list[Any]:
        results = self._model.transcribe(list(waveforms), batch_size=len(waveforms), verbose=False)
        # Some models give (best, all) for transducer decoding.
        return results[0] if isinstance(results, tuple) else results

    def _batch(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Zero-padded float32 of shape (batch, samples), and int64 lengths (batch,)."""
        import torch

        shortest = int(SHORTEST_SECONDS * self.sample_rate)
        padded = [_pad_both_sides(waveform, shortest) for waveform in waveforms]
        samples = self._independent_length(max(map(len, padded)))
        signal = np.zeros((len(padded), samples), np.float32)
        for row, waveform in zip(signal, padded, strict=True):
            row[: len(waveform)] = waveform
        lengths = torch.tensor([len(waveform) for waveform in padded])
        return torch.from_numpy(signal).to(self._device), lengths.to(self._device)

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
    return np.pad(waveform, (missing // 2, missing - missing // 2)) if missing else waveform


def _text(hypothesis: Any) -> str:
    if isinstance(hypothesis, list):  # n-best: the best comes first
        hypothesis = hypothesis[0]
    return str(getattr(hypothesis, "text", hypothesis))


def _choose_device(device: str) -> torch.device:
    import torch

    if device not in DEVICES:
        raise ModelLoadError(f"device {device!r} is none of {', '.join(DEVICES)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(
            "--device=cuda was asked for, but torch sees no CUDA device on this worker. Check the "
            "driver (nvidia-smi) and the torch build, or choose --device=cpu"
        )
    return torch.device(device)


def _choose_decoder(model: Any, model_name: str, decoder: str) -> None:
    if decoder not in DECODERS:
        raise ModelLoadError(f"decoder {decoder!r} is none of {', '.join(DECODERS)}")
    if not hasattr(model, "cur_decoder"):
        raise ModelLoadError(
            f"--decoder={decoder} chooses a decoder of a hybrid model, but {model_name!r} is a "
            f"{type(model).__name__}, which has one alone; leave the flag out"
        )
    model.change_decoding_strategy(decoder_type=decoder, verbose=False)


def _choose_precision(precision: str, device: torch.device) -> str:
    import torch

    if precision not in PRECISIONS:
        raise ModelLoadError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if has_bf16 else "fp32"
    return precision


def _to_bf16(model: Any) -> None:
    """Rounds the weights; the spectrogram is still made in float32 and rounded at its end."""
    import torch

    preprocessor = getattr(model, "preprocessor", None)
    for child in model.children():
        if child is not preprocessor:
            child.to(torch.bfloat16)
    sentinel = getattr(preprocessor, "dtype_sentinel_tensor", None)
    if preprocessor is not None and sentinel is not None:  # by which NeMo casts what it gives
        preprocessor.dtype_sentinel_tensor = sentinel.to(torch.bfloat16)


def _remedy(model_name: str) -> str:
    if model_files.is_file_name(model_name):
        return "Check that the file is there, can be read by the worker, and is a whole .nemo file"
    return (
        "Check the name on huggingface.co or catalog.ngc.nvidia.com, the network, and HF_TOKEN for "
        "a gated model; or give the path or URI of a .nemo file"
    )
