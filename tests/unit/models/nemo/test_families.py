"""Which family a model is of, and what a family is."""

from __future__ import annotations

import importlib

import pytest

from beam_asr.models.nemo.families import registry
from beam_asr.models.nemo.families.ctc import Ctc, CtcOfHybrid
from beam_asr.models.nemo.families.generic import GenericFamily
from beam_asr.models.nemo.families.multitask import Multitask
from beam_asr.models.nemo.families.transducer import Transducer


def instance_of(name: str, decoder: str | None = None):
    """A model of a class of NeMo's, of which nothing is set up."""
    from nemo.collections.asr import models

    model = object.__new__(getattr(models, name))
    if decoder is not None:
        object.__setattr__(model, "cur_decoder", decoder)
    return model


@pytest.mark.parametrize(
    ("name", "decoder", "family"),
    [
        ("EncDecMultiTaskModel", None, Multitask),
        ("EncDecCTCModelBPE", None, Ctc),
        ("EncDecRNNTBPEModel", None, Transducer),
        ("EncDecHybridRNNTCTCBPEModel", "rnnt", Transducer),
        ("EncDecHybridRNNTCTCBPEModel", "ctc", CtcOfHybrid),
        ("EncDecSpeakerLabelModel", None, GenericFamily),
    ],
)
def test_a_model_is_of_the_family_of_its_class_and_decoder(name, decoder, family):
    assert registry.family_class(instance_of(name, decoder)) is family


def test_every_family_of_the_table_has_all_that_a_family_has():
    for entry in registry.FAMILIES:
        module, _, name = entry.family.partition(":")
        family = getattr(importlib.import_module(f"beam_asr.models.nemo.families.{module}"), name)
        for each in ("configure", "encode", "finite", "decode", "tokens", "score", "any_prompt"):
            assert callable(getattr(family, each))
        assert family.frame_axis in (None, 1, 2)


def test_only_a_transducer_has_graphs_and_only_a_multitask_model_attends_to_the_whole():
    families = (Multitask, CtcOfHybrid, Ctc, Transducer, GenericFamily)
    assert [each for each in families if each.has_decoding_graphs] == [Transducer]
    assert [each for each in families if each.attends_to_whole_clip] == [Multitask]
    assert {each: each.frame_axis for each in families} == {
        Multitask: None, CtcOfHybrid: 1, Ctc: 1, Transducer: 2, GenericFamily: None,
    }  # fmt: skip
