"""The decoder families of NeMo's models: how each of them makes hypotheses of a batch.

In two halves, so that on a GPU one batch can be decoded while the next one is encoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from beam_asr.model_errors import NotFiniteError

if TYPE_CHECKING:
    import torch

# The defaults of transcribe() for what a prompt-conditioned model's configuration leaves open.
PROMPT_LANGUAGE = "auto"
MULTITASK_SLOTS = {"source_lang": "en", "target_lang": "en", "task": "asr", "pnc": "yes"}


class Family(Protocol):
    """A model by its two halves; both on the model's device, in inference mode."""

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Runs the encoder.

        Args:
            signal: zero-padded float32 of shape (batch, samples).
            lengths: int64 of shape (batch,), in samples.

        Returns:
            What ``decode`` takes. Of shape (batch, ...) each.
        """

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        """Whether there is neither NaN nor infinity in a clip: bool of shape (batch,).

        Only a clip's own frames count. Nothing waits for the device.
        """

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        """NeMo's hypotheses, one for each clip, or a list of the n best."""


class Ctc:
    """CTC models."""

    def __init__(self, model: Any):
        self._model = model
        self._decoding = model.decoding

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        log_probs, frames, _ = self._model(input_signal=signal, input_signal_length=lengths)
        return log_probs, frames

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        log_probs, frames = encoded
        # A token that is ruled out is infinitely improbable; that all of them are makes no sense.
        return _within(log_probs.amax(dim=2).isfinite(), frames)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        log_probs, frames = encoded
        return self._decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=frames)


class Transducer:
    """RNNT and TDT models, hybrid and prompt-conditioned ones too."""

    def __init__(self, model: Any):
        self._model = model
        self._languages = model.cfg.get("model_defaults", {}).get("prompt_dictionary")

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = {"input_signal": signal, "input_signal_length": lengths}
        if self._languages is not None:  # one target language for each clip, transcribe()'s default
            inputs["prompt_indices"] = lengths.new_full(
                lengths.shape, self._languages[PROMPT_LANGUAGE]
            )
        encoded, frames = self._model(**inputs)
        return encoded, frames

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        states, frames = encoded
        return _within(_all_finite(states, dim=1), frames)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        states, frames = encoded
        return self._model.decoding.rnnt_decoder_predictions_tensor(states, frames)


class CtcOfHybrid(Ctc):
    """The CTC decoder of hybrid models."""

    def __init__(self, model: Any):
        super().__init__(model)
        self._decoding = model.ctc_decoding
        self._transducer = Transducer(model)

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        encoded, frames = self._transducer.encode(signal, lengths)
        return self._model.ctc_decoder(encoder_output=encoded), frames


class Multitask:
    """Attention encoder-decoders with a prompt, as Canary."""

    def __init__(self, model: Any):
        self._model = model

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        _, _, states, mask = self._model(input_signal=signal, input_signal_length=lengths)
        return states, mask

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        states, mask = encoded
        return (_all_finite(states, dim=2) | ~mask.bool()).all(dim=1)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        states, mask = encoded
        prompt = self._model.prompt.encode_dialog(turns=self._turns())["context_ids"]
        return self._model.decoding.decode_predictions_tensor(
            encoder_hidden_states=states,
            encoder_input_mask=mask,
            decoder_input_ids=prompt.unsqueeze(0).repeat(len(states), 1).to(states.device),
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


class Other:
    """A model of another family, through ``transcribe()``."""

    def __init__(self, model: Any):
        self._model = model

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return signal, lengths

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        signal, lengths = encoded
        return _within(signal.isfinite(), lengths)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        signal, lengths = (tensor.cpu().numpy() for tensor in encoded)
        waveforms = [row[:length] for row, length in zip(signal, lengths, strict=True)]
        with self._finite_states():
            results = self._model.transcribe(waveforms, batch_size=len(waveforms), verbose=False)
        # Some models give (best, all) for transducer decoding.
        return results[0] if isinstance(results, tuple) else results

    @contextlib.contextmanager
    def _finite_states(self) -> Iterator[None]:
        """Fails at its end if the encoder, where it is one as NeMo's are, gave other states."""
        finite: list[torch.Tensor] = []

        def look(_module: Any, _inputs: Any, outputs: Any) -> None:
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                states, frames = outputs
                finite.append(_within(_all_finite(states, dim=1), frames).all())

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


def family_of(model: Any) -> Family:
    from nemo.collections.asr import models

    if isinstance(model, models.EncDecMultiTaskModel):
        return Multitask(model)
    if isinstance(model, models.EncDecRNNTModel):
        hybrid = getattr(model, "cur_decoder", "rnnt") == "ctc"
        return CtcOfHybrid(model) if hybrid else Transducer(model)
    if isinstance(model, models.EncDecCTCModel):
        return Ctc(model)
    return Other(model)


def _all_finite(states: torch.Tensor, dim: int) -> torch.Tensor:
    """Whether each frame is free of NaN and infinity, which a least and a largest value keep."""
    return states.amin(dim).isfinite() & states.amax(dim).isfinite()


def _within(frames_finite: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Whether all of a clip's own frames are; bool of shape (batch,), of (batch, frames)."""
    places = frames_finite.new_ones(frames_finite.shape[1:]).cumsum(0)  # from 1
    return (frames_finite | (places > frames[:, None])).all(dim=1)
