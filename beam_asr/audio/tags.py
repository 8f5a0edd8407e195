"""Leaves out the tags around a file of a format that has none, for all decoders at once.

Some taggers put ID3v2 before anything, and ID3v1 or APEv2 behind it. Decoders know only the tags of
their own format. Formats: id3.org (ID3v1, ID3v2.4); wiki.hydrogenaud.io/index.php?title=APEv2.
"""

from __future__ import annotations

import struct

from beam_asr.audio import mpeg_audio
from beam_asr.audio.mpeg_audio import MpegStream
from beam_asr.audio.source import Source
from beam_asr.storage.file_kinds import HEAD_BYTES, is_media

_APE_BYTES = 32  # of a header or a footer
_APE_HAS_HEADER = 1 << 31  # a flag
_ID3V1_BYTES = 128
# Of WavPack, AC-3, AMR and LATM, FFmpeg takes all that follows for frames. To look for tags behind
# others would take a request of each remote file.
_READ_TO_END = (b"wvpk", b"\x0b\x77", b"#!AMR", b"\x56")


def leave_out_tags(source: Source, head: bytes, mpeg: MpegStream | None) -> bytes:
    """Presents a file without the tags around it; returns the first bytes without them.

    Args:
        head: the first bytes.
        mpeg: its first frame if the file is MPEG audio, whose decoders know the tags.
    """
    start, end = 0, source.size
    if mpeg is None and head.startswith(b"ID3"):
        position = mpeg_audio.after_tags(source, head)
        if is_media(source.peek(position, HEAD_BYTES)):
            start = position
    first = source.peek(start, len(head)) if start else head
    if first.startswith(_READ_TO_END):
        end = _before_tags(source)
    if start or end < source.size:
        source.present(start, end)
    return first


def _before_tags(source: Source) -> int:
    """Returns where the tags at the end of a file begin, in bytes."""
    tail = source.peek(max(0, source.size - _ID3V1_BYTES - _APE_BYTES), _ID3V1_BYTES + _APE_BYTES)
    end = source.size
    if tail[-_ID3V1_BYTES:].startswith(b"TAG"):
        end -= _ID3V1_BYTES
        tail = tail[:-_ID3V1_BYTES]
    footer = tail[-_APE_BYTES:]
    if footer.startswith(b"APETAGEX") and len(footer) == _APE_BYTES:
        size, _, flags = struct.unpack_from("<III", footer, 12)
        size += _APE_BYTES if flags & _APE_HAS_HEADER else 0
        end = max(0, end - size)
    return end
