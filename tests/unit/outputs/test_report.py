"""What a report says of a run, and that it needs little memory for many rows."""

from __future__ import annotations

import json
import random
import re

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.cli import main
from beam_asr.outputs.folder import check_may_write, folder_name
from beam_asr.outputs.output import Output
from beam_asr.outputs.report import aggregation, excerpts
from beam_asr.outputs.report.quantities import QUANTITIES
from beam_asr.outputs.report.report import report
from beam_asr.outputs.report.run_fields import RunFields, command_of
from beam_asr.outputs.report.samples import BoundedCounter, FairSample, Highest, Histogram
from beam_asr.outputs.report.word_differences import edits, pieces
from beam_asr.outputs.report.word_statistics import WordStatistics
from beam_asr.storage.storage import Storage
from tests.support.finished_runs import failed, scored, write_run
from tests.support.job_files import SAMPLES

WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


@given(WORDS, WORDS)
def test_differences_are_those_that_jiwer_counts(said, recognized):
    found = list(edits(said, recognized))
    counted = jiwer.process_words(" ".join(said), " ".join(recognized))
    of = {
        kind: sum(len(e.expected) for e in found if e.kind == kind)
        for kind in ("replace", "delete")
    }
    made_up = sum(len(each.recognized) for each in found if each.kind == "insert")
    wrong = of["replace"] + of["delete"] + made_up
    assert wrong == counted.substitutions + counted.deletions + counted.insertions
    assert [word for each in found for word in each.expected] == said
    assert [word for each in found for word in each.recognized] == recognized


def test_a_long_text_is_shown_in_part():
    shown = pieces(["word"] * 5000, ["word"] * 5000)
    assert len(shown[0][1].split()) == 400
    assert shown[-1] == ["=", "… (4,600 further words)"]


def test_words_are_counted_by_what_became_of_them():
    words = WordStatistics()
    for said, recognized in (
        ("call mister novak now", "call mister no now"),
        ("mister novak", "mister no wack"),
        ("the end", "end"),
        ("", "thank you"),
        ("the end", "the end"),
    ):
        words.add(said.split(), recognized.split())
    assert words.confusions()[0] == {"expected": "novak", "recognized": "no", "count": 1}
    assert words.never_recognized() == [{"word": "novak", "count": 2, "instead": "no"}]
    assert words.left_out() == [("the", 1)]
    assert words.silent_rows == 1
    assert words.in_silence() == [("thank", 1), ("you", 1)]


def test_the_interval_of_an_error_rate_is_that_of_the_bootstrap():
    chance = np.random.default_rng(0)
    said = chance.integers(1, 20, 2000)
    wrong = chance.binomial(said, 0.2)
    words = WordStatistics()
    for count, errors in zip(said, wrong):
        words.add(["a"] * count, ["b"] * errors + ["a"] * (count - errors))
    drawn = [chance.integers(0, 2000, 2000) for _ in range(400)]
    rates = [wrong[rows].sum() / said[rows].sum() for rows in drawn]
    assert words.margin(2000) == pytest.approx(1.96 * np.std(rates), rel=0.15)


@given(st.lists(st.floats(0, 2.9), min_size=1, max_size=200))
def test_a_histogram_has_each_value_once_and_quantiles_to_a_bin(values):
    scale = QUANTITIES[1].scale
    histogram = Histogram(scale)
    for value in values:
        histogram.add(value)
    assert sum(count for *_, count in histogram.bars()) == len(values)
    median = sorted(values)[(len(values) - 1) // 2]
    assert abs(histogram.quantile(0.5) - median) <= 0.011


def test_samples_are_bounded_and_fair():
    highest, sample = Highest(3), FairSample(100)
    counter = BoundedCounter(limit=1000)
    for number in random.Random(1).sample(range(10_000), 10_000):
        highest.add(number, str(number))
        sample.add(number)
        counter.update([number, "frequent"])
    assert highest.items() == [(9999, "9999"), (9998, "9998"), (9997, "9997")]
    assert len(sample.items) == 100
    assert 4000 < np.mean(sample.items) < 6000
    assert len(counter.counts) <= 1001
    assert counter.counts["frequent"] == 10_000


def test_rows_are_ranked_by_what_is_wrong_or_odd_with_them():
    found = aggregation.Aggregate(RunFields(reference="text", normalizer="basic"), 4)
    good = scored("one two three", "one two three", confidence=0.9)
    bad = scored("one two three", "four", confidence=0.5)
    loop = scored("one", "yes " * 30, confidence=0.8)
    for record in (good, bad, loop):
        found.add(record)
    assert found.worst() == [loop, bad]
    suspicious = {id(each.record): each.why for each in found.suspicious()}
    assert "a phrase 30 times in a row" in suspicious[id(loop)]
    assert "confidence 0.50" in suspicious[id(bad)]


def test_the_report_has_the_numbers_of_the_summary(tmp_path):
    rows = [scored("one two", "one"), scored("three", "three")]
    text = report(Output(str(write_run(tmp_path / "out", rows)))).decode()
    assert re.search(r"<dt>WER</dt><dd>33.33%", text)
    assert re.search(r"<dt>Rows</dt><dd>2", text)


def test_without_references_one_sentence_says_how_to_get_them(tmp_path):
    row = {"audio_filepath": "a.flac", "pred_text": "recognized", "duration": 2.0}
    text = report(Output(str(write_run(tmp_path / "out", [row])))).decode()
    assert text.count("--reference_key=FIELD") == 1
    assert 'id="words"' not in text
    assert "<dt>WER" not in text


def test_a_folder_of_failures_alone_and_an_empty_one_have_a_report(tmp_path):
    out = write_run(tmp_path / "out", [], [failed("a", "gone")])
    assert b"AudioNotFoundError" in report(Output(str(out)))
    assert report(Output(str(write_run(tmp_path / "none", []))))


def test_the_report_of_a_stream_is_of_all_windows(tmp_path):
    for name in (folder_name(0, "aaaaaaaa"), folder_name(600, "aaaaaaaa")):
        write_run(tmp_path / "out" / name, [scored("a", "a")])
    assert main.main(["report", str(tmp_path / "out")]) == 0
    # Again, with the report beside the windows.
    assert main.main(["report", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"<dt>Transcribed</dt><dd>2", text)


def test_a_report_in_the_folder_is_no_hindrance_to_a_later_run(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").touch()
    (out / "_index").mkdir()
    check_may_write(Storage(), str(out), append=True)
    check_may_write(Storage(), str(out), overwrite=True)


def test_an_unfinished_folder_is_refused_with_what_to_do(tmp_path, capsys):
    assert main.main(["report", str(tmp_path)]) == 2
    assert "holds no finished results" in capsys.readouterr().err


def test_the_command_is_that_of_the_run_without_its_secrets():
    options = {
        "input": ["a.jsonl", "https://host/b.jsonl?X-Signature=secret"],
        "output": "out dir",
        "model_name": "m.nemo",
        "batch_size": 128,
        "quality": True,
        "retry_failures": False,
        "timestamps": ["word", "segment"],
        "storage_options": {"s3": ["key"]},
        "beam_args": ["--runner=FlinkRunner"],
    }
    command = command_of(options)
    assert command.startswith("beam-asr transcribe")
    for part in (
        "'--output=out dir'", "--quality", "--no_retry_failures", "--timestamps=word,segment",
        "--runner=FlinkRunner", "--storage_options=OPTIONS",
    ):  # fmt: skip
        assert part in command
    assert "secret" not in command
    assert "batch_size" not in command


def records_with_audio(count):
    audio = str(SAMPLES / "agent-alreadyon.flac")
    return [{"audio_filepath": audio, "offset": 1.0, "duration": 2.0, "n": n} for n in range(count)]


def test_audio_is_inlined_up_to_a_limit_and_linked_beyond(monkeypatch):
    monkeypatch.setattr(excerpts, "MAX_BYTES", 30_000)
    found = list(excerpts.excerpts(records_with_audio(5), RunFields(), Storage()))
    assert [bool(each.media) for each in found] == [True, True, False, False, False]
    assert all(each.link.startswith("file:///") for each in found)


def test_audio_that_is_gone_is_reported_and_no_hindrance():
    (found,) = excerpts.excerpts([{"audio_filepath": "/gone.flac"}], RunFields(), Storage())
    assert (found.media, found.link) == ("", "")
    assert "/gone.flac: no such file" in found.problem


def test_a_relative_path_is_found_beside_the_manifest():
    fields = RunFields(inputs=("/nowhere/a.jsonl", str(SAMPLES / "manifest.jsonl")))
    (found,) = excerpts.excerpts([{"audio_filepath": "digits_4.flac"}], fields, Storage())
    assert found.media


def test_the_link_of_an_object_is_signed_and_has_no_secret_of_a_url(s3_bucket):
    storage = Storage(s3_bucket.storage_options)
    assert "Signature=" in storage.sign(f"{s3_bucket.uri}/a.flac")
    assert storage.sign("memory://a.flac") == ""
    url = "http://127.0.0.1:9/a.flac?X-Signature=secret"
    (found,) = excerpts.excerpts([{"audio_filepath": url}], RunFields(), Storage())
    assert "secret" not in repr(found)


def test_data_cannot_end_its_element(tmp_path):
    row = {"audio_filepath": "a", "pred_text": "</script><script>alert(1)</script>\u2028<!--"}
    text = report(Output(str(write_run(tmp_path / "out", [row])))).decode()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    assert json.loads(data)["rows"][0]["texts"][0][1][0][1].startswith("</script><script>")


def test_a_report_shows_the_speed_of_each_worker_and_over_time(tmp_path):
    figures = {
        "batches": 3,
        "audio_hours": 1.0,
        "model_wait_share": 0.25,
        "padding_efficiency": 0.5,
    }
    spans = [
        {"start": f"2026-12-01T23:{minute}Z", "seconds": 120, **figures, "rtfx_model": None}
        for minute in (56, 58)
    ]
    spans.append({**spans[0], "start": "2026-12-02T00:00Z", "audio_hours": 2.5})
    workers = [
        {"worker": f"gpu-<{n}>:1", **figures, "rtfx_model": 1234.56} for n in range(25)
    ]  # fmt: skip
    page = report(
        Output(
            str(write_run(tmp_path / "out", [scored("a", "a")], workers=workers, over_time=spans))
        )
    ).decode()
    row = re.search(r"<bdi>gpu-&lt;19&gt;:1</bdi>.*?</tr>", page)[0]
    assert re.findall(r"<bdi>([^<]*)</bdi>", row)[1:] == ["1.00", "3", "1,234.6", "25.0%", "50.0%"]
    assert "gpu-&lt;20&gt;" not in page
    assert "(5 further, in summary.json)" in page
    assert "A bar for each 2 minutes, over all workers; the highest is 75.0, the last 75.0." in page
    numbers = re.search(r"RTFx over time.*?</table>", page, re.DOTALL)[0]
    assert re.findall(r"<bdi>(2026-[^<]*|[\d.]+)</bdi>", numbers) == [
        "2026-12-01T23:56Z", "30.0", "2026-12-01T23:58Z", "30.0", "2026-12-02T00:00Z", "75.0",
    ]  # fmt: skip
    one = write_run(tmp_path / "one", [scored("a", "a")], workers=workers[:1], over_time=spans[:1])
    assert "over time" not in report(Output(str(one))).decode()
