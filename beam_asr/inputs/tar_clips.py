"""The clips of a tar with their files' contents, and what of it cannot be read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from beam_asr.errors import BadRecordError, ManifestError, MissingMemberError
from beam_asr.inputs import nemo_tarred, webdataset
from beam_asr.records import row_ids
from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row
from beam_asr.records.statistics import Statistics
from beam_asr.records.work import Clip, NemoTar, WebDatasetTar
from beam_asr.storage.storage import Storage

DONE = -1  # in place of an index of the clips that are left


class Unread(NamedTuple):
    """A row of a tar that has no content: the stage in which it failed, and why."""

    row: Row
    stage: str
    error: Exception


@dataclasses.dataclass
class TarReader:
    """Reads tars, each once, as a stream.

    Attributes:
        storage: of the tars.
        filepath_key: the field that names the audio.
        route_of: the number of the model that takes a sample of a WebDataset, by its fields; it
            raises ManifestError where none does. None has a single model take all.
        unread: the rows that could not be read, so far.
        done: the rows that an earlier run had done, so far.
        statistics: the rows that were found, and the members that have none, so far.
    """

    storage: Storage
    filepath_key: str
    route_of: Callable[[dict[str, Any]], int] | None = None
    unread: list[Unread] = dataclasses.field(default_factory=list)
    done: list[tuple[Row, Outcome]] = dataclasses.field(default_factory=list)
    statistics: Statistics = dataclasses.field(default_factory=Statistics)

    def contents(self, tar: WebDatasetTar | NemoTar) -> Iterator[tuple[Clip, bytes]]:
        """The clips of a tar, in its order; each row is given once, here or in ``unread``."""
        return self._of_shard(tar) if isinstance(tar, NemoTar) else self._of_samples(tar)

    def _of_shard(self, shard: NemoTar) -> Iterator[tuple[Clip, bytes]]:
        if not shard.clips:
            self.statistics.tars_without_rows += not shard.done
            return
        left = dict(enumerate(shard.clips))
        try:
            with self.storage.open(shard.tar) as file:
                named = [(clip.audio, index) for index, clip in left.items()]
                named += [(name, DONE) for name in shard.done]
                for event in nemo_tarred.nemo_members(file, shard.tar, named):
                    if isinstance(event, nemo_tarred.Member):
                        for index in filter(DONE.__ne__, event.rows):
                            clip = left.pop(index)._replace(audio=f"{shard.tar}: {event.name}")
                            yield clip, event.content
                    elif isinstance(event, nemo_tarred.MemberWithoutRow):
                        self.statistics.add_member_without_row(f"{shard.tar}: {event.name}")
                    else:
                        for index in filter(DONE.__ne__, event.rows):
                            clip = left.pop(index)
                            missing = MissingMemberError(
                                f"{clip.audio!r} names no member of its tar {shard.tar}, or fits "
                                "several; correct the row, or make the tar again"
                            )
                            self.unread.append(Unread(clip.row, "audio", event.cause or missing))
        except Exception as error:  # of the storage: it costs what has not been read
            self.unread += [Unread(clip.row, "audio", error) for clip in left.values()]

    def _of_samples(self, tar: WebDatasetTar) -> Iterator[tuple[Clip, bytes]]:
        seen: Counter[str] = Counter()
        try:
            with self.storage.open(tar.file) as file:
                for sample in webdataset.webdataset_samples(file, tar.file):
                    # By this name the sample can be read alone, as a failure that comes in again.
                    name = sample.audio_name or sample.key
                    place, problem = f"{tar.file}: {name}", sample.problem
                    try:
                        uri = webdataset.member_uri(tar.file, name)
                    except BadRecordError as error:
                        uri, problem = place, problem or error
                    fields = {self.filepath_key: uri, **sample.fields}
                    try:
                        if self._route(fields) != tar.route:
                            continue
                    except ManifestError as error:
                        if tar.route:  # the first one tells of it
                            continue
                        problem = problem or error
                    self.statistics.rows_in += 1
                    row = Row.of(fields)
                    if tar.id:
                        group = row_ids.group_of_text(tar.id, row.line)
                        row = row._replace(id=f"{tar.id}.{row_ids.id_of(group, seen[group])}")
                        seen[group] += 1
                    if row.id in tar.done:
                        self.done.append((row, tar.done[row.id]))
                    elif sample.content is None or problem:
                        problem = problem or MissingMemberError("the sample has no audio")
                        self.unread.append(Unread(row, "manifest", problem))
                    else:
                        # An offset in the sample's fields is one in what it was cut from.
                        yield Clip(row, place, 0.0, None, route=tar.route), sample.content
        except Exception as error:  # how many samples are lost with it nobody can tell
            self.statistics.rows_in += 1
            self.unread.append(Unread(Row.of({self.filepath_key: tar.file}), "audio", error))

    def _route(self, fields: dict[str, Any]) -> int:
        """Raises ManifestError if no model takes such a sample."""
        return 0 if self.route_of is None else self.route_of(fields)
