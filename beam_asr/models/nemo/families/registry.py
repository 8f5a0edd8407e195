"""Lists the decoder families of NeMo's models, and finds a model's family."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families.base import DecoderFamily


class _Entry(NamedTuple):
    """Describes the models of a family.

    Attributes:
        nemo_class: a class of ``nemo.collections.asr.models``, or a base of the model's class.
        decoder: the one in use, for a hybrid model that has several; None is any.
        family: the module in this folder, and its class.
    """

    nemo_class: str
    decoder: str | None
    family: str


# The first match is a model's family.
FAMILIES = (
    _Entry("EncDecMultiTaskModel", None, "multitask:Multitask"),
    _Entry("EncDecRNNTModel", "ctc", "ctc:CtcOfHybrid"),
    _Entry("EncDecRNNTModel", None, "transducer:Transducer"),
    _Entry("EncDecCTCModel", None, "ctc:Ctc"),
)
ANY_OTHER = "generic:GenericFamily"


def family_class(model: Any) -> type[DecoderFamily]:
    """Finds the family of a model by its class and the decoder in use."""
    from nemo.collections.asr import models

    path = ANY_OTHER
    for entry in FAMILIES:
        chosen = entry.decoder in (None, getattr(model, "cur_decoder", None))
        if chosen and isinstance(model, getattr(models, entry.nemo_class)):
            path = entry.family
            break
    module, _, name = path.partition(":")
    family: type[DecoderFamily] = getattr(
        importlib.import_module(f"beam_asr.models.nemo.families.{module}"), name
    )
    return family


def family_of(model: Any, request: DecodingRequest = TEXT_ONLY) -> DecoderFamily:
    """Returns the family of a model whose decoder is configured for the request."""
    return family_class(model)(model, request)


def configure_decoding(model: Any, model_name: str, request: DecodingRequest) -> None:
    """Configures the decoder in use as its family does; changes nothing for the text alone.

    Raises:
        ModelLoadError: the model does not have the confidence or the texts requested.
    """
    if request != TEXT_ONLY:
        family_class(model).configure(model, model_name, request)
