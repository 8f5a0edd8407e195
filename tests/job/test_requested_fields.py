"""What a transcript holds besides its text, by the flags that ask for it."""

from __future__ import annotations

import json

import pytest

from tests.support.job_files import SAMPLES, read_records, write_manifest

# Multitask models tell neither times, if they have no aligner, nor confidence of a beam's texts.
ASKED = {
    "ctc_bpe": ["--timestamps=word,char", "--confidence=word", "--n_best=3"],
    "rnnt_char": ["--timestamps=word,char", "--confidence=word", "--n_best=1"],
    "tdt_bpe": ["--timestamps=word,char", "--n_best=3"],
    "hybrid_rnnt_ctc_bpe": ["--timestamps=word,char", "--confidence=word"],
    "aed_multitask": ["--confidence=word"],
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    rows = [{"audio_filepath": str(path)} for path in sorted(SAMPLES.glob("*.flac"))[:4]]
    return write_manifest(tmp_path_factory.mktemp("rows") / "m.jsonl", rows)


@pytest.mark.parametrize("family", ASKED)
def test_each_family_returns_what_is_requested(family, manifest, tiny_model, transcribe, tmp_path):
    flags = [f"--input={manifest}", f"--model_name={tiny_model(family)}"]
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert transcribe(*flags, f"--output={plain}")[0] == 0
    status, _, said = transcribe(*flags, f"--output={out}", *ASKED[family])
    assert status == 0, said
    texts = {each["audio_filepath"]: each for each in read_records(plain, "transcripts")}
    assert {tuple(each) for each in texts.values()} == {("audio_filepath", "pred_text", "duration")}
    for record in read_records(out, "transcripts"):
        # A beam finds other texts; and for its confidence a multitask model searches greedily,
        # which ends at the end-of-text that a random model gives anywhere.
        if family not in ("tdt_bpe", "aed_multitask"):
            assert record["pred_text"] == texts[record["audio_filepath"]]["pred_text"]
        assert [each["word"] for each in record.get("words", [])] == (
            record["pred_text"].split() if "words" in record else []
        )
        requested = " ".join(ASKED[family])
        for word in record.get("words", []):
            assert set(word) == {"word"} | (
                {"start", "end"} if "timestamps" in requested else set()
            ) | ({"confidence"} if "confidence" in requested else set())
            assert 0 <= word.get("confidence", 0) <= 1
        if "n_best" in requested:
            assert record["n_best"][0]["text"] == record["pred_text"]
            scores = [each["score"] for each in record["n_best"]]
            assert scores == sorted(scores, reverse=True)
            assert 1 <= len(scores) <= 3
    (model,) = json.loads((out / "summary.json").read_text())["models"]
    assert ("confidence" in model) == ("confidence" in " ".join(ASKED[family]))


@pytest.mark.parametrize(
    ("family", "flag", "said"),
    [
        ("aed_multitask", "--timestamps=word", "--timestamps"),
        ("aed_multitask", "--attention=chunked", "neither a CTC model nor a transducer"),
    ],
)
def test_what_a_model_cannot_tell_fails_the_job_and_says_so(
    family, flag, said, manifest, tiny_model, transcribe, tmp_path
):
    flags = [f"--input={manifest}", f"--model_name={tiny_model(family)}", f"--output={tmp_path}/o"]
    status, _, errors = transcribe(*flags, flag)
    assert status == 1
    assert said in errors
    assert not (tmp_path / "o" / "_SUCCESS").exists()


@pytest.mark.parametrize("attention", ["local", "chunked"])
def test_other_attention_reaches_the_model(attention, manifest, tiny_model, transcribe, tmp_path):
    out = tmp_path / "out"
    flags = [f"--input={manifest}", f"--model_name={tiny_model('tdt_bpe')}", f"--output={out}"]
    status, _, said = transcribe(*flags, f"--attention={attention}", "--timestamps=word")
    assert status == 0, said
    (model,) = json.loads((out / "summary.json").read_text())["models"]
    assert model["attention"] == attention
    assert all("words" in each for each in read_records(out, "transcripts"))
