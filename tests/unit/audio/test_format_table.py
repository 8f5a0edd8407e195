"""The table of docs/audio_formats.md says what each file is read like; here each is."""

from __future__ import annotations

import re

import pytest
import soundfile

from beam_asr.audio.ffmpeg_decoder import FFmpegDecoder
from beam_asr.audio.reading import _open_decoder
from beam_asr.audio.source import open_bytes
from tests.support.audio_files import RATE, chirp, encode, lag_and_error, read
from tests.support.job_files import REPOSITORY

SECONDS = 6.0
PAGE = (REPOSITORY / "docs" / "audio_formats.md").read_text(encoding="utf-8")
(TABLE,) = re.findall(r"<!-- formats -->\n(.*?)<!-- /formats -->", PAGE, re.DOTALL)
ROWS = {
    line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")[1:]
    for line in TABLE.splitlines()[2:]
}
FRAGMENTS = {"movflags": "empty_moov", "frag_duration": "500000"}
BY_SNDFILE = {
    "WAV, PCM": ("WAV", "PCM_16"),
    "WAV, mu-law": ("WAV", "ULAW"),
    "WAV, IMA ADPCM": ("WAV", "IMA_ADPCM"),
    "WAV, GSM 6.10": ("WAV", "GSM610"),
    "RF64, PCM": ("RF64", "PCM_16"),
    "W64, PCM": ("W64", "PCM_16"),
    "AIFF, PCM": ("AIFF", "PCM_16"),
    "AU, PCM": ("AU", "PCM_16"),
    "AU, G.721": ("AU", "G721_32"),
    "SPHERE, PCM": ("NIST", "PCM_16"),
    "CAF, ALAC": ("CAF", "ALAC_16"),
    "FLAC": ("FLAC", "PCM_16"),
    "MP3 with a Xing header": ("MP3", "MPEG_LAYER_III"),
    "Ogg, Vorbis": ("OGG", "VORBIS"),
    "Ogg, Opus": ("OGG", "OPUS"),
}
BY_FFMPEG = {  # codec, container, rate, options
    "WAV, Yamaha ADPCM": ("adpcm_yamaha", "wav", 8_000, {}),
    "WAV, G.726": ("g726", "wav", 8_000, {}),
    "MP3 without one": ("mp3", "mp3", RATE, {"write_xing": "0"}),
    "MP2": ("mp2", "mp2", 48_000, {}),
    "M4A, AAC": ("aac", "ipod", RATE, {}),
    "M4A, ALAC": ("alac", "ipod", RATE, {}),
    "MP4 in fragments, AAC": ("aac", "mp4", RATE, FRAGMENTS),
    "MP4, Opus": ("libopus", "mp4", 48_000, {}),
    "MOV, PCM": ("pcm_s16le", "mov", RATE, {}),
    "Matroska, AAC": ("aac", "matroska", RATE, {}),
    "Matroska, FLAC": ("flac", "matroska", RATE, {}),
    "WebM, Opus": ("libopus", "webm", 48_000, {}),
    "WMA": ("wmav2", "asf", RATE, {}),
    "AVI, MP3": ("mp3", "avi", RATE, {}),
    "AVI, PCM": ("pcm_s16le", "avi", RATE, {}),
    "FLV, AAC": ("aac", "flv", 44_100, {}),
    "MPEG-TS, AAC": ("aac", "mpegts", RATE, {}),
    "MPEG-PS, MP2": ("mp2", "mpeg", 48_000, {}),
    "NUT, AAC": ("aac", "nut", RATE, {}),
    "WTV, MP2": ("mp2", "wtv", 48_000, {}),
    "raw AAC (ADTS)": ("aac", "adts", RATE, {}),
    "raw AAC (LATM)": ("aac", "latm", RATE, {}),
    "AC-3": ("ac3", "ac3", 48_000, {}),
    "AMR": ("libopencore_amrnb", "amr", 8_000, {}),
    "G.722": ("g722", "g722", RATE, {}),
    "WavPack": ("wavpack", "wv", RATE, {}),
    "TTA": ("tta", "tta", RATE, {}),
}


def test_each_row_of_the_table_is_tried():
    assert ROWS.keys() == BY_SNDFILE.keys() | BY_FFMPEG.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_file_is_read_as_the_table_says(tmp_path, name):
    reader, _, late, a_range = ROWS[name]
    path = tmp_path / ("a.g722" if name == "G.722" else "file")
    if name in BY_SNDFILE:
        (container, codec), rate = BY_SNDFILE[name], RATE
        soundfile.write(path, chirp(SECONDS, rate), rate, format=container, subtype=codec)
    else:
        codec, container, rate, options = BY_FFMPEG[name]
        encode(path, chirp(SECONDS, rate), codec=codec, container=container, rate=rate,
               options=options)  # fmt: skip

    with open_bytes(str(path), None) as source, _open_decoder(source) as decoder:
        assert isinstance(decoder, FFmpegDecoder) is reader.startswith("FFmpeg")
        assert decoder.can_seek is a_range.startswith("sought")
    whole = read(path, sample_rate=rate)
    assert lag_and_error(whole, chirp(SECONDS, rate))[0] == int(late)
    for offset in (0.3, 2.345, 4.71):
        part = read(path, sample_rate=rate, offset=offset, duration=1.0)
        shift, _ = lag_and_error(part, whole[round(offset * rate) :][: len(part)])
        assert abs(shift) <= (0 if a_range.endswith("exact") else rate // 1000)
