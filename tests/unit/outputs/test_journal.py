"""What is done is kept: windows, whole or not at all, under names that their rows give."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest

from beam_asr import process
from beam_asr.errors import FolderTakenError, ResumeError
from beam_asr.outputs import journal
from beam_asr.outputs.folder_lock import FolderLock
from beam_asr.outputs.journal import Journal, JournalWriter, chunk_name
from beam_asr.records import row_ids
from beam_asr.records.outcome import Outcome
from beam_asr.storage.storage import Storage

IDENTITY = {"model_name": "m.nemo", "model_content": "aa", "decoder": None, "rows": 3}


@pytest.fixture
def kept(tmp_path) -> Journal:
    return Journal(str(tmp_path / "out"), Storage())


def text(row_id: str) -> Outcome:
    return Outcome(row_id, {"text": f"said in {row_id} \ud800"}, seconds=1.5)


def failure(row_id: str) -> Outcome:
    return Outcome(row_id, error={"stage": "audio", "type": "E", "message": "m", "attempts": 1})


def test_a_window_is_written_when_its_last_row_is_done_and_not_before(kept):
    writer = JournalWriter(kept)
    for row in ("a.0", "b.0"):
        writer.expect(row)
    writer.close_chunk()
    writer.expect("c.0")
    writer.add(failure("b.0"))
    writer.add(text("c.0"))  # of a window that is still open
    assert kept.names() == []
    writer.add(text("a.0"))
    writer.finish()
    assert sorted(kept.names()) == sorted([chunk_name(["b.0", "a.0"]), chunk_name(["c.0"])])
    assert sorted(kept.read(chunk_name(["a.0", "b.0"]))) == [text("a.0"), failure("b.0")]


def test_a_window_that_is_tried_again_replaces_itself(kept):
    for rows in (["a.0", "b.0"], ["b.0", "a.0"]):
        writer = JournalWriter(kept)
        for row in rows:
            writer.expect(row)
        for row in rows:
            writer.add(text(row))
        writer.finish()
    assert len(kept.names()) == 1


def test_what_is_done_of_unfinished_windows_is_kept_when_the_process_must_end(kept):
    writer = JournalWriter(kept)
    for row in ("a.0", "b.0"):
        writer.expect(row)
    writer.close_chunk()
    writer.expect("c.0")
    writer.add(text("a.0"))
    writer.add(text("c.0"))
    process.save_all()
    found = [each for name in kept.names() for each in kept.read(name)]
    assert sorted(found) == [text("a.0"), text("c.0")]


def test_a_window_that_cannot_be_written_fails_the_bundle(tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    writer = JournalWriter(Journal(str(tmp_path / "out"), Storage()))
    writer.expect("a.0")
    writer.add(text("a.0"))
    with pytest.raises(OSError, match="out"):
        writer.finish()


class Refusing(Storage):
    """A storage that takes no sign of life."""

    def write(self, *_):
        raise OSError("429 Too Many Requests")


def locked(kept: Journal, monkeypatch, storage: type[Storage] = Storage) -> Journal:
    """A journal whose workers give signs of life, as if none had been given yet."""
    monkeypatch.setattr(journal, "_last_heartbeat", float("-inf"))
    lock = FolderLock.take(kept.storage, journal.lock_in(kept.output))
    lock = dataclasses.replace(lock, storage=storage(kept.storage.options))
    return dataclasses.replace(kept, lock=lock, workers_renew=True)


def write_windows(of: Journal, *rows: str) -> None:
    writer = JournalWriter(of)
    for row in rows:
        writer.expect(row)
        writer.close_chunk()
        writer.add(text(row))
    writer.finish()


def beat_of(of: Journal) -> str:
    return json.loads(of.storage.read(of.lock.uri))["beat"]


def test_a_window_that_is_done_is_a_sign_of_life_but_not_each_of_many(kept, monkeypatch):
    kept = locked(kept, monkeypatch)
    first = beat_of(kept)
    write_windows(kept, "a.0")
    second = beat_of(kept)
    assert second > first
    write_windows(kept, "b.0", "c.0")
    assert beat_of(kept) == second
    monkeypatch.setattr(journal, "_last_heartbeat", float("-inf"))
    write_windows(kept, "d.0")
    assert beat_of(kept) > second


def test_where_the_launcher_stays_workers_give_no_sign(kept, monkeypatch):
    kept = dataclasses.replace(locked(kept, monkeypatch), workers_renew=False)
    first = beat_of(kept)
    write_windows(kept, "a.0")
    assert beat_of(kept) == first


def test_a_storage_that_refuses_a_sign_of_life_costs_no_window(kept, monkeypatch, caplog):
    kept = locked(kept, monkeypatch, Refusing)
    with caplog.at_level(logging.WARNING, logger="beam_asr.outputs.journal"):
        write_windows(kept, "a.0", "b.0")
    assert sorted(kept.names()) == sorted([chunk_name(["a.0"]), chunk_name(["b.0"])])
    said = [each.getMessage() for each in caplog.records if kept.lock.uri in each.getMessage()]
    assert [("429 Too Many Requests" in each) for each in said] == [True]


def test_a_worker_whose_run_has_lost_the_folder_stops(kept, monkeypatch):
    kept = locked(kept, monkeypatch)
    taken = json.loads(kept.storage.read(kept.lock.uri)) | {"run": "another"}
    kept.storage.write(kept.lock.uri, [json.dumps(taken).encode()])
    with pytest.raises(FolderTakenError, match="run another"):
        write_windows(kept, "a.0")


def test_damaged_lines_are_left_out(kept, tmp_path):
    kept.write([text("a.0"), text("b.0")])
    (name,) = kept.names()
    path = tmp_path / "out" / "_journal" / "windows" / name
    path.write_bytes(path.read_bytes()[:-9] + b"\n[]\nnull\n")
    assert kept.read(name) == [text("a.0")]
    assert kept.read("not there") == []


def test_a_run_goes_on_with_its_like_alone(kept):
    kept.begin(IDENTITY, "first")
    kept.write([text("a.0")])
    again = Journal(kept.output, kept.storage, resume=True)
    again.check({key: IDENTITY[key] for key in ("model_name", "decoder")})
    again.begin(IDENTITY, "second")
    assert len(again.names()) == 1
    for changed in ({"model_name": "n.nemo"}, {"decoder": "ctc"}, {"rows": 4}):
        ((key, value),) = changed.items()
        with pytest.raises(ResumeError) as told:
            again.begin({**IDENTITY, **changed}, "third")
        assert f"{key.replace('_', ' ')} was {IDENTITY[key]!r} and is {value!r}" in str(told.value)
        assert "`overwrite`" in str(told.value)
    # What could not be found out does not differ.
    again.check({**IDENTITY, "model_content": None})
    assert len(again.names()) == 1


def test_a_new_run_leaves_nothing_of_an_earlier_one_but_its_own_when_tried_again(kept):
    kept.begin(IDENTITY, "first")
    kept.write([text("a.0")])
    kept.begin(IDENTITY, "first")
    assert len(kept.names()) == 1
    kept.begin(IDENTITY, "second")
    assert kept.names() == []


def test_a_journal_whose_run_cannot_be_told_is_refused(kept, tmp_path):
    kept.begin(IDENTITY, "first")
    (tmp_path / "out" / "_journal" / "run.json").write_text("{")
    with pytest.raises(ResumeError, match=r"run\.json"):
        Journal(kept.output, kept.storage, resume=True).check(IDENTITY)


def test_the_journal_goes_with_the_end_of_the_job(kept, tmp_path):
    kept.begin(IDENTITY, "first")
    kept.write([text("a.0")])
    kept.remove()
    assert list((tmp_path / "out").iterdir()) == []


def test_rows_are_the_same_in_any_notation_and_order_and_equal_ones_are_in_one_group():
    row = {"audio_filepath": "a.wav", "offset": 1.5, "x": {"b": 1, "a": "é"}}
    other = json.loads('{"x": {"a": "\\u00e9", "b": 1}, "offset": 1.50, "audio_filepath": "a.wav"}')
    group = row_ids.group_of(row, "/m/a.wav")
    assert row_ids.group_of(other, "/m/a.wav") == group
    assert row_ids.group_of(row, "/n/a.wav") != group
    assert row_ids.group_of({**row, "offset": 1}, "/m/a.wav") != group
    assert row_ids.group_of({"t": "\ud800"}, "\udcff") != row_ids.group_of({"t": "?"}, "\udcff")
    assert row_ids.group_of_id(row_ids.id_of(group, 12)) == group
