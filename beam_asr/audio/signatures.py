"""Identifies files by their first bytes, and checks the sizes that headers state."""

from __future__ import annotations

import struct

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
_SMALLEST_BYTES = 44  # of a WAV, and about of an AIFF


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


def check_chunk_sizes(source: Source, head: bytes) -> None:
    """Raises if a WAV, RF64, AIFF or AU header states more bytes of samples than the file has.

    Also if a second file follows the first. libsndfile reads the one to its end, and of the other
    the first file, without an error. Formats: "Multimedia Programming Interface and Data
    Specifications 1.0" (RIFF), EBU Tech 3306 (RF64), "Audio Interchange File Format 1.3" (AIFF).
    """
    chunk = _sample_chunk(source, head)
    if chunk is None:
        return
    start, size = chunk
    if size == 0 and head[:4] != b".snd" and _is_empty(source, head, start):
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
    if not placeholder and head[:4] != b".snd":
        _check_joined(source, head, start + size)


def _check_joined(source: Source, head: bytes, samples_end: int) -> None:
    """Raises if a second WAV or AIFF follows the first, of which alone decoders know."""
    order = ">" if head[:4] in (b"FORM", b"RIFX") else "<"
    end = struct.unpack_from(order + "I", head, 4)[0] + 8
    if not samples_end <= end <= source.size - _SMALLEST_BYTES:
        return
    rest = source.peek(end, 13)  # some pad a chunk to an even number of bytes, and some do not
    tags = head[:4], head[8:12]
    if any((rest[at : at + 4], rest[at + 8 : at + 12]) == tags for at in (0, 1)):
        raise CorruptAudioError(
            f"{source.shown}: goes on after its first {end} bytes with another header, as where "
            "files were joined by their bytes. Join recordings with SoX or FFmpeg."
        )


def _is_empty(source: Source, head: bytes, start: int) -> bool:
    """Returns whether a file whose samples have no bytes, by their chunk, really has none.

    Recorders that were stopped leave the chunk's size at 0, some with the file's size right, and
    the samples follow. In a file without samples only chunks do, up to its end.
    """
    order = ">" if head[:4] in (b"FORM", b"RIFX") else "<"
    if struct.unpack_from(order + "I", head, 4)[0] + 8 != source.size:
        return False
    position = start
    for _ in range(_MAX_CHUNKS):
        if position >= source.size:
            break
        header = source.peek(position, 8)
        tag, size = struct.unpack(order + "4sI", header) if len(header) == 8 else (b"", 0)
        if not (tag.isascii() and tag.decode().isprintable() and tag):
            return False
        position += 8 + size + size % 2
    return position == source.size


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
