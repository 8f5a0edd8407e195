"""The faults of rows and of their audio: a row each, and the error that it must end as."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.support.servers import FaultyHttpServer
from tests.support.timed_files import Track, write

RATE = 16_000


@dataclass(frozen=True)
class Fault:
    """A line of a manifest with a fault in it or in its audio.

    Attributes:
        name: unique.
        line: of the manifest.
        stage: in which it must fail.
        error: the type of error that it must end as.
    """

    name: str
    line: bytes
    stage: str
    error: str


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    """Something that is not silent, with some noise."""
    times = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, len(times))
    return (0.3 * np.sin(2 * np.pi * 220 * times) + noise).astype(np.float32)


def of_manifests(folder: Path) -> list[Fault]:
    """Lines that are no rows."""
    audio = str(folder / "whole.wav")
    soundfile.write(audio, tone(2.0), RATE, subtype="PCM_16")

    def line(**fields: Any) -> bytes:
        return json.dumps({"audio_filepath": audio, **fields}).encode()

    quoted = json.dumps(audio).encode()
    deep = b"[" * 5000 + b"]" * 5000
    return [
        Fault(name, content, "manifest", error)
        for name, content, error in [
            ("cut off", b'{"audio_filepath": "a.wav"', "NotJsonError"),
            ("prose", b"see the other file", "NotJsonError"),
            ("two objects", line() + line(), "NotJsonError"),
            ("NUL bytes", b"\0" * 64, "NotJsonError"),
            ("invalid UTF-8", b'{"audio_filepath": "\xff\xfe.wav"}', "NotJsonError"),
            (
                "nested too deep",
                b'{"audio_filepath": %s, "x": %s}' % (quoted, deep),
                "NotJsonError",
            ),
            ("a list", b'["a.wav"]', "NotAnObjectError"),
            ("a number", b"17", "NotAnObjectError"),
            (
                "a key twice",
                b'{"audio_filepath": %s, "n": 1, "n": 2}' % quoted,
                "DuplicateKeyError",
            ),
            ("no audio", b'{"text": "a"}', "MissingAudioError"),
            ("audio is null", b'{"audio_filepath": null}', "MissingAudioError"),
            ("audio is a number", b'{"audio_filepath": 3}', "BadFieldError"),
            ("audio is blank", b'{"audio_filepath": "  "}', "BadFieldError"),
            ("offset is text", line(offset="3"), "BadFieldError"),
            ("a decimal comma", line(duration="1,5"), "BadFieldError"),
            ("a part of JSON over several lines", b"{", "NotJsonError"),
            ("offset is NaN", line(offset=float("nan")), "BadFieldError"),
            ("offset is negative", line(offset=-1), "BadFieldError"),
            ("offset is true", line(offset=True), "BadFieldError"),
            ("duration is zero", line(duration=0), "BadFieldError"),
            ("duration is infinite", line()[:-1] + b', "duration": 1e999}', "BadFieldError"),
            ("channel is a word", line(channel="left"), "BadFieldError"),
            ("several channels", line(channel=[0, 1]), "BadFieldError"),
            ("a NUL in the path", b'{"audio_filepath": "a\\u0000b.wav"}', "BadFieldError"),
            ("half a surrogate in the path", b'{"audio_filepath": "\\ud800"}', "BadFieldError"),
            ("a line of 20 MB", line(x="x" * 20_000_000), "LineTooLongError"),
        ]
    ]


def of_audio(folder: Path, server: FaultyHttpServer | None = None) -> list[Fault]:
    """Rows whose audio cannot be read; with a server, also audio that it does not give."""
    faults: list[Fault] = []

    def add(name: str, error: str, audio: str, **fields: Any) -> None:
        row = json.dumps({"audio_filepath": audio, **fields})
        faults.append(Fault(name, row.encode(), "audio", error))

    def put(name: str, error: str, file: str, content: bytes, **fields: Any) -> None:
        (folder / file).write_bytes(content)
        add(name, error, str(folder / file), **fields)

    def written(samples: np.ndarray, file: str, rate: int = RATE, **how: Any) -> bytes:
        soundfile.write(folder / file, samples, rate, **how)
        return (folder / file).read_bytes()

    wav = written(tone(2.0), "good.wav", subtype="PCM_16")
    flac = written(tone(8.0), "good.flac")
    spoilt = bytearray(flac)
    middle = len(flac) // 2
    spoilt[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)

    add("no such file", "AudioNotFoundError", str(folder / "nowhere.wav"))
    add("no such storage", "StorageError", "nowhere://bucket/a.wav")
    (folder / "sub").mkdir()
    add("a folder", "NotAudioError", str(folder / "sub"))
    os.mkfifo(folder / "fifo.wav")
    add("a pipe", "NotAudioError", str(folder / "fifo.wav"))
    add("a device", "NotAudioError", "/dev/zero")
    (folder / "broken.wav").symlink_to(folder / "gone.wav")
    add("a broken link", "AudioNotFoundError", str(folder / "broken.wav"))
    add("an endless path", "AudioNotFoundError", str(folder / ("x" * 100_000)))
    put("empty", "EmptyAudioError", "empty.wav", b"")
    put("noise", "NotAudioError", "noise.bin", np.random.default_rng(2).bytes(5000))
    put("a picture", "WrongExtensionError", "png.wav", b"\x89PNG\r\n\x1a\n" + bytes(500))
    put("a web page", "WrongExtensionError", "html.flac", b"<!doctype html><html>not found")
    put("a pointer of Git LFS", "WrongExtensionError", "lfs.wav", b"version https://git-lfs.gi")
    playlist = f"#EXTM3U\n#EXTINF:2,\n{folder / 'good.wav'}\n".encode()
    put("a playlist", "NotAudioError", "list.m3u8", playlist)
    put("WAV cut off", "TruncatedAudioError", "cut.wav", wav[: len(wav) // 2])
    put("FLAC cut off", "TruncatedAudioError", "cut.flac", flac[: len(flac) // 2])
    ogg = written(tone(2.0), "good.ogg", subtype="VORBIS")
    put("pieces of one Ogg stream", "CorruptAudioError", "pieces.ogg", ogg + ogg)
    put("a piece of a longer row", "CorruptAudioError", "piece.ogg", ogg + ogg, duration=2.0)
    mp3 = written(tone(8.0), "good.mp3")
    put("MP3 cut off", "TruncatedAudioError", "cut.mp3", mp3[: len(mp3) // 2])
    call = b"\xff\xfb\x90\x64" + wav[44:]  # begins as an MP3 does
    for name in ("ulaw", "alaw", "sln", "vox", "raw"):
        put(f"samples without a header, {name}", "NotAudioError", f"call.{name}", call)
    put("FLAC spoilt", "CorruptAudioError", "spoilt.flac", bytes(spoilt))
    lie = wav[:40] + struct.pack("<I", 10 * 3600 * 2 * RATE) + wav[44:]
    put("claims ten hours", "TruncatedAudioError", "lie.wav", lie)
    put("header alone", "ZeroLengthAudioError", "header.wav", _riff(wav[12:36], b""))
    for name, rate in (("rate 0", 0), ("rate 4 GHz", 4_000_000_000)):
        header = wav[:24] + struct.pack("<I", rate) + wav[28:]
        put(name, "CorruptAudioError", f"{name}.wav", header)
    for name, channels in (("no channels", 0), ("65535 channels", 65535)):
        put(
            name,
            "CorruptAudioError",
            f"{name}.wav",
            wav[:22] + struct.pack("<H", channels) + wav[24:],
        )
    written(np.zeros(RATE), "silent.wav")
    add("exactly silent", "SilentAudioError", str(folder / "silent.wav"))
    for name, value in (("NaN", np.nan), ("infinity", np.inf)):
        samples = tone(1.0)
        samples[500] = value
        written(samples, f"{name}.wav", subtype="FLOAT")
        add(f"{name} among the samples", "CorruptAudioError", str(folder / f"{name}.wav"))
    write(folder / "once.mkv", Track([(0.0, tone(2.0))], "aac", RATE))
    once = (folder / "once.mkv").read_bytes()
    put("a Matroska whose clock begins again", "CorruptAudioError", "again.mkv", once + once)
    for name, codec in (("mp4", "aac"), ("mka", "libopus")):
        rate = 48_000 if codec == "libopus" else RATE
        pieces = [(0.0, tone(1.0, rate)), (4.0, tone(1.0, rate))]
        write(folder / f"hole.{name}", Track(pieces, codec, rate))
        hole = str(folder / f"hole.{name}")
        add(f"all of it is in a hole, {name}", "SilentAudioError", hole, offset=2.0, duration=1.0)
        add(f"behind the end of a hole's file, {name}", "OffsetBeyondEndError", hole, offset=9.0)
    one, none = tone(1.0), 0 * tone(1.0)
    talkers = [np.stack(pair, 1) for pair in ((one, none), (none, one), (one, -one))]
    written(np.concatenate(talkers), "cancel.wav")
    add("channels that cancel", "CancelledChannelsError", str(folder / "cancel.wav"))
    good = str(folder / "good.wav")
    add("offset beyond the end", "OffsetBeyondEndError", good, offset=99)
    add("duration beyond the end", "TruncatedAudioError", good, duration=30.0)
    add("a channel that is not there", "ChannelError", good, channel=1)
    add("a cut of a channel that is not there", "ChannelError", "", **_cut(good, channel=0, of=5))
    if server is not None:
        for status, error in ((403, "AudioAccessError"), (404, "AudioNotFoundError")):
            add(f"HTTP {status}", error, _served(server, f"{status}.wav", wav, status=status))
        cut = _served(server, "cut.wav", wav, cut=0.5)
        add("a connection that breaks", "ClientPayloadError", cut)
        stalled = _served(server, "stalled.wav", wav, stall=0.5)
        add("a server that stops answering", "AudioTimeoutError", stalled)
    return faults


def _riff(fmt: bytes, data: bytes) -> bytes:
    chunks = b"WAVE" + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def _cut(audio: str, channel: int, of: int) -> dict[str, Any]:
    """A cut of Lhotse's, of the last of some channels in a file that has fewer."""
    source = {"type": "file", "channels": list(range(channel, of)), "source": audio}
    recording = {"id": "r", "sources": [source], "sampling_rate": RATE}
    return {
        "audio_filepath": None,
        "id": "c",
        "type": "MonoCut",
        "start": 0.0,
        "duration": 1.0,
        "channel": of - 1,
        "recording": recording,
    }


def _served(server: FaultyHttpServer, name: str, content: bytes, **behavior: Any) -> str:
    assert isinstance(server.files, dict)
    server.files[name] = content
    server.behave(name, **behavior)
    return server.url(name)
