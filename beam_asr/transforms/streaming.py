"""Reads inputs without an end: files as they appear, and Pub/Sub messages."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import StrUtf8Coder, TupleCoder
from apache_beam.io.watch import PollFn, PollResult, Watch
from apache_beam.pvalue import PCollection
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from beam_asr.errors import NoInputError, SetupError, UnreadableFileError, shortened
from beam_asr.inputs import discovery, json_lines
from beam_asr.inputs.readers import FileRange
from beam_asr.outputs import folder
from beam_asr.records.row import Row
from beam_asr.storage.retry import is_transient, is_unreachable
from beam_asr.storage.storage import Storage
from beam_asr.storage.uris import query_hidden, without_query

logger = logging.getLogger(__name__)

CHANGED = (
    "the file has changed since it was found, and is not read again, so rows of it may be missing: "
    "write a file under another name and rename it when it is whole, and give new rows a new name"
)
UNREADABLE = (
    "the file cannot be read to its end, and is not tried again, so rows of it may be missing: "
    "give those under another name"
)
REPORTED = "reported"  # in place of a file's version
PUBSUB = re.compile(r"pubsub://(projects/[^/]+/(?:(subscriptions)|topics)/[^/]+)")


def is_pubsub(pattern: str) -> bool:
    return pattern.startswith("pubsub://")


class WatchFiles(beam.PTransform):
    """Finds the files of an input, including those that appear later, each of them once.

    A file's time is that at which it was found. It must be complete when it appears, as an object
    of a store is, or a file that is renamed into its place. One whose content changes afterwards
    comes again, with a problem.

    Args:
        interval: seconds between two polls.
        resumed: an output folder; the files of its finished windows are omitted.
    """

    def __init__(self, storage: Storage, interval: float, resumed: str | None):
        super().__init__()
        self._find = _Find(storage, resumed)
        self._interval = interval

    def expand(self, patterns: PCollection[str]) -> PCollection[FileRange]:
        return (
            patterns
            | "Watch" >> Watch(self._find, self._interval)
            | "Files" >> beam.Values().with_output_types(tuple[str, str])
            | "Changes" >> beam.ParDo(_FindChanges()).with_output_types(FileRange)
        )


class _Find(PollFn):
    def __init__(self, storage: Storage, resumed: str | None):
        self._storage = storage
        self._resumed = resumed

    def __call__(self, pattern: str) -> PollResult:
        now = Timestamp.now()
        done = self._done
        try:
            found = discovery.find(self._storage, pattern)
            self._report(pattern, found.ignored)
            files = [
                (file, version)
                for file in found.files
                if query_hidden(file) not in done and (version := self._version(found, file))
            ]
        except NoInputError:
            files = []
        except Exception as error:
            if not would_pass(error):
                raise
            name = without_query(pattern)
            logger.warning("%s cannot be listed until the next look: %s", name, shortened(error))
            files = []
        return PollResult.incomplete(files, now).with_watermark(now)

    def _version(self, found: discovery.FoundFiles, file: str) -> str:
        """Returns the version of a file's content; empty if the file is gone again."""
        try:
            return found.versions.get(file) or self._storage.content_version(file)
        except FileNotFoundError:
            return ""

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

    def default_output_coder(self) -> TupleCoder:
        return TupleCoder([StrUtf8Coder(), StrUtf8Coder()])


class _FindChanges(beam.DoFn):
    """Yields a file at its first version, and one problem in place of all later ones.

    These are not read: what the rows of the first have become is written already.
    """

    FIRST = ReadModifyWriteStateSpec("version", StrUtf8Coder())

    def process(
        self,
        found: tuple[str, str],
        first: Any = beam.DoFn.StateParam(FIRST),  # noqa: B008
    ) -> Iterator[FileRange]:
        file, version = found
        known = first.read()
        if known is None:
            first.write(version)
            yield FileRange(file)
        elif known not in (version, REPORTED):  # the same comes again by another pattern
            first.write(REPORTED)
            yield broken_file(file, UnreadableFileError(CHANGED))


def would_pass(error: Exception) -> bool:
    """Returns whether what failed may succeed later, so that a runner should try it again."""
    return is_transient(error) or is_unreachable(error)


def broken_file(file: str, error: UnreadableFileError) -> FileRange:
    """Returns a file as a row that fails with an error."""
    return FileRange(file, problem=str(error), problem_type=type(error).__name__)


def unreadable(error: Exception) -> UnreadableFileError:
    """Returns the error of a row that stands for what cannot be read of a file.

    For one file a runner would try a bundle for ever, or end the stream.

    Raises:
        Exception: the same, if another attempt may succeed, or the settings of the job are wrong.
    """
    if isinstance(error, SetupError) or would_pass(error):
        raise error
    return UnreadableFileError(f"{UNREADABLE} ({type(error).__name__}: {shortened(error)})")


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
