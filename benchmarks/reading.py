"""How reading from a server far away behaves: bytes fetched for bytes needed, and rows a second.

    .venv/bin/python -m benchmarks.reading

The server is a process of its own on loopback that waits before each answer. Nothing of a model is
loaded: only reading and decoding are measured.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import av
import fsspec
import numpy as np
import soundfile

from beam_asr.audio.clip_reader import ClipReader, Loaded
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage.storage import Storage

RATE = 16_000
LATENCY_SECONDS = 0.05
LONG_SECONDS = 2 * 3600
SEGMENT_SECONDS = 10.0
SEGMENTS = 10
CLIPS_AT_A_TIME = 60  # for each concurrent read
CLIP_SECONDS = 8.0


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        long_files(folder)
        short_files(folder)
        with server(folder) as url:
            bytes_fetched(folder, url)
            rows_a_second(url)


def bytes_fetched(folder: Path, url: str) -> None:
    print(
        f"{SEGMENTS} rows of {SEGMENT_SECONDS:g} s of a recording of {LONG_SECONDS / 3600:g} h: "
        "bytes fetched, as multiples of the rows' share of the file"
    )
    print("| file | size MB | needed MB | beam_asr | fsspec's own file | whole file for each row |")
    print("| --- | --- | --- | --- | --- | --- |")
    starts = np.linspace(300, LONG_SECONDS - 300, SEGMENTS).round(3)
    for path in sorted(folder.glob("long.*")):
        size = path.stat().st_size
        needed = size * SEGMENTS * SEGMENT_SECONDS / LONG_SECONDS
        uri = f"{url}/{path.name}"

        counted(url)
        reader = ClipReader(Storage(), None, 300.0, 8)
        clips = [Clip(Row("{}"), uri, float(start), SEGMENT_SECONDS) for start in starts]
        for recognized in reader.read(clips, RATE):
            assert len(recognized.waveform) == SEGMENT_SECONDS * RATE
        ours = counted(url)["bytes"]

        with contextlib.suppress(soundfile.LibsndfileError):
            for start in starts:
                with fsspec.open(uri, "rb") as file, soundfile.SoundFile(file) as audio:
                    audio.seek(int(start * RATE))
                    audio.read(int(SEGMENT_SECONDS * RATE), dtype="float32")
        theirs = counted(url)["bytes"]
        print(
            f"| {path.name} | {size / 1e6:.1f} | {needed / 1e6:.2f} | {ours / needed:.2f} | "
            f"{f'{theirs / needed:.1f}' if path.suffix != '.m4a' else '-'} | "
            f"{SEGMENTS * size / needed:.0f} |",
            flush=True,
        )


def rows_a_second(url: str) -> None:
    print(f"\nClips of {CLIP_SECONDS:g} s (FLAC), {1000 * LATENCY_SECONDS:g} ms before each answer")
    print(
        "| concurrent reads | rows/s | times those of one | cores busy (client + server) | CPU ms |"
    )
    print("| --- | --- | --- | --- | --- |")
    names = [f"{url}/short_{n}.flac" for n in range(20)]
    first = None
    for concurrency in (1, 8, 32):
        some = [
            Clip(Row("{}"), names[n % len(names)], 0.0, None)
            for n in range(concurrency * CLIPS_AT_A_TIME)
        ]
        reader = ClipReader(Storage(), None, 300.0, concurrency)
        list(reader.read(some[:concurrency], RATE))  # connections are made once
        served = counted(url)["cpu_seconds"]
        started, worked = time.monotonic(), time.process_time()
        assert all(isinstance(read, Loaded) for read in reader.read(some, RATE))
        seconds, work = time.monotonic() - started, time.process_time() - worked
        served = counted(url)["cpu_seconds"] - served
        rate = len(some) / seconds
        first = first or rate
        print(
            f"| {concurrency} | {rate:.1f} | {rate / first:.1f} | {work / seconds:.2f} + "
            f"{served / seconds:.2f} | {1000 * work / len(some):.1f} |",
            flush=True,
        )


def long_files(folder: Path) -> None:
    """The same two hours in several forms; a low noise, so that lossless is a third smaller."""
    noise = np.random.default_rng(1).normal(0, 0.02, LONG_SECONDS * RATE).astype(np.float32)
    pcm = (noise * 2**15).astype(np.int16)
    for ending in ("wav", "flac", "ogg", "mp3"):
        with soundfile.SoundFile(folder / f"long.{ending}", "w", RATE, 1) as file:
            for start in range(0, len(pcm), RATE * 60):  # some encoders take no more at once
                file.write(pcm[start : start + RATE * 60])
    with av.open(folder / "long.m4a", "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        for start in range(0, len(pcm), 1024):
            frame = av.AudioFrame.from_ndarray(noise[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts = RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def short_files(folder: Path) -> None:
    for n in range(20):
        noise = np.random.default_rng(n).normal(0, 0.02, int(CLIP_SECONDS * RATE))
        soundfile.write(folder / f"short_{n}.flac", noise, RATE)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.slow_server", str(folder), str(LATENCY_SECONDS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()


def counted(url: str) -> dict[str, float]:
    """Bytes that the server has sent since the last call, and seconds that it has worked in all."""
    return json.loads(fsspec.filesystem("http").cat_file(f"{url}/count"))


if __name__ == "__main__":
    main()
