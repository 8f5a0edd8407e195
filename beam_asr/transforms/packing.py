"""Packs elements for a shuffle, so that its cost for each element is paid for each pack."""

from __future__ import annotations

import io
import pickle
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindow

from beam_asr.transforms.bundles import at_window

MAX_ELEMENTS = 256
MAX_BYTES = 2**20  # of a pack, above which no further element is added
# A pack holds at most this part of what a bundle has had so far: a few rows are spread one by one,
# and of many rows no worker gets much more than another.
MAX_PART = 1 / 64
# Keys that are grouped together. Of many rows a worker gets some thousandths at a time, with what
# is known of them; of a few each is almost always alone.
BUCKETS = 4096
BUCKETS_BYTES = 2**24  # of the packs that a bundle gathers, at which all of them are emitted


class PackedReshuffle(beam.PTransform):
    """Spreads elements as ``beam.Reshuffle`` does, several at a time; several inputs become one.

    Unbounded elements, and those in windows other than the global one, travel one by one, with
    their timestamps.
    """

    def expand(self, inputs: PCollection[Any] | tuple[PCollection[Any], ...]) -> PCollection[Any]:
        collections = inputs if isinstance(inputs, tuple) else (inputs,)
        if not all(part.is_bounded and part.windowing.is_default() for part in collections):
            return collections | beam.Flatten() | beam.Reshuffle()
        packs = [
            part | f"Pack{number}" >> beam.ParDo(_Pack()).with_output_types(bytes)
            for number, part in enumerate(collections)
        ]
        if len(packs) > 1:
            packs = [packs | beam.Flatten()]
        return packs[0] | beam.Reshuffle() | "Unpack" >> beam.FlatMap(_unpack)


class PackedGroupByKey(beam.PTransform):
    """Groups pairs by their keys as ``beam.GroupByKey`` does, many keys at a time.

    Takes one or more bounded inputs, in the global window, whose keys are texts. Returns dicts that
    hold all values of each of their keys.

    Beam groups the packs by a hash of the keys, and the values within. It would otherwise encode
    and decode each pair twice, and its local runner would hold the values of all keys as objects.
    """

    def expand(self, inputs: tuple[PCollection[tuple[str, Any]], ...]) -> PCollection[Any]:
        packs = [
            part | f"Pack{number}" >> beam.ParDo(_PackByKey()).with_output_types(tuple[int, bytes])
            for number, part in enumerate(inputs)
        ]
        if len(packs) > 1:
            packs = [packs | beam.Flatten()]
        return packs[0] | "ByBucket" >> beam.GroupByKey() | "Unpack" >> beam.Map(_values_by_key)


class _PackByKey(beam.DoFn):
    """Gathers the pairs of a bundle, pickled, by the buckets of their keys."""

    def start_bundle(self) -> None:
        self._packs: dict[int, bytearray] = defaultdict(bytearray)
        self._bytes = 0

    def process(self, pair: tuple[str, Any]) -> Iterable[tuple[int, bytes]]:
        pickled = pickle.dumps(pair, pickle.HIGHEST_PROTOCOL)
        self._packs[zlib.crc32(pair[0].encode()) % BUCKETS] += pickled
        self._bytes += len(pickled)
        if self._bytes < BUCKETS_BYTES:
            return ()
        return self._take_packs()

    def finish_bundle(self) -> Iterator[Any]:
        yield from at_window(self._take_packs(), GlobalWindow())

    def _take_packs(self) -> Iterator[tuple[int, bytes]]:
        packs, self._packs, self._bytes = self._packs, defaultdict(bytearray), 0
        return ((bucket, compressed(pack)) for bucket, pack in packs.items())


def _values_by_key(bucket: tuple[int, Iterable[bytes]]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = defaultdict(list)
    for pack in bucket[1]:
        for key, value in _unpack(pack):
            values[key].append(value)
    return values


class _Pack(beam.DoFn):
    """Gathers the elements of a bundle, pickled."""

    def start_bundle(self) -> None:
        self._seen = 0
        self._start_pack()

    def process(self, element: Any) -> Sequence[bytes]:
        # One pickler for each pack stores names of classes, and texts that elements share, once.
        self._pickler.dump(element)
        self._elements += 1
        self._seen += 1
        limit = min(MAX_ELEMENTS, self._seen * MAX_PART)
        if self._elements < limit and self._content.tell() < MAX_BYTES:
            return ()
        pack = compressed(self._content.getvalue())
        self._start_pack()
        return [pack]

    def finish_bundle(self) -> Iterator[Any]:
        if self._elements:
            yield from at_window([compressed(self._content.getvalue())], GlobalWindow())

    def _start_pack(self) -> None:
        self._content = io.BytesIO()
        self._pickler = pickle.Pickler(self._content, pickle.HIGHEST_PROTOCOL)
        self._elements = 0


def compressed(pack: bytes | bytearray) -> bytes:
    """Returns a pack as it crosses a shuffle, of which a runner may hold several copies.

    Rows resemble each other, so even zlib's fastest level leaves a fifth of them.
    """
    return zlib.compress(pack, zlib.Z_BEST_SPEED)


def _unpack(pack: bytes) -> Iterator[Any]:
    pickles = zlib.decompress(pack)
    content = io.BytesIO(pickles)
    unpickler = pickle.Unpickler(content)
    while content.tell() < len(pickles):
        yield unpickler.load()
