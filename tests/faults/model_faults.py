"""Faults of the model and of the process, put in by changing what the process runs."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# By which the faults know their clip: no other has this length, in samples at 16 kHz.
MARKED = 16_000 + 777


def _on_encode(change: Callable[[Any, list[np.ndarray]], Sequence[np.ndarray]]) -> None:
    from beam_asr.models.nemo.recognizer import NemoRecognizer

    encode = NemoRecognizer.encode

    def changed(self: Any, waveforms: Sequence[np.ndarray], *prompt: Any) -> Any:
        return encode(self, change(self, list(waveforms)), *prompt)

    NemoRecognizer.encode = changed  # type: ignore[method-assign]


def _marked(waveforms: Sequence[np.ndarray]) -> bool:
    return any(len(waveform) == MARKED for waveform in waveforms)


def stuck() -> None:
    """A forward pass that never comes back."""

    def change(_: Any, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        if _marked(waveforms):
            time.sleep(10**6)
        return waveforms

    _on_encode(change)


def lost_card() -> None:
    """A GPU whose context is gone: each later call fails as well."""
    lost = False

    def change(_: Any, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal lost
        lost = lost or _marked(waveforms)
        if lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return waveforms

    _on_encode(change)


def poison() -> None:
    """A clip at which the model raises, whatever its batch."""

    def change(_: Any, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        if _marked(waveforms):
            raise IndexError("index 7 is out of range")
        return waveforms

    _on_encode(change)


def not_finite() -> None:
    """A clip of which the model computes NaN."""

    def change(_: Any, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [each * np.nan if len(each) == MARKED else each for each in waveforms]

    _on_encode(change)


def little_memory() -> None:
    """A device that takes no batch above six padded seconds."""

    def change(self: Any, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        import torch

        if len(waveforms) * max(map(len, waveforms)) > 6 * self.sample_rate:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return waveforms

    _on_encode(change)


def no_room_for_one() -> None:
    """A device whose memory one clip alone is too much for."""

    def change(_: Any, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        import torch

        if _marked(waveforms):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return waveforms

    _on_encode(change)


def full_disk() -> None:
    """A disk that takes no more: no file may grow above some bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))


FAULTS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        stuck,
        lost_card,
        poison,
        not_finite,
        little_memory,
        no_room_for_one,
        full_disk,
    )
}
