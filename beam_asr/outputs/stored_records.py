"""Makes the transcripts, failures and filtered rows of a finished folder again what a run had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from beam_asr.errors import ResumeError, SetupError
from beam_asr.inputs.compression import open_decompressed
from beam_asr.outputs.row_index import IndexedRow, RowIndex
from beam_asr.outputs.shards import FAILURES, FILTERED, SHARD
from beam_asr.records import json_numbers
from beam_asr.records.fields import is_integer
from beam_asr.records.record import Envelope, Failure, FilteredRow, Record, Transcript
from beam_asr.records.row import REPLACED, Row
from beam_asr.settings import METRICS
from beam_asr.storage import uris
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import join
from beam_asr.transcripts import scoring
from beam_asr.transcripts.job_fields import SCORES, job_fields, setting_of
from beam_asr.transcripts.post_processing import RECOGNIZED_TEXT
from beam_asr.transcripts.quality import SIGNALS

ERROR = "error"
WHY = "filtered"
# Of the result, those that are measured or taken of the audio, where the row has none itself.
OF_AUDIO = frozenset(["duration", "channel", "type"])
# What is made of a transcript's text: it is made again.
OF_SCORE = frozenset([*SCORES, *METRICS])
_MADE_OF_TEXT = OF_SCORE | {"exports"}


class StoredFields(NamedTuple):
    """Tells the fields that a run has added to its rows.

    Attributes:
        text: the field of the text.
        not_requested: fields of the job that the run did not add: they are the rows' own.
        reference: the field of the reference, by which the run has scored; None if it has not.
        channel: the field of the channel.
        manifest: path or URI of the manifest of all rows; empty if there are several.
        several_models: whether records name their model.
        audio: the field of the audio, which must say where that is whatever its manifest; empty if
            nobody asks.
        tar: likewise, of the number of the row's tar.
    """

    text: str = "pred_text"
    not_requested: frozenset[str] = frozenset()
    reference: str | None = None
    channel: str = "channel"
    manifest: str = ""
    several_models: bool = False
    audio: str = ""
    tar: str = ""

    @property
    def added(self) -> frozenset[str]:
        """Returns the names of fields that may be the job's in a transcript."""
        names = job_fields() - self.not_requested - {REPLACED}
        return frozenset([*names, *OF_AUDIO, self.channel, WHY])

    @property
    def certain(self) -> frozenset[str]:
        """Returns the names of fields that each transcript has of the job, but for scores."""
        requested = (name for name in job_fields() if setting_of(name) is not None)
        return frozenset(requested) - self.not_requested - OF_SCORE


class StoredShard(NamedTuple):
    """Names a shard of a finished folder.

    Attributes:
        part: the number of the run that has written it.
        name: relative to the folder.
    """

    part: int
    name: str


def shards_of(storage: Storage, folder: str) -> list[StoredShard]:
    """Returns the shards of a finished folder.

    Raises:
        ResumeError: somebody has deleted some of them, or of their index.
    """
    index = RowIndex(folder, storage)
    index = RowIndex(folder, storage, index.next_part())
    index.check()
    return [StoredShard(*file) for file in index.row_files()]


def read_shard(
    storage: Storage, folder: str, shard: StoredShard, fields: StoredFields
) -> Iterator[Envelope]:
    """Yields the records of a shard, with the ids of their rows.

    A transcript that a condition has filtered out is a transcript again. Scores, signals and names
    of exported files are left out, and a text to which steps were applied is as it was recognized.

    Raises:
        ResumeError: the shard is not as the run has written it.
    """
    found = SHARD.fullmatch(shard.name)
    assert found is not None
    kind, reader = found[1], _Reader(fields)
    rows = RowIndex(folder, storage).rows(shard.part, shard.name)
    with open_decompressed(storage, join(folder, shard.name)) as content:
        for line in content:
            row = next(rows, None)
            if row is None or IndexedRow.of("", line, "").line != row.line:
                break
            yield reader.envelope(kind, json_numbers.loads(line), row)
        else:
            if next(rows, None) is None:
                return
    raise ResumeError(
        f"{join(folder, shard.name)!r} is not as its run has written it, by the index of "
        f"{folder!r}: restore it, or transcribe again with `overwrite`"
    )


class _Reader:
    def __init__(self, fields: StoredFields):
        self._text, self._manifest = fields.text, fields.manifest
        self._several_models = fields.several_models
        self._audio, self._tar = fields.audio, fields.tar
        self._added = fields.added
        self._certain = fields.certain
        self._exports = frozenset(["exports"]) - fields.not_requested
        self._of_score = OF_SCORE - fields.not_requested
        self._reference = fields.reference
        self._made_of_text = (_MADE_OF_TEXT | frozenset(SIGNALS)) & self._added

    def envelope(self, kind: str, record: Record, indexed: IndexedRow) -> Envelope:
        if kind == FAILURES:
            return self._failure(record, indexed)
        if kind == FILTERED and record[WHY].get("by") != "keep":
            own, result = split(record, frozenset(), WHY)
            return FilteredRow(self._row(own, indexed), {}, result[WHY], _seconds(indexed))
        # Only transcripts are exported.
        added = self._added - ({"exports"} if kind == FILTERED else {WHY})
        certain = self._certain | ({WHY} if kind == FILTERED else self._exports)
        if self._is_scored(record):
            certain |= self._of_score
        else:
            added -= self._of_score
        own, result = split(record, added, self._text, certain)
        result = {key: value for key, value in result.items() if key not in self._made_of_text}
        result.pop(WHY, None)
        if RECOGNIZED_TEXT in result:
            result[self._text] = result.pop(RECOGNIZED_TEXT)
        seconds = _seconds(indexed)
        if seconds is None:
            seconds = float(record.get("duration") or 0.0)
        return Transcript(self._row(own, indexed), result, seconds)

    def _is_scored(self, record: Record) -> bool:
        """Returns whether the run has scored a row: it has not without a reference."""
        if self._reference is None:
            return False
        return isinstance(scoring.reference_of(record, self._reference), str)

    def _failure(self, record: Record, indexed: IndexedRow) -> Failure:
        names = ["model"] if self._several_models else []
        own, result = split(record, frozenset(names), ERROR)
        error = dict(result[ERROR])
        if REPLACED in error:  # what the row itself has by this name, at this place
            own[ERROR] = error[REPLACED]
        else:
            own.pop(ERROR, None)
        return Failure(self._row(own, indexed), error, result.get("model"))

    def _row(self, own: Record, indexed: IndexedRow) -> Row:
        if self._audio and not is_placed(own.get(self._audio)):
            self._refuse(self._audio, own)
        if self._tar and not is_integer(own.get(self._tar)):
            self._refuse(self._tar, own)
        return Row.parsed(own, indexed.row_id, self._manifest)

    def _refuse(self, key: str, own: Record) -> None:
        raise SetupError(
            f"a row with {key!r} {own.get(key)!r} says what it is by the place of its manifest, of "
            "which the folder has several: leave out the format that needs it, or transcribe again "
            "with it"
        )


def is_placed(audio: Any) -> bool:
    """Returns whether audio is found whatever the folder of its manifest."""
    if not isinstance(audio, str):
        return True  # a cut, or none at all
    return uris.has_scheme(audio) or audio.startswith(("/", "~/", "data:"))


def _seconds(indexed: IndexedRow) -> float | None:
    return float(indexed.seconds) if indexed.seconds else None


def split(
    record: Mapping[str, Any],
    added: frozenset[str],
    first: str,
    certain: frozenset[str] = frozenset(),
) -> tuple[Record, Record]:
    """Returns the fields of the row itself, and those that the job has added (`with_added`).

    The job's fields come after the row's, and ``first`` before its others: a field before it is the
    row's, unless ``replaced`` has what the row has by that name. (If the row has ``first`` itself,
    a null of its own under another name of the job's may be moved behind, or be left out.)

    Args:
        added: names of fields that may be the job's.
        first: the field that the job adds always, and first of all.
        certain: of the names, those of fields that are the job's in any case: what stands before
            ``first`` was null in the row.
    """
    replaced = _replaced(record, {*added, first, REPLACED})
    own: Record = {}
    result: Record = {}
    started = False
    for key, value in record.items():
        if key == REPLACED and replaced is not None:
            if REPLACED in replaced:
                own[key] = replaced[REPLACED]
            continue
        started = started or key == first
        if replaced and key in replaced:
            own[key], result[key] = replaced[key], value
        elif key == first or (key in certain and not started):
            own[key], result[key] = None, value  # it keeps the place, if that is among the row's
        elif started and key in added:
            result[key] = value
        else:
            own[key] = value
    if own and next(reversed(own)) == first and first in own and own[first] is None:
        del own[first]
    return own, result


def _replaced(record: Mapping[str, Any], names: set[str]) -> dict[str, Any] | None:
    """Returns what the job has replaced of the row; None if ``replaced`` is missing, or the row's.

    The job adds it last, if the row has none; if it has one, that is within it.
    """
    value = record.get(REPLACED)
    if not isinstance(value, dict) or not value:
        return None
    last = next(reversed(list(record))) == REPLACED
    if (last or REPLACED in value) and value.keys() <= names & record.keys():
        return value
    return None
