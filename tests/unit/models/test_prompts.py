"""What rows and flags ask of models with prompts, beside NeMo's own ``transcribe()`` on a CPU."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beam_asr.errors import PromptError
from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo.families import multitask
from beam_asr.models.prompts import language_of, of_row
from beam_asr.records.prompt import NO_PROMPT, Prompt
from tests.support import tiny_models
from tests.support.tiny_models import (
    AED_CANARY,
    AED_WITH_TIMES,
    RNNT_WITH_PROMPT,
    SAMPLE_RATE,
    speechlike,
)

# Rows as of NeMo's manifests; of the first Canary, and of the second, which has no task.
ROWS = {
    AED_CANARY: [
        {"source_lang": "en", "target_lang": "en", "taskname": "asr", "pnc": "no"},
        {"source_lang": "es", "target_lang": "es", "taskname": "transcribe", "pnc": "yes"},
        {"source_lang": "de", "target_lang": "en", "taskname": "s2t_translation", "pnc": "yes"},
        {"source_lang": "en", "target_lang": "fr-FR", "taskname": "ast", "pnc": "no"},
        {},
    ],
    "aed_multitask": [
        {"source_lang": "en", "target_lang": "en", "pnc": "no"},
        {"source_lang": "es", "target_lang": "es"},
        {"source_lang": "en", "target_lang": "es", "taskname": "ast", "pnc": "yes"},
        {"source_lang": "es", "target_lang": "en", "pnc": "no"},
        {},
    ],
}
WITH_TARGET = [
    ("hybrid_rnnt_ctc_bpe_prompt", None),
    ("hybrid_rnnt_ctc_bpe_prompt", "ctc"),
    (RNNT_WITH_PROMPT, None),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """With which tiny models are the fastest."""
    with tiny_models._one_thread():
        yield


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [speechlike(seconds, seed) for seed, seconds in enumerate((2.5, 1.3, 4.0))]


@pytest.fixture(scope="module")
def canary(tiny_model) -> engine.Recognizer:
    return engine.load(ModelSpec(str(tiny_model(AED_CANARY)), "cpu"))


def texts(ours: engine.Recognizer, clips: list[np.ndarray], prompt: Prompt) -> list[str]:
    return [recognized.text for recognized in ours.decode(ours.encode(clips, prompt))]


def spy_on_prompts(model, monkeypatch) -> list[list[int]]:
    """Notes the tokens of which the decoder begins a batch's texts."""
    seen: list[list[int]] = []
    decode = model.decoding.decode_predictions_tensor

    def noting(*args, decoder_input_ids, **kwargs):
        rows = decoder_input_ids.tolist()
        assert all(row == rows[0] for row in rows)
        seen.append(rows[0])
        return decode(*args, decoder_input_ids=decoder_input_ids, **kwargs)

    monkeypatch.setattr(model.decoding, "decode_predictions_tensor", noting)
    return seen


def write_manifest(folder: Path, clips: list[np.ndarray], fields: dict) -> str:
    rows = []
    for number, clip in enumerate(clips):
        path = folder / f"{number}.wav"
        soundfile.write(path, clip, SAMPLE_RATE, subtype="FLOAT")
        row = {"audio_filepath": str(path), "duration": len(clip) / SAMPLE_RATE, **fields}
        rows.append(json.dumps(row))
    manifest = folder / "manifest.json"
    manifest.write_text("\n".join(rows) + "\n")
    return str(manifest)


@pytest.mark.parametrize("family", ROWS)
def test_the_text_is_nemos_of_a_manifest_with_the_same_fields(
    family, tiny_model, clips, tmp_path, monkeypatch
):
    from nemo.collections.asr.models import ASRModel

    path = str(tiny_model(family))
    reference = ASRModel.restore_from(path, map_location="cpu")
    ours = engine.load(ModelSpec(path, "cpu"))
    their_tokens = spy_on_prompts(reference, monkeypatch)
    our_tokens = spy_on_prompts(ours._model, monkeypatch)
    said = []
    for fields in ROWS[family]:
        manifest = write_manifest(tmp_path, clips, fields)
        results = reference.transcribe(manifest, batch_size=len(clips), verbose=False)
        prompt = of_row(fields, NO_PROMPT)
        ours.check_prompt(prompt)
        said.append([result.text for result in results])
        assert texts(ours, clips, prompt) == said[-1]
        assert [texts(ours, [clip], prompt)[0] for clip in clips] == said[-1]
    assert all(any(each) for each in said)
    assert our_tokens[:: 1 + len(clips)] == their_tokens
    assert len(set(map(tuple, their_tokens))) == len(ROWS[family])
    assert len({tuple(each) for each in said}) > 1, "the model does not listen to its prompt"


@pytest.mark.parametrize(("family", "decoder"), WITH_TARGET)
def test_the_text_is_nemos_in_the_target_language(family, decoder, tiny_model, clips):
    from nemo.collections.asr.models import ASRModel

    path = str(tiny_model(family))
    reference = ASRModel.restore_from(path, map_location="cpu")
    if decoder:
        reference.change_decoding_strategy(decoder_type=decoder, verbose=False)
    ours = engine.load(ModelSpec(path, "cpu", decoder))
    assert ours.prompt_fields == {"target_lang"}
    said = {}
    for name, tag in (("en-US", "en_us"), ("de-DE", "de"), ("es-ES", "es-419")):
        results = reference.transcribe(clips, batch_size=3, target_lang=name, verbose=False)
        said[name] = tuple(result.text for result in results)
        prompt = Prompt(target_lang=tag)
        ours.check_prompt(prompt)
        assert tuple(texts(ours, clips, prompt)) == said[name]
    assert len(set(said.values())) == 3, "the model does not listen to its prompt"


@pytest.mark.parametrize(
    ("family", "first", "second"),
    [
        (
            AED_CANARY,
            Prompt("en", "en", "transcribe", "yes"),
            Prompt("de", "es", "translate", "no"),
        ),
        ("aed_multitask", Prompt("en", "en"), Prompt("es", "es")),
        ("hybrid_rnnt_ctc_bpe_prompt", Prompt(None, "en-US"), Prompt(None, "de-DE")),
    ],
)
def test_batches_that_overlap_keep_their_prompts(family, first, second, tiny_model, clips):
    ours = engine.load(ModelSpec(str(tiny_model(family)), "cpu"))
    expected = texts(ours, clips, first), texts(ours, clips, second)
    assert expected[0] != expected[1]
    one, other = ours.encode(clips, first), ours.encode(clips, second)
    recognized = [[each.text for each in ours.decode(encoded)] for encoded in (one, other)]
    assert tuple(recognized) == expected


def test_languages_are_found_as_people_write_them(canary, monkeypatch, clips):
    seen = spy_on_prompts(canary._model, monkeypatch)
    spelled = [("es", "fr-FR"), ("ES", "fr"), ("es_419", "fr_fr"), ("es-MX", "<|fr-FR|>")]
    for source, target in spelled:
        canary.check_prompt(Prompt(source, target))
        texts(canary, clips[:1], Prompt(source, target))
    assert len(set(map(tuple, seen))) == 1
    tokens = canary._model.tokenizer.ids_to_tokens(seen[0])
    assert tokens[1:] == ["<|es|>", "<|translate|>", "<|fr-FR|>", "<|pnc|>"]


def test_a_language_that_the_model_does_not_know_is_named(canary, tiny_model):
    with pytest.raises(PromptError, match=r"source_lang is 'tlh'.* it knows en, es, fr-FR, de, pt"):
        canary.check_prompt(Prompt("tlh", "en"))
    with pytest.raises(PromptError, match=r"source_lang is 'pt'.* name one of pt-BR, pt-PT"):
        canary.check_prompt(Prompt("pt", "en"))
    canary.check_prompt(Prompt("de", "en"))
    with pytest.raises(PromptError, match=r"target_lang is 'de'.* it knows en, es, fr-FR$"):
        canary.check_prompt(Prompt("en", "de"))  # of which it could write no letter
    for word in ("pnc", "transcribe", "nospeech"):  # tokens too, but of no language
        with pytest.raises(PromptError, match=f"source_lang is '{word}'"):
            canary.check_prompt(Prompt(source_lang=word))
    hybrid = engine.load(ModelSpec(str(tiny_model("hybrid_rnnt_ctc_bpe_prompt")), "cpu", "ctc"))
    with pytest.raises(PromptError, match=r"target_lang is 'fr'.* it knows en-US, de-DE, es-ES"):
        hybrid.check_prompt(Prompt(target_lang="fr"))


def test_to_transcribe_from_one_language_to_another_is_refused(canary):
    canary.check_prompt(Prompt("es", "es", "transcribe"))
    canary.check_prompt(Prompt("en", "en", "translate"))  # there is nothing to translate
    with pytest.raises(PromptError, match="from source_lang de to target_lang en"):
        canary.check_prompt(Prompt("de", None, "transcribe"))
    with pytest.raises(PromptError, match="task is 'sing', but must be one of transcribe, transl"):
        canary.check_prompt(Prompt(task="sing"))


def test_a_model_takes_what_its_prompt_has(canary, tiny_model, clips):
    assert canary.prompt_fields == set(Prompt._fields)
    second = engine.load(ModelSpec(str(tiny_model("aed_multitask")), "cpu"))
    assert second.prompt_fields == set(Prompt._fields)
    without = engine.load(ModelSpec(str(tiny_model("ctc_bpe")), "cpu"))
    assert without.prompt_fields == set()
    requested = Prompt("tlh", "tlh", "translate", "no")
    without.check_prompt(requested)
    assert texts(without, clips, requested) == texts(without, clips, NO_PROMPT)


def test_a_model_without_a_language_for_all_works_with_one_that_is_named(tiny_model, clips):
    ours = engine.load(ModelSpec(str(tiny_model(RNNT_WITH_PROMPT)), "cpu"))
    with pytest.raises(PromptError, match=r"target_lang is 'auto'.* it knows en-US, en-GB"):
        ours.check_prompt(NO_PROMPT)
    ours._encode_noise(2.0)  # as it measures what a clip takes
    assert any(texts(ours, clips, Prompt(target_lang="de")))


def test_a_tokenizer_for_all_languages_tells_them_too(tmp_path):
    from nemo.collections.common.tokenizers.canary_tokenizer import CanaryBPETokenizer
    from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model

    (tmp_path / "corpus.txt").write_text(tiny_models._ENGLISH.strip() + "\n")
    special = ["<|startoftranscript|>", "<|en|>", "<|bg|>", "<|pnc|>", "<|itn|>", "<|0|>", "<pad>"]
    create_spt_model(
        data_file=str(tmp_path / "corpus.txt"),
        vocab_size=64,
        sample_size=-1,
        do_lower_case=False,
        output_dir=str(tmp_path),
        user_defined_symbols=special,
    )
    tokenizer = CanaryBPETokenizer(str(tmp_path / "tokenizer.model"))
    slots = {"source_lang": "<|en|>", "target_lang": None, "pnc": None, "itn": None}
    known = {"en": "en", "bg": "bg"}
    assert multitask._languages_of(tokenizer, slots) == (known, known)


def test_times_of_a_model_that_is_requested_them_come_with_a_prompt(tiny_model, clips, monkeypatch):
    path = str(tiny_model(AED_WITH_TIMES))
    ours = engine.load(ModelSpec(path, "cpu", times="required", confidence=True))
    seen = spy_on_prompts(ours._model, monkeypatch)
    recognized = ours.transcribe(clips, Prompt("es", "en", pnc="no"))
    assert any(each.starts for each in recognized)
    assert all(len(each.confidences) == len(each.pieces) for each in recognized)
    tokens = ours._model.tokenizer.ids_to_tokens(seen[0])
    assert {"<|es|>", "<|en|>", "<|nopnc|>", "<|timestamp|>"} <= set(tokens)


def test_the_n_best_and_the_aligned_times_come_with_a_prompt(tiny_model, clips, tmp_path):
    path = tiny_models.with_aligner(
        tiny_model("aed_multitask"), tiny_model("ctc_bpe"), tmp_path / "aligned.nemo"
    )
    clips = [*clips, speechlike(6.1, seed=5), speechlike(9.0, seed=6)]
    prompt = Prompt("es", "es", pnc="no")
    plain = texts(engine.load(ModelSpec(str(path), "cpu")), clips, prompt)
    aligned = engine.load(ModelSpec(str(path), "cpu", times="required")).transcribe(clips, prompt)
    assert [recognized.text for recognized in aligned] == plain
    assert any(recognized.starts for recognized in aligned)
    several = engine.load(ModelSpec(str(path), "cpu", n_best=3)).transcribe(clips, prompt)
    assert max(len(recognized.n_best) for recognized in several) == 3


def test_windows_of_long_audio_have_the_prompt_of_their_clip(tiny_model):
    path = str(tiny_model("hybrid_rnnt_ctc_bpe_prompt"))
    ours = engine.load(ModelSpec(path, "cpu", attention="chunked"))
    clip = speechlike(33.0, seed=5)
    german, english = (texts(ours, [clip], Prompt(target_lang=tag)) for tag in ("de", "en"))
    assert german != english


ROW = {"audio_filepath": "a.wav", "lang": "de"}


@pytest.mark.parametrize(
    ("fields", "default", "expected"),
    [
        ({}, Prompt(), Prompt()),
        (ROW, Prompt(), Prompt("de", "de")),
        (ROW, Prompt(task="transcribe"), Prompt("de", "de", "transcribe")),
        (ROW, Prompt(task="translate"), Prompt("de", None, "translate")),
        (ROW, Prompt("fr", pnc="no"), Prompt("fr", "fr", None, "no")),
        (ROW, Prompt(target_lang="en"), Prompt("de", "en")),
        ({**ROW, "source_lang": "es"}, Prompt("fr"), Prompt("es", "es")),
        ({"target_lang": "es"}, Prompt("fr", "en"), Prompt("fr", "es")),
        (
            {"taskname": "asr", "pnc": True},
            Prompt(pnc="no"),
            Prompt(None, None, "transcribe", "yes"),
        ),
        ({"task": "AST", "pnc": "nopnc"}, Prompt(), Prompt(None, None, "translate", "no")),
        (
            {"taskname": "s2t_translation", "pnc": 0},
            Prompt(),
            Prompt(None, None, "translate", "no"),
        ),
        ({"lang": 5, "source_lang": None, "pnc": " "}, Prompt(), Prompt()),
        ({"lang": "", "source_lang": "<|en|>"}, Prompt(), Prompt("en", "en")),
    ],
)
def test_a_rows_own_fields_come_first(fields, default, expected):
    prompt = of_row(fields, default)
    assert prompt == expected
    assert pickle.loads(pickle.dumps(prompt)) == prompt
    assert hash(prompt) == hash(expected)


def test_the_language_of_a_row_has_the_name_that_it_was_given():
    assert of_row({"locale": "it"}, NO_PROMPT, lang_key="locale") == Prompt("it", "it")


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ((), Prompt()),
        (("target_lang",), Prompt(target_lang="de")),
        (("source_lang", "target_lang", "pnc"), Prompt("de", "de", pnc="yes")),
    ],
)
def test_what_the_model_does_not_take_is_not_looked_at(taken, expected):
    fields = {**ROW, "task": "dictation", "pnc": "yes" if "pnc" in taken else "perhaps"}
    assert of_row(fields, NO_PROMPT, taken=taken) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source_lang": 5}, "source_lang is 5, but must be a language"),
        ({"target_lang": ["en"]}, r"target_lang is \['en'\], but must be a language"),
        ({"taskname": "sing"}, "taskname is 'sing', but must be one of transcribe, asr, translate"),
        ({"task": "x" * 1000}, r"task is 'x{1,80}\.\.\., but must be one of"),
        ({"pnc": "perhaps"}, "pnc is 'perhaps', but must be one of yes, pnc"),
    ],
)
def test_a_value_that_cannot_be_is_named(fields, message):
    with pytest.raises(PromptError, match=message):
        of_row(fields, NO_PROMPT)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("en-US", 0),
        ("EN_us", 0),
        ("en-GB-oed", 1),
        ("de", 2),
        ("de-AT", 2),
        ("auto", 3),
        ("zh-Hant-TW", 4),
        ("no", 5),
    ],
)
def test_a_tag_is_found_or_shortened_or_made_longer(tag, expected):
    known = {"en-US": 0, "en-GB": 1, "de-DE": 2, "auto": 3, "zh": 4, "no": 5, "no-NO": 6}
    assert language_of(tag, known, "target_lang") == expected


def test_names_of_one_and_the_same_language_are_no_choice():
    assert language_of("de", {"de-DE": 7, "de-AT": 7}, "target_lang") == 7


def test_a_message_names_thirty_languages_at_most():
    known = {f"a{letter}": number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    known |= {f"b{letter}": number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    with pytest.raises(PromptError, match=r"source_lang is 'xx'.* aa, ab.* bd and 22 more$"):
        language_of("xx", known, "source_lang")
