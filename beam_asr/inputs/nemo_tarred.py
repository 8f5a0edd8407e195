"""The shards of a tarred data set of NeMo's: its tars, and which of them a row's audio is in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from beam_asr.inputs import discovery as inputs
from beam_asr.manifest_errors import BadFieldError
from beam_asr.records import row as manifest
from beam_asr.records.row import Row
from beam_asr.storage import patterns
from beam_asr.storage.storage import Storage


class ShardError(ValueError):
    """Tars that do not make one data set."""


def tars_of(storage: Storage, pattern: str | Iterable[str]) -> dict[int, str]:
    """The tars of a data set by their numbers, which are in their names (``audio_3.tar``).

    A single tar need not have one.

    Raises:
        ShardError: several tars have the same number, or one of many has none.
        NoInputError: there are no tars.
    """
    several = [pattern] if isinstance(pattern, str) else list(pattern)
    parts = [part for each in several for part in patterns.split_commas(each)]
    files = [file for part in parts for file in inputs.files_of(storage, part)]
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
    by_row = manifest.parse_fields(row.line).get("shard_id")
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
