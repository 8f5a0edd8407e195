"""What all formats have in common."""

from __future__ import annotations

import pytest
import webvtt

from beam_asr.outputs.formats.file_names import name_of
from beam_asr.outputs.formats.registry import FORMATS, TIMED, render
from tests.support.timed_records import (
    read_grid,
    record_of,
)


def test_text_is_as_it_was_recognized():
    assert render("txt", record_of("a  b ")) == "a  b \n"


@pytest.mark.parametrize("fields", [{}, {"words": []}, {"words": [], "duration": 3.0}])
def test_a_transcript_of_nothing_is_an_empty_file_of_each_format(fields, tmp_path):
    record = {"audio_filepath": "a.wav", "pred_text": "", "no_speech": True, **fields}
    content = {format: render(format, record) for format in FORMATS}
    assert [content[format] for format in ("srt", "ctm", "stm", "txt")] == [""] * 4
    assert content["vtt"] == "WEBVTT\n\n"
    assert len(webvtt.WebVTT.from_string(content["vtt"])) == 0
    grid = read_grid(content["textgrid"], tmp_path)
    for name in ("words", "segments"):
        (interval,) = grid.getTier(name).entries
        assert (interval.start, interval.label) == (0.0, "")
        assert interval.end == fields.get("duration", 0.001)


def test_other_fields_names_and_cuts_are_understood():
    record = {"path": "/x/b.flac", "text": "hi", "words": record_of("hi")["words"]}
    assert render("ctm", record, "path", "text") == "b 1 0.250 0.400 hi\n"
    assert render("txt", record, "path", "text") == "hi\n"
    cut = {
        "type": "MonoCut", "id": "c", "start": 5.0, "duration": 2.0, "channel": 0,
        "recording": {"sources": [{"type": "file", "channels": [0], "source": "/x/rec.wav"}]},
        "pred_text": "hi", "words": record_of("hi", first=5.25)["words"],
    }  # fmt: skip
    assert render("ctm", cut) == "rec 1 5.250 0.400 hi\n"
    assert "xmax = 7.000" in render("textgrid", cut)
    assert name_of(cut, "audio_filepath").startswith("rec-")


def test_only_text_needs_no_times():
    assert set(FORMATS) - set(TIMED) == {"txt"}
