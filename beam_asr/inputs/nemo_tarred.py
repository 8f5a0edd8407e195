"""The shards of a tarred data set of NeMo's: its tars, and which of them a row's audio is in."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Generic, TypeVar

from beam_asr.errors import (
    BadFieldError,
    ShardError,
    TarError,
)
from beam_asr.inputs import discovery
from beam_asr.inputs.tar_stream import TarStream, has_content, printable
from beam_asr.records.row import Row
from beam_asr.storage import patterns
from beam_asr.storage.storage import Storage


def find_tars(storage: Storage, pattern: str | Iterable[str]) -> dict[int, str]:
    """The tars of a data set by their numbers, which are in their names (``audio_3.tar``).

    A single tar need not have one.

    Raises:
        ShardError: several tars have the same number, or one of many has none.
        NoInputError: there are no tars.
    """
    several = [pattern] if isinstance(pattern, str) else list(pattern)
    parts = [part for each in several for part in patterns.split_commas(each)]
    files = [file for part in parts for file in discovery.find_files(storage, part)]
    numbered = defaultdict(list)
    for file in files:
        number = patterns.shard_number(file)
        if number is None and len(files) > 1:
            raise ShardError(
                f"the tar {file!r} has no number in its name, as in audio_3.tar, so that no row's "
                "shard can be told"
            )
        numbered[number or 0].append(file)
    for number, same in numbered.items():
        if len(same) > 1:
            raise ShardError(
                f"{len(same)} tars have the number {number}, among them {same[0]!r} and "
                f"{same[1]!r}: transcribe one data set at a time"
            )
    return {number: files[0] for number, files in numbered.items()}


def number_of(row: Row, tars: Mapping[int, str]) -> int:
    """The number of the tar that a row's audio is in.

    As in NeMo, it is the number of the row's manifest (``sharded_manifests/manifest_3.json``), or
    the row's own ``shard_id`` where one manifest is that of all tars. In a single tar is all.

    Raises:
        BadFieldError: neither tells, they differ, or there is no such tar.
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
    """A member that rows are about.

    Attributes:
        name: its name in the tar; bytes of the name that are not UTF-8 show as escapes.
        content: its bytes.
        rows: in the order they were given; not empty.
    """

    name: str
    content: bytes = field(repr=False)
    rows: list[T]


@dataclass(frozen=True)
class MemberWithoutRow:
    """A member, other than a directory, that no row is about, or that has no content."""

    name: str


@dataclass(frozen=True)
class RowsWithoutMember(Generic[T]):
    """The end of a tar that left something open.

    Attributes:
        rows: those that met no member, in the order they were given; empty if only the tar is bad.
        cause: what is wrong with the tar; None if it is whole, and the members are not in it.
    """

    rows: list[T]
    cause: TarError | None


def nemo_members(
    file: BinaryIO, name: str, rows: Sequence[tuple[str, T]]
) -> Iterator[Member[T] | MemberWithoutRow | RowsWithoutMember[T]]:
    """The members of one shard's tar, in its order, with their rows; every row comes out once.

    A row is about the first member in the tar that either has

    - the row's name, or the row's name without a ``-subN`` before its extension, which is how NeMo
      names the segments of one recording; a leading ``./`` does not count on either side; or
    - a name that no row has in that sense, and the row's file id (its name without folder and
      extension, with or without ``-subN``), where one of the two names has a folder and the other
      has none, so that they cannot be the same. If rows of several names share that file id, it
      does not say which is meant, and none is taken.

    What is first depends on the tar alone, so a tar and its rows always give the same. If it holds
    both ``x.wav`` and ``x-sub1.wav``, the row ``x-sub1.wav`` goes with the one that comes first. A
    second member of a name has no row, the first took them all.

    Args:
        file: the tar, from its start.
        name: the tar's path or URI, for messages.
        rows: each with the name its manifest uses.

    Yields:
        Each member but directories; last, if rows are left over or the tar is bad, those rows.
    """
    places: dict[str | tuple[str, bool], list[int]] = {}
    for place, (row_name, _) in enumerate(rows):
        for key in _row_keys(row_name):
            places.setdefault(key, []).append(place)
    waiting = {place: row for place, (_, row) in enumerate(rows)}

    def rows_about(member: tarfile.TarInfo) -> list[int]:
        bare = member.name.removeprefix("./")
        found = places.get(bare)
        if found is None:
            found = places.get((_file_id(bare), "/" not in bare), [])
            if len({_without_sub(rows[place][0]) for place in found}) > 1:
                found = []
        return [place for place in found if place in waiting]

    cause = None
    try:
        tar = TarStream(file, name)
        for member in tar:
            about = rows_about(member) if has_content(member) else []
            if about:
                content = tar.read(member)
                met = [waiting.pop(place) for place in about]
                yield Member(printable(member.name), content, met)
                del content, met  # before the next member is read
            elif not member.isdir():
                yield MemberWithoutRow(printable(member.name))
        tar.check_end()
    except TarError as error:
        cause = error
    if waiting or cause:
        yield RowsWithoutMember(list(waiting.values()), cause)


def _row_keys(name: str) -> set[str | tuple[str, bool]]:
    """By what a row is found: names, and file ids with whether the row's name has a folder."""
    names = {name.removeprefix("./"), _without_sub(name)}
    return names | {(_file_id(n), "/" in n) for n in names}


def _without_sub(name: str) -> str:
    return SUB.sub(r"\1\2", name.removeprefix("./"))


def _file_id(name: str) -> str:
    """As the loaders in nemo/collections/asr/data/audio_to_text.py have it."""
    return posixpath.splitext(posixpath.basename(name))[0]
