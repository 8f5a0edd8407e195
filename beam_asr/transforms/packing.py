"""Elements in packs: what is paid for each element of a shuffle is then paid for each pack."""

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
# Of what a bundle has had so far, a pack holds at most this part: so few rows are spread one by
# one, and of many no worker gets much more than another.
MAX_PART = 1 / 64


class PackedReshuffle(beam.PTransform):
    """Spreads elements as ``beam.Reshuffle`` does, several at a time; several inputs become one.

    Elements without end, and those in windows of time, travel one by one, with their times.
    """

    def expand(self, inputs: PCollection[Any] | tuple[PCollection[Any], ...]) -> PCollection[Any]:
        several = inputs if isinstance(inputs, tuple) else (inputs,)
        if not all(each.is_bounded and each.windowing.is_default() for each in several):
            return several | beam.Flatten() | beam.Reshuffle()
        packs = [
            each | f"Pack{number}" >> beam.ParDo(_Pack()).with_output_types(bytes)
            for number, each in enumerate(several)
        ]
        if len(packs) > 1:
            packs = [packs | beam.Flatten()]
        return packs[0] | beam.Reshuffle() | "Unpack" >> beam.FlatMap(_unpack)


class _Pack(beam.DoFn):
    """Gathers the elements of a bundle, pickled."""

    def start_bundle(self) -> None:
        self._seen = 0
        self._begin()

    def process(self, element: Any) -> Sequence[bytes]:
        # One pickler for the pack: names of classes, and texts that elements share, are in it once.
        self._pickler.dump(element)
        self._elements += 1
        self._seen += 1
        most = min(MAX_ELEMENTS, self._seen * MAX_PART)
        if self._elements < most and self._content.tell() < MAX_BYTES:
            return ()
        pack = self._content.getvalue()
        self._begin()
        return [pack]

    def finish_bundle(self) -> Iterator[Any]:
        if self._elements:
            yield from at_window([self._content.getvalue()], GlobalWindow())

    def _begin(self) -> None:
        self._content = io.BytesIO()
        self._pickler = pickle.Pickler(self._content, pickle.HIGHEST_PROTOCOL)
        self._elements = 0


def _unpack(pack: bytes) -> Iterator[Any]:
    content = io.BytesIO(pack)
    unpickler = pickle.Unpickler(content)
    while content.tell() < len(pack):
        yield unpickler.load()
