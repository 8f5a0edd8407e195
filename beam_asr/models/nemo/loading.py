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

from beam_asr.cli.options import DEVICES, PRECISIONS
from beam_asr.model_errors import ModelError
from beam_asr.models import archive_check as model_archive
from beam_asr.models import files as model_files
from beam_asr.models.devices import gpu_memory as device_memory
from beam_asr.models.devices import gpu_slots as cards
from beam_asr.models.devices.resources import UNLIMITED, ResourceError, Resources, use_cpus
from beam_asr.models.nemo import decoding as decoding_config
from beam_asr.models.nemo.decoding import Extras, ModelLoadError
from beam_asr.models.nemo.long_context import AttentionError
from beam_asr.models.nemo.recognizer import NemoRecognizer, Recognition
from beam_asr.models.prompts import NO_PROMPT, Prompt
from beam_asr.storage.storage import Storage

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

    @property
    def longest_seconds(self) -> float:
        """Seconds of audio that it takes in one piece."""

    @property
    def segment_seconds(self) -> float:
        """Seconds of the segments that longer audio is cut into, at most the above."""

    @property
    def tells_times(self) -> bool:
        """Whether its results have the times of tokens: they were asked for, and it has them."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of memory that its weights take."""

    @property
    def prompt_fields(self) -> frozenset[str]:
        """Those fields of a prompt that it takes; none if it takes no prompt."""

    def check_prompt(self, prompt: Prompt) -> None:
        """Refuses a prompt that it cannot follow; what it takes no field for is not looked at.

        Raises:
            PromptError: it does not know a language, or has several for it; or it would not do the
                task with these languages.
        """

    def warm_up(self, batch_size: int) -> None:
        """Finds out what its device can do, for batches of at most so many clips.

        On a GPU it takes seconds, and changes the two properties above.
        """

    def encode(self, waveforms: Sequence[np.ndarray], prompt: Prompt = NO_PROMPT) -> Any:
        """The first half of a forward pass; on a GPU it returns before that is done.

        Args:
            waveforms: mono float32 in [-1, 1] of shape ``(samples,)``, at least one sample each, at
                the model's rate.
            prompt: of all of them, one that ``check_prompt`` takes; by default all is left to the
                model, as with NeMo's ``transcribe()``.

        Returns:
            What ``decode`` takes, the prompt with it.
        """

    def decode(self, encoded: Any) -> list[Recognition | ModelError]:
        """The second half of a forward pass.

        Returns:
            One result for each waveform, in their order; an error for one that the model cannot
            transcribe. What it says of a clip does not depend on its neighbours in the batch. With
            the text comes what the model was loaded for: see ``Recognition``.
        """

    def describe(self) -> dict[str, str]:
        """What it is: model, class, device, precision, versions."""


def load(
    model_name: str,
    device: str = "auto",
    decoder: str | None = None,
    precision: str = "auto",
    storage: Storage | None = None,
    attention: str = "full",
    times: str | None = None,
    confidence: bool = False,
    n_best: int = 0,
    resources: Resources = UNLIMITED,
) -> Recognizer:
    """Loads a NeMo model.

    Times and confidence leave the text as it is, but where a multitask model without an aligner is
    required to tell times: it is asked for them, and may word its text in another way.

    Args:
        model_name: name on Hugging Face or NGC, or path or URI of a ``.nemo`` file.
        device: ``auto`` takes the GPU if there is one, ``cuda`` fails without one.
        decoder: ``rnnt`` or ``ctc`` of a hybrid model; None is the model's own choice.
        precision: of the weights: ``fp32``, ``bf16``, or ``auto``, which is bf16 on a GPU that has
            it and fp32 elsewhere.
        storage: how the storage of a URI is opened.
        attention: of the encoder: ``full``, ``local`` or ``chunked`` (`attention`).
        times: whether each clip's tokens come with their times: ``wanted`` is if the model tells
            them of the same text, ``required`` fails if it tells none, None is not.
        confidence: whether they come with the model's confidence, by
            ``decoding_config.CONFIDENCE``.
        n_best: how many texts with scores are wanted of each clip; 0 is none, 1 leaves the search
            as it is, and with more the text is the best of a beam search.
        resources: what this process may use of its machine.

    Raises:
        ModelLoadError: the model, the device, the decoder or the attention asked for cannot be had;
            or there is less of the machine than was asked for; or the model has no times,
            confidence or beam search, or not together, where these are asked for.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is imported
    try:
        if resources.cpus is not None:
            use_cpus(resources.cpus)
        torch_device = _choose_device(device, resources)
        device_memory.take_part(torch_device, resources.copies, resources.gpu_memory_gb)
    except ResourceError as error:
        raise ModelLoadError(str(error)) from error
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
    decoding_config.decode_in_batches(model)
    if decoder is not None:
        decoding_config.choose_decoder(model, model_name, decoder)
    extras = Extras(times, confidence, n_best)
    decoding_config.set_up(model, model_name, extras)
    if _choose_precision(precision, torch_device) == "bf16":
        _to_bf16(model)
    try:
        loaded = NemoRecognizer(model, model_name, torch_device, extras, attention)
    except AttentionError as error:
        raise ModelLoadError(f"cannot use the model {model_name!r} so: {error}") from error
    if times == decoding_config.REQUIRED and not loaded.tells_times:
        raise decoding_config.no_times(model, model_name)
    return loaded


def _choose_device(device: str, resources: Resources = UNLIMITED) -> torch.device:
    import torch

    if device not in DEVICES:
        raise ModelLoadError(f"device {device!r} is none of {', '.join(DEVICES)}")
    if device == "auto":
        wanted = torch.cuda.is_available() or resources.asked_gpu
        device = "cuda" if wanted else "cpu"
    if device == "cpu":
        return torch.device(device)
    if not torch.cuda.is_available():
        raise ModelLoadError(
            f"{resources.asked_gpu or '--device=cuda'} was asked for, but torch sees no CUDA "
            "device on this worker. Check the driver (nvidia-smi) and the torch build, or choose "
            "--device=cpu"
        )
    names = cards.visible()
    if resources.cards > len(names):
        raise ModelLoadError(
            f"--gpus={resources.cards} was asked for, but torch sees {len(names)} on this worker. "
            "Give fewer, or the worker more, and see CUDA_VISIBLE_DEVICES"
        )
    if len(names) == 1:
        return torch.device(device)
    index = cards.take(names, resources.cards, resources.copies)
    torch.cuda.set_device(index)  # of this thread, in which the model stays
    return torch.device(device, index)


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
