"""Runs CTC models, and the CTC decoder of hybrid models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beam_asr.models.nemo import decoding, hypotheses
from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families.base import FamilyDefaults, all_finite_within
from beam_asr.models.nemo.families.transducer import Transducer
from beam_asr.models.nemo.hypotheses import Tokens, TokenTexts
from beam_asr.records.prompt import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


class Ctc(FamilyDefaults):
    """Runs CTC models."""

    frame_axis = 1

    @staticmethod
    def configure(model: Any, model_name: str, request: DecodingRequest) -> None:
        hybrid = hasattr(model, "cur_decoder")
        config = decoding.copy_config(model.cfg.aux_ctc.decoding if hybrid else model.cfg.decoding)
        if (
            request.confidence
            and request.beam == 1
            and config.get("strategy") not in decoding.CTC_WITH_FRAMES
        ):
            raise decoding.strategy_without_confidence(model, model_name, config)
        if request.beam == 1:
            return  # greedy decoding returns the frames' labels anyway, and they are enough
        options = {"decoder_type": "ctc"} if hybrid else {}
        config.update(strategy="beam_batch", preserve_alignments=False, compute_timestamps=False)
        config.setdefault("beam", {}).update(
            # Neither a language model, nor a bonus for each token, which is meant for use with one.
            {"ngram_lm_model": None, "kenlm_path": None, "beam_alpha": None, "beam_beta": 0.0},
            beam_size=request.beam,
            return_best_hypothesis=False,
            preserve_alignments=False,
            compute_timestamps=False,
            allow_cuda_graphs=False,  # they are captured again for each batch of a new size
        )
        decoding.change_strategy(model, model_name, config, "`n_best`", verbose=False, **options)

    def __init__(self, model: Any, request: DecodingRequest = TEXT_ONLY, ctc_decoding: Any = None):
        self._model = model
        self._decoding = model.decoding if ctc_decoding is None else ctc_decoding
        self._request = request
        strategy = self._decoding.cfg.strategy
        self._framewise = strategy in decoding.GREEDY
        self.has_timestamps = request.times is not None and strategy in decoding.CTC_WITH_FRAMES
        self._has_frames = self.has_timestamps or request.confidence
        self._frame_seconds = hypotheses.frame_seconds(model) if self.has_timestamps else 0.0
        self._pieces = TokenTexts(self._decoding.decode_ids_to_tokens)

    def encode(
        self,
        signal: torch.Tensor,
        lengths: torch.Tensor,
        prompt: Prompt = NO_PROMPT,  # noqa: ARG002
    ) -> tuple[torch.Tensor, ...]:
        log_probs, frames, _ = self._model(input_signal=signal, input_signal_length=lengths)
        return log_probs, frames

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        log_probs, frames = encoded
        # A token that is ruled out has a log-probability of -inf; not all of a frame can.
        return all_finite_within(log_probs.amax(dim=2).isfinite(), frames)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        log_probs, frames = encoded
        results: list[Any] = self._decoding.ctc_decoder_predictions_tensor(
            log_probs, decoder_lengths=frames, return_hypotheses=not self._framewise
        )
        best = [hypotheses.best(result) for result in results]
        if self._request.confidence:
            confidences = hypotheses.frame_confidences(log_probs, frames)
            for hypothesis, confidence in zip(best, confidences, strict=True):
                hypothesis.frame_confidence = confidence
        if self._has_frames and not self._framewise:
            labels = log_probs.argmax(dim=2).cpu().numpy()
            for hypothesis, row, count in zip(best, labels, frames.tolist(), strict=True):
                hypothesis.alignments = row[:count]
        return results

    def tokens(self, hypothesis: Any) -> Tokens:
        best = hypotheses.best(hypothesis)
        if not (self._framewise or self._has_frames):
            return Tokens(self._pieces.lookup(map(int, best.y_sequence)))
        blank = self._decoding.blank_id
        return hypotheses.ctc_tokens(
            best, blank, self._frame_seconds, self._pieces, collapsed=not self._framewise
        )

    def score(self, hypothesis: Any) -> float:
        return float(hypothesis.score)


class CtcOfHybrid(Ctc):
    """Runs the CTC decoder of hybrid models."""

    def __init__(self, model: Any, request: DecodingRequest = TEXT_ONLY):
        super().__init__(model, request, model.ctc_decoding)
        self._transducer = Transducer(model)
        self.prompt_fields = self._transducer.prompt_fields
        self._languages = self._transducer._languages

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        encoded, frames = self._transducer.encode(signal, lengths, prompt)
        return self._model.ctc_decoder(encoder_output=encoded), frames

    def check_prompt(self, prompt: Prompt) -> None:
        self._transducer.check_prompt(prompt)
