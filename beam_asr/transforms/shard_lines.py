"""Turns records into lines, and gathers them by the shards that they go to."""

from __future__ import annotations

import bisect
import itertools
import json
import operator
import pickle
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow

from beam_asr.outputs.formats import registry
from beam_asr.outputs.formats.base import FieldKeys, LineFormat
from beam_asr.outputs.shards import FAILURES, FILTERED, encode, shard_count, shard_of
from beam_asr.records import row_ids
from beam_asr.records.parsing import with_absolute_audio
from beam_asr.records.record import Envelope, Failure, Record, Transcript, to_record, with_duration
from beam_asr.records.row import Row
from beam_asr.records.setting_fields import with_flags
from beam_asr.transforms.bundles import at_window
from beam_asr.transforms.packing import compressed

PACK_BYTES = 2**20  # of lines that a worker gathers before it emits them
LINE_BYTES = 100  # approximate memory of a line beside its text
SORTED_BYTES = 2**26  # of the lines of a shard, up to which they are sorted in memory


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
# The place of a row in the input: the numbers of its file, its line and its channel.
Place = tuple[int, int, int]
NO_PLACE: Place = (0, 0, 0)
# The reason of a record for its kind, its line, the id of its row, which may be empty, its place,
# and the seconds of its audio, which may not be known.
Line = tuple[str, bytes, str, Place, float | None]


class LineSettings(NamedTuple):
    """Holds how records are written as lines.

    Attributes:
        flags: settings that messages name as flags.
        filepath_key: the field of the audio.
        absolute_paths: whether audio is written with its whole path.
    """

    flags: frozenset[str] = frozenset()
    filepath_key: str = "audio_filepath"
    absolute_paths: bool = False


def record_line(element: Envelope | Record, kind: str, settings: LineSettings) -> tuple[Kind, Line]:
    """Returns a record as a line, with its kind and the reason for that kind."""
    element = with_duration(element)
    record, why, flags = to_record(element), "", settings.flags
    added = element.result if isinstance(element, Transcript) else record
    row_id, place = "", NO_PLACE
    if not isinstance(element, dict):
        row_id, place = element.row.id, place_of(element.row)
        if settings.absolute_paths:
            record = with_absolute_audio(record, element.origin, settings.filepath_key)
    if kind == FAILURES:
        why = record["error"]["type"]
        record = {**record, "error": _with_flags(record["error"], flags)}
    elif kind == FILTERED:
        why = record["filtered"]["by"]
        record = {**record, "filtered": _with_flags(record["filtered"], flags)}
    elif "segments_failed" in added:
        record = {**record, "segments_failed": _with_flags(record["segments_failed"], flags)}
    seconds = None if isinstance(element, (dict, Failure)) else element.seconds
    return (kind, None), (why, encode(record), row_id, place, seconds)


def place_of(row: Row) -> Place:
    """Returns the place of a row in the input."""
    return row.input_number, row.line_number, row_ids.channel_of_id(row.id)


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
    place = NO_PLACE if isinstance(element, dict) else place_of(element.row)
    return (format, line.shard), (line.left_out, line.line or b"", "", place, None)


class PackLines(beam.DoFn):
    """Gathers the lines of a bundle by their kinds, and counts them, with output to ``counts``."""

    def start_bundle(self) -> None:
        self._lines: dict[Kind, list[Line]] = defaultdict(list)
        self._counts: Counter[Kind] = Counter()
        self._bytes = 0

    def process(self, keyed: tuple[Kind, Line]) -> Iterable[tuple[Kind, bytes]]:
        kind, line = keyed
        self._lines[kind].append(line)
        self._counts[kind] += 1
        self._bytes += len(line[1]) + LINE_BYTES
        return () if self._bytes < PACK_BYTES else self._take_packs()

    def finish_bundle(self) -> Iterator[Any]:
        yield from at_window(self._take_packs(), GlobalWindow())
        counts = (TaggedOutput("counts", count) for count in self._counts.items())
        yield from at_window(counts, GlobalWindow())

    def _take_packs(self) -> list[tuple[Kind, bytes]]:
        packs = [(kind, packed(lines)) for kind, lines in self._lines.items()]
        self._lines, self._bytes = defaultdict(list), 0
        return packs


def packed(lines: list[Line]) -> bytes:
    """Returns lines as one value, as which they cross shuffles; `unpacked` returns them again."""
    return compressed(pickle.dumps(lines, pickle.HIGHEST_PROTOCOL))


def unpacked(pack: bytes) -> list[Line]:
    lines: list[Line] = pickle.loads(zlib.decompress(pack))
    return lines


def by_shard(
    keyed: tuple[Kind, bytes],
    num_shards: int | None,
    counts: dict[Kind, int],
    samples: dict[Kind, list[Place]] | None = None,
) -> list[tuple[Any, bytes]]:
    """Returns the lines of a pack, in packs by the shards that they go to.

    Args:
        samples: places of some records of each kind, if the shards have the order of the input.
    """
    (kind, tar), pack = keyed
    if tar is not None:
        return [(tuple(ShardKey(kind, tar, shards=None)), pack)]
    format = registry.FORMATS.get(kind)
    in_one_file = isinstance(format, LineFormat) and format.in_one_file
    shards = 1 if in_one_file else shard_count(kind, counts[kind, None], num_shards)
    if shards == 1:
        return [(tuple(ShardKey(kind, 0, shards)), pack)]
    parts: dict[int, list[Line]] = defaultdict(list)
    sample = sorted((samples or {}).get((kind, None), ()))
    for line in unpacked(pack):
        if sample:
            shard = bisect.bisect_left(sample, line[3]) * shards // (len(sample) + 1)
        else:
            shard = shard_of(line[1], shards)
        parts[shard].append(line)
    return [(tuple(ShardKey(kind, shard, shards)), packed(part)) for shard, part in parts.items()]


def failure_examples(lines: Iterable[Line]) -> dict[str, str]:
    """Returns a failure's message by the type of its error, whatever the order of the lines."""
    least: dict[str, bytes] = {}
    for why, line, *_ in lines:
        least[why] = min(line, least.get(why, line))
    return {why: str(json.loads(line)["error"].get("message", "")) for why, line in least.items()}


class ShardLines:
    """Iterates over the lines of a shard's records, as often as needed, one pack in memory."""

    def __init__(self, packs: Iterable[bytes]):
        self._packs = packs

    def __iter__(self) -> Iterator[bytes]:
        return (line for _, line, *_ in self.entries() if line)

    def entries(self) -> Iterator[Line]:
        """Yields the lines with their reasons, the ids of their rows and their places."""
        return itertools.chain.from_iterable(map(unpacked, self._packs))


def places(keyed: tuple[Kind, bytes]) -> Iterator[tuple[Kind, Place]]:
    """Yields the place of each line of a pack, by its kind."""
    return ((keyed[0], place) for _, _, _, place, _ in unpacked(keyed[1]))


def sample_order(place: Place) -> int:
    """Returns a number by whose order places are a random sample, the same in every attempt."""
    return zlib.crc32(repr(place).encode())


def in_order(lines: ShardLines, always: bool) -> ShardLines:
    """Returns the lines of a shard in the order of the input, to iterate over as often as needed.

    Args:
        always: whether to sort lines that do not fit into `SORTED_BYTES` of memory too, in a
            temporary file.
    """
    entries: list[Line] = []
    size = 0
    for entry in lines.entries():
        entries.append(entry)
        size += len(entry[1]) + LINE_BYTES
        if size > SORTED_BYTES:
            return _LinesInFile(lines.entries()) if always else lines
    entries.sort(key=operator.itemgetter(3, 2))  # the place, and the id
    return _LinesInMemory(entries)


class _LinesInMemory(ShardLines):
    """Iterates over lines that are in memory."""

    def __init__(self, entries: list[Line]):
        self._entries = entries

    def entries(self) -> Iterator[Line]:
        return iter(self._entries)


class _LinesInFile(ShardLines):
    """Holds lines in a temporary file, and iterates over them in the order of the input."""

    def __init__(self, entries: Iterable[Line]):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed with this object)
        self._lines: list[tuple[Place, str, int, int, str, float | None]] = []
        for why, line, row_id, place, seconds in entries:
            self._lines.append((place, row_id, self._file.tell(), len(line), why, seconds))
            self._file.write(line)
        self._lines.sort()

    def entries(self) -> Iterator[Line]:
        for place, row_id, start, size, why, seconds in self._lines:
            self._file.seek(start)
            yield why, self._file.read(size), row_id, place, seconds
