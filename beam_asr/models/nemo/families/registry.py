"""The decoder families of NeMo's models, each listed once."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families.base import DecoderFamily


class _Entry(NamedTuple):
    """Which models are of a family.

    Attributes:
        nemo_class: a class of ``nemo.collections.asr.models``, or one that is derived from it.
        decoder: the one in use, of a hybrid model that has several; None is any.
        family: the module in this folder, and its class.
    """

    nemo_class: str
    decoder: str | None
    family: str


# The first one that fits is a model's.
FAMILIES = (
    _Entry("EncDecMultiTaskModel", None, "multitask:Multitask"),
    _Entry("EncDecRNNTModel", "ctc", "ctc:CtcOfHybrid"),
    _Entry("EncDecRNNTModel", None, "transducer:Transducer"),
    _Entry("EncDecCTCModel", None, "ctc:Ctc"),
)
ANY_OTHER = "generic:GenericFamily"


def family_class(model: Any) -> type[DecoderFamily]:
    """Finds the family of a model with the decoder that is in use."""
    from nemo.collections.asr import models

    found = ANY_OTHER
    for entry in FAMILIES:
        chosen = entry.decoder in (None, getattr(model, "cur_decoder", None))
        if chosen and isinstance(model, getattr(models, entry.nemo_class)):
            found = entry.family
            break
    module, _, name = found.partition(":")
    family: type[DecoderFamily] = getattr(
        importlib.import_module(f"beam_asr.models.nemo.families.{module}"), name
    )
    return family


def family_of(model: Any, extras: DecodingRequest = TEXT_ONLY) -> DecoderFamily:
    """Returns the family of a model whose decoder is configured for these extras."""
    return family_class(model)(model, extras)


def configure_decoding(model: Any, model_name: str, extras: DecodingRequest) -> None:
    """Configures the decoder in use as its family does; for the text alone all stays as it is.

    Raises:
        ModelLoadError: the model cannot tell the confidence or the texts that are wanted.
    """
    if extras != TEXT_ONLY:
        family_class(model).configure(model, model_name, extras)
