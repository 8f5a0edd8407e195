"""Audio that lies, swells, loops or leads elsewhere ends as one failure, and so do odd paths.

Each file of the table is read in one process of their own, which a crash would end and whose
memory is measured.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from beam_asr.audio import clip_reader, reading
from beam_asr.audio.clip_reader import ClipReader
from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.errors import (
    AudioError,
    AudioMemoryError,
    AudioNotFoundError,
    AudioTimeoutError,
    CorruptAudioError,
    EmptyAudioError,
    NotAudioError,
    OffsetBeyondEndError,
    SilentAudioError,
    TooLongAudioError,
    TruncatedAudioError,
    ZeroLengthAudioError,
)
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage.storage import Storage
from tests.support.audio_files import CountingFileSystem, chirp, encode, tone
from tests.support.job_files import REPOSITORY
from tests.support.waiting import MAX_SECONDS

RATE = 16_000
HOUR = 3600 * RATE  # in samples
UINT32 = 0xFFFFFFFF
SAMPLES = "samples"  # some second of them; how many is the codec's affair
MOST_MIB = 64  # that reading a hostile file may add to the process

# Files


def sound_file(samples: np.ndarray | None = None, rate: int = RATE, **kind) -> bytes:
    """One second of a tone, unless other samples are given."""
    made = io.BytesIO()
    soundfile.write(made, tone(rate, 1.0) if samples is None else samples, rate, **kind)
    return made.getvalue()


@functools.cache
def encoded(container: str, codec: str) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        encode(file.name, tone(RATE, 1.0), codec=codec, container=container)
        return Path(file.name).read_bytes()


def put(content: bytes, position: int, value: bytes) -> bytes:
    """The content with other bytes at a position."""
    return content[:position] + value + content[position + len(value) :]


def pcm() -> bytes:
    return (tone(RATE, 1.0) * 32767).astype("<i2").tobytes()


def chunk(tag: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    return tag + struct.pack("<I", len(body) if size is None else size) + body


def wav(
    *, rate=RATE, channels=1, bits=16, code=1, align=None, size=None, before=b"", samples=None
) -> bytes:
    align = channels * bits // 8 if align is None else align
    form = struct.pack("<HHIIHH", code, channels, rate, rate * align & UINT32, align & 0xFFFF, bits)
    samples = pcm() if samples is None else samples
    body = b"WAVE" + before + chunk(b"fmt ", form) + chunk(b"data", samples, size)
    return chunk(b"RIFF", body, min(UINT32, len(body) if size is None else 36 + size))


def rf64(data_bytes: int) -> bytes:
    ds64 = chunk(b"ds64", struct.pack("<QQQI", data_bytes, data_bytes, data_bytes, 0))
    content = wav(size=UINT32, before=ds64)
    return put(content, 0, b"RF64" + struct.pack("<I", UINT32))


def aiff(position: int, value: bytes) -> bytes:
    """An AIFF with other bytes at a position in its COMM chunk."""
    content = sound_file(format="AIFF")
    return put(content, content.index(b"COMM") + 8 + position, value)


def au(offset: int, channels: int = 1) -> bytes:
    return b".snd" + struct.pack(">IIIII", offset, len(pcm()), 3, RATE, channels) + pcm()


def flac(total: int | None = None, rate: int | None = None, samples=None) -> bytes:
    """A FLAC whose STREAMINFO states another number of samples, or another rate."""
    content = sound_file(samples, format="FLAC")
    fields = int.from_bytes(content[18:26], "big")  # rate: 20 bits, ..., total: 36
    if total is not None:
        fields = fields >> 36 << 36 | total
    if rate is not None:
        fields = fields & 2**44 - 1 | rate << 44
    return put(content, 18, fields.to_bytes(8, "big"))


def flac_with(blocks: bytes) -> bytes:
    """A FLAC with these metadata blocks after its STREAMINFO."""
    content = sound_file(format="FLAC")
    return content[:42] + blocks + content[42:]


@functools.cache
def ogg_crc_table() -> list[int]:
    table = []
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = value << 1 & UINT32 ^ (0x04C11DB7 if value >> 31 else 0)
        table.append(value)
    return table


def sealed(page: bytes) -> bytes:
    """An Ogg page with its checksum (RFC 3533, section 6)."""
    page, crc = put(page, 22, bytes(4)), 0
    for byte in page:
        crc = crc << 8 & UINT32 ^ ogg_crc_table()[crc >> 24 ^ byte]
    return put(page, 22, struct.pack("<I", crc))


def ogg_chains(content: bytes) -> list[bytes]:
    pages = []
    while content:
        segments = content[26]
        size = 27 + segments + sum(content[27 : 27 + segments])
        pages.append(content[:size])
        content = content[size:]
    return pages


def ogg_page(serial: int, number: int, granule: int, packet: bytes | None, flags: int = 0) -> bytes:
    lacing = b"" if packet is None else bytes([*[255] * (len(packet) // 255), len(packet) % 255])
    fields = struct.pack("<BqIII", flags, granule, serial, number, 0)
    return sealed(b"OggS\0" + fields + bytes([len(lacing)]) + lacing + (packet or b""))


def opus(granule: int | None = None, preskip: int | None = None) -> bytes:
    """An Opus file whose last granule position, or pre-skip, is another."""
    pages = ogg_chains(sound_file(format="OGG", subtype="OPUS"))
    if granule is not None:
        pages[-1] = sealed(put(pages[-1], 6, struct.pack("<q", granule)))
    if preskip is not None:
        pages[0] = sealed(put(pages[0], 38, struct.pack("<H", preskip)))
    return b"".join(pages)


def many_tiny_pages() -> bytes:
    """An Opus file with 20,000 pages that hold nothing before those with sound."""
    first, tags, *rest = ogg_chains(sound_file(format="OGG", subtype="OPUS"))
    serial = struct.unpack_from("<I", first, 14)[0]
    empty = [ogg_page(serial, number, 0, None) for number in range(2, 20_002)]
    later = [
        sealed(put(page, 18, struct.pack("<I", 20_002 + number)))
        for number, page in enumerate(rest)
    ]
    return b"".join([first, tags, *empty, *later])


def chained_ogg() -> bytes:
    return sound_file(format="OGG") + sound_file(format="OGG")


def vorbis_with_damaged_codebooks() -> bytes:
    pages = ogg_chains(sound_file(format="OGG", subtype="VORBIS"))
    return b"".join([pages[0], sealed(put(pages[1], 200, b"\xff" * 400)), *pages[2:]])


def mp3(frames: int) -> bytes:
    """Three seconds, of which the header of the first frame states some number of frames."""
    content = sound_file(chirp(3.0), format="MP3")
    position = max(content.find(b"Xing"), content.find(b"Info"))
    return put(content, position + 8, struct.pack(">I", frames))


def mp3_of_a_variable_bit_rate_without_a_header() -> bytes:
    """Twenty quiet seconds, by whose bit rate the length is estimated, and twenty loud ones."""
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(40 * RATE) * np.repeat([1e-4, 0.3], 20 * RATE)
    made = io.BytesIO()
    with soundfile.SoundFile(
        made, "w", RATE, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3
    ) as file:
        file.write(samples)
    content = made.getvalue()
    return content[content.index(content[:2], 2) :]


def id3(size: int) -> bytes:
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0))


def box(tag: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + tag + body


def full_box(tag: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return box(tag, struct.pack(">I", flags), *parts)


def stsz(size: int, count: int) -> bytes:
    return full_box(b"stsz", struct.pack(">II", size, count))


def mp4(
    *, codec=b"sowt", rate=RATE, channels=1, count=1000, tracks=1, fragments=b"", udta=b"", **boxes
) -> bytes:
    """A thousand 16-bit samples in an MP4, whose boxes may say anything.

    Args:
        boxes: any of stsz, stsc, stco, stts and dref to put in the place of the right one.
    """
    entry = struct.pack(">HHHIHHHHI", 1, 0, 0, 0, channels, 16, 0, 0, rate << 16 & UINT32)
    right = {
        "stts": full_box(b"stts", struct.pack(">III", 1, count, 1)),
        "stsc": full_box(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        "stsz": stsz(2, count),
        "dref": full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", flags=1)),
    }
    ftyp = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomqt  ")

    def moov(position: int) -> bytes:
        made = {**right, "stco": full_box(b"stco", struct.pack(">II", 1, position)), **boxes}
        stsd = full_box(b"stsd", struct.pack(">I", 1), box(codec, bytes(6), entry))
        stbl = box(b"stbl", stsd, *(made[name] for name in ("stts", "stsc", "stsz", "stco")))
        minf = box(b"minf", full_box(b"smhd", bytes(4)), box(b"dinf", made["dref"]), stbl)
        mdhd = full_box(b"mdhd", struct.pack(">IIIIHH", 0, 0, rate, 1000, 0x55C4, 0))
        hdlr = full_box(b"hdlr", bytes(4), b"soun", bytes(12), b"s\0")
        traks = [
            box(
                b"trak",
                full_box(b"tkhd", struct.pack(">5I", 0, 0, n, 0, 1000), bytes(60), flags=7),
                box(b"mdia", mdhd, hdlr, minf),
            )
            for n in range(1, tracks + 1)
        ]
        mvhd = full_box(b"mvhd", struct.pack(">IIIIIH", 0, 0, rate, 1000, 1 << 16, 256), bytes(74))
        trex = [full_box(b"trex", struct.pack(">5I", n + 1, 1, 1, 1, 0)) for n in range(tracks)]
        return box(b"moov", mvhd, *traks, box(b"mvex", *trex) if fragments else b"", udta)

    position = len(ftyp) + len(moov(0)) + 8
    return ftyp + moov(position) + box(b"mdat", b"\x10\0" * 1000) + fragments


def trun(track: int, count: int) -> bytes:
    """A fragment that states a number of samples in a few bytes."""
    header = full_box(b"tfhd", struct.pack(">I", track))
    run = full_box(b"trun", struct.pack(">I", count))
    return box(b"moof", full_box(b"mfhd", bytes(4)), box(b"traf", header, run))


def two_durations(count: int) -> bytes:
    return full_box(b"stts", struct.pack(">5I", 2, 1, 1, count - 1, 1024))


def cover_of_a_billion_pixels() -> bytes:
    """What an M4A holds for its cover: a PNG that swells from some MB to 1.2 GB."""

    def part(tag: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(tag + body))
        return struct.pack(">I", len(body)) + tag + body + crc

    deflate = zlib.compressobj(1)
    rows = b"".join(deflate.compress(bytes(60_001 * 100)) for _ in range(200)) + deflate.flush()
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")
    data = box(b"ilst", box(b"covr", box(b"data", struct.pack(">II", 14, 0), png)))
    return box(b"udta", full_box(b"meta", full_box(b"hdlr", bytes(4), b"mdir", bytes(13)), data))


def films_beside_sound() -> bytes:
    """A MOV of sound and three videos, each frame of which is 60 MB once it is decoded."""
    with tempfile.NamedTemporaryFile() as file, av.open(file.name, "w", format="mov") as output:
        videos = [output.add_stream("png", rate=5) for _ in range(3)]
        for video in videos:
            video.width, video.height, video.pix_fmt = 4500, 4500, "rgb24"
        sound = output.add_stream("pcm_s16le", rate=RATE, layout="mono")
        image = av.VideoFrame.from_ndarray(np.zeros((4500, 4500, 3), np.uint8), format="rgb24")
        for video in videos:
            output.mux([*video.encode(image), *video.encode(None)])
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm(), np.int16)[None], layout="mono")
        frame.sample_rate = RATE
        output.mux([*sound.encode(frame), *sound.encode(None)])
        output.close()
        return Path(file.name).read_bytes()


def element(name: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    """An element of Matroska (RFC 8794)."""
    return name + b"\1" + (len(body) if size is None else size).to_bytes(7, "big") + body


EBML = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska"))
SEGMENT = b"\x18\x53\x80\x67"


def matroska(body: bytes, size: int | None = None) -> bytes:
    return EBML + element(SEGMENT, body, size)


def matroska_bomb() -> bytes:
    """Three blocks, each of 300 MB once it is decompressed."""
    compression = element(b"\x50\x34", element(b"\x42\x54", b"\0"))
    scope = element(b"\x50\x31", b"\0") + element(b"\x50\x32", b"\1") + element(b"\x50\x33", b"\0")
    sound = element(b"\xb5", struct.pack(">d", RATE)) + element(b"\x9f", b"\1")
    track = (
        element(b"\xd7", b"\1") + element(b"\x73\xc5", b"\1") + element(b"\x83", b"\2")
        + element(b"\x86", b"A_PCM/INT/LIT")
        + element(b"\xe1", sound + element(b"\x62\x64", b"\x10"))
        + element(b"\x6d\x80", element(b"\x62\x40", scope + compression))
    )  # fmt: skip
    block = element(b"\xa3", b"\x81\0\0\x80" + zlib.compress(b"\1\2" * 150_000_000, 1))
    cluster = element(b"\x1f\x43\xb6\x75", element(b"\xe7", b"\0") + block * 3)
    return matroska(element(b"\x16\x54\xae\x6b", element(b"\xae", track)) + cluster)


def patched(content: bytes, tag: bytes, position: int, value: bytes) -> bytes:
    return put(content, content.index(tag) + position, value)


def floats(value: float, channels: int = 1, subtype: str = "FLOAT") -> bytes:
    return sound_file(np.full((RATE, channels), value), format="WAV", subtype=subtype)


HUGE = b"\xff\xff\xff\x7f"
FILES: dict[str, tuple[Callable[[], bytes], type[AudioError] | int | str]] = {
    # WAV and its kin
    "wav that claims 10 h": (lambda: wav(size=10 * HOUR * 2), TruncatedAudioError),
    "wav that claims 4 GB": (lambda: wav(size=0xFFFFEFFF), TruncatedAudioError),
    "wav of 2**32-1 bytes, from a pipe": (lambda: wav(size=UINT32), RATE),
    "wav of 0 channels": (lambda: wav(channels=0), CorruptAudioError),
    "wav of 65535 channels": (lambda: wav(channels=65_535), CorruptAudioError),
    "wav of 1024 channels, in truth": (
        lambda: wav(channels=1024, samples=b"\0\1" * 1024 * 100), 100),
    "wav of 0 Hz": (lambda: wav(rate=0), CorruptAudioError),
    "wav of 1 Hz": (lambda: wav(rate=1), CorruptAudioError),
    "wav of 2**31 Hz": (lambda: wav(rate=2**31), CorruptAudioError),
    "wav of 4 GHz": (lambda: wav(rate=4_000_000_000), CorruptAudioError),
    "wav of block align 0": (lambda: wav(align=0), RATE),
    "wav of block align 65535": (lambda: wav(align=65_535), RATE),
    "adpcm of block align 0": (lambda: wav(code=0x11, bits=4, align=0), CorruptAudioError),
    "wav of 0 bits": (lambda: wav(bits=0), CorruptAudioError),
    "wav of 1 bit, in bytes": (lambda: wav(bits=1), 2 * RATE),
    "wav of 64 bits": (lambda: wav(bits=64), CorruptAudioError),
    "wav of 255 bits": (lambda: wav(bits=255), CorruptAudioError),
    "wav of 10,000 chunks": (lambda: wav(before=chunk(b"LIST", b"abcd") * 10_000), RATE),
    "wav of a million empty chunks": (
        lambda: wav(before=chunk(b"JUNK") * 1_000_000), CorruptAudioError),
    "wav of 8 MB of zeros": (lambda: b"RIFF" + HUGE + b"WAVE" + bytes(2**23), CorruptAudioError),
    "wav in wavs": (
        lambda: functools.reduce(
            lambda inner, _: chunk(b"RIFF", b"WAVE" + inner), range(500), wav()),
        CorruptAudioError),
    "wav with a chunk of 4 GB": (
        lambda: wav(before=chunk(b"bext", bytes(9), UINT32)), CorruptAudioError),
    # No file has so many: a recorder that was stopped, or a pipe, has left the size open.
    "rf64 of 2**64-1 bytes": (lambda: rf64(2**64 - 1), RATE),
    "rf64 of 2**63 bytes": (lambda: rf64(2**63), RATE),
    "rf64 of 0 bytes": (lambda: rf64(0), RATE),
    "rf64 of 2**62 bytes": (lambda: rf64(2**62), TruncatedAudioError),
    "aiff of 0 channels": (lambda: aiff(0, bytes(2)), CorruptAudioError),
    "aiff of 65535 channels": (lambda: aiff(0, b"\xff\xff"), CorruptAudioError),
    "aiff of 2**32-1 frames": (lambda: aiff(2, b"\xff" * 4), RATE),
    "aiff of infinite Hz": (lambda: aiff(8, b"\x7f\xff\x80" + bytes(7)), CorruptAudioError),
    "aiff of NaN Hz": (lambda: aiff(8, b"\x7f" + b"\xff" * 9), CorruptAudioError),
    "au that begins beyond its end": (lambda: au(UINT32), TruncatedAudioError),
    "au of 0 channels": (lambda: au(24, channels=0), CorruptAudioError),
    "caf of 2**62 bytes": (
        lambda: patched(sound_file(format="CAF"), b"data", 4, struct.pack(">q", 2**62)), RATE),
    "w64 of 2**63-1 bytes": (
        lambda: put(sound_file(format="W64"), 16, struct.pack("<q", 2**63 - 1)), RATE),
    # FLAC
    "flac of 2**36-1 samples": (lambda: flac(2**36 - 1), TooLongAudioError),
    "flac of 10 h": (lambda: flac(10 * HOUR), TruncatedAudioError),
    "flac of 13 h": (lambda: flac(13 * HOUR), TooLongAudioError),
    "flac of 0 samples, from a pipe": (lambda: flac(0), RATE),
    "flac of 0 Hz": (lambda: flac(rate=0), RATE),  # each frame states its own
    "flac of 655350 Hz": (lambda: flac(rate=655_350), 391),
    "flac of blocks of 0": (lambda: put(flac(), 8, bytes(4)), RATE),
    "flac that claims metadata of 16 MB": (
        lambda: flac_with(b"\1\xff\xff\xff"), CorruptAudioError),
    "flac that claims a comment of 4 GB": (
        lambda: flac_with(b"\4\xff\xff\xff" + b"\xf0" + b"\xff" * 7), CorruptAudioError),
    "flac of 100,000 metadata blocks": (lambda: flac_with(b"\1\0\0\0" * 100_000), RATE),
    # Ogg
    "opus to granule 2**63-1": (lambda: opus(2**63 - 1), CorruptAudioError),
    "opus to granule -1": (lambda: opus(-1), CorruptAudioError),
    "opus to granule 2**62": (lambda: opus(2**62), SAMPLES),
    "opus that skips 65535 samples": (lambda: opus(preskip=65_535), ZeroLengthAudioError),
    "opus in 20,000 tiny pages": (many_tiny_pages, RATE),
    "ogg of 3000 streams": (
        lambda: b"".join(ogg_page(n, 0, 0, b"OpusHead\1\1" + bytes(9), 2) for n in range(3000)),
        CorruptAudioError),
    "ogg of 5000 empty pages": (
        lambda: b"".join(ogg_page(1, n, 0, None) for n in range(5000)), CorruptAudioError),
    "ogg streams in a chain": (chained_ogg, CorruptAudioError),
    "vorbis with damaged codebooks": (vorbis_with_damaged_codebooks, CorruptAudioError),
    # MP3
    "mp3 of 2**32-1 frames": (lambda: mp3(UINT32), TooLongAudioError),
    "mp3 of a million frames": (lambda: mp3(1_000_000), TruncatedAudioError),
    "mp3 of 0 frames, from a pipe": (lambda: mp3(0), SAMPLES),
    "mp3 of 20 frames": (lambda: mp3(20), CorruptAudioError),
    "mp3s that were joined": (lambda: 2 * sound_file(chirp(3.0), format="MP3"), CorruptAudioError),
    "mp3 of which no header states the length": (
        mp3_of_a_variable_bit_rate_without_a_header, SAMPLES),
    "mp3 with a tag of 256 MB": (
        lambda: id3(2**28 - 1) + sound_file(chirp(3.0), format="MP3"), CorruptAudioError),
    "mp3 with 200,000 tags": (
        lambda: id3(0) * 200_000 + sound_file(chirp(3.0), format="MP3"), CorruptAudioError),
    # MP4
    "mp4": (mp4, 1000),
    "mp4 of 4 billion equal samples": (lambda: mp4(stsz=stsz(2, UINT32)), 1000),
    "mp4 of 80 million equal packets": (
        lambda: mp4(codec=b"mp4a", count=80_000_000, stts=two_durations(80_000_000),
                    stsz=stsz(1, 80_000_000)),
        (CorruptAudioError, ZeroLengthAudioError)),
    "mp4 of 60 tracks of 2.5 million packets": (
        lambda: mp4(codec=b"mp4a", count=2_500_000, tracks=60, stts=two_durations(2_500_000),
                    stsz=stsz(1, 2_500_000)),
        CorruptAudioError),
    "mp4 of a fragment of 50 million samples": (
        lambda: mp4(count=0, fragments=trun(1, 50_000_000)), CorruptAudioError),
    "mp4 of 60 fragments of 2.5 million samples": (
        lambda: mp4(count=0, tracks=60,
                    fragments=b"".join(trun(n + 1, 2_500_000) for n in range(60))),
        CorruptAudioError),
    "mp4 of a table of 4 billion sizes": (lambda: mp4(stsz=stsz(0, UINT32)), CorruptAudioError),
    "mp4 of 4 billion durations": (
        lambda: mp4(stts=full_box(b"stts", struct.pack(">I", UINT32))), CorruptAudioError),
    "mp4 of 4 billion chunks": (
        lambda: mp4(stco=full_box(b"stco", struct.pack(">I", UINT32))), ZeroLengthAudioError),
    "mp4 of a box of 2 GB": (
        lambda: box(b"ftyp", b"isom") + b"\x7f\xff\xff\xffmoov" + bytes(99), CorruptAudioError),
    "mp4 of a box of 2**64-1 bytes": (
        lambda: box(b"ftyp", b"isom") + b"\0\0\0\1moov" + b"\xff" * 8, CorruptAudioError),
    "mp4 of boxes of 0 bytes": (lambda: box(b"ftyp", b"isom") + bytes(8000), CorruptAudioError),
    "mp4 of 20,000 tracks": (
        lambda: box(b"ftyp", b"isom") + box(b"moov", box(b"trak") * 20_000), CorruptAudioError),
    "mp4 of boxes in boxes": (
        lambda: functools.reduce(lambda inner, _: box(b"moov", inner), range(3000), b""),
        CorruptAudioError),
    "mp4 of 0 Hz": (lambda: mp4(rate=0), CorruptAudioError),
    "mp4 of 65535 channels": (lambda: mp4(channels=65_535), CorruptAudioError),
    "mp4 of no known codec": (lambda: mp4(codec=b"zzzz"), CorruptAudioError),
    "m4a with a cover of 400 million pixels": (
        lambda: mp4(udta=cover_of_a_billion_pixels()), 1000),
    "mov with three films of 20 million pixels": (films_beside_sound, RATE),
    # Matroska, AVI and others
    "matroska of 2**56-2 bytes": (lambda: matroska(b"", 2**56 - 2), CorruptAudioError),
    "matroska of a header of 2**55 bytes": (
        lambda: element(b"\x1a\x45\xdf\xa3", b"", 2**55), CorruptAudioError),
    "matroska of 2 million empty elements": (
        lambda: matroska(b"\xec\x80" * 2_000_000, 2**50), CorruptAudioError),
    "matroska of NaN Hz": (
        lambda: encoded("matroska", "pcm_s16le").replace(
            struct.pack(">d", RATE), struct.pack(">d", math.nan)), SAMPLES),
    "matroska that swells to 900 MB": (matroska_bomb, (ZeroLengthAudioError, CorruptAudioError)),
    "avi of a list of 4 GB": (
        lambda: put(encoded("avi", "pcm_s16le"), 16, b"\xff" * 4), RATE),
    "avi of samples of 2 GB": (
        lambda: patched(encoded("avi", "pcm_s16le"), b"strh", 52, HUGE), RATE),
    "asf of 2**62 bytes": (
        lambda: bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + struct.pack("<QI", 2**62, 9)
        + bytes(999), CorruptAudioError),
    "amr of no frames": (lambda: b"#!AMR\n" + b"\xff" * 1000, CorruptAudioError),
    "nothing": (lambda: b"", EmptyAudioError),
    "nothing.g722": (lambda: b"", EmptyAudioError),
    "a byte of silence.g722": (lambda: b"\0", SilentAudioError),
    # What is no audio
    "text for a terminal": (lambda: b"\x1b[31mhello\x1b[0m\n" * 1000, NotAudioError),
    "subtitles": (lambda: b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 500, NotAudioError),
    "web subtitles": (lambda: b"WEBVTT\n\n00:01.000 --> 00:02.000\nhello\n\n" * 99, NotAudioError),
    "a script that makes sound without end": (
        lambda: b"## sbagen\nbase: pink/40 200+10/50\noff: -\n00:00 base\n23:59 off\n",
        NotAudioError),
    "a script for chapters": (lambda: b";FFMETADATA1\ntitle=a\n" * 100, NotAudioError),
    "a video of 65535 x 65535": (
        lambda: b"YUV4MPEG2 W65535 H65535 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(99), NotAudioError),
    "a picture of 60000 x 60000": (lambda: b"P6\n60000 60000\n255\n" + bytes(99), NotAudioError),
    "a compressed film": (
        lambda: b"CWS\6" + b"\xff" * 4 + zlib.compress(bytes(10_000_000)), NotAudioError),
    # Values
    "NaN": (lambda: floats(math.nan), CorruptAudioError),
    "infinity": (lambda: floats(-math.inf), CorruptAudioError),
    "1e30": (lambda: floats(1e30), CorruptAudioError),
    "1e300": (lambda: floats(1e300, subtype="DOUBLE"), CorruptAudioError),
    "two channels whose sum is infinite": (lambda: floats(3e38, 2), CorruptAudioError),
    "integers as floats": (lambda: floats(-32_768.0), RATE),
    "subnormal numbers": (lambda: floats(1e-40), RATE),
    "direct current at full scale": (lambda: floats(1.0), RATE),
}  # fmt: skip

READ_EACH = """
import json, sys, time
import numpy as np
from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.errors import AudioError

def memory(key):  # in MiB
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) // 1024

for path in json.load(sys.stdin):
    open("/proc/self/clear_refs", "w").write("5")  # forget the peak
    before = memory("VmRSS")
    try:
        request = AudioRequest(sample_rate=16_000)
        samples = read_audio(path, request, deadline=time.monotonic() + 600)
        outcome = {"samples": len(samples), "finite": bool(np.isfinite(samples).all())}
    except AudioError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    except BaseException as error:
        outcome = {"error": repr(error), "message": "is raised raw"}
    print(json.dumps({**outcome, "path": path, "grown": memory("VmHWM") - before}), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict]:
    """What each file of the table ends as; those are missing at which the process has ended."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = {}
    for number, (name, (build, _)) in enumerate(FILES.items()):
        path = folder / f"{number}{Path(name).suffix if name.endswith('.g722') else '.wav'}"
        path.write_bytes(build())
        paths[str(path)] = name
    found: dict[str, dict] = {}
    left = list(paths)
    while left:
        done = subprocess.run(
            [sys.executable, "-c", READ_EACH],
            input=json.dumps(left), capture_output=True, text=True, cwd=REPOSITORY,
            timeout=MAX_SECONDS,
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        found |= {paths[line["path"]]: line for line in lines}
        left = left[len(lines) + 1 :]  # the one after the last ended the process
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="measured by Linux's /proc")
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_ends_as_one_failure_or_as_its_samples(outcomes, name):
    assert name in outcomes, "it has ended the process"
    outcome, expected = outcomes[name], FILES[name][1]
    assert outcome["grown"] < MOST_MIB
    if isinstance(expected, (int, str)):
        assert "error" not in outcome, outcome
        assert outcome["finite"]
        enough = outcome["samples"] >= RATE
        assert enough if expected == SAMPLES else outcome["samples"] == expected
    else:
        classes = expected if isinstance(expected, tuple) else (expected,)
        assert outcome.get("error") in [each.__name__ for each in classes], outcome
        assert outcome["path"] in outcome["message"]
        assert len(outcome["message"]) < 500
        assert not re.search(r"\s-\d", outcome["message"]), "a size below 0"


# Files that name others


@pytest.fixture
def elsewhere(tmp_path, http_server, monkeypatch):
    """A folder with a recording that no other file may make us read, and its addresses."""
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "secret.ts", chirp(), codec="aac")
    http_server.files["secret.ts"] = (tmp_path / "secret.ts").read_bytes()
    return {
        "relative": "secret.ts",
        "absolute": str(tmp_path / "secret.ts"),
        "file": f"file://{tmp_path}/secret.ts",
        "http": http_server.url("secret.ts"),
        "concat": f"concat:{tmp_path}/secret.ts",
        "subfile": f"subfile,,start,0,end,0,,:{tmp_path}/secret.ts",
        "crypto": f"crypto:{tmp_path}/secret.ts",
        "cache": f"cache:{http_server.url('secret.ts')}",
    }


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"
REFERENCES = {
    "list.m3u8": HLS,
    "list.wav": HLS,
    "key.m3u8": '#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n'
    '#EXT-X-MAP:URI="{0}"\n#EXTINF:3,\n{0}\n#EXT-X-ENDLIST\n',
    "master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n",
    "concat.wav": "ffconcat version 1.0\nfile '{}'\n",
    "unsafe.wav": "ffconcat version 1.0\nfile '{}'\noption protocol_whitelist file,http,tcp\n",
    "dash.mpd": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static' "
    "mediaPresentationDuration='PT3S'><Period><AdaptationSet mimeType='audio/mp4'><Representation "
    "id='1' bandwidth='1'><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "list.pls": "[playlist]\nFile1={}\n",
    "list.asx": "<asx version='3.0'><entry><ref href='{}'/></entry></asx>",
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize(
    "kind", ["relative", "absolute", "file", "http", "concat", "subfile", "crypto", "cache"]
)
def test_a_list_opens_neither_another_file_nor_an_address(elsewhere, http_server, name, kind):
    Path(name).write_text(REFERENCES[name].format(elsewhere[kind]))
    with pytest.raises(NotAudioError):
        read_audio(name, AudioRequest(sample_rate=RATE))
    assert http_server.requests == []


def test_the_lists_are_ones_that_ffmpeg_follows_by_itself(elsewhere, http_server):
    """Else the test above would hold of any text."""
    for name, options in [("list.m3u8", {}), ("concat.wav", {"safe": "0"})]:
        Path(name).write_text(REFERENCES[name].format(elsewhere["absolute"]))
        with av.open(name, options=options) as container:
            assert next(container.decode(audio=0)).samples > 0
    Path("list.m3u8").write_text(HLS.format(elsewhere["http"]))
    with av.open("list.m3u8", options={"protocol_whitelist": "file,http,tcp"}) as container:
        assert next(container.decode(audio=0)).samples > 0
    assert http_server.requests != []


def test_a_session_description_opens_no_port(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1] & ~1
    sdp = (
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n"
    )
    (tmp_path / "a.sdp").write_text(sdp)
    with pytest.raises(NotAudioError):
        read_audio(str(tmp_path / "a.sdp"), AudioRequest(sample_rate=RATE))


@pytest.mark.parametrize("kind", ["relative", "absolute", "http"])
def test_an_mp4_whose_samples_are_in_another_file_reads_its_own_bytes(elsewhere, http_server, kind):
    encode("secret.wav", chirp(), codec="pcm_s16le")
    place = elsewhere[kind].replace(".ts", ".wav").encode()
    name = os.path.basename(place)
    alias = (
        bytes(6) + struct.pack(">H", 2) + bytes(2) + b"\1v" + bytes(26 + 12) + bytes([len(name)])
        + name.ljust(63, b"\0") + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
        + b"".join(struct.pack(">hH", tag, len(place)) + place + bytes(len(place) % 2)
                   for tag in (2, 18)) + struct.pack(">hH", -1, 0)
    )  # fmt: skip
    for reference in (full_box(b"alis", alias), full_box(b"url ", place + b"\0")):
        dref = full_box(b"dref", struct.pack(">I", 1), reference)
        Path("a.mp4").write_bytes(mp4(dref=dref))
        try:
            recognized = read_audio("a.mp4", AudioRequest(sample_rate=RATE))
            np.testing.assert_array_equal(recognized, np.full(1000, 16 / 2**15, np.float32))
        except ZeroLengthAudioError:
            pass
    assert http_server.requests == []


# Paths


@pytest.fixture
def paths(tmp_path) -> dict[str, str]:
    soundfile.write(tmp_path / "a.wav", tone(RATE), RATE)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "pipe.wav")
    (tmp_path / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket.wav"))
    listening.close()
    named = {path.name: str(path) for path in tmp_path.iterdir()}
    return {**named, "folder": str(tmp_path), "below a file": str(tmp_path / "a.wav" / "b.wav")}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("pipe.wav", NotAudioError),
        ("link.wav", NotAudioError),
        ("socket.wav", NotAudioError),
        ("folder", NotAudioError),
        ("/dev/zero", NotAudioError),
        ("/dev/null", NotAudioError),
        ("/dev/random", NotAudioError),
        ("file:///dev/zero", NotAudioError),
        ("simplecache::file:///dev/zero", NotAudioError),
        ("zip://a.wav::/dev/zero", NotAudioError),
        ("/proc/self/status", EmptyAudioError),
        ("/proc/self/mem", EmptyAudioError),
        ("broken.wav", AudioNotFoundError),
        ("loop.wav", AudioNotFoundError),
        ("below a file", AudioNotFoundError),
        ("a\0.wav", AudioNotFoundError),
        ("~\0/a.wav", AudioNotFoundError),
        ("a\ud800.wav", AudioNotFoundError),
        ("memory://a\ud800.wav", AudioNotFoundError),
        ("a" * 100_000 + ".wav", AudioNotFoundError),
        ("a/" * 50_000 + ".wav", AudioNotFoundError),
        ("memory://" + "a" * 100_000, AudioNotFoundError),
        ("\n\x1b[31m.wav", AudioNotFoundError),
        ("", AudioNotFoundError),
    ],
    ids=lambda value: ascii(value)[:40] if isinstance(value, str) else "",
)
def test_an_odd_path_fails_as_one_of_our_classes(paths, path, kind):
    with pytest.raises(AudioError) as caught:
        read_audio(paths.get(path, path), AudioRequest(sample_rate=RATE))
    assert caught.type is kind
    message = str(caught.value)
    assert message.isprintable()
    message.encode()
    assert len(message) < 500  # what of a message is kept
    assert message.endswith(".") or "manifest" in message


def test_standard_input_is_not_read():
    """Of a worker it may be a pipe or a terminal, which nobody will ever write to."""
    code = (
        "from beam_asr.audio.reading import AudioRequest, read_audio; "
        "read_audio('/dev/stdin', AudioRequest(sample_rate=16_000))"
    )
    ours, theirs = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=ours, capture_output=True, text=True, cwd=REPOSITORY, timeout=MAX_SECONDS,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert "NotAudioError: /dev/stdin: is a named pipe" in done.stderr


# Length


def unstated(seconds: float) -> bytes:
    """A FLAC, very small for its length, that does not state it."""
    return flac(0, samples=quiet(seconds))


def quiet(seconds: float) -> np.ndarray:
    samples = np.zeros(round(seconds * RATE), np.int16)
    samples[::160_000] = 1
    return samples


def clip(path: object, duration: float | None = None) -> Clip:
    return Clip(Row("{}"), str(path), 0.0, duration)


def test_a_header_that_states_too_much_is_enough_to_refuse_a_clip():
    assert reading.MAX_SECONDS == 12 * 3600
    with pytest.raises(TooLongAudioError, match=r"13\.0 h.*12\.0 h.*offset and duration"):
        read_audio("a.flac", AudioRequest(sample_rate=RATE), content=flac(13 * HOUR))


def test_a_part_of_a_file_that_is_too_long_is_read():
    content = flac(13 * HOUR)
    assert (
        len(read_audio("a.flac", AudioRequest(sample_rate=RATE, duration=0.5), content=content))
        == RATE // 2
    )
    with pytest.raises(TooLongAudioError):
        read_audio("a.flac", AudioRequest(sample_rate=RATE, offset=0.5), content=content)
    with pytest.raises((TruncatedAudioError, OffsetBeyondEndError)):
        read_audio("a.flac", AudioRequest(sample_rate=RATE, offset=2 * 3600), content=content)


@pytest.mark.usefixtures("counting")
def test_a_clip_that_does_not_state_its_length_is_refused_before_it_is_decoded_whole():
    CountingFileSystem.content = flac(0, samples=chirp(10.0).repeat(10))
    with pytest.raises(TooLongAudioError, match="holds at least"):
        read_audio("counting://a.flac", AudioRequest(sample_rate=RATE, max_seconds=20))
    assert CountingFileSystem.bytes_read < len(CountingFileSystem.content) / 2
    assert (
        len(read_audio("counting://a.flac", AudioRequest(sample_rate=RATE, max_seconds=100)))
        == 100 * RATE
    )


@pytest.mark.parametrize("content", [unstated, lambda seconds: flac(samples=quiet(seconds))])
def test_long_clips_among_short_ones_keep_their_order(tmp_path, monkeypatch, content):
    monkeypatch.setattr(clip_reader, "LONG_SECONDS", 30)
    seconds = [1.0, 45.0, 2.0, 50.0, 40.0, 3.0]
    for number, length in enumerate(seconds):
        (tmp_path / f"{number}.flac").write_bytes(content(length))
    reader = ClipReader(Storage(), None, 60.0, 3)
    clips = [clip(tmp_path / f"{number}.flac") for number in range(len(seconds))]
    recognized = list(reader.read(clips, RATE))
    assert [each.clip for each in recognized] == clips
    assert [len(each.waveform) / RATE for each in recognized] == seconds
    in_memory = [(each, Path(each.audio).read_bytes()) for each in clips]
    again = list(reader.decode(in_memory, RATE))
    assert [len(each.waveform) / RATE for each in again] == seconds


def test_a_long_clip_that_is_broken_fails_as_what_it_is(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac(10 * HOUR))
    (recognized,) = ClipReader(Storage(), None, 60.0, 1).read([clip(tmp_path / "a.flac")], RATE)
    assert type(recognized.error) is TruncatedAudioError


def test_the_time_limit_of_a_clip_grows_with_its_hours_and_begins_with_its_turn(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(clip_reader, "LONG_SECONDS", 1)
    limits = []

    def noted(*args, deadline, **rest):
        limits.append(deadline - clip_reader.time.monotonic())
        return read_audio(*args, deadline=deadline, **rest)

    monkeypatch.setattr(reading, "read_audio", noted)
    (tmp_path / "a.flac").write_bytes(unstated(2.0))
    reader = ClipReader(Storage(), None, 100.0, 1)
    for duration, expected in [(None, [100, 1200]), (2.0, [100]), (6 * 3600, [600])]:
        limits.clear()
        list(reader.read([clip(tmp_path / "a.flac", duration)], RATE))
        assert limits == pytest.approx(expected, abs=20)


def test_decoding_that_takes_too_long_is_given_up():
    content = flac(samples=quiet(4 * 3600))
    for offset in (0.0, 1.0):
        request = AudioRequest(sample_rate=8_000, offset=offset)
        with pytest.raises(AudioTimeoutError, match="`audio_timeout`"):
            read_audio("a.flac", request, deadline=time.monotonic() + 0.2, content=content)


READ_ALL = """
import glob, json, sys
from beam_asr.audio import clip_reader
from beam_asr.audio.clip_reader import ClipReader
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage.storage import Storage

def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) // 1024

clip_reader.LONG_SECONDS = 20
before, seconds = memory("VmRSS"), 0
clips = [Clip(Row("{}"), path, 0.0, None) for path in sorted(glob.glob(sys.argv[1]))]
for recognized in ClipReader(Storage(), None, 300.0, 4).read(clips, 16_000):
    seconds += len(recognized.waveform) / 16_000
    del recognized
print(seconds, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="measured by Linux's /proc")
@pytest.mark.parametrize("stated", [True, False])
def test_of_many_long_clips_one_is_held_at_a_time(tmp_path, stated):
    """24 clips of 15 minutes are 1.4 GB; one of them, and 20 s of each, are 88 MB."""
    content = flac(samples=quiet(900)) if stated else unstated(900)
    for number in range(24):
        (tmp_path / f"{number}.flac").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, f"{tmp_path}/*.flac"],
        capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=MAX_SECONDS,
    )  # fmt: skip
    seconds, mebibytes = map(float, done.stdout.split())
    assert seconds == 24 * 900
    assert mebibytes < 120


# Memory


def test_a_clip_for_which_there_was_no_memory_for_a_moment_is_read_again(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(RATE), RATE)
    short_of = [MemoryError("now"), MemoryError()]

    def short(*args, **rest):
        if short_of:
            raise short_of.pop()
        return read_audio(*args, **rest)

    monkeypatch.setattr(reading, "read_audio", short)
    reader = ClipReader(Storage(), None, 60.0, 1)
    first, second = reader.read([clip(tmp_path / "a.wav"), clip(tmp_path / "a.wav", 1.0)], RATE)
    assert len(first.waveform) == 2 * RATE
    assert len(second.waveform) == RATE


def test_a_clip_for_which_there_is_no_memory_fails_alone(tmp_path):
    """In a process that may have 100 MB more; an hour is 230 MB."""
    (tmp_path / "long.flac").write_bytes(flac(samples=quiet(3600)))
    soundfile.write(tmp_path / "short.wav", tone(RATE), RATE)
    code = """
import resource, sys
from beam_asr.audio import read_pool
from beam_asr.audio.clip_reader import ClipReader, Loaded
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage.storage import Storage

clips = [Clip(Row("{}"), path, 0.0, None) for path in sys.argv[1:]]
reader = ClipReader(Storage(), None, 60.0, 2)
list(reader.read(clips[:1], 16_000))  # the threads are there, and their heaps
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 10**8, size + 10**8))
for recognized in reader.read(clips, 16_000):
    outcome = recognized.waveform if isinstance(recognized, Loaded) else recognized.error
    print(type(outcome).__name__, outcome)
"""
    files = [str(tmp_path / name) for name in ("short.wav", "long.flac", "short.wav")]
    done = subprocess.run(
        [sys.executable, "-c", code, *files],
        capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=MAX_SECONDS,
    )  # fmt: skip
    kinds = [line.split()[0] for line in done.stdout.splitlines() if line[:1].isalpha()]
    assert kinds == ["ndarray", AudioMemoryError.__name__, "ndarray"], done.stdout
    assert "`max_concurrent_reads`" in done.stdout
    assert files[1] in done.stdout
