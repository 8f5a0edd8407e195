"""Runs models of any other family by their `transcribe()`, for the text alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from beam_asr.errors import NotFiniteError
from beam_asr.models.nemo import decoding
from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families.base import FamilyDefaults, all_finite, all_finite_within
from beam_asr.models.nemo.hypotheses import Tokens
from beam_asr.records.prompt import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


class GenericFamily(FamilyDefaults):
    """Runs a model of another family by its ``transcribe()``, which returns only texts."""

    has_timestamps = False

    @staticmethod
    def configure(model: Any, model_name: str, request: DecodingRequest) -> None:
        if request.confidence or request.n_best:
            flag = "`confidence`" if request.confidence else "`n_best`"
            raise decoding.unsupported(model, model_name, flag, "its decoder is not known here")

    def __init__(self, model: Any, request: DecodingRequest = TEXT_ONLY):  # noqa: ARG002
        self._model = model

    def encode(
        self,
        signal: torch.Tensor,
        lengths: torch.Tensor,
        prompt: Prompt = NO_PROMPT,  # noqa: ARG002
    ) -> tuple[torch.Tensor, ...]:
        return signal, lengths

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        signal, lengths = encoded
        return all_finite_within(signal.isfinite(), lengths)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        signal, lengths = (tensor.cpu().numpy() for tensor in encoded)
        waveforms = [row[:length] for row, length in zip(signal, lengths, strict=True)]
        with self._finite_states():
            results = self._model.transcribe(waveforms, batch_size=len(waveforms), verbose=False)
        # Some models return (best, all) for transducer decoding.
        return results[0] if isinstance(results, tuple) else results

    def tokens(self, hypothesis: Any) -> Tokens:
        raise NotImplementedError

    def score(self, hypothesis: Any) -> float:
        raise NotImplementedError

    @contextlib.contextmanager
    def _finite_states(self) -> Iterator[None]:
        """Raises at its end if the encoder, where it is like NeMo's, returned NaN or infinity."""
        finite: list[torch.Tensor] = []

        def check_states(_module: Any, _inputs: Any, outputs: Any) -> None:
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                states, frames = outputs
                finite.append(all_finite_within(all_finite(states, dim=1), frames).all())

        encoder: Any = getattr(self._model, "encoder", None)
        if not hasattr(encoder, "register_forward_hook"):
            yield
            return
        hook = encoder.register_forward_hook(check_states)
        try:
            yield
        finally:
            hook.remove()
        if not all(map(bool, finite)):
            raise NotFiniteError
