"""Local attention and chunked inference, on real models, beside full attention."""

from __future__ import annotations

import functools
import json

import jiwer
import numpy as np
import pytest
import soundfile
import torch

from beam_asr.errors import AttentionError, ModelLoadError
from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo import loading, long_context
from beam_asr.models.nemo.families import base, generic, registry, transducer
from beam_asr.models.nemo.long_context import Chunked
from tests.support import tiny_models
from tests.support.job_files import SAMPLE_MODEL
from tests.support.tiny_models import speechlike

RATE = 16_000
# With eightfold subsampling, and with that of the sample model; in samples.
FRAME, SAMPLE_MODELS_FRAME = 1280, 960
CHUNK = 125  # frames of 10 s
LONGEST_WINDOW = 10.0 + 10.0 + 62 * 0.08  # seconds: whole frames
SECONDS = [70.0, 12.3, 31.77]

TRANSDUCERS = ["rnnt_bpe", "tdt_bpe"]
HEADS = ["ctc_bpe", *TRANSDUCERS]


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [speechlike(seconds, seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module")
def load(tiny_model):
    """Gives a NeMo model as a recognizer drives it."""

    def give(name: str):
        path = SAMPLE_MODEL if name == "sample" else tiny_model(name)
        return engine.load(ModelSpec(str(path), "cpu"))._model.eval()

    return give


@pytest.fixture(scope="module")
def full(load):
    """Gives one that nobody changes."""
    return functools.cache(load)


def nemo_ctc(encoder: dict):
    """A CTC model around another encoder, with random weights."""
    cfg = tiny_models._common(80, encoder) | {
        "labels": tiny_models._CHARS,
        "decoder": tiny_models._ctc_decoder(tiny_models._CHARS),
        "decoding": tiny_models._ctc_decoding(),
    }
    return tiny_models._make("EncDecCTCModel", cfg)


def streaming_model():
    """Its subsampling is causal, and a frame attends to few on its right."""
    limits = {"att_context_style": "chunked_limited", "att_context_size": [28, 1]}
    causal = {"causal_downsampling": True, "conv_context_size": "causal"}
    encoder = tiny_models._encoder(80, **limits, **causal, conv_norm_type="layer_norm")
    return nemo_ctc(encoder)


@pytest.fixture
def convolutional():
    """A model as QuartzNet, without attention."""
    from nemo.collections.asr import models
    from omegaconf import OmegaConf

    block = {"filters": 32, "repeat": 1, "kernel": [11], "stride": [2], "dilation": [1]}
    encoder = {
        "_target_": "nemo.collections.asr.modules.ConvASREncoder",
        "feat_in": 80,
        "activation": "relu",
        "conv_mask": True,
        "jasper": [{**block, "dropout": 0.0, "residual": False, "separable": True}],
    }
    cfg = tiny_models._common(80, encoder) | {
        "labels": tiny_models._CHARS,
        "decoder": tiny_models._ctc_decoder(tiny_models._CHARS),
        "decoding": tiny_models._ctc_decoding(),
    }
    return models.EncDecCTCModel(cfg=OmegaConf.create(cfg)).eval()


def batch_of(waveforms: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, waveforms))
    padded = np.stack([np.pad(each, (0, longest - len(each))) for each in waveforms])
    return torch.from_numpy(padded), torch.tensor(list(map(len, waveforms)))


def encoded(family: base.Family, *waveforms: np.ndarray) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        return family.encode(*batch_of(list(waveforms)))


def texts(family: base.Family, *waveforms: np.ndarray) -> list[str]:
    with torch.inference_mode():
        return [each.text for each in family.decode(*family.encode(*batch_of(list(waveforms))))]


def by_frames(family: base.Family, tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Each clip's own states, of shape (frames, width)."""
    states, frames = tensors
    if isinstance(family, transducer.Transducer):
        states = states.transpose(1, 2)
    return [each[:count] for each, count in zip(states, frames.tolist(), strict=True)]


# ------------------------------------------------------------------------------------------ local


@pytest.mark.parametrize("name", [*HEADS, "ctc_char", "hybrid_tdt_ctc_bpe"])
def test_local_attention_is_full_attention_for_what_is_within_its_context(full, load, clips, name):
    local = load(name)
    long_context.use_local(local)
    short = clips[0][: 4 * RATE]
    before, after = (registry.family_of(each) for each in (full(name), local))
    expected, states = (by_frames(each, encoded(each, short))[0] for each in (before, after))
    # One model (the TDT) has no biases; NeMo's change would give it random ones.
    assert torch.allclose(states, expected, atol=1e-4)
    assert texts(after, short) == texts(before, short) != [""]
    assert not any(module.training for module in local.modules())


@pytest.mark.parametrize("name", HEADS)
def test_local_attention_does_not_see_what_is_far(full, load, clips, name):
    local = load(name)
    long_context.use_local(local)
    before, after = (registry.family_of(each) for each in (full(name), local))
    expected = by_frames(before, encoded(before, clips[0]))[0]
    together = encoded(after, *clips)
    states = by_frames(after, together)
    assert states[0].shape == expected.shape
    assert not torch.allclose(states[0], expected, atol=1e-2)
    alone = [by_frames(after, encoded(after, clip))[0] for clip in clips]
    for one, of_batch in zip(alone, states, strict=True):
        assert torch.allclose(one, of_batch, atol=1e-4)
    assert all(texts(after, *clips))


def test_what_a_frame_attends_to_locally_ends_at_128_frames(load):
    model = load("ctc_bpe")
    long_context.use_local(model)
    first = model.encoder.layers[0].self_attn
    frames = torch.randn(1, 600, model.encoder.d_model, generator=torch.Generator().manual_seed(0))
    changed = frames.clone()
    changed[0, 300] += 1.0
    _, places = model.encoder.pos_enc(frames)
    with torch.inference_mode():
        before, after = (
            first(each, each, each, torch.zeros(1, 600, dtype=torch.bool), places)
            for each in (frames, changed)
        )
    (seen,) = torch.nonzero((before != after).any(dim=2)[0], as_tuple=True)
    assert (seen.min().item(), seen.max().item()) == (300 - 128, 300 + 128)


def test_local_attention_keeps_the_precision(load, clips):
    model = load("tdt_bpe")
    loading._to_bf16(model)
    long_context.use_local(model)
    assert {each.dtype for each in model.encoder.parameters()} == {torch.bfloat16}
    family = registry.family_of(model)
    states, frames = encoded(family, clips[1])
    assert states.dtype == torch.bfloat16
    assert bool(family.finite(states, frames).all())


def test_local_attention_of_a_local_model_changes_nothing(load, clips):
    model = load("ctc_bpe")
    model.change_attention_model("rel_pos_local_attn", [32, 16])
    model.eval()
    family = registry.family_of(model)
    before = encoded(family, clips[1])[0]
    long_context.use_local(model)
    assert model.encoder.att_context_size == [32, 16]
    assert torch.equal(encoded(family, clips[1])[0], before)


def test_local_attention_is_refused_where_it_cannot_be(full, convolutional):
    for model, words in (
        (convolutional, ["EncDecCTCModel", "ConvASREncoder"]),
        (full("aed_multitask"), ["EncDecMultiTaskModel", "ConformerEncoder", "40 s"]),
        (streaming_model(), ["EncDecCTCModel", "rel_pos"]),
    ):
        with pytest.raises(AttentionError, match="Leave `attention` out") as refused:
            long_context.use_local(model)
        assert all(word in str(refused.value) for word in words)


def test_local_attention_is_refused_where_nemo_cannot_change_the_model():
    """The sample model's configuration lacks a key that NeMo needs for it."""
    with pytest.raises(ModelLoadError) as refused:
        engine.load(ModelSpec(str(SAMPLE_MODEL), "cpu", attention="local"))
    message = str(refused.value)
    for words in (SAMPLE_MODEL.name, "`attention=local`", "pos_emb_max_len", "Leave `attention`"):
        assert words in message


# ---------------------------------------------------------------------------------------- chunked


def chunked(model) -> Chunked:
    return Chunked(registry.family_of(model), model)


@pytest.mark.parametrize("name", HEADS)
def test_a_clip_of_one_window_is_encoded_as_ever(full, clips, name):
    model = full(name)
    plain, ours = registry.family_of(model), chunked(model)
    one = clips[0][: int(LONGEST_WINDOW * RATE)]
    for waveform in (one, clips[1]):
        for expected, given in zip(encoded(plain, waveform), encoded(ours, waveform), strict=True):
            assert torch.equal(given, expected)
    # Beside a long clip, too.
    expected = by_frames(plain, encoded(plain, one))[0]
    given = by_frames(plain, encoded(ours, clips[0], one))[1]
    assert given.shape == expected.shape
    assert torch.allclose(given, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["ctc_bpe", "ctc_char", "streaming", "sample"])
def test_no_frame_is_lost_or_added(full, clips, name):
    model = streaming_model() if name == "streaming" else full(name)
    model.preprocessor.featurizer.dither = 0.0
    plain, ours = registry.family_of(model), chunked(model)
    frame = SAMPLE_MODELS_FRAME if name == "sample" else FRAME
    edge = int(LONGEST_WINDOW * RATE)
    lengths = [edge, edge + 1, edge + 159, 35 * RATE - 1, 35 * RATE, 35 * RATE + frame - 1]
    waveforms = [clips[0][:samples] for samples in lengths]
    expected = [encoded(plain, each)[1].item() for each in waveforms]
    assert [len(each) for each in by_frames(plain, encoded(ours, *waveforms))] == expected
    alone = [by_frames(plain, encoded(ours, each))[0] for each in waveforms[1::2]]
    assert [len(each) for each in alone] == expected[1::2]


@pytest.mark.parametrize("name", [*HEADS, "sample"])
def test_each_frame_is_in_its_place(full, clips, name):
    model = full(name)
    plain, ours = registry.family_of(model), chunked(model)
    whole, joined = (by_frames(plain, encoded(each, clips[0]))[0] for each in (plain, ours))
    for start in range(0, len(whole) - 60, 30):
        expected = whole[start + 10 : start + 40]
        apart = {
            lag: (joined[start + 10 + lag : start + 40 + lag] - expected).abs().mean().item()
            for lag in range(-10, 11)
        }
        assert min(apart, key=apart.__getitem__) == 0, f"frames from {start} are shifted"


@pytest.mark.parametrize("name", HEADS)
def test_the_text_of_a_long_clip_does_not_depend_on_its_batch(full, clips, name):
    ours = chunked(full(name))
    together = texts(ours, *clips)
    assert all(together)
    assert [texts(ours, clip)[0] for clip in clips] == together
    assert texts(ours, *clips[::-1]) == together[::-1]
    ours.pass_seconds = 200.0
    assert texts(ours, *clips) == together


@pytest.mark.parametrize("name", TRANSDUCERS)
def test_the_text_is_that_of_decoding_chunk_by_chunk_with_a_carried_state(full, clips, name):
    model = full(name)
    ours = chunked(model)
    states, frames = encoded(ours, *clips)
    computer = model.decoding.decoding.decoding_computer
    whole, state = None, None
    with torch.inference_mode():
        for start in range(0, states.shape[2], CHUNK):
            part = states[:, :, start : start + CHUNK].transpose(1, 2)
            own = (frames - start).clamp(0, part.shape[1])
            found, *_, state = computer(x=part, out_len=own, prev_batched_state=state)
            whole = found if whole is None else whole.merge_(found)
        hypotheses = ours.decode(states, frames)
    for index, hypothesis in enumerate(hypotheses):
        tokens = whole.transcript[index, : whole.current_lengths[index]].tolist()
        assert len(tokens) > 20
        assert model.tokenizer.ids_to_text(tokens) == hypothesis.text


@pytest.mark.parametrize("name", HEADS)
def test_what_is_not_finite_stays_with_its_clip(full, clips, name):
    ours = chunked(full(name))
    broken = clips[0].copy()
    broken[int(44.0 * RATE)] = np.nan
    tensors = encoded(ours, clips[2], broken, clips[1])
    assert ours.finite(*tensors).tolist() == [True, False, True]


def test_the_windows_of_a_clip_do_not_go_through_the_encoder_all_at_once(load, clips):
    model = load("rnnt_bpe")
    seen = []
    model.encoder.register_forward_pre_hook(
        lambda _module, _inputs, kwargs: seen.append(tuple(kwargs["audio_signal"].shape)),
        with_kwargs=True,
    )
    encoded(chunked(model), *clips)
    assert len(seen) > 3
    assert all(clips * frames <= 60 * 100 for clips, _, frames in seen)  # a hundred frames a second


def test_chunked_is_refused_where_it_cannot_be(full, convolutional):
    for model, words in (
        (convolutional, ["EncDecCTCModel", "ConvASREncoder"]),
        (full("aed_multitask"), ["EncDecMultiTaskModel"]),
    ):
        with pytest.raises(AttentionError, match="Leave `attention` out") as refused:
            chunked(model)
        assert all(word in str(refused.value) for word in words)
    model = full("rnnt_bpe")
    with pytest.raises(AttentionError, match="neither a CTC model nor a transducer"):
        Chunked(generic.GenericFamily(model), model)


def test_of_real_speech_it_hears_about_what_is_recognized_of_the_parts(full, prompts):
    rows = [json.loads(line) for line in (prompts / "all.jsonl").read_text().splitlines()]
    chosen, seconds = [], 0.0
    for row in rows[::5]:
        if seconds < 80.0 and row["duration"] > 1.0:
            chosen.append(row)
            seconds += row["duration"]
    parts = [soundfile.read(prompts / row["audio_filepath"], dtype="float32")[0] for row in chosen]
    references = [row["text"] for row in chosen]
    model = full("sample")
    plain = registry.family_of(model)
    apart = jiwer.wer(" ".join(references), " ".join(texts(plain, part)[0] for part in parts))
    long = np.concatenate(parts)
    at_once, by_chunks = (
        jiwer.wer(" ".join(references), texts(each, long)[0]) for each in (plain, chunked(model))
    )
    print(f"{seconds:.0f} s: apart {apart:.3f}, full {at_once:.3f}, chunked {by_chunks:.3f}")
    assert by_chunks < apart + 0.03
