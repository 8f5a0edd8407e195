"""What all formats have in common."""

from __future__ import annotations

import pytest
import webvtt

from beam_asr.errors import SetupError
from beam_asr.outputs.formats.base import ShardFormat, TranscriptFormat
from beam_asr.outputs.formats.file_names import hashed_name
from beam_asr.outputs.formats.registry import FORMATS, formats_of, render
from tests.support.timed_records import (
    read_grid,
    record_of,
)


def test_text_is_as_it_was_recognized():
    assert render("txt", record_of("a  b ")) == "a  b \n"


@pytest.mark.parametrize("fields", [{}, {"words": []}, {"words": [], "duration": 3.0}])
def test_a_transcript_of_nothing_is_an_empty_file_of_each_format(fields, tmp_path):
    record = {"audio_filepath": "a.wav", "pred_text": "", "no_speech": True, **fields}
    content = {
        name: render(name, record)
        for name, format in FORMATS.items()
        if isinstance(format, TranscriptFormat)
    }
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
    assert hashed_name(cut, "audio_filepath").startswith("rec-")


def test_only_text_needs_no_times():
    each_a_file = [each for each in FORMATS.values() if isinstance(each, TranscriptFormat)]
    assert [each.name for each in each_a_file if not each.needs_words] == ["txt"]


def test_names_are_those_that_the_command_line_has():
    names = "srt vtt ctm stm txt textgrid parquet documents nemo label_studio sde"
    assert " ".join(FORMATS) == names
    assert [each.name for each in FORMATS.values()] == list(FORMATS)


def test_formats_that_name_files_need_the_manifest_of_each_row():
    several = formats_of(["documents", "nemo", "parquet", "documents"])
    assert [each.name for each in several] == ["documents", "nemo", "parquet"]
    assert not any(each.needs_words for each in several)
    needing = [each.name for each in FORMATS.values() if each.needs_origin]
    assert needing == ["nemo", "label_studio", "sde"]


def test_an_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(SetupError, match=r"formats has 'elan', which is none of srt, vtt, .*nemo"):
        formats_of(["srt", "elan"])


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [
        (
            "textgrid",
            ["a-0123456789abcdef.TextGrid"],
            ["a-0123456789abcdef.textgrid", "a.TextGrid"],
        ),
        ("parquet", ["transcripts-00001-of-00002.parquet"], ["transcripts.parquet", "notes.txt"]),
        ("documents", ["documents-00001-of-00002.jsonl"], ["documents-1-of-2.jsonl"]),
        ("nemo", ["manifest-00000-of-00001.json", "manifest_12.json"], ["manifest.json"]),
    ],
)
def test_a_format_knows_its_files_by_their_names(name, own, others):
    assert all(map(FORMATS[name].is_own, own))
    assert not any(map(FORMATS[name].is_own, others))


def test_the_path_of_a_shard_has_its_number():
    (parquet,) = formats_of(["parquet"])
    assert isinstance(parquet, ShardFormat)
    assert parquet.path(3, 12) == "parquet/transcripts-00003-of-00012.parquet"
