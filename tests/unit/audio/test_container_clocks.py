"""One clock: what is read, whole or in parts, is where FFmpeg's timestamps put it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beam_asr import errors
from beam_asr.audio.clip_reader import ClipReader, Loaded
from beam_asr.audio.reading import AudioRequest, probe_duration, read_audio, stream_audio
from beam_asr.audio.segment_planner import Planner
from beam_asr.records.row import Row
from beam_asr.records.work import Clip, group_segments
from beam_asr.storage.storage import Storage
from tests.support.timed_files import (
    Laid,
    Track,
    ffmpeg_decodes,
    murmur,
    remux,
    with_edit_list,
    write,
)

sound = functools.cache(murmur)
Writer = Callable[[Path], None]


def hole(codec: str, rate: int, start: float = 0, **options) -> Track:
    """4 s of sound, 5 s without any, 4 s of sound."""
    pieces = [(start, sound(4, rate, 1)), (start + 9, sound(4, rate, 2))]
    return Track(pieces, codec, rate, **options)


def late(codec: str, rate: int, start: float = 3, **options) -> Track:
    return Track([(start, sound(4, rate, 1))], codec, rate, **options)


def whole(codec: str, rate: int, **options) -> Track:
    return late(codec, rate, 0, **options)


def file(*tracks: Track, **options) -> Writer:
    return lambda path: write(path, *tracks, **options)


def remuxed(track: Track, edit, container: str = "matroska") -> Writer:
    def writer(path: Path) -> None:
        source = path.with_name(f"source{path.suffix}")
        write(source, track, container=container)
        remux(source, path, edit(), container)

    return writer


def edited(track: Track, *edits: tuple[int, int], container: str = "mov") -> Writer:
    def writer(path: Path) -> None:
        write(path, track, container=container)
        path.write_bytes(with_edit_list(path.read_bytes(), edits))

    return writer


def lost_packets():
    """Every tenth packet, and some neighbors."""
    return lambda number, packet: None if number % 10 == 7 or 90 < number < 95 else packet


def speech_only():
    """A packet in ten where nobody speaks, as with discontinuous transmission."""
    return lambda number, packet: packet if number % 10 == 0 or not 60 < number < 140 else None


def trembling():
    """Timestamps of a live source, up to 8 ms off."""
    random = np.random.default_rng(5)

    def edit(number, packet):
        packet.pts += int(random.integers(-8, 9)) if number else 0
        packet.dts = packet.pts
        return packet

    return edit


MPEG4 = (0.0, 6.0, "mpeg4")
VORBIS = {"options": {"strict": "-2"}, "layout": "stereo"}  # all that FFmpeg's encoder can
VBR = {"options": {"flags": "+qscale", "global_quality": "470"}}
WRAP = 2**33 / 90_000  # seconds until the clock of a transport stream begins again
TWO = [whole("aac", 16_000), hole("aac", 44_100, 1, layout="stereo")]  # the second is read

FILES: dict[str, Writer] = {
    "opus_live.webm": file(hole("libopus", 48_000), options={"live": "1"}),
    "vorbis_late.webm": file(late("vorbis", 44_100, **VORBIS), picture=(0, 6, "libvpx")),
    "opus_both.webm": file(hole("libopus", 48_000, 2), picture=(0.5, 6, "libvpx")),
    "aac.mkv": file(hole("aac", 44_100)),
    "vbr.mkv": file(hole("mp3", 44_100, 2, **VBR), picture=(0.5, 6, "mpeg4")),
    "flac_late.mkv": file(late("flac", 44_100), picture=MPEG4),
    "pcm_alone.mkv": file(late("pcm_s16le", 16_000)),
    "ac3.mka": file(hole("ac3", 48_000), container="matroska"),
    "two.mkv": file(*TWO),
    "lost.mka": remuxed(whole("libopus", 48_000), lost_packets),
    "dtx.mka": remuxed(whole("libopus", 48_000), speech_only),
    "aac.mp4": file(hole("aac", 44_100)),
    "aac_late.mp4": file(late("aac", 16_000), picture=MPEG4),
    "opus_both.mp4": file(hole("libopus", 48_000, 2), picture=(0.5, 6, "mpeg4")),
    "vbr.mp4": file(hole("mp3", 44_100, **VBR)),
    "alac_alone.m4a": file(late("alac", 44_100)),
    "flac.mp4": file(hole("flac", 44_100)),
    "ac3_both.mp4": file(hole("ac3", 48_000, 2), picture=(0.5, 6, "mpeg4")),
    "two.mp4": file(*TWO),
    "lost.mp4": remuxed(whole("aac", 44_100), lost_packets, "mp4"),
    "aac_both.mov": file(hole("aac", 44_100, 2), picture=(0.5, 6, "mpeg4")),
    "pcm_late.mov": file(late("pcm_s16le", 16_000), picture=MPEG4),
    "trimmed.m4a": edited(whole("aac", 44_100), (2_500, 44_100 + 1024)),
    "delayed.m4a": edited(whole("aac", 44_100), (4_000, -1), (4_000, 1024)),
    "spliced.mov": edited(
        whole("alac", 44_100), (1_500, 0), (3_000, -1), (2_000, 2 * 44_100), container="mov"
    ),
    "amr.3gp": file(hole("libopencore_amrnb", 8_000)),
    "wma2.wma": file(hole("wmav2", 44_100, bit_rate=64_000), container="asf"),
    "wma1.wma": file(late("wmav1", 44_100, bit_rate=64_000), container="asf"),
    "late.wmv": file(late("wmav2", 44_100, bit_rate=64_000), container="asf", picture=MPEG4),
    "aac.flv": file(hole("aac", 44_100)),
    "mp3_both.flv": file(hole("mp3", 44_100, 2), picture=(0.5, 6, "flv")),
    "aac.ts": file(hole("aac", 44_100), container="mpegts"),
    "later.ts": file(hole("ac3", 48_000, 5_000), container="mpegts"),
    "wrap.ts": file(hole("aac", 44_100, WRAP - 2), container="mpegts"),
    "mp2_late.ts": file(late("mp2", 44_100), container="mpegts", picture=MPEG4),
    "opus_both.m2ts": file(
        hole("libopus", 48_000, 2), container="mpegts", picture=(0.5, 6, "mpeg4")
    ),
    "lost.ts": remuxed(whole("aac", 44_100), lost_packets, "mpegts"),
    "mp2_both.mpg": file(hole("mp2", 44_100, 2), picture=(0.5, 6, "mpeg1video")),
    "opus.ogg": file(hole("libopus", 48_000)),
    "opus_16_kHz.ogg": file(hole("libopus", 16_000)),
    "opus_alone.ogg": file(late("libopus", 48_000)),
    "vorbis.ogg": file(hole("vorbis", 44_100, **VORBIS)),
    "flac.ogg": file(hole("flac", 44_100)),
    "two.ogg": file(whole("libopus", 48_000), hole("libopus", 48_000, 1, layout="stereo")),
    "mp3.avi": file(whole("mp3", 44_100), picture=MPEG4),
    "aac_both.nut": file(hole("aac", 44_100, 2), picture=(0.5, 6, "mpeg4")),
    "mp2.wtv": file(hole("mp2", 44_100)),
    "priming.aac": file(whole("aac", 44_100), container="adts"),
    "alac.caf": file(whole("alac", 44_100)),
    "g722.wav": file(whole("g722", 16_000)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("files")

    @functools.cache
    def written(name: str) -> Path:
        FILES[name](folder / name)
        return folder / name

    return written


@functools.cache
def by_ffmpeg(path: Path) -> Laid:
    return ffmpeg_decodes(path)


def read(path: Path, rate: int, **part) -> np.ndarray:
    return read_audio(str(path), AudioRequest(sample_rate=rate, silence_allowed=True, **part))


def check_part(path: Path, laid: Laid, offset: float, duration: float | None) -> None:
    part = read(path, laid.rate, offset=offset, duration=duration)

    wanted = min(laid.end / laid.rate - offset, math.inf if duration is None else duration)
    assert len(part) == pytest.approx(wanted * laid.rate, abs=laid.rate / 1000 + 1)
    assert laid.lost(part, round(offset * laid.rate)) == [], (offset, duration)


@pytest.mark.parametrize("name", FILES)
def test_the_whole_is_where_ffmpeg_has_it_and_holes_are_silent(files, name):
    laid = by_ffmpeg(files(name))

    samples = read(files(name), laid.rate)

    assert len(samples) == pytest.approx(laid.end, abs=laid.rate / 1000 + 1)
    assert laid.lost(samples) == []
    silent = samples[laid.silent(len(samples))]
    assert np.abs(silent).max(initial=0) < (1e-4 if name == "opus_16_kHz.ogg" else 1e-30)


@pytest.mark.parametrize("name", FILES)
def test_a_range_is_where_ffmpeg_has_it(files, name):
    laid = by_ffmpeg(files(name))
    end = laid.end / laid.rate
    parts = [(0.25, 0.3), (0.45, 0.1), (0.6, 0.2), (0.71, 0.02)]  # into the hole, in it, out of it
    check_part(files(name), laid, 0.3, 1.5)
    for offset, duration in parts:
        check_part(files(name), laid, offset * end, duration * end)
    check_part(files(name), laid, end - 0.7, None)


@pytest.mark.parametrize("name", FILES)
def test_stretches_hold_all_that_ffmpeg_has(files, name):
    laid = by_ffmpeg(files(name))
    length = 1.7
    for number in range(math.ceil(laid.end / laid.rate / length) - 1):
        check_part(files(name), laid, number * length, length)


LONG = {
    "live.webm": (Track([(0, None), (250, None)], "libopus", 48_000), {"options": {"live": "1"}}),
    "flac.mkv": (Track([(0, None), (250, None)], "flac", 8_000), {}),
    "aac.mp4": (Track([(0, None), (250, None)], "aac", 16_000), {}),
    "mp2.ts": (Track([(0, None), (250, None)], "mp2", 16_000), {"container": "mpegts"}),
    "opus.ogg": (Track([(0, None), (250, None)], "libopus", 16_000), {}),
}


@pytest.mark.parametrize("name", LONG)
def test_the_stretches_of_a_long_recording_hold_all_of_it(tmp_path, name):
    track, options = LONG[name]
    tile = np.tile(sound(20, track.rate, 1), 5)
    write(tmp_path / name, track._replace(pieces=[(s, tile) for s, _ in track.pieces]), **options)
    laid = ffmpeg_decodes(tmp_path / name)
    clip = Clip(Row("{}", id="row"), str(tmp_path / name), 0.0, None)

    (plan,) = Planner(Storage(), None, 300.0, "fixed", False).plan(clip, 60.0)
    groups = list(group_segments(plan))
    recognized = list(ClipReader(Storage(), None, 300.0, 1).read(groups, laid.rate))

    assert plan.seconds == pytest.approx(laid.end / laid.rate, abs=0.001)
    assert len(groups) > 1
    assert len(recognized) == len(plan.segments)
    for outcome, segment in zip(recognized, plan.segments, strict=True):
        assert isinstance(outcome, Loaded)
        assert laid.lost(outcome.waveform, round(segment.start * laid.rate)) == []


def jumping(seconds: float, first: int = 25):
    """Timestamps that are later from a packet on."""

    def edit(number, packet):
        if number >= first:
            packet.pts += round(seconds / packet.time_base)
            packet.dts = packet.pts
        return packet

    return lambda: edit


@pytest.mark.parametrize(("name", "container"), [("a.mka", "matroska"), ("a.ts", "mpegts")])
def test_a_hole_of_ten_hours_is_silence_block_by_block(tmp_path, name, container):
    path = tmp_path / name
    remuxed(whole("mp2", 16_000), jumping(36_000), container)(path)

    blocks = stream_audio(str(path), AudioRequest(sample_rate=16_000, max_seconds=math.inf))
    lengths = [len(block) for block in blocks]

    assert sum(lengths) / 16_000 == pytest.approx(36_004, abs=0.1)
    assert max(lengths) <= 2**18
    with pytest.raises(errors.TooLongAudioError):
        read(path, 16_000, max_seconds=300)
    part = read(path, 416_000, offset=36_002, duration=1)  # behind it
    assert np.abs(part).max() > 0.1


@pytest.mark.parametrize(("name", "container"), [("a.mka", "matroska"), ("a.ts", "mpegts")])
def test_a_jump_of_more_than_twelve_hours_is_an_error(tmp_path, name, container):
    remuxed(whole("mp2", 16_000), jumping(13 * 3600), container)(tmp_path / name)

    with pytest.raises(errors.CorruptAudioError, match=r"leave out 13\.0 h") as caught:
        for _ in stream_audio(
            str(tmp_path / name), AudioRequest(sample_rate=16_000, max_seconds=math.inf)
        ):
            pass
    assert str(tmp_path / name) in str(caught.value)


def test_joined_transport_streams_are_read_one_after_the_other(files, tmp_path):
    joined, once = tmp_path / "joined.ts", files("aac.ts")
    joined.write_bytes(2 * once.read_bytes())
    laid = by_ffmpeg(once)

    samples = read(joined, laid.rate)
    part = read(joined, laid.rate, offset=20, duration=4)

    assert len(samples) == pytest.approx(2 * laid.end, abs=2048)  # FFmpeg drops a frame's part
    assert laid.lost(samples) == []
    np.testing.assert_allclose(part, samples[20 * laid.rate :][: len(part)], atol=1e-6)


def test_joined_matroska_whose_clock_begins_again_is_an_error(files, tmp_path):
    content = bytearray(files("aac.mkv").read_bytes())
    size = content.find(b"\x18\x53\x80\x67") + 4  # of the segment, which a live one does not state
    content[size : size + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "joined.mkv").write_bytes(2 * bytes(content))

    with pytest.raises(errors.CorruptAudioError, match=r"timestamps go back from 13\.0"):
        read(tmp_path / "joined.mkv", 44_100)


@pytest.mark.parametrize("codec", ["libopus", "pcm_s16le"])
def test_timestamps_that_tremble_change_no_sample(tmp_path, codec):
    path = tmp_path / "trembling.mka"
    track = whole(codec, 48_000)
    remuxed(track, trembling)(path)

    samples, expected = read(path, 48_000), read(tmp_path / "source.mka", 48_000)

    length = 3 * 48_000  # the last packets are too few to tell
    np.testing.assert_array_equal(samples[:length], expected[:length])


@pytest.mark.parametrize("name", ["aac.mkv", "opus.ogg", "aac.ts", "aac.mp4"])
def test_a_row_of_nothing_but_a_hole_is_an_error(files, name):
    with pytest.raises(errors.SilentAudioError):
        read_audio(str(files(name)), AudioRequest(sample_rate=16_000, offset=5, duration=3))


def test_zeros_and_a_hole_are_silence(tmp_path):
    zeros = np.zeros(32_000, np.float32)
    write(tmp_path / "zeros.mkv", Track([(0, zeros), (9, zeros)], "flac", 16_000))

    with pytest.raises(errors.SilentAudioError):
        read_audio(str(tmp_path / "zeros.mkv"), AudioRequest(sample_rate=16_000))


@pytest.mark.parametrize("name", ["aac.mkv", "flac_late.mkv", "opus.ogg", "aac.mp4", "trimmed.m4a"])
def test_the_stated_length_counts_as_the_samples_do(files, name):
    laid = by_ffmpeg(files(name))

    stated = probe_duration(str(files(name)))

    assert stated is None or stated == pytest.approx(laid.end / laid.rate, abs=0.1)


@pytest.mark.parametrize("name", ["aac.mkv", "opus.ogg", "vorbis.ogg"])
def test_a_file_with_a_hole_that_is_cut_short_is_truncated(files, tmp_path, name):
    content = files(name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 3 // 4])

    with pytest.raises(errors.TruncatedAudioError):
        read(tmp_path / name, 16_000)


@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (48_000, 2)])
@pytest.mark.parametrize("quality", [0.0, 0.5, 1.0])
def test_an_ogg_without_a_hole_is_decoded_by_libsndfile_alone(
    tmp_path, monkeypatch, kind, rate, channels, quality
):
    path = tmp_path / "clip.ogg"
    quiet = np.concatenate([sound(4, rate, 1), np.zeros(2 * rate, np.float32), sound(9, rate, 2)])
    samples = np.stack(channels * [quiet], axis=1)
    soundfile.write(path, samples, rate, format="OGG", subtype=kind, compression_level=quality)
    monkeypatch.setattr("beam_asr.audio.ogg_decoder.FFmpegDecoder", None)

    assert len(read(path, rate)) == len(quiet)
    assert len(read(path, rate, offset=3, duration=9.5)) == round(9.5 * rate)


@pytest.mark.parametrize("frame", ["2.5", "20", "60", "120"])
def test_a_hole_is_found_whatever_the_packets_of_opus_last(tmp_path, frame):
    options = {"frame_duration": frame}
    write(tmp_path / "a.ogg", hole("libopus", 48_000, options=options))
    laid = ffmpeg_decodes(tmp_path / "a.ogg")

    assert laid.lost(read(tmp_path / "a.ogg", 48_000)) == []
    assert len(read(tmp_path / "a.ogg", 48_000)) == pytest.approx(laid.end, abs=48)
