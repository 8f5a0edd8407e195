"""RNN-T and TDT models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from beam_asr.models import prompts
from beam_asr.models.nemo import decoding, hypotheses
from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families.base import (
    FamilyDefaults,
    all_finite,
    all_finite_within,
    column_indices,
)
from beam_asr.models.nemo.hypotheses import Tokens, TokenTexts
from beam_asr.settings import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


# The defaults of transcribe() for what a prompt-conditioned model's configuration leaves open.
PROMPT_LANGUAGE = "auto"
TOKENS_AT_ONCE = 1024  # that a joint network takes: it gives each of them a whole vocabulary


class Transducer(FamilyDefaults):
    """RNNT and TDT models, hybrid and prompt-conditioned ones too."""

    frame_axis = 2
    has_decoding_graphs = True

    @staticmethod
    def configure(model: Any, model_name: str, extras: DecodingRequest) -> None:
        config = decoding.copy_config(model.cfg.decoding)
        if extras.confidence:
            if extras.beam > 1:
                raise decoding.refused(
                    model, model_name, "`confidence`", "NeMo's beam search has none", "`n_best`"
                )
            if config.get("strategy") not in decoding.GREEDY:
                raise decoding.no_confidence_of_a_strategy(model, model_name, config)
            config.update(compute_timestamps=False, confidence_cfg=decoding.confidence_config())
            decoding.change_strategy(model, model_name, config, "`confidence`", verbose=False)
        elif extras.beam > 1:
            config.update(
                strategy="malsd_batch", preserve_alignments=False, compute_timestamps=False
            )
            config.setdefault("beam", {}).update(
                {"ngram_lm_model": None},
                beam_size=extras.beam,
                return_best_hypothesis=False,
                preserve_alignments=False,
                allow_cuda_graphs=False,
            )
            decoding.change_strategy(model, model_name, config, "`n_best`", verbose=False)

    def __init__(self, model: Any, extras: DecodingRequest = TEXT_ONLY):
        self._model = model
        # The number of each target language.
        known = model.cfg.get("model_defaults", {}).get("prompt_dictionary") or {}
        self._languages: dict[str, int] = {str(name): int(known[name]) for name in known}
        self.prompt_fields = frozenset(["target_lang"] if known else [])
        self._extras = extras
        config = model.decoding.cfg
        told = config.strategy in decoding.TRANSDUCER_WITH_FRAMES
        self.has_timestamps = extras.times is not None and told
        self._frame_seconds = hypotheses.frame_seconds(model) if self.has_timestamps else 0.0
        self._pieces = TokenTexts(model.decoding.decode_ids_to_tokens)
        # As decode_hypothesis() tells tokens from blanks: those of TDT and multi-blank models are
        # several, and come last.
        several = len(model.decoding.big_blank_durations or ())
        self._blank = model.decoding.blank_id - several
        self._durations = list(model.decoding.durations or ())
        self._blanks_last = bool(self._durations) or several > 0
        beam = config.strategy not in decoding.GREEDY
        required = extras.times == decoding.REQUIRED
        self._predicts_durations = (
            required and self.has_timestamps and bool(self._durations) and not beam
        )
        self._length_norm = beam and config.beam.get("score_norm", True)

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        inputs = {"input_signal": signal, "input_signal_length": lengths}
        if self._languages:  # one for each clip
            inputs["prompt_indices"] = lengths.new_full(lengths.shape, self._language(prompt))
        encoded, frames = self._model(**inputs)
        return encoded, frames

    def check_prompt(self, prompt: Prompt) -> None:
        if self._languages:
            self._language(prompt)

    def _language(self, prompt: Prompt) -> int:
        named = prompt.target_lang or PROMPT_LANGUAGE
        return prompts.language_of(named, self._languages, "target_lang")

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        states, frames = encoded
        return all_finite_within(all_finite(states, dim=1), frames)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        states, frames = encoded
        results: list[Any] = self._model.decoding.rnnt_decoder_predictions_tensor(
            states, frames, return_hypotheses=self._extras != TEXT_ONLY
        )
        if self._predicts_durations:
            self._set_durations([hypotheses.best(each) for each in results], states)
        return results

    def _set_durations(self, best: list[Any], states: torch.Tensor) -> None:
        """Sets how long the tokens of a TDT model last, by its own prediction.

        NeMo would keep it, but in a batch that of another step: where it still looks for the
        tokens of other clips, it goes on with all of them (the inner loop of
        nemo/collections/asr/parts/submodules/transducer_decoding/tdt_label_looping.py).
        """
        import torch

        decoder, joint = self._model.decoder, self._model.joint
        lengths = [len(each.y_sequence) for each in best]
        ids, frames = torch.zeros(2, len(best), max(lengths), dtype=torch.long)
        for row, each in enumerate(best):
            ids[row, : lengths[row]] = torch.as_tensor(each.y_sequence)
            frames[row, : lengths[row]] = torch.as_tensor(hypotheses.emitted(each))
        clips, places = (column_indices(ids) < torch.tensor(lengths)[:, None]).nonzero(
            as_tuple=True
        )
        chosen = []
        if len(clips):
            before, _ = decoder.predict(ids[:, :-1].to(states.device), add_sos=True)
            heard = states[clips, :, frames[clips, places]].split(TOKENS_AT_ONCE)
            known = before[clips, places].split(TOKENS_AT_ONCE)
            for state, prediction in zip(heard, known, strict=True):
                logits = joint.joint_after_projection(
                    joint.project_encoder(state[:, None]),
                    joint.project_prednet(prediction[:, None]),
                )
                chosen += logits[:, 0, 0, -len(self._durations) :].argmax(dim=1).tolist()
        durations = iter([self._durations[each] for each in chosen])
        for each, length in zip(best, lengths, strict=True):
            each.token_duration = [next(durations) for _ in range(length)]

    def tokens(self, hypothesis: Any) -> Tokens:
        best = hypotheses.best(hypothesis)
        return hypotheses.of_transducer(best, self._is_token, self._frame_seconds, self._pieces)

    def score(self, hypothesis: Any) -> float:
        """Of a beam it is divided by the number of tokens and one more, unless NeMo does not."""
        length = len(hypothesis.y_sequence) + 1 if self._length_norm else 1
        return float(hypothesis.score) / length

    def _is_token(self, token: int) -> bool:
        return token < self._blank if self._blanks_last else token != self._blank
