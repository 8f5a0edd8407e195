"""A setting is written once: all that is made of the settings has it."""

import argparse
import dataclasses
import importlib.util
import re
import sys

import pytest

from beam_asr import settings
from beam_asr.cli import options
from beam_asr.records.setting_fields import all_settings, flatten, make_groups, setting
from beam_asr.settings import (
    GROUPS,
    AudioLimits,
    BatchSettings,
    FieldNames,
    ModelSettings,
    ReadSettings,
    TranscriptSettings,
)
from beam_asr.transforms import beam_yaml, transcribe
from beam_asr.transforms.transcribe import Transcribe
from tests.project import flag_table
from tests.support.job_files import REPOSITORY


@pytest.fixture
def table():
    """The groups, with one more setting of the model."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class WithBeam(ModelSettings, title="Model"):
        """The model, and its beam."""

        beam_width: int = setting(4, "hypotheses that are kept, of {choices}", minimum=1)

    # So that its annotations, which are texts, are looked up where those of the others are.
    WithBeam.__module__ = settings.__name__
    return {**GROUPS, "model": WithBeam}


@pytest.fixture
def template(monkeypatch):
    """The module that writes the parameters of the Flex Template."""
    path = REPOSITORY / "templates" / "dataflow" / "metadata.py"
    spec = importlib.util.spec_from_file_location("template_metadata", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_a_new_setting_is_in_all_that_is_made_of_the_settings(table, template):
    parser = argparse.ArgumentParser()
    options.add_flags(parser, table)
    least = ["--input=i", "--output=o"]
    assert parser.parse_args([*least, "--beam_width=7"]).beam_width == 7
    assert parser.parse_args(least).beam_width == 4
    assert "--beam_width" in parser.format_help()
    assert "beam_width" in transcribe.parameters(table)
    assert "beam_width" in beam_yaml.parameters(table)
    named = {each["name"]: each for each in template.metadata(table)["parameters"]}
    assert named["beam_width"]["defaultValue"] == "4"
    assert named["beam_width"]["paramType"] == "NUMBER"
    assert "| `--beam_width` | `4` |" in flag_table.page(table)


def test_the_page_of_flags_is_what_the_settings_make_of_it():
    assert flag_table.PAGE.read_text(encoding="utf-8") == flag_table.page(), "run make docs"


def test_no_setting_is_in_two_groups_nor_has_the_name_of_a_group():
    names = [each.name for each in all_settings(GROUPS)]
    assert len(names) == len(set(names)) == 66
    assert not set(names) & set(GROUPS)


def test_every_default_is_a_value():
    for each in all_settings(GROUPS):
        if not each.required:
            each.check(each.default)


def test_core_settings_come_before_advanced_ones_in_their_group():
    parser = argparse.ArgumentParser()
    options.add_flags(parser)
    shown = parser.format_help().partition("Model:")[2]
    assert shown.index("--model_name") < shown.index("--device") < shown.index("--precision")
    (output,) = re.findall("Output:\n(.*?)\n\n", parser.format_help(), re.DOTALL)
    assert output.index("--formats") < output.index("--no_retry_failures")


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (ModelSettings, {"device": "tpu"}, "device is 'tpu', but must be one of auto, cuda, cpu"),
        (ModelSettings, {"model_name": " "}, "model_name is ' ', not the name of a model"),
        (ModelSettings, {"source_lang": ""}, "source_lang is '', not a language"),
        (BatchSettings, {"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        (BatchSettings, {"batch_size": True}, "batch_size is True, not a number of its kind"),
        (BatchSettings, {"batch_size": None}, "batch_size is None, not a number of its kind"),
        (BatchSettings, {"batch_timeout": 0}, "batch_timeout is 0, but must be above 0"),
        (BatchSettings, {"batch_timeout": float("nan")}, "batch_timeout is nan, but must be above"),
        (TranscriptSettings, {"n_best": -1}, "n_best is -1, but must be at least 0"),
        (TranscriptSettings, {"timestamps": ["words"]}, "timestamps is 'words', but must be one"),
        (TranscriptSettings, {"confidence": "char"}, "confidence is 'char', but must be one of"),
        (ReadSettings, {"audio_timeout": 0}, "audio_timeout is 0, but must be above 0"),
        (ReadSettings, {"channel": -1}, "channel is -1, but must be at least 0"),
        (
            ReadSettings,
            {"channel": "left"},
            "channel is 'left', not a number of its kind or 'each'",
        ),
        (AudioLimits, {"min_duration": 3, "max_duration": 2}, "min_duration=3 is above max_dur"),
        (FieldNames, {"pred_text_key": "audio_filepath"}, "are both 'audio_filepath'"),
        (FieldNames, {"filepath_key": 3}, "filepath_key is 3, not a text"),
    ],
)
def test_a_value_out_of_its_range_is_refused(group, values, message):
    with pytest.raises(ValueError, match=message):
        group(**values)


def test_settings_are_sorted_into_their_groups_and_out_again():
    groups = {"batching": BatchSettings, "transcripts": TranscriptSettings}
    made = make_groups(groups, {"batch_size": 16, "timestamps": "word"})
    assert made["batching"] == BatchSettings(batch_size=16)
    assert made["transcripts"].timestamps == ("word",)
    assert flatten(made.values()) == {
        "batch_size": 16,
        "max_batch_seconds": None,
        "batch_timeout": 1800.0,
        "timestamps": ("word",),
        "confidence": None,
        "n_best": 0,
    }


def test_storage_options_are_not_shown():
    assert "secret" not in repr(ReadSettings(storage_options={"s3": {"key": "secret"}}))


def test_transcribe_takes_groups_and_names():
    by_name = Transcribe("a.nemo", device="cpu", batch_size=16, filepath_key="audio")
    in_groups = Transcribe(
        ModelSettings(model_name="a.nemo", device="cpu"),
        batching=BatchSettings(batch_size=16),
        filepath_key="audio",
    )
    assert by_name.settings == in_groups.settings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batchsize": 3}, "there is no setting 'batchsize'; did you mean batch_size?"),
        ({"batch_size": 3, "batching": BatchSettings()}, "batch_size is given both by its name"),
        ({"batching": 3}, "batching is 3, not a BatchSettings"),
        ({"model_name": "b.nemo"}, "model_name is given twice"),
        ({"output": "out"}, "there is no setting 'output'"),
        ({"reference_key": "text"}, "there is no setting 'reference_key'"),
    ],
)
def test_what_transcribe_cannot_take_is_refused(given, message):
    with pytest.raises(TypeError, match=message):
        Transcribe("a.nemo", **given)


def test_an_engine_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="engine is 'other', but must be one of nemo"):
        Transcribe("a.nemo", engine="other")


def test_nothing_is_read_before_the_graph_is_built():
    Transcribe(models="no/such/file.yaml", tarred_audio="no/such/*.tar")
