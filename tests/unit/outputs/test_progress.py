"""How far a run is: what its workers store, summed, and how long it will still take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from beam_asr.outputs import progress
from beam_asr.outputs.journal import Journal
from beam_asr.outputs.progress import Counts, Progress, Reporter
from beam_asr.records.events import (
    Done,
    Failed,
    Filtered,
    FoundInFolder,
    RowSplit,
    SegmentDone,
    Silent,
)
from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row
from beam_asr.records.work import SegmentRef
from beam_asr.storage.storage import Storage

ROW, OUTCOME = Row.of({"audio_filepath": "a.wav"}), Outcome("a.0")
MODEL = {"model": "m.nemo", "class": "EncDecCTCModel", "device": "cpu", "precision": "float32"}
STARTED = 1_000.0


def progress_of(rows: int | None, counts: Counts, started: float | None = STARTED) -> Progress:
    return Progress(has_started=True, rows=rows, counts=counts, models=(MODEL,), started=started)


@pytest.fixture
def journal(tmp_path) -> Journal:
    run = Journal(str(tmp_path / "out")).for_run("run1", {"model_name": "m.nemo"})
    run.begin({"rows": 10, "rows_digest": "0", "rows_invalid": 1, "tars": 0})
    return run


def read(journal: Journal) -> Progress:
    return Progress.read(Storage(), journal.output)


def test_what_all_workers_have_done_is_summed(journal):
    before = read(journal)
    assert (before.phase, before.rows, before.rows_ended) == (progress.LOADING, 10, 1)
    for worker in (Reporter(journal), Reporter(journal)):
        worker.model_loaded(MODEL)
        for event in (
            Done(ROW, OUTCOME),
            Done(ROW, OUTCOME, resumed=True),
            Failed(ROW, OUTCOME),
            Filtered(ROW, OUTCOME),
            Silent(2.0, True),
        ):
            worker.add(event)
        worker.merge(Counts(audio_seconds=10.0, model_seconds=3.0, wait_seconds=1.0))
        worker.flush()
    after = read(journal)
    assert (after.phase, after.rows_ended, after.failed) == (progress.TRANSCRIBING, 9, 3)
    assert after.counts.earlier == 2
    assert after.counts.audio_seconds == 24.0
    assert after.wait_share == 0.25
    assert after.models == (MODEL,)


def test_rows_that_the_folder_has_already_are_done(journal):
    worker = Reporter(journal)
    for _ in range(9):
        worker.add(FoundInFolder())
    worker.flush()
    state = read(journal)
    assert (state.phase, state.counts.earlier) == (progress.WRITING, 9)
    assert state.seconds_left(STARTED) is None


def test_what_another_run_has_left_does_not_count(journal):
    worker = Reporter(journal)
    worker.add(Done(ROW, OUTCOME))
    worker.flush()
    later = Journal(journal.output, resume=True).for_run("run2", {"model_name": "m.nemo"})
    late = Reporter(journal)  # of the run that was replaced, and does not know it yet
    later.begin({"rows": 10, "rows_digest": "0"})
    late.add(Done(ROW, OUTCOME))
    late.flush()
    assert read(later).rows_ended == 0


def test_a_file_that_is_half_written_counts_once(journal):
    worker = Reporter(journal)
    worker.add(Done(ROW, OUTCOME))
    worker.flush()
    (file,) = Path(journal.folder, "progress").iterdir()
    shutil.copy(file, file.with_name(f"{file.name}.{'0' * 32}.part"))
    assert read(journal).counts.rows == 1


def test_a_worker_that_cannot_store_its_progress_goes_on(journal, monkeypatch):
    def refuse(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Storage, "write", refuse)
    worker = Reporter(journal)
    worker.add(Done(ROW, OUTCOME))
    worker.flush()
    assert read(journal).rows_ended == 1  # the invalid one


def test_a_worker_writes_rarely(journal, monkeypatch):
    written = []
    monkeypatch.setattr(Journal, "write_progress", lambda _, *content: written.append(content))
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    worker = Reporter(journal)
    for _ in range(1000):
        worker.add(Done(ROW, OUTCOME))
    assert len(written) == 1
    worker.flush()
    assert json.loads(written[-1][1])["rows"] == 1000
    worker.flush()
    assert len(written) == 2  # nothing has changed since


def test_without_a_run_the_inputs_are_being_read(tmp_path):
    assert Progress.read(Storage(), str(tmp_path)).phase == progress.READING


def test_rows_in_tars_are_not_known_before_they_are_read(tmp_path):
    journal = Journal(str(tmp_path / "out")).for_run("run1", {})
    journal.begin({"rows": 0, "rows_digest": "0", "rows_invalid": 0, "tars": 3})
    worker = Reporter(journal)
    worker.model_loaded(MODEL)
    worker.add(Done(ROW, OUTCOME))
    worker.flush()
    state = read(journal)
    assert (state.phase, state.records, state.fraction) == (progress.TRANSCRIBING, None, None)
    assert state.seconds_left(STARTED + 9) is None


def test_a_long_row_counts_by_its_segments():
    counts = Counts(rows=3, long_rows=1, segments=10)
    assert progress_of(4, counts).fraction == pytest.approx(3 / 13)
    for _ in range(5):
        counts.add(SegmentDone(SegmentRef("a.0", 0, "a.0"), OUTCOME))
    state = progress_of(4, counts)
    assert (state.phase, state.fraction) == (progress.TRANSCRIBING, pytest.approx(8 / 13))
    counts.segments_ended = 10
    assert progress_of(4, counts).phase == progress.STITCHING
    counts.long_rows_ended, counts.rows = 1, 4
    assert (progress_of(4, counts).phase, progress_of(4, counts).fraction) == (progress.WRITING, 1)


def test_a_row_may_end_as_a_record_for_each_channel():
    counts = Counts()
    counts.add(RowSplit(2))
    counts.add(Done(ROW, OUTCOME))
    assert progress_of(1, counts).phase == progress.TRANSCRIBING
    counts.add(Done(ROW, OUTCOME))
    assert progress_of(1, counts).phase == progress.WRITING


@pytest.mark.parametrize("earlier", [0, 2000])
@pytest.mark.parametrize("seed", range(3))
def test_from_a_third_on_the_time_that_is_left_is_right_within_a_fifth(seed, earlier):
    """Rows come in random order, by the groups of their ids, and are batched as they come."""
    rng = np.random.default_rng(seed)
    durations = np.clip(rng.lognormal(1.5, 0.8, 3000), 0.5, 40.0)
    batches = np.array_split(durations, 3000 // 16)
    ends = STARTED + np.cumsum([0.05 + batch.sum() / 200 for batch in batches])
    counts = Counts(rows=earlier, earlier=earlier)
    looked = 0
    for batch, now in zip(batches, ends, strict=True):
        counts.rows += len(batch)
        counts.audio_seconds += batch.sum()
        state = progress_of(3000 + earlier, counts)
        if counts.rows - earlier >= 1000 and counts.rows < 3000 + earlier:
            left = ends[-1] - now
            slack = 16 * 40 / 200  # the last batch
            assert state.seconds_left(now) == pytest.approx(left, rel=0.2, abs=slack)
            looked += 1
    assert looked > 100


def test_the_speed_is_that_since_the_first_model_was_loaded():
    state = progress_of(10, Counts(rows=1, audio_seconds=500.0))
    assert state.rtfx(STARTED + 10) == 50.0
    assert progress_of(10, Counts(), started=None).rtfx(STARTED) is None
