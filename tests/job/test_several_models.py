"""Several models in one job: each row by its own, each loaded once; the least used makes room."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
from pathlib import Path

import apache_beam as beam
import jiwer
import pytest
import soundfile

from beam_asr import ReadManifest, Transcribe, WriteManifest
from beam_asr.audio import reading
from beam_asr.audio.reading import AudioRequest
from beam_asr.models import engine
from beam_asr.models.engine import ModelSpec
from beam_asr.models.serving import pool as model_pool
from beam_asr.models.serving.pool import ModelPool
from beam_asr.records.prompt import Prompt
from tests.support.job_files import read_records, transcripts_of, write_manifest
from tests.support.several_models import fresh, job
from tests.support.tiny_models import AED_CANARY, speechlike

RATE = 16_000


@pytest.fixture(scope="module")
def models(tiny_model) -> dict[str, Path]:
    kinds = ("ctc_bpe", "rnnt_bpe", "tdt_bpe")
    return dict(zip(("en", "es", "fr"), map(tiny_model, kinds), strict=True))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number in range(24):
        path = folder / f"{number:02d}.flac"
        soundfile.write(path, speechlike(0.5 + number / 10, seed=number), RATE)
        lang = ("en", "es_419", "fr-FR", None)[number % 4]
        row = {"audio_filepath": str(path), "n": number}
        rows.append(row if lang is None else {**row, "lang": lang})
    return write_manifest(folder / "m.jsonl", rows), rows


def given(models: dict[str, Path]) -> str:
    return ",".join(f"{lang}={path}" for lang, path in models.items())


def alone(rows: list[dict], model: Path, tmp_path: Path) -> dict[int, str]:
    manifest = write_manifest(tmp_path / "alone.jsonl", rows)
    found = transcripts_of(manifest, model, tmp_path / f"alone-{model.stem}")
    return {record["n"]: record["pred_text"] for record in found}


def test_each_row_is_transcribed_by_its_own_model(models, corpus, tmp_path, monkeypatch):
    manifest, rows = corpus
    fresh(monkeypatch)
    summary = job(manifest, tmp_path / "out", f"--models={given(models)}")
    assert summary["model_loads"] == 3
    assert summary["model_evictions"] == 0
    assert {each["model"] for each in summary["models"]} == set(map(str, models.values()))
    failures = read_records(tmp_path / "out", "failures")
    assert {each["error"]["type"] for each in failures} == {"UnmappedRowError"}
    assert {each["n"] for each in failures} == {row["n"] for row in rows if "lang" not in row}
    found = read_records(tmp_path / "out", "transcripts")
    assert len(found) == 18
    for lang, path in models.items():
        mine = [row for row in rows if row.get("lang", "")[:2] == lang]
        of_lang = {each["n"]: each for each in found if each["lang"][:2] == lang}
        assert {each["model"] for each in of_lang.values()} == {str(path)}
        texts = {number: each["pred_text"] for number, each in of_lang.items()}
        assert texts == alone(mine, path, tmp_path)


def test_a_default_model_takes_the_other_rows(models, corpus, tmp_path):
    manifest, _ = corpus
    english = models["en"]
    flags = [f"--models=es={models['es']}", f"--model_name={english}"]
    summary = job(manifest, tmp_path / "out", *flags)
    assert summary["failed"] == 0
    found = read_records(tmp_path / "out", "transcripts")
    of = {each["n"]: each["model"] for each in found}
    assert of == {number: str(models["es"] if number % 4 == 1 else english) for number in range(24)}


def test_where_memory_is_short_the_least_recently_used_model_goes(
    models, corpus, tmp_path, monkeypatch
):
    manifest, rows = corpus
    with monkeypatch.context() as patched:
        pool = fresh(patched)
        patched.setattr(model_pool, "free_bytes", lambda _: 0.0)
        summary = job(manifest, tmp_path / "out", f"--models={given(models)}")
        assert len(pool._hosts) == 1
    assert summary["model_loads"] == 3  # the runner does step after step
    assert summary["model_evictions"] == 2
    found = {each["n"]: each["pred_text"] for each in read_records(tmp_path / "out", "transcripts")}
    mine = [row for row in rows if row.get("lang") == "en"]
    assert {row["n"]: found[row["n"]] for row in mine} == alone(mine, models["en"], tmp_path)


@contextlib.contextmanager
def leased(pool, spec):
    host = pool.lease(spec)
    try:
        yield host
    finally:
        pool.release(spec)


def test_a_model_in_use_stays_and_one_that_comes_again_is_loaded_again(models, monkeypatch):
    pool = ModelPool()
    specs = {lang: ModelSpec(str(path), "cpu") for lang, path in models.items()}
    free = [float("inf")]
    monkeypatch.setattr(model_pool, "free_bytes", lambda _: free[0])
    with leased(pool, specs["en"]):
        english = pool.lease(specs["en"])
        pool.release(specs["en"])
    with leased(pool, specs["es"]):
        pass
    free[0] = 0.0
    assert pool.lease(specs["en"]) is english  # it is here, so nothing is needed for it
    with leased(pool, specs["fr"]):
        assert set(pool._hosts) == {specs["en"], specs["fr"]}
    assert pool.take_evictions() == 1
    assert pool.take_evictions() == 0
    clip = speechlike(1.0, seed=1)
    before = english.submit([clip]).result().results
    pool.release(specs["en"])
    with leased(pool, specs["es"]):
        assert set(pool._hosts) == {specs["es"]}
    with leased(pool, specs["en"]) as again:
        assert again is not english
        assert again.submit([clip]).result().results == before


def test_who_needs_a_model_waits_until_another_thread_gives_its_own_back(models, monkeypatch):
    pool = ModelPool()
    monkeypatch.setattr(model_pool, "free_bytes", lambda _: 0.0)
    english, spanish = (ModelSpec(str(models[lang]), "cpu") for lang in ("en", "es"))
    pool.lease(english)
    order = []

    def other() -> None:
        with leased(pool, spanish):
            order.append("spanish")

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(1.0)
    order.append("english ends")
    pool.release(english)
    thread.join(60)
    assert order == ["english ends", "spanish"]
    assert list(pool._hosts) == [spanish]


def test_rows_in_tars_go_to_their_models_too(models, corpus, tmp_path):
    _, rows = corpus
    samples = []
    for row in rows[:8]:
        name = f"s{row['n']:02d}"
        fields = {key: value for key, value in row.items() if key != "audio_filepath"}
        samples += [
            (f"{name}.flac", Path(row["audio_filepath"]).read_bytes()),
            (f"{name}.json", json.dumps(fields).encode()),
        ]
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as file:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    summary = job(tar, tmp_path / "out", f"--models={given(models)}", "--max_failure_fraction=1")
    assert (summary["rows_in"], summary["transcribed"], summary["failed"]) == (8, 6, 2)
    found = read_records(tmp_path / "out", "transcripts")
    assert {each["n"]: each["model"] for each in found} == {
        row["n"]: str(models[row["lang"][:2]]) for row in rows[:8] if "lang" in row
    }


def test_a_long_row_is_cut_and_put_together_by_its_own_model(models, tmp_path):
    rows = []
    for number, lang in enumerate(("en", "es", "en")):
        path = tmp_path / f"{number}.flac"
        soundfile.write(path, speechlike(14.0, seed=number), RATE)
        rows.append({"audio_filepath": str(path), "n": number, "lang": lang})
    manifest = write_manifest(tmp_path / "m.jsonl", rows)
    flags = [f"--models={given(models)}", "--max_segment_seconds=6", "--segmentation=fixed"]
    summary = job(manifest, tmp_path / "out", *flags)
    assert summary["long_rows"] == 3
    found = read_records(tmp_path / "out", "transcripts")
    assert {each["n"]: each["model"] for each in found} == {
        row["n"]: str(models[row["lang"]]) for row in rows
    }


def test_the_same_routes_in_python(models, corpus, tmp_path):
    manifest, _ = corpus
    routes = {
        "rules": [{"when": "n < 4", "model_name": str(models["fr"])}],
        "models": {"en": {"model_name": str(models["en"]), "max_duration": 2.0}},
        "default": str(models["es"]),
    }
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        rows = pipeline | ReadManifest(str(manifest))
        rows | Transcribe(models=routes) | WriteManifest(str(tmp_path / "out"))
    found = read_records(tmp_path / "out", "transcripts")
    failures = read_records(tmp_path / "out", "failures")
    assert {each["error"]["type"] for each in failures} == {"AboveMaxDurationError"}
    assert {each["n"] for each in failures} == {16, 20}
    assert {each["model"] for each in failures} == {str(models["en"])}
    by = {lang: {e["n"] for e in found if e["model"] == str(path)} for lang, path in models.items()}
    assert by["fr"] == {0, 1, 2, 3}
    assert by["en"] == {4, 8, 12}
    assert len(by["es"]) == 15


def test_a_run_with_other_routes_is_not_gone_on_with(models, corpus, tmp_path, transcribe):
    manifest, _ = corpus
    flags = [f"--input={manifest}", f"--output={tmp_path / 'out'}"]
    failing = [f"--models={given(models)}", "--max_failure_fraction=0"]
    rows = [{"audio_filepath": f"none{n}.wav", "lang": "en"} for n in range(100)]
    extra = write_manifest(tmp_path / "bad.jsonl", rows)
    assert transcribe(*flags, f"--input={extra}", *failing)[0] == 1
    others = [f"--models=en={models['es']}", "--resume"]
    status, _, error = transcribe(*flags, f"--input={extra}", *others)
    assert status == 2
    assert "models" in error


def test_models_that_are_not_there_are_named_before_anything_starts(tmp_path, transcribe, corpus):
    manifest, _ = corpus
    flags = [f"--input={manifest}", f"--output={tmp_path / 'out'}"]
    status, _, error = transcribe(*flags, f"--models=en={tmp_path / 'none.nemo'}")
    assert status == 2
    assert "none.nemo" in error
    path = tmp_path / "r.yaml"
    path.write_text("models: {en: {model_nam: x}}")
    status, _, error = transcribe(*flags, f"--models={path}")
    assert status == 2
    assert "r.yaml: the model of en has 'model_nam'" in error
    assert not (tmp_path / "out").exists()


def test_corpus_rates_are_jiwers_over_the_written_files(models, corpus, tmp_path):
    _, rows = corpus
    said = ["one two three", "", "Ünïcode, words!", None, "four"]
    rows = [{**row, "text": said[row["n"] % 5], "lang": row.get("lang", "en")} for row in rows]
    manifest = write_manifest(tmp_path / "m.jsonl", rows)
    flags = [f"--models={given(models)}", "--reference_key=text", "--keep=n != 7"]
    scores = job(manifest, tmp_path / "out", *flags)["scores"]
    found = read_records(tmp_path / "out", "transcripts")
    (apart,) = read_records(tmp_path / "out", "filtered")
    assert apart["filtered"] == {"by": "keep", "expression": "n != 7", "values": {"n": 7}}

    def rates(records: list[dict]) -> tuple[float, float]:
        texts = [each["text"] for each in records], [each["pred_text"] for each in records]
        return pytest.approx(jiwer.wer(*texts)), pytest.approx(jiwer.cer(*texts))

    scored = [each for each in found if each["text"] is not None]
    assert scores["without_reference"] == len(found) - len(scored)
    assert (scores["corpus"]["wer"], scores["corpus"]["cer"]) == rates(scored)
    for field, key in (("lang", "by_language"), ("model", "by_model")):
        for value, score in scores[key].items():
            mine = [each for each in scored if each[field] == value]
            assert score["rows"] == len(mine)
            assert (score["wer"], score["cer"]) == rates(mine)
    assert sum(each["rows"] for each in scores["by_duration"].values()) == len(scored)


def test_refused_audio_is_filtered_and_fails_no_job(models, corpus, tmp_path):
    manifest, rows = corpus
    flags = [f"--model_name={models['en']}", "--min_duration=1", "--max_duration=2"]
    checks = ["--required_sample_rate=16000", "--required_channels=1"]
    filtered = job(manifest, tmp_path / "a", *flags, *checks, "--audio_checks=filter")
    assert (filtered["failed"], filtered["filtered_by"]) == (0, {"audio": 13})
    apart = read_records(tmp_path / "a", "filtered")
    assert {each["filtered"]["type"] for each in apart} == {
        "BelowMinDurationError",
        "AboveMaxDurationError",
    }
    failed = job(manifest, tmp_path / "b", *flags, *checks)
    assert failed["failed_by_type"] == {"AboveMaxDurationError": 8, "BelowMinDurationError": 5}
    checks = ["--required_sample_rate=8000", "--audio_checks=filter"]
    assert job(manifest, tmp_path / "c", *flags[:1], *checks)["filtered"] == len(rows)


def test_each_row_has_its_own_prompt_and_batches_never_mix_them(tiny_model, corpus, tmp_path):
    _, rows = corpus
    path = tiny_model(AED_CANARY)
    requested = [{"source_lang": "es", "target_lang": "en"}, {"lang": "fr_CA"}, {"pnc": "no"}, {}]
    plain = [{key: value for key, value in row.items() if key != "lang"} for row in rows]
    rows = [{**row, **requested[row["n"] % 4]} for row in plain]
    rows[3]["source_lang"] = "tlh"
    manifest = write_manifest(tmp_path / "m.jsonl", rows)
    flags = [f"--model_name={path}", "--target_lang=en"]
    job(manifest, tmp_path / "out", *flags)
    (failure,) = read_records(tmp_path / "out", "failures")
    assert (failure["n"], failure["error"]["type"]) == (3, "PromptError")
    assert "tlh" in failure["error"]["message"]
    model = engine.load(ModelSpec(str(path), "cpu"))
    prompts = [
        Prompt("es", "en"),
        Prompt("fr-FR", "en"),
        Prompt(target_lang="en", pnc="no"),
        Prompt(target_lang="en"),
    ]
    for record in read_records(tmp_path / "out", "transcripts"):
        clip = reading.read_audio(record["audio_filepath"], AudioRequest(sample_rate=RATE))
        (alone,) = model.transcribe([clip], prompts[record["n"] % 4])
        assert record["pred_text"] == alone.text, record["n"]


def test_a_prompt_that_a_model_has_no_place_for_fails_the_job(models, corpus, tmp_path, transcribe):
    manifest, _ = corpus
    flags = [f"--input={manifest}", f"--output={tmp_path / 'out'}", f"--model_name={models['en']}"]
    status, _, error = transcribe(*flags, "--target_lang=de")
    assert status == 1
    assert "takes no --target_lang" in error
