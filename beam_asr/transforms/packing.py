"""Packs elements for a shuffle, so that its cost for each element is paid for each pack."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Sequence
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
        pack = self._content.getvalue()
        self._start_pack()
        return [pack]

    def finish_bundle(self) -> Iterator[Any]:
        if self._elements:
            yield from at_window([self._content.getvalue()], GlobalWindow())

    def _start_pack(self) -> None:
        self._content = io.BytesIO()
        self._pickler = pickle.Pickler(self._content, pickle.HIGHEST_PROTOCOL)
        self._elements = 0


def _unpack(pack: bytes) -> Iterator[Any]:
    content = io.BytesIO(pack)
    unpickler = pickle.Unpickler(content)
    while content.tell() < len(pack):
        yield unpickler.load()
