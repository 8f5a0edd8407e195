"""Loads NeMo models: checks, restores, places and configures them.

torch and NeMo are imported only when a model is loaded: importing NeMo takes half a minute, which
only the worker that needs it should pay.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from beam_asr.errors import (
    AttentionError,
    ModelFileError,
    ModelLoadError,
    ResourceError,
    for_message,
)
from beam_asr.models import archive_check, files
from beam_asr.models.devices import gpu_memory, gpu_slots
from beam_asr.models.devices.resources import use_cpus
from beam_asr.models.engine import Engine, ModelSpec, Recognizer
from beam_asr.models.nemo import decoding
from beam_asr.models.nemo.decoding import DecodingRequest
from beam_asr.models.nemo.families import registry
from beam_asr.models.nemo.recognizer import NemoRecognizer
from beam_asr.settings import DEVICES, PRECISIONS, UNLIMITED, Resources

if TYPE_CHECKING:
    import torch


# How long OpenMP's threads spin for the next operation before they sleep. By default it is so long
# that they take the processor from the threads that read; asleep at once, they wake too late.
SPIN_COUNT = "10000"


def load(spec: ModelSpec) -> Recognizer:
    """Loads a NeMo model.

    Times and confidence do not change the text, with one exception: where times are required of a
    multitask model without an aligner, its prompt requests them, and the text may differ.

    Raises:
        ModelLoadError: the model, the device, the decoder or the attention requested is not
            available; or the machine has less than was requested; or times, confidence or a beam
            search are requested, and the model does not have them, or not together.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read when torch is imported
    device = _choose_place(spec)
    model = _restore(spec, device)
    decoding.use_batched_greedy(model)
    if spec.decoder is not None:
        decoding.choose_decoder(model, spec.model_name, spec.decoder)
    request = DecodingRequest(spec.times, spec.confidence, spec.n_best)
    registry.configure_decoding(model, spec.model_name, request)
    if _choose_precision(spec.precision, device) == "bf16":
        _to_bf16(model)
    try:
        loaded = NemoRecognizer(model, spec.model_name, device, request, spec.attention)
    except AttentionError as error:
        raise ModelLoadError(f"cannot use the model {spec.model_name!r} so: {error}") from error
    if spec.times == decoding.REQUIRED and not loaded.has_timestamps:
        raise decoding.model_without_times(model, spec.model_name)
    return loaded


def _choose_place(spec: ModelSpec) -> torch.device:
    """Chooses the device, and limits the process to its part of the machine."""
    resources = spec.resources
    try:
        if resources.cpus is not None:
            use_cpus(resources.cpus)
        device = _choose_device(spec.device, resources)
        gpu_memory.limit_process_memory(device, resources.copies, resources.gpu_memory_gb)
    except ResourceError as error:
        raise ModelLoadError(str(error)) from error
    return device


def _restore(spec: ModelSpec, device: torch.device) -> Any:
    """Restores the model from its file, which is checked first, onto a device."""
    # Their messages on telemetry and training set-up are of no use for transcription.
    logging.getLogger("nv_one_logger").setLevel(logging.ERROR)
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)
    name = spec.model_name
    try:
        if files.is_file_name(name):
            path = files.local_copy(spec.storage, name)
            archive_check.check_archive(path)
            return ASRModel.restore_from(path, map_location=device)
        with files.machine_lock(name):  # one download, however many processes
            file = str(ASRModel.from_pretrained(name, return_model_file=True))
            if os.path.isfile(file):  # else a repository without a file of its name
                archive_check.check_archive(file)
            return ASRModel.from_pretrained(name, map_location=device)
    except ModelFileError as error:  # which says what to do
        raise ModelLoadError(f"cannot load the model {name!r}: {error}") from error
    except Exception as error:
        cause = for_message(" ".join(f"{type(error).__name__}: {error}".split()), 600, gap="")
        raise ModelLoadError(f"cannot load the model {name!r}: {cause}. {_remedy(name)}") from error


def _choose_device(device: str, resources: Resources = UNLIMITED) -> torch.device:
    import torch

    if device not in DEVICES:
        raise ModelLoadError(f"device {device!r} is none of {', '.join(DEVICES)}")
    if device == "auto":
        use_gpu = torch.cuda.is_available() or resources.requested_gpu
        device = "cuda" if use_gpu else "cpu"
    if device == "cpu":
        return torch.device(device)
    if not torch.cuda.is_available():
        raise ModelLoadError(
            f"{resources.requested_gpu or '`device=cuda`'} was requested, but torch sees no CUDA "
            "device on this worker. Check the driver (nvidia-smi) and the torch build, or choose "
            "`device=cpu`"
        )
    names = gpu_slots.visible()
    if resources.gpu_count > len(names):
        raise ModelLoadError(
            f"`gpus={resources.gpu_count}` was requested, but torch sees {len(names)} on this "
            "worker. Give fewer, or the worker more, and see CUDA_VISIBLE_DEVICES"
        )
    if len(names) == 1:
        return torch.device(device)
    index = gpu_slots.take(names, resources.gpu_count, resources.copies)
    torch.cuda.set_device(index)  # of this thread, which keeps the model
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
    if preprocessor is not None and sentinel is not None:  # whose type NeMo casts its output to
        preprocessor.dtype_sentinel_tensor = sentinel.to(torch.bfloat16)


def _remedy(model_name: str) -> str:
    if files.is_file_name(model_name):
        return "Check that the file is there, can be read by the worker, and is a whole .nemo file"
    return (
        "Check the name on huggingface.co or catalog.ngc.nvidia.com, the network, and HF_TOKEN for "
        "a gated model; or give the path or URI of a .nemo file"
    )


ENGINE = Engine(load, files.is_file_name)
