"""Each extension by which a folder finds recordings is of a format that is read."""

from __future__ import annotations

import av
import numpy as np
import pytest
import soundfile

from beam_asr.audio.ffmpeg_decoder import FFMPEG_FORMATS
from beam_asr.storage.file_kinds import AUDIO_EXTENSIONS, HEAD_BYTES, is_media
from tests.support.audio_files import RATE, chirp, encode, read

SECONDS = 1.0
# By what writes them: the format and subtype of libsndfile, or codec, container and rate of FFmpeg.
BY_SNDFILE = {
    ".wav .wave .bwf": ("WAV", "PCM_16"),
    ".rf64": ("RF64", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".aif .aiff": ("AIFF", "PCM_16"),
    ".aifc": ("AIFF", "ULAW"),
    ".au": ("AU", "ULAW"),
    ".snd": ("AU", "PCM_16"),
    ".caf": ("CAF", "ALAC_16"),
    ".sph": ("NIST", "PCM_16"),
    ".nist": ("NIST", "ULAW"),
    ".sf": ("IRCAM", "PCM_16"),
    ".avr": ("AVR", "PCM_16"),
    ".paf": ("PAF", "PCM_16"),
    ".pvf": ("PVF", "PCM_16"),
    ".sds": ("SDS", "PCM_16"),
    ".svx": ("SVX", "PCM_16"),
    ".8svx .iff": ("SVX", "PCM_S8"),
    ".wve": ("WVE", "ALAW"),
    ".htk": ("HTK", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg .oga .ogx": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".gsm": ("RAW", "GSM610"),
}
BY_FFMPEG = {
    ".3ga .m4a .m4b .m4r .m4v .mp4 .f4v .f4a .isma .ismv .mj2 .psp": ("aac", "mp4", 16_000),
    ".mov .qt": ("aac", "mov", 16_000),
    ".3gp .3gpp": ("aac", "3gp", 16_000),
    ".3g2": ("aac", "3g2", 16_000),
    ".mka .mkv .mk3d": ("libopus", "matroska", 48_000),
    ".webm .weba": ("libopus", "webm", 48_000),
    ".ogv .ogm": ("libopus", "ogg", 48_000),
    ".asf .wma .wmv": ("wmav2", "asf", 16_000),
    ".avi": ("mp3", "avi", 16_000),
    ".ts .m2t": ("aac", "mpegts", 16_000),
    ".m2ts .mts": ("aac", "mpegts", 16_000),
    ".mpg .mpeg .m2p": ("mp2", "mpeg", 48_000),
    ".vob": ("mp2", "vob", 48_000),
    ".ra .rm .rmvb": ("ac3", "rm", 48_000),
    ".mxf": ("pcm_s16le", "mxf_opatom", 48_000),
    ".nut": ("mp3", "nut", 16_000),
    ".wtv": ("mp2", "wtv", 48_000),
    ".flv": ("aac", "flv", 44_100),
    ".aac .adts": ("aac", "adts", 16_000),
    ".latm .loas": ("aac", "latm", 16_000),
    ".ac3": ("ac3", "ac3", 48_000),
    ".eac3 .ec3": ("eac3", "eac3", 48_000),
    ".mp3 .mpga": ("mp3", "mp3", 16_000),
    ".mp2 .mpa .m2a": ("mp2", "mp2", 48_000),
    ".wv": ("wavpack", "wv", 16_000),
    ".tta": ("tta", "tta", 16_000),
    ".amr": ("libopencore_amrnb", "amr", 8_000),
    ".g722": ("g722", "g722", 16_000),
    ".sox": ("pcm_s32le", "sox", 16_000),
    ".ircam": ("pcm_s16le", "ircam", 16_000),
    ".voc": ("pcm_u8", "voc", 16_000),
    ".afc": ("pcm_s16be", "aiff", 16_000),
}
# Decoded, but neither FFmpeg nor libsndfile writes them here.
NOT_WRITTEN = (
    ".aa .aa3 .ape .awb .c2 .dsf .dss .dts .dtshd .dv .mac .mlp .mp1 .mpc .nsv .oma .omg .qcp .shn "
    ".spx .tak .thd .xwma".split()
)
WITHOUT_MARK = [".g722", ".htk", ".sds"]  # text cannot begin so, but there is no signature


def each(table):
    return [(extension, how) for names, how in table.items() for extension in names.split()]


def test_each_extension_is_written_here_or_known_to_be_written_elsewhere():
    names = [name for table in (BY_SNDFILE, BY_FFMPEG) for name, _ in each(table)]
    assert sorted([*names, *NOT_WRITTEN]) == sorted(AUDIO_EXTENSIONS)


def test_each_format_of_ffmpeg_that_has_extensions_has_them_in_the_list():
    pictures = {"avif", "heic", "heif"}
    # A playlist, subtitles, another disc format, and what is known by the name alone.
    others = {"ism", "mks", "apl", "dif", "722", "g729", "g723_1", "rco", "tco", "sbc", "msbc"}
    for name in FFMPEG_FORMATS.replace(",", " ").split():
        extensions = av.ContainerFormat(name, "r").extensions - pictures - others
        assert {f".{extension}" for extension in extensions} <= AUDIO_EXTENSIONS, name


@pytest.mark.parametrize(("extension", "how"), each(BY_SNDFILE))
def test_what_libsndfile_writes_is_read(tmp_path, extension, how):
    path, rate = tmp_path / f"x{extension}", 8000 if how[1] in ("GSM610", "ALAW") else RATE
    format, subtype = how
    soundfile.write(path, chirp(SECONDS, rate), rate, format=format, subtype=subtype)
    check(path)


@pytest.mark.parametrize(("extension", "how"), each(BY_FFMPEG))
def test_what_ffmpeg_writes_is_read(tmp_path, extension, how):
    codec, container, rate = how
    path = tmp_path / f"x{extension}"
    options = {"mpegts_m2ts_mode": "1"} if extension in (".m2ts", ".mts") else None
    samples = chirp(SECONDS, rate)
    encode(path, samples, codec=codec, rate=rate, container=container, options=options)
    check(path)


def check(path) -> None:
    samples = read(path)
    assert len(samples) == pytest.approx(SECONDS * RATE, abs=0.2 * RATE)
    assert 0.1 < float(np.sqrt(np.mean(samples**2))) < 0.6
    assert is_media(path.read_bytes()[:HEAD_BYTES]) or path.suffix in WITHOUT_MARK
