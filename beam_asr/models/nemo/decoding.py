"""How the decoder of a loaded model is set up, for what is wanted of it besides the text."""

from __future__ import annotations

from typing import Any, NamedTuple

from beam_asr.errors import ModelLoadError, for_message
from beam_asr.settings import DECODERS

WANTED, REQUIRED = "wanted", "required"

# How NeMo estimates confidence: the entropy of each emission's distribution, with the defaults of
# ConfidenceMethodConfig (nemo/collections/asr/parts/utils/asr_confidence_utils.py). A token's is
# that of the step that emits it; of a CTC model, aggregated over the frames that it spans.
CONFIDENCE: dict[str, Any] = {
    "name": "entropy",
    "entropy_type": "tsallis",
    "alpha": 0.33,
    "entropy_norm": "exp",
    "exclude_blank": True,
    "aggregation": "mean",
}
_METHOD = ("name", "entropy_type", "alpha", "entropy_norm")

MIN_BEAM = 4  # a narrower beam finds too few texts that differ

GREEDY = ("greedy", "greedy_batch")
# Those whose hypotheses say of which frame each token is.
CTC_WITH_FRAMES = (*GREEDY, "beam_batch")
TRANSDUCER_WITH_FRAMES = (*GREEDY, "malsd_batch", "maes_batch")


class DecodingRequest(NamedTuple):
    """What is wanted besides the text.

    Attributes:
        times: of the tokens: None, ``wanted`` (if the model tells them of the same text, and at no
            cost) or ``required``.
        confidence: of the tokens.
        n_best: how many texts with scores; 0 is none.
    """

    times: str | None = None
    confidence: bool = False
    n_best: int = 0

    @property
    def tokens(self) -> bool:
        """Whether tokens are wanted at all."""
        return self.times is not None or self.confidence

    @property
    def beam(self) -> int:
        """Hypotheses to search with; 1 is greedily."""
        return 1 if self.n_best <= 1 else max(self.n_best, MIN_BEAM)


TEXT_ONLY = DecodingRequest()


def choose_decoder(model: Any, model_name: str, decoder: str) -> None:
    """Chooses the decoder of a hybrid model.

    Raises:
        ModelLoadError: the model has no choice of decoders, or not this one.
    """
    if decoder not in DECODERS:
        raise ModelLoadError(f"decoder {decoder!r} is none of {', '.join(DECODERS)}")
    if not hasattr(model, "cur_decoder"):
        raise ModelLoadError(
            f"`decoder={decoder}` chooses a decoder of a hybrid model, but {model_name!r} is a "
            f"{type(model).__name__}, which has one alone; leave the flag out"
        )
    model.change_decoding_strategy(decoder_type=decoder, verbose=False)


def use_batched_greedy(model: Any) -> None:
    """Has a greedy decoder take a batch at once and not clip by clip; the texts are the same."""
    chosen = getattr(model, "cur_decoder", None)
    ctc_of_hybrid = model.cfg.get("aux_ctc", {}).get("decoding")
    for config, options in (
        (model.cfg.get("decoding"), {}),
        (ctc_of_hybrid, {"decoder_type": "ctc"}),
    ):
        if config is not None and config.get("strategy") == "greedy":
            config.strategy = "greedy_batch"
            model.change_decoding_strategy(config, verbose=False, **options)
    if chosen is not None:  # each change also chooses the decoder
        model.change_decoding_strategy(decoder_type=chosen, verbose=False)


def configure_decoding(model: Any, model_name: str, extras: DecodingRequest) -> None:
    """Sets up the chosen decoder so that its hypotheses tell what is wanted.

    The text stays as it is, but where more than one is wanted, which takes a beam search.

    Raises:
        ModelLoadError: the model cannot tell the confidence or the texts that are wanted.
    """
    from nemo.collections.asr import models

    if extras == TEXT_ONLY:
        return
    if isinstance(model, models.EncDecMultiTaskModel):
        _configure_multitask(model, model_name, extras)
    elif is_ctc(model):
        _configure_ctc(model, model_name, extras)
    elif isinstance(model, models.EncDecRNNTModel):
        _configure_transducer(model, model_name, extras)
    elif extras.confidence or extras.n_best:
        flag = "`confidence`" if extras.confidence else "`n_best`"
        raise _refused(model, model_name, flag, "its decoder is not known here")


def is_ctc(model: Any) -> bool:
    """Whether the decoder in use is a CTC decoder, a hybrid model's too."""
    from nemo.collections.asr import models

    if isinstance(model, models.EncDecRNNTModel):
        return bool(getattr(model, "cur_decoder", "rnnt") == "ctc")
    return isinstance(model, models.EncDecCTCModel)


def _configure_ctc(model: Any, model_name: str, extras: DecodingRequest) -> None:
    hybrid = hasattr(model, "cur_decoder")
    config = _copy(model.cfg.aux_ctc.decoding if hybrid else model.cfg.decoding)
    if extras.confidence and extras.beam == 1 and config.get("strategy") not in CTC_WITH_FRAMES:
        raise _no_confidence_of_a_strategy(model, model_name, config)
    if extras.beam == 1:
        return  # the frames' labels are there anyway, and make the rest
    options = {"decoder_type": "ctc"} if hybrid else {}
    config.update(strategy="beam_batch", preserve_alignments=False, compute_timestamps=False)
    config.setdefault("beam", {}).update(
        # Neither a language model, nor a bonus for each token, which is to go with one.
        {"ngram_lm_model": None, "kenlm_path": None, "beam_alpha": None, "beam_beta": 0.0},
        beam_size=extras.beam,
        return_best_hypothesis=False,
        preserve_alignments=False,
        compute_timestamps=False,
        allow_cuda_graphs=False,  # they are captured again for each batch that is a new size
    )
    _change(model, model_name, config, "`n_best`", verbose=False, **options)


def _configure_transducer(model: Any, model_name: str, extras: DecodingRequest) -> None:
    config = _copy(model.cfg.decoding)
    if extras.confidence:
        if extras.beam > 1:
            raise _refused(
                model, model_name, "`confidence`", "NeMo's beam search has none", "`n_best`"
            )
        if config.get("strategy") not in GREEDY:
            raise _no_confidence_of_a_strategy(model, model_name, config)
        config.update(compute_timestamps=False, confidence_cfg=_confidence_config())
        _change(model, model_name, config, "`confidence`", verbose=False)
    elif extras.beam > 1:
        config.update(strategy="malsd_batch", preserve_alignments=False, compute_timestamps=False)
        config.setdefault("beam", {}).update(
            {"ngram_lm_model": None},
            beam_size=extras.beam,
            return_best_hypothesis=False,
            preserve_alignments=False,
            allow_cuda_graphs=False,
        )
        _change(model, model_name, config, "`n_best`", verbose=False)


def _configure_multitask(model: Any, model_name: str, extras: DecodingRequest) -> None:
    config = _copy(model.cfg.decoding)
    beam = config.setdefault("beam", {})
    is_beam = config.get("strategy") == "beam"
    size = beam.get("beam_size", 1) if is_beam else 1
    if extras.confidence:
        if extras.n_best:
            raise _refused(
                model, model_name, "`confidence`", "NeMo's beam search has none", "`n_best`"
            )
        boosted = beam.get("ngram_lm_model") or (beam.get("boosting_tree_alpha") or 0.0) > 0.0
        if is_beam and (size > 1 or boosted):
            raise _no_confidence_of_a_strategy(model, model_name, config)
        if is_beam:  # of one hypothesis, which is greedy search
            config.setdefault("greedy", {}).update(
                max_generation_delta=beam.get("max_generation_delta", -1),
                temperature=None,
                n_samples=1,
            )
            config.update(strategy="greedy")
        config.update(confidence_cfg=_confidence_config())
        _change(model, model_name, config, "`confidence`")
        if is_beam:
            _allow_more_tokens(model.decoding.decoding.greedy_search, 1)
    elif extras.n_best:
        if not is_beam:
            beam["max_generation_delta"] = config.get("greedy", {}).get("max_generation_delta", -1)
        beam.update(
            beam_size=size if extras.n_best == 1 else extras.beam, return_best_hypothesis=False
        )
        config.update(strategy="beam")
        _change(model, model_name, config, "`n_best`")
        if not is_beam:
            _allow_more_tokens(model.decoding.decoding.beam_search, -1)


def _allow_more_tokens(search: Any, more: int) -> None:
    """Changes how many tokens a text may have before it is cut off.

    NeMo's beam search makes one more than its greedy search, of the same limits
    (nemo/collections/asr/modules/transformer/transformer_generators.py).
    """
    search.max_seq_length += more
    if search.max_delta_len >= 0:
        search.max_delta_len += more


def _confidence_config() -> dict[str, Any]:
    return {
        "preserve_frame_confidence": True,
        "preserve_token_confidence": True,
        "method_cfg": {key: CONFIDENCE[key] for key in _METHOD},
        **{key: value for key, value in CONFIDENCE.items() if key not in _METHOD},
    }


def _copy(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    copied = OmegaConf.to_container(config, resolve=True)
    assert isinstance(copied, dict)
    return copied  # type: ignore[return-value]


def _change(model: Any, model_name: str, config: Any, flag: str, **options: Any) -> None:
    from omegaconf import OmegaConf

    try:
        model.change_decoding_strategy(OmegaConf.create(config), **options)
    except (NotImplementedError, ValueError) as error:
        reason = for_message(" ".join(f"NeMo says: {error}".split()), 300)
        raise _refused(model, model_name, flag, reason) from error


def _no_confidence_of_a_strategy(model: Any, model_name: str, config: Any) -> ModelLoadError:
    strategy = config.get("strategy")
    reason = f"NeMo has none with its decoding strategy {strategy!r}, only with greedy decoding"
    return _refused(model, model_name, "`confidence`", reason)


def no_times(model: Any, model_name: str) -> ModelLoadError:
    """The error of a model that tells no times, where they are required."""
    return _refused(model, model_name, "`timestamps`", "it tells no times of what it hears")


def _refused(
    model: Any, model_name: str, flag: str, reason: str, other: str | None = None
) -> ModelLoadError:
    flags = flag if other is None else f"{flag} or {other}"
    return ModelLoadError(
        f"{flag} cannot be had of {model_name!r} ({type(model).__name__}): {reason}. Leave "
        f"{flags} out, or choose another model"
    )
