"""The tree of errors, and how a message is worded."""

import pickle
import re

import pytest

from beam_asr import errors
from beam_asr.audio.limits import is_refusal, was_refusal
from beam_asr.cli.messages import FLAGS, as_flags
from beam_asr.records.record import failure
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import with_flags

ALL = list(errors.tree())


def test_every_error_of_the_module_is_in_its_tree():
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert set(ALL) == defined
    assert all(each.__doc__ for each in ALL)


def test_the_module_shows_the_tree():
    shown = errors.__doc__.split("::")[1].split("Two are elsewhere")[0]
    assert set(re.findall(r"\w+Error", shown)) == {each.__name__ for each in ALL}


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (errors.SetupError, ValueError), (errors.UsageError, ValueError),
        (errors.NoInputError, FileNotFoundError), (errors.FolderBusyError, RuntimeError),
        (errors.ResourceError, RuntimeError), (errors.PromptError, ValueError),
        (errors.ManifestError, ValueError), (errors.AudioError, ValueError),
        (errors.AudioNotFoundError, FileNotFoundError), (errors.NotAllowedError, PermissionError),
        (errors.ModelError, RuntimeError), (errors.SegmentsFailedError, RuntimeError),
        (errors.ModelLoadError, RuntimeError), (errors.AttentionError, ValueError),
        (errors.ModelFileError, ValueError), (errors.StorageError, ValueError),
        (errors.DeadlineError, TimeoutError), (errors.ShortReadError, ConnectionError),
        (errors.LostRowsError, RuntimeError), (errors.FolderTakenError, RuntimeError),
    ],
)  # fmt: skip
def test_whoever_catches_a_built_in_class_goes_on_catching(error, base):
    assert issubclass(error, base)


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_an_error_travels_from_a_worker(error):
    raised = error("what and why")
    there = pickle.loads(pickle.dumps(raised))
    assert type(there) is error
    assert str(there) == str(raised)
    assert there.stage == raised.stage


def test_a_record_has_the_stage_of_its_error():
    row = Row('{"audio_filepath": "/a"}')

    def stage(*args, **kwargs):
        return failure(row, *args, **kwargs)["error"]["stage"]

    assert stage(errors.BadFieldError("no")) == "manifest"
    assert stage(errors.PromptError("no")) == "manifest"
    assert stage(errors.EmptyAudioError("no"), 3) == "audio"
    assert stage(errors.NotFiniteError()) == "model"
    assert stage(errors.SegmentsFailedError("no", "audio")) == "audio"
    assert stage(OSError("of a storage"), stage="audio") == "audio"
    assert stage(errors.MissingMemberError("in no tar"), stage="audio") == "audio"


def test_what_the_checks_refuse_is_known_by_its_class_and_by_its_record():
    refused = {each for each in ALL if each.is_refusal}
    assert refused == {
        errors.BelowMinDurationError, errors.AboveMaxDurationError,
        errors.SampleRateError, errors.ChannelCountError,
    }  # fmt: skip
    for each in ALL:
        assert was_refusal({"type": each.__name__}) == each.is_refusal
    assert is_refusal(errors.SampleRateError("8000 Hz"))
    assert not is_refusal(errors.ChannelError("none"))
    assert not is_refusal(ValueError())


def test_settings_become_flags_on_the_command_line():
    said = "`device=cuda` was requested. Raise `audio_timeout`, or name `a.wav` or `when=x`"
    shown = "--device=cuda was requested. Raise --audio_timeout, or name `a.wav` or `when=x`"
    assert as_flags(said) == shown
    assert with_flags(said, ()) == said
    assert as_flags(shown) == shown
    assert {"input", "output", "resume", "overwrite", "models"} <= FLAGS


def test_a_record_is_as_long_with_flags_as_without():
    """So that a message that is cut off has the same words in both."""
    for name in FLAGS:
        assert len(as_flags(f"`{name}=1`")) == len(f"`{name}=1`")


@pytest.mark.parametrize(
    ("value", "how", "shown"),
    [
        ("0123456789", {"limit": 10}, "0123456789"),
        ("0123456789", {"limit": 9}, "012345..."),
        ("0123456789", {"limit": 9, "end": 4}, "01...6789"),
        ("0123456789", {"limit": 9, "end": 3, "gap": " - "}, "012 - 789"),
        (["0123456789"], {"limit": 9}, "['0123..."),
    ],
)
def test_a_long_value_is_shortened_for_a_message(value, how, shown):
    assert errors.for_message(value, **how) == shown


def test_causes_are_those_that_were_named_and_on_request_those_that_were_handled():
    first, second, third = KeyError("first"), ValueError("second"), RuntimeError("third")
    second.__cause__ = second.__context__ = first
    third.__context__ = second
    assert list(errors.causes(third)) == [third]
    assert list(errors.causes(second)) == [second, first]
    assert list(errors.causes(third, contexts=True)) == [third, second, first]
    third.__cause__ = third
    assert list(errors.causes(third)) == [third]
    assert list(errors.causes(None)) == []
