"""Finds MPEG audio (MP3 and its kin) by its frame headers, and the length that one states.

Two bytes are not enough to know MPEG audio by: samples without a header begin with them too. Three
frame headers, each where the one before ends, are. A length is stated only by a Xing, Info or VBRI
header in the first frame; without one, any length is a guess from a bit rate. Formats: ISO/IEC
11172-3 and 13818-3; ID3v2.4; gabriel.mp3-tech.org/mp3infotag.html; the VBRI header of Fraunhofer.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from beam_asr.audio.source import Source
from beam_asr.storage.file_kinds import HEAD_BYTES, is_media

_MAX_TAGS = 16
_SEARCHED_BYTES = 2**16  # for the first frame; more than padding, and most of it is fetched anyway
_FRAMES = 3  # that make a stream
_HEADER_BYTES = 4
_VBRI_OFFSET = 36  # from the start of a frame
_KBIT_RATES = {  # by (MPEG 1, layer); index 0 is any rate, and 15 none
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"3DI")  # at the end, or between streams


class MpegStream(NamedTuple):
    """The first frame of a file of MPEG audio.

    Attributes:
        start: its place, in bytes.
        stated_frames: frames of samples that a Xing or VBRI header states, with the padding of the
            encoder; None if there is no such header.
        has_xing: whether it is a Xing or Info header, which libsndfile goes by.
    """

    start: int
    stated_frames: int | None
    has_xing: bool


class _Frame(NamedTuple):
    """A frame header: MPEG version's code, layer, rate in Hz, bytes, samples, side information."""

    version: int
    layer: int
    rate: int
    size: int
    samples: int
    side_bytes: int


def is_sync(head: bytes) -> bool:
    """Returns whether bytes begin as a frame of MPEG audio or of ADTS does."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def is_tag(data: bytes) -> bool:
    """Returns whether bytes between frames are a tag or padding, and so no damage."""
    return data.startswith(_TAGS) or not data.strip(b"\0")


def find_stream(source: Source, head: bytes) -> MpegStream | None:
    """Finds the first frame of a file that begins with one or with ID3v2 tags; None if none is."""
    if not (is_sync(head) or head.startswith(b"ID3")):
        return None
    start = after_tags(source, head)
    data = source.peek(start, _SEARCHED_BYTES)
    if _frame(data, 0) is None and is_media(data[:HEAD_BYTES]):
        return None  # another format, perhaps behind a tag, whose bytes may look like a last frame
    at_end = start + len(data) >= source.size
    place = data.find(b"\xff")
    while place >= 0:
        frame = _frame(data, place)
        if frame is not None and _begins_stream(data, place, frame, at_end):
            return _stream(start + place, frame, data[place : place + frame.size])
        place = data.find(b"\xff", place + 1)
    return None


def after_tags(source: Source, head: bytes) -> int:
    """Returns where the ID3v2 tags at the start of a file end, in bytes; 0 if there are none."""
    position = 0
    for _ in range(_MAX_TAGS):
        tag = head[:10] if position == 0 else source.peek(position, 10)
        if len(tag) < 10 or not tag.startswith(b"ID3") or max(tag[6:10]) > 0x7F:
            break
        size = sum(byte << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
        position += 10 + size + (10 if tag[5] & 0x10 else 0)  # a footer
    return position


def _frame(data: bytes, place: int) -> _Frame | None:
    """Parses the frame header at a place; None if there is none."""
    header = data[place : place + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES or not is_sync(header):
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_code, bit_rate_code = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer == 4 or rate_code == 3 or not 0 < bit_rate_code < 15:
        return None
    mpeg_1, mono = version == 3, header[3] >> 6 == 3
    rate = (44_100, 48_000, 32_000)[rate_code] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * _KBIT_RATES[mpeg_1, layer][bit_rate_code]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return _Frame(version, layer, rate, (12 * bits // rate + padding) * 4, 384, 0)
    samples = 576 if layer == 3 and not mpeg_1 else 1152
    side_bytes = (17 if mono else 32) if mpeg_1 else (9 if mono else 17)
    return _Frame(version, layer, rate, samples // 8 * bits // rate + padding, samples, side_bytes)


def _begins_stream(data: bytes, place: int, first: _Frame, at_end: bool) -> bool:
    """Returns whether further frames of the same kind follow, or the data end after the frame."""
    if _lengths(first, data[place : place + first.size]):
        return True
    for _ in range(_FRAMES - 1):
        place += first.size
        if place >= len(data) - _HEADER_BYTES:
            return at_end
        frame = _frame(data, place)
        if frame is None:
            return at_end and is_tag(data[place:])
        if frame[:3] != first[:3]:
            return False
        first = frame
    return True


def _stream(start: int, frame: _Frame, data: bytes) -> MpegStream:
    xing, vbri = _lengths(frame, data) or (None, None)
    stated = xing or vbri
    return MpegStream(start, stated * frame.samples if stated else None, bool(xing))


def _lengths(frame: _Frame, data: bytes) -> tuple[int | None, int | None] | None:
    """Returns the frames that a Xing and a VBRI header state; None if there is neither header."""
    for place in (_HEADER_BYTES + frame.side_bytes, _HEADER_BYTES + frame.side_bytes + 2):  # a CRC
        if data[place : place + 4] in (b"Xing", b"Info") and len(data) >= place + 12:
            flags, frames = struct.unpack_from(">II", data, place + 4)
            return frames if flags & 1 else None, None
    if data[_VBRI_OFFSET : _VBRI_OFFSET + 4] == b"VBRI" and len(data) >= _VBRI_OFFSET + 18:
        return None, struct.unpack_from(">I", data, _VBRI_OFFSET + 14)[0]
    return None
