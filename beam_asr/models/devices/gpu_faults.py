"""Recognizes errors after which the process can no longer use its GPU."""

from __future__ import annotations

import re
from collections.abc import Callable

from beam_asr import errors
from beam_asr.models.devices import gpu_memory

# CUDA's errors that stay, by their codes: those after which the process must end, according to its
# documentation, and those of a GPU that is broken or gone.
STICKY = {
    100: "no CUDA-capable device is detected",
    214: "uncorrectable ECC error encountered",
    220: "uncorrectable NVLink error detected during the execution",
    226: "Invalid access of peer GPU memory over nvlink or a hardware error",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    709: "context is destroyed",
    710: "device-side assert triggered",
    714: "hardware stack error",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
    721: "tensor memory not completely freed",
    810: "the MPS client has been terminated by the server",
    911: "an async error has occured in external entity outside of CUDA",
    999: "unknown error",
}
_GONE = re.compile("fallen off the bus|GPU is lost|device (is )?lost", re.IGNORECASE)
# How messages of torch, Triton, NeMo's CUDA graphs and NVIDIA's libraries about the device start.
_DEVICE_ERROR = re.compile(
    r"CUDA (driver )?error:|CUDA failure!|Triton Error \[CUDA\]|NVML_|cuDNN (Frontend )?error|"
    r"(CUBLAS|CUDNN|CUFFT|CUSOLVER|CUSPARSE)_"
)


def is_lost(error: BaseException, answers: Callable[[], bool] | None = None) -> bool:
    """Tells whether an error means that this process can no longer use the device.

    Exhausted memory is not such an error. After an error that need not stay, such as those of
    cuBLAS and cuDNN, the device is tried.

    Args:
        answers: tells whether the device still works; by default it is tried.
    """
    return any(
        _is_lost(cause, answers or _answers) for cause in errors.causes(error, contexts=True)
    )


def _is_lost(error: BaseException, answers: Callable[[], bool]) -> bool:
    import torch

    message = errors.shortened(error)
    if _GONE.search(message):
        return True
    if not isinstance(error, torch.AcceleratorError) and not _DEVICE_ERROR.search(message):
        return False
    if getattr(error, "error_code", None) in STICKY:
        return True
    if any(words in message for words in STICKY.values()):
        return True
    return not gpu_memory.is_exhausted(error) and not answers()


def _answers() -> bool:
    import torch

    try:
        torch.cuda.synchronize()
    except Exception as error:
        return gpu_memory.is_exhausted(error)
    return True
