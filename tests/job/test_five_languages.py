"""One job over recorded prompts of five languages: each by its own model, in no more models than
there are, and with what a job for the language alone makes of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jiwer
import pytest

from tests.support.job_files import REPOSITORY, read_records, transcripts_of, write_manifest
from tests.support.several_models import fresh, job

CLIPS = 30  # of a language
SPANISH = REPOSITORY / "samples" / "es"


@pytest.fixture(scope="module")
def manifest(prompts, tmp_path_factory) -> Path:
    """Rows of all languages by turns; those of English and Spanish are held out of training."""
    if not shutil.which("apt-get"):
        pytest.skip("the recorded prompts come from Debian's packages, and apt-get is not here")
    english = [json.loads(line) for line in (prompts / "held_out.jsonl").read_text().splitlines()]
    spanish = [json.loads(line) for line in (SPANISH / "manifest.jsonl").read_text().splitlines()]
    by_language = [
        [
            {**row, "audio_filepath": str(prompts / row["audio_filepath"]), "lang": "en_US"}
            for row in english[:CLIPS]
        ],
        [
            {**row, "audio_filepath": str(SPANISH / row["audio_filepath"]), "lang": "es-MX"}
            for row in spanish
        ],
    ]
    for language in ("fr", "it", "ru"):
        folder = REPOSITORY / ".cache" / f"sounds-{language}"
        script = REPOSITORY / "tests/support/fetch_sounds.sh"
        subprocess.run(["bash", str(script), language, str(folder)], check=True)
        clips = sorted(folder.rglob("*.g722"))[:CLIPS]
        by_language.append([{"audio_filepath": str(clip), "lang": language} for clip in clips])
    longest = max(map(len, by_language))
    rows = [rows[turn] for turn in range(longest) for rows in by_language if turn < len(rows)]
    return write_manifest(tmp_path_factory.mktemp("five") / "m.jsonl", rows)


@pytest.fixture(scope="module")
def models(tiny_model) -> dict[str, Path]:
    """Trained ones of English and Spanish, and tiny ones of three decoder families."""
    tiny = zip(("fr", "it", "ru"), ("rnnt_bpe", "tdt_bpe", "hybrid_rnnt_ctc_bpe"), strict=True)
    trained = {"en": REPOSITORY / "samples" / "model.nemo", "es": SPANISH / "model.nemo"}
    return trained | {language: tiny_model(kind) for language, kind in tiny}


def test_one_job_over_five_languages(manifest, models, tmp_path, monkeypatch):
    pool = fresh(monkeypatch)
    routes = tmp_path / "routes.json"
    routes.write_text(json.dumps({"models": {tag: str(path) for tag, path in models.items()}}))
    flags = [f"--models={routes}", "--reference_key=text"]
    summary = job(manifest, tmp_path / "out", *flags)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert (summary["rows_in"], summary["transcribed"]) == (len(rows), len(rows))
    assert summary["model_loads"] == len(pool._hosts) == 5
    found = read_records(tmp_path / "out", "transcripts")
    for language, model in models.items():
        mine = [each for each in found if each["lang"][:2] == language]
        assert {each["model"] for each in mine} == {str(model)}
        own = [row for row in rows if row["lang"][:2] == language]
        of_one = write_manifest(tmp_path / f"{language}.jsonl", own)
        alone = transcripts_of(of_one, model, tmp_path / language)
        assert recognized(mine) == recognized(alone)
    for language in ("en_US", "es-MX"):
        mine = [each for each in found if each["lang"] == language]
        texts = [each["text"] for each in mine], [each["pred_text"] for each in mine]
        assert summary["scores"]["by_language"][language]["wer"] == pytest.approx(jiwer.wer(*texts))


def test_a_language_is_recognized_better_by_its_own_model(manifest, models, tmp_path):
    def wer_of(tag: str, language: str) -> float:
        pairs = f"--models={tag}={models[language]}"
        out = tmp_path / f"{tag}-{language}"
        summary = job(manifest, out, pairs, "--reference_key=text", "--max_failure_fraction=1")
        return summary["scores"]["by_language"][{"en": "en_US", "es": "es-MX"}[tag]]["wer"]

    assert wer_of("en", "en") < wer_of("en", "es")
    assert wer_of("es", "es") < wer_of("es", "en")


def recognized(records: list[dict]) -> dict[str, str]:
    return {each["audio_filepath"]: each["pred_text"] for each in records}
