"""Decodes audio with libsndfile, which is exact on every seek."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile

from beam_asr.audio.decoder import BLOCK_SAMPLES, OVERRUN_S
from beam_asr.audio.signatures import MPEG_AUDIO
from beam_asr.audio.source import Source
from beam_asr.errors import (
    CorruptAudioError,
)

_UNKNOWN_LENGTH = 2**62  # libsndfile returns 2**63 - 1 frames if a header states none
_REST_BYTES, _REST_FRAMES = 8192, 4  # looked through for frames after the last; more than padding


class _QuietSoundFile(soundfile.SoundFile):
    """A SoundFile that does not seek by itself.

    soundfile seeks after each read to where it already is, which makes decoders of MP3 start
    afresh, in the middle of their bit reservoir, at each block. It calls ``seekable`` first.
    """

    def seekable(self) -> bool:
        """Returns False, so that soundfile does not seek after reads."""
        return False


class SndfileDecoder:
    """Decodes what libsndfile reads, but Ogg: WAV, AIFF, AU, FLAC, MP3, SPHERE, CAF."""

    def __init__(self, source: Source) -> None:
        self._source = source
        if source.descriptor is None:
            self._file = _QuietSoundFile(source)
        else:
            self._file = _QuietSoundFile(source.descriptor, closefd=False)
        self.rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        frames = self._file.frames
        self.stated_frames: int | None = None if frames > _UNKNOWN_LENGTH else frames
        # An MP3's frame count may include encoder padding; to be exact to the sample, all frames
        # before a place are read.
        self.can_seek = self._file.format != "MP3"
        self.length_slack_s = 0.0 if self.can_seek else OVERRUN_S

    def blocks(self, start: int, count: int | None) -> Iterator[np.ndarray]:
        """Yields float32 blocks (frames, channels), up to `count` frames from frame `start` on."""
        end = _UNKNOWN_LENGTH if self.stated_frames is None else self.stated_frames
        remaining = end - start if count is None else min(count, end - start)
        if start and remaining > 0 and not self._go_to(start):
            return
        while remaining > 0:
            size = min(remaining, max(1, BLOCK_SAMPLES // self.channels))
            block = self._file.read(size, dtype="float32", always_2d=True)
            if not len(block):
                break
            remaining -= len(block)
            start += len(block)
            yield block
        if self._file.format == "MP3" and start >= end:
            self._check_rest(end)

    def _go_to(self, start: int) -> bool:
        """Seeks to a frame before the end; returns whether there is one."""
        self._file.seek(start)
        return True

    def _check_rest(self, end: int) -> None:
        """Raises if an MP3 continues after its end according to libsndfile.

        The length is stated in the first frame, or computed from that frame's bit rate.
        """
        rest = self._source.read_on(_REST_BYTES)
        if max(map(rest.count, MPEG_AUDIO)) >= _REST_FRAMES:
            raise CorruptAudioError(
                f"{self._source.shown}: goes on after the {end / self.rate:.2f} s "
                "that it states, as where files were joined, or no header was written for a "
                "variable bit rate. Convert it, for example to FLAC."
            )

    def exhausted(self) -> bool:
        """Returns whether decoding failed at the end of the bytes."""
        return self._source.exhausted

    def close(self) -> None:
        """Closes the file of libsndfile, not the source."""
        self._file.close()
