"""Searches the bytes of a file for the beginning of a second one, as they are read."""

from __future__ import annotations

from collections.abc import Callable

from beam_asr.audio.source import Source
from beam_asr.errors import CorruptAudioError

_BLOCK_BYTES = 2**20


class HeaderWatch:
    """Searches the bytes of a file for a further header, as they are read.

    Args:
        source: whose reads are searched.
        first: where the search starts, behind the file's own header.
        headers: bytes that another file begins with.
        error: what is raised where one is found.
        on_end: called once all bytes have been searched.
    """

    def __init__(
        self,
        source: Source,
        first: int,
        headers: tuple[bytes, ...],
        error: CorruptAudioError,
        on_end: Callable[[Source], None] | None = None,
    ) -> None:
        self._source = source
        self._first = first
        self._headers = headers
        self._overlap = max(map(len, headers)) - 1
        self._error = error
        self._on_end = on_end
        self._end = 0  # of the last read
        self._tail = b""
        self._searched = 0  # from the start on

    def __call__(self, start: int, data: bytes) -> None:
        """Searches bytes that were read at a place.

        Raises:
            CorruptAudioError: a further header is in them.
        """
        tail = self._tail if start == self._end else b""
        seen = tail + data
        first = max(0, self._first - (start - len(tail)))
        if any(seen.find(header, first) >= 0 for header in self._headers):
            raise self._error
        self._end = start + len(data)
        self._tail = seen[-self._overlap :]
        if start <= self._searched:
            self._searched = max(self._searched, self._end)

    def read_rest(self) -> None:
        """Reads, and so searches, what has not been read, after a file was decoded to its end."""
        self._source.seek(max(0, self._searched - self._overlap))
        while self._source.read(_BLOCK_BYTES):
            pass
        if self._on_end is not None:
            self._on_end(self._source)
