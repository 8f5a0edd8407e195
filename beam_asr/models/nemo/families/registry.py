"""Which family a model belongs to."""

from __future__ import annotations

from typing import Any

from beam_asr.models.nemo import decoding
from beam_asr.models.nemo.decoding import TEXT_ONLY, DecodingRequest
from beam_asr.models.nemo.families.base import DecoderFamily
from beam_asr.models.nemo.families.ctc import ctc_family_of
from beam_asr.models.nemo.families.generic import GenericFamily
from beam_asr.models.nemo.families.multitask import Multitask
from beam_asr.models.nemo.families.transducer import Transducer


def family_of(model: Any, extras: DecodingRequest = TEXT_ONLY) -> DecoderFamily:
    """The family of a model whose decoder is set up for these extras."""
    from nemo.collections.asr import models

    if isinstance(model, models.EncDecMultiTaskModel):
        return Multitask(model, extras)
    if decoding.is_ctc(model):
        return ctc_family_of(model, extras)
    if isinstance(model, models.EncDecRNNTModel):
        return Transducer(model, extras)
    return GenericFamily(model)
