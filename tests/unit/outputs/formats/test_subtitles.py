"""SubRip and WebVTT as other programs read them."""

from __future__ import annotations

import html
from datetime import timedelta

import pytest
import srt
import webvtt
from hypothesis import given

from beam_asr.outputs.formats.captions import cues
from beam_asr.outputs.formats.registry import render
from tests.support.timed_records import (
    TEXTS,
    record_of,
    record_with,
    words,
)


def spaced(text: str) -> str:
    return " ".join(text.split())


def srt_of(text: str) -> list[tuple[timedelta, timedelta, str]]:
    return [(cue.start, cue.end, spaced(cue.content)) for cue in srt.parse(text)]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_srt_is_read_with_its_words_and_times(text):
    read = srt_of(render("srt", record_of(text)))
    assert spaced(" ".join(content for _, _, content in read)) == text.replace("-->", "->")
    assert read[0][0] == timedelta(seconds=0.25)
    expected = cues(record_of(text)["words"], text)
    assert [times[:2] for times in read] == [
        (timedelta(seconds=cue.start), timedelta(seconds=cue.end)) for cue in expected
    ]


def test_srt_counts_hours_beyond_two_digits():
    text = render("srt", record_of("late", first=100 * 3600 + 61.5))
    assert text == "1\n100:01:01,500 --> 100:01:02,500\nlate\n\n"
    assert srt_of(text)[0][0] == timedelta(hours=100, minutes=1, seconds=1.5)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_vtt_is_read_with_its_words_and_times(text):
    read = list(webvtt.WebVTT.from_string(render("vtt", record_of(text))))
    assert spaced(html.unescape(" ".join(cue.raw_text for cue in read))) == text
    expected = cues(record_of(text)["words"], text)
    assert [(cue.start_in_seconds, cue.end_in_seconds) for cue in read] == [
        (int(cue.start), int(cue.end)) for cue in expected
    ]
    assert read[0].start == "00:00:00.250"


@given(words)
def test_any_words_are_as_many_subtitles_in_both_formats(said):
    record = record_with(said)
    expected = cues(record["words"], record["pred_text"])
    assert len(srt_of(render("srt", record))) == len(expected)
    read = list(webvtt.WebVTT.from_string(render("vtt", record)))
    assert [html.unescape(cue.raw_text).split("\n") for cue in read] == [
        cue.lines for cue in expected
    ]
