"""Inputs without an end: what is found, and the rows of each window."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import tarfile
from collections import Counter
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import IntervalWindow
from apache_beam.utils.timestamp import Timestamp

from beam_asr import ReadManifest, Transcribe, WriteManifest
from beam_asr.errors import LostRowsError, NotJsonError, UnreadableFileError
from beam_asr.inputs import discovery, json_lines, readers
from beam_asr.inputs.readers import FileRange
from beam_asr.models import engine
from beam_asr.outputs.formats.base import FieldKeys
from beam_asr.records.outcome import Recognition
from beam_asr.records.parsing import parse
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage.storage import Storage
from beam_asr.transforms import streaming
from beam_asr.transforms.read_manifest import _read_watched, _split_file, _split_watched
from beam_asr.transforms.shard_lines import ShardKey
from beam_asr.transforms.write_manifest import OutputTarget, _finish_window, _Shard
from tests.support.job_files import read_records
from tests.support.windows import SIZE, at_times, summary_of, window_folder, window_folders

RATE = 1000


SUBSCRIPTION = "pubsub://projects/my-project/subscriptions/rows"


def found(find: streaming._Find, pattern: object) -> list[str]:
    return [file for file, _ in versions(find, pattern)]


def versions(find: streaming._Find, pattern: object) -> list[tuple[str, str]]:
    return [each.value for each in find(str(pattern)).outputs]


def test_a_look_finds_what_is_there_and_its_time_is_that_of_the_look(tmp_path):
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.txt").touch()
    find = streaming._Find(Storage(), None)
    before = Timestamp.now()
    result = find(f"{tmp_path}/*.jsonl")
    assert [each.value[0] for each in result.outputs] == [f"{tmp_path}/a.jsonl"]
    assert not result.is_complete
    # No file that comes later has an earlier time than the next look.
    assert before <= result.outputs[0].timestamp == result.watermark <= Timestamp.now()
    (tmp_path / "c.jsonl").touch()
    later = find(f"{tmp_path}/*.jsonl")
    assert later.watermark >= result.watermark
    assert all(each.timestamp >= result.watermark for each in later.outputs)
    assert [each.value[0] for each in later.outputs] == [
        f"{tmp_path}/a.jsonl",
        f"{tmp_path}/c.jsonl",
    ]


def test_what_a_watched_folder_leaves_out_is_logged_when_it_changes(tmp_path, caplog):
    caplog.set_level("WARNING")  # what ran before in this process may have raised it
    find = streaming._Find(Storage(), None)
    for name in ("a.wav", "b.txt"):
        (tmp_path / name).touch()
    for _ in range(3):
        assert found(find, tmp_path) == [f"{tmp_path}/a.wav"]
    (tmp_path / "c.txt").touch()
    found(find, tmp_path)
    said = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert said == [".txt 1", ".txt 2"]


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
    (a, b) = versions(find, f"{gs_bucket.uri}/in/*.jsonl")
    files.pipe_file(f"{gs_bucket.uri}/in/a.jsonl", b"[]\n")
    files.pipe_file(f"{gs_bucket.uri}/in/b.jsonl", b"{}\n")  # the same again
    replaced, same = versions(find, f"{gs_bucket.uri}/in/*.jsonl")
    assert (replaced[0], same) == (a[0], b)
    assert replaced != a
    assert versions(find, replaced[0]) != versions(find, same[0]) == versions(find, same[0])


def test_a_file_that_goes_on_growing_has_another_version(tmp_path):
    find = streaming._Find(Storage(), None)
    (tmp_path / "a.jsonl").write_text("{}\n")
    first = versions(find, tmp_path / "*.jsonl")
    assert versions(find, tmp_path / "*.jsonl") == first == versions(find, tmp_path / "a.jsonl")
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("{}\n")
    assert versions(find, tmp_path / "*.jsonl") != first


def test_a_file_that_is_gone_again_before_it_is_read_is_not_found(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").touch()
    listed = discovery.find(Storage(), f"{tmp_path}/*.jsonl")
    (tmp_path / "a.jsonl").unlink()
    monkeypatch.setattr(discovery, "find", lambda *_: listed)
    assert found(streaming._Find(Storage(), None), "*") == [f"{tmp_path}/b.jsonl"]


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("no answer")])
def test_a_storage_that_is_away_for_a_look_does_not_end_the_stream(error, monkeypatch, caplog):
    caplog.set_level("WARNING")

    def fails(*_):
        raise error

    monkeypatch.setattr(discovery, "find", fails)
    before = Timestamp.now()
    result = streaming._Find(Storage(), None)("gs://bucket/*.jsonl")
    assert result.outputs == ()
    assert result.watermark >= before
    assert f"gs://bucket/*.jsonl cannot be listed until the next look: {error}" in caplog.text


def test_a_storage_that_refuses_a_look_ends_the_stream(monkeypatch):
    def refuses(*_):
        raise PermissionError("no access")

    monkeypatch.setattr(discovery, "find", refuses)
    with pytest.raises(PermissionError):
        streaming._Find(Storage(), None)("gs://bucket/*.jsonl")


def test_of_the_versions_of_a_file_the_first_is_read_and_the_others_are_one_failure():
    looks = [("a", "1"), ("b", "1"), ("a", "1"), ("a", "2"), ("b", "1"), ("a", "3"), ("a", "1")]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        changes = pipeline | beam.Create(looks) | beam.ParDo(streaming._FindChanges())
        expected = [
            FileRange("a"),
            FileRange("b"),
            FileRange("a", problem=streaming.CHANGED, problem_type="UnreadableFileError"),
        ]
        assert_that(changes, equal_to(expected))


BROKEN_FILES = {
    "list.jsonl": b'[{"audio_filepath": "a.wav"}, {"audio',
    "cut.jsonl.gz": gzip.compress(b'{"audio_filepath": "a.wav"}\n' * 1000)[:-9],
    "no.parquet": b"PAR1",
    "gone.jsonl": None,
    "folder.jsonl": None,
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_watched_file_that_cannot_be_read_is_a_row_that_fails(name, tmp_path):
    """The runner would try its bundle for ever, or end the stream, and all other files with it."""
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir()
    elif (content := BROKEN_FILES[name]) is not None:
        path.write_bytes(content)
    rows = read_watched(FileRange(str(path)))
    assert rows[-1].problem.startswith(streaming.UNREADABLE)
    with pytest.raises(UnreadableFileError, match=re.escape(f"{tmp_path}")):
        parse(rows[-1])
    # What could be read of it is not lost.
    assert [row.problem for row in rows[:-1]] == [""] * (len(rows) - 1)


def read_watched(found: FileRange) -> list[Row]:
    pieces = _split_watched(found, Storage())
    return [
        row
        for piece in pieces
        for row in _read_watched(pickle.loads(pickle.dumps(piece)), Storage(), "audio_filepath")
    ]


def test_a_file_that_has_changed_is_a_row_that_fails(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    file = str(tmp_path / "a.jsonl")
    changed = streaming.broken_file(file, UnreadableFileError(streaming.CHANGED))
    (row,) = read_watched(changed)
    with pytest.raises(UnreadableFileError, match="has changed since it was found"):
        parse(row)
    assert row.manifest == file


def test_a_watched_file_whose_storage_is_away_is_tried_again_by_the_runner(monkeypatch):
    def fails(*_):
        raise ConnectionResetError("reset")

    monkeypatch.setattr(readers, "split_file", fails)
    monkeypatch.setattr(readers, "read_rows", fails)
    with pytest.raises(ConnectionResetError):
        list(_split_watched(FileRange("gs://bucket/a.jsonl"), Storage()))
    with pytest.raises(ConnectionResetError):
        list(_read_watched(FileRange("gs://bucket/a.jsonl"), Storage(), "audio_filepath"))


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
    with pytest.raises(
        ValueError, match="pubsub://projects/PROJECT/subscriptions/NAME"
    ) as reported:
        ReadManifest(address)
    assert repr(address) in str(reported.value)


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


class Loudness:
    """A recognizer that says how loud a clip is, so that a text tells which clip it is of."""

    sample_rate = RATE
    default_batch_seconds = max_clip_seconds = segment_seconds = 40.0
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
        recognized = {each["audio_filepath"]: each["pred_text"] for each in records}
        assert len(records) == len(recognized)
        assert recognized == {str(clips / f"{number}.wav"): str(number) for number in numbers}
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
        rows.append((start + 1, WebDatasetTar(str(path))))
    transcribe_in_windows(tmp_path / "out", rows, loudness, endless=True)
    for start, texts in ((0.0, ["3", "4"]), (60.0, ["5"])):
        folder = window_folders(tmp_path / "out")[start]
        assert sorted(each["pred_text"] for each in read_records(folder, "transcripts")) == texts
        assert summary_of(folder)["rows_in"] == len(texts)
        assert summary_of(folder)["inputs"] == [f"{tmp_path}/{start:g}.tar"]
        assert (folder / "_SUCCESS").exists()


def test_a_window_whose_rows_came_in_two_parts_is_not_whole(tmp_path):
    """The second part was written in place of the first, and the numbers of both are right."""
    target = OutputTarget(
        str(tmp_path), Storage(), 1, None, None, (), FieldKeys("", "", "", ""), False, run="1" * 32
    )
    window = IntervalWindow(0, SIZE)
    name = target.for_window(window).write_shard(ShardKey("transcripts", 0, 1), [b"{}\n"])
    parts = [_Shard("transcripts", name, Counter({"": rows}), {}) for rows in (12, 4)]
    keyed = ("", {"statistics": [Statistics(rows_in=16)], "shards": parts})
    with pytest.raises(LostRowsError, match=f"{name} was written twice"):
        _finish_window(keyed, target, 0.1, {}, window=window)
    (folder,) = window_folders(tmp_path).values()
    assert not (folder / "_SUCCESS").exists()


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
    items = [row, WebDatasetTar(str(tmp_path / "more.tar"))]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        recognized = pipeline | beam.Create(items) | Transcribe(loudness, device="cpu")
        recognized | WriteManifest(str(tmp_path / "out"))
    assert "inputs" not in summary_of(tmp_path / "out")


def test_the_ranges_of_a_watched_file_may_be_read_of_any_version(tmp_path, monkeypatch):
    """A stream tries a bundle for ever, and a version that is gone does not come back."""
    monkeypatch.setattr(json_lines, "RANGE_BYTES", 100)
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}\n' * 20)
    for is_watched in (False, True):
        pieces = list(_split_file(str(tmp_path / "m.jsonl"), Storage(), is_watched))
        assert len(pieces) > 1
        assert all((piece.version == "") is is_watched for piece in pieces)
