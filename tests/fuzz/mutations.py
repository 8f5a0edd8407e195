"""Changes to bytes that make readers stumble: of bits, numbers, sizes, blocks and words."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence

from tests.fuzz.targets import HEADER

LONGEST = 2**18  # bytes of an input

NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFF)
NUMBERS += (0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
TAG = re.compile(rb"[A-Za-z0-9 _]{4}")

WORDS: dict[str, tuple[bytes, ...]] = {
    "manifest": (
        *(b"~", b"\\u0000", b"\\ud800", b"\\udc00", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1c"),
        *(b"\n", b"\r", b"\r\n", b"\xc2\x85", b"\xe2\x80\xa8", b"\xc2\xa0", b" ", b"\t"),
        *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"'", b"null", b"true", b"{}", b"[]"),
        *(b"NaN", b"Infinity", b"-1", b"1e999", b"-0", b"1e-400", b"9" * 400, b"9" * 5000),
        *(b"[" * n + b"]" * n for n in (20, 900, 960, 990, 2000)),
        *(b'{"a":' * n + b"1" + b"}" * n for n in (900, 960, 990)),
        *(b'"audio_filepath"', b'"offset"', b'"duration"', b'"error"', b'"type"', b'"MonoCut"'),
        *(b'"recording"', b'"channel"', b'"sources"', b"::", b"file://", b"../", b"/", b"a://b"),
    ),
    "audio": (
        *(b"RIFF", b"RF64", b"WAVE", b"fmt ", b"data", b"ds64", b"fact", b"LIST", b"FORM", b"AIFF"),
        *(b"AIFC", b"COMM", b"SSND", b".snd", b"fLaC", b"OggS", b"OpusHead", b"caff", b"desc"),
        *(b"ID3", b"ftyp", b"moov", b"mdat", b"stts", b"stsc", b"stco", b"stsz", b"esds", b"edts"),
        *(b"\x1a\x45\xdf\xa3", b"\xff\xfb", b"\xff\xf1", b"#!AMR\n", b"#EXTM3U\n", b"file:/etc/"),
    ),
    "tar": (
        *(b"ustar\0" + b"00", b"ustar  \0", b"././@LongLink", b"path=", b"size=", b"linkpath="),
        *(b"GNU.sparse.major=1\n", b"GNU.sparse.map=", b"GNU.sparse.realsize=", b"SCHILY.xattr"),
        *(b"x", b"g", b"L", b"K", b"S", b"0", b"1", b"2", b"5", b"7", b"\0" * 512, b"\0" * 1024),
        *(b"77777777777\0", b"\x80" + b"\0" * 6 + b"\xff" * 5, b"\xff" * 12, b"\x80" + b"\0" * 11),
        *(
            b".json",
            b".wav",
            b".txt",
            b"-sub1",
            b"./",
            b"::",
            b"__",
            b"/",
            b"tar://",
            b"\xff",
            b"=",
        ),
        *(b"[" * 990 + b"]" * 990, b'{"a":' * 990 + b"1" + b"}" * 990, b"\\ud800", b"hdrcharset="),
    ),
}


class Mutator:
    """Makes inputs from inputs.

    Attributes:
        random: where all choices come from, so that a seed gives the same inputs again.
        words: tokens of the formats.
    """

    def __init__(self, rng: random.Random, words: Sequence[bytes]) -> None:
        self.random = rng
        self.words = words
        self._changes: tuple[Callable[[bytearray, Sequence[bytes]], None], ...] = (
            self._flip_bits,
            self._set_bytes,
            self._set_number,
            self._set_size_after_tag,
            self._set_digits,
            self._put_word,
            self._remove,
            self._repeat,
            self._truncate,
            self._splice,
        )

    def mutate(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """An input changed in one to some places.

        Args:
            corpus: inputs of which parts may be taken.
        """
        header, content = bytearray(data[:HEADER].ljust(HEADER, b"\0")), bytearray(data[HEADER:])
        if self.random.random() < 0.4:
            header[self.random.randrange(HEADER)] = self.random.randrange(256)
        for _ in range(1 << self.random.randrange(5)):
            self.random.choice(self._changes)(content, corpus)
        del content[LONGEST:]
        if self.random.random() < 0.7:
            repair_tar_headers(content)
            repair_ogg_chains(content)
        return bytes(header + content)

    def _place(self, content: bytearray) -> int:
        """A place; half of the times near the start, where headers are."""
        end = len(content) + 1
        return self.random.randrange(min(end, 600) if self.random.random() < 0.5 else end)

    def _length(self, content: bytearray) -> int:
        return self.random.randrange(1 + min(len(content), 1 << self.random.randrange(14)))

    def _flip_bits(self, content: bytearray, _: Sequence[bytes]) -> None:
        if content:
            place = self._place(content) % len(content)
            content[place] ^= 1 << self.random.randrange(8)

    def _set_bytes(self, content: bytearray, _: Sequence[bytes]) -> None:
        place = self._place(content)
        size = min(len(content) - place, self.random.choice((1, 1, 2, 4, 16)))
        content[place : place + size] = self.random.randbytes(size)

    def _set_number(self, content: bytearray, _: Sequence[bytes]) -> None:
        self._put_number(content, self._place(content))

    def _set_size_after_tag(self, content: bytearray, _: Sequence[bytes]) -> None:
        tags = [found.end() for found in TAG.finditer(content, 0, 2**14)]
        if tags:
            self._put_number(content, self.random.choice(tags) - self.random.choice((0, 0, 8)))

    def _put_number(self, content: bytearray, place: int) -> None:
        width, code = self.random.choice(((1, "B"), (2, "H"), (4, "I"), (4, "I"), (8, "Q")))
        if not 0 <= place <= len(content) - width:
            return
        form = self.random.choice("<>") + code
        mask = 2 ** (8 * width) - 1
        if self.random.random() < 0.4:
            number = struct.unpack_from(form, content, place)[0] + self.random.randint(-20, 20)
        else:
            number = self.random.choice((*NUMBERS, len(content)))
        struct.pack_into(form, content, place, number & mask)

    def _set_digits(self, content: bytearray, _: Sequence[bytes]) -> None:
        runs = [found.span() for found in re.finditer(rb"\d+", content[: 2**14])]
        if runs:
            start, end = self.random.choice(runs)
            digits = str(self.random.choice(NUMBERS)).encode()
            same_width = self.random.random() < 0.5
            content[start:end] = (
                digits.zfill(end - start)[-(end - start) :] if same_width else digits
            )

    def _put_word(self, content: bytearray, _: Sequence[bytes]) -> None:
        place, word = self._place(content), self.random.choice(self.words)
        over = len(word) if self.random.random() < 0.5 else 0
        content[place : place + over] = word

    def _remove(self, content: bytearray, _: Sequence[bytes]) -> None:
        place = self._place(content)
        del content[place : place + self._length(content)]

    def _repeat(self, content: bytearray, _: Sequence[bytes]) -> None:
        place = self._place(content)
        block = content[place : place + self._length(content)]
        content[place:place] = block * self.random.choice((1, 1, 1, 2, 10))

    def _truncate(self, content: bytearray, _: Sequence[bytes]) -> None:
        if self.random.random() < 0.3:
            del content[self._place(content) :]

    def _splice(self, content: bytearray, corpus: Sequence[bytes]) -> None:
        other = self.random.choice(corpus)[HEADER:]
        start = self.random.randrange(len(other) + 1)
        block = other[start : start + self.random.choice((4, 32, 512, 4096, len(other)))]
        place = self._place(content)
        over = len(block) if self.random.random() < 0.5 else 0
        content[place : place + over] = block


def repair_tar_headers(content: bytearray) -> None:
    """Sums the headers of a tar again; a reader looks no further at one whose sum is wrong."""
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])


def repair_ogg_chains(content: bytearray) -> None:
    """Sums the pages of an Ogg file again (RFC 3533, section 6)."""
    start = content.find(b"OggS")
    while start >= 0 and len(content) >= start + 27:
        segments = content[start + 26]
        table = content[start + 27 : start + 27 + segments]
        end = start + 27 + segments + sum(table)
        content[start + 22 : start + 26] = bytes(4)
        content[start + 22 : start + 26] = _ogg_sum(content[start:end]).to_bytes(4, "little")
        start = content.find(b"OggS", start + 4)


def _ogg_sum(page: bytes | bytearray) -> int:
    """CRC-32 with its bits in the other order than zlib's, without inversions."""
    swapped = page.translate(_REVERSED)
    # zlib inverts before and after; a start of all ones makes its register zero.
    crc = zlib.crc32(swapped, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
