"""Tokens, times, confidence and the n best of every family, against NeMo's own on a CPU."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from beam_asr.errors import ModelLoadError
from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo import hypotheses
from beam_asr.models.nemo.decoding import CONFIDENCE
from beam_asr.models.nemo.families import multitask
from beam_asr.records.outcome import Recognition
from tests.support import tiny_models
from tests.support.job_files import SAMPLE_MODEL, SAMPLES
from tests.support.tiny_models import AED_WITH_TIMES, FAMILIES, SAMPLE_RATE, speechlike

HEADS = [(family, None) for family in FAMILIES] + [
    (family, "ctc") for family in FAMILIES if family.startswith("hybrid")
]
WITH_TIMES = [head for head in HEADS if head[0] != "aed_multitask"]
OF_CTC = [head for head in HEADS if head[0].startswith("ctc") or head[1] == "ctc"]
# NeMo pads the first two, and the last one is a few frames.
SECONDS = (0.3, 0.8, 1.0, 2.5, 3.3, 0.05)
FRAME = 0.08


@dataclasses.dataclass
class Case:
    """What a model returned for the clips, in one batch, with and without extras."""

    family: str
    decoder: str | None
    model: Any
    plain: list[Recognition]
    results: list[Recognition]
    path: str

    @property
    def is_ctc(self) -> bool:
        return "ctc" in (self.family[:3], self.decoder)

    @property
    def frame(self) -> float:
        quarter = self.family in ("ctc_char", "rnnt_char", "hybrid_rnnt_ctc_bpe")
        return 0.04 if quarter else FRAME

    def whole(self, clips: list[np.ndarray]) -> list[int]:
        """The clips that NeMo does not pad."""
        return [at for at, clip in enumerate(clips) if len(clip) >= SAMPLE_RATE]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """With which tiny models are the fastest."""
    with tiny_models._one_thread():
        yield


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [speechlike(seconds, seed=seed) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture(scope="module", params=HEADS, ids=lambda head: "-".join(filter(None, head)))
def case(request, tiny_model, clips) -> Case:
    family, decoder = request.param
    path = str(tiny_model(family))
    plain = engine.load(ModelSpec(path, "cpu", decoder)).transcribe(clips)
    times = "wanted" if family == "aed_multitask" else "required"
    model = engine.load(ModelSpec(path, "cpu", decoder, times=times, confidence=True))
    return Case(family, decoder, model, plain, model.transcribe(clips), path)


def visible(text: str) -> str:
    return "".join(text.replace("▁", " ").split())


def seconds(clip: np.ndarray) -> float:
    return len(clip) / SAMPLE_RATE


def are_within(results: Recognition, duration: float) -> bool:
    """Whether times are of each piece, in order and within the clip."""
    assert results.starts is not None
    assert results.ends is not None
    assert len(results.starts) == len(results.ends) == len(results.pieces or ())
    assert list(results.starts) == sorted(results.starts)
    spans = zip(results.starts, results.ends, strict=True)
    return all(0 <= start <= end <= duration for start, end in spans)


def texts(results: list[Recognition]) -> list[str]:
    return [result.text for result in results]


def test_the_text_is_the_same_and_the_pieces_are_all_of_it(case):
    assert texts(case.results) == texts(case.plain)
    assert any(texts(case.plain))
    assert [visible("".join(each.pieces)) for each in case.results] == [
        visible(each.text) for each in case.plain
    ]
    for each in case.plain:
        assert each == Recognition(each.text)


def test_times_are_in_order_and_within_the_clip(case, clips):
    assert case.model.has_timestamps == (case.family != "aed_multitask")
    for each, clip in zip(case.results, clips, strict=True):
        if case.model.has_timestamps:
            assert are_within(each, seconds(clip))
        else:
            assert each.starts is None
            assert each.ends is None


@pytest.mark.parametrize("case", WITH_TIMES, indirect=True)
def test_times_of_a_short_clip_count_from_its_own_first_sample(case, clips):
    missing = SAMPLE_RATE - len(clips[1])
    before = missing // 2 / SAMPLE_RATE
    (by_hand,) = case.model.transcribe([np.pad(clips[1], (missing // 2, missing - missing // 2))])
    assert list(case.results[1].starts) == pytest.approx(
        [min(max(start - before, 0.0), seconds(clips[1])) for start in by_hand.starts]
    )


def test_each_piece_has_a_confidence(case):
    for each in case.results:
        assert len(each.confidences) == len(each.pieces)
        assert all(0.0 <= confidence <= 1.0 for confidence in each.confidences)


def test_what_is_reported_does_not_depend_on_the_batch(case, clips):
    for at in (0, 3):
        (alone,) = case.model.transcribe([clips[at]])
        assert alone.pieces == case.results[at].pieces
        assert alone.starts == case.results[at].starts
        assert alone.ends == case.results[at].ends
        assert alone.confidences == pytest.approx(case.results[at].confidences, abs=1e-6, rel=1e-2)


def test_results_are_plain_and_small(case):
    for each in case.results:
        plain = dataclasses.asdict(each)
        assert json.loads(json.dumps(plain)).keys() == plain.keys()
        for values in (each.starts or (), each.ends or (), each.confidences):
            assert all(type(value) is float for value in values)
        assert len(pickle.dumps(each)) < 500 + 40 * len(each.pieces)


def test_times_and_confidence_are_those_that_nemo_computes(case, clips):
    """NeMo alone with each clip: its times of TDT depend on the batch."""
    from nemo.collections.asr.models import ASRModel
    from omegaconf import OmegaConf

    model = ASRModel.restore_from(case.path, map_location="cpu")
    method = {key: CONFIDENCE[key] for key in ("name", "entropy_type", "alpha", "entropy_norm")}
    config = OmegaConf.create(
        OmegaConf.to_container(
            model.cfg.aux_ctc.decoding if case.decoder == "ctc" else model.cfg.decoding
        )
    )
    config.confidence_cfg = {
        "preserve_token_confidence": True,
        "exclude_blank": CONFIDENCE["exclude_blank"],
        "aggregation": CONFIDENCE["aggregation"],
        "method_cfg": method,
    }
    options = {}
    if case.family == "aed_multitask":
        config.strategy = "greedy"
        options = {"source_lang": "en", "target_lang": "en"}
        model.change_decoding_strategy(config)
    else:
        config.compute_timestamps = True
        head = {"decoder_type": "ctc"} if case.decoder == "ctc" else {}
        model.change_decoding_strategy(config, verbose=False, **head)
    for at in case.whole(clips)[1:]:
        (theirs,) = model.transcribe(
            [clips[at]], return_hypotheses=True, verbose=False, batch_size=1, **options
        )
        ours = case.results[at]
        confidence = [float(each) for each in theirs.token_confidence]
        # NeMo's greedy search makes one token less than its beam search before it gives up.
        assert len(ours.confidences) - len(confidence) in (
            (0, 1) if case.family == "aed_multitask" else (0,)
        )
        assert list(ours.confidences[: len(confidence)]) == pytest.approx(
            confidence, abs=1e-6, rel=1e-2
        )
        if case.is_ctc or case.family == "aed_multitask":
            continue
        offsets = theirs.timestamp["char"]
        assert list(ours.starts) == pytest.approx(
            [each["start_offset"] * case.frame for each in offsets]
        )
        # Tokens of no frame take one here.
        ends = [max(each["start_offset"] + 1, each["end_offset"]) for each in offsets]
        assert list(ours.ends) == pytest.approx(
            [min(end * case.frame, seconds(clips[at])) for end in ends]
        )


@pytest.mark.parametrize("case", OF_CTC, indirect=True)
def test_ctc_tokens_are_where_their_label_is_the_best(case, clips):
    import torch

    model = case.model._model
    decoding = model.ctc_decoding if case.decoder else model.decoding
    for at in case.whole(clips):
        with torch.inference_mode():
            log_probs, count = case.model._family.encode(
                torch.from_numpy(clips[at])[None], torch.tensor([len(clips[at])])
            )[:2]
        labels = log_probs[0, : int(count)].argmax(dim=1).tolist()
        results = case.results[at]
        covered = [decoding.blank_id] * len(labels)
        for piece, start, end in zip(results.pieces, results.starts, results.ends, strict=True):
            first = round(start / case.frame)
            assert decoding.decode_ids_to_tokens([labels[first]]) == [piece]
            for frame in range(first, max(first + 1, math.ceil(end / case.frame - 1e-6))):
                assert labels[frame] == labels[first]
                covered[frame] = labels[frame]
        assert covered == labels


def test_a_frame_is_as_long_as_it_measures(case):
    model = case.model._model
    assert hypotheses.frame_seconds(model) == pytest.approx(case.frame)
    factor = model.encoder.subsampling_factor
    assert hypotheses._measured_factor(model) == factor


BEAMS = [("ctc_bpe", None), ("hybrid_rnnt_ctc_bpe", "ctc"), ("rnnt_char", None), ("tdt_bpe", None)]


@pytest.mark.parametrize(("family", "decoder"), [*BEAMS, ("aed_multitask", None)])
def test_one_best_is_the_greedy_text_with_its_score(tiny_model, clips, family, decoder):
    path = str(tiny_model(family))
    plain = engine.load(ModelSpec(path, "cpu", decoder)).transcribe(clips)
    scored = engine.load(ModelSpec(path, "cpu", decoder, n_best=1)).transcribe(clips)
    assert texts(scored) == texts(plain)
    for each in scored:
        assert each.n_best == ((each.text, each.score),)
        assert type(each.score) is float
        assert each.score <= 0.0
        assert each.pieces is None


@pytest.mark.parametrize(("family", "decoder"), BEAMS)
def test_a_beam_gives_the_n_best_with_times(tiny_model, clips, family, decoder):
    path = str(tiny_model(family))
    model = engine.load(ModelSpec(path, "cpu", decoder, times="required", n_best=3))
    results = model.transcribe(clips)
    assert max(len(each.n_best) for each in results) == 3
    for each, clip in zip(results, clips, strict=True):
        check_n_best(each, 3)
        assert visible("".join(each.pieces)) == visible(each.text)
        assert are_within(each, seconds(clip))
    assert model.transcribe(clips[3:4])[0].text == results[3].text


def check_n_best(results: Recognition, most: int) -> None:
    assert 1 <= len(results.n_best) <= most
    found, scores = zip(*results.n_best, strict=True)
    assert found[0] == results.text
    assert scores[0] == results.score
    assert len(set(found)) == len(found)
    assert list(scores) == sorted(scores, reverse=True)
    assert all(type(score) is float for score in scores)


def test_a_ctc_beam_tells_the_times_and_confidence_of_the_greedy_text(tiny_model, clips):
    """Its best path is the best label of each frame, since no language model weighs in."""
    path = str(tiny_model("ctc_bpe"))
    greedy = engine.load(ModelSpec(path, "cpu", times="required", confidence=True)).transcribe(
        clips
    )
    beam = engine.load(ModelSpec(path, "cpu", times="required", confidence=True, n_best=5))
    results = beam.transcribe(clips)
    assert [(e.pieces, e.starts, e.ends) for e in results] == [
        (e.pieces, e.starts, e.ends) for e in greedy
    ]
    for ours, theirs in zip(results, greedy, strict=True):
        assert ours.confidences == pytest.approx(theirs.confidences)


def test_the_n_best_of_a_multitask_model(tiny_model, clips):
    model = engine.load(
        ModelSpec(str(tiny_model("aed_multitask")), "cpu", times="wanted", n_best=5)
    )
    for each in model.transcribe(clips[2:4]):
        check_n_best(each, 5)
        assert visible("".join(each.pieces)) == visible(each.text)
        assert each.starts is None


@pytest.mark.parametrize(
    ("family", "extras", "message"),
    [
        ("aed_multitask", {"times": "required"}, "`timestamps` cannot be had .* no times"),
        ("rnnt_bpe", {"confidence": True, "n_best": 2}, "Leave `confidence` or `n_best` out"),
        ("aed_multitask", {"confidence": True, "n_best": 1}, "Leave `confidence` or `n_best`"),
    ],
)
def test_what_a_model_does_not_have_is_refused(tiny_model, family, extras, message):
    with pytest.raises(ModelLoadError, match=message):
        engine.load(ModelSpec(str(tiny_model(family)), "cpu", **extras))


def test_a_beam_of_the_models_own_tells_no_confidence(tiny_model, tmp_path, clips):
    from nemo.collections.asr.models import ASRModel

    path = str(tmp_path / "beam.nemo")
    model = ASRModel.restore_from(str(tiny_model("tdt_bpe")), map_location="cpu")
    model.cfg.decoding.strategy = "beam"
    model.change_decoding_strategy(model.cfg.decoding, verbose=False)
    model.save_to(path)
    with pytest.raises(ModelLoadError, match="strategy 'beam'"):
        engine.load(ModelSpec(path, "cpu", confidence=True))
    with pytest.raises(ModelLoadError, match="tells no times"):
        engine.load(ModelSpec(path, "cpu", times="required"))
    wanted = engine.load(ModelSpec(path, "cpu", times="wanted")).transcribe(clips[3:4])[0]
    assert visible("".join(wanted.pieces)) == visible(wanted.text) != ""
    assert wanted.starts is None


@pytest.fixture(scope="module")
def aligned(tiny_model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("aligned") / "aligned.nemo"
    return tiny_models.with_aligner(tiny_model("aed_multitask"), tiny_model("ctc_bpe"), path)


def test_the_model_that_comes_with_a_multitask_model_aligns_its_words(aligned, tiny_model, clips):
    """As transcribe() does, and without another text."""
    from nemo.collections.asr.models import ASRModel

    clips = [clips[2], speechlike(6.1, seed=5)]
    plain = engine.load(ModelSpec(str(tiny_model("aed_multitask")), "cpu")).transcribe(clips)
    model = engine.load(ModelSpec(str(aligned), "cpu", times="required", confidence=True))
    results = model.transcribe(clips)
    assert model.has_timestamps
    assert texts(results) == texts(plain)
    with_times = [at for at, each in enumerate(results) if each.starts]
    assert with_times, "these texts have more tokens than the clips have frames"
    reference = ASRModel.restore_from(str(aligned), map_location="cpu")
    for at in with_times:
        assert [each.removeprefix("▁") for each in results[at].pieces] == results[at].text.split()
        assert len(results[at].confidences) == len(results[at].pieces)
        assert are_within(results[at], seconds(clips[at]))
        (theirs,) = reference.transcribe(
            [clips[at]], timestamps=True, batch_size=1, verbose=False, source_lang="en",
            target_lang="en",
        )  # fmt: skip
        words = theirs.timestamp["word"]
        assert list(results[at].starts) == pytest.approx(
            [each["start"] for each in words], abs=0.01
        )


def test_an_aligner_finds_spoken_words_in_order():
    import torch
    from nemo.collections.asr.models import ASRModel
    from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis

    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    audio = [soundfile.read(SAMPLES / row["audio_filepath"], dtype="float32")[0] for row in rows]
    aligner = multitask._Aligner(
        ASRModel.restore_from(str(SAMPLE_MODEL), map_location="cpu"), torch.device("cpu")
    )
    said = [Hypothesis(score=0.0, y_sequence=[], text=row["text"]) for row in rows]
    with torch.inference_mode():
        for each, clip in zip(said, audio, strict=True):
            signal, length = torch.from_numpy(clip)[None], torch.tensor([len(clip)])
            aligner.align([each], *aligner.encode(signal, length))
    for each, row, clip in zip(said, rows, audio, strict=True):
        words = each.timestamp["word"]
        assert [word["word"] for word in words] == row["text"].split()
        starts = [word["start"] for word in words]
        assert starts == sorted(set(starts))
        assert 0 <= starts[0] <= starts[-1] < seconds(clip)


def test_a_multitask_model_without_one_is_requested_times_only_where_they_are_required(
    tiny_model, clips
):
    path, clips = str(tiny_model(AED_WITH_TIMES)), clips[1:4]
    plain = engine.load(ModelSpec(path, "cpu")).transcribe(clips)
    wanted = engine.load(ModelSpec(path, "cpu", times="wanted"))
    assert not wanted.has_timestamps
    assert texts(wanted.transcribe(clips)) == texts(plain)
    required = engine.load(ModelSpec(path, "cpu", times="required", confidence=True))
    results = required.transcribe(clips)
    assert required.has_timestamps
    assert any(each.starts for each in results)
    for each, clip in zip(results, clips, strict=True):
        assert "<|" not in each.text
        assert visible("".join(each.pieces)) == visible(each.text)
        assert len(each.confidences) == len(each.pieces)
        assert each.starts is None or are_within(each, seconds(clip))


@pytest.mark.parametrize(
    ("raw", "text", "words"),
    [
        (" <|1|> one<|3|><|4|> two, <|9|>", "one two,", [("one", 1, 3), ("two,", 4, 9)]),
        ("<|1|>one two<|3|>", "one two", [("one", 1, 3), ("two", 1, 3)]),
        ("one<|3|>two", "one two", [("one", 0, 3), ("two", 3, 4)]),
        ("<|1|><|3|>", "", []),
        (" none at all ", "none at all", []),
        ("", "", []),
    ],
)
def test_times_among_words_are_read(raw, text, words):
    found, spans = hypotheses.words_between_frames(raw, 1.0)
    assert found == text
    assert [(each["word"], each["start"], each["end"]) for each in spans] == words


@pytest.mark.parametrize(
    ("labels", "tokens"),
    [
        ([], []),
        ([9, 9, 9], []),
        ([1, 1, 1], [(1, 0, 3)]),
        ([9, 1, 1, 9, 1, 2, 2], [(1, 1, 3), (1, 4, 5), (2, 5, 7)]),
    ],
)
def test_repeated_labels_are_one_token(labels, tokens):
    ids, firsts, ends = hypotheses.collapse(np.array(labels, dtype=int), blank=9)
    assert list(zip(ids, firsts, ends, strict=True)) == tokens


def test_spoken_words_follow_each_other_within_their_clips():
    rows = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    audio = [soundfile.read(SAMPLES / row["audio_filepath"], dtype="float32")[0] for row in rows]
    model = engine.load(ModelSpec(str(SAMPLE_MODEL), "cpu", times="required"))
    plain = engine.load(ModelSpec(str(SAMPLE_MODEL), "cpu"))
    results = model.transcribe(audio)
    assert texts(results) == texts(plain.transcribe(audio))
    for each, clip in zip(results, audio, strict=True):
        assert are_within(each, seconds(clip))
        words = [
            start
            for piece, start in zip(each.pieces, each.starts, strict=True)
            if piece.startswith("▁")
        ]
        assert words == sorted(set(words))
        loud = np.flatnonzero(np.abs(clip) > 0.1 * np.abs(clip).max()) / SAMPLE_RATE
        assert loud[0] - 0.3 < each.starts[0]
        assert each.ends[-1] < loud[-1] + 0.5


def test_the_confidence_is_the_one_that_was_set_up(tiny_model):
    model = engine.load(ModelSpec(str(tiny_model("tdt_bpe")), "cpu", confidence=True))._model
    config = model.cfg.decoding.confidence_cfg
    assert {**config, **config.method_cfg}.items() >= CONFIDENCE.items()
