"""The records of a finished folder become again what the run had: any row, any result."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_asr.outputs.row_index import IndexedRow, RowIndex
from beam_asr.outputs.stored_records import StoredFields, StoredShard, _Reader, read_shard
from beam_asr.records.record import Failure, FilteredRow, Transcript
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage
from beam_asr.transcripts.job_fields import job_fields

INDEXED = IndexedRow("0" * 24 + ".0", "", "", "1.5")
NAMES = "a pred_text text wer words error filtered replaced duration exports no_speech z".split()
VALUES = st.sampled_from([None, 1, 0.5, "text", {"a": 1}, [], True])
OWN = st.lists(st.sampled_from(NAMES), unique=True).flatmap(
    lambda names: st.fixed_dictionaries(dict.fromkeys(names, VALUES))
)
SCORES = {"wer": 0.5, "cer": 0.1, "substitutions": 1, "deletions": 0, "insertions": 0}
WHY = {"by": "keep", "expression": "wer < 0", "values": {"wer": 0.5}}


def through(kind: str, element: Transcript | Failure | FilteredRow):
    """What is read of the line of a record."""
    record = json.loads(json.dumps(element.record()))
    # The run has written scores and words, and no other fields were requested.
    rest = job_fields() - {*SCORES, "words", "exports", "no_speech", "replaced", "recognized_text"}
    return _Reader(StoredFields(not_requested=rest, reference="text")).envelope(
        kind, record, INDEXED
    )


def without_nulls(record: dict) -> dict:
    return {name: value for name, value in record.items() if value is not None}


@given(own=OWN, duration=st.booleans())
def test_a_transcript_has_the_same_record_again_and_the_rows_fields_are_its_own(own, duration):
    result: dict = {"pred_text": "recognized", "words": []}
    result |= {"duration": 1.5} if duration and own.get("duration") is None else {}
    element = Transcript(Row.of(own, "m"), result, 1.5)
    scored = SCORES if isinstance(own.get("text"), str) else {}
    exported = {**scored, "exports": {"srt": "x"}}
    for kind, stored in (
        ("transcripts", element.adding(exported)),
        ("filtered", FilteredRow(element.row, {**result, **scored}, WHY, 1.5)),
    ):
        read = through(kind, stored)
        assert isinstance(read, Transcript)
        assert (read.seconds, read.row.id) == (1.5, INDEXED.row_id)
        # Scored again, it is the record of a run that scored once.
        again, once = read.adding(exported).record(), element.adding(exported).record()
        assert without_nulls(again) == without_nulls(once)
        if "pred_text" not in own:  # else a null may stand at another place, or be gone
            assert json.dumps(again) == json.dumps(once)


@given(own=OWN)
def test_failures_and_refused_rows_have_the_same_record_again(own):
    row = Row.of(own, "m")
    replaced = {"replaced": own["error"]} if "error" in own else {}
    error = {"stage": "audio", "type": "E", "message": "m", "attempts": 1, **replaced}
    refused = FilteredRow(row, {}, {"by": "audio", "type": "E", "message": "m"})
    for kind, element in (("failures", Failure(row, error)), ("filtered", refused)):
        read = through(kind, element)
        assert type(read) is type(element)
        assert json.dumps(read.record()) == json.dumps(element.record())


def test_a_line_without_fields_stays_what_it_is():
    row = Row("no JSON", "m", 3, "no JSON at all")
    error = {"stage": "manifest", "type": "NotJsonError", "message": "m", "attempts": 1}
    element = Failure(row, error)
    assert through("failures", element).record() == element.record()


def test_steps_on_texts_begin_again_from_what_the_model_gave():
    element = Transcript(Row.of({"a": 1}), {"pred_text": "NEW", "recognized_text": "old"}, 1.0)
    assert through("transcripts", element).result == {"pred_text": "old"}


def test_what_the_run_did_not_add_is_the_rows_own():
    fields = StoredFields(not_requested=frozenset(["wer", "exports"]))
    record = {"pred_text": "x", "wer": 3, "exports": 1}  # as of a row with pred_text: null
    read = _Reader(fields).envelope("transcripts", record, INDEXED)
    assert read.row.fields == {"pred_text": None, "wer": 3, "exports": 1}
    assert read.record() == record


@pytest.mark.parametrize("change", [lambda lines: lines[:1], lambda lines: [*lines, lines[0]]])
def test_a_shard_of_more_or_fewer_lines_is_refused(change, tmp_path):
    name, lines = "failures-00000-of-00001.jsonl", [b'{"a": 1, "error": {}}\n'] * 2
    index = RowIndex(str(tmp_path), Storage())
    index.write_rows(name, [IndexedRow.of("x.0", line, "E") for line in lines])
    (tmp_path / name).write_bytes(b"".join(change(lines)))
    with pytest.raises(ValueError, match="not as its run has written it"):
        list(read_shard(Storage(), str(tmp_path), StoredShard(0, name), StoredFields()))
