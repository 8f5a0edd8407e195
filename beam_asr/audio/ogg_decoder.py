"""Decodes Ogg files: with libsndfile up to a hole in their clock, and with FFmpeg from there on.

Each page of an Ogg states the sample that its last packet ends with, so that the clock goes on
where packets are missing. libsndfile counts samples as it decodes, but seeks by that clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import soundfile
import soxr

from beam_asr.audio.decoder import PREROLL_S
from beam_asr.audio.ffmpeg_decoder import FFmpegDecoder
from beam_asr.audio.ogg_pages import PageWatch
from beam_asr.audio.signatures import OGG_PAGE_FRAMES
from beam_asr.audio.sndfile_decoder import SndfileDecoder
from beam_asr.audio.source import Source

_SETTLING_S = 0.1  # decoded before a place and dropped: a resampler needs what came before


class OggDecoder(SndfileDecoder):
    """Decodes Ogg Vorbis, Opus and FLAC.

    Args:
        source: of the file.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._rest: FFmpegDecoder | None = None
        self._watch = PageWatch(source)

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        """Yields float32 blocks (frames, channels), up to `count` frames from frame `start` on."""
        reached = start
        if self._watch.starts_late and len(self._file.read(1)):
            self._file.seek(0)  # else the samples that Opus skips at the start would be read
        try:
            for block in super().blocks(start, count):
                if self._finds_hole():
                    break
                yield block
                reached += len(block)
        except soundfile.LibsndfileError:  # from a seek to where there is nothing
            if not self._has_hole():
                raise
        end = None if count is None else start + count
        stated = self.stated_frames
        if stated is None:
            is_short = False
        else:
            is_short = reached < (stated if end is None else min(stated, end))
        # In a hole, a seek may end anywhere, and then nothing is read.
        if self._finds_hole() or (is_short and self._has_hole()):
            yield from self._behind(reached, None if end is None else end - reached)

    def _has_hole(self) -> bool:
        """Returns whether there is a hole anywhere, which takes all the file's bytes."""
        return PageWatch(self._source).finds_hole(self._source.size)

    def _go_to(self, start: int) -> bool:
        """Seeks to a frame before the end; returns whether there is one."""
        end = start if self.stated_frames is None else self.stated_frames
        # If a decoder could not be set up, a read is empty, and a seek would crash.
        if not len(self._file.read(1)):
            return False
        # A seek into the last page may end elsewhere, and so may one that is not from the start.
        self._file.seek(0)
        sought = max(0, min(start - round(PREROLL_S * self.rate), end - OGG_PAGE_FRAMES))
        self._file.seek(sought)
        self._watch.start_at(self._source.position)
        while sought < start and (dropped := len(self._file.read(min(start - sought, 2**16)))):
            sought += dropped
        return sought == start

    def _finds_hole(self) -> bool:
        return self._watch.finds_hole(self._source.position)

    def _behind(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        """Yields what comes from frame ``start`` on, by FFmpeg, whose Opus is always at 48 kHz."""
        self._source.seek(0)
        self._rest = rest = FFmpegDecoder(self._source, "ogg")
        if rest.rate == self.rate:
            yield from rest.blocks(start, count)
            return
        settling = min(start, round(_SETTLING_S * self.rate))
        times = rest.rate / self.rate
        count = None if count is None else round((count + settling) * times)
        resample = soxr.ResampleStream(
            rest.rate, self.rate, self.channels, dtype="float32", quality="HQ"
        ).resample_chunk
        decoded = rest.blocks(round((start - settling) * times), count)
        last = np.empty((0, self.channels), np.float32)
        for block, is_last in chain(((each, False) for each in decoded), [(last, True)]):
            block = resample(np.ascontiguousarray(block), is_last)
            dropped = min(settling, len(block))
            settling -= dropped
            if len(block) > dropped:
                yield block[dropped:]

    def exhausted(self) -> bool:
        """Returns whether decoding failed at the end of the bytes."""
        return super().exhausted() if self._rest is None else self._rest.exhausted()

    def close(self) -> None:
        """Closes both decoders, not the source."""
        super().close()
        if self._rest is not None:
            self._rest.close()
