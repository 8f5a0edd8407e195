"""Finds chains of Ogg streams, of which decoders read only a part, also of one serial number.

All streams of a file that are there at one time begin with its first pages (RFC 3533, section 6); a
page after those that begins a stream makes the file a chain. It may be anywhere. A local file is
searched for it once. Of a remote file that is read whole, all bytes are searched as they come. If
only a range of a remote file is read, the bytes that come are searched too, and pages are compared
at places that are further and further apart, each half as far again from the start. Within a stream
pages are numbered upwards, and their times grow (section 6) about as the bytes do. A stream that
begins between two places falls behind the one before, or has more seconds to a byte; where it seems
so, all between is read. A hundred megabytes take nineteen requests, once for a process.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from beam_asr.audio.header_watch import HeaderWatch
from beam_asr.audio.ogg_pages import HEADER_BYTES, MAX_PAGE_BYTES
from beam_asr.audio.source import Source
from beam_asr.errors import CorruptAudioError

_PAGE = b"OggS\0"  # and the version
_BEGINS = 2  # a flag
_FIRST_OF_STREAM = (_PAGE + b"\2", _PAGE + b"\6")  # the second also ends with this page
_MAX_STREAMS = 64  # at one time
_BLOCK_BYTES = 2**20
_FIRST_PLACE = 2**16  # what is fetched first of a remote file
_SPACING = 1.5
# Of a stream that begins between two places, the rate until the second one seems to be that of its
# own less twice the other's, at most; so one of the two steps from rate to rate is twofold or more.
_MAX_CHANGE = 1.8
_MAX_CHECKED = 10_000

_checked: dict[tuple[str, int, bytes, bytes], None] = {}  # files that are no chains


class _Page(NamedTuple):
    """The header of a page: its place in bytes, and the fields of RFC 3533 that order pages."""

    start: int
    end: int
    flags: int
    granule: int
    serial: int
    number: int


def chain_error(source: Source) -> CorruptAudioError:
    """Returns the error of a chain of streams."""
    return CorruptAudioError(
        f"{source.shown}: is a chain of Ogg streams, and only the first would be read. "
        "Convert it, for example to FLAC."
    )


def chain_watch(source: Source, first: int) -> HeaderWatch:
    """Returns a watch of all but the first bytes, in which the file's streams begin."""
    return HeaderWatch(source, first, _FIRST_OF_STREAM, chain_error(source), _note_checked)


def check_chain(source: Source, head: bytes, whole: bool) -> None:
    """Checks that an Ogg file is no chain, now and as it is read; other files pass.

    Args:
        head: the first bytes.
        whole: whether all of it will be read.

    Raises:
        CorruptAudioError: it is a chain.
    """
    if not head.startswith(b"OggS"):
        return
    large = source.size > _BLOCK_BYTES
    if large and _key(source) in _checked:
        return
    first, serials = _first_pages(source)
    if source.descriptor is not None:
        if _begins_between(source, first, source.size):
            raise chain_error(source)
        if large:
            _note_checked(source)
        return
    watch = chain_watch(source, first)
    if not whole:
        _compare_pages(source, first, serials)
        _note_checked(source)
    source.watch = watch


def _key(source: Source) -> tuple[str, int, bytes, bytes]:
    return source.path, source.size, source.peek(0, 512), source.peek(source.size - 64, 64)


def _note_checked(source: Source) -> None:
    if source.failure is None:
        if len(_checked) >= _MAX_CHECKED:
            _checked.clear()
        _checked[_key(source)] = None


def _begins_in(data: bytes) -> bool:
    return any(page in data for page in _FIRST_OF_STREAM)


def _begins_between(source: Source, start: int, end: int) -> bool:
    """Returns whether a stream begins in a range of bytes, or at its end."""
    tail = b""
    end = min(end + len(_FIRST_OF_STREAM[0]), source.size)
    while start < end and (data := source.peek(start, min(_BLOCK_BYTES, end - start))):
        source.check_time()
        if _begins_in(tail + data):
            return True
        tail = data[1 - len(_FIRST_OF_STREAM[0]) :]
        start += len(data)
    return False


def _first_pages(source: Source) -> tuple[int, set[int]]:
    """Returns where the pages end with which streams begin, and the streams' serial numbers."""
    position, serials = 0, set()
    for _ in range(_MAX_STREAMS):
        data = source.peek(position, HEADER_BYTES + 255)
        page = _page(data, 0, position)
        if page is None or not page.flags & _BEGINS:
            break
        serials.add(page.serial)
        position = page.end
    return position, serials


def _page(data: bytes, place: int, offset: int) -> _Page | None:
    """Parses the header of a page at a place in data that begin at an offset; None if cut off."""
    header = data[place : place + HEADER_BYTES]
    if len(header) < HEADER_BYTES or not header.startswith(_PAGE):
        return None
    flags, granule, serial, number, _, segments = struct.unpack_from("<BqIIIB", header, 5)
    table = data[place + HEADER_BYTES : place + HEADER_BYTES + segments]
    start = offset + place
    size = HEADER_BYTES + segments + sum(table)
    return _Page(start, start + size, flags, granule, serial, number)


def _compare_pages(source: Source, first: int, serials: set[int]) -> None:
    """Raises if the pages at places that are ever further apart are not of one stream."""
    last = max(first, source.size - MAX_PAGE_BYTES)
    for start, end in ((first, min(_FIRST_PLACE, source.size)), (last, source.size)):
        if _begins_between(source, start, end):
            raise chain_error(source)
    streams = {serial: _Progress(first, first) for serial in serials}
    for place in _places(source.size):
        page = _page_after(source, place, serials)
        if page is None or page.granule < 0:  # no packet ends on it
            continue
        before = streams.get(page.serial)
        if before is not None and page.start == before.place:
            continue
        now = before and before.at(page)
        if now is None and _begins_between(source, before.last if before else first, page.start):
            raise chain_error(source)
        streams[page.serial] = now or _Progress(page.start, page.start, page.number, page.granule)


class _Progress(NamedTuple):
    """How far a stream has come at a place, in bytes, with its rate since the last one."""

    place: int
    last: int
    number: int = -1
    granule: int = 0
    rate: float | None = None

    def at(self, page: _Page) -> _Progress | None:
        """Returns the progress at a page behind; None if the page may be another stream's."""
        rate = (page.granule - self.granule) / (page.start - self.place)
        if page.number <= self.number or rate <= 0:
            return None
        if self.rate is not None and not 1 / _MAX_CHANGE < rate / self.rate < _MAX_CHANGE:
            return None
        return _Progress(page.start, self.place, page.number, page.granule, rate)


def _places(size: int) -> Iterator[int]:
    last = size - MAX_PAGE_BYTES
    growing = (int(_FIRST_PLACE * _SPACING**power) for power in itertools.count())
    yield from itertools.takewhile(lambda place: place < last, growing)
    if last > _FIRST_PLACE:
        yield last


def _page_after(source: Source, place: int, serials: set[int]) -> _Page | None:
    """Returns the first page from a place on, of a known stream if there is one."""
    other = None
    for size in (MAX_PAGE_BYTES // 8, MAX_PAGE_BYTES // 2, MAX_PAGE_BYTES):  # most are small
        data = source.peek(place, size)
        found = data.find(_PAGE)
        while found >= 0:
            page = _page(data, found, place)
            if page is not None and page.serial in serials:
                return page
            other = other or page
            found = data.find(_PAGE, found + 1)
    return other
