"""Inputs without an end: what is found and gathered, and a folder for each window of time."""

from __future__ import annotations

import itertools
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from beam_asr import ReadManifest, Transcribe, Transcribed, WriteManifest
from beam_asr.errors import NotJsonError
from beam_asr.models import engine
from beam_asr.outputs.folder import folder_name, inputs_done
from beam_asr.records.outcome import Recognition
from beam_asr.records.parsing import parse
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import Tar
from beam_asr.storage.storage import Storage
from beam_asr.transforms import streaming
from beam_asr.transforms.bundles import Gather
from tests.support.job_files import read_records

RATE = 1000
SIZE = 60.0  # seconds of a window
SUBSCRIPTION = "pubsub://projects/my-project/subscriptions/rows"


# Which files are found.


def found(find: streaming._Find, pattern: object) -> list[str]:
    return [each.value for each in find(str(pattern)).outputs]


def test_a_look_finds_what_is_there_and_its_time_is_that_of_the_look(tmp_path):
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.txt").touch()
    find = streaming._Find(Storage(), None)
    before = Timestamp.now()
    result = find(f"{tmp_path}/*.jsonl")
    assert [each.value for each in result.outputs] == [f"{tmp_path}/a.jsonl"]
    assert not result.is_complete
    # No file that comes later has an earlier time than the next look.
    assert before <= result.outputs[0].timestamp == result.watermark <= Timestamp.now()
    (tmp_path / "c.jsonl").touch()
    later = find(f"{tmp_path}/*.jsonl")
    assert later.watermark >= result.watermark
    assert all(each.timestamp >= result.watermark for each in later.outputs)
    assert [each.value for each in later.outputs] == [
        f"{tmp_path}/a.jsonl",
        f"{tmp_path}/c.jsonl",
    ]


@pytest.mark.parametrize("pattern", ["*.jsonl", "m.jsonl", "folder", "m_{0..3}.jsonl"])
def test_what_is_not_there_yet_is_looked_for_again(pattern, tmp_path):
    find = streaming._Find(Storage(), None)
    assert found(find, tmp_path / pattern) == []
    (tmp_path / "folder").mkdir()
    for name in ("m.jsonl", "folder/a.wav", "m_0.jsonl", "m_1.jsonl", "m_2.jsonl", "m_3.jsonl"):
        (tmp_path / name).touch()
    assert found(find, tmp_path / pattern) != []


def test_files_in_a_bucket_are_seen_when_they_appear(gs_bucket):
    files = gs_bucket.filesystem()
    find = streaming._Find(Storage(gs_bucket.storage_options), None)
    assert found(find, f"{gs_bucket.uri}/in/*.jsonl") == []
    files.pipe_file(f"{gs_bucket.uri}/in/a.jsonl", b"{}\n")
    assert found(find, f"{gs_bucket.uri}/in/*.jsonl") == [f"{gs_bucket.uri}/in/a.jsonl"]
    files.pipe_file(f"{gs_bucket.uri}/in/b.jsonl", b"{}\n")
    assert len(found(find, f"{gs_bucket.uri}/in/*.jsonl")) == 2


def window_folder(out: Path, name: str, inputs: Iterable[object], whole: bool = True) -> Path:
    folder = out / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"inputs": [str(each) for each in inputs]}))
    if whole:
        (folder / "_SUCCESS").touch()
    return folder


def test_with_resume_the_files_of_whole_windows_are_left_out(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.jsonl").touch()
    window_folder(tmp_path / "out", "one", [tmp_path / "a.jsonl"])
    window_folder(tmp_path / "out", "two", [tmp_path / "b.jsonl"], whole=False)
    find = streaming._Find(Storage(), str(tmp_path / "out"))
    find = pickle.loads(pickle.dumps(find))  # as it travels to the workers
    assert found(find, tmp_path / "*.jsonl") == [f"{tmp_path}/b.jsonl", f"{tmp_path}/c.jsonl"]
    assert len(found(streaming._Find(Storage(), None), tmp_path / "*.jsonl")) == 3


def test_watched_files_become_an_unbounded_collection_of_rows(tmp_path):
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions(["--streaming"]))
    rows = pipeline | ReadManifest(f"{tmp_path}/*.jsonl", watch=5)
    assert not rows.is_bounded
    assert (pipeline | "Once" >> ReadManifest(f"{tmp_path}/*.jsonl")).is_bounded


# Messages.


@pytest.mark.parametrize("kind", ["subscriptions", "topics"])
def test_messages_are_read_from_a_subscription_or_a_topic(kind):
    address = f"pubsub://projects/my-project/{kind}/rows-1"
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions(["--streaming"]))
    rows = pipeline | ReadManifest(address)
    assert not rows.is_bounded
    proto = str(pipeline.to_runner_api())
    assert f"projects/my-project/{kind}/rows-1" in proto


@pytest.mark.parametrize(
    "address",
    [
        "pubsub://",
        "pubsub://my-project/subscriptions/rows",
        "pubsub://projects/p/subscription/rows",
        "pubsub://projects/p/subscriptions/",
        "pubsub://projects/p/subscriptions/rows/more",
    ],
)
def test_another_address_is_refused_with_the_form_that_it_has(address):
    with pytest.raises(ValueError, match="pubsub://projects/PROJECT/subscriptions/NAME") as told:
        ReadManifest(address)
    assert repr(address) in str(told.value)


def test_messages_are_not_mixed_with_other_inputs():
    with pytest.raises(ValueError, match="more than one topic or subscription"):
        ReadManifest([SUBSCRIPTION, "more.jsonl"])


def test_a_message_is_a_row():
    line = '{"audio_filepath": "gs://b/ü.wav", "n": 1}'
    for message in (line, f"{line}\n", f"{line}\r\n"):
        assert list(streaming._row(message.encode(), SUBSCRIPTION)) == [Row(line, SUBSCRIPTION)]
    for blank in (b"", b"\n", b"  \r\n"):
        assert list(streaming._row(blank, SUBSCRIPTION)) == []


def test_a_message_that_is_no_text_is_a_row_that_fails_and_shows_its_bytes():
    (row,) = streaming._row(b'{"audio_filepath": "caf\xe9.wav"}', SUBSCRIPTION)
    assert row.manifest == SUBSCRIPTION
    assert row.line == '{"audio_filepath": "caf\\xe9.wav"}'
    with pytest.raises(NotJsonError, match="not UTF-8"):
        parse(row)


# Windows' folders.


def test_a_folder_is_named_by_the_start_of_its_window_and_the_run():
    name = folder_name(1_700_000_000.0, "0123456789abcdef")
    assert name == "20231114T221320Z-01234567"
    assert folder_name(0.0, "fedcba98") == "19700101T000000Z-fedcba98"
    later = folder_name(1_700_000_600.0, "0123456789abcdef")
    assert later > name, "by name they are in the order of time"


def test_inputs_are_done_when_their_windows_are_whole(tmp_path):
    assert inputs_done(Storage(), str(tmp_path / "none")) == frozenset()
    window_folder(tmp_path, "one", ["a", "b"])
    window_folder(tmp_path, "two", ["c"], whole=False)
    window_folder(tmp_path, "three", ["b", "d"])
    (tmp_path / "notes.txt").write_text("of the user's")
    (tmp_path / "_journal").mkdir()
    (tmp_path / "_journal" / "lock.json").write_text("{}")
    assert inputs_done(Storage(), str(tmp_path)) == {"a", "b", "d"}


@pytest.mark.parametrize("summary", [None, "{", "[]", "{}"])
def test_a_folder_that_does_not_say_its_inputs_has_done_none(tmp_path, summary):
    """As one that is damaged, or of a job whose input had an end."""
    window_folder(tmp_path, "one", ["a"])
    damaged = window_folder(tmp_path, "two", ["b"])
    (damaged / "summary.json").unlink()
    if summary is not None:
        (damaged / "summary.json").write_text(summary)
    assert inputs_done(Storage(), str(tmp_path)) == {"a"}


# Gathering.


def gathered(elements, most: int):
    """What a bundle of (seconds, time) gives: lists with their time and window."""
    gather = Gather(lambda element: element[0], most)
    gather.start_bundle()
    windowing = FixedWindows(SIZE)
    lists = []
    for element in elements:
        (window,) = windowing.assign(windowing.AssignContext(element[1]))
        lists += gather.process(element, window, Timestamp(element[1]))
    return [*lists, *gather.finish_bundle()]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 300)), max_size=60), st.integers(1, 40)
)
def test_nothing_is_lost_and_each_list_is_of_one_window_and_no_longer_than_it_may(elements, most):
    elements = [(*element, number) for number, element in enumerate(elements)]
    lists = gathered(elements, most)
    assert Counter(e for each in lists for e in each.value) == Counter(elements)
    for each in lists:
        (window,) = each.windows
        assert each.value
        assert all(window.start <= Timestamp(time) < window.end for _, time, _ in each.value)
        assert each.timestamp == Timestamp(each.value[0][1]), "that of the first holds the window"
        assert len(each.value) == 1 or sum(seconds for seconds, _, _ in each.value) <= most
        order = [number for _, _, number in each.value]
        assert order == sorted(order)


@given(st.lists(st.integers(1, 20), max_size=60), st.integers(1, 40))
def test_lists_are_as_full_as_their_order_lets_them_be(sizes, most):
    lists = [each.value for each in gathered([(size, 0) for size in sizes], most)]
    for one, following in itertools.pairwise(lists):
        assert sum(seconds for seconds, _ in one) + following[0][0] > most


def test_lists_reach_the_next_step_in_their_windows():
    elements = [(5, (1, "a")), (65, (1, "b")), (6, (1, "c")), (7, (1, "d")), (66, (1, "e"))]

    def placed(each, window=beam.DoFn.WindowParam, timestamp=beam.DoFn.TimestampParam):
        return float(window.start), float(timestamp), [name for _, name in each]

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        lists = (
            pipeline
            | beam.Create([elements], reshuffle=False)  # in one bundle
            | beam.FlatMap(lambda each: [TimestampedValue(value, at) for at, value in each])
            | beam.WindowInto(FixedWindows(SIZE))
            | beam.ParDo(Gather(lambda element: element[0], 2))
            | beam.Map(placed)
        )
        expected = [(0.0, 5.0, ["a", "c"]), (0.0, 7.0, ["d"]), (60.0, 65.0, ["b", "e"])]
        assert_that(lists, equal_to(expected))


# A folder for each window.


def at_times(pipeline, label: str, values: list[tuple[float, object]], size: float = SIZE):
    return (
        pipeline
        | label >> beam.Create(values)
        | f"{label}Time" >> beam.Map(lambda each: TimestampedValue(each[1], each[0]))
        | f"{label}Window" >> beam.WindowInto(FixedWindows(size))
    )


def failed(number: int) -> dict:
    error = {"stage": "audio", "type": "EmptyAudioError", "message": "m", "attempts": 1}
    return {"n": number, "error": error}


def window_folders(out: Path) -> dict[float, Path]:
    """The folders by the starts of their windows, which are minutes of the first hour of 1970."""
    return {
        60.0 * int(path.name.partition("-")[0][11:13]): path
        for path in sorted(out.iterdir())
        if path.is_dir()
    }


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def write(out: Path, transcripts, failures, statistics, **how) -> None:
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        Transcribed(
            at_times(pipeline, "Transcripts", transcripts),
            at_times(pipeline, "Failures", failures),
            at_times(pipeline, "Statistics", statistics),
            at_times(pipeline, "Filtered", []),
        ) | WriteManifest(str(out), **how)


def test_each_window_has_a_folder_with_its_own_records_summary_and_marker(tmp_path):
    write(
        tmp_path / "out",
        transcripts=[(1, {"n": 1}), (59, {"n": 2}), (60, {"n": 3}), (200, {"n": 4})],
        failures=[(2, failed(5)), (61, failed(6))],
        statistics=[
            (1, Statistics(rows_in=2, audio_seconds=7200, inputs=frozenset(["a"]))),
            (3, Statistics(rows_in=1, audio_seconds=3600, inputs=frozenset(["b", "a"]))),
            (61, Statistics(rows_in=2, inputs=frozenset(["c"]))),
            (201, Statistics(rows_in=1, inputs=frozenset(["d"]))),
        ],
        details={"options": {"x": 1}},
    )
    folders = window_folders(tmp_path / "out")
    assert list(folders) == [0.0, 60.0, 180.0]
    assert len({path.name.partition("-")[2] for path in folders.values()}) == 1, "all of one run"
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    for start, transcribed, failures, inputs, hours in (
        (0.0, {1, 2}, {5}, ["a", "b"], 3.0),
        (60.0, {3}, {6}, ["c"], 0.0),
        (180.0, {4}, set(), ["d"], 0.0),
    ):
        folder = folders[start]
        assert {each["n"] for each in read_records(folder, "transcripts")} == transcribed
        assert {each["n"] for each in read_records(folder, "failures")} == failures
        assert (folder / "_SUCCESS").exists()
        summary = summary_of(folder)
        assert summary["rows_in"] == len(transcribed) + len(failures)
        assert summary["transcribed"] == len(transcribed)
        assert summary["failed_by_type"] == ({"EmptyAudioError": len(failures)} if failures else {})
        assert summary["inputs"] == inputs
        assert summary["audio_hours"] == hours
        assert summary["rtfx_end_to_end"] is None, "a window has no wall time of its own"
        assert summary["options"] == {"x": 1}
    assert inputs_done(Storage(), str(tmp_path / "out")) == {"a", "b", "c", "d"}


def test_a_second_run_within_a_window_has_folders_of_its_own(tmp_path):
    for number in (1, 2):
        row = [(1, {"n": number})]
        write(tmp_path / "out", row, [], [(1, Statistics(rows_in=1))])
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2
    assert all((folder / "_SUCCESS").exists() for folder in folders)
    found_there = [each["n"] for folder in folders for each in read_records(folder, "transcripts")]
    assert sorted(found_there) == [1, 2]


def test_windows_shorter_than_a_second_lose_nothing(tmp_path):
    rows = [(time, {"time": time}) for time in (1.0, 1.25, 1.5, 2.0)]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        at_times(pipeline, "Rows", rows, 0.25) | WriteManifest(str(tmp_path / "out"))
    folders = [path for path in (tmp_path / "out").iterdir() if (path / "_SUCCESS").exists()]
    there = [each["time"] for folder in folders for each in read_records(folder, "transcripts")]
    assert sorted(there) == [1.0, 1.25, 1.5, 2.0]


def test_a_window_has_as_many_shards_as_were_asked_for_empty_ones_too(tmp_path):
    many = [(1, {"n": number}) for number in range(50)]
    write(
        tmp_path / "out",
        [*many, (61, {"n": 50})],
        [(121, failed(51))],
        [
            (1, Statistics(rows_in=50)),
            (61, Statistics(rows_in=1)),
            (121, Statistics(rows_in=1)),
        ],
        num_shards=3,
        compression="gzip",
    )
    for start, transcribed in ((0.0, 50), (60.0, 1), (120.0, 0)):
        folder = window_folders(tmp_path / "out")[start]
        shards = sorted(path.name for path in folder.glob("transcripts-*"))
        assert shards == [f"transcripts-{shard:05d}-of-00003.jsonl.gz" for shard in range(3)]
        assert len(read_records(folder, "transcripts")) == transcribed
        assert (folder / "_SUCCESS").exists()


def test_a_window_with_too_many_failures_is_left_without_its_marker_and_the_others_are_whole(
    tmp_path, caplog
):
    write(
        tmp_path / "out",
        transcripts=[(1, {"n": 1}), (130, {"n": 2})],
        failures=[
            *((61, failed(number)) for number in range(100)),
            *((131, failed(number)) for number in range(99)),  # fewer never are too many
        ],
        statistics=[
            (1, Statistics(rows_in=1, inputs=frozenset(["a"]))),
            (61, Statistics(rows_in=100, inputs=frozenset(["b"]))),
            (130, Statistics(rows_in=100, inputs=frozenset(["c"]))),
        ],
    )
    folders = window_folders(tmp_path / "out")
    whole = {start: (folder / "_SUCCESS").exists() for start, folder in folders.items()}
    assert whole == {0.0: True, 60.0: False, 120.0: True}
    assert summary_of(folders[60.0])["failed"] == 100
    assert len(read_records(folders[60.0], "failures")) == 100
    (said,) = [each.getMessage() for each in caplog.records if each.name.startswith("beam_asr")]
    assert str(folders[60.0]) in said
    assert "100 of 100 rows failed" in said
    assert inputs_done(Storage(), str(tmp_path / "out")) == {"a", "c"}


def test_a_window_that_lost_a_row_is_left_without_its_marker(tmp_path):
    with pytest.raises(Exception, match="2 rows went in, but 1 transcripts and 0 failures"):
        write(tmp_path / "out", [(61, {"n": 1})], [], [(61, Statistics(rows_in=2))])
    assert not list(tmp_path.glob("out/*/_SUCCESS"))


def test_any_records_in_windows_can_be_written(tmp_path):
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        records = at_times(pipeline, "Records", [(1, {"n": 1}), (2, {"n": 2}), (62, {"n": 3})])
        records | WriteManifest(str(tmp_path / "out"))
    counts = {
        start: summary_of(folder)["rows_in"]
        for start, folder in window_folders(tmp_path / "out").items()
    }
    assert counts == {0.0: 2, 60.0: 1}


# The model's step over rows of several windows.


class Loudness:
    """A recognizer that says how loud a clip is, so that a text tells which clip it is of."""

    sample_rate = RATE
    default_batch_seconds = longest_seconds = segment_seconds = 40.0
    weight_bytes, prompt_fields = 0, frozenset()
    batch_overhead_seconds = 2.0

    def warm_up(self, batch_size):
        pass

    def encode(self, waveforms, _prompt):
        return [round(100 * float(waveform.max())) for waveform in waveforms]

    def decode(self, encoded):
        return [Recognition(str(loudness)) for loudness in encoded]

    def describe(self):
        return {"model": "loudness"}


@pytest.fixture
def loudness(monkeypatch, request) -> str:
    """The name of a model that no other test has loaded."""
    monkeypatch.setattr(engine, "load", lambda *_, **__: Loudness())
    return f"loudness-of-{request.node.name}"


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Clip n, of one to five seconds, is as loud as n hundredths."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(1, 61):
        samples = np.full(RATE * (1 + number % 5), number / 100, np.float32)
        soundfile.write(folder / f"{number}.wav", samples, RATE, subtype="FLOAT")
    return folder


class Endless(beam.PTransform):
    """Makes a collection count as one without an end, as a watched one does."""

    def expand(self, rows):
        endless = rows | beam.Map(lambda row: row)
        endless.is_bounded = False
        return endless


def transcribe_in_windows(out: Path, rows, model: str, endless: bool) -> None:
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        timed = at_times(pipeline, "Rows", rows)
        if endless:
            timed |= Endless()
        timed | Transcribe(model, device="cpu") | WriteManifest(str(out))


@pytest.mark.parametrize("endless", [False, True])
def test_each_record_lands_in_the_window_of_its_row_and_the_sums_of_a_window_are_its_own(
    clips, loudness, tmp_path, endless
):
    rows, expected = [], {}
    for number in range(1, 61):  # by turns in four windows
        start = SIZE * (number % 4)
        row = Row(json.dumps({"audio_filepath": str(clips / f"{number}.wav")}), f"m{start:g}.jsonl")
        rows.append((start + 1 + number % 50, row))
        expected.setdefault(start, set()).add(number)
    rows.append((SIZE + 2, Row('{"audio_filepath": "gone.wav"}', "more.jsonl")))
    rows.append((2 * SIZE + 2, Row("{broken", "m120.jsonl", 7)))
    transcribe_in_windows(tmp_path / "out", rows, loudness, endless)
    folders = window_folders(tmp_path / "out")
    assert list(folders) == [0.0, 60.0, 120.0, 180.0]
    for start, numbers in expected.items():
        summary = summary_of(folders[start])
        records = read_records(folders[start], "transcripts")
        heard = {each["audio_filepath"]: each["pred_text"] for each in records}
        assert len(records) == len(heard)
        assert heard == {str(clips / f"{number}.wav"): str(number) for number in numbers}
        failures = read_records(folders[start], "failures")
        types = [each["error"]["type"] for each in failures]
        assert types == {60.0: ["AudioNotFoundError"], 120.0: ["NotJsonError"]}.get(start, [])
        assert summary["rows_in"] == len(numbers) + len(failures)
        seconds = sum(1 + number % 5 for number in numbers)
        assert summary["audio_hours"] == pytest.approx(seconds / 3600, abs=1e-6)
        assert summary["batches"] >= 1
        assert summary["models"] == [{"model": "loudness"}]
        more = ["more.jsonl"] if start == 60.0 else []
        assert summary["inputs"] == [f"m{start:g}.jsonl", *more]
        assert (folders[start] / "_SUCCESS").exists()


def test_no_row_of_a_stream_waits_in_the_state_of_a_step(clips, loudness):
    """What BatchElements keeps there may come when its window of time has been closed."""

    def steps(endless: bool) -> str:
        pipeline = beam.Pipeline(runner="FnApiRunner")
        rows = at_times(pipeline, "Rows", [(1, {"audio_filepath": str(clips / "1.wav")})])
        (rows | Endless() if endless else rows) | Transcribe(loudness, device="cpu")
        graph = pipeline.to_runner_api()
        return " ".join(each.unique_name for each in graph.components.transforms.values())

    assert "BatchingDoFn" in steps(endless=False)
    assert "BatchingDoFn" not in steps(endless=True)


@pytest.mark.parametrize("endless", [False, True])
def test_a_window_whose_rows_are_all_wrong_is_whole(loudness, tmp_path, endless):
    rows = [(1, Row("{broken", "m.jsonl", 1)), (61, Row("[]", "n.jsonl", 1))]
    transcribe_in_windows(tmp_path / "out", rows, loudness, endless)
    for start, kind in ((0.0, "NotJsonError"), (60.0, "NotAnObjectError")):
        folder = window_folders(tmp_path / "out")[start]
        assert summary_of(folder)["failed_by_type"] == {kind: 1}
        assert read_records(folder, "transcripts") == []
        assert (folder / "_SUCCESS").exists()


def test_the_samples_of_a_tar_land_in_the_window_in_which_it_was_found(clips, loudness, tmp_path):
    rows = []
    for start, numbers in ((0.0, [3, 4]), (60.0, [5])):
        path = tmp_path / f"{start:g}.tar"
        with tarfile.open(path, "w") as tar:
            for number in numbers:
                tar.add(clips / f"{number}.wav", f"{number}.wav")
        rows.append((start + 1, Tar(str(path))))
    transcribe_in_windows(tmp_path / "out", rows, loudness, endless=True)
    for start, texts in ((0.0, ["3", "4"]), (60.0, ["5"])):
        folder = window_folders(tmp_path / "out")[start]
        assert sorted(each["pred_text"] for each in read_records(folder, "transcripts")) == texts
        assert summary_of(folder)["rows_in"] == len(texts)
        assert summary_of(folder)["inputs"] == [f"{tmp_path}/{start:g}.tar"]
        assert (folder / "_SUCCESS").exists()


def test_rows_without_a_manifest_name_their_audio_as_the_input(clips, loudness, tmp_path):
    rows = [(1, {"audio_filepath": str(clips / "7.wav")}), (2, {"n": 1})]
    transcribe_in_windows(tmp_path / "out", rows, loudness, endless=True)
    (folder,) = window_folders(tmp_path / "out").values()
    assert set(summary_of(folder)["inputs"]) - {""} == {str(clips / "7.wav")}
    assert summary_of(folder)["failed_by_type"] == {"MissingAudioError": 1}


def test_the_summary_of_an_input_with_an_end_lists_no_inputs(clips, loudness, tmp_path):
    row = Row(json.dumps({"audio_filepath": str(clips / "7.wav")}), "m.jsonl")
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        tar.add(clips / "8.wav", "8.wav")
    items = [row, Tar(str(tmp_path / "more.tar"))]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        heard = pipeline | beam.Create(items) | Transcribe(loudness, device="cpu")
        heard | WriteManifest(str(tmp_path / "out"))
    assert "inputs" not in summary_of(tmp_path / "out")
