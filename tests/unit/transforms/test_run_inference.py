"""The model in Beam's own RunInference."""

from __future__ import annotations

import json
import re

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference

from beam_asr import Transcribe
from beam_asr.models import engine
from beam_asr.transforms.run_inference import CHUNK_SECONDS, NemoModelHandler
from tests.support.job_files import REPOSITORY, SAMPLE_MODEL, SAMPLES

DOCS = (REPOSITORY / "docs/beam.md").read_text(encoding="utf-8")
ROWS = [
    {**row, "audio_filepath": str(SAMPLES / row["audio_filepath"])}
    for row in map(json.loads, (SAMPLES / "manifest.jsonl").read_text().splitlines())
]
MISSING = {"audio_filepath": str(SAMPLES / "nowhere.flac"), "duration": 2.0}

# What the branches of a pipeline gave; FnApiRunner runs them in this process.
given: dict[str, list] = {}


def give(element, name):
    given.setdefault(name, []).append(element)


def length_of(result: PredictionResult) -> int:
    return len(result.inference["pred_text"])


def waveform_of(path: str) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


@pytest.fixture(scope="module")
def handler():
    return NemoModelHandler(str(SAMPLE_MODEL), device="cpu")


@pytest.fixture(scope="module")
def results(handler):
    """What one pipeline gives: the rows by several ways, and by ``Transcribe``."""
    given.clear()
    keyed = [(index, row) for index, row in enumerate(ROWS)]
    ends = {
        "rows": [*ROWS[:5], MISSING, *ROWS[5:]],
        "waveforms": [waveform_of(row["audio_filepath"]) for row in ROWS],
        "keyed": keyed,
        "paths": [row["audio_filepath"] for row in ROWS],
    }
    handlers = {
        "keyed": KeyedModelHandler(handler),
        "paths": handler.with_preprocess_fn(
            lambda path: {"audio_filepath": path}
        ).with_postprocess_fn(length_of),
    }
    loads = []
    load = engine.load

    def counted(*args, **options):
        loads.append(args)
        return load(*args, **options)

    with pytest.MonkeyPatch.context() as patch, beam.Pipeline(runner="FnApiRunner") as pipeline:
        patch.setattr(engine, "load", counted)
        for name, examples in ends.items():
            (
                pipeline
                | f"Create-{name}" >> beam.Create(examples)
                | f"Infer-{name}" >> RunInference(handlers.get(name, handler))
                | f"Give-{name}" >> beam.Map(give, name)
            )
        transcribe = Transcribe(str(SAMPLE_MODEL), device="cpu", segmentation="none")
        recognized = pipeline | beam.Create(ROWS) | transcribe
        recognized.transcripts | beam.Map(give, "transcribed")
    return {**given, "loads": loads}


@pytest.fixture(scope="module")
def texts(results):
    """What ``Transcribe`` makes of each row, by its audio."""
    return {row["audio_filepath"]: row["pred_text"] for row in results["transcribed"]}


def test_rows_get_the_texts_of_the_job_and_a_missing_file_fails_alone(results, texts):
    assert len(texts) == 12
    assert any("please enter your" in text for text in texts.values())
    good = [each for each in results["rows"] if "error" not in each.inference]
    assert {each.example["audio_filepath"]: each.inference for each in good} == {
        audio: {"pred_text": text} for audio, text in texts.items()
    }
    (failed,) = [each for each in results["rows"] if "error" in each.inference]
    assert failed.example == MISSING
    error = failed.inference["error"]
    assert error.keys() == {"stage", "type", "message", "attempts"}
    assert (error["stage"], error["type"]) == ("audio", "AudioNotFoundError")
    assert "nowhere.flac" in error["message"]


def test_waveforms_get_the_same_texts_and_come_with_their_results(results, texts):
    assert len(results["waveforms"]) == 12
    by_samples = {len(waveform_of(row["audio_filepath"])): row for row in ROWS}
    for each in results["waveforms"]:
        row = by_samples[len(each.example)]
        assert each.inference == {"pred_text": texts[row["audio_filepath"]]}


def test_keys_stay_with_their_examples(results, texts):
    assert {key: each.inference["pred_text"] for key, each in results["keyed"]} == {
        index: texts[row["audio_filepath"]] for index, row in enumerate(ROWS)
    }


def test_functions_before_and_after_are_applied(results, texts):
    assert sorted(results["paths"]) == sorted(map(len, texts.values()))


def test_handlers_and_transcribe_share_one_model(results):
    assert len(results["loads"]) <= 1  # none, if another test has loaded it


def test_results_are_in_the_order_of_examples_and_each_bad_one_fails_alone(handler, texts):
    waveform = waveform_of(ROWS[0]["audio_filepath"])
    poison = np.full(16_000, np.nan, np.float32)
    bad = {
        1: (MISSING, "audio", "AudioNotFoundError"),
        3: (poison, "model", "NotFiniteError"),
        4: (np.zeros((2, 8), np.int16), "manifest", "BadFieldError"),
        6: (np.zeros(0, np.float32), "audio", "ZeroLengthAudioError"),
        7: ({"duration": 3.0}, "manifest", "MissingAudioError"),
        8: ("a.flac", "manifest", "BadFieldError"),
    }
    good = iter([ROWS[3], ROWS[1], waveform, ROWS[0], ROWS[2]])
    batch = [bad[place][0] if place in bad else next(good) for place in range(11)]

    results = handler.run_inference(batch, handler.load_model())

    assert [each.example for each in results] == batch
    for place, (_, stage, kind) in bad.items():
        error = results[place].inference["error"]
        assert (error["stage"], error["type"]) == (stage, kind)
    for place in set(range(11)) - bad.keys():
        audio = (ROWS[0] if batch[place] is waveform else batch[place])["audio_filepath"]
        assert results[place].inference == {"pred_text": texts[audio]}
    assert handler.run_inference([], handler.load_model()) == []


def test_what_is_handed_over_at_a_time_is_a_window_of_audio_whatever_rows_say():
    handler = NemoModelHandler("any.nemo")
    seconds = handler.batch_elements_kwargs()["element_size_fn"]
    assert seconds({"duration": 7.2}) == 7
    assert seconds(("key", {"duration": 7.2})) == 7
    assert seconds(np.zeros(48_000, np.float32)) == 3
    assert seconds({}) == seconds({"duration": float("nan")}) == seconds("a.flac") == 15
    assert seconds({"duration": 1e12}) < CHUNK_SECONDS
    assert seconds({"duration": 0.01}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, "device is 'tpu', but must be one of auto, cuda, cpu"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_batch_seconds": 0}, "max_batch_seconds is 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        NemoModelHandler("any.nemo", **arguments)


def test_what_runinference_would_have_the_model_do_and_it_cannot_is_refused():
    handler = NemoModelHandler("any.nemo")
    with pytest.raises(ValueError, match="inference_args has 'beam'"):
        handler.validate_inference_args({"beam": 4})
    with pytest.raises(ValueError, match="start the pipeline again"):
        handler.update_model_path("other.nemo")


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL))
def test_python_examples_of_the_docs_run(example, monkeypatch, capfd):
    monkeypatch.chdir(REPOSITORY)
    exec(compile(example, "docs/beam.md", "exec"), {"__name__": "__main__"})
    printed = capfd.readouterr().out
    if "RunInference" in example:
        assert "{'pred_text': 'four'}" in printed
        assert "AudioNotFoundError" in printed
    else:
        assert "('agent', 2)" in printed
