"""Tells what a file holds, by its name and by its first bytes: audio, text, or something else."""

from __future__ import annotations

import re

from beam_asr.storage.uris import extension

# The extensions of what libsndfile and FFmpeg read here: those that they list themselves, and the
# usual other names of the same formats. Not those of files without a header (.raw, .vox, .ulaw,
# .sln), which neither of them reads, nor those of formats that are known by their names only (.sbc,
# .g723) or state no rate (.xi), nor .dat, .mat, .mod and the like, which mostly are no audio.
AUDIO_EXTENSIONS = frozenset(
    # WAV and its kin, uncompressed audio
    ".8svx .afc .aif .aifc .aiff .au .avr .bwf .caf .dsf .htk .iff .ircam .nist .paf .pvf .rf64 "
    ".sds .sf .snd .sox .sph .svx .voc .w64 .wav .wave .wve "
    # codecs by themselves
    ".3ga .aa .aa3 .aac .ac3 .adts .amr .ape .awb .c2 .dss .dts .dtshd .eac3 .ec3 .flac .g722 "
    ".gsm .latm .loas .m2a .mac .mlp .mp1 .mp2 .mp3 .mpa .mpc .mpga .oma .omg .qcp "
    ".shn .tak .thd .tta .wv .xwma "
    # containers, of video too
    ".3g2 .3gp .3gpp .asf .avi .dv .f4a .f4v .flv .isma .ismv .m2p .m2t .m2ts .m4a .m4b .m4r .m4v "
    ".mj2 .mk3d .mka .mkv .mov .mp4 .mpeg .mpg .mts .mxf .nsv .nut .oga .ogg .ogm .ogv .ogx .opus "
    ".psp .qt .ra .rm .rmvb .spx .ts .vob .weba .webm .wma .wmv .wtv".split()
)
SOURCE_CODE_EXTENSIONS = frozenset([".ts", ".mts"])  # of TypeScript, unless it is a video

HEAD_BYTES = 4096  # of a file, which show what it holds
RECORDING = "a recording"
UTF_16 = "text in UTF-16 or UTF-32"


def is_audio(uri: str) -> bool:
    """Returns whether a file is audio by its name."""
    return extension(uri) in AUDIO_EXTENSIONS


JSON = "a JSON document"
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
    (b"{", JSON),
    (b"[", JSON),
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r")
_CONTROL_BYTES = [bytes([code]) for code in _CONTROLS]
AUDIO_SIGNATURES = (  # distinguish a damaged recording from other content
    *((0, tag) for tag in (b"RIFF", b"RF64", b"RIFX", b"FORM", b".snd", b"fLaC", b"OggS", b"ID3")),
    *((0, tag) for tag in (b"#!AMR", b"NIST_1A", b"caff", b"FLV\x01")),
    *((0, tag) for tag in (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")),  # Matroska, ASF
    *((4, tag) for tag in (b"ftyp", b"moov", b"mdat")),
)
MPEG_AUDIO = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9")

MEDIA_SIGNATURES = (  # of what is no text in any case
    *((0, tag) for tag in (b"\0\0\x01\xba", b"\0\0\x01\xb3", b"\x06\x0e\x2b\x34")),  # MPEG, MXF
    *((0, tag) for tag in (b".RMF", b".ra\xfd", b"nut/multimedia", b"NSVf", b"NSVs")),
    *(
        (0, tag) for tag in (b"\xb7\xd8\x00\x20\x37\x49\xda\x11", b"riff\x2e\x91\xcf\x11")
    ),  # WTV, W64
    *((0, tag) for tag in (b"wvpk", b"MAC ", b"TTA1", b"tBaK", b"MPCK", b"MP+", b"ajkg", b"DSD ")),
    *((0, tag) for tag in (b"\x0b\x77", b"\x7f\xfe\x80\x01", b"\xf8\x72\x6f")),  # AC-3, DTS, MLP
    *(
        (0, tag)
        for tag in (b"Creative Voice File", b"2BIT", b"\x02dss", b"\x03ds2", b"\xc0\xde\xc2")
    ),
    *(
        (0, tag)
        for tag in (b"\0\0\xa3\x64", b"\x64\xa3", b".SoX", b"XoS.", b"PVF1", b" paf", b"fap ")
    ),
    (0, b"ALawSoundFile**"),
    (4, b"\xf8\x72\x6f"),  # MLP and TrueHD
)
_RECURRING = (  # first place, distance, byte, mask
    *((0, distance, 0x47, 0xFF) for distance in (188, 204)),  # MPEG-TS
    (4, 192, 0x47, 0xFF),  # M2TS
    (0, 33, 0xD0, 0xF0),  # GSM 6.10
)


# It includes the field's name and its colon: a line break and a brace alone may be in a recording.
_JSON_LINE = re.compile(rb'(?:\A|[\r\n])[ \t]*\{[ \t]*"[^"\x00-\x1f]{1,99}"[ \t]*:')


def foreign_kind(head: bytes) -> str | None:
    """Names the content of a file that is certainly not audio, by its first bytes; else None."""
    for offset, signature, kind in _FOREIGN:
        if head.startswith(signature, offset):
            return kind
    if _CONTROLS.intersection(head):  # samples may well begin with a brace
        return None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for start, kind in _FOREIGN_TEXT if text.startswith(start)), None)


def is_media(head: bytes) -> bool:
    """Returns whether a file is a recording, of audio or video, by its first `HEAD_BYTES`.

    Only for a file that may well be none: what a decoder accepts is more.
    """
    starts = (*AUDIO_SIGNATURES, *MEDIA_SIGNATURES)
    if any(head.startswith(tag, offset) for offset, tag in starts):
        return True
    recurs = any(_recurs(head, *mark) for mark in _RECURRING)
    return _is_mpeg_audio(head) or (recurs and not is_text(head))


def is_text(head: bytes) -> bool:
    """Returns whether a file is text, of any encoding that keeps ASCII, by its first bytes.

    A line of JSON is text, whatever else comes before or after it.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start in (b"{", b"[", b'"') or _JSON_LINE.search(head):
        return True
    return sum(map(head.count, _CONTROL_BYTES)) <= len(head) / 50


def content_kind(head: bytes) -> str | None:
    """Names the content of a file that is no text of rows, by its first bytes; else None."""
    kind = foreign_kind(head)
    if kind is not None and kind != JSON:
        return kind
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _has_wide_letters(head):
        return UTF_16
    if is_media(head):
        return RECORDING
    return None if is_text(head) else "no text"


def _has_wide_letters(head: bytes) -> bool:
    """Returns whether bytes are the text of rows, with zeros before or behind each letter."""
    letters = head.replace(b"\0", b"")
    starts = letters.lstrip().startswith((b"{", b"[")) and not _JSON_LINE.search(head)
    return starts and 5 * len(letters) <= 3 * len(head)  # some letters fill both bytes


def _is_mpeg_audio(head: bytes) -> bool:
    """Returns whether a file begins with a frame of MP1, MP2, MP3, ADTS or LOAS."""
    if len(head) < 4 or head.startswith(b"\xff\xfe"):  # which begins UTF-16 text
        return False
    first, second, third = head[:3]
    if first == 0x56 and second & 0xE0 == 0xE0:  # LOAS: the next frame follows
        length = ((second & 0x1F) << 8 | third) + 3
        return head[length : length + 1] == b"\x56"
    is_adts = second & 0xF6 == 0xF0 and third >> 2 & 0x0F <= 12
    is_layer = second & 0xE0 == 0xE0 and second & 0x18 != 0x08 and second & 0x06 != 0
    return first == 0xFF and (is_adts or (is_layer and third >> 4 < 15 and third & 0x0C != 0x0C))


def _recurs(head: bytes, first: int, distance: int, mark: int, mask: int) -> bool:
    """Returns whether a marked byte comes at the same distance, five times."""
    places = range(first, first + 5 * distance, distance)
    return len(head) > places[-1] and all(head[place] & mask == mark for place in places)
