"""Exports: each format as other programs read it, the names of files, the step that writes."""

from __future__ import annotations

import copy
import html
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path

import apache_beam as beam
import praatio.textgrid
import pytest
import srt
import webvtt
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_asr.outputs.formats.captions import cues, one_line
from beam_asr.outputs.formats.file_names import name_of
from beam_asr.outputs.formats.registry import FORMATS, TIMED, render
from beam_asr.records import fields as record_fields
from beam_asr.storage.storage import Storage
from beam_asr.transforms import write_formats
from beam_asr.transforms.write_formats import WriteExports, delete_stale
from beam_asr.transforms.write_manifest import WriteManifest
from tests.support.job_files import REPOSITORY, read_records

TEXTS = {
    "english": "Well, this is a test. It has two sentences, and the second one is longer.",
    "marks": 'He said "a --> b" & <i>left</i>. 1 00:00:01,000 --> 00:00:02,000 {x} \\N "" end',
    "hebrew": "שלום לכם. מה שלומכם היום?",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
}


def record_of(text: str, first: float = 0.25, **fields) -> dict:
    """A transcript of words of 0.4 seconds each half a second."""
    words = [
        {"word": word, "start": first + 0.5 * number, "end": first + 0.5 * number + 0.4}
        for number, word in enumerate(text.split())
    ]
    return {"audio_filepath": "/data/a clip.wav", **fields, "pred_text": text, "words": words}


def spaced(text: str) -> str:
    return " ".join(text.split())


def srt_of(text: str) -> list[tuple[timedelta, timedelta, str]]:
    return [(cue.start, cue.end, spaced(cue.content)) for cue in srt.parse(text)]


def read_grid(text: str, folder: Path) -> praatio.textgrid.Textgrid:
    path = folder / "a.TextGrid"
    path.write_text(text, encoding="utf-8")
    return praatio.textgrid.openTextgrid(str(path), includeEmptyIntervals=True)


words = st.lists(
    st.tuples(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
        | st.sampled_from(["-->", "<b>", "&amp;", '"', '""', "a", "end."]),
        st.floats(0, 3) | st.just(0.0),
        st.floats(0, 2) | st.just(0.0),
    ),
    max_size=12,
)


def record_with(said) -> dict:
    record, time = record_of(" ".join(word for word, _, _ in said)), 0.0
    record["words"] = []
    for word, gap, length in said:
        record["words"].append({"word": word, "start": time + gap, "end": time + gap + length})
        time += gap + length
    return record


# Formats.


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


def test_ctm_is_read_by_lhotse_with_its_words_times_and_confidences(tmp_path):
    import lhotse  # which takes seconds, for torch

    record = record_of(TEXTS["english"], first=60.25, channel=1)
    for number, word in enumerate(record["words"]):
        word["confidence"] = number / 100
    path = tmp_path / "a.ctm"
    path.write_text(render("ctm", record))
    whole = lhotse.SupervisionSegment("1", "a_clip", 0.0, 100.0, channel=2)
    segments = lhotse.SupervisionSet.from_segments([whole])
    (read,) = segments.with_alignment_from_ctm(path, match_channel=True)
    assert [(item.symbol, item.start, item.end, item.score) for item in read.alignment["word"]] == [
        (word["word"], word["start"], word["end"], word["confidence"]) for word in record["words"]
    ]


def test_words_of_ctm_hold_no_spaces_and_unknown_confidences_are_left_out():
    words = [
        {"word": "New\u00a0York", "start": 1.0, "end": 1.5, "confidence": None},
        {"word": "\n", "start": 1.5, "end": 1.5},
        {"word": "a\x00b", "start": 1.5004, "end": 1.5004, "confidence": float("nan")},
    ]
    record = {"audio_filepath": ";; x\ty.wav", "pred_text": "", "words": words}
    assert render("ctm", record) == "x_y 1 1.000 0.500 New_York\nx_y 1 1.500 0.000 ab\n"


def test_stm_has_a_line_a_sentence():
    record = record_of("One two. Three four", speaker="A. B.")
    record["words"][3] = {"word": "four", "start": 9.0, "end": 9.0}
    assert render("stm", record) == (
        "a_clip 1 A._B. 0.250 1.150 One two.\n"
        "a_clip 1 A._B. 1.250 1.650 Three\n"
        "a_clip 1 A._B. 9.000 9.001 four\n"
    )


def test_a_text_that_begins_like_a_label_is_no_label():
    assert render("stm", record_of("<unk> x")).endswith(" unknown 0.250 1.150 <O> <unk> x\n")


@pytest.fixture(scope="session")
def sclite() -> str:
    """NIST's scoring tool, from Debian's package, which is not installed."""
    if not shutil.which("apt-get"):
        pytest.skip("NIST's sclite comes from Debian's package sctk, and apt-get is not here")
    folder = REPOSITORY / ".cache" / "sctk"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as work:
            # apt drops its rights to a user that must be able to write here.
            os.chmod(work, 0o755)
            download = "apt-get download -o APT::Sandbox::User=root sctk"
            fetch = f"{download} || (apt-get update && {download})"
            command = f"({fetch}) && dpkg -x sctk_*.deb sctk"
            subprocess.run(command, shell=True, cwd=work, check=True)
            folder.parent.mkdir(exist_ok=True)
            shutil.move(f"{work}/sctk", folder)
    return str(folder / "usr/lib/sctk/bin/sclite")


def test_sclite_scores_ctm_by_stm(sclite, tmp_path):
    records = [
        record_of(text, audio_filepath=f"/data/{name}.wav", speaker=name)
        for name, text in TEXTS.items()
        if name != "marks"  # braces mean alternatives there
    ]
    records.append(record_of("<unk> and so on", audio_filepath="/data/label.wav", speaker="label"))
    for format in ("stm", "ctm"):
        content = "".join(render(format, record) for record in records)
        (tmp_path / f"a.{format}").write_text(content, encoding="utf-8")
    # The wrong word is told, so a right score is no accident.
    wrong = (tmp_path / "a.ctm").read_text(encoding="utf-8").replace(" longer.", " shorter.")
    (tmp_path / "wrong.ctm").write_text(wrong, encoding="utf-8")
    for name, errors in {"a.ctm": "0", "wrong.ctm": "1"}.items():
        run = subprocess.run(
            [sclite, "-r", "a.stm", "stm", "-h", name, "ctm", "-o", "rsum", "stdout"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        total = next(line for line in run.stdout.splitlines() if "Sum" in line).split()
        words = str(sum(len(record["words"]) for record in records))
        assert total[4] == words, run.stdout
        assert total[10] == errors, run.stdout


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
    for name in grid.tierNames:
        entries = grid.getTier(name).entries
        assert entries[0].start == 0.0
        assert entries[-1].end == grid.maxTimestamp
        assert all(one.end == two.start for one, two in itertools.pairwise(entries))
        assert all(one.start < one.end for one in entries)


def test_a_textgrid_has_the_sentences_and_doubled_quotes(tmp_path):
    text = 'She "said" so. Then more'
    content = render("textgrid", record_of(text))
    assert 'text = """said""" \n' in content
    segments = read_grid(content, tmp_path).getTier("segments").entries
    assert [interval.label for interval in segments if interval.label][1] == "Then more"
    assert [round(interval.end, 3) for interval in segments] == [0.25, 1.65, 1.75, 2.65]


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


# Names.

SECRET = "s3cr3t"
HOSTILE = {
    "../../../etc/passwd": "passwd",
    "/etc/shadow": "shadow",
    "..": "audio",
    "/": "audio",
    "a/..": "audio",
    "~/../x.wav": "x",
    "..\\..\\x.wav": "x",
    "C:\\a\\b.wav": "b",
    "a\0b.wav": "a_b",
    "a\nb\r.wav": "a_b",
    "-rf.wav": "rf",
    ".hidden.wav": "hidden",
    "CON.wav": "_CON",
    "/x/nul.tar.gz": "_nul.tar",
    "lpt1.wav": "_lpt1",
    "日本語.wav": "audio",
    "Žluťoučký kůň.wav": "Zlutoucky_kun",
    "x" * 5000 + ".wav": "x" * 60,
    "$(rm -rf ~);`x`.wav": "rm_-rf_x",
    "https://host/a%20b.wav?token=" + SECRET: "a_b",
    "https://host/a.wav?token=" + SECRET * 1000 + "/x/y.wav": "a",
    "https://host/a.wav%3Ftoken=" + SECRET: "a",
    "https://host/%2e%2e%2f%2e%2e%2fx.wav#" + SECRET: "x",
    "https://user:" + SECRET + "@host/a.wav": "a",
    "https://" + SECRET + "@host": "audio",
    "https://host/?" + SECRET: "audio",
    "gs://bucket/a/b.c.wav": "b.c",
    "zip://in/a.wav::gs://bucket/c.zip": "a",
    "zip://../../a.wav::gs://bucket/c.zip": "a",
    "simplecache::https://host/b.wav?" + SECRET: "b",
    "data:audio/wav;base64," + SECRET: "audio",
    "": "audio",
}


@pytest.mark.parametrize("audio", HOSTILE, ids=lambda audio: repr(audio)[:40])
def test_a_name_tells_the_file_and_nothing_else(audio):
    name = name_of({"audio_filepath": audio, "pred_text": "x"}, "audio_filepath", {"pred_text"})
    stem, _, digest = name.rpartition("-")
    assert stem == HOSTILE[audio]
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert SECRET not in render("ctm", record_of("x", audio_filepath=audio))


@given(st.text(st.characters(exclude_categories=[])) | st.text("./\\:%?#~- ", max_size=9))
def test_a_name_is_one_safe_part_of_a_path_whatever_the_audio(audio):
    name = name_of({"audio_filepath": audio}, "audio_filepath")
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
    names = {name_of(row, "audio_filepath") for row in [base, *others]}
    assert len(names) == 1 + len(others)
    reordered = dict(reversed(base.items()))
    assert name_of(reordered, "audio_filepath") == name_of(base, "audio_filepath")


def test_a_name_does_not_depend_on_the_result():
    row = {"audio_filepath": "gs://b/a.wav", "duration": 1.0}
    done = {**row, "pred_text": "x", "words": [1], "no_speech": True, "exports": {}, "wer": 0.1}
    assert name_of(done, "audio_filepath", {*record_fields.MADE, "pred_text"}) == name_of(
        row, "audio_filepath"
    )


def test_relative_paths_of_two_manifests_do_not_share_a_file():
    """Beside a/list.jsonl and b/list.jsonl, one row is of two files."""
    row = {"audio_filepath": "clip.wav"}
    fields = {*record_fields.MADE, "pred_text"}
    names = [name_of({**row, "pred_text": text}, "audio_filepath", fields) for text in "aab"]
    assert names[0] == names[1] != names[2]


# The step.


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def run(records: list[dict], folder: Path, formats: tuple[str, ...] = FORMATS) -> list[dict]:
    """The records that come out, in the order of their files."""
    out = folder.parent / "records.jsonl"
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create(records)
            | beam.ParDo(
                WriteExports(
                    Storage(), lambda _: str(folder), formats, "audio_filepath", "pred_text"
                )
            )
            | beam.combiners.ToList()
            | beam.Map(lambda found: out.write_text(json.dumps(found)) and None)
        )
    return sorted(json.loads(out.read_text()), key=lambda record: sorted(record["exports"].items()))


def test_each_record_is_a_file_of_each_format_and_comes_out_with_their_paths(tmp_path):
    records = [
        record_of(text, audio_filepath=f"/data/{name}.wav", n=n)
        for n, (name, text) in enumerate(TEXTS.items())
    ]
    before = copy.deepcopy(records)
    found = run(records, tmp_path / "out")
    assert records == before
    paths = [path for record in found for path in record["exports"].values()]
    assert len(paths) == len(TEXTS) * len(FORMATS)
    assert written(tmp_path / "out") == set(paths)
    for record in found:
        assert tuple(record["exports"]) == FORMATS
        for format, path in record["exports"].items():
            assert path.startswith(f"{format}/{Path(record['audio_filepath']).stem}-")
            content = (tmp_path / "out" / path).read_bytes().decode()
            assert content == render(format, records[record["n"]])
    assert {path.rpartition(".")[2] for path in paths} == {
        "srt", "vtt", "ctm", "stm", "txt", "TextGrid",
    }  # fmt: skip


def test_no_name_leaves_the_folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    out = tmp_path / "deep" / "er" / "out"
    climbing = [f"{'../' * n}escaped{n}.wav" for n in range(6)] + [f"{tmp_path}/absolute.wav"]
    found = run([record_of("x", audio_filepath=name) for name in [*HOSTILE, *climbing]], out)
    assert len({record["exports"]["srt"] for record in found}) == len(HOSTILE) + len(climbing)
    (tmp_path / "deep" / "er" / "records.jsonl").unlink()
    inside = {f"deep/er/out/{path}" for record in found for path in record["exports"].values()}
    assert written(tmp_path) == inside


def test_equal_rows_share_a_file_and_stay_two_records(tmp_path):
    found = run([record_of("same")] * 3, tmp_path / "out", ("txt",))
    assert len(found) == 3
    (path,) = {record["exports"]["txt"] for record in found}
    assert (tmp_path / "out" / path).read_text() == "same\n"
    assert written(tmp_path / "out") == {path}


def test_a_second_run_writes_the_same_files(tmp_path):
    records = [record_of("x", audio_filepath=f"/{number}.wav") for number in range(3)]
    runs = [run(records, tmp_path / "out", ("vtt",)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(written(tmp_path / "out")) == 3


def test_a_file_that_cannot_be_written_fails_the_pipeline(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "srt").write_text("where a folder should be")
    with pytest.raises(Exception, match="srt"):
        run([record_of("x")], tmp_path / "out", ("txt", "srt"))


def test_records_keep_their_windows_and_times(tmp_path):
    count = 3 * write_formats.MOST_WAITING
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        placed = (
            pipeline
            | beam.Create(range(count))
            | beam.Map(
                lambda n: TimestampedValue(record_of("x", audio_filepath=f"/{n}.wav", n=n), n)
            )
            | beam.WindowInto(FixedWindows(10))
            | beam.ParDo(
                WriteExports(
                    Storage(), lambda _: str(tmp_path), ("txt",), "audio_filepath", "pred_text"
                )
            )
            | beam.Map(
                lambda record, window=beam.DoFn.WindowParam, time=beam.DoFn.TimestampParam: (
                    record["n"],
                    float(window.start),
                    float(time),
                )
            )
        )
        assert_that(placed, equal_to([(n, n // 10 * 10.0, float(n)) for n in range(count)]))
    assert len(list((tmp_path / "txt").iterdir())) == count


def test_the_files_of_an_earlier_run_go_and_nobody_elses(tmp_path):
    run([record_of("x")], tmp_path)
    (tmp_path / "txt" / "mine.txt").write_text("mine")
    delete_stale(Storage(), str(tmp_path))
    assert written(tmp_path) == {"txt/mine.txt"}
    assert not (tmp_path / "srt").exists()


def test_the_files_of_a_window_are_in_its_folder_and_its_records_name_them(tmp_path):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        (
            pipeline
            | beam.Create(range(4))
            | beam.Map(lambda n: TimestampedValue(record_of(f"x{n}", audio_filepath=f"/{n}"), n))
            | beam.WindowInto(FixedWindows(2))
            | WriteManifest(str(tmp_path / "out"), formats=["txt", "srt"])
        )
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2
    found = set()
    for folder in folders:
        assert (folder / "_SUCCESS").exists()
        for record in read_records(folder, "transcripts"):
            assert (folder / record["exports"]["txt"]).read_text() == f"{record['pred_text']}\n"
            assert (folder / record["exports"]["srt"]).exists()
            found.add(record["pred_text"])
    assert found == {"x0", "x1", "x2", "x3"}


def test_a_rerun_replaces_the_files_of_the_run_before(tmp_path):
    for text in ("before", "after"):
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            (
                pipeline
                | beam.Create([record_of(text, audio_filepath=f"{text}.wav")])
                | WriteManifest(str(tmp_path / "out"), overwrite=True, formats=["txt"])
            )
    (left,) = (tmp_path / "out" / "txt").iterdir()
    assert left.read_text() == "after\n"


def test_an_unknown_format_is_refused_when_the_graph_is_built(tmp_path):
    with pytest.raises(ValueError, match=r"formats has 'ass', which is none of srt"):
        WriteManifest(str(tmp_path), formats=["ass"])
