"""TextGrids as praatio reads them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_asr.outputs.formats.captions import one_line
from beam_asr.outputs.formats.registry import render
from tests.support.timed_records import (
    TEXTS,
    read_grid,
    record_of,
    record_with,
    words,
)


def assert_tiers_are_gapless(grid):
    for name in grid.tierNames:
        entries = grid.getTier(name).entries
        assert entries[0].start == 0.0
        assert entries[-1].end == grid.maxTimestamp
        assert all(one.end == two.start for one, two in itertools.pairwise(entries))
        assert all(one.start < one.end for one in entries)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_textgrid_is_read_by_praatio_and_covers_the_audio(text, tmp_path):
    record = record_of(text, first=10.25, offset=10.0, duration=30.0)
    grid = read_grid(render("textgrid", record), tmp_path)
    assert grid.tierNames == ("words", "segments")
    assert (grid.minTimestamp, grid.maxTimestamp) == (0.0, 40.0)
    said = [interval for interval in grid.getTier("words").entries if interval.label]
    assert [interval.label for interval in said] == [word["word"] for word in record["words"]]
    for interval, word in zip(said, record["words"], strict=True):
        assert interval.start == pytest.approx(word["start"], abs=0.0006)
        assert interval.end == pytest.approx(word["end"], abs=0.0006)
    sentences = [interval.label for interval in grid.getTier("segments").entries if interval.label]
    assert " ".join(sentences) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words, st.floats(0, 20) | st.none())
def test_a_textgrid_of_any_words_has_no_gaps_and_no_overlaps(tmp_path, said, duration):
    record = record_with(said) | {"duration": duration}
    grid = read_grid(render("textgrid", record), tmp_path)
    ends = [word["end"] for word in record["words"] if one_line(word["word"])]
    assert grid.maxTimestamp >= max([duration or 0.0, *ends]) - 0.0006
    assert_tiers_are_gapless(grid)


def test_a_textgrid_has_the_sentences_and_doubled_quotes(tmp_path):
    text = 'She "said" so. Then more'
    content = render("textgrid", record_of(text))
    assert 'text = """said""" \n' in content
    segments = read_grid(content, tmp_path).getTier("segments").entries
    assert [interval.label for interval in segments if interval.label][1] == "Then more"
    assert [round(interval.end, 3) for interval in segments] == [0.25, 1.65, 1.75, 2.65]


@pytest.mark.parametrize(("offset", "seconds"), [(0.0, 6.192), (10.0, 4.5)])
@pytest.mark.parametrize("duration", [None, 4.4, 6.9])
def test_a_textgrid_ends_where_the_audio_was_found_to_end(tmp_path, offset, seconds, duration):
    record = record_of("she said so", first=offset + 0.1, offset=offset, duration=duration)
    grid = read_grid(render("textgrid", record, seconds=seconds), tmp_path)
    assert grid.maxTimestamp == pytest.approx(offset + seconds, abs=0.0006)


def test_words_that_a_model_ends_after_the_audio_end_with_it(tmp_path):
    record = record_of("she said so", first=0.1)
    end = record["words"][-1]["end"] - 0.03
    grid = read_grid(render("textgrid", record, seconds=end), tmp_path)
    said = [interval for interval in grid.getTier("words").entries if interval.label]
    assert [interval.label for interval in said] == ["she", "said", "so"]
    assert said[-1].end == grid.maxTimestamp == pytest.approx(end, abs=0.0006)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words, st.floats(0.001, 20))
def test_a_textgrid_of_any_words_and_measured_length_is_valid(tmp_path, said, seconds):
    grid = read_grid(render("textgrid", record_with(said), seconds=seconds), tmp_path)
    assert_tiers_are_gapless(grid)
