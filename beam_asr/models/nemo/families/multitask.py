"""Runs Canary models: prompts, languages, and times by an aligner."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from beam_asr.errors import PromptError
from beam_asr.models import prompts
from beam_asr.models.nemo import decoding, hypotheses
from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families import registry
from beam_asr.models.nemo.families.base import FamilyDefaults, all_finite
from beam_asr.models.nemo.families.ctc import Ctc
from beam_asr.models.nemo.hypotheses import Tokens, TokenTexts
from beam_asr.records.prompt import NO_PROMPT, Prompt

if TYPE_CHECKING:
    import torch


MULTITASK_SLOTS = {"source_lang": "en", "target_lang": "en", "task": "asr", "pnc": "yes"}
LANGUAGES = ("source_lang", "target_lang")
# Tokens of languages, such as <|en|> and <|es-419|>; <|unklang|> is for an unknown one.
LANGUAGE_TOKEN = re.compile(r"<\|(unklang|[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*)\|>")
# The token by which a prompt requests times, and the first time.
REQUESTED_TIMES, FIRST_TIME = "<|timestamp|>", "<|0|>"


class Multitask(FamilyDefaults):
    """Runs attention encoder-decoders with a prompt, such as Canary.

    A prompt of the second Canary has no slot for the task: it transcribes if the two languages are
    the same, and translates if they are not.

    If times are required, those of words come from the CTC model that is packed with it, if any, by
    NeMo's forced alignment of the text. Else the prompt requests them, and then the text may
    differ.
    """

    attends_to_whole_clip = True

    @staticmethod
    def configure(model: Any, model_name: str, request: DecodingRequest) -> None:
        config = decoding.copy_config(model.cfg.decoding)
        beam = config.setdefault("beam", {})
        is_beam = config.get("strategy") == "beam"
        size = beam.get("beam_size", 1) if is_beam else 1
        if request.confidence:
            if request.n_best:
                raise decoding.unsupported(
                    model, model_name, "`confidence`", "NeMo's beam search has none", "`n_best`"
                )
            boosted = beam.get("ngram_lm_model") or (beam.get("boosting_tree_alpha") or 0.0) > 0.0
            if is_beam and (size > 1 or boosted):
                raise decoding.strategy_without_confidence(model, model_name, config)
            if is_beam:  # with one hypothesis, which is greedy search
                config.setdefault("greedy", {}).update(
                    max_generation_delta=beam.get("max_generation_delta", -1),
                    temperature=None,
                    n_samples=1,
                )
                config.update(strategy="greedy")
            config.update(confidence_cfg=decoding.confidence_config())
            decoding.change_strategy(model, model_name, config, "`confidence`")
            if is_beam:
                _allow_more_tokens(model.decoding.decoding.greedy_search, 1)
        elif request.n_best:
            if not is_beam:
                beam["max_generation_delta"] = config.get("greedy", {}).get(
                    "max_generation_delta", -1
                )
            beam.update(
                beam_size=size if request.n_best == 1 else request.beam,
                return_best_hypothesis=False,
            )
            config.update(strategy="beam")
            decoding.change_strategy(model, model_name, config, "`n_best`")
            if not is_beam:
                _allow_more_tokens(model.decoding.decoding.beam_search, -1)

    def __init__(self, model: Any, request: DecodingRequest = TEXT_ONLY):
        self._model = model
        self._request = request
        required = request.times == decoding.REQUIRED
        self._aligner = _Aligner.create(model) if required else None
        self._requests_times = required and self._aligner is None and _has_timestamp_slot(model)
        self.has_timestamps = self._aligner is not None or self._requests_times
        self._frame_seconds = hypotheses.frame_seconds(model) if self._requests_times else 0.0
        self._pieces = TokenTexts(model.tokenizer.ids_to_tokens)
        slots: dict[str, Any] = {}
        for turn in model.prompt.get_default_dialog_slots():
            slots |= turn["slots"]
        task = {"task"} if slots.keys() >= set(LANGUAGES) else set()
        self.prompt_fields = frozenset(Prompt._fields) & (slots.keys() | task)
        self._sources: dict[str, str]
        self._languages: dict[str, str]
        self._sources, self._languages = _languages_of(model.tokenizer, slots)

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        tokens = self._model.prompt.encode_dialog(turns=self._turns(prompt))["context_ids"]
        if signal.device.type != "cpu":
            tokens = tokens.pin_memory()  # or the copy would wait for all work of the device
        prompt_ids = tokens.to(signal.device, non_blocking=True).repeat(len(signal), 1)
        _, _, states, mask = self._model(input_signal=signal, input_signal_length=lengths)
        if self._aligner is None:
            return states, mask, prompt_ids
        return states, mask, prompt_ids, *self._aligner.encode(signal, lengths)

    def check_prompt(self, prompt: Prompt) -> None:
        prompts.check_choices(prompt)
        for turn in self._turns(prompt):
            source, target = (turn["slots"].get(field) for field in LANGUAGES)
            if prompt.task == prompts.TRANSCRIBE and source != target:
                raise PromptError(
                    f"task is transcribe, but from source_lang {source} to target_lang {target} it "
                    "would be a translation: leave task out, or make it translate"
                )

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        states, mask = encoded[:2]
        return (all_finite(states, dim=2) | ~mask.bool()).all(dim=1)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        states, mask, prompt_ids, *for_aligner = encoded
        results: list[Any] = self._model.decoding.decode_predictions_tensor(
            encoder_hidden_states=states,
            encoder_input_mask=mask,
            decoder_input_ids=prompt_ids,
            return_hypotheses=self._request.confidence,
        )
        if self._request.n_best:  # NeMo's beam search does not sort its results
            results = [sorted(beam, key=lambda one: -self.score(one)) for beam in results]
        for clip in results if self._requests_times else ():
            for hypothesis in clip if isinstance(clip, list) else [clip]:
                hypothesis.text, words = hypotheses.words_between_frames(
                    hypothesis.text, self._frame_seconds
                )
                hypothesis.timestamp = {"word": words}
        if self._aligner is not None:
            self._aligner.align([hypotheses.best(result) for result in results], *for_aligner)
        return results

    def tokens(self, hypothesis: Any) -> Tokens:
        return hypotheses.multitask_tokens(hypotheses.best(hypothesis), self._pieces)

    def score(self, hypothesis: Any) -> float:
        return float(hypothesis.score)

    def _turns(self, prompt: Prompt) -> list[dict[str, Any]]:
        """Returns the turns of a prompt, completed by the model's defaults, then by English ASR."""
        requested = {field: value for field, value in prompt._asdict().items() if value is not None}
        if self._requests_times:
            requested["timestamp"] = REQUESTED_TIMES
        turns = []
        for turn in self._model.prompt.get_default_dialog_slots():
            slots = {
                slot: MULTITASK_SLOTS.get(slot, "") if value is None else str(value)
                for slot, value in turn["slots"].items()
            }
            slots |= {slot: value for slot, value in requested.items() if slot in slots}
            # As plain words: encode_dialog() takes slots for encoded if none of them is.
            for field, known in zip(LANGUAGES, (self._sources, self._languages), strict=True):
                if field in slots:
                    slots[field] = prompts.language_of(slots[field], known, field)
            if "task" in slots and "task" not in requested and requested.keys() & set(LANGUAGES):
                same = slots["source_lang"] == slots["target_lang"]
                slots["task"] = prompts.TRANSCRIBE if same else prompts.TRANSLATE
            turns.append({**turn, "slots": slots})
        return turns


def _allow_more_tokens(search: Any, more: int) -> None:
    """Changes how many tokens a text may have before it is cut off.

    NeMo's beam search makes one more than its greedy search, of the same limits
    (nemo/collections/asr/modules/transformer/transformer_generators.py).
    """
    search.max_seq_length += more
    if search.max_delta_len >= 0:
        search.max_delta_len += more


class _Aligner:
    """Aligns texts by NeMo's forced alignment, with the CTC model packed with a multitask one."""

    def __init__(self, ctc_model: Any, device: torch.device):
        self._model = ctc_model.to(device).eval()
        for name, value in (("dither", 0.0), ("pad_to", 0)):
            setattr(self._model.preprocessor.featurizer, name, value)
        self._family = registry.family_of(self._model)

    @classmethod
    def create(cls, model: Any) -> _Aligner | None:
        """Returns the aligner of a model, or None if it is packed without a CTC model."""
        ctc_model = getattr(model, "timestamps_asr_model", None)
        if ctc_model is None:
            return None
        if hasattr(ctc_model, "cur_decoder"):
            ctc_model.change_decoding_strategy(decoder_type="ctc", verbose=False)
        if not issubclass(registry.family_class(ctc_model), Ctc):
            return None
        return cls(ctc_model, next(model.parameters()).device)

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._family.encode(signal, lengths)

    def align(self, best: list[Any], log_probs: torch.Tensor, frames: torch.Tensor) -> None:
        """Sets the ``timestamp`` of hypotheses, as ``EncDecMultiTaskModel.transcribe`` does."""
        from nemo.collections.asr.parts.utils import timestamp_utils
        from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

        counts = frames.tolist()
        timestamp_utils.get_forced_aligned_timestamps_with_external_model(
            audio=[
                Hypothesis(score=0.0, y_sequence=row[:count].float().cpu())
                for row, count in zip(log_probs, counts, strict=True)
            ],
            external_ctc_model=self._model,
            main_model_predictions=best,
            batch_size=len(best),
            timestamp_type="word",
            has_hypotheses=True,
            verbose=False,
        )


def _languages_of(
    tokenizer: Any, slots: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the source and the target languages of a multitask model, each by its name.

    A source language is one with a token. So is a target language; but if each language has its
    own tokenizer, only languages with one are targets, as in NeMo for a manifest. Canary-flash has
    tokens for languages that it was not trained on. The model's defaults are in both.

    Args:
        tokenizer: one for each language and one of tokens for prompts, or one for all.
        slots: of the model's prompt, with its defaults. <|pnc|> and <|itn|> fill slots of these
            names, and are not languages.
    """
    tokens = getattr(tokenizer, "special_tokens", None) or tokenizer.vocab
    defaults = [prompts.bare(str(slots.get(field))) for field in LANGUAGES]
    tagged = [token[2:-2] for token in tokens if LANGUAGE_TOKEN.fullmatch(token)]
    sources = [name for name in tagged if name not in slots]
    sources += [name for name in defaults if name not in sources and f"<|{name}|>" in tokens]
    written = getattr(tokenizer, "langs", sources)
    # That of "en" may be called "en-US" (_map_canary1_to_canary2_lang in canary_tokenizer.py).
    targets = [
        name
        for name in sources
        if name in defaults or any(f"{language}-".startswith(f"{name}-") for language in written)
    ]
    return {name: name for name in sources}, {name: name for name in targets}


def _has_timestamp_slot(model: Any) -> bool:
    """Tells whether a multitask model has a prompt slot and tokens for times."""
    slots = model.prompt.get_default_dialog_slots()[0]["slots"]
    known = getattr(model.tokenizer, "special_tokens", {})
    return "timestamp" in slots and REQUESTED_TIMES in known and FIRST_TIME in known
