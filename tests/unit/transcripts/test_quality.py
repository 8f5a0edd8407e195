"""Signals of a transcript: loops, and speech faster than people speak."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.errors import SetupError
from beam_asr.outputs.formats.table import columns
from beam_asr.transcripts.job_fields import job_fields
from beam_asr.transcripts.quality import SIGNALS, TYPES, Signal, signals
from tests.project import signal_table

SPEECH = (
    "the committee met on tuesday and after a short discussion agreed to move the opening of the "
    "new library to the second week of october since the shelves had not arrived in time"
)


def most_repeats(text: str) -> int:
    return signals(text, 1.0)["most_repeats"]


def slowly(words: list[str]) -> int:
    """By trying each phrase at each place."""
    most = min(len(words), 1)
    for length in range(1, 6):
        for begin in range(len(words)):
            phrase, times = words[begin : begin + length], 1
            while len(phrase) == length and words[begin + times * length :][:length] == phrase:
                times += 1
            most = max(most, times)
    return most


def test_rates_are_by_second():
    found = signals("four words of text", 2.0)
    assert (found["chars_per_second"], found["words_per_second"]) == (9.0, 2.0)


@pytest.mark.parametrize("seconds", [None, 0, 0.0, -1.0])
def test_without_a_duration_there_are_no_rates(seconds):
    found = signals("a b", seconds)
    assert found["chars_per_second"] is None
    assert found["words_per_second"] is None
    assert found["most_repeats"] == 1


@given(st.text(max_size=200))
def test_compression_ratio_is_that_of_whisper(text):
    raw = text.encode()
    expected = len(raw) / len(zlib.compress(raw))
    assert signals(text, 1.0)["compression_ratio"] == pytest.approx(expected, abs=1e-6)


def test_a_loop_stands_out_from_speech():
    speech, loop = signals(SPEECH, 10.0), signals("thank you for watching " * 40, 10.0)
    assert speech["compression_ratio"] < 2.4 < loop["compression_ratio"]
    assert (speech["most_repeats"], loop["most_repeats"]) == (1, 40)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("", 0),
        ("... !", 0),
        ("one", 1),
        ("one two one", 1),
        ("no no", 2),
        ("No, no. NO!", 3),
        ("so a b c d e a b c d e a b c d e x", 3),
        ("a b c d e f a b c d e f", 1),
        ("a b a b a c", 2),
        ("हाँ हाँ हाँ जी", 3),
    ],
)
def test_repeats_are_those_of_a_phrase_in_a_row(text, times):
    assert most_repeats(text) == times


@given(st.lists(st.sampled_from("ab"), max_size=25))
def test_repeats_are_found_wherever_they_are(words):
    assert most_repeats(" ".join(words)) == slowly(words)


def test_a_loop_of_hours_is_counted():
    assert most_repeats("so it goes " * 33_000) == 33_000


def test_the_longest_word():
    assert signals("a hahahahahaha b", 1.0)["longest_word"] == 12
    assert signals(" ", 1.0)["longest_word"] == 0


@given(st.text(st.characters(), max_size=50), st.floats())
def test_no_text_fails(text, seconds):
    assert set(signals(text, seconds)) == {
        "chars_per_second",
        "words_per_second",
        "compression_ratio",
        "longest_word",
        "most_repeats",
    }


def test_the_documentation_has_each_signal_with_what_it_is():
    assert signal_table.PAGE.read_text(encoding="utf-8") == signal_table.page(), "run make docs"


def test_each_signal_is_a_column_and_a_field_of_the_job():
    found = {column.name: column for column in columns()}
    for name, each in SIGNALS.items():
        assert (found[name].kind, found[name].description) == (each.type, each.description)
        assert name in job_fields()
        assert each.type in TYPES


@pytest.mark.parametrize(
    "added", [Signal("other", "double", "", len), Signal("mine", "float", "", len), "mine"]
)
def test_what_is_no_signal_of_its_name_is_refused(added, monkeypatch):
    monkeypatch.setattr(SIGNALS, "_built_in", {"mine": ""})
    monkeypatch.setattr(SIGNALS, "_loaded", {"mine": added})
    with pytest.raises(SetupError, match=r"'mine' of beam_asr.signals is .* update or uninstall"):
        signals("x", 1.0)
