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
from beam_asr.outputs.journal import Journal, JournalWriter, chunk_name, lock_in
from beam_asr.records import row_ids
from beam_asr.records.outcome import Outcome
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join

IDENTITY = {"model_name": "m.nemo", "model_content": "aa", "decoder": None}


@pytest.fixture
def kept(tmp_path) -> Journal:
    return Journal(str(tmp_path / "out"), Storage())


def text(row_id: str) -> Outcome:
    return Outcome(row_id, {"text": f"said in {row_id} \ud800", "seconds": 1.5}, seconds=1.5)


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


def begin(kept: Journal, run: str, identity: dict = IDENTITY, rows: int = 3) -> Journal:
    """The journal of a run that has started."""
    own = kept.for_run(run, identity)
    own.begin({"rows": rows})
    return own


def test_a_run_goes_on_with_its_like_alone(kept):
    begin(kept, "first").write([text("a.0")])
    again = Journal(kept.output, kept.storage, resume=True)
    again.check({key: IDENTITY[key] for key in ("model_name", "decoder")})
    own = begin(again, "second")
    assert own.read_chunk(["a.0"]) == [text("a.0")]
    for changed in ({"model_name": "n.nemo"}, {"decoder": "ctc"}):
        ((key, value),) = changed.items()
        with pytest.raises(ResumeError) as reported:
            begin(again, "third", {**IDENTITY, **changed})
        assert f"{key.replace('_', ' ')} was {IDENTITY[key]!r} and is {value!r}" in str(
            reported.value
        )
        assert "`overwrite`" in str(reported.value)
    # What could not be found out does not differ.
    unknown = begin(again, "fourth", {**IDENTITY, "model_content": None})
    assert unknown.read_chunk(["a.0"]) == [text("a.0")]
    # Other rows are no other run: what is done of them is known by their content.
    assert begin(again, "fifth", rows=4).read_chunk(["a.0"]) == [text("a.0")]


def test_a_new_run_leaves_nothing_of_an_earlier_one_but_its_own_when_tried_again(kept):
    begin(kept, "first").write([text("a.0")])
    assert len(begin(kept, "first").names()) == 1
    assert begin(kept, "second").names() == []


def test_a_journal_of_an_unknown_run_is_refused(kept, tmp_path):
    begin(kept, "first")
    (tmp_path / "out" / "_journal" / "run.json").write_text("{")
    with pytest.raises(ResumeError, match=r"run\.json"):
        Journal(kept.output, kept.storage, resume=True).check(IDENTITY)


def test_the_journal_goes_with_the_end_of_the_job(kept, tmp_path):
    begin(kept, "first").write([text("a.0")])
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


def test_what_another_identity_has_left_behind_is_not_used(kept, caplog):
    other = kept.for_run("other", {**IDENTITY, "model_name": "n.nemo"})
    other.write([text("a.0")])  # without a run.json, as of a run that was ended there
    own = begin(Journal(kept.output, kept.storage, resume=True), "own")
    with caplog.at_level(logging.WARNING, logger="beam_asr.outputs.journal"):
        assert [each for name in own.names() for each in own.read(name)] == []
    assert "not of this model" in caplog.text


def test_a_run_reads_the_files_of_those_that_it_resumes(kept):
    again = Journal(kept.output, kept.storage, resume=True)
    begin(kept, "first").write([text("a.0")])
    begin(again, "second").write([text("b.0")])
    third = begin(again, "third")
    assert third.earlier_runs == ("second", "first")
    assert third.read_chunk(["a.0"]) == [text("a.0")]
    assert third.read_chunk(["b.0"]) == [text("b.0")]


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "E"},
        {"error": {}},
        {"error": "text"},
        {"recognition": "text", "seconds": 1.0},
        {"recognition": {"text": None, "seconds": 1.0}, "seconds": 1.0},
        {"recognition": {"text": "a", "seconds": "1"}, "seconds": 1.0},
        {"recognition": {"text": "a", "seconds": 1.0}, "seconds": None},
        {"recognition": {"plans": []}},
        {"channels": []},
        {"channels": 3},
        {"channels": [{}]},
        {"id": 3, "recognition": {"text": "a", "seconds": 1.0}, "seconds": 1.0},
    ],
)
def test_a_line_of_another_shape_is_damaged(kept, tmp_path, fields):
    kept.write([text("a.0"), text("b.0")])
    (name,) = kept.names()
    path = tmp_path / "out" / "_journal" / "windows" / name
    seal, first, _ = path.read_text().splitlines()
    path.write_text("\n".join([seal, first, json.dumps({"id": "b.0", **fields}), ""]))
    assert kept.read(name) == [text("a.0")]


def taken(kept: Journal) -> tuple[Journal, Journal]:
    """The journals of a run that was suspended, and of one that took the folder with the rest."""
    first = dataclasses.replace(kept, lock=FolderLock.take(kept.storage, lock_in(kept.output)))
    first = begin(first, first.lock.run)
    first.lock.release()  # as a run on another machine does that finds it without a heartbeat
    lock = FolderLock.take(kept.storage, lock_in(kept.output))
    return first, begin(dataclasses.replace(kept, lock=lock), lock.run, {"model_name": "n.nemo"})


def test_a_run_that_lost_the_folder_writes_nothing_into_it(kept):
    first, second = taken(kept)
    with pytest.raises(FolderTakenError, match="another run has taken the folder"):
        first.write([text("a.0")])
    second.write([text("b.0")])
    assert second.names() == [chunk_name(["b.0"], second.run)]


def test_a_run_that_wakes_after_its_successor_has_ended_stops(kept):
    first, second = taken(kept)
    summary = {"run": second.run}
    second.lock.release()
    with pytest.raises(FolderTakenError, match="has ended since"):
        first.check_owner()  # by the journal, which the other run has left unfinished
    second.remove()
    kept.storage.write(join(kept.output, "summary.json"), [json.dumps(summary).encode()])
    with pytest.raises(FolderTakenError, match="has ended since"):
        first.write([text("a.0")])
    assert kept.names() == []
    second.check_owner()  # a last step that is tried again is no other run


def test_a_run_whose_lock_somebody_deletes_goes_on(kept):
    lock = FolderLock.take(kept.storage, lock_in(kept.output))
    own = begin(dataclasses.replace(kept, lock=lock), lock.run)
    lock.release()
    own.write([text("a.0")])
    assert own.read_chunk(["a.0"]) == [text("a.0")]
