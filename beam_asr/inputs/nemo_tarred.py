"""Matches the rows of NeMo's tarred data sets with tars and their members."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Generic, TypeVar

from beam_asr.errors import (
    BadFieldError,
    ShardError,
    TarError,
)
from beam_asr.inputs import discovery
from beam_asr.inputs.tar_stream import TarStream, has_content, is_apple_double, printable
from beam_asr.records.row import Row
from beam_asr.storage import patterns
from beam_asr.storage.file_kinds import is_audio
from beam_asr.storage.storage import Storage


def find_tars(storage: Storage, pattern: str | Iterable[str]) -> dict[int, str]:
    """Finds the tars of a data set by the numbers in their names (``audio_3.tar``).

    A single tar needs no number.

    Raises:
        ShardError: several tars have the same number, or one of many has none.
        NoInputError: no tar matches.
    """
    lists = [pattern] if isinstance(pattern, str) else list(pattern)
    parts = [part for text in lists for part in patterns.split_commas(text)]
    files = [file for part in parts for file in discovery.find_files(storage, part)]
    numbered = defaultdict(list)
    for file in files:
        number = patterns.shard_number(file)
        if number is None and len(files) > 1:
            raise ShardError(
                f"the tar {file!r} has no number in its name, as in audio_3.tar, so the shards "
                "of the rows are unknown"
            )
        numbered[number or 0].append(file)
    for number, same in numbered.items():
        if len(same) > 1:
            raise ShardError(
                f"{len(same)} tars have the number {number}, among them {same[0]!r} and "
                f"{same[1]!r}: transcribe one data set at a time"
            )
    return {number: files[0] for number, files in numbered.items()}


def tar_number(row: Row, tars: Mapping[int, str]) -> int:
    """Returns the number of the tar that a row's audio is in.

    As in NeMo, it is the number of the row's manifest (``sharded_manifests/manifest_3.json``), or
    the row's ``shard_id`` if one manifest covers all tars. A single tar holds all audio.

    Raises:
        BadFieldError: there is no number, the two differ, or no tar has it.
    """
    if len(tars) == 1:
        return next(iter(tars))
    by_row = row.fields.get("shard_id")
    by_manifest = patterns.shard_number(row.manifest)
    if by_manifest not in tars and by_row is not None:
        by_manifest = None  # a number that means something else
    if by_row is None and by_manifest is None:
        raise BadFieldError(
            "the row does not tell which tar its audio is in: it has no 'shard_id', and its "
            "manifest no number in its name, as in manifest_3.json"
        )
    if None not in (by_row, by_manifest) and by_row != by_manifest:
        raise BadFieldError(
            f"the row's 'shard_id' is {by_row!r}, but the number of its manifest is {by_manifest}; "
            "give a manifest of several shards a name without a number"
        )
    number = by_row if by_manifest is None else by_manifest
    if isinstance(number, bool) or not isinstance(number, int) or number not in tars:
        raise BadFieldError(
            f"the row's audio is in the tar with the number {number!r}, which is not there; there "
            f"are {len(tars)}, from {min(tars)} to {max(tars)}"
        )
    return number


# LazyNeMoTarredIterator's offset_pattern (nemo/collections/common/data/lhotse/nemo_adapters.py).
SUB = re.compile(r"^(.+)-sub\d+(\.\w+)?$")
T = TypeVar("T")


@dataclass(frozen=True)
class Member(Generic[T]):
    """A member of a tar, with the rows that name it.

    Attributes:
        name: its name in the tar; bytes of the name that are not UTF-8 show as escapes.
        content: its bytes.
        rows: in the order in which they were passed; not empty.
    """

    name: str
    content: bytes = field(repr=False)
    rows: list[T]


@dataclass(frozen=True)
class MemberWithoutRow:
    """A member, other than a directory, that no row names, or that has no content."""

    name: str


@dataclass(frozen=True)
class RowsOfSeveralMembers(Generic[T]):
    """Rows of one name that may belong to several members of the tar.

    Attributes:
        rows: in the order in which they were passed.
        members: the members' names.
    """

    rows: list[T]
    members: list[str]


@dataclass(frozen=True)
class RowsWithoutMember(Generic[T]):
    """The rows without a member, and the error of the tar, at its end.

    Attributes:
        rows: those without a member, in the order in which they were passed; empty if only the tar
            is damaged.
        cause: the error of the tar; None if it is complete, and the members are not in it.
    """

    rows: list[T]
    cause: TarError | None


Event = Member[T] | MemberWithoutRow | RowsOfSeveralMembers[T] | RowsWithoutMember[T]


def nemo_members(
    open_tar: Callable[[], AbstractContextManager[BinaryIO]],
    name: str,
    rows: Sequence[tuple[str, T]],
    done: Iterable[str] = (),
) -> Iterator[Event[T]]:
    """Yields the members of one shard's tar with their rows; each row once.

    A row belongs to the member that has, in this order,

    - the row's name; a leading ``./`` does not count on either side;
    - the row's name without a ``-subN`` before its extension, which is how NeMo names the segments
      of one recording;
    - a name that no row has in these senses, and the row's file name, or file id (its name without
      folder and extension), with or without ``-subN``, where one of the two names has a folder and
      the other has none, so that they cannot be the same. If rows of several names share that file
      id, it matches none of them.

    If several members fit equally, the row belongs to none. Neither does a row of several with one
    name that ends with ``-subN``, if the tar has both this name and the one without: NeMo gives
    that name to a segment of the one and to the other. So the order of members does not matter,
    except for two with the same name: the second one has no row.

    The tar is read a second time if there are rows whose name is not that of a member: whether the
    tar has a member of their name is known at its end.

    Args:
        open_tar: opens the tar, from its start; called once or twice.
        name: the tar's path or URI, for messages.
        rows: each after the name that its manifest uses.
        done: names of rows that need no member any more, but count where names are ambiguous.

    Yields:
        The members of rows, in the tar's order and those of the second reading last; members
        without a row, except directories; rows of several members; and last, if rows remain or the
        tar is damaged, those rows.
    """
    shard = _Shard(rows, done)
    cause = None
    try:
        with open_tar() as file:
            yield from shard.first_reading(TarStream(file, name))
        yield from shard.find_members()
        if shard.members:
            with open_tar() as file:
                yield from shard.second_reading(TarStream(file, name))
    except TarError as error:
        cause = error
    if shard.waiting or cause:
        yield RowsWithoutMember(list(shard.waiting.values()), cause)


class _Shard(Generic[T]):
    """Matches the rows of a tar with its members.

    Attributes:
        waiting: the rows that have no member yet, by their places.
        members: for the second reading, the rows' places by the names of their members.
    """

    def __init__(self, rows: Sequence[tuple[str, T]], done: Iterable[str]):
        self.waiting = {place: row for place, (_, row) in enumerate(rows)}
        self.members: dict[str, list[int]] = {}
        self._names = [_bare(row_name) for row_name, _ in rows]
        self._by_name: dict[str, list[int]] = {}
        self._names_without_sub: set[str] = set()
        self._by_file_id: dict[tuple[str, bool], set[str]] = {}  # to names without -subN
        for place, row_name in enumerate([*self._names, *map(_bare, done)]):
            without_sub = _without_sub(row_name)
            self._by_name.setdefault(row_name, []).append(place)
            self._names_without_sub.add(without_sub)
            for own in {row_name, without_sub}:
                key = _file_id(own), "/" in own
                self._by_file_id.setdefault(key, set()).add(without_sub)
        # Members that may be those of rows with other names: those of each name without a row yet.
        self._candidates: dict[str, list[str]] = {}
        self._candidates_by_id: dict[str, list[str]] = {}
        self._without_content: set[str] = set()  # links and the like, whose rows are no others'

    def first_reading(self, tar: TarStream) -> Iterator[Event[T]]:
        """Yields the members of rows with the same name, and those that can have no row."""
        given: set[str] = set()
        for member in tar:
            bare = _bare(member.name)
            has_rows = bare in self._by_name and not self._is_segment_or_file(bare)
            if not has_content(member) or is_apple_double(bare):
                if not member.isdir():
                    if self._may_have_rows(bare):
                        self._without_content.add(bare)
                    yield MemberWithoutRow(printable(member.name))
            elif has_rows and bare not in given:
                given.add(bare)
                self._add_candidate(bare)
                yield from self._member(tar, member, self._by_name[bare])
            elif has_rows or not self._may_have_rows(bare):
                yield MemberWithoutRow(printable(member.name))
            else:
                self._add_candidate(bare, printable(member.name))
        tar.check_end()

    def find_members(self) -> Iterator[Event[T]]:
        """Finds the members of the other rows; yields rows of several, and members without one."""
        several: dict[tuple[str, ...], list[T]] = {}
        for place in list(self.waiting):
            found = self._find(self._names[place])
            if len(found) == 1:
                self.members.setdefault(found[0], []).append(place)
            elif found:
                several.setdefault(tuple(map(printable, found)), []).append(self.waiting.pop(place))
        for names, rows in several.items():
            yield RowsOfSeveralMembers(rows, list(names))
        for bare, without_row in self._candidates.items():
            for member in without_row[bare in self.members :]:
                yield MemberWithoutRow(member)

    def second_reading(self, tar: TarStream) -> Iterator[Event[T]]:
        """Yields the members that ``find_members`` has found."""
        for member in tar:
            if has_content(member) and (places := self.members.pop(_bare(member.name), None)):
                yield from self._member(tar, member, places)
                if not self.members:
                    return

    def _member(
        self, tar: TarStream, member: tarfile.TarInfo, places: list[int]
    ) -> Iterator[Event[T]]:
        if places := [place for place in places if place in self.waiting]:
            content = tar.read(member)
            rows = [self.waiting.pop(place) for place in places]
            yield Member(printable(member.name), content, rows)

    def _is_segment_or_file(self, bare: str) -> bool:
        """Returns whether rows of this name may be both segments of a file and another file."""
        return len(self._by_name[bare]) > 1 and _without_sub(bare) != bare

    def _may_have_rows(self, bare: str) -> bool:
        by_name = bare in self._by_name or bare in self._names_without_sub
        return by_name or (_file_id(bare), "/" not in bare) in self._by_file_id

    def _add_candidate(self, bare: str, *without_row: str) -> None:
        if bare not in self._candidates:
            self._candidates[bare] = []
            self._candidates_by_id.setdefault(_file_id(bare), []).append(bare)
        self._candidates[bare] += without_row

    def _find(self, row_name: str) -> list[str]:
        """Returns the members of a row; several if they fit equally."""
        without_sub = _without_sub(row_name)
        own_names = list(dict.fromkeys([row_name, without_sub]))
        if not self._without_content.isdisjoint(own_names):
            return []
        found = [own for own in own_names if own in self._candidates]
        if not found:
            fitting = [self._fitting(row_name, own) for own in own_names]
            if len(fitting) > 1 and all(fitting) and self._is_segment_or_file(row_name):
                return [member for members in fitting for member in members]
            return next(filter(None, fitting), [])
        if found[0] != row_name:  # the recording of a segment, unless a folder has the row's file
            return [*found, *self._fitting(row_name, row_name)]
        # The member of the row's name, unless rows of this name may be about the other one.
        return found if self._is_segment_or_file(row_name) else found[:1]

    def _fitting(self, row_name: str, own: str) -> list[str]:
        """Returns the members with the file name, or else the file id, of a row."""
        has_folder = "/" in row_name
        if len(self._by_file_id.get((_file_id(own), has_folder), ())) != 1:
            return []
        members = [
            member
            for member in self._candidates_by_id.get(_file_id(own), [])
            if ("/" in member) != has_folder
            and member not in self._by_name
            and member not in self._names_without_sub
        ]
        same_name = [m for m in members if posixpath.basename(m) == posixpath.basename(own)]
        return same_name or list(filter(is_audio, members)) or members


def _bare(name: str) -> str:
    return name.removeprefix("./")


def _without_sub(bare: str) -> str:
    return SUB.sub(r"\1\2", bare)


def _file_id(name: str) -> str:
    """Returns the file id of the loaders in nemo/collections/asr/data/audio_to_text.py."""
    return posixpath.splitext(posixpath.basename(name))[0]
