"""The decoder families of NeMo's models: how each of them makes hypotheses of a batch.

In two halves, so that on a GPU one batch can be decoded while the next one is encoded.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from beam_asr.model_errors import NotFiniteError
from beam_asr.models import prompts
from beam_asr.models.nemo import decoding as decoding_config
from beam_asr.models.nemo import hypotheses
from beam_asr.models.nemo.decoding import TEXT_ALONE, Extras
from beam_asr.models.nemo.hypotheses import Pieces, Tokens
from beam_asr.models.prompts import NO_PROMPT, Prompt, PromptError

if TYPE_CHECKING:
    import torch

# The defaults of transcribe() for what a prompt-conditioned model's configuration leaves open.
PROMPT_LANGUAGE = "auto"
MULTITASK_SLOTS = {"source_lang": "en", "target_lang": "en", "task": "asr", "pnc": "yes"}
LANGUAGES = ("source_lang", "target_lang")
# How tokens of languages look, as <|en|>, <|es-419|>; <|unklang|> is for one that is not known.
LANGUAGE_TOKEN = re.compile(r"<\|(unklang|[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*)\|>")
# What a prompt asks for times with, and the first of them.
ASKED_TIMES, FIRST_TIME = "<|timestamp|>", "<|0|>"

TOKENS_AT_ONCE = 1024  # that a joint network takes: it gives each of them a whole vocabulary


class Family(Protocol):
    """A model by its two halves; both on the model's device, in inference mode."""

    def encode(
        self, signal: torch.Tensor, lengths: torch.Tensor, prompt: Prompt = NO_PROMPT
    ) -> tuple[torch.Tensor, ...]:
        """Runs the encoder.

        Args:
            signal: zero-padded float32 of shape (batch, samples).
            lengths: int64 of shape (batch,), in samples.
            prompt: of all the clips; what a model does not take of it is left out.

        Returns:
            What ``decode`` takes, the prompt too. Of shape (batch, ...) each.

        Raises:
            PromptError: the model does not know a language of the prompt.
        """

    def finite(self, *encoded: torch.Tensor) -> torch.Tensor:
        """Whether there is neither NaN nor infinity in a clip: bool of shape (batch,).

        Only a clip's own frames count. Nothing waits for the device.
        """

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        """NeMo's hypotheses, one for each clip, or a list of the n best."""


class Teller(Protocol):
    """What a family's hypotheses tell besides the text."""

    @property
    def tells_times(self) -> bool:
        """Whether tokens have times, which were asked for."""

    def tokens(self, hypothesis: Any) -> Tokens:
        """The tokens of the best hypothesis of a clip, of those that ``decode`` gave."""

    def score(self, hypothesis: Any) -> float:
        """A log-probability, by which NeMo ranks hypotheses of the same clip."""


class TellingFamily(Family, Teller, Protocol):
    """Both, and what a prompt may say."""

    prompt_fields: frozenset[str]

    def check_prompt(self, prompt: Prompt) -> None:
        """Raises PromptError if the model cannot follow it."""

    def any_prompt(self) -> Prompt:
        """One that it can follow, for what is no speech in any language."""


class Prompted:
    """What a family takes of a prompt: nothing, unless it says so."""

    prompt_fields: frozenset[str] = frozenset()
    _languages: Mapping[str, object] = {}

    def check_prompt(self, prompt: Prompt) -> None:
        pass

    def any_prompt(self) -> Prompt:
        """The model's own, or if that is of a language it does not know, one of those it does."""
        try:
            self.check_prompt(NO_PROMPT)
        except PromptError:
            language = next(iter(self._languages), None)
            return Prompt(source_lang=language, target_lang=language)
        return NO_PROMPT


class Ctc(Prompted):
    """CTC models."""

    def __init__(self, model: Any, extras: Extras = TEXT_ALONE, decoding: Any = None):
        self._model = model
        self._decoding = model.decoding if decoding is None else decoding
        self._extras = extras
        strategy = self._decoding.cfg.strategy
        self._framewise = strategy in decoding_config.GREEDY
        self.tells_times = extras.times is not None and strategy in decoding_config.CTC_WITH_FRAMES
        self._has_frames = self.tells_times or extras.confidence
        self._frame_seconds = hypotheses.frame_seconds(model) if self.tells_times else 0.0
        self._pieces = Pieces(self._decoding.decode_ids_to_tokens)

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
        # A token that is ruled out is infinitely improbable; that all of them are makes no sense.
        return _within(log_probs.amax(dim=2).isfinite(), frames)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        log_probs, frames = encoded
        results: list[Any] = self._decoding.ctc_decoder_predictions_tensor(
            log_probs, decoder_lengths=frames, return_hypotheses=not self._framewise
        )
        best = [hypotheses.best(each) for each in results]
        if self._extras.confidence:
            for each, row in zip(
                best, hypotheses.frame_confidences(log_probs, frames), strict=True
            ):
                each.frame_confidence = row
        if self._has_frames and not self._framewise:
            labels = log_probs.argmax(dim=2).cpu().numpy()
            for each, row, own in zip(best, labels, frames.tolist(), strict=True):
                each.alignments = row[:own]
        return results

    def tokens(self, hypothesis: Any) -> Tokens:
        best = hypotheses.best(hypothesis)
        if not (self._framewise or self._has_frames):
            return Tokens(self._pieces.of(map(int, best.y_sequence)))
        blank = self._decoding.blank_id
        return hypotheses.of_ctc(
            best, blank, self._frame_seconds, self._pieces, collapsed=not self._framewise
        )

    def score(self, hypothesis: Any) -> float:
        return float(hypothesis.score)


class Transducer(Prompted):
    """RNNT and TDT models, hybrid and prompt-conditioned ones too."""

    def __init__(self, model: Any, extras: Extras = TEXT_ALONE):
        self._model = model
        # The number of each target language.
        known = model.cfg.get("model_defaults", {}).get("prompt_dictionary") or {}
        self._languages: dict[str, int] = {str(name): int(known[name]) for name in known}
        self.prompt_fields = frozenset(["target_lang"] if known else [])
        self._extras = extras
        config = model.decoding.cfg
        told = config.strategy in decoding_config.TRANSDUCER_WITH_FRAMES
        self.tells_times = extras.times is not None and told
        self._frame_seconds = hypotheses.frame_seconds(model) if self.tells_times else 0.0
        self._pieces = Pieces(model.decoding.decode_ids_to_tokens)
        # As decode_hypothesis() tells tokens from blanks: those of TDT and multi-blank models are
        # several, and come last.
        several = len(model.decoding.big_blank_durations or ())
        self._blank = model.decoding.blank_id - several
        self._durations = list(model.decoding.durations or ())
        self._blanks_last = bool(self._durations) or several > 0
        beam = config.strategy not in decoding_config.GREEDY
        required = extras.times == decoding_config.REQUIRED
        self._predicts_durations = (
            required and self.tells_times and bool(self._durations) and not beam
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
        return _within(_all_finite(states, dim=1), frames)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        states, frames = encoded
        results: list[Any] = self._model.decoding.rnnt_decoder_predictions_tensor(
            states, frames, return_hypotheses=self._extras != TEXT_ALONE
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
        clips, places = (_places_of(ids) < torch.tensor(lengths)[:, None]).nonzero(as_tuple=True)
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


class CtcOfHybrid(Ctc):
    """The CTC decoder of hybrid models."""

    def __init__(self, model: Any, extras: Extras = TEXT_ALONE):
        super().__init__(model, extras, model.ctc_decoding)
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


class Multitask(Prompted):
    """Attention encoder-decoders with a prompt, as Canary.

    A prompt of the second Canary has no slot for the task: it transcribes if the two languages are
    the same, and translates if they are not.

    The times of words are those of the CTC model that comes with it, if one does, by NeMo's forced
    alignment of the text. Else the model is asked for them by its prompt: the text may be another
    one then. Both only if times are required.
    """

    def __init__(self, model: Any, extras: Extras = TEXT_ALONE):
        self._model = model
        self._extras = extras
        required = extras.times == decoding_config.REQUIRED
        self._aligner = _Aligner.of(model) if required else None
        asks = required and self._aligner is None
        self._asks = asks and _can_ask_for_times(model)
        self.tells_times = self._aligner is not None or self._asks
        self._frame_seconds = hypotheses.frame_seconds(model) if self._asks else 0.0
        self._pieces = Pieces(model.tokenizer.ids_to_tokens)
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
            tokens = tokens.pin_memory()  # or the copy would wait for all that the device does
        asked = tokens.to(signal.device, non_blocking=True).repeat(len(signal), 1)
        _, _, states, mask = self._model(input_signal=signal, input_signal_length=lengths)
        if self._aligner is None:
            return states, mask, asked
        return states, mask, asked, *self._aligner.encode(signal, lengths)

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
        return (_all_finite(states, dim=2) | ~mask.bool()).all(dim=1)

    def decode(self, *encoded: torch.Tensor) -> list[Any]:
        states, mask, asked, *for_aligner = encoded
        results: list[Any] = self._model.decoding.decode_predictions_tensor(
            encoder_hidden_states=states,
            encoder_input_mask=mask,
            decoder_input_ids=asked,
            return_hypotheses=self._extras.confidence,
        )
        if self._extras.n_best:  # NeMo's beam search does not sort what it gives
            results = [sorted(each, key=lambda one: -self.score(one)) for each in results]
        for clip in results if self._asks else ():
            for each in clip if isinstance(clip, list) else [clip]:
                each.text, words = hypotheses.words_between_frames(each.text, self._frame_seconds)
                each.timestamp = {"word": words}
        if self._aligner is not None:
            self._aligner.align([hypotheses.best(each) for each in results], *for_aligner)
        return results

    def tokens(self, hypothesis: Any) -> Tokens:
        return hypotheses.of_multitask(hypotheses.best(hypothesis), self._pieces)

    def score(self, hypothesis: Any) -> float:
        return float(hypothesis.score)

    def _turns(self, prompt: Prompt) -> list[dict[str, Any]]:
        """What is asked for, else the model's own defaults, and for want of them English ASR."""
        asked = {field: value for field, value in prompt._asdict().items() if value is not None}
        if self._asks:
            asked["timestamp"] = ASKED_TIMES
        turns = []
        for turn in self._model.prompt.get_default_dialog_slots():
            slots = {
                slot: MULTITASK_SLOTS.get(slot, "") if value is None else str(value)
                for slot, value in turn["slots"].items()
            }
            slots |= {slot: value for slot, value in asked.items() if slot in slots}
            # As plain words: encode_dialog() takes slots for encoded already if none is one.
            for field, known in zip(LANGUAGES, (self._sources, self._languages), strict=True):
                if field in slots:
                    slots[field] = prompts.language_of(slots[field], known, field)
            if "task" in slots and "task" not in asked and asked.keys() & set(LANGUAGES):
                same = slots["source_lang"] == slots["target_lang"]
                slots["task"] = prompts.TRANSCRIBE if same else prompts.TRANSLATE
            turns.append({**turn, "slots": slots})
        return turns


class _Aligner:
    """NeMo's forced alignment, with the CTC model that comes with a multitask model."""

    def __init__(self, ctc_model: Any, device: torch.device):
        self._model = ctc_model.to(device).eval()
        for name, value in (("dither", 0.0), ("pad_to", 0)):
            setattr(self._model.preprocessor.featurizer, name, value)
        self._family = family_of(self._model)

    @classmethod
    def of(cls, model: Any) -> _Aligner | None:
        """None if none comes with it."""
        ctc_model = getattr(model, "timestamps_asr_model", None)
        if ctc_model is None:
            return None
        if hasattr(ctc_model, "cur_decoder"):
            ctc_model.change_decoding_strategy(decoder_type="ctc", verbose=False)
        if not decoding_config.is_ctc(ctc_model):
            return None
        return cls(ctc_model, next(model.parameters()).device)

    def encode(self, signal: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._family.encode(signal, lengths)

    def align(self, best: list[Any], log_probs: torch.Tensor, frames: torch.Tensor) -> None:
        """Sets the ``timestamp`` of hypotheses, as ``EncDecMultiTaskModel.transcribe`` does."""
        from nemo.collections.asr.parts.utils import timestamp_utils
        from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

        own = frames.tolist()
        timestamp_utils.get_forced_aligned_timestamps_with_external_model(
            audio=[
                Hypothesis(score=0.0, y_sequence=row[:count].float().cpu())
                for row, count in zip(log_probs, own, strict=True)
            ],
            external_ctc_model=self._model,
            main_model_predictions=best,
            batch_size=len(best),
            timestamp_type="word",
            has_hypotheses=True,
            verbose=False,
        )


class Other(Prompted):
    """A model of another family, through ``transcribe()``, of which only texts are known."""

    tells_times = False

    def __init__(self, model: Any):
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
        return _within(signal.isfinite(), lengths)

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


def family_of(model: Any, extras: Extras = TEXT_ALONE) -> TellingFamily:
    """The family of a model whose decoder is set up for these extras."""
    from nemo.collections.asr import models

    if isinstance(model, models.EncDecMultiTaskModel):
        return Multitask(model, extras)
    if isinstance(model, models.EncDecRNNTModel):
        hybrid = decoding_config.is_ctc(model)
        return CtcOfHybrid(model, extras) if hybrid else Transducer(model, extras)
    if isinstance(model, models.EncDecCTCModel):
        return Ctc(model, extras)
    return Other(model)


def _languages_of(
    tokenizer: Any, slots: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """The source and the target languages of a multitask model, by themselves.

    A source language is one that there is a token for. So is a target language; but if languages
    have tokenizers of their own, it must be one that has, as in NeMo for a manifest. Canary-flash
    has tokens for languages that it was never taught. The model's own defaults are in both.

    Args:
        tokenizer: one for each language and one of tokens for prompts, or one for all.
        slots: of the model's prompt, with its own defaults. <|pnc|> and <|itn|> fill slots of these
            names, and are no languages.
    """
    tokens = getattr(tokenizer, "special_tokens", None) or tokenizer.vocab
    own = [prompts.bare(str(slots.get(field))) for field in LANGUAGES]
    tagged = [token[2:-2] for token in tokens if LANGUAGE_TOKEN.fullmatch(token)]
    sources = [name for name in tagged if name not in slots]
    sources += [name for name in own if name not in sources and f"<|{name}|>" in tokens]
    written = getattr(tokenizer, "langs", sources)
    # That of "en" may be called "en-US" (_map_canary1_to_canary2_lang in canary_tokenizer.py).
    targets = [
        name
        for name in sources
        if name in own or any(f"{each}-".startswith(f"{name}-") for each in written)
    ]
    return {name: name for name in sources}, {name: name for name in targets}


def _can_ask_for_times(model: Any) -> bool:
    """Whether a multitask model has a prompt that asks for times, and tokens that tell them."""
    slots = model.prompt.get_default_dialog_slots()[0]["slots"]
    known = getattr(model.tokenizer, "special_tokens", {})
    return "timestamp" in slots and ASKED_TIMES in known and FIRST_TIME in known


def _all_finite(states: torch.Tensor, dim: int) -> torch.Tensor:
    """Whether each frame is free of NaN and infinity, which a least and a largest value keep."""
    return states.amin(dim).isfinite() & states.amax(dim).isfinite()


def _within(frames_finite: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Whether all of a clip's own frames are; bool of shape (batch,), of (batch, frames)."""
    return (frames_finite | (_places_of(frames_finite) >= frames[:, None])).all(dim=1)


def _places_of(rows: torch.Tensor) -> torch.Tensor:
    """0, 1, 2, ... for the columns, of shape (columns,)."""
    return rows.new_ones(rows.shape[1:]).cumsum(0) - 1
