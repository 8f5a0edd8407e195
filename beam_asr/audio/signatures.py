"""Identifies files by their first bytes, and checks the sizes that headers state."""

from __future__ import annotations

import struct
from typing import NamedTuple

from beam_asr.audio.ogg_chains import chain_error
from beam_asr.audio.ogg_pages import MAX_PAGE_BYTES
from beam_asr.audio.source import Source
from beam_asr.errors import (
    CorruptAudioError,
    NotAudioError,
    TruncatedAudioError,
    WrongExtensionError,
    ZeroLengthAudioError,
)
from beam_asr.storage.file_kinds import is_audio
from beam_asr.storage.uris import extension

_MAX_CHUNKS = 20_000  # of a WAV or AIFF before its samples


def zero_length_error(source: Source) -> ZeroLengthAudioError:
    """Returns the error of a file without samples."""
    return ZeroLengthAudioError(
        f"{source.shown}: the header is valid but no samples follow. Drop the row."
    )


def foreign_error(source: Source, kind: str) -> NotAudioError:
    """Returns the error of a file that is not audio."""
    if is_audio(source.path):
        return WrongExtensionError(
            f"{source.shown}: is {kind} although it is named {extension(source.path)}. "
            "Put the recording in its place or drop the row."
        )
    return NotAudioError(f"{source.shown}: is {kind}. Correct the path in the manifest.")


_SLIN_KHZ = {8: 8000, 12: 12000, 16: 16000, 24: 24000, 32: 32000, 44: 44100, 48: 48000}
_PCM = "-ar RATE -ac CHANNELS -i"
_HEADERLESS = (  # extensions, what their files hold, and the command that reads them
    (".ulaw .ul .ulw .mu .mulaw .pcmu", "mu-law (G.711)", "ffmpeg -f mulaw -ar 8000 -ac 1 -i"),
    (".alaw .al .alw .pcma", "A-law (G.711)", "ffmpeg -f alaw -ar 8000 -ac 1 -i"),
    (".sln .slin", "16-bit PCM of Asterisk", "ffmpeg -f s16le -ar 8000 -ac 1 -i"),
    *(
        (f".sln{khz} .slin{khz}", "16-bit PCM of Asterisk", f"ffmpeg -f s16le -ar {hz} -ac 1 -i")
        for khz, hz in _SLIN_KHZ.items()
    ),
    (".vox", "Dialogic ADPCM", "sox -t vox -r 8000"),
    (".g721 .g726 .g726-32", "G.726", "ffmpeg -f g726 -code_size 4 -ar 8000 -i"),
    (".g726-16", "G.726", "ffmpeg -f g726 -code_size 2 -ar 8000 -i"),
    (".g726-24", "G.726", "ffmpeg -f g726 -code_size 3 -ar 8000 -i"),
    (".g726-40", "G.726", "ffmpeg -f g726 -code_size 5 -ar 8000 -i"),
    (".g723", "G.723.1", "ffmpeg -f g723_1 -i"),
    (".g729", "G.729", "ffmpeg -f g729 -i"),
    (".raw .pcm .lpcm .s16 .s16le .sw", "PCM", f"ffmpeg -f s16le {_PCM}"),
    (".s16be", "PCM", f"ffmpeg -f s16be {_PCM}"),
    (".u16 .u16le .uw", "PCM", f"ffmpeg -f u16le {_PCM}"),
    (".s8 .sb", "PCM", f"ffmpeg -f s8 {_PCM}"),
    (".u8 .ub", "PCM", f"ffmpeg -f u8 {_PCM}"),
    (".s24 .s24le", "PCM", f"ffmpeg -f s24le {_PCM}"),
    (".s32 .s32le .sl", "PCM", f"ffmpeg -f s32le {_PCM}"),
    (".f32 .f32le", "PCM", f"ffmpeg -f f32le {_PCM}"),
    (".f64 .f64le", "PCM", f"ffmpeg -f f64le {_PCM}"),
)
_HEADERLESS_BY_EXTENSION = {
    name: (what, command) for names, what, command in _HEADERLESS for name in names.split()
}


def check_header(source: Source) -> None:
    """Raises if the content of a file without a known signature has no header, by its extension.

    Any bytes are samples, so to try decoders would be to guess, also the rate.
    """
    name = extension(source.path)
    if name in _HEADERLESS_BY_EXTENSION:
        what, command = _HEADERLESS_BY_EXTENSION[name]
        raise NotAudioError(
            f"{source.shown}: is named {name}, as {what} without a header, so nothing in it states "
            f"its sample rate or channels. Convert it, for example by `{command} in{name} "
            "out.wav`, with the rate and the channels of the recording."
        )


class SampleChunk(NamedTuple):
    """What the header of a WAV, RF64, AIFF or AU states of its samples.

    Attributes:
        start: their first byte.
        size: in bytes.
        file_size: of the whole file, in bytes; that of an AU is ``start + size``.
        sizes_64: the place of the sizes in 64 bits of an RF64; None if there are none.
    """

    start: int
    size: int
    file_size: int
    sizes_64: int | None = None

    @property
    def has_size(self) -> bool:
        """Returns whether the size is one, and not what a recorder has not filled in.

        Pipes cannot go back to do so, and leave 0 or a number near 2**31, 2**32 or 2**64.
        """
        size = self.size
        unfilled = 0x7F000000 <= size < 2**31 or 0xFFFFF000 <= size < 2**32 or size >= 2**63
        return size > 0 and not unfilled

    def file_end(self, source: Source) -> int | None:
        """Returns the place behind the file, in bytes; None if the header states none."""
        if not self.has_size:
            return None
        end = self.start + self.size
        return max(end, self.file_size) if self.file_size <= source.size else end


def check_chunk_sizes(source: Source, head: bytes) -> SampleChunk | None:
    """Checks the size of the samples in the header of a WAV, RF64, AIFF or AU; None for others.

    libsndfile reads a file that has fewer to its end without an error. Formats: "Multimedia
    Programming Interface and Data Specifications 1.0" (RIFF), EBU Tech 3306 (RF64), "Audio
    Interchange File Format 1.3" (AIFF).

    Raises:
        TruncatedAudioError: the header states more bytes than the file has.
        ZeroLengthAudioError: there are no samples.
    """
    chunk = _sample_chunk(source, head)
    if chunk is None:
        return None
    if chunk.size == 0 and _is_empty(source, head, chunk):
        raise zero_length_error(source)
    available = max(0, source.size - chunk.start)
    # Some writers count the header (44 bytes or a little more) among the samples.
    if chunk.has_size and chunk.size > available + 64:
        raise TruncatedAudioError(
            f"{source.shown}: the header promises {chunk.size} bytes of samples but the file holds "
            f"{available}. Copy the file again from its origin."
        )
    return chunk


def fill_in_size(source: Source, chunk: SampleChunk) -> None:
    """Presents an RF64 or AU without a size of its samples with the one that they have.

    Decoders would read none, though they read on to the end of a WAV.
    """
    if chunk.has_size:
        return
    unknown = b"\xff" * 4
    if chunk.sizes_64 is not None:
        sizes = struct.pack("<QQQ", source.size - 8, source.size - chunk.start, 0)
        source.present(0, source.size, {chunk.sizes_64: sizes, chunk.start - 4: unknown})
    elif source.peek(0, 4) == b".snd":
        source.present(0, source.size, {8: unknown})


def _is_empty(source: Source, head: bytes, chunk: SampleChunk) -> bool:
    """Returns whether a file whose samples have no bytes, by their chunk, really has none.

    Recorders that were stopped leave the chunk's size at 0, some with the file's size right, and
    the samples follow. In a file without samples only chunks do, up to its end.
    """
    if chunk.file_size != source.size:
        return False
    order = ">" if head[:4] in (b"FORM", b"RIFX") else "<"
    position = chunk.start
    for _ in range(_MAX_CHUNKS):
        if position >= source.size:
            break
        header = source.peek(position, 8)
        tag, size = struct.unpack(order + "4sI", header) if len(header) == 8 else (b"", 0)
        if not (tag.isascii() and tag.decode().isprintable() and tag):
            return False
        position += 8 + size + size % 2
    return position == source.size


def _sample_chunk(source: Source, head: bytes) -> SampleChunk | None:
    """Returns what a header states of the samples; None if there is no such chunk."""
    if head[:4] == b".snd" and len(head) >= 12:
        start, size = struct.unpack_from(">II", head, 4)
        return SampleChunk(start, size, start + size)
    if head[8:12] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    order = ">" if head[:4] in (b"FORM", b"RIFX") else "<"
    file_size = struct.unpack_from(order + "I", head, 4)[0] + 8
    position, sizes_64, size_64 = 12, None, 0
    for _ in range(_MAX_CHUNKS):
        header = source.peek(position, 8)
        if len(header) < 8:
            return None
        tag, size = struct.unpack(order + "4sI", header)
        if tag in (b"data", b"SSND"):
            size = size_64 if size == 0xFFFFFFFF and sizes_64 is not None else size
            return SampleChunk(position + 8, size, file_size, sizes_64)
        if tag == b"ds64" and len(sizes := source.peek(position + 8, 16)) == 16:
            sizes_64 = position + 8
            file_size, size_64 = struct.unpack("<QQ", sizes)
            file_size += 8
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
    tail = source.peek(max(0, source.size - MAX_PAGE_BYTES), MAX_PAGE_BYTES)
    page = tail[tail.rfind(b"OggS") :]
    table = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if len(page) < 27 or len(table) < page[26] or len(page) < 27 + len(table) + sum(table):
        raise TruncatedAudioError(
            f"{source.shown}: its {source.size} bytes end in the middle of an Ogg page. "
            "Copy the file again from its origin."
        )
    if page[14:18] != head[14:18] and not has_several_streams(head):
        raise chain_error(source)
