"""Files to begin with: small, whole and of every kind, made here by the formats' own writers."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile
import zstandard

from tests.fuzz.targets import AUDIO_NAMES, HEADER, MANIFEST_NAMES
from tests.support.ffmpeg import mux_audio

RATE = 16_000
SECONDS = 0.1

# container:codec:rate:layout of FFmpeg's; an encoder that this build lacks is passed over.
FFMPEG = """
    adts:aac:16000 ipod:aac:16000 mp4:aac:16000 mp4:libmp3lame:16000 mp4:flac:16000
    mov:alac:16000 mov:pcm_s16le:16000 caf:alac:16000 3gp:libopencore_amrnb:8000
    webm:libopus:48000 matroska:flac:16000 matroska:pcm_s16le:16000 matroska:vorbis:44100
    matroska:ac3:48000 ogg:libopus:48000 ogg:flac:16000 oga:vorbis:44100
    amr:libopencore_amrnb:8000 asf:wmav1:16000 asf:wmav2:16000 g722:g722:16000
    avi:libmp3lame:16000 avi:pcm_s16le:16000 avi:ac3:48000 flv:libmp3lame:44100 flv:aac:44100
    flv:nellymoser:8000 mpegts:mp2:48000 mpegts:aac:48000 mpeg:mp2:48000 mp3:libmp3lame:16000
    mp2:mp2:16000 ac3:ac3:48000 eac3:eac3:48000 wv:wavpack:16000 tta:tta:16000
    truehd:truehd:48000 dts:dca:48000 sbc:sbc:16000 voc:pcm_u8:16000 nut:pcm_s16le:16000
    wav:adpcm_ima_wav:16000 wav:g726:8000 aiff:pcm_s24be:16000 w64:pcm_s16le:16000
    wav:libmp3lame:16000 w64:libmp3lame:16000
    au:pcm_mulaw:8000 aptx:aptx:48000 mxf:pcm_s16le:48000 dfpwm:dfpwm:48000
    ipod:aac:48000:stereo ipod:aac:48000:7.1 webm:libopus:48000:5.1 matroska:libopus:48000:7.1
""".split()
TAR_TEXT = json.dumps({"text": "Grüße", "offset": 0.5, "duration": 1}).encode()


def manifests() -> list[bytes]:
    rows = [
        {"audio_filepath": "a.wav", "duration": 1.5, "offset": 0.25, "text": "Grüße, 世界"},
        {
            "audio_filepath": "gs://bucket/b.flac",
            "duration": None,
            "lang": "de",
            "n": [1, {"k": 2}],
        },
        {"audio_filepath": "~/c.wav", "text": "\u2028\ud800", "big": 2**70, "tiny": 1e-9},
        {"text": "no audio"},
        {"audio_filepath": 7, "duration": "long"},
        {"audio_filepath": "d.wav", "duration": -1, "error": _error()},
        _cut("MonoCut", 0, [0]),
        _cut("MultiCut", [0, 1], [0, 1]),
        {"id": "mix", "type": "MixedCut", "tracks": []},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    ends = text.replace(b"\n", b"\r\n\r\n \n") + b"[]\nnull\n{\n\xff\n3"
    table = (
        b'audio_filepath,duration,text\na.wav,1.5,"so, ""so"""\nb.wav,,x\nc.wav,1_0,"a\nb"\nd.wav\n'
    )
    tabs = table.replace(b",", b"\t")
    zstandard_ = zstandard.ZstdCompressor(write_checksum=True).compress
    files = [
        ("m.jsonl", text),
        ("m.jsonl", b"\xef\xbb\xbf" + ends),
        ("m.jsonl", b""),
        ("m.jsonl", json.dumps(rows).encode()),
        ("m.jsonl", json.dumps(rows, indent=1).encode()),
        ("m.jsonl", b"".join(json.dumps(row, indent=1).encode() for row in rows)),
        ("m.csv", table),
        ("m.csv", b"\xef\xbb\xbf" + table.replace(b"\n", b"\r\n")),
        ("m.csv", b"sep=;\n" + table.replace(b",", b";").replace(b"1.5", b"1,5")),
        ("m.csv", table.replace(b'""so""', b"so") + b'e.wav,2,"open\n' + table),
        ("m.tsv", tabs),
        *(("m.parquet", content) for content in _parquets()),
        ("m.jsonl.gz", gzip.compress(text, mtime=0)),
        ("m.jsonl.gz", gzip.compress(text, mtime=0) + gzip.compress(ends, mtime=0) + bytes(8)),
        ("m.jsonl.zst", zstandard_(text)),
        ("m.jsonl.zst", zstandard_(text) + zstandard_(ends)),
        ("m.jsonl.bz2", bz2.compress(text)),
        ("m.jsonl.bz2", bz2.compress(text) + bz2.compress(ends)),
        ("m.jsonl.xz", lzma.compress(text)),
        ("m.jsonl.xz", lzma.compress(text) + lzma.compress(ends)),
        ("m.csv.gz", gzip.compress(table, mtime=0)),
    ]
    seeds = [bytes((MANIFEST_NAMES.index(name), 0, 0, 80)) + content for name, content in files]
    packed = (
        ("m.jsonl.gz", text),
        ("m.jsonl.zst", text),
        ("m.jsonl.bz2", text),
        ("m.jsonl.xz", text),
    )
    return seeds + [
        bytes((MANIFEST_NAMES.index(name), 1, 0, 80)) + content for name, content in packed
    ]


def audio() -> list[bytes]:
    files = [("a", content) for content in [*_by_libsndfile(), *_by_ffmpeg()]]
    files += [("a.g722", np.random.default_rng(3).bytes(800)), ("a.mp3", b"\xff\xfb\x90\x64" * 300)]
    files += [("a", 2 * content) for _, content in files if content.startswith((b"OggS", b"\xff"))]
    seeds = [bytes((AUDIO_NAMES.index(name), 0, 0, 0)) + content for name, content in files]
    # A range, of one channel, where decoders must seek.
    return seeds + [bytes((seed[0], 1, 1, 17)) + seed[HEADER:] for seed in seeds]


def tars() -> list[bytes]:
    wav = _wav(0.01)
    shard = [
        ("a.wav", wav),
        ("folder/", b""),
        ("folder/b.flac", wav),
        ("a-sub1.wav", wav),
        ("x", b""),
    ]
    samples = [("s1.wav", wav), ("s1.json", TAR_TEXT), ("s1.txt", b"so\n"), ("d/s2.mic1.flac", wav)]
    samples += [("s3.json", b"["), ("__meta__.json", b"{}"), ("s4.wav", wav), ("s4.flac", wav)]
    long = [("n" * 300 + ".wav", wav), ("folder/" * 30 + "b.flac", wav), ("übung \udcff.wav", wav)]
    plain = [
        _tar(members, form)
        for members in (shard, samples, shard + long + samples, [])
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)
    ]
    plain += [_tar(shard + samples, tarfile.USTAR_FORMAT), _special_tar(), _sparse_tar()]
    plain += [plain[0] + plain[2], b""]
    seeds = [bytes((0x77, 2, 0, 1)) + content for content in plain]
    seeds += [bytes((0x77, 0, packing, 0)) + plain[4] for packing in (1, 2, 3)]
    packers: tuple[Callable[[bytes], bytes], ...] = (gzip.compress, bz2.compress, lzma.compress)
    return seeds + [bytes((0xFF, 3, 0, 0)) + pack(plain[0]) for pack in packers]


SEEDS: dict[str, Callable[[], list[bytes]]] = {"manifest": manifests, "audio": audio, "tar": tars}


def _error() -> dict:
    return {"stage": "audio", "type": "CorruptAudioError", "message": "?", "attempts": 1}


def _cut(kind: str, channel: int | list[int], channels: list[int]) -> dict:
    source = {"type": "file", "channels": channels, "source": "a.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": RATE, "num_samples": 99}
    recording["transforms"] = [{"name": "Resample", "kwargs": {}}]
    times = {"start": 0.5, "duration": 2}
    return {"id": "c", "type": kind, **times, "channel": channel, "recording": recording}


def _parquets() -> Iterator[bytes]:
    columns = {
        "audio_filepath": ["a.wav", "b.wav", None] * 3,
        "duration": pa.array([1.5, float("nan"), None] * 3),
        "words": [["a"], [], ["ü", "c"]] * 3,
        "when": pa.array([0, 10**9, 2**40] * 3, pa.timestamp("us", "UTC")),
        "price": pa.array([1, 2, 3] * 3).cast(pa.decimal128(20, 0)),
        "tags": pa.array([[("k", 1)], [], None] * 3, pa.map_(pa.string(), pa.int32())),
        "nested": [{"x": 1, "y": {"z": [0.5]}}] * 9,
        "raw": [b"\xff", b"", None] * 3,
    }
    for names, options in (
        (list(columns), {"row_group_size": 4, "compression": "none"}),
        (["audio_filepath", "duration"], {"row_group_size": 1, "compression": "none"}),
        (["audio_filepath", "words", "when"], {"compression": "zstd", "use_dictionary": False}),
    ):
        made = io.BytesIO()
        pa.parquet.write_table(pa.table({name: columns[name] for name in names}), made, **options)
        yield made.getvalue()


def _chirp(rate: int, channels: int, seconds: float = SECONDS) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    sweep = 0.4 * np.sin(2 * np.pi * (200 * time + 4000 * time**2))
    return np.stack([sweep / (1 + number) for number in range(channels)], axis=1).astype("f4")


def _wav(seconds: float) -> bytes:
    made = io.BytesIO()
    soundfile.write(made, _chirp(8_000, 1, seconds), 8_000, format="WAV")
    return made.getvalue()


def _by_libsndfile() -> Iterator[bytes]:
    for form in soundfile.available_formats():
        for subtype in soundfile.available_subtypes(form):
            for channels, rate in ((1, 8_000), (2, 44_100)):
                # Of stereo one of a format is enough: files are small, and mutations many.
                stereo_of_another = channels == 2 and subtype not in ("PCM_16", "VORBIS", "OPUS")
                # SD2 is two files, of which the second one would be put into the working folder.
                if form in ("RAW", "SD2") or stereo_of_another:
                    continue
                rate = 48_000 if subtype == "OPUS" else rate
                made = io.BytesIO()
                try:
                    samples = _chirp(rate, channels, SECONDS if channels == 1 else SECONDS / 5)
                    soundfile.write(made, samples, rate, subtype, format=form)
                except (soundfile.LibsndfileError, ValueError):
                    continue  # some subtypes can only be read, or by a file's name
                if made.tell():
                    yield made.getvalue()


def _by_ffmpeg() -> Iterator[bytes]:
    for container, codec, rate, *layout in (name.split(":") for name in FFMPEG):
        for with_video in (False, True):
            if with_video and container not in ("mp4", "matroska", "avi"):
                continue
            try:
                yield _encoded(container, codec, int(rate), *(layout or ["mono"]), with_video)
            except (av.error.FFmpegError, ValueError):
                continue  # this build of FFmpeg has no such encoder


def _encoded(container: str, codec: str, rate: int, layout: str, with_video: bool) -> bytes:
    made = io.BytesIO()
    with av.open(made, "w", format=container) as out:
        options = {"strict": "experimental"}
        stream = out.add_stream(codec, rate=rate, layout=layout, options=options)
        if with_video:
            video = out.add_stream("mpeg4", rate=10)
            video.width = video.height = 32
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            out.mux(video.encode(picture))
            out.mux(video.encode(None))
        samples = _chirp(rate, av.AudioLayout(layout).nb_channels, 2 * SECONDS)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        mux_audio(out, stream, frame, rate, layout)
    return made.getvalue()


def _tar(members: list[tuple[str, bytes]], form: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            header.size = len(content)
            header.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
            tar.addfile(header, io.BytesIO(content))
        end = tar.offset + 1024
    return made.getvalue()[:end]


def _special_tar() -> bytes:
    """Links, a device and a pipe between members."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        kinds = (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.FIFOTYPE,
            tarfile.REGTYPE,
        )
        for number, kind in enumerate(kinds):
            header = tarfile.TarInfo(f"s{number}.wav")
            header.type, header.linkname = kind, "s4.wav" * 30
            tar.addfile(header)
    return made.getvalue()[: 512 * 30]


def _sparse_tar() -> bytes:
    """GNU's sparse files, of the old form and of pax 1.0."""
    old = tarfile.TarInfo("a.wav")
    old.type, old.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(old.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 512)
    block[483:495] = b"%011o\0" % 2**20
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    new = tarfile.TarInfo("GNUSparseFile.0/b.wav")
    new.size = 1024
    said = {"major": "1", "minor": "0", "name": "b.wav", "realsize": "1048576"}
    new.pax_headers = {f"GNU.sparse.{key}": value for key, value in said.items()}
    map_and_data = b"1\n0\n512\n".ljust(512, b"\0") + b"d" * 512
    return b"".join((block, b"d" * 512, new.tobuf(tarfile.PAX_FORMAT), map_and_data, bytes(1024)))
