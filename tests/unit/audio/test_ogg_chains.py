"""Chains of Ogg streams: a part is never taken for the whole, wherever another stream begins."""

from __future__ import annotations

import functools
import io
import struct

import av
import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio import ogg_chains
from beam_asr.audio.reading import AudioRequest, can_seek, stream_audio
from beam_asr.audio.source import Source
from tests.support.audio_files import RATE, check_error, chirp, encode, read
from tests.support.ffmpeg import lengthen, mux_audio

UINT32 = 0xFFFFFFFF
CODECS = ["OPUS", "VORBIS", "FLAC"]
MEBIBYTE = 2**20


@pytest.fixture(autouse=True)
def nothing_checked(monkeypatch):
    monkeypatch.setattr(ogg_chains, "_checked", {})


@functools.cache
def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@functools.cache
def stream(codec: str, seconds: float, serial: int = 0) -> bytes:
    """A stream of a serial number, which is that of all that a recorder writes, or many do."""
    made = io.BytesIO()
    if codec == "VORBIS":
        soundfile.write(made, noise(seconds), RATE, format="OGG", subtype=codec)
        return with_serial(made.getvalue(), serial)
    made.name = "a.ogg"
    rate = 48_000 if codec == "OPUS" else RATE
    options = {"fflags": "+bitexact", "serial_offset": str(serial)}
    if codec == "OPUS" and seconds > 10:
        short = io.BytesIO(stream(codec, 10.0, serial))
        lengthen(short, made, seconds, options)
        return made.getvalue()
    encode(
        made, chirp(seconds, rate) + 0.1 * np.resize(noise(5), round(seconds * rate)),
        codec="libopus" if codec == "OPUS" else "flac", rate=rate, container="ogg",
        options=options, stream_options={"b": "256k", "compression_level": "0"},
    )  # fmt: skip
    return made.getvalue()


def with_serial(content: bytes, serial: int) -> bytes:
    """The same stream under another number, with its pages' checksums (RFC 3533, section 6)."""
    pages = []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        page, content = content[:size], content[size:]
        page = page[:14] + struct.pack("<I", serial) + page[18:22] + bytes(4) + page[26:]
        crc = 0
        for byte in page:
            crc ^= byte << 24
            for _ in range(8):
                crc = crc << 1 & UINT32 ^ (0x04C11DB7 if crc & 1 << 31 else 0)
        pages.append(page[:22] + struct.pack("<I", crc) + page[26:])
    return b"".join(pages)


def error_of(path, **request) -> errors.AudioError | None:
    try:
        read(path, **request)
    except errors.AudioError as error:
        return error
    return None


def is_chain(path, content=None, **request) -> None:
    check_error(
        path, errors.CorruptAudioError, "a chain of Ogg streams", content=content, **request
    )


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("seconds", [(2.0, 3.0), (3.0, 3.0), (3.0, 1.0), (1.0, 2.0, 3.0)])
def test_pieces_of_one_serial_number_are_a_chain(tmp_path, codec, seconds):
    content = b"".join(stream(codec, each) for each in seconds)
    (tmp_path / "rec.ogg").write_bytes(content)

    is_chain(tmp_path / "rec.ogg")
    is_chain("member.ogg", content)
    is_chain(tmp_path / "rec.ogg", duration=seconds[0])  # its row states one piece's length
    is_chain(tmp_path / "rec.ogg", offset=seconds[0] - 0.5)
    with pytest.raises(errors.CorruptAudioError, match="a chain"):
        can_seek(str(tmp_path / "rec.ogg"))
    (tmp_path / "rec.ogg").write_bytes(stream(codec, seconds[0]))
    assert len(read(tmp_path / "rec.ogg")) == pytest.approx(seconds[0] * RATE, abs=1024)


@pytest.mark.parametrize("number", [0, 5])
def test_a_chain_behind_a_tag_is_found(tmp_path, number):
    path = tmp_path / "rec.ogg"
    tag = b"ID3\4\0\0\0\0\7\x68" + bytes(1000)
    path.write_bytes(tag + stream("OPUS", 2.0))
    assert len(read(path)) == pytest.approx(2.0 * RATE, abs=1024)
    path.write_bytes(tag + stream("OPUS", 2.0) + stream("OPUS", 3.0, number))
    is_chain(path)


@pytest.mark.parametrize("codec", CODECS)
def test_a_piece_of_another_number_in_the_middle_is_a_chain(tmp_path, codec):
    pieces = stream(codec, 2.0), stream(codec, 3.0, 5), stream(codec, 2.0)
    (tmp_path / "rec.ogg").write_bytes(b"".join(pieces))
    is_chain(tmp_path / "rec.ogg")


def test_speex_pieces_are_a_chain(tmp_path):
    """Also of a codec that only FFmpeg decodes; it sees no pages."""
    header = b"Speex   1.2".ljust(28, b"\0") + struct.pack(
        "<13i", 1, 80, 16_000, 1, 4, 1, -1, 320, 0, 1, 0, 0, 0
    )
    pages = [(2, header), (0, b"\0" * 8), *((0, bytes(60)) for _ in range(9)), (4, bytes(60))]
    piece = b"".join(
        with_serial(
            struct.pack("<4sxBqIIIBB", b"OggS", flags, 320 * number, 0, number, 0, 1, len(data))
            + data, 3,
        )
        for number, (flags, data) in enumerate(pages)
    )  # fmt: skip
    (tmp_path / "rec.spx").write_bytes(piece)
    assert "chain" not in str(error_of(tmp_path / "rec.spx"))
    (tmp_path / "rec.spx").write_bytes(2 * piece)
    is_chain(tmp_path / "rec.spx")


def test_streams_at_one_time_are_no_chain(tmp_path):
    path = tmp_path / "two.ogg"
    with av.open(str(path), "w") as output:
        streams = [output.add_stream("flac", rate=RATE, layout="mono") for _ in range(2)]
        for each in streams:
            each.codec_context.open()
        for each in streams:
            frame = av.AudioFrame.from_ndarray(chirp(3)[None], format="fltp", layout="mono")
            mux_audio(output, each, frame, RATE, "mono")
    assert abs(len(read(path)) - 3 * RATE) < 4096


# Behind a network


@pytest.mark.parametrize("codec", ["OPUS", "FLAC"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.99])
def test_a_remote_chain_is_found_wherever_it_is_read(counting, codec, share):
    seconds = 60.0
    first = round(seconds * share, 1)
    counting.content = stream(codec, first) + stream(codec, round(seconds - first, 1))
    assert len(counting.content) > MEBIBYTE  # else it is in memory

    is_chain("counting://rec.ogg")
    is_chain("counting://rec.ogg", duration=seconds)
    is_chain("counting://rec.ogg", offset=0.5 * first, duration=1.0)
    is_chain("counting://rec.ogg", offset=seconds - 2.0, duration=1.0)
    is_chain("counting://rec.ogg", offset=0.9 * seconds)


@functools.cache
def dense(seconds: float, level: float) -> bytes:
    """A stream whose bit rate depends on its level."""
    made = io.BytesIO()
    made.name = "a.ogg"
    samples = np.resize(noise(5), round(seconds * RATE)) * np.float32(level)
    encode(made, samples, codec="flac", container="ogg", options={"fflags": "+bitexact"})
    return made.getvalue()


@pytest.mark.parametrize("place", [1.02, 1.1, 1.3, 1.45])
@pytest.mark.parametrize("level", [0.03, 0.01, 0.002, 1e-4])
def test_a_remote_chain_is_found_whose_second_piece_takes_fewer_bytes(counting, place, level):
    """Its times overtake those of the first before the next place that is looked at."""
    looked_at = int(2**16 * 1.5**6)
    first = dense(60.0, 1.0)
    first = dense(round(60.0 * looked_at * place / len(first), 1), 1.0)
    counting.content = first + dense(600.0, level)
    is_chain("counting://rec.ogg", offset=500.0, duration=1.0)


def test_many_short_pieces_behind_a_network(counting):
    counting.content = stream("FLAC", 5.0) * 15
    is_chain("counting://rec.ogg", offset=3.0, duration=1.0)
    is_chain("counting://rec.ogg")


def test_a_range_of_a_long_remote_file_fetches_little_of_it(counting):
    counting.content = stream("OPUS", 200.0)  # FFmpeg reads FLAC, from the start on
    size = len(counting.content)
    assert size > 3 * MEBIBYTE
    fetched = []
    for _ in range(2):
        before = counting.bytes_read
        assert len(read("counting://rec.ogg", offset=100.0, duration=1.0)) == RATE
        fetched.append(counting.bytes_read - before)
    probes = len(list(ogg_chains._places(size)))
    assert probes < 16
    assert fetched[0] < fetched[1] + (probes + 3) * 2**16  # the places are looked at once
    assert fetched[1] < size / 4


def test_a_remote_file_that_is_read_whole_is_fetched_about_once(counting):
    counting.content = stream("FLAC", 60.0)
    assert len(counting.content) > MEBIBYTE  # else it is in memory
    blocks = stream_audio("counting://rec.ogg", AudioRequest(sample_rate=RATE))
    assert sum(map(len, blocks)) == 60 * RATE
    assert counting.bytes_read < 1.2 * len(counting.content)


@pytest.mark.parametrize("quiet_first", [False, True])
def test_a_bit_rate_that_changes_is_no_chain(counting, quiet_first):
    levels = np.repeat([1e-4, 1.0] if quiet_first else [1.0, 1e-4], 100 * RATE)
    made = io.BytesIO()
    made.name = "a.ogg"
    encode(made, (np.resize(noise(5), 200 * RATE) * levels).astype("f4"), codec="flac",
           container="ogg")  # fmt: skip
    counting.content = made.getvalue()
    for offset in (1.0, 99.0, 150.0):
        assert len(read("counting://rec.ogg", offset=offset, duration=1.0)) == RATE


def test_pages_out_of_order_without_a_beginning_are_no_chain(counting):
    """Some recorders number all pages alike; only a page that begins a stream makes a chain."""
    content, pages = stream("FLAC", 60.0), []
    while content:
        size = 27 + content[26] + sum(content[27 : 27 + content[26]])
        pages.append(content[:18] + bytes(4) + content[22:size])
        content = content[size:]
    counting.content = b"".join(pages)
    assert "chain" not in str(error_of("counting://rec.ogg", offset=30.0, duration=1.0))


@pytest.mark.parametrize("cut", range(495, 512))
def test_a_beginning_is_found_across_two_reads(cut):
    page = bytes(500) + b"OggS\0\2" + bytes(500)
    source = Source("a.ogg", io.BytesIO(page), len(page))
    source.watch = ogg_chains.chain_watch(source, 100)
    source.read(cut)
    source.read()
    assert isinstance(source.failure, errors.CorruptAudioError)

    source = Source("a.ogg", io.BytesIO(page), len(page))
    source.watch = ogg_chains.chain_watch(source, 501)  # within the first pages
    source.read()
    assert source.failure is None
