"""Reading runs ahead of the model, and within bounds."""

from __future__ import annotations

import shutil
import threading

import apache_beam as beam
import numpy as np
import pytest
import soundfile
import torch

from beam_asr import Transcribe, WriteManifest
from beam_asr.audio import clip_reader, reading
from beam_asr.audio.clip_reader import ClipReader
from beam_asr.models import engine
from beam_asr.models.serving import batcher, pool
from beam_asr.models.serving import host as model_host
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage.storage import Storage
from tests.support.job_files import read_records
from tests.support.tiny_models import speechlike

RATE = 16_000


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for index in range(12):
        soundfile.write(folder / f"{index:02d}.wav", speechlike(0.9, seed=index), RATE)
    return folder


def test_the_next_window_is_read_while_the_model_works_on_one(
    tiny_model, clips, monkeypatch, tmp_path
):
    model = tiny_model("ctc_bpe")
    monkeypatch.setattr(batcher, "FIRST_SECONDS", 2)
    monkeypatch.setattr(batcher, "MAX_SECONDS", 2)
    host = pool.host(engine.ModelSpec(str(model), "auto"))
    forward, read = type(host._model).encode, reading.read_audio
    reads = [0]
    read_on = threading.Event()
    met = []

    def counted(*args, **rest):
        reads[0] += 1
        if reads[0] > 2:
            read_on.set()
        return read(*args, **rest)

    def waits(self, waveforms, *prompt):
        met.append(read_on.wait(30))
        return forward(self, waveforms, *prompt)

    monkeypatch.setattr(reading, "read_audio", counted)
    monkeypatch.setattr(type(host._model), "encode", waits)
    rows = [{"audio_filepath": str(path), "duration": 0.9} for path in sorted(clips.iterdir())]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        alone = Transcribe(str(model), max_concurrent_reads=1, max_batch_seconds=0.5)
        recognized = pipeline | beam.Create(rows) | alone
        recognized | WriteManifest(str(tmp_path / "out"))
    assert len(met) >= 6
    assert all(met), "the model had to end a window before the next one was read"
    assert len(read_records(tmp_path / "out", "transcripts")) == 12


class Counter:
    """Counts the reads that have started."""

    def __init__(self, monkeypatch, seconds: float):
        self.started = 0
        self.samples = np.ones(int(seconds), np.float32)
        monkeypatch.setattr(reading, "read_audio", self.read)

    def read(self, *_, **__):
        self.started += 1
        return self.samples


def started_before_anything_is_taken(counter, durations, concurrency):
    taken = []
    clips = []

    def given():
        for number, duration in enumerate(durations):
            clips.append(number)
            yield Clip(Row("{}"), f"{number}.wav", 0.0, duration)

    reader = ClipReader(Storage(), None, 30.0, concurrency)
    for recognized in reader.read(given(), 1):
        if not taken:
            ahead = len(clips)
        taken.append(recognized.clip.audio)
    assert taken == [f"{number}.wav" for number in range(len(durations))]
    assert counter.started == len(durations)
    return ahead


def test_what_is_read_ahead_is_bounded_by_number(monkeypatch):
    counter = Counter(monkeypatch, 1.0)
    assert started_before_anything_is_taken(counter, [1.0] * 100, concurrency=4) == 8 + 1


def test_what_is_read_ahead_is_bounded_by_seconds(monkeypatch):
    counter = Counter(monkeypatch, 400.0)
    assert clip_reader.AHEAD_SECONDS == 1200
    assert started_before_anything_is_taken(counter, [400.0] * 20, concurrency=8) == 3 + 1


def test_hours_that_no_row_states_are_taken_for_granted_only_once(monkeypatch):
    """Clips without a duration: after the first long one, no more are read ahead than fit."""
    counter = Counter(monkeypatch, 3600.0)
    reader = ClipReader(Storage(), None, 30.0, 4)
    clips = (Clip(Row("{}"), f"{n}.wav", 0.0, None) for n in range(40))
    recognized = reader.read(clips, 1)
    for _ in range(20):
        next(recognized)
    assert counter.started <= 20 + 1
    assert len(list(recognized)) == 20


def test_a_clip_longer_than_all_that_may_be_ahead_is_read_alone(monkeypatch):
    counter = Counter(monkeypatch, 5.0)
    assert started_before_anything_is_taken(counter, [9000.0] * 5, concurrency=4) == 1 + 1


def test_the_model_counts_as_waiting_only_for_what_comes_late(tiny_model):
    host = model_host.ModelHost(engine.ModelSpec(str(tiny_model("ctc_bpe")), "cpu"))
    clip = speechlike(1.0)
    first, second = host.submit([clip], 0.0), host.submit([clip], 0.0)
    assert first.result().idle_seconds > 0
    assert second.result().idle_seconds < first.result().seconds + second.result().seconds
    assert host.submit([clip]).result().idle_seconds == 0


@pytest.mark.parametrize(
    "out_of_memory",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        lambda: MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_what_was_too_much_for_the_memory_is_not_tried_again(
    tiny_model, clips, monkeypatch, tmp_path, out_of_memory
):
    model = shutil.copy(tiny_model("ctc_bpe"), tmp_path / "own.nemo")
    monkeypatch.setattr(batcher, "MAX_SECONDS", 10)
    monkeypatch.setattr(batcher, "FIRST_SECONDS", 10)
    host = pool.host(engine.ModelSpec(str(model), "auto"))
    forward = type(host._model).encode
    sizes = []

    def limited(self, waveforms, *prompt):
        sizes.append(len(waveforms))
        if len(waveforms) > 4:  # of a second each, as the model takes them
            raise out_of_memory()
        return forward(self, waveforms, *prompt)

    monkeypatch.setattr(type(host._model), "encode", limited)
    rows = [{"audio_filepath": str(path), "duration": 0.9} for path in sorted(clips.iterdir())] * 8
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        recognized = pipeline | beam.Create(rows) | Transcribe(str(model), max_batch_seconds=9)
        recognized | WriteManifest(str(tmp_path / "out"))
    assert len(read_records(tmp_path / "out", "transcripts")) == 96
    failed = [place for place, size in enumerate(sizes) if size > 4]
    assert 1 <= len(failed) <= 6  # those that were on their way already
    assert max(failed) < len(sizes) / 2
