"""Long recordings, as a user has them: cut, recognized, and put together with times."""

from __future__ import annotations

import json
import tarfile

import jiwer
import numpy as np
import pytest
import soundfile

from beam_asr.audio.reading import AudioRequest, read_audio
from tests.support import long_recordings
from tests.support.job_files import SAMPLE_MODEL, read_records, transcripts_of, write_manifest
from tests.support.long_recordings import RATE

MINUTES = 4
LONGEST = 20.0


@pytest.fixture(scope="module")
def recordings(prompts, tmp_path_factory):
    """Two recordings, with pauses and without, and where what is said in them."""
    folder = tmp_path_factory.mktemp("recordings")
    return folder, {
        name: long_recordings.write(folder / name, prompts, 60 * MINUTES, pauses, seed=3)
        for name, pauses in (("pauses.flac", (0.3, 1.0)), ("none.flac", None))
    }


@pytest.fixture(scope="module")
def alone(prompts, recordings, tmp_path_factory) -> dict[str, str]:
    """What the model makes of each prompt in a recording by itself."""
    folder = tmp_path_factory.mktemp("alone")
    names = sorted({each.audio for places in recordings[1].values() for each in places})
    rows = [{"name": name, "audio_filepath": str(prompts / name)} for name in names]
    records = transcripts_of(write_manifest(folder / "m", rows), SAMPLE_MODEL, folder / "out")
    return {each["name"]: each["pred_text"] for each in records}


@pytest.fixture(scope="module")
def recognized(recordings, tmp_path_factory):
    """The transcripts of the recordings, whole and in parts, by their ids."""
    from beam_asr.cli import main

    folder, places = recordings
    rows = [
        {"id": "pauses", "audio_filepath": "pauses.flac"},
        {"id": "none", "audio_filepath": "none.flac", "duration": places["none.flac"][-1].end},
        {"id": "part", "audio_filepath": "pauses.flac", "offset": 60.25, "duration": 90.0},
    ]
    out = tmp_path_factory.mktemp("recognized") / "out"
    manifest = write_manifest(folder / "m.jsonl", rows)
    flags = [f"--max_segment_seconds={LONGEST}", "--timestamps=word,segment,char"]
    formats = "--formats=srt,vtt,ctm,stm,txt,textgrid"
    where = [f"--input={manifest}", f"--output={out}", f"--model_name={SAMPLE_MODEL}"]
    assert main.main(["transcribe", *where, *flags, formats]) == 0
    return out, {each["id"]: each for each in read_records(out, "transcripts")}


@pytest.mark.parametrize("name", ["pauses", "none"])
def test_no_word_is_lost_or_doubled_by_cutting(name, recognized, recordings, alone):
    places = recordings[1][f"{name}.flac"]
    said = " ".join(each.text for each in places)
    one_by_one = jiwer.process_words(said, " ".join(alone[each.audio] for each in places))
    whole = jiwer.process_words(said, recognized[1][name]["pred_text"])
    assert whole.wer <= one_by_one.wer + 0.01
    # A cut that loses or doubles words shows in these, whatever the model mishears.
    assert whole.deletions <= one_by_one.deletions + 2
    assert whole.insertions <= one_by_one.insertions + 2


@pytest.mark.parametrize("name", ["pauses", "none"])
def test_words_are_where_they_are_said(name, recognized, recordings):
    places = recordings[1][f"{name}.flac"]
    starts, ends = long_recordings.place_errors(places, recognized[1][name]["words"])
    for errors in (np.abs(starts), np.abs(ends)):
        assert len(errors) > 0.7 * len(places)
        assert np.median(errors) < 0.1
        assert np.percentile(errors, 95) < 0.3


def test_times_are_in_order_and_within_the_audio(recognized, recordings):
    for name, start, end in (
        ("pauses", 0.0, None),
        ("none", 0.0, None),
        ("part", 60.25, 150.25),
    ):
        record = recognized[1][name]
        end = end or soundfile.info(recordings[0] / f"{name}.flac").duration
        for kind in ("words", "segments", "chars"):
            times = [time for each in record[kind] for time in (each["start"], each["end"])]
            assert start <= min(times)
            assert max(times) <= end + 1e-3
            assert times == sorted(times)
        assert [each["word"] for each in record["words"]] == record["pred_text"].split()
        assert " ".join(each["segment"] for each in record["segments"]).split() == [
            each["word"] for each in record["words"]
        ]
        assert "".join(each["char"] for each in record["chars"]).split() == [
            each["word"] for each in record["words"]
        ]


def test_a_part_of_a_recording_says_what_the_whole_does_there(recognized):
    whole = [w for w in recognized[1]["pauses"]["words"] if w["start"] > 61 and w["end"] < 149]
    part = recognized[1]["part"]["words"]
    same = [w for w in whole if any(is_same(w, other) for other in part)]
    assert len(same) >= 0.9 * len(whole) > 50


def is_same(word, other) -> bool:
    return word["word"] == other["word"] and abs(word["start"] - other["start"]) < 0.15


def test_summary_counts_segments(recognized, recordings):
    summary = json.loads((recognized[0] / "summary.json").read_text())
    seconds = sum(
        soundfile.info(recordings[0] / name).duration for name in ("pauses.flac", "none.flac")
    )
    assert (summary["rows_in"], summary["transcribed"], summary["long_rows"]) == (3, 3, 3)
    assert summary["segments"] >= 2 * 60 * MINUTES / LONGEST
    assert summary["audio_hours"] * 3600 == pytest.approx(seconds + 90, rel=0.01)


def test_a_file_for_each_transcript_and_format(recognized):
    out, records = recognized
    for record in records.values():
        assert set(record["exports"]) == {"srt", "vtt", "ctm", "stm", "txt", "textgrid"}
        for path in record["exports"].values():
            assert (out / path).stat().st_size > 100
        assert (out / record["exports"]["txt"]).read_text().split() == record["pred_text"].split()


def test_short_rows_beside_a_long_one_are_not_touched(recordings, alone, prompts, tmp_path):
    names = sorted(alone)[:20]
    rows = [{"audio_filepath": str(prompts / name)} for name in names]
    rows += [{"audio_filepath": str(recordings[0] / "pauses.flac"), "duration": 59.0}]
    records = transcripts_of(write_manifest(tmp_path / "m", rows), SAMPLE_MODEL, tmp_path / "out")
    texts = {each["audio_filepath"]: each["pred_text"] for each in records}
    assert {name: texts[str(prompts / name)] for name in names} == {
        name: alone[name] for name in names
    }


def test_clips_in_tars_are_cut_too(recordings, recognized, transcribe, tmp_path):
    folder, _ = recordings
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(folder / "pauses.flac", "pauses.flac")
    out = tmp_path / "out"
    flags = [f"--max_segment_seconds={LONGEST}", f"--model_name={SAMPLE_MODEL}"]
    status, _, said = transcribe(f"--input={tmp_path}/a.tar", f"--output={out}", *flags)
    assert status == 0, said
    (record,) = read_records(out, "transcripts")
    assert record["pred_text"] == recognized[1]["pauses"]["pred_text"]


@pytest.mark.parametrize("segmentation", ["fixed", "none"])
def test_other_ways_to_cut(segmentation, recordings, alone, transcribe, tmp_path):
    folder, places = recordings
    places = [each for each in places["pauses.flac"] if each.end < 100]
    row = {"audio_filepath": str(folder / "pauses.flac"), "duration": places[-1].end + 0.2}
    manifest, out = write_manifest(tmp_path / "m", [row]), tmp_path / "out"
    flags = [f"--segmentation={segmentation}", f"--model_name={SAMPLE_MODEL}"]
    if segmentation == "fixed":
        flags.append(f"--max_segment_seconds={LONGEST}")
    status, _, said = transcribe(f"--input={manifest}", f"--output={out}", *flags)
    assert status == 0, said
    (record,) = read_records(out, "transcripts")
    said = " ".join(each.text for each in places)
    one_by_one = jiwer.wer(said, " ".join(alone[each.audio] for each in places))
    assert jiwer.wer(said, record["pred_text"]) <= one_by_one + 0.03
    summary = json.loads((out / "summary.json").read_text())
    assert summary["long_rows"] == (segmentation == "fixed")


def test_rows_without_speech(transcribe, tmp_path):
    noise = np.random.default_rng(0).standard_normal(60 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.flac", noise * 1e-3, RATE)
    soundfile.write(tmp_path / "short.flac", noise[: 3 * RATE] * 1e-3, RATE)
    soundfile.write(tmp_path / "zeros.flac", np.zeros(60 * RATE, np.float32), RATE)
    rows = [{"audio_filepath": f"{name}.flac"} for name in ("long", "short", "zeros")]
    manifest, out = write_manifest(tmp_path / "m.jsonl", rows), tmp_path / "out"
    flags = [f"--model_name={SAMPLE_MODEL}", "--timestamps=word", "--formats=srt,textgrid"]
    status, _, said = transcribe(f"--input={manifest}", f"--output={out}", *flags)
    assert status == 0, said
    records = read_records(out, "transcripts")
    assert sorted(each["audio_filepath"] for each in records) == ["long.flac", "short.flac"]
    for record in records:
        assert (record["pred_text"], record["words"], record["no_speech"]) == ("", [], True)
    (failed,) = read_records(out, "failures")
    assert failed["error"]["type"] == "SilentAudioError"
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["batches"], summary["no_speech"]) == (0, 2)
    assert summary["unheard_hours"] * 3600 == pytest.approx(63, abs=0.1)


@pytest.mark.parametrize("partial", ["fail", "keep"])
def test_a_recording_that_breaks_off(partial, recordings, recognized, transcribe, tmp_path):
    whole = (recordings[0] / "pauses.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    manifest, out = write_manifest(tmp_path / "m", [{"audio_filepath": "cut.flac"}]), tmp_path / "o"
    flags = [f"--max_segment_seconds={LONGEST}", f"--model_name={SAMPLE_MODEL}"]
    where = [f"--input={manifest}", f"--output={out}"]
    status, _, said = transcribe(*where, *flags, f"--partial={partial}")
    assert status == (partial == "fail"), said  # there is no other row
    if partial == "fail":
        (record,) = read_records(out, "failures")
        assert record["error"]["type"] == "TruncatedAudioError"
        return
    (record,) = read_records(out, "transcripts")
    (failed,) = record["segments_failed"]
    assert failed["error"]["type"] == "TruncatedAudioError"
    seconds = soundfile.info(recordings[0] / "pauses.flac").duration
    assert 0.4 * seconds < failed["start"] < 0.6 * seconds < failed["end"] <= seconds
    words = record["pred_text"].split()
    assert words[:-20] == recognized[1]["pauses"]["pred_text"].split()[: len(words) - 20]


def test_planning_reads_as_a_stream(recordings):
    path = str(recordings[0] / "pauses.flac")
    from beam_asr.audio.reading import stream_audio

    blocks = list(stream_audio(path, AudioRequest(sample_rate=8000, offset=10.0)))
    assert max(map(len, blocks)) < 40 * 8000
    assert np.array_equal(
        np.concatenate(blocks), read_audio(path, AudioRequest(sample_rate=8000, offset=10.0))
    )
