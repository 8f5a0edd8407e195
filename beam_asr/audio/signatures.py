"""Identifies files by their first bytes, and checks the sizes that headers state."""

from __future__ import annotations

import struct

from beam_asr.audio.source import Source
from beam_asr.errors import (
    CorruptAudioError,
    NotAudioError,
    TruncatedAudioError,
    WrongExtensionError,
    ZeroLengthAudioError,
)
from beam_asr.storage.uris import extension, is_audio

_MAX_CHUNKS = 20_000  # of a WAV or AIFF before its samples


def zero_length_error(source: Source) -> ZeroLengthAudioError:
    """Returns the error of a file without samples."""
    return ZeroLengthAudioError(
        f"{source.shown}: the header is valid but no samples follow. Drop the row."
    )


_FOREIGN = (  # (offset, signature, what it is); https://en.wikipedia.org/wiki/List_of_file_signatures
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b\x08", "gzip-compressed data"),
    (0, b"BZh", "bzip2-compressed data"),
    (0, b"\xfd7zXZ\x00", "xz-compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (257, b"ustar", "a tar archive"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it points to,"),
)
_FOREIGN_TEXT = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"<error", "an XML document"),
    (b"{", "a JSON document"),
    (b"[", "a JSON document"),
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r")
AUDIO_SIGNATURES = (  # distinguish a damaged recording from other content
    *((0, tag) for tag in (b"RIFF", b"RF64", b"RIFX", b"FORM", b".snd", b"fLaC", b"OggS", b"ID3")),
    *((0, tag) for tag in (b"#!AMR", b"NIST_1A", b"caff", b"FLV\x01")),
    *((0, tag) for tag in (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")),  # Matroska, ASF
    *((4, tag) for tag in (b"ftyp", b"moov", b"mdat")),
)
MPEG_AUDIO = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9")


def foreign_kind(head: bytes) -> str | None:
    """Names the content of a file that is certainly not audio, by its first bytes; else None."""
    for offset, signature, kind in _FOREIGN:
        if head.startswith(signature, offset):
            return kind
    if _CONTROLS.intersection(head):  # samples may well begin with a brace
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for start, kind in _FOREIGN_TEXT if text.startswith(start)), None)


def foreign_error(source: Source, kind: str) -> NotAudioError:
    """Returns the error of a file that is not audio."""
    if is_audio(source.path):
        return WrongExtensionError(
            f"{source.shown}: is {kind} although it is named {extension(source.path)}. "
            "Put the recording in its place or drop the row."
        )
    return NotAudioError(f"{source.shown}: is {kind}. Correct the path in the manifest.")


def check_chunk_sizes(source: Source, head: bytes) -> None:
    """Raises if a WAV, RF64, AIFF or AU header states more bytes of samples than the file has.

    libsndfile reads such a file to its end without an error. Formats: "Multimedia
    Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech 3306 (RF64), "Audio
    Interchange File Format 1.3" (AIFF).
    """
    chunk = _sample_chunk(source, head)
    if chunk is None:
        return
    start, size = chunk
    if size == 0 and struct.unpack_from("<I", head, 4)[0] + 8 == source.size:
        raise zero_length_error(source)
    # Pipes cannot go back to fill in the size, and leave 0 or a number near 2**31 or 2**32; some
    # writers count the header (44 bytes or a little more) among the samples.
    placeholder = size == 0 or 0x7F000000 <= size < 2**31 or 0xFFFFF000 <= size < 2**32
    available = max(0, source.size - start)
    if not placeholder and size > available + 64:
        raise TruncatedAudioError(
            f"{source.shown}: the header promises {size} bytes of samples but the file holds "
            f"{available}. Copy the file again from its origin."
        )


def _sample_chunk(source: Source, head: bytes) -> tuple[int, int] | None:
    """Returns (offset, stated size) in bytes of the samples; None if there is no such chunk."""
    if head[:4] == b".snd" and len(head) >= 12:
        return struct.unpack_from(">II", head, 4)
    if head[8:12] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    order = ">" if head[:4] in (b"FORM", b"RIFX") else "<"
    position, size_64 = 12, None
    for _ in range(_MAX_CHUNKS):
        header = source.peek(position, 8)
        if len(header) < 8:
            return None
        tag, size = struct.unpack(order + "4sI", header)
        if tag in (b"data", b"SSND"):
            in_ds64 = size == 0xFFFFFFFF and size_64 is not None
            return position + 8, size_64 if in_ds64 and size_64 is not None else size
        if tag == b"ds64" and len(sizes := source.peek(position + 8, 16)) == 16:
            size_64 = struct.unpack("<QQ", sizes)[1]
        position += 8 + size + size % 2
    raise CorruptAudioError(
        f"{source.shown}: the header has more than {_MAX_CHUNKS} chunks before its samples. "
        "Write it again."
    )


OGG_PAGE_FRAMES = 2**18  # in most of a page: 255 packets of at most 1024
_OGG_BEGINS = 2  # flag of a stream's first page


def has_several_streams(head: bytes) -> bool:
    """Returns whether an Ogg holds several streams at once, as sound and picture."""
    if not head.startswith(b"OggS") or len(head) < 27:
        return False
    page = head[27 + head[26] + sum(head[27 : 27 + head[26]]) :]
    return len(page) > 5 and bool(page[5] & _OGG_BEGINS)


def check_last_page(source: Source, head: bytes) -> None:
    """Raises if an Ogg file ends in the middle of a page, or of another stream than it begins with.

    libsndfile just stops, at the end of the first stream if several are chained. Format: RFC 3533,
    section 6. A live recording without an end-of-stream mark passes.
    """
    if not head.startswith(b"OggS"):
        return
    tail = source.peek(max(0, source.size - 65_307), 65_307)  # the largest page
    page = tail[tail.rfind(b"OggS") :]
    table = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(table) < page[26] or len(page) < 27 + len(table) + sum(table):
        raise TruncatedAudioError(
            f"{source.shown}: its {source.size} bytes end in the middle of an Ogg page. "
            "Copy the file again from its origin."
        )
    if page[14:18] != head[14:18] and not has_several_streams(head):
        raise CorruptAudioError(
            f"{source.shown}: is a chain of Ogg streams, of which only the first would be heard. "
            "Convert it, for example to FLAC."
        )
