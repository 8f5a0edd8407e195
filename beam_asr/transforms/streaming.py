"""Reads inputs without an end: files as they appear, and Pub/Sub messages."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import StrUtf8Coder
from apache_beam.io.watch import PollFn, PollResult, Watch
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from beam_asr.errors import NoInputError, SetupError
from beam_asr.inputs import discovery, json_lines
from beam_asr.outputs import folder
from beam_asr.records.row import Row
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import query_hidden, without_query

logger = logging.getLogger(__name__)

PUBSUB = re.compile(r"pubsub://(projects/[^/]+/(?:(subscriptions)|topics)/[^/]+)")


def is_pubsub(pattern: str) -> bool:
    return pattern.startswith("pubsub://")


class WatchFiles(beam.PTransform):
    """Finds the files of an input, including those that appear later, each of them once.

    A file's time is that at which it was found. It must be complete when it appears, as an object
    of a store is, or a file that is renamed into its place.

    Args:
        interval: seconds between two polls.
        resumed: an output folder; the files of its finished windows are omitted.
    """

    def __init__(self, storage: Storage, interval: float, resumed: str | None):
        super().__init__()
        self._find = _Find(storage, resumed)
        self._interval = interval

    def expand(self, patterns: PCollection[str]) -> PCollection[str]:
        return patterns | "Watch" >> Watch(self._find, self._interval) | "Files" >> beam.Values()


class _Find(PollFn):
    def __init__(self, storage: Storage, resumed: str | None):
        self._storage = storage
        self._resumed = resumed

    def __call__(self, pattern: str) -> PollResult:
        now = Timestamp.now()
        try:
            found = discovery.find(self._storage, pattern)
        except NoInputError:
            files = []
        else:
            files = found.files
            self._report(pattern, found.ignored)
        done = self._done
        new_files = [file for file in files if query_hidden(file) not in done]
        return PollResult.incomplete(new_files, now).with_watermark(now)

    def _report(self, pattern: str, ignored: Counter[str]) -> None:
        """Logs what is left out, when that changes: it belongs to no window's summary."""
        if ignored != self._reported[pattern]:
            self._reported[pattern] = ignored
            shown = discovery.describe_ignored(ignored)
            logger.warning("of %s these files are ignored: %s", without_query(pattern), shown)

    @functools.cached_property
    def _reported(self) -> defaultdict[str, Counter[str]]:
        return defaultdict(Counter)

    @functools.cached_property
    def _done(self) -> frozenset[str]:
        if self._resumed is None:
            return frozenset()
        return folder.inputs_done(self._storage, self._resumed)

    def default_output_coder(self) -> StrUtf8Coder:
        return StrUtf8Coder()


class ReadPubSub(beam.PTransform):
    """Reads the rows of a topic's or a subscription's messages, one in each.

    A row's time is that of its arrival: by the time at which it was published it could come too
    late for its window, and be dropped.

    Args:
        address: ``pubsub://projects/PROJECT/subscriptions/NAME``, or a topic's.

    Raises:
        SetupError: the address is not of this form.
    """

    def __init__(self, address: str):
        super().__init__()
        match = PUBSUB.fullmatch(address)
        if not match:
            raise SetupError(
                f"the input {address!r} is not of the form "
                "pubsub://projects/PROJECT/subscriptions/NAME or pubsub://projects/PROJECT/topics/NAME"
            )
        kind = "subscription" if match[2] else "topic"
        self._address = address
        self._source = {kind: match[1]}

    def expand(self, pbegin: Any) -> PCollection[Row]:
        return (
            pbegin
            | "Messages" >> beam.io.ReadFromPubSub(**self._source)
            | "MessageRows" >> beam.FlatMap(_row, self._address).with_output_types(Row)
            | "Arrivals" >> beam.Map(_at_arrival).with_output_types(Row)
        )


def _at_arrival(row: Row) -> TimestampedValue:
    return TimestampedValue(row, Timestamp.now())


def _row(message: bytes, address: str) -> Iterator[Row]:
    line = json_lines.decode_line(message)
    if isinstance(line, Exception):
        yield Row.broken(line, address)
    elif line and not line.isspace():
        yield Row(line, address)
