"""Reads the clips of tars with their files' contents, and reports rows without any."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from beam_asr.errors import BadRecordError, ManifestError, MissingMemberError, ReplacedError
from beam_asr.inputs import nemo_tarred, webdataset
from beam_asr.records import row_ids
from beam_asr.records.channels import named_channel
from beam_asr.records.events import MemberWithoutRow, SampleFound, TarWithoutRows
from beam_asr.records.outcome import Outcome
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, NemoTar, WebDatasetTar
from beam_asr.storage.storage import Storage
from beam_asr.storage.versions import one_version


class TarClip(NamedTuple):
    """A clip in a tar, with the content of its file."""

    clip: Clip
    content: bytes


class UnreadRow(NamedTuple):
    """A row of a tar without content: the stage in which it failed, and the error."""

    row: Row
    stage: str
    error: Exception


class DoneRow(NamedTuple):
    """A row of a tar that an earlier run has processed.

    Attributes:
        outcome: of the row; None if the output folder has its record already.
    """

    row: Row
    outcome: Outcome | None


TarEvent = TarClip | UnreadRow | DoneRow | SampleFound | MemberWithoutRow | TarWithoutRows


@dataclasses.dataclass(frozen=True)
class TarReader:
    """Reads tars, each once, as a stream.

    Attributes:
        storage: of the tars.
        filepath_key: the field that names the audio.
        route_of: returns the number of the model for a sample of a WebDataset, by its fields;
            raises ManifestError if no model matches. None if there is a single model.
        channel_key: the field that names the channel.
    """

    storage: Storage
    filepath_key: str
    route_of: Callable[[Mapping[str, Any]], int] | None = None
    channel_key: str = "channel"

    def events(self, tar: WebDatasetTar | NemoTar) -> Iterator[TarEvent]:
        """Yields the clips, rows and members of a tar, in its order.

        Each row comes once: with its content, as done, or as unread. A ``SampleFound`` comes before
        each row of a WebDataset, whose rows are not known in advance.

        Raises:
            ReplacedError: the tar was replaced or changed; which of its rows were of which tar is
                not known.
        """
        return self._of_shard(tar) if isinstance(tar, NemoTar) else self._of_samples(tar)

    def _of_shard(self, shard: NemoTar) -> Iterator[TarEvent]:
        if not shard.clips:
            if not shard.done:
                yield TarWithoutRows()
            return
        remaining = dict(enumerate(shard.clips))
        named = [(clip.audio, index) for index, clip in remaining.items()]
        version = ""

        @contextmanager
        def open_tar() -> Iterator[BinaryIO]:
            nonlocal version
            with (
                self.storage.open(shard.tar) as file,
                one_version(file, shard.tar, version) as version,
            ):
                yield file

        try:
            members = nemo_tarred.nemo_members(open_tar, shard.tar, named, shard.done)
            for event in members:
                if isinstance(event, nemo_tarred.MemberWithoutRow):
                    yield MemberWithoutRow(f"{shard.tar}: {event.name}")
                    continue
                for index in event.rows:
                    clip = remaining.pop(index)
                    if isinstance(event, nemo_tarred.Member):
                        clip = clip._replace(audio=f"{shard.tar}: {event.name}")
                        yield TarClip(clip, event.content)
                    else:
                        yield UnreadRow(clip.row, "audio", _error_of(event, clip, shard.tar))
        except ReplacedError:
            raise
        except Exception as error:  # of the storage: the rest of the tar is unread
            for clip in remaining.values():
                yield UnreadRow(clip.row, "audio", error)

    def _of_samples(self, tar: WebDatasetTar) -> Iterator[TarEvent]:
        seen: Counter[str] = Counter()
        try:
            with self.storage.open(tar.file) as file, one_version(file, tar.file):
                for sample in webdataset.webdataset_samples(file, tar.file):
                    if isinstance(sample, webdataset.Sample):
                        yield from self._of_sample(tar, sample, seen)
                    elif tar.route == 0:  # which counts for all
                        yield MemberWithoutRow(f"{tar.file}: {sample.name}")
        except ReplacedError:
            raise
        except Exception as error:  # the number of samples lost with it is unknown
            yield SampleFound()
            row = Row.of({self.filepath_key: tar.file})
            if tar.id:
                row = row.with_id(row_ids.id_of_tar(tar.id))
            yield UnreadRow(row, "audio", error)

    def _of_sample(
        self, tar: WebDatasetTar, sample: webdataset.Sample, seen: Counter[str]
    ) -> Iterator[TarEvent]:
        # By this name the sample can be read alone, when a failure is an input again.
        name = sample.audio_name or sample.key
        place, problem = f"{tar.file}: {name}", sample.problem
        try:
            uri = webdataset.member_uri(tar.file, name)
        except BadRecordError as error:
            uri, problem = place, problem or error
        fields = {self.filepath_key: uri, **sample.fields}
        channel = None
        try:
            channel = named_channel(fields, self.channel_key)
        except ManifestError as error:
            problem = problem or error
        try:
            if self._route(fields) != tar.route:
                return
        except ManifestError as error:
            if tar.route:  # the first route reports it
                return
            problem = problem or error
        yield SampleFound()
        row = Row.of(fields)
        if tar.id:
            group = row_ids.group_of_text(tar.id, row.line)
            row = row.with_id(f"{tar.id}.{row_ids.id_of(group, seen[group])}")
            seen[group] += 1
        if row.id in tar.done:
            yield DoneRow(row, tar.done[row.id])
        elif sample.content is None or problem:
            problem = problem or MissingMemberError("the sample has no audio")
            yield UnreadRow(row, "manifest", problem)
        else:
            # An offset in the sample's fields is one in the recording it was cut from.
            clip = Clip(row, place, 0.0, None, channel, route=tar.route)
            yield TarClip(clip, sample.content)

    def _route(self, fields: Mapping[str, Any]) -> int:
        """Returns the number of a sample's model; raises ManifestError if none matches."""
        return 0 if self.route_of is None else self.route_of(fields)


def _error_of(
    event: nemo_tarred.RowsOfSeveralMembers[int] | nemo_tarred.RowsWithoutMember[int],
    clip: Clip,
    tar: str,
) -> Exception:
    if isinstance(event, nemo_tarred.RowsOfSeveralMembers):
        members = ", ".join(map(repr, event.members[:3]))
        return MissingMemberError(
            f"{clip.audio!r} may be any of {len(event.members)} members of its tar {tar}: "
            f"{members}; name one of them in the row, and no file as NeMo names segments (-sub1)"
        )
    return event.cause or MissingMemberError(
        f"{clip.audio!r} names no member of its tar {tar}; correct the row, or make the tar again"
    )
