"""Turns records into lines, and gathers them by the shards that they go to."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow

from beam_asr.errors import with_flags
from beam_asr.outputs.formats import registry
from beam_asr.outputs.formats.base import FieldKeys, LineFormat
from beam_asr.outputs.shards import FAILURES, FILTERED, encode, shard_count, shard_of
from beam_asr.records.record import Envelope, Failure, Record, Transcript, to_record, with_duration
from beam_asr.transforms.bundles import at_window

PACK_BYTES = 2**20  # of lines that a worker gathers before it emits them
LINE_BYTES = 100  # approximate memory of a line beside its text


class ShardKey(NamedTuple):
    """Identifies the shard of the output that a line goes to.

    It crosses shuffles as a plain tuple, which Beam encodes without pickling it.

    Attributes:
        kind: one of ``KINDS``.
        number: the number of the shard, from 0, or of its tar.
        shards: the number of shards of the kind; None if there is one for each tar.
    """

    kind: str
    number: int
    shards: int | None


# A kind, and the number of a tar or None.
Kind = tuple[str, int | None]
# The reason of a record for its kind, its line, the id of its row, which may be empty, and the
# seconds of its audio, which may not be known.
Line = tuple[str, bytes, str, float | None]


def record_line(
    element: Envelope | Record, kind: str, flags: frozenset[str], durations: bool = False
) -> tuple[Kind, Line]:
    """Returns a record as a line, with its kind and the reason for that kind."""
    if durations:
        element = with_duration(element)
    record, why = to_record(element), ""
    added = element.result if isinstance(element, Transcript) else record
    row_id = "" if isinstance(element, dict) else element.row.id
    if kind == FAILURES:
        why = record["error"]["type"]
        record = {**record, "error": _with_flags(record["error"], flags)}
    elif kind == FILTERED:
        why = record["filtered"]["by"]
        record = {**record, "filtered": _with_flags(record["filtered"], flags)}
    elif "segments_failed" in added:
        record = {**record, "segments_failed": _with_flags(record["segments_failed"], flags)}
    seconds = None if isinstance(element, (dict, Failure)) else element.seconds
    return (kind, None), (why, encode(record), row_id, seconds)


def _with_flags(why: Any, flags: frozenset[str]) -> Any:
    """Returns the failures in a record with flags in their messages."""
    if isinstance(why, list):
        return [_with_flags(failure, flags) for failure in why]
    if not isinstance(why, dict):
        return why
    message = why.get("message")
    if isinstance(message, str):
        return {**why, "message": with_flags(message, flags)}
    return {**why, "error": _with_flags(why["error"], flags)} if "error" in why else why


def format_line(
    element: Envelope | Record, format: str, keys: FieldKeys, tarred: bool, transcribed: bool
) -> tuple[Kind, Line]:
    """Returns a record as a line of a `LineFormat`, with the reason if it is omitted.

    The line is empty if the record has none. In a tarred data set the kind has the tar's number.
    """
    chosen = registry.FORMATS[format]
    assert isinstance(chosen, LineFormat)
    origin = "" if isinstance(element, dict) else element.origin
    record = to_record(with_duration(element))
    line = chosen.to_line(record, keys, origin, tarred, transcribed)
    return (format, line.shard), (line.left_out, line.line or b"", "", None)


class PackLines(beam.DoFn):
    """Gathers the lines of a bundle by their kinds, and counts them, with output to ``counts``."""

    def start_bundle(self) -> None:
        self._packs: dict[Kind, list[Line]] = defaultdict(list)
        self._counts: Counter[Kind] = Counter()
        self._bytes = 0

    def process(self, keyed: tuple[Kind, Line]) -> Iterable[tuple[Kind, list[Line]]]:
        kind, line = keyed
        self._packs[kind].append(line)
        self._counts[kind] += 1
        self._bytes += len(line[1]) + LINE_BYTES
        if self._bytes < PACK_BYTES:
            return ()
        packs, self._packs, self._bytes = self._packs, defaultdict(list), 0
        return packs.items()

    def finish_bundle(self) -> Iterator[Any]:
        yield from at_window(self._packs.items(), GlobalWindow())
        counts = (TaggedOutput("counts", count) for count in self._counts.items())
        yield from at_window(counts, GlobalWindow())


def by_shard(
    pack: tuple[Kind, list[Line]], num_shards: int | None, counts: dict[Kind, int]
) -> list[tuple[Any, list[Line]]]:
    """Returns the lines of a pack, by the shards that they go to."""
    (kind, tar), lines = pack
    if tar is not None:
        return [(tuple(ShardKey(kind, tar, shards=None)), lines)]
    shards = shard_count(kind, counts[kind, None], num_shards)
    parts: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        parts[shard_of(line[1], shards)].append(line)
    return [(tuple(ShardKey(kind, shard, shards)), part) for shard, part in parts.items()]


def failure_examples(packs: Iterable[list[Line]]) -> dict[str, str]:
    """Returns a failure's message by the type of its error, whatever the order of the lines."""
    least: dict[str, bytes] = {}
    for why, line, *_ in itertools.chain.from_iterable(packs):
        least[why] = min(line, least.get(why, line))
    return {why: str(json.loads(line)["error"].get("message", "")) for why, line in least.items()}


class Lines:
    """Iterates over the lines of a shard's records, as often as needed."""

    def __init__(self, packs: Iterable[list[Line]]):
        self._packs = packs

    def __iter__(self) -> Iterator[bytes]:
        return (line for pack in self._packs for _, line, *_ in pack if line)
