"""Tells how long the packets of an Ogg last, without decoding them."""

from __future__ import annotations

import struct
from typing import Protocol

_MODE_BITS = 41  # of Vorbis' setup: block flag 1, window 16, transform 16, mapping 8
_MAX_MODES = 64


class Codec(Protocol):
    """Knows the packets of one stream, which it is given in their order."""

    rate: int  # of the clock, in Hz

    def samples(self, packet: bytes) -> int | None:
        """Returns how many samples a packet adds: 0 for a header; None if that is not known."""

    def skip(self) -> None:
        """Says that the next packet is not the one after the last."""


def codec_of(packet: bytes) -> Codec | None:
    """Returns the codec of a stream by its first packet; None for another than these three."""
    if packet.startswith(b"OpusHead"):
        return _Opus()
    if packet.startswith(b"\x01vorbis") and len(packet) > 28:
        return _Vorbis(packet)
    if packet.startswith(b"\x7fFLAC") and len(packet) > 30:
        return _Flac(packet)
    return None


class _Opus:
    """RFC 6716, section 3: the first byte tells the frames' length, it or the second how many."""

    rate = 48_000

    def samples(self, packet: bytes) -> int | None:
        if packet.startswith((b"OpusHead", b"OpusTags")) or not packet:
            return 0
        configuration, kind = packet[0] >> 3, packet[0] & 3
        if configuration < 12:
            frame = (480, 960, 1920, 2880)[configuration & 3]
        elif configuration < 16:
            frame = (480, 960)[configuration & 1]
        else:
            frame = 120 << (configuration & 3)
        if kind == 3:
            return frame * (packet[1] & 63) if len(packet) > 1 else 0
        return frame * (1, 2, 2)[kind]

    def skip(self) -> None:
        pass


class _Vorbis:
    """Vorbis I, sections 4.2 and 4.3: the mode of a packet tells the size of its block.

    A block overlaps the one before; from the first, no samples come.
    """

    def __init__(self, identification: bytes) -> None:
        self.rate: int = struct.unpack_from("<I", identification, 12)[0]
        self._sizes = 1 << (identification[28] & 15), 1 << (identification[28] >> 4)
        self._is_long: list[int] = []  # of each mode
        self._last: int | None = 0

    def samples(self, packet: bytes) -> int | None:
        if not packet:
            return 0
        if packet[0] & 1:
            if packet.startswith(b"\x05vorbis"):
                self._is_long = _modes(packet)
            return 0
        if not self._is_long:
            return None
        mode = packet[0] >> 1 & (1 << (len(self._is_long) - 1).bit_length()) - 1
        if mode >= len(self._is_long):
            return 0  # no packet of this stream: decoders drop it
        size, last = self._sizes[self._is_long[mode]], self._last
        self._last = size
        if last is None:
            return None
        return (last + size) // 4 if last else 0

    def skip(self) -> None:
        self._last = None


def _modes(setup: bytes) -> list[int]:
    """Returns the block flags of the modes, the last part of Vorbis' setup; none if it is damaged.

    As in FFmpeg, the modes are read from the end: what comes before them would take a decoder.
    They begin with their number, and each with a flag and 32 zeros.
    """
    bits = int.from_bytes(setup, "little")
    top = bits.bit_length() - 1  # the framing bit
    flags: list[int] = []
    found: list[int] = []
    while top >= _MODE_BITS + 6 and len(flags) < _MAX_MODES:
        top -= _MODE_BITS
        mode = bits >> top & (1 << _MODE_BITS) - 1
        if mode >> 33 > 63 or mode >> 1 & 0xFFFFFFFF:
            break
        flags.insert(0, mode & 1)
        if (bits >> (top - 6) & 63) + 1 == len(flags):
            found = list(flags)
    return found


class _Flac:
    """RFC 9639, sections 9.1.1 and 10.1: a frame's header tells its block size."""

    def __init__(self, first: bytes) -> None:
        self.rate: int = int.from_bytes(first[27:30], "big") >> 4

    def samples(self, packet: bytes) -> int | None:
        if not packet.startswith(b"\xff") or len(packet) < 5:
            return 0
        code = packet[2] >> 4
        if code == 1:
            return 192
        if code < 6:
            return 144 << code
        if code > 7:
            return 1 << code
        ones = 8 - (packet[4] ^ 0xFF).bit_length()  # of the frame's number, coded as in UTF-8
        start = 4 + max(1, ones)
        return int.from_bytes(packet[start : start + code - 5], "big") + 1

    def skip(self) -> None:
        pass
