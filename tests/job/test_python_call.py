"""``beam_asr.transcribe`` gives the result of each input in its place, and one error for a job."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import beam_asr
from beam_asr import errors
from beam_asr.cli import launch
from beam_asr.models import engine
from beam_asr.models.serving import pool
from tests.support.job_files import write_manifest
from tests.support.naming_model import RATE, NamingRecognizer

MODEL = "org/one"


@pytest.fixture(autouse=True)
def loads(monkeypatch) -> list[str]:
    """The names of the models that were loaded, in a process that has none yet."""
    names: list[str] = []

    def load(spec, *_):
        names.append(spec.model_name)
        return NamingRecognizer(spec.model_name)

    monkeypatch.setattr(engine, "load", load)
    monkeypatch.setattr(pool, "pool", pool.ModelPool())
    return names


def sound(path: Path, levels: tuple[float, ...] = (0.1,)) -> Path:
    soundfile.write(path, np.tile(np.float32(levels), (RATE, 1)), RATE)
    return path


@pytest.fixture
def clips(tmp_path) -> list[Path]:
    """Files whose names, as they are listed, are in another order than they are given."""
    return [sound(tmp_path / f"{name}.wav") for name in ("d", "b", "a", "c")]


def test_paths_globs_and_folders_give_their_results_in_order_with_one_load(clips, tmp_path, loads):
    results = beam_asr.transcribe([*clips, str(tmp_path / "[a-b].wav")], MODEL)
    assert [Path(each["audio_filepath"]).stem for each in results] == ["d", "b", "a", "c"]
    assert {each["pred_text"] for each in results} == {MODEL}
    of_folder = beam_asr.transcribe(tmp_path, MODEL)
    assert [Path(each["audio_filepath"]).stem for each in of_folder] == ["a", "b", "c", "d"]
    assert loads == [MODEL]


def test_each_row_has_one_result_in_its_place_whatever_becomes_of_it(clips):
    rows = [
        {"audio_filepath": clips[0], "n": 0, "text": MODEL},
        {"audio_filepath": "missing.wav", "n": 1},
        {"audio_filepath": str(clips[1]), "n": 2, "text": "other"},
        {"n": 3},
        {"audio_filepath": clips[0], "n": 0, "text": MODEL},  # as the first
        {"n": 4, "audio_filepath": str(clips[2]), "not for JSON": object()},
    ]
    results = beam_asr.transcribe(rows, MODEL, reference_key="text", keep="wer == 0")
    assert [each.get("n") for each in results] == [0, 1, 2, 3, 0, None]
    kinds = [[name for name in ("error", "filtered") if name in each] for each in results]
    assert kinds == [[], ["error"], ["filtered"], ["error"], [], ["error"]]
    assert [each["error"]["type"] for each in results if "error" in each] == [
        "AudioNotFoundError",
        "MissingAudioError",
        "BadFieldError",
    ]
    assert results[0] == results[4]
    assert "audio_filepath" in results[1], "its row comes with the failure"


def test_a_relative_path_of_a_row_is_relative_to_the_working_directory(
    clips, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (result,) = beam_asr.transcribe({"audio_filepath": clips[0].name}, MODEL)
    assert (result["audio_filepath"], result["pred_text"]) == (clips[0].name, MODEL)


def test_rows_of_manifests_are_in_their_order(clips, tmp_path):
    rows = [{"audio_filepath": str(clips[n % 4]), "n": n} for n in range(30)]
    second = write_manifest(tmp_path / "z.jsonl", [*rows[:20], "no JSON"])
    first = write_manifest(tmp_path / "y.jsonl", rows[20:])
    results = beam_asr.transcribe([second, first], MODEL)
    assert [each.get("n") for each in results] == [*range(20), None, *range(20, 30)]
    assert results[20]["error"]["type"] == "NotJsonError"


def test_each_channel_has_its_result_in_the_place_of_its_row(tmp_path):
    stereo = sound(tmp_path / "s.wav", (0.1, 0.2))
    rows = [{"audio_filepath": stereo, "n": n} for n in range(3)]
    results = beam_asr.transcribe([rows[0], rows[1], rows[0], rows[2]], MODEL, channel="each")
    found = [(each["n"], each["channel"]) for each in results]
    assert found == [(n, channel) for n in (0, 1, 0, 2) for channel in (0, 1)]
    with pytest.raises(errors.SetupError, match="give dicts, no DataFrame"):
        beam_asr.transcribe(pd.DataFrame(rows), MODEL, channel="each")


def test_a_data_frame_comes_back_with_its_index_columns_and_types(clips):
    frame = pd.DataFrame(
        {
            "audio_filepath": [str(clips[0]), "missing.wav", str(clips[1])],
            "offset": [None, None, 0.5],
            "when": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
            "count": pd.array([1, None, 3], dtype="Int64"),
        },
        index=["x", "y", "x"],
    )
    before = frame.copy()
    result = beam_asr.transcribe(frame, MODEL)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(result[list(frame.columns)], frame)
    assert result["pred_text"].tolist()[::2] == [MODEL, MODEL]
    assert [None if each is None or each != each else each["type"] for each in result["error"]] == [
        None,
        "AudioNotFoundError",
        None,
    ]


def test_columns_of_text_and_error_are_there_whatever_happened(clips):
    frame = pd.DataFrame({"audio_filepath": [str(clips[0])], "pred_text": ["by hand"]})
    result = beam_asr.transcribe(frame, MODEL)
    assert result["pred_text"].tolist() == [MODEL]
    assert result["replaced"].tolist() == [{"pred_text": "by hand"}]
    assert result["error"].isna().all()
    empty = beam_asr.transcribe(frame[:0], MODEL)
    assert list(empty.columns) == ["audio_filepath", "pred_text", "error"]
    assert beam_asr.transcribe([], MODEL) == []


def test_a_given_folder_keeps_the_results_and_grows(clips, tmp_path):
    out = tmp_path / "kept" / "out"
    rows = [{"audio_filepath": clip, "n": n} for n, clip in enumerate(clips)]
    beam_asr.transcribe(rows[:2], MODEL, output=out)
    results = beam_asr.transcribe(list(reversed(rows)), MODEL, output=out, append=True)
    assert [each["n"] for each in results] == [3, 2, 1, 0]
    (one,) = beam_asr.transcribe(rows[1:2], MODEL, output=out, append=True)
    assert one["n"] == 1
    assert beam_asr.Output(str(out)).summary["transcribed"] == 4
    with pytest.raises(errors.OutputExistsError, match="`append`"):
        beam_asr.transcribe(rows, MODEL, output=out)


def test_what_is_refused_is_one_error_and_its_message_names_settings(clips, tmp_path):
    def refused(kind, match, inputs=clips, **settings):
        with pytest.raises(kind, match=match) as caught:
            beam_asr.transcribe(inputs, **{"model": MODEL, **settings})
        assert not isinstance(caught.value, errors.UsageError)
        assert "--" not in str(caught.value)

    refused(errors.NoInputError, "none.wav' matches no file", [tmp_path / "none.wav"])
    refused(TypeError, "batch_sise'; did you mean batch_size", batch_sise=1)
    refused(TypeError, "watch is for a job without an end", watch=60)
    refused(TypeError, "dry_run returns no results", dry_run=True)
    refused(TypeError, "quiet is `progress=False` here", quiet=True)
    refused(errors.SetupError, "give fewer rows", [{"audio_filepath": clips[0]}], limit=1)
    refused(errors.SetupError, "batch_size is 0", batch_size=0)
    refused(errors.SetupError, "name a model: `model_name`", model=None)
    refused(errors.SetupError, "`normalizer`=basic needs `reference_key`", normalizer="basic")
    refused(errors.SetupError, "no file", model=str(tmp_path / "none.nemo"))
    refused(TypeError, "type ndarray is neither a path nor a row", [np.zeros(3)])
    refused(TypeError, "all paths or all rows", [clips[0], {"audio_filepath": clips[1]}])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.DamagedModelError("there is no model 'org/one'"), errors.DamagedModelError),
        (RuntimeError("there is no model 'org/one'"), errors.JobError),
    ],
)
def test_what_fails_the_job_is_one_error_with_one_message(clips, monkeypatch, caplog, error, kind):
    def fail(*_):
        raise error

    monkeypatch.setattr(engine, "load", fail)
    level = logging.getLogger("apache_beam").level
    with pytest.raises(kind, match="there is no model 'org/one'") as caught:
        beam_asr.transcribe(clips, MODEL)
    assert len(str(caught.value).splitlines()) == 1
    assert "while running" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert not [each for each in caplog.records if each.exc_info]
    assert logging.getLogger("apache_beam").level == level


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_unless_that_is_refused(clips, monkeypatch, progress):
    displays = []
    monkeypatch.setattr(
        launch, "ProgressDisplay", lambda *_, **__: displays.append(1) or contextlib.nullcontext()
    )
    beam_asr.transcribe(clips[:1], MODEL, progress=progress)
    assert len(displays) == progress


def test_too_many_failures_fail_a_job_of_which_that_is_requested():
    rows = [{"audio_filepath": "missing.wav"}]
    with pytest.raises(errors.TooManyFailuresError):
        beam_asr.transcribe(rows, MODEL, max_failure_fraction=0.5)
