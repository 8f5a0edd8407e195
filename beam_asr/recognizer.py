"""A NeMo model behind a narrow protocol: load it, hand it waveforms, get texts.

Nothing of torch or NeMo is imported before a model is loaded: importing NeMo takes half a minute,
which only the worker that needs it may pay.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from beam_asr import device_memory, model_archive, model_files
from beam_asr.model_errors import ModelError
from beam_asr.nemo_recognizer import NemoRecognizer, Recognition
from beam_asr.options import DECODERS, DEVICES, PRECISIONS
from beam_asr.storage import Storage

if TYPE_CHECKING:
    import torch

# How long OpenMP's threads spin for the next operation before they sleep. By default it is so long
# that they take the processor from the threads that read; asleep at once, they wake too late.
SPIN_COUNT = "10000"


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

    def warm_up(self, batch_size: int) -> None:
        """Finds out what its device can do, for batches of at most so many clips.

        On a GPU it takes seconds, and changes the two properties above.
        """

    def encode(self, waveforms: Sequence[np.ndarray]) -> Any:
        """The first half of a forward pass; on a GPU it returns before that is done.

        Args:
            waveforms: mono float32 in [-1, 1] of shape ``(samples,)``, at least one sample each, at
                the model's rate.

        Returns:
            What ``decode`` takes.
        """

    def decode(self, encoded: Any) -> list[Recognition | ModelError]:
        """The second half of a forward pass.

        Returns:
            One result for each waveform, in their order; an error for one that the model cannot
            transcribe. A clip's text does not depend on its neighbours in the batch.
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
    copies: int = 1,
) -> Recognizer:
    """Loads a NeMo model.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file.
        device: ``auto`` takes the GPU if there is one, ``cuda`` fails without one.
        decoder: ``rnnt`` or ``ctc`` of a hybrid model; None is the model's own choice.
        precision: of the weights: ``fp32``, ``bf16``, or ``auto``, which is bf16 on a GPU that has
            it and fp32 elsewhere.
        storage: how the storage of a URI is opened.
        copies: processes that share a GPU, each of which takes its part of the memory.

    Raises:
        ModelLoadError: the model, the device or the decoder asked for cannot be had.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is imported
    torch_device = _choose_device(device)
    device_memory.take_part(torch_device, copies)
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
                file = str(ASRModel.from_pretrained(model_name, return_model_file=True))
                if os.path.isfile(file):  # else a repository without a file of its name
                    model_archive.check_archive(file)
                model = ASRModel.from_pretrained(model_name, map_location=torch_device)
    except model_archive.ModelFileError as error:  # which says what to do
        raise ModelLoadError(f"cannot load the model {model_name!r}: {error}") from error
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:600]
        raise ModelLoadError(
            f"cannot load the model {model_name!r}: {cause}. {_remedy(model_name)}"
        ) from error
    _decode_in_batches(model)
    if decoder is not None:
        _choose_decoder(model, model_name, decoder)
    if _choose_precision(precision, torch_device) == "bf16":
        _to_bf16(model)
    return NemoRecognizer(model, model_name, torch_device)


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


def _decode_in_batches(model: Any) -> None:
    """Has a greedy decoder take a batch at once and not clip by clip; the texts are the same."""
    chosen = getattr(model, "cur_decoder", None)
    ctc_of_hybrid = model.cfg.get("aux_ctc", {}).get("decoding")
    for config, options in (
        (model.cfg.get("decoding"), {}),
        (ctc_of_hybrid, {"decoder_type": "ctc"}),
    ):
        if config is not None and config.get("strategy") == "greedy":
            config.strategy = "greedy_batch"
            model.change_decoding_strategy(config, verbose=False, **options)
    if chosen is not None:  # each change also chooses the decoder
        model.change_decoding_strategy(decoder_type=chosen, verbose=False)


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
