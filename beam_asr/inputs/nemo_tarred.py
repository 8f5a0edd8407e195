"""Matches the rows of NeMo's tarred data sets with tars and their members."""

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
class RowsWithoutMember(Generic[T]):
    """The rows without a member, and the error of the tar, at its end.

    Attributes:
        rows: those without a member, in the order in which they were passed; empty if only the tar
            is damaged.
        cause: the error of the tar; None if it is complete, and the members are not in it.
    """

    rows: list[T]
    cause: TarError | None


def nemo_members(
    file: BinaryIO, name: str, rows: Sequence[tuple[str, T]]
) -> Iterator[Member[T] | MemberWithoutRow | RowsWithoutMember[T]]:
    """Yields the members of one shard's tar, in its order, with their rows; each row once.

    A row belongs to the first member in the tar that either has

    - the row's name, or the row's name without a ``-subN`` before its extension, which is how NeMo
      names the segments of one recording; a leading ``./`` does not count on either side; or
    - a name that no row has in that sense, and the row's file id (its name without folder and
      extension, with or without ``-subN``), where one of the two names has a folder and the other
      has none, so that they cannot be the same. If rows of several names share that file id, it is
      ambiguous, and matches none of them.

    The first member depends on the tar alone, so the result for a tar and its rows is always the
    same. If it holds both ``x.wav`` and ``x-sub1.wav``, the row ``x-sub1.wav`` goes with the one
    that comes first. A second member of a name has no row, since the first has them all.

    Args:
        file: the tar, from its start.
        name: the tar's path or URI, for messages.
        rows: each after the name that its manifest uses.

    Yields:
        Each member except directories; last, if rows remain or the tar is damaged, those rows.
    """
    places: dict[str | tuple[str, bool], list[int]] = {}
    for place, (row_name, _) in enumerate(rows):
        for key in _row_keys(row_name):
            places.setdefault(key, []).append(place)
    waiting = {place: row for place, (_, row) in enumerate(rows)}

    def find_rows(member: tarfile.TarInfo) -> list[int]:
        bare = member.name.removeprefix("./")
        matches = places.get(bare)
        if matches is None:
            matches = places.get((_file_id(bare), "/" not in bare), [])
            if len({_without_sub(rows[place][0]) for place in matches}) > 1:
                matches = []
        return [place for place in matches if place in waiting]

    cause = None
    try:
        tar = TarStream(file, name)
        for member in tar:
            matches = find_rows(member) if has_content(member) else []
            if matches:
                content = tar.read(member)
                matched = [waiting.pop(place) for place in matches]
                yield Member(printable(member.name), content, matched)
                del content, matched  # before the next member is read
            elif not member.isdir():
                yield MemberWithoutRow(printable(member.name))
        tar.check_end()
    except TarError as error:
        cause = error
    if waiting or cause:
        yield RowsWithoutMember(list(waiting.values()), cause)


def _row_keys(name: str) -> set[str | tuple[str, bool]]:
    """Returns a row's keys: names, and file ids with whether the row's name has a folder."""
    names = {name.removeprefix("./"), _without_sub(name)}
    return names | {(_file_id(n), "/" in n) for n in names}


def _without_sub(name: str) -> str:
    return SUB.sub(r"\1\2", name.removeprefix("./"))


def _file_id(name: str) -> str:
    """Returns the file id of the loaders in nemo/collections/asr/data/audio_to_text.py."""
    return posixpath.splitext(posixpath.basename(name))[0]
