"""Our way of driving NeMo against NeMo's own ``transcribe()``, to the letter, on a CPU in fp32."""

from __future__ import annotations

import json
import random

import jiwer
import numpy as np
import pytest
import soundfile

from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo.families import generic
from tests.support.job_files import SAMPLE_MODEL, SAMPLES
from tests.support.tiny_models import FAMILIES, TDT_OF_CHARACTERS, speechlike

# transcribe() pads what is shorter than a second, and NeMo alone takes no frame of some of these.
SHORT = [1, 2, 100, 159, 160, 161, 319, 320, 321, 1000, 2559, 2560, 5000, 15_999, 16_000, 16_001]


HEADS = [(family, None) for family in FAMILIES] + [
    (family, "ctc") for family in FAMILIES if family.startswith("hybrid")
]


def nemo_texts(model, clips: list[np.ndarray], batch_size: int) -> list[str]:
    """What NeMo's transcribe() returns, called as its users call it."""
    kwargs = {}
    if type(model).__name__ == "EncDecMultiTaskModel":
        kwargs = {"source_lang": "en", "target_lang": "en"}
    results = model.transcribe(clips, batch_size=batch_size, verbose=False, **kwargs)
    return [result.text for result in results]


def our_texts(ours: engine.Recognizer, clips: list[np.ndarray]) -> list[str]:
    return [result.text for result in ours.transcribe(clips)]


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [speechlike(0.6 + 0.45 * index, seed=index) for index in range(12)]


@pytest.fixture(scope="module", params=HEADS, ids=lambda head: "-".join(filter(None, head)))
def pair(request, tiny_model):
    """A model through us, and the same one for NeMo's transcribe() alone."""
    from nemo.collections.asr.models import ASRModel

    family, decoder = request.param
    path = str(tiny_model(family))
    reference = ASRModel.restore_from(path, map_location="cpu")
    if decoder:
        reference.change_decoding_strategy(decoder_type=decoder, verbose=False)
    return engine.load(ModelSpec(path, "cpu", decoder)), reference


def test_the_text_is_nemos_for_any_batch_and_order(pair, clips):
    ours, reference = pair
    expected = nemo_texts(reference, clips, batch_size=4)
    assert len(set(expected)) >= len(clips) - 3, "the model says too little to tell texts apart"
    assert our_texts(ours, clips) == expected
    assert [our_texts(ours, [clip])[0] for clip in clips] == expected
    order = random.Random(0).sample(range(len(clips)), len(clips))
    for start in range(0, len(order), 5):
        chosen = order[start : start + 5]
        assert our_texts(ours, [clips[i] for i in chosen]) == [expected[i] for i in chosen]


def test_a_tdt_model_of_characters_writes_all_its_letters(tiny_model, clips):
    """NeMo's own texts lack as many letters as the model has durations."""
    from nemo.collections.asr.models import ASRModel

    path = str(tiny_model(TDT_OF_CHARACTERS))
    reference = ASRModel.restore_from(path, map_location="cpu")
    labels = list(reference.cfg.labels)
    results = reference.transcribe(clips, batch_size=4, return_hypotheses=True, verbose=False)
    expected = ["".join(labels[int(token)] for token in one.y_sequence) for one in results]
    lost = set("".join(expected)) - set("".join(one.text for one in results))
    assert lost
    assert lost <= set(labels[-5:])
    for words in ({}, {"times": "required"}, {"n_best": 1}):
        ours = engine.load(ModelSpec(path, "cpu", **words))
        assert our_texts(ours, clips) == expected


def test_too_short_clips_are_padded_as_nemo_pads_them(pair, clips):
    ours, reference = pair
    short = [clips[5][:count] for count in SHORT]
    expected = nemo_texts(reference, short, batch_size=1)
    assert [our_texts(ours, [clip])[0] for clip in short] == expected
    mixed = [clip for both in zip(short, clips * 2, strict=False) for clip in both]
    assert our_texts(ours, mixed)[::2] == expected


def test_a_transcribe_call_by_others_in_between_changes_nothing(pair, clips):
    ours, _ = pair
    before = our_texts(ours, clips[:4])
    nemo_texts(ours._model, clips[:2], batch_size=2)  # leaves parts of the model in train mode
    assert any(module.training for module in ours._model.modules())
    assert our_texts(ours, clips[:4]) == before


def test_results_hold_no_tensors(pair, clips):
    ours, _ = pair
    (result,) = ours.transcribe(clips[:1])
    assert type(result.text) is str
    assert ours.transcribe([]) == []


def test_the_sample_model_says_of_the_sample_clips_what_nemo_says():
    from nemo.collections.asr.models import ASRModel

    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    audio = [soundfile.read(SAMPLES / row["audio_filepath"], dtype="float32")[0] for row in rows]
    reference = ASRModel.restore_from(str(SAMPLE_MODEL), map_location="cpu")
    # Alone: this model subsamples by stacking, of which NeMo's own text depends on the batch.
    expected = nemo_texts(reference, audio, batch_size=1)
    ours = engine.load(ModelSpec(str(SAMPLE_MODEL), "cpu"))
    assert our_texts(ours, audio) == expected
    assert our_texts(ours, audio[::-1]) == expected[::-1]
    assert [our_texts(ours, [clip])[0] for clip in audio] == expected


def test_the_sample_model_hears_each_prompt_the_same_in_any_batch(prompts):
    from nemo.collections.asr.models import ASRModel

    rows = [json.loads(line) for line in (prompts / "held_out.jsonl").read_text().splitlines()]
    audio = [soundfile.read(prompts / row["audio_filepath"], dtype="float32")[0] for row in rows]
    reference = ASRModel.restore_from(str(SAMPLE_MODEL), map_location="cpu")
    expected = nemo_texts(reference, audio, batch_size=1)
    ours = engine.load(ModelSpec(str(SAMPLE_MODEL), "cpu"))
    for size in (5, 16, 72):
        order = random.Random(size).sample(range(len(audio)), len(audio))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            assert our_texts(ours, [audio[i] for i in chosen]) == [expected[i] for i in chosen]


def test_a_model_of_no_known_family_goes_through_transcribe(tiny_model, clips, monkeypatch):
    ours = engine.load(ModelSpec(str(tiny_model("ctc_bpe")), "cpu"))
    expected = our_texts(ours, clips)
    monkeypatch.setattr(ours, "_family", generic.GenericFamily(ours._model))
    assert our_texts(ours, clips) == expected


@pytest.mark.parametrize(
    ("family", "decoder"),
    [
        ("ctc_bpe", None),
        ("rnnt_bpe", None),
        ("tdt_bpe", None),
        ("hybrid_tdt_ctc_bpe", None),
        ("hybrid_tdt_ctc_bpe", "ctc"),
    ],
)
def test_a_decoder_that_takes_clip_by_clip_is_made_to_take_batches(
    tiny_model, clips, tmp_path, family, decoder
):
    from nemo.collections.asr.models import ASRModel

    slow = ASRModel.restore_from(str(tiny_model(family)), map_location="cpu")
    slow.cfg.decoding.strategy = "greedy"
    if "aux_ctc" in slow.cfg:
        slow.cfg.aux_ctc.decoding.strategy = "greedy"
        slow.change_decoding_strategy(slow.cfg.aux_ctc.decoding, "ctc", verbose=False)
    if not decoder:
        slow.change_decoding_strategy(slow.cfg.decoding, verbose=False)
    slow.save_to(str(tmp_path / "slow.nemo"))
    expected = nemo_texts(slow, clips, batch_size=1)
    ours = engine.load(ModelSpec(str(tmp_path / "slow.nemo"), "cpu", decoder))
    used = ours._model.ctc_decoding if decoder else ours._model.decoding
    assert type(used.decoding).__name__.startswith("GreedyBatched")
    assert our_texts(ours, clips) == expected
    assert any(expected)


def test_a_model_describes_itself(tiny_model):
    described = engine.load(ModelSpec(str(tiny_model("tdt_bpe")), "cpu")).describe()
    assert described["class"] == "EncDecRNNTBPEModel"
    assert described["device"] == "cpu"
    assert described["precision"] == "float32"
    assert described["model"].endswith("tdt_bpe.nemo")
    assert described["nemo"].startswith("3.")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_in_bf16(family, tiny_model):
    rounded = engine.load(ModelSpec(str(tiny_model(family)), "cpu", precision="bf16"))
    assert rounded.describe()["precision"] == "bfloat16"
    waveforms = [speechlike(0.5 + 0.4 * n, seed=n) for n in range(4)]
    assert len(rounded.transcribe(waveforms)) == 4


def test_bf16_hears_what_fp32_hears_but_for_a_few_letters(prompts):
    rows = [json.loads(line) for line in (prompts / "held_out.jsonl").read_text().splitlines()]
    waveforms = [
        read_audio(str(prompts / row["audio_filepath"]), AudioRequest(sample_rate=16_000))
        for row in rows[:40]
    ]
    texts = {}
    for precision in ("auto", "fp32", "bf16"):
        model = engine.load(ModelSpec(str(SAMPLE_MODEL), "cpu", precision=precision))
        texts[precision] = [recognized.text for recognized in model.transcribe(waveforms)]
        rounded = "bfloat16" if precision == "bf16" else "float32"
        assert model.describe()["precision"] == rounded
    assert texts["auto"] == texts["fp32"]
    assert jiwer.cer(texts["fp32"], texts["bf16"]) < 0.05
