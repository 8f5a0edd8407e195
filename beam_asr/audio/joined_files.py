"""Finds files that were joined by their bytes, of which decoders would read the first one only.

Most formats state where a file ends. If bytes remain behind that end, and another file of the kind
begins among the next ones, that is an error; tags, padding and whatever else may follow. Where no
end is stated, the bytes that are read are searched for another header that nothing else resembles.
Formats of which all is read need no check: MPEG audio, ADTS, LATM, AC-3, MPEG-TS, MPEG-PS and AVI.

Formats: ISO/IEC 14496-12 (MP4); RFC 8794 (Matroska); RFC 9639 (FLAC); "Apple Core Audio Format
Specification 1.0"; "Advanced Systems Format Specification 1.2"; of others, as libsndfile and FFmpeg
read them.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from beam_asr.audio.header_watch import HeaderWatch
from beam_asr.audio.signatures import SampleChunk
from beam_asr.audio.source import Source
from beam_asr.errors import CorruptAudioError

_SEARCHED_BYTES = 2**16  # behind the end of a file; tags may come before the next one
_MAX_PARTS = 20_000  # of a file
_MAX_REMOTE_PARTS = 100  # each may take a request
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_WAVE = bytes.fromhex("77617665f3acd3118cd100c04f8edb8a")
_WTV = bytes.fromhex("b7d800203749da11a64e0007e95ead8d")
_VOC = b"Creative Voice File\x1a"
_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_TTA_BYTES = 22  # of its header


class _Format(NamedTuple):
    """A format whose files state where they end.

    Attributes:
        header: matches the beginning of a file, and nothing else.
        end: returns where a file ends; None if it does not say.
    """

    header: re.Pattern[bytes]
    end: Callable[[Source], int | None]


def check_joined(source: Source, head: bytes, samples: SampleChunk | None) -> None:
    """Checks that no second file follows the first, now and as it is read.

    Args:
        head: the first bytes.
        samples: what a WAV, RF64, AIFF or AU states of its samples.

    Raises:
        CorruptAudioError: a second file follows.
    """
    if head.startswith(_CHECKED_ELSEWHERE):
        return
    for headers in _WATCHED:
        if head.startswith(headers):
            source.watch = HeaderWatch(source, len(headers[0]), headers, _error(source))
            return
    for form in _FORMATS:
        if form.header.match(head):
            end = form.end(source) if samples is None else samples.file_end(source)
            if end is not None:
                _check_behind(source, end, form.header)
            return
    if _MP4_HEAD.match(head) and (end := _end_of_mp4(source)) is not None:
        _check_behind(source, end, _MP4)


def check_behind_flac(source: Source, position: int) -> None:
    """Raises CorruptAudioError if another FLAC follows one that a decoder has read to its end.

    Args:
        position: in bytes, somewhat behind that end, as decoders read on.
    """
    start = max(1, position - _FLAC_AHEAD_BYTES)
    data = source.read_at(start, _SEARCHED_BYTES)
    if b"fLaC" in data:  # a search of every FLAC, so a fast one comes first
        _check(source, start, data, _FLAC)


def _check_behind(source: Source, end: int, header: re.Pattern[bytes]) -> None:
    """Raises CorruptAudioError if a header comes soon behind the end of a file."""
    if end < source.size:
        start = max(1, end)
        _check(source, start, source.peek(start, _SEARCHED_BYTES), header)


def _check(source: Source, start: int, data: bytes, header: re.Pattern[bytes]) -> None:
    found = header.search(data)
    if found is not None:
        raise _error(source, f"its first {start + found.start()} bytes")


def _error(source: Source, what: str = "its first recording") -> CorruptAudioError:
    return CorruptAudioError(
        f"{source.shown}: goes on after {what} with another header, as where files were joined by "
        "their bytes. Join recordings with SoX or FFmpeg."
    )


def _parts(
    source: Source, start: int, header_bytes: int, size_of: Callable[[bytes], int]
) -> Iterator[tuple[int, bytes]]:
    """Yields the places and the first bytes of the parts of a file, and its end with none.

    Args:
        size_of: returns the size of a part with its header; 0 if there is none.
    """
    limit = _MAX_REMOTE_PARTS if source.descriptor is None else _MAX_PARTS
    for _ in range(limit):
        header = source.peek(start, header_bytes)
        size = size_of(header) if len(header) == header_bytes else 0
        if size <= 0 or start + size > source.size:
            break
        yield start, header
        start += size
    yield start, b""


def _end_of_parts(
    start: int, header_bytes: int, size_of: Callable[[bytes], int]
) -> Callable[[Source], int]:
    def end(source: Source) -> int:
        return max(place for place, _ in _parts(source, start, header_bytes, size_of))

    return end


def _end_of_mp4(source: Source) -> int | None:
    """Returns where a second file may begin; None if that is unknown.

    Fragments of another file are read too, as where each has its ``moov`` again, if their times go
    on; those whose times start again are joined. To find those of a remote file would take a
    request for each, so it is searched as it is read.
    """
    second, seen = None, set()
    for place, header in _parts(source, 0, 16, _size_of_box):
        kind = header[4:8]
        if second is None and (not kind or (kind in (b"ftyp", b"moov") and kind in seen)):
            second = place
        elif kind == b"moof" and source.descriptor is None and second is None:
            source.watch = HeaderWatch(source, 12, _MP4_BRANDS, _error(source))
            return None
        elif kind == b"moof" and b"moof" in seen and second is not None:
            times = source.peek(place, _MOOF_BYTES)
            if b"tfdt" not in times or _TFDT_0.search(times):
                break
            second = None
        if kind == b"mdat" and second is not None:
            break
        seen.add(kind)
    return second


def _size_of_box(header: bytes) -> int:
    size, kind, large = struct.unpack(">I4sQ", header)
    return 0 if not kind.strip().isalnum() else large if size == 1 else size if size >= 8 else 0


def _size_of_caf_chunk(header: bytes) -> int:
    kind, size = struct.unpack(">4sq", header)
    return 0 if kind == b"caff" or size < 0 else 12 + size


def _end_of_asf(source: Source) -> int:
    for place, header in _parts(source, 0, 24, _size_of_asf_object):
        if place and header.startswith(_ASF):
            break
    return place


def _size_of_asf_object(header: bytes) -> int:
    size: int = struct.unpack_from("<Q", header, 16)[0]
    return size if size >= 24 else 0


def _size_of_voc_block(header: bytes) -> int:
    return 4 + int.from_bytes(header[1:], "little") if 0 < header[0] < 10 else 0


def _end_of_tta(source: Source) -> int:
    rate, samples = struct.unpack("<II", source.peek(10, 8).ljust(8, b"\0"))
    frames = math.ceil(samples / max(1, rate * 256 // 245))
    table = source.peek(_TTA_BYTES, 4 * min(frames, source.size))
    sizes = struct.unpack(f"<{len(table) // 4}I", table[: len(table) // 4 * 4])
    return _TTA_BYTES + 4 * frames + 4 + sum(sizes)


def _end_of_matroska(source: Source) -> int | None:
    """Returns the end of the first segment; None if it states none, as that of a live stream."""
    is_segment = False
    for place, header in _parts(source, 0, 12, _size_of_element):
        if is_segment:
            return place
        is_segment = header.startswith(_SEGMENT)
    return None


def _size_of_element(header: bytes) -> int:
    id_bytes = 9 - header[0].bit_length()
    size_bytes = 9 - header[min(id_bytes, 4)].bit_length()
    if id_bytes > 4 or size_bytes > 8:
        return 0
    size = int.from_bytes(header[id_bytes : id_bytes + size_bytes], "big")
    unknown = (1 << 7 * size_bytes) - 1
    size &= unknown
    return 0 if size == unknown else id_bytes + size_bytes + size


def _end_of_nist(source: Source) -> int | None:
    header = source.peek(0, 1024)
    size = re.match(rb"NIST_1A\s+(\d{1,9})\s", header)
    fields = dict(re.findall(rb"\n([a-z_]+) -i (\d{1,18})\s", header))
    try:
        frame = int(fields[b"channel_count"]) * int(fields[b"sample_n_bytes"])
        return int(size[1]) + int(fields[b"sample_count"]) * frame if size else None
    except KeyError:
        return None


def _stated(place: int, layout: str, unit: int = 1, before: int = 0) -> Callable[[Source], int]:
    def end(source: Source) -> int:
        size = struct.calcsize(layout)
        number: int = struct.unpack(layout, source.peek(place, size).ljust(size, b"\0"))[0]
        return number * unit + before

    return end


def _pattern(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


_FLAC = _pattern(rb"fLaC[\0\x80]\0\0\x22")
_FLAC_AHEAD_BYTES = 2**14  # libFLAC reads 8 KiB at a time
_MP4_HEAD = _pattern(rb".{4}(?:ftyp|moov|mdat|wide|free|skip|pnot)")
_BRANDS = b"isom iso2 iso4 iso5 iso6 iso7 iso8 iso9 mp41 mp42 dash cmfc M4A M4V qt 3gp4 3gp5"
_MP4_BRANDS = tuple(b"ftyp" + brand.ljust(4) for brand in _BRANDS.split())
_MP4 = _pattern(rb"\0\0..ftyp[ -~]{4}|.{4}moov\0...mvhd")
_TFDT_0 = _pattern(rb"tfdt(?:\0.{3}\0{4}|\x01.{3}\0{8})")  # the time at which a fragment starts
_MOOF_BYTES = 1024  # in which the time of a first fragment is
_FORMATS = (
    _Format(_pattern(rb"(?:RIFF|RIFX|RF64|BW64).{4}WAVE|FORM.{4}AIF[FC]"), lambda _: None),
    _Format(_pattern(rb"\.snd\0\0.{6}\0\0\0[\x01-\x1b]\0"), lambda _: None),
    _Format(_pattern(rb"FORM.{4}(?:8SVX|16SV)"), _stated(4, ">I", before=8)),
    _Format(_pattern(rb"caff\0[\1\2]\0\0desc"), _end_of_parts(8, 12, _size_of_caf_chunk)),
    _Format(_pattern(re.escape(_ASF)), _end_of_asf),
    _Format(_pattern(rb"TTA1[\1-\3]\0.\0[\x08\x10\x18\x20]\0"), _end_of_tta),
    _Format(_pattern(_VOC + rb"\x1a\0"), _end_of_parts(26, 4, _size_of_voc_block)),
    _Format(_pattern(re.escape(_WTV)), _stated(0x5C, "<I", unit=4096)),
    _Format(_pattern(re.escape(_W64) + rb".{8}" + re.escape(_W64_WAVE)), _stated(16, "<Q")),
    _Format(_pattern(re.escape(_MATROSKA) + rb".{1,60}?\x42\x82"), _end_of_matroska),
    _Format(_pattern(rb"NIST_1A\s"), _end_of_nist),
    _Format(_pattern(rb"DSD \x1c\0{7}"), _stated(12, "<Q")),
)
_CHECKED_ELSEWHERE = (b"fLaC", b"OggS")
_WATCHED = (  # what files begin with that state no end
    (b"#!AMR\n",),
    (b"#!AMR-WB\n",),
    tuple(b"FLV\1%c\0\0\0\x09\0\0\0\0" % flags for flags in (1, 4, 5)),
    (b"nut/multimedia container\0",),
)
