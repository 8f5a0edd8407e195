"""Any other model, by its `transcribe()`: texts alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from beam_asr.errors import NotFiniteError
from beam_asr.models.nemo import decoding
from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families.base import FamilyDefaults, all_finite, all_finite_within
from beam_asr.models.nemo.hypotheses import Tokens
from beam_asr.settings import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


class GenericFamily(FamilyDefaults):
    """A model of another family, through ``transcribe()``, of which only texts are known."""

    has_timestamps = False

    @staticmethod
    def configure(model: Any, model_name: str, extras: DecodingRequest) -> None:
        if extras.confidence or extras.n_best:
            flag = "`confidence`" if extras.confidence else "`n_best`"
            raise decoding.refused(model, model_name, flag, "its decoder is not known here")

    def __init__(self, model: Any, extras: DecodingRequest = TEXT_ONLY):  # noqa: ARG002
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
        # Some models give (best, all) for transducer decoding.
        return results[0] if isinstance(results, tuple) else results

    def tokens(self, hypothesis: Any) -> Tokens:
        raise NotImplementedError

    def score(self, hypothesis: Any) -> float:
        raise NotImplementedError

    @contextlib.contextmanager
    def _finite_states(self) -> Iterator[None]:
        """Fails at its end if the encoder, where it is one as NeMo's are, gave other states."""
        finite: list[torch.Tensor] = []

        def look(_module: Any, _inputs: Any, outputs: Any) -> None:
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                states, frames = outputs
                finite.append(all_finite_within(all_finite(states, dim=1), frames).all())

        encoder: Any = getattr(self._model, "encoder", None)
        if not hasattr(encoder, "register_forward_hook"):
            yield
            return
        hook = encoder.register_forward_hook(look)
        try:
            yield
        finally:
            hook.remove()
        if not all(map(bool, finite)):
            raise NotFiniteError
