"""Configures NeMo's decoders for a request: times, confidence, n best texts.

What differs between decoder families is in their files.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from beam_asr.errors import ModelLoadError
from beam_asr.settings import DECODERS

REQUIRED = "required"

# How NeMo estimates confidence: the entropy of each emission's distribution, with the defaults of
# ConfidenceMethodConfig (nemo/collections/asr/parts/utils/asr_confidence_utils.py). A token's
# confidence is that of the step that emits it; with CTC, aggregated over the frames that it spans.
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
# The strategies whose hypotheses have the frame of each token.
CTC_WITH_FRAMES = (*GREEDY, "beam_batch")
TRANSDUCER_WITH_FRAMES = (*GREEDY, "malsd_batch", "maes_batch")


class DecodingRequest(NamedTuple):
    """Requests results besides the text.

    Attributes:
        times: of the tokens: None, ``wanted`` (if the model has them for the same text, and at no
            cost) or ``required``.
        confidence: whether to return the confidence of the tokens.
        n_best: number of texts with scores; 0 for the text alone.
    """

    times: str | None = None
    confidence: bool = False
    n_best: int = 0

    @property
    def tokens(self) -> bool:
        """Tells whether tokens are requested at all."""
        return self.times is not None or self.confidence

    @property
    def beam(self) -> int:
        """Returns the size of the beam; 1 is greedy search."""
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
    """Makes a greedy decoder decode a batch at once, not clip by clip; the texts stay the same."""
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


def confidence_config() -> dict[str, Any]:
    """Returns NeMo's configuration for estimating confidence."""
    return {
        "preserve_frame_confidence": True,
        "preserve_token_confidence": True,
        "method_cfg": {key: CONFIDENCE[key] for key in _METHOD},
        **{key: value for key, value in CONFIDENCE.items() if key not in _METHOD},
    }


def copy_config(config: Any) -> dict[str, Any]:
    """Copies the configuration of a decoder."""
    from omegaconf import OmegaConf

    copied = OmegaConf.to_container(config, resolve=True)
    assert isinstance(copied, dict)
    return copied  # type: ignore[return-value]


def change_strategy(model: Any, model_name: str, config: Any, flag: str, **options: Any) -> None:
    """Changes the decoder of a model to this configuration.

    Args:
        flag: the setting that needs the change.
        options: further arguments of the model's ``change_decoding_strategy``.

    Raises:
        ModelLoadError: NeMo cannot do it; the message names the model and the flag.
    """
    from omegaconf import OmegaConf

    try:
        model.change_decoding_strategy(OmegaConf.create(config), **options)
    except (NotImplementedError, ValueError) as error:
        reason = " ".join(f"NeMo says: {error}".split())[:300]
        raise unsupported(model, model_name, flag, reason) from error


def strategy_without_confidence(model: Any, model_name: str, config: Any) -> ModelLoadError:
    """Makes the error of a decoding strategy that has no confidence."""
    strategy = config.get("strategy")
    reason = f"NeMo has none with its decoding strategy {strategy!r}, only with greedy decoding"
    return unsupported(model, model_name, "`confidence`", reason)


def model_without_times(model: Any, model_name: str) -> ModelLoadError:
    """Makes the error of a model that has no times, where they are required."""
    return unsupported(model, model_name, "`timestamps`", "it tells no times of what it hears")


def unsupported(
    model: Any, model_name: str, flag: str, reason: str, other: str | None = None
) -> ModelLoadError:
    """Makes the error of a model that does not support what a flag requires.

    Args:
        other: a flag that cannot be combined with the first one.
    """
    flags = flag if other is None else f"{flag} or {other}"
    return ModelLoadError(
        f"{flag} cannot be had of {model_name!r} ({type(model).__name__}): {reason}. Leave "
        f"{flags} out, or choose another model"
    )
