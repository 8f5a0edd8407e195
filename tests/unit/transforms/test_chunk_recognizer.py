"""Chunks of work to events, without Beam: what happens, in which order, and as what it counts."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile

from beam_asr.audio.clip_reader import ClipReader
from beam_asr.audio.segment_planner import Planner
from beam_asr.models import engine
from beam_asr.models.nemo.decoding import ModelLoadError
from beam_asr.models.serving.batcher import Batch
from beam_asr.models.serving.host import ModelHost
from beam_asr.outputs.journal import Journal
from beam_asr.records import parsing
from beam_asr.records.events import (
    ChunkClosed,
    ClipRead,
    Done,
    Failed,
    Filtered,
    MemberWithoutRow,
    Planned,
    SampleFound,
    SegmentDone,
    SegmentFailed,
    Silent,
    Started,
    TarWithoutRows,
    TooLong,
)
from beam_asr.records.outcome import Outcome, Recognition
from beam_asr.records.prompt import Prompt
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, NemoTar, SegmentPlan, WebDatasetTar, group_segments
from beam_asr.settings import AudioLimits
from beam_asr.storage.storage import Storage
from beam_asr.transforms.chunk_recognizer import ChunkRecognizer, RecognizeSettings
from tests.support.audio_files import encode
from tests.support.job_contexts import job_context
from tests.support.tiny_models import speechlike

RATE = 16_000
NO_LIMITS = AudioLimits()


class Lengths:
    """A model that recognizes how long clips are, in tenths of a second; it fails on some."""

    sample_rate = RATE
    default_batch_seconds = max_clip_seconds = 60.0
    segment_seconds = 20.0
    batch_overhead_seconds = 0.0
    weight_bytes, prompt_fields = 0, frozenset()
    fails_on = frozenset()

    def warm_up(self, batch_size):
        pass

    def encode(self, waveforms, _prompt):
        return [round(10 * len(waveform) / RATE) for waveform in waveforms]

    def decode(self, lengths):
        if self.fails_on.intersection(lengths):
            raise ValueError("not this one")
        return [Recognition(str(length)) for length in lengths]

    def describe(self):
        return {"model": "lengths"}


@pytest.fixture(autouse=True)
def model(monkeypatch):
    lengths = Lengths()
    monkeypatch.setattr(engine, "load", lambda *_, **__: lengths)
    return lengths


@pytest.fixture
def sounds(tmp_path):
    for tenths in (5, 7, 400):
        waveform = speechlike(tenths / 10, seed=tenths)
        soundfile.write(tmp_path / f"{tenths}.wav", waveform, RATE)
    soundfile.write(tmp_path / "quiet.wav", np.full(RATE, 1e-4), RATE)
    return tmp_path


def recognizer(context=None, segmentation="vad", limits=NO_LIMITS, **changes) -> ChunkRecognizer:
    storage, spec = Storage(), engine.ModelSpec("any")
    plain = {
        "context": context or job_context(),
        "spec": spec,
        "reader": ClipReader(storage, None, 30.0, 2, limits),
        "tar_storage": storage,
        "planner": Planner(storage, None, 30.0, segmentation, False, limits),
        "prompt": Prompt(),
        "route": 0,
        "max_segment_seconds": None,
        "batch_size": 8,
        "max_batch_seconds": None,
    }
    return ChunkRecognizer(RecognizeSettings(**{**plain, **changes}), ModelHost(spec))


def clip(audio, row_id="", **fields) -> Clip:
    return parsing.parse(Row(json.dumps({"audio_filepath": str(audio), **fields}), id=row_id))


def events_of(ours: ChunkRecognizer, *work) -> list:
    return [*ours.recognize(work), *ours.drain()]


def of_type(events, *types) -> list:
    return [event for event in events if isinstance(event, types)]


def test_each_row_ends_once_as_what_became_of_it(model, sounds):
    model.fails_on = frozenset([7])
    names = ["5.wav", "gone.wav", "7.wav", "quiet.wav"]
    events = events_of(recognizer(), *(clip(sounds / name, name) for name in names))
    assert events[:2] == [Started(tuple(names)), ChunkClosed()]
    done = {event.outcome.row_id: event.outcome for event in of_type(events, Done)}
    failed = {event.outcome.row_id: event.outcome.error for event in of_type(events, Failed)}
    assert {name: outcome.recognition["text"] for name, outcome in done.items()} == {
        "5.wav": "5",
        "quiet.wav": "",
    }
    assert done["5.wav"].seconds == 0.5
    assert failed["gone.wav"]["type"] == "AudioNotFoundError"
    assert failed["gone.wav"]["stage"] == "audio"
    assert (failed["7.wav"]["stage"], failed["7.wav"]["type"]) == ("model", "ValueError")
    assert of_type(events, Silent) == [Silent(1.0, whole_row=True)]
    assert len(of_type(events, ClipRead)) == 4
    assert sum(batch.audio_seconds for batch in of_type(events, Batch)) == pytest.approx(1.2)


@pytest.mark.parametrize("filter_refused", [False, True])
def test_what_the_limits_refuse_is_filtered_only_if_that_is_wanted(sounds, filter_refused):
    context = job_context(filter_refused=filter_refused)
    ours = recognizer(context, limits=AudioLimits(max_duration=0.6))
    rows = [clip(sounds / name, name) for name in ("5.wav", "7.wav", "gone.wav")]
    ended = of_type(events_of(ours, *rows), Done, Failed, Filtered)
    types = {event.outcome.row_id: type(event) for event in ended}
    refused = Filtered if filter_refused else Failed
    assert types == {"5.wav": Done, "7.wav": refused, "gone.wav": Failed}


def test_a_long_row_is_given_back_to_be_planned(sounds):
    rows = [clip(sounds / "400.wav", "a", duration=40.0), clip(sounds / "400.wav", "b")]
    ours = recognizer(max_segment_seconds=10.0)
    events = events_of(ours, *rows)
    assert of_type(events, TooLong) == [TooLong(row, 10.0) for row in rows]
    assert not of_type(events, Done, Failed, ClipRead)


@pytest.mark.parametrize(("fails_on", "kind"), [([], SegmentDone), ([88], SegmentFailed)])
def test_segments_end_apart_from_rows(model, sounds, fails_on, kind):
    model.fails_on = frozenset(fails_on)
    row = clip(sounds / "400.wav", "long")
    (plan,) = Planner(Storage(), None, 30.0, "fixed", False).plan(row, 10.0)
    events = events_of(recognizer(max_segment_seconds=10.0), *group_segments(plan))
    ended = of_type(events, SegmentDone, SegmentFailed)
    assert {(type(event), event.segment.key) for event in ended} == {(kind, plan.key)}
    numbers = sorted(event.segment.number for event in ended)
    assert numbers == list(range(len(plan.segments)))
    assert not of_type(events, Done, Failed)


def test_what_an_earlier_attempt_left_in_the_journal_is_not_done_again(sounds, tmp_path):
    journal = Journal(str(tmp_path / "out"))
    rows = [clip(sounds / "5.wav", "g.0"), clip(sounds / "7.wav", "g.1")]
    before = {"text": "before", "seconds": 0.5}
    # The file of a chunk is named by all its rows; one of them was not done.
    journal.write(
        [Outcome("g.0", before, seconds=0.5), Outcome("g.1", error={"type": "BreakdownError"})]
    )
    events = events_of(recognizer(job_context(journal=journal)), *rows)
    done = {event.outcome.row_id: event for event in of_type(events, Done)}
    assert done["g.0"].resumed
    assert done["g.0"].outcome.recognition == before
    assert not done["g.1"].resumed
    assert done["g.1"].outcome.recognition["text"] == "7"
    assert of_type(events, Started) == [Started(("g.1",))]


def tar_of(path, **members) -> str:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name.replace("_", "."))
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return str(path)


def test_samples_of_a_tar_are_counted_as_they_are_found(sounds, tmp_path):
    wave = (sounds / "5.wav").read_bytes()
    tar = tar_of(tmp_path / "t.tar", a_wav=wave, b_wav=wave, b_json=b"{oops", c_wav=wave)
    first = of_type(events_of(recognizer(), WebDatasetTar(tar, "t")), Done)
    done = {first[0].outcome.row_id: Outcome(first[0].outcome.row_id, {"text": "x"}, seconds=9.0)}
    events = events_of(recognizer(), WebDatasetTar(tar, "t", done))
    assert events.count(SampleFound()) == 3
    (failed,) = of_type(events, Failed)
    assert (failed.outcome.error["stage"], failed.outcome.error["type"]) == (
        "manifest",
        "NotJsonError",
    )
    assert [(event.resumed, event.outcome.seconds) for event in of_type(events, Done)] == [
        (True, 9.0),
        (False, 0.5),
    ]
    started = [each for event in of_type(events, Started) for each in event.ids]
    assert len(started) == 2


def test_members_of_a_tarred_data_set_without_rows_are_reported(sounds, tmp_path):
    wave = (sounds / "5.wav").read_bytes()
    tar = tar_of(tmp_path / "audio_0.tar", a_wav=wave, b_wav=wave)
    rows = [Clip(Row(json.dumps({"audio_filepath": name})), name, 0.0, None) for name in
            ("a.wav", "gone.wav")]  # fmt: skip
    events = events_of(recognizer(), NemoTar(tar, rows), NemoTar("never read", []))
    assert of_type(events, MemberWithoutRow) == [MemberWithoutRow(f"{tar}: b.wav")]
    assert of_type(events, TarWithoutRows) == [TarWithoutRows()]
    assert [event.outcome.recognition["text"] for event in of_type(events, Done)] == ["5"]
    assert [event.outcome.error["type"] for event in of_type(events, Failed)] == [
        "MissingMemberError"
    ]
    assert not of_type(events, SampleFound)


def test_a_long_sample_of_a_tar_is_cut_where_its_content_is(sounds, tmp_path):
    content = (sounds / "400.wav").read_bytes()
    tar = tar_of(tmp_path / "t.tar", a_wav=content)
    events = events_of(recognizer(max_segment_seconds=10.0), WebDatasetTar(tar))
    (planned,) = of_type(events, Planned)
    assert isinstance(planned.plan, SegmentPlan)
    ended = of_type(events, SegmentDone)
    assert len(ended) == len(planned.plan.segments) > 1
    assert not of_type(events, TooLong, Done, Failed)


def test_a_prompt_that_the_model_does_not_take_is_an_error_of_the_job():
    with pytest.raises(ModelLoadError, match="takes no --source_lang"):
        recognizer(prompt=Prompt(source_lang="es"))


@pytest.mark.parametrize("ending", ["wav", "flac", "m4a"])
def test_rows_that_are_shorter_than_their_files_are_reported(model, tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "m4a":
        encode(path, speechlike(3.0, seed=1), codec="aac", container="mp4")
    else:
        soundfile.write(path, speechlike(3.0, seed=1), RATE)
    rows = {
        "whole": {},
        "rounded": {"duration": 2.9},
        "too long": {"duration": 3.2},
        "shorter": {"duration": 1.5},
        "null": {"duration": 1.5, "offset": None},
        "part": {"duration": 1.5, "offset": 0.0},
        "later part": {"duration": 1.5, "offset": 1.0},
    }
    reported = {}
    for name, fields in rows.items():
        (read,) = of_type(events_of(recognizer(), clip(path, **fields)), ClipRead)
        reported[name] = read.shorter_than_file
    assert {name for name, shorter in reported.items() if shorter} == {"shorter", "null"}
    assert model  # which reads what the row states
