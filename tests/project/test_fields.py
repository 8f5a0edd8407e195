"""docs/fields.md names the fields that jobs write, all of them and no other, with their types."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beam_asr import Output
from beam_asr.cli import main
from beam_asr.outputs import field_reference as reference
from beam_asr.records.outcome import Recognition
from beam_asr.transcripts.job_fields import job_fields
from beam_asr.transcripts.post_processing import TEXT_STEPS, TextStep
from tests.project import field_table
from tests.support.job_files import write_manifest
from tests.support.naming_model import RATE, NamingRecognizer, load_models_as

TYPES = {"text": str, "number": (int, float), "integer": int, "boolean": bool, "list": list}
LOUD = 0.9


class TellingRecognizer(NamingRecognizer):
    """Tells all that may be requested of a model, and fails for what is loud."""

    def encode(self, waveforms, _prompt):
        if any(np.abs(waveform).max() >= LOUD for waveform in waveforms):
            raise ValueError("too loud")
        return len(waveforms)

    def decode(self, encoded):
        reported = Recognition(
            "one.", ("▁one", "."), (0.1, 0.2), (0.2, 0.3), (0.5, 1.0), -0.5, (("one.", -0.5),)
        )
        return [reported] * encoded


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """The output of jobs that together write each field."""
    folder = tmp_path_factory.mktemp("jobs")
    with pytest.MonkeyPatch.context() as patch:
        load_models_as(TellingRecognizer, patch)
        patch.setitem(TEXT_STEPS._built_in, "same", f"{__name__}:STEP")
        return [
            _job(
                folder / "whole",
                _rows(folder),
                "--models=en=one",
                "--model_name=other",
                "--timestamps=word,segment,char",
                "--confidence=row",
                "--n_best=2",
                "--quality",
                "--text_steps=same",
                "--reference_key=text",
                "--metrics=punct_er,capitals_er,bleu,chrf",
                "--keep=n != 7",
                "--formats=txt,nemo,label_studio,sde",
                "--partial=keep",
                "--segmentation=fixed",
                "--max_segment_seconds=6",
                "--max_duration=30",
                "--audio_checks=filter",
            ),
            _job(folder / "silent", _quiet(folder), "--confidence=word", "--channel=each"),
        ]


STEP = TextStep("same", lambda text, _: text)


def _job(folder: Path, rows: list, *flags: str) -> Path:
    manifest = write_manifest(folder.with_suffix(".jsonl"), rows)
    args = ["transcribe", str(manifest), f"--output={folder}", "--max_failure_fraction=1"]
    if "--model_name=other" not in flags:
        args.append("--model_name=other")
    assert main.main([*args, *flags]) == 0
    return folder


def _sound(path: Path, seconds: float, *levels: float) -> str:
    """Noise in channels of these levels; of a negative one the opposite of the first."""
    noise = np.random.default_rng(0).uniform(-1, 1, round(seconds * RATE)).astype(np.float32)
    soundfile.write(path, np.stack([noise * level for level in levels], 1), RATE)
    return str(path)


def _rows(folder: Path) -> list:
    plain = _sound(folder / "plain.wav", 1, 0.1)
    part = np.full(15 * RATE, 0.1, np.float32)
    part[9 * RATE] = 0.95
    soundfile.write(folder / "part.wav", part, RATE)
    stereo = _sound(folder / "stereo.wav", 1, 0.1, 0.2)
    return [
        {"audio_filepath": plain, "lang": "en", "text": "one", "n": 0, "wer": "by hand"},
        {"audio_filepath": plain, "n": 7},
        {"audio_filepath": _sound(folder / "long.wav", 31, 0.1), "n": 1},
        {"audio_filepath": str(folder / "part.wav"), "n": 2},
        {"audio_filepath": stereo, "channel": 1, "n": 3},
        {"audio_filepath": _sound(folder / "opposite.wav", 1, 0.1, -0.1), "n": 4},
        {"audio_filepath": "missing.wav", "error": "mine", "model": "mine", "n": 5},
        "no JSON",
    ]


def _quiet(folder: Path) -> list:
    return [
        {"audio_filepath": _sound(folder / "quiet.wav", 2, 1e-4)},
        {"audio_filepath": str(folder / "stereo.wav")},
    ]


class Seen:
    """Holds records against fields, and collects the names that it has seen."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def check(self, record: dict, fields: Iterable[reference.Field], above: str = "") -> None:
        known = {field.name: field for field in fields}
        assert not record.keys() - known.keys()
        for field in known.values():
            assert field.when or field.name in record, f"{above}{field.name} is always there"
        for name, value in record.items():
            self._check_value(known[name], value, f"{above}{name}")

    def _check_value(self, field: reference.Field, value: object, name: str) -> None:
        self.names.add(name)
        if value is None:
            assert field.may_be_null, name
            return
        if field.type == reference.ANY:
            return
        assert isinstance(value, TYPES.get(field.type, dict)), (name, value)
        assert isinstance(value, bool) == (field.type == reference.BOOLEAN), (name, value)
        if field.fields:
            for each in value if field.type == reference.LIST else [value]:
                self.check(each, field.fields, f"{name}.")


def names_of(fields: Iterable[reference.Field], above: str = "") -> set[str]:
    names = set()
    for field in fields:
        names |= {f"{above}{field.name}"}
        names |= names_of(field.fields, f"{above}{field.name}.")
    return names


OF_ROWS = {"audio_filepath", "lang", "text", "n"}


def added(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in OF_ROWS}


def test_transcripts_and_filtered_rows_have_the_fields_of_the_reference_and_no_others(folders):
    seen, outputs = Seen(), [Output(str(folder)) for folder in folders]
    fields = reference.transcript_fields()
    for record in (each for output in outputs for each in output.transcripts()):
        seen.check(added(record), fields)
    assert names_of(fields) - seen.names == set()

    refused = [field._replace(when="if transcribed") for field in fields]
    for record in (each for output in outputs for each in output.filtered()):
        seen.check(added(record), [*refused, *reference.FILTERED_FIELDS])
    assert names_of(reference.FILTERED_FIELDS) - seen.names == set()


def test_failures_have_the_fields_of_the_reference_and_no_others(folders):
    seen = Seen()
    for record in (each for folder in folders for each in Output(str(folder)).failures()):
        seen.check(added(record), reference.FAILURE_FIELDS)
    assert names_of(reference.FAILURE_FIELDS) - seen.names == set()


def test_summaries_have_the_fields_of_the_reference_and_no_others(folders):
    seen = Seen()
    for folder in folders:
        seen.check(Output(str(folder)).summary, reference.SUMMARY_FIELDS)
    assert names_of(reference.SUMMARY_FIELDS) - seen.names == set()


def test_the_reference_has_each_field_of_the_job():
    assert job_fields() <= names_of(reference.transcript_fields())


def test_the_page_is_that_of_the_reference():
    assert field_table.PAGE.read_text(encoding="utf-8") == field_table.page(), "run make docs"
