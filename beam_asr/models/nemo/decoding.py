"""What is wanted of a decoder besides the text, and how NeMo is configured for it; what differs
between decoder families is in their own files."""

from __future__ import annotations

from typing import Any, NamedTuple

from beam_asr.errors import ModelLoadError
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


def confidence_config() -> dict[str, Any]:
    """Returns the configuration by which NeMo estimates confidence."""
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
        flag: what the change is for.
        options: what else the model's ``change_decoding_strategy`` takes.

    Raises:
        ModelLoadError: NeMo cannot do it; names the model and the flag.
    """
    from omegaconf import OmegaConf

    try:
        model.change_decoding_strategy(OmegaConf.create(config), **options)
    except (NotImplementedError, ValueError) as error:
        reason = " ".join(f"NeMo says: {error}".split())[:300]
        raise refused(model, model_name, flag, reason) from error


def no_confidence_of_a_strategy(model: Any, model_name: str, config: Any) -> ModelLoadError:
    """Makes the error of a decoding strategy that tells no confidence."""
    strategy = config.get("strategy")
    reason = f"NeMo has none with its decoding strategy {strategy!r}, only with greedy decoding"
    return refused(model, model_name, "`confidence`", reason)


def no_times(model: Any, model_name: str) -> ModelLoadError:
    """The error of a model that tells no times, where they are required."""
    return refused(model, model_name, "`timestamps`", "it tells no times of what it hears")


def refused(
    model: Any, model_name: str, flag: str, reason: str, other: str | None = None
) -> ModelLoadError:
    """Makes the error of a model that cannot give what a flag requires.

    Args:
        other: a flag that the first one does not go with.
    """
    flags = flag if other is None else f"{flag} or {other}"
    return ModelLoadError(
        f"{flag} cannot be had of {model_name!r} ({type(model).__name__}): {reason}. Leave "
        f"{flags} out, or choose another model"
    )
