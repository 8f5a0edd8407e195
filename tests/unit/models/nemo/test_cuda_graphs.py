"""The guard of CUDA graphs, on a model whose decoding has them; capturing them takes a GPU."""

from __future__ import annotations

import pytest

from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo import cuda_graphs
from beam_asr.models.nemo.cuda_graphs import DecodingGraphs
from tests.support.tiny_models import speechlike


@pytest.fixture
def transducer(tiny_model):
    return engine.load(ModelSpec(str(tiny_model("tdt_bpe")), "cpu"))._model


def mode_of(model):
    return model.decoding.decoding.decoding_computer.cuda_graphs_mode


def test_what_is_above_the_captured_is_decoded_without_them(transducer):
    graphs = DecodingGraphs(transducer)
    before = mode_of(transducer)
    assert graphs.enabled
    assert graphs.mode == before.value
    graphs.capture(lambda: None, clips=8, frames=100)
    for clips, frames, within in [(8, 100, True), (1, 1, True), (9, 100, False), (8, 101, False)]:
        with graphs.limited_to(clips, frames):
            assert (mode_of(transducer) is before) == within
        assert mode_of(transducer) is before, "the captured graph stays for the next batch"


def test_they_come_back_after_a_batch_that_failed(transducer):
    graphs = DecodingGraphs(transducer)
    before = mode_of(transducer)
    with pytest.raises(ValueError, match="no"), graphs.limited_to(1, 1):
        raise ValueError("no")
    assert mode_of(transducer) is before


def test_a_capture_that_fails_is_reported_and_decoding_goes_on_without(transducer, monkeypatch):
    said = []
    monkeypatch.setattr(cuda_graphs.logger, "warning", lambda *words: said.append(words))
    graphs = DecodingGraphs(transducer)

    def fails():
        raise RuntimeError("CUDA failure! 35")

    graphs.capture(fails, clips=8, frames=100)
    assert graphs.mode == "off: RuntimeError: CUDA failure! 35"
    assert "CUDA failure! 35" in repr(said)
    assert mode_of(transducer) is None
    with graphs.limited_to(1, 1):
        assert mode_of(transducer) is None
    assert mode_of(transducer) is None


@pytest.mark.parametrize(
    ("family", "decoder"),
    [("ctc_bpe", None), ("hybrid_tdt_ctc_bpe", "ctc"), ("aed_multitask", None)],
)
def test_decoders_without_them_are_left_alone(tiny_model, family, decoder):
    ours = engine.load(ModelSpec(str(tiny_model(family)), "cpu", decoder))
    assert not ours._graphs.enabled
    assert ours._graphs.mode == "off"
    ours._capture_graphs(4)
    assert ours._graphs.mode == "off"
    with ours._graphs.limited_to(1000, 1000):
        pass


def test_warming_up_captures_at_the_ceiling_and_changes_no_text(tiny_model, monkeypatch):
    """The steps of a GPU's warm-up, as far as a CPU can go."""
    ours = engine.load(ModelSpec(str(tiny_model("tdt_bpe")), "cpu"))
    clips = [speechlike(0.6 + index, seed=index) for index in range(4)]
    expected = ours.transcribe(clips)
    captured = []
    capture = DecodingGraphs.capture

    def noted(self, decode, clips, frames):
        captured.append((clips, frames))
        capture(self, decode, clips, frames)

    monkeypatch.setattr(DecodingGraphs, "capture", noted)
    ours._capture_graphs(6)
    budget = ours._measured_budget(4)
    ((clips_captured, frames),) = captured
    assert clips_captured == 6
    assert frames == pytest.approx(4 * ours.encode([speechlike(30.0)]).tensors[0].shape[-1], abs=4)
    assert budget.batch_seconds in (30.0, 60.0, 120.0)
    assert budget.overhead_seconds >= 0
    assert ours._graphs.mode == mode_of(ours._model).value, "the capture went through"
    assert ours.transcribe(clips) == expected
