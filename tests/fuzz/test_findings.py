"""What fuzzing has found, each as the smallest file that shows it; and the fuzzing itself.

An input that has crashed or swelled the process is read in a process of its own.
"""

import bz2
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
from functools import partial

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.errors import AudioError, CorruptAudioError, DamagedInputError, OffsetBeyondEndError
from beam_asr.inputs import readers
from beam_asr.inputs.tar_clips import TarClip, TarReader, UnreadRow
from beam_asr.outputs import shards
from beam_asr.records import parsing
from beam_asr.records import row as manifest
from beam_asr.records.events import SampleFound
from beam_asr.records.record import Transcript, failure
from beam_asr.records.work import WebDatasetTar
from beam_asr.storage.storage import Storage
from tests.fuzz.mutations import repair_ogg_chains
from tests.support.ffmpeg import mux_audio
from tests.support.job_files import REPOSITORY

RATE = 16_000
READ_ALONE = """
import resource, sys
from beam_asr.inputs import readers
from beam_asr.audio.reading import AudioRequest, read_audio
from beam_asr.storage.storage import Storage

def read_rows(path):
    for piece in readers.split_file(Storage(), path):
        list(readers.read_rows(Storage(), piece, "audio_filepath"))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

path = sys.argv[1]
before = peak()
try:
    {call}
    ended = "read"
except ValueError as error:
    ended = type(error).__name__
print(ended, peak() - before)
"""


def read_alone(path, content, call):
    """How a call ends in a process of its own, and by how many MiB its memory grows."""
    path.write_bytes(content)
    command = [sys.executable, "-c", READ_ALONE.format(call=call), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, f"it ended with {done.returncode}: {done.stderr[-500:]}"
    ended, grown = done.stdout.split()
    return ended, int(grown)


def samples(seconds=0.1, rate=RATE):
    return (0.5 * np.sin(np.arange(round(seconds * rate)) / 5)).astype(np.float32)


def sound_file(data, rate=RATE, **kind):
    made = io.BytesIO()
    soundfile.write(made, data, rate, **kind)
    return made.getvalue()


def encoded(container, codec, seconds=0.1, rate=RATE, layout="mono"):
    made = io.BytesIO()
    with av.open(made, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        sound = np.repeat(samples(seconds, rate), av.AudioLayout(layout).nb_channels)
        frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout=layout)
        mux_audio(out, stream, frame, rate, layout)
    return made.getvalue()


def rows_of(path):
    storage = Storage()
    pieces = readers.split_file(storage, str(path))
    return [row for piece in pieces for row in readers.read_rows(storage, piece, "audio_filepath")]


# Audio


def test_a_range_of_a_vorbis_file_with_damaged_codebooks_does_not_crash_the_process(tmp_path):
    # libvorbis cannot set up its decoder, and libsndfile's seek uses it all the same.
    content = bytearray(sound_file(samples(rate=8_000), 8_000, format="OGG", subtype="VORBIS"))
    content[content.index(b"\x05vorbis") + 30] ^= 0xFF
    repair_ogg_chains(content)
    call = "read_audio(path, AudioRequest(sample_rate=8_000, offset=0.05))"
    ended, _ = read_alone(tmp_path / "a.ogg", content, call)
    assert ended.endswith("AudioError")


@pytest.mark.parametrize("kind", [("ipod", "aac"), ("webm", "libopus")], ids=["m4a", "webm"])
def test_eight_channels_do_not_crash_the_process(tmp_path, kind):
    # PyAV counts the planes of a frame up to a null pointer, which of eight there is none.
    content = encoded(*kind, rate=48_000, layout="7.1")
    call = "assert len(read_audio(path, AudioRequest(sample_rate=8_000))) >= 800"
    ended, _ = read_alone(tmp_path / "a.m4a", content, call)
    assert ended == "read"


def test_a_header_that_claims_much_text_takes_no_memory(tmp_path):
    # FFmpeg's demuxer sets aside what a chunk of a WAV's tags claims, 4 GB at most.
    form = bytes.fromhex("4500 0100 401f0000 a00f0000 0100 0400 0000")
    chunks = b"fmt " + len(form).to_bytes(4, "little") + form
    chunks += b"LIST" + (0xFFFF0000).to_bytes(4, "little") + b"INFO"
    chunks += b"ISFT" + (0x7FFF0000).to_bytes(4, "little") + b"Lavf"
    content = b"RIFF" + (4 + len(chunks)).to_bytes(4, "little") + b"WAVE" + chunks
    ended, grown = read_alone(
        tmp_path / "a.wav", content, "read_audio(path, AudioRequest(sample_rate=8_000))"
    )
    assert ended.endswith("AudioError")
    assert grown < 200


def test_a_header_by_which_ffmpeg_seeks_before_the_start_is_the_files_fault(tmp_path):
    description = b"desc" + (32).to_bytes(8, "big") + bytes(32)
    chunk = b"\0\0\0\0" + (0x61 << 40).to_bytes(8, "big")
    path = tmp_path / "a.caf"
    path.write_bytes(b"caff\0\1\0\0" + description + chunk)
    with pytest.raises(AudioError):
        read_audio(str(path), AudioRequest(sample_rate=RATE))


@pytest.mark.parametrize("offset", [1e15, 1e300])
@pytest.mark.parametrize("kind", ["g722", "wav", "m4a"])
def test_an_offset_that_no_decoder_can_count_to_is_beyond_the_end(kind, offset):
    made = {
        "g722": lambda: encoded("g722", "g722"),
        "wav": lambda: sound_file(samples(), format="WAV"),
        "m4a": lambda: encoded("ipod", "aac"),
    }
    with pytest.raises(OffsetBeyondEndError):
        read_audio(f"a.{kind}", AudioRequest(sample_rate=RATE, offset=offset), content=made[kind]())


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_near_the_largest_float_do_not_become_infinite(channels):
    loud = np.full((800, channels), 3e38, np.float32)
    loud[::7] *= -1
    content = sound_file(loud, 8_000, format="WAV", subtype="FLOAT")
    try:
        recognized = read_audio("a.wav", AudioRequest(sample_rate=RATE), content=content)
    except CorruptAudioError:
        return
    assert np.isfinite(recognized).all()


def test_a_wavpack_file_that_is_cut_short_is_the_files_fault():
    with pytest.raises(CorruptAudioError):
        read_audio("a.wv", AudioRequest(sample_rate=RATE), content=encoded("wv", "wavpack")[:-20])


def test_samples_of_64_bit_integers_are_read_or_are_the_files_fault():
    try:
        recognized = read_audio(
            "a.wav", AudioRequest(sample_rate=RATE), content=encoded("wav", "pcm_s64le")
        )
    except AudioError:
        return
    assert np.allclose(recognized, samples(), atol=1e-6)


def test_a_stream_that_begins_late_is_no_error_or_is_the_files_fault():
    content = bytearray(encoded("flv", "pcm_s16le", seconds=8, rate=44_100))
    tag = 13  # after the header; FFmpeg looks at 5 s of a file to find its streams
    while (following := tag + 15 + int.from_bytes(content[tag + 1 : tag + 4], "big")) < len(
        content
    ):
        tag = following
    content[tag] = 9  # the last one's type: video
    try:
        recognized = read_audio("a.flv", AudioRequest(sample_rate=RATE), content=bytes(content))
    except AudioError:
        return
    assert 7.9 < len(recognized) / RATE < 8.1


# Manifests


@pytest.mark.parametrize("packed", [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_rows_are_not_lost_with_a_second_stream_whose_start_is_damaged(tmp_path, packed):
    ending, compress = packed
    stream = compress(b'{"audio_filepath": "a.wav"}\n')
    path = tmp_path / f"m.jsonl.{ending}"
    path.write_bytes(stream + b"?" + stream[1:])
    with pytest.raises(DamagedInputError):
        rows_of(path)


@pytest.mark.parametrize(
    "line",
    [
        '{"audio_filepath": "a.wav", "score": 1e999}',
        '{"audio_filepath": "~\\u0000/a.wav"}',
        '{"audio_filepath": "~\\ud800/a.wav"}',
        '{"audio_filepath": "a.wav", "deep": ' + "[" * 940 + "]" * 940 + "}",
    ],
    ids=["number beyond a float", "NUL", "half a pair", "nesting"],
)
def test_a_row_ends_as_one_line_of_json_at_any_depth_of_the_stack(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_text(line)
    (row,) = rows_of(path)
    try:
        parsing.parse(row)
    except manifest.ManifestError as error:
        record = at_depth(60, partial(failure, row, error))
    else:
        record = at_depth(60, Transcript(row, {"pred_text": "text"}, 1.0).record)
    written = at_depth(60, partial(shards.encode, record))
    assert json.loads(written, parse_constant=pytest.fail)


def at_depth(frames, function):
    return at_depth(frames - 1, function) if frames else function()


def test_a_parquet_page_that_claims_to_be_large_takes_no_memory(tmp_path):
    made = io.BytesIO()
    table = pa.table({"audio_filepath": ["a.wav"] * 9})
    parquet.write_table(table, made, compression="none", use_dictionary=False)
    content = made.getvalue()
    start = parquet.ParquetFile(made).metadata.row_group(0).column(0).data_page_offset
    # Thrift's compact form of the page's type, its size, and its size as compressed.
    page = re.compile(rb"\x15\x00\x15[\x80-\xff]*.\x15[\x80-\xff]*.", re.DOTALL)
    head = page.match(content, start)
    claim = b"\x15\x00\x15\x80\x80\x80\x80\x0c\x15\x80\x80\x80\x80\x0c"  # 1.5 * 2**30
    content = content[:start] + claim + content[head.end() :]
    ended, grown = read_alone(tmp_path / "m.parquet", content, "read_rows(path)")
    assert ended == "TableError"
    assert grown < 200


# Tars


def test_a_sample_whose_name_has_no_uri_does_not_cost_those_that_follow(tmp_path):
    content = sound_file(samples(), format="WAV")
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a::b.wav", "c.wav"):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    reader = TarReader(Storage(), "audio_filepath")
    events = list(reader.events(WebDatasetTar(str(path))))
    clips = [event.clip.audio for event in events if isinstance(event, TarClip)]
    assert clips == [f"{path}: c.wav"]
    assert sum(isinstance(event, UnreadRow) for event in events) == 1
    assert events.count(SampleFound()) == 2


# The fuzzing


def test_seeds_and_some_hundred_mutations_of_them_find_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "--executions=700", "--seed=1"]
    done = subprocess.run(
        [*command, f"--out={tmp_path}"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("700 executions") == 3
