"""Follows the clock of an Ogg file by its pages, without decoding them (RFC 3533).

Each page states the sample that its last packet ends with, so the clock goes on where packets are
missing.
"""

from __future__ import annotations

import struct

from beam_asr.audio.ogg_codecs import codec_of
from beam_asr.audio.source import Source

MAX_PAGE_BYTES = 65_307
HEADER_BYTES = 27  # before the lacing values
_CHUNK_BYTES = 2**18
_MAX_HEADERS_BYTES = 2**24  # pictures are among the comments
_MAX_PACKET_BYTES = 2**20  # kept of one; only the setup of Vorbis needs more than some
_HOLE_S = 0.001  # at least
_CONTINUED = 1  # flag of a page that begins with the rest of a packet


class PageWatch:
    """Watches the pages of a file's first stream for a hole, as far as a decoder has read them.

    A hole is where a page ends later than its packets last. In codecs other than Opus, Vorbis and
    FLAC, none is found.

    Attributes:
        starts_late: whether the first sample is not at 0 of the clock, as in a part of a broadcast.

    Args:
        source: of an Ogg file. Its position stays.
    """

    def __init__(self, source: Source) -> None:
        self.starts_late = False
        self._source = source
        self._found = False
        self._in_headers = True
        self._at = 0  # the next one
        self._end: int | None = None  # of the last page, on the clock
        self._samples: int | None = 0  # since then
        self._packet = b""  # what a page has of a packet that the next one continues
        first = source.read_at(0, MAX_PAGE_BYTES)
        self._serial = first[14:18]
        self._codec = codec_of(first[HEADER_BYTES + first[26] :] if len(first) > 27 else b"")
        while self._codec and self._end is None and self._at < _MAX_HEADERS_BYTES:
            used = self._read_page(source.read_at(self._at, MAX_PAGE_BYTES), 0)
            if not used:
                break
            self._at += used
        self._in_headers = False

    def start_at(self, position: int) -> None:
        """Goes on some pages before byte ``position``, where a decoder has sought to."""
        start = position - 2 * MAX_PAGE_BYTES
        if self._codec is None or start <= self._at:
            return
        data = self._source.read_at(start, position - start)
        found = data.find(b"OggS\0")
        while found >= 0 and data[found + 14 : found + 18] != self._serial:
            found = data.find(b"OggS\0", found + 1)
        self._at = start + max(0, found)
        self._end, self._packet = None, b""
        self._codec.skip()

    def finds_hole(self, reached: int) -> bool:
        """Returns whether there is a hole in the pages before byte ``reached``."""
        while self._codec and not self._found and self._at < reached:
            data = self._source.read_at(self._at, min(reached - self._at, _CHUNK_BYTES))
            done = 0
            while not self._found and (used := self._read_page(data, done)):
                done += used
            if not done:  # a page that is not whole yet, or damage, which decoders report
                break
            self._at += done
        return self._found

    def _read_page(self, data: bytes, start: int) -> int:
        """Reads the page that starts there, and returns its size; 0 if it is not whole."""
        if data[start : start + 4] != b"OggS" or len(data) - start < HEADER_BYTES:
            return 0
        body = start + HEADER_BYTES + data[start + 26]
        table = data[start + HEADER_BYTES : body]
        after = body + sum(table)
        if after > len(data):
            return 0
        if data[start + 14 : start + 18] == self._serial:
            end: int = struct.unpack_from("<q", data, start + 6)[0]
            is_header = self._add_packets(table, data, body, bool(data[start + 5] & _CONTINUED))
            if end >= 0 and not is_header:  # -1: no packet ends here
                self._compare(end)
        return after - start

    def _add_packets(self, table: bytes, data: bytes, at: int, continued: bool) -> bool:
        """Adds up the samples of the packets that end in a page; returns whether it is a header.

        Args:
            table: the page's lacing values: a packet ends with the first below 255.
            at: where its packets start in ``data``.
        """
        assert self._codec is not None
        lost = continued and not self._packet
        if not continued:
            self._packet = b""
        size, total = 0, 0
        is_header = self._end is None
        for lacing in table:
            size += lacing
            if lacing == 255:
                continue
            samples = self._codec.samples(self._packet + data[at : at + size])
            at, size, self._packet = at + size, 0, b""
            if samples is None or lost:
                self._samples, lost = None, False
            else:
                total += samples
            is_header = is_header and samples == 0
        if size and len(self._packet) < _MAX_PACKET_BYTES:
            self._packet += data[at : at + size]
        if self._samples is not None:
            self._samples += total
        return is_header

    def _compare(self, end: int) -> None:
        """Compares the end that a page states with the samples of its packets."""
        assert self._codec is not None
        if self._samples is not None:
            if self._end is not None:
                self._found = end - self._end - self._samples > _HOLE_S * self._codec.rate
            elif self._in_headers:
                self.starts_late = end > self._samples
        self._end, self._samples = end, 0
