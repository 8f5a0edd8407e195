"""Decodes audio with libsndfile, exact to the sample wherever a range begins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile

from beam_asr.audio.decoder import BLOCK_SAMPLES, OVERRUN_S, PREROLL_S
from beam_asr.audio.joined_files import check_behind_flac
from beam_asr.audio.mpeg_audio import MpegStream
from beam_asr.audio.source import Source
from beam_asr.errors import CorruptAudioError
from beam_asr.storage.file_kinds import MPEG_AUDIO

_UNKNOWN_LENGTH = 2**62  # libsndfile returns 2**63 - 1 frames if a header states none
_MAX_PADDING = 3 * 4096  # frames that an encoder adds, by 12 bits for each end, and a decoder's
_REST_BYTES, _REST_FRAMES = 8192, 4  # looked through for frames after the last; more than padding


class _QuietSoundFile(soundfile.SoundFile):
    """A SoundFile that does not seek by itself.

    soundfile seeks after each read to where it already is, which makes decoders of MP3 start
    afresh, in the middle of their bit reservoir, at each block. It calls ``seekable`` first.
    """

    def seekable(self) -> bool:
        """Returns False, so that soundfile does not seek after reads."""
        return False

    @property
    def can_seek(self) -> bool:
        """Returns whether libsndfile can seek in this codec."""
        return super().seekable()


class SndfileDecoder:
    """Decodes what libsndfile reads, but Ogg: WAV, AIFF, AU, FLAC, MP3, SPHERE, CAF.

    Args:
        source: of the file.
    """

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
        self._format, self._subtype = self._file.format, self._file.subtype
        self._is_mp3 = self._format == "MP3"
        # An MP3's frame count may include encoder padding; to be exact to the sample, all frames
        # before a place are read. Some codecs, as GSM 6.10 and G.721, have no place to start at but
        # the first; nor has DWVW, of which libsndfile says that it has.
        can_seek = self._file.can_seek and not self._subtype.startswith("DWVW")
        self.can_seek = can_seek and not self._is_mp3
        self.length_slack_s = OVERRUN_S if self._is_mp3 else 0.0

    def guesses_length(self, mpeg: MpegStream | None) -> bool:
        """Returns whether the length is computed from a bit rate, as that of MP3 in a WAV is.

        Args:
            mpeg: what the file's first frame states, if it is an MP3.
        """
        if not self._subtype.startswith("MPEG"):
            return False
        if mpeg is None or mpeg.stated_frames is None:
            return True
        return not 0 <= mpeg.stated_frames - self._file.frames <= _MAX_PADDING

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
        if self._is_mp3 and (remaining > 0 or start >= end):
            self._check_rest(start, end)
        elif self._format == "FLAC" and start >= end:
            check_behind_flac(self._source, self._source.position)

    def _go_to(self, start: int) -> bool:
        """Seeks to a frame before the end; returns whether there is one."""
        if not (self.can_seek or self._is_mp3):
            return self._skip(start) == start
        if not self._is_mp3:
            self._file.seek(start)
            return True
        # A frame of MP3 needs bits of those before, and libmpg123 goes back to too few of them.
        sought = max(0, start - round(PREROLL_S * self.rate))
        if sought:
            self._file.seek(sought)
        return sought + self._skip(start - sought) == start

    def _skip(self, count: int) -> int:
        """Decodes and drops up to `count` frames; returns how many there were."""
        skipped = 0
        while skipped < count:
            self._source.check_time()
            size = min(count - skipped, max(1, BLOCK_SAMPLES // self.channels))
            dropped = len(self._file.read(size, dtype="float32"))
            if not dropped:
                break
            skipped += dropped
        return skipped

    def _check_rest(self, stop: int, end: int) -> None:
        """Raises if an MP3 continues after the frame at which libsndfile stops."""
        rest = self._source.read_on(_REST_BYTES)
        if max(map(rest.count, MPEG_AUDIO)) < _REST_FRAMES:
            return
        if stop < end:
            raise CorruptAudioError(
                f"{self._source.shown}: its sample rate or its channels change after "
                f"{stop / self.rate:.2f} s, or its frames are damaged there. Split or convert it, "
                "for example to FLAC."
            )
        raise CorruptAudioError(
            f"{self._source.shown}: goes on after the {end / self.rate:.2f} s that its first frame "
            "states, as where files were joined. Convert it, for example to FLAC."
        )

    def exhausted(self) -> bool:
        """Returns whether decoding failed at the end of the bytes."""
        return self._source.exhausted

    def close(self) -> None:
        """Closes the file of libsndfile, not the source."""
        self._file.close()
