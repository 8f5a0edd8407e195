"""The names of the files of transcripts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.outputs.formats.file_names import hashed_name
from beam_asr.outputs.formats.registry import render
from beam_asr.transcripts.job_fields import job_fields
from tests.support.timed_records import (
    HOSTILE,
    SECRET,
    record_of,
)


@pytest.mark.parametrize("audio", HOSTILE, ids=lambda audio: repr(audio)[:40])
def test_a_name_tells_the_file_and_nothing_else(audio):
    name = hashed_name({"audio_filepath": audio, "pred_text": "x"}, "audio_filepath", {"pred_text"})
    stem, _, digest = name.rpartition("-")
    assert stem == HOSTILE[audio]
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert SECRET not in render("ctm", record_of("x", audio_filepath=audio))


@given(st.text(st.characters(exclude_categories=[])) | st.text("./\\:%?#~- ", max_size=9))
def test_a_name_is_one_safe_part_of_a_path_whatever_the_audio(audio):
    name = hashed_name({"audio_filepath": audio}, "audio_filepath")
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,60}-[0-9a-f]{16}", name)
    assert len(render("ctm", record_of("x", audio_filepath=audio)).split()) == 5


def test_rows_that_differ_have_names_that_differ_and_equal_ones_do_not():
    base = {"audio_filepath": "gs://b/a.wav", "offset": 0.0, "duration": 1.0, "lang": "en"}
    others = [
        {**base, "offset": 1.0},
        {**base, "lang": "de"},
        {**base, "audio_filepath": "gs://c/a.wav"},
        {**base, "audio_filepath": "gs://b/a.wav?x"},
        {**base, "audio_filepath": "gs://b/a.flac"},
        {**base, "other": None},
    ]
    names = {hashed_name(row, "audio_filepath") for row in [base, *others]}
    assert len(names) == 1 + len(others)
    reordered = dict(reversed(base.items()))
    assert hashed_name(reordered, "audio_filepath") == hashed_name(base, "audio_filepath")


def test_a_name_does_not_depend_on_the_result():
    row = {"audio_filepath": "gs://b/a.wav", "duration": 1.0}
    done = {**row, "pred_text": "x", "words": [1], "no_speech": True, "exports": {}, "wer": 0.1}
    assert hashed_name(done, "audio_filepath", {*job_fields(), "pred_text"}) == hashed_name(
        row, "audio_filepath"
    )


def test_relative_paths_of_two_manifests_do_not_share_a_file():
    """Beside a/list.jsonl and b/list.jsonl, one row is of two files."""
    row = {"audio_filepath": "clip.wav"}
    fields = {*job_fields(), "pred_text"}
    names = [hashed_name({**row, "pred_text": text}, "audio_filepath", fields) for text in "aab"]
    assert names[0] == names[1] != names[2]
