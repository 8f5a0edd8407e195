"""Runs RNN-T and TDT models, hybrid and prompt-conditioned ones too."""

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
from beam_asr.records.prompt import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


# The defaults of transcribe() for what a prompt-conditioned model's configuration leaves open.
PROMPT_LANGUAGE = "auto"
MAX_JOINT_TOKENS = 1024  # in one call of a joint network, which scores the vocabulary for each


class Transducer(FamilyDefaults):
    """Runs RNN-T and TDT models, hybrid and prompt-conditioned ones too."""

    frame_axis = 2
    has_decoding_graphs = True

    @staticmethod
    def configure(model: Any, model_name: str, request: DecodingRequest) -> None:
        config = decoding.copy_config(model.cfg.decoding)
        if request.confidence:
            if request.beam > 1:
                raise decoding.unsupported(
                    model, model_name, "`confidence`", "NeMo's beam search has none", "`n_best`"
                )
            if config.get("strategy") not in decoding.GREEDY:
                raise decoding.strategy_without_confidence(model, model_name, config)
            config.update(compute_timestamps=False, confidence_cfg=decoding.confidence_config())
            decoding.change_strategy(model, model_name, config, "`confidence`", verbose=False)
        elif request.beam > 1:
            config.update(
                strategy="malsd_batch", preserve_alignments=False, compute_timestamps=False
            )
            config.setdefault("beam", {}).update(
                {"ngram_lm_model": None},
                beam_size=request.beam,
                return_best_hypothesis=False,
                preserve_alignments=False,
                allow_cuda_graphs=False,
            )
            decoding.change_strategy(model, model_name, config, "`n_best`", verbose=False)

    def __init__(self, model: Any, request: DecodingRequest = TEXT_ONLY):
        self._model = model
        # The index of each target language.
        known = model.cfg.get("model_defaults", {}).get("prompt_dictionary") or {}
        self._languages: dict[str, int] = {str(name): int(known[name]) for name in known}
        self.prompt_fields = frozenset(["target_lang"] if known else [])
        self._request = request
        if model.decoding.durations and model.decoding.tokenizer_type == "char":
            # NeMo 3.0.0 takes the durations of a TDT model for blanks, and would leave out as many
            # letters (findings/nemo_character_tdt_drops_its_last_letters.sh).
            model.decoding.num_extra_outputs = 0
        config = model.decoding.cfg
        has_frames = config.strategy in decoding.TRANSDUCER_WITH_FRAMES
        self.has_timestamps = request.times is not None and has_frames
        self._frame_seconds = hypotheses.frame_seconds(model) if self.has_timestamps else 0.0
        self._pieces = TokenTexts(model.decoding.decode_ids_to_tokens)
        # As decode_hypothesis() distinguishes tokens from blanks: TDT and multi-blank models have
        # several blanks, which come last.
        big_blanks = len(model.decoding.big_blank_durations or ())
        self._blank = model.decoding.blank_id - big_blanks
        self._durations = list(model.decoding.durations or ())
        self._blanks_last = bool(self._durations) or big_blanks > 0
        beam = config.strategy not in decoding.GREEDY
        required = request.times == decoding.REQUIRED
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
        language = prompt.target_lang or PROMPT_LANGUAGE
        return prompts.language_of(language, self._languages, "target_lang")

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        states, frames = encoded
        return all_finite_within(all_finite(states, dim=1), frames)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        states, frames = encoded
        results: list[Any] = self._model.decoding.rnnt_decoder_predictions_tensor(
            states, frames, return_hypotheses=self._request != TEXT_ONLY
        )
        if self._predicts_durations:
            self._set_durations([hypotheses.best(result) for result in results], states)
        return results

    def _set_durations(self, best: list[Any], states: torch.Tensor) -> None:
        """Sets how long the tokens of a TDT model last, by the model's prediction.

        NeMo would return it, but in a batch that of another step: while it looks for the tokens
        of other clips, it continues with all of them (the inner loop of
        nemo/collections/asr/parts/submodules/transducer_decoding/tdt_label_looping.py).
        """
        import torch

        decoder, joint = self._model.decoder, self._model.joint
        lengths = [len(hypothesis.y_sequence) for hypothesis in best]
        ids, frames = torch.zeros(2, len(best), max(lengths), dtype=torch.long)
        for row, hypothesis in enumerate(best):
            ids[row, : lengths[row]] = torch.as_tensor(hypothesis.y_sequence)
            frames[row, : lengths[row]] = torch.as_tensor(hypotheses.emission_frames(hypothesis))
        clips, places = (column_indices(ids) < torch.tensor(lengths)[:, None]).nonzero(
            as_tuple=True
        )
        chosen = []
        if len(clips):
            before, _ = decoder.predict(ids[:, :-1].to(states.device), add_sos=True)
            emitting = states[clips, :, frames[clips, places]].split(MAX_JOINT_TOKENS)
            predicted = before[clips, places].split(MAX_JOINT_TOKENS)
            for state, prediction in zip(emitting, predicted, strict=True):
                logits = joint.joint_after_projection(
                    joint.project_encoder(state[:, None]),
                    joint.project_prednet(prediction[:, None]),
                )
                chosen += logits[:, 0, 0, -len(self._durations) :].argmax(dim=1).tolist()
        durations = iter([self._durations[index] for index in chosen])
        for hypothesis, length in zip(best, lengths, strict=True):
            hypothesis.token_duration = [next(durations) for _ in range(length)]

    def tokens(self, hypothesis: Any) -> Tokens:
        best = hypotheses.best(hypothesis)
        return hypotheses.transducer_tokens(best, self._is_token, self._frame_seconds, self._pieces)

    def score(self, hypothesis: Any) -> float:
        """Returns the score, divided by the tokens plus one where NeMo ranks a beam so."""
        length = len(hypothesis.y_sequence) + 1 if self._length_norm else 1
        return float(hypothesis.score) / length

    def _is_token(self, token: int) -> bool:
        return token < self._blank if self._blanks_last else token != self._blank
