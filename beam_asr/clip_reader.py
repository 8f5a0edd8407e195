"""Clips to waveforms: many at a time, each within a time limit, and what failed told apart."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from beam_asr import audio, read_pool
from beam_asr.audio import LONGEST_SECONDS
from beam_asr.audio_errors import AudioMemoryError, AudioTimeoutError, TooLongAudioError
from beam_asr.audio_source import shown
from beam_asr.manifest import Clip
from beam_asr.read_pool import Read, StalledError
from beam_asr.storage import Storage

AHEAD_SECONDS = 20 * 60  # of audio that is read and not yet taken
UNKNOWN_SECONDS = 15  # that a clip without a duration is at first taken for
LONG_SECONDS = 5 * 60  # of a clip without a duration; a longer one is not read ahead
CONTENTS_AHEAD = 8  # files of a tar that are held at a time


class Heard(NamedTuple):
    """A clip that has been read.

    Attributes:
        waveform: float32 of shape ``(samples,)``, or why there is none.
        seconds: that reading and decoding took.
    """

    clip: Clip
    waveform: np.ndarray | Exception
    seconds: float


class _Begun(NamedTuple):
    """A clip that is read before its turn.

    Attributes:
        expected: seconds of audio that it is taken for.
        content: of its file, if that is here.
    """

    clip: Clip
    expected: float
    content: bytes | None
    read: Read[np.ndarray]


@dataclasses.dataclass(frozen=True)
class ClipReader:
    """How the audio of rows is read.

    Attributes:
        storage: how storages are opened, and which may be.
        channel: the channel to take where a row names none, from 0; None averages them.
        timeout_seconds: how long a file may take, and as long again for each further hour of audio.
        concurrency: most files that are read at one time in a process.
    """

    storage: Storage
    channel: int | None
    timeout_seconds: float
    concurrency: int

    def read(self, clips: Iterable[Clip], sample_rate: int) -> Iterator[Heard]:
        """Each clip with its waveform, or with why it has none, in their order.

        They are read ahead of being taken, some number and some minutes of audio. A clip that is
        found to be long, of which its row says nothing, is given up and read again when it is its
        turn, so that of such clips there is one at a time; one for which there was no memory too.

        Args:
            sample_rate: of the waveforms, in Hz.
        """
        return self._run(((clip, None) for clip in clips), sample_rate, 2 * self.concurrency)

    def decode(self, contents: Iterable[tuple[Clip, bytes]], sample_rate: int) -> Iterator[Heard]:
        """As ``read``, of clips whose files are here already."""
        return self._run(contents, sample_rate, CONTENTS_AHEAD)

    def _run(
        self, clips: Iterable[tuple[Clip, bytes | None]], sample_rate: int, most: int
    ) -> Iterator[Heard]:
        begun: deque[_Begun] = deque()
        ahead = 0.0
        longest = float(UNKNOWN_SECONDS)  # what a clip without a duration may turn out to be
        for clip, content in clips:
            expected = longest if clip.duration is None else clip.duration
            while begun and (len(begun) >= most or ahead + expected > AHEAD_SECONDS):
                ahead -= begun[0].expected
                heard = self._heard(begun.popleft(), sample_rate)
                if isinstance(heard.waveform, np.ndarray):
                    longest = max(longest, len(heard.waveform) / sample_rate)
                yield heard
                del heard  # its waveform, before the next one is read
            begun.append(
                _Begun(
                    clip, expected, content, self._start(clip, content, sample_rate, LONG_SECONDS)
                )
            )
            ahead += expected
        while begun:
            yield self._heard(begun.popleft(), sample_rate)

    def _heard(self, begun: _Begun, sample_rate: int) -> Heard:
        """The clip, whose turn it is; read again if it was too much to be read before."""
        clip, _, content, read = begun
        outcome = self._outcome(read, clip, LONG_SECONDS)
        seconds = read.seconds
        is_long = clip.duration is None and isinstance(outcome, TooLongAudioError)
        if is_long or isinstance(outcome, MemoryError):
            read = self._start(clip, content, sample_rate, LONGEST_SECONDS)
            outcome = self._outcome(read, clip, LONGEST_SECONDS)
            seconds += read.seconds
        if isinstance(outcome, MemoryError):
            outcome = AudioMemoryError(
                f"{shown(clip.audio)}: twice there was no memory to read it ({outcome}). Give the "
                "worker more memory, or lower --max_concurrent_reads."
            )
        return Heard(clip, outcome, seconds)

    def _start(
        self, clip: Clip, content: bytes | None, sample_rate: int, longest: float
    ) -> Read[np.ndarray]:
        """Has a clip read; ``longest`` is what it may be if its row does not say how long it is."""
        read = partial(self._read, clip, content, sample_rate, longest)
        return read_pool.pool(self.concurrency).start(read)

    def _outcome(
        self, read: Read[np.ndarray], clip: Clip, longest: float
    ) -> np.ndarray | Exception:
        limit = self._time_limit(clip, longest)
        outcome = read.result(limit)
        if isinstance(outcome, StalledError):
            return AudioTimeoutError(
                f"{shown(clip.audio)}: could not be read within {limit:g} s, and its storage does "
                "not answer. Mend the storage, or raise --audio_timeout."
            )
        return outcome

    def _time_limit(self, clip: Clip, longest: float) -> float:
        """Seconds that it may take to read a clip of its length, or of the longest possible."""
        hours = min(clip.duration or longest, LONGEST_SECONDS) / 3600
        return self.timeout_seconds * max(1.0, hours)

    def _read(
        self, clip: Clip, content: bytes | None, sample_rate: int, longest: float
    ) -> np.ndarray:
        return audio.read_audio(
            clip.audio,
            sample_rate=sample_rate,
            offset=clip.offset,
            duration=clip.duration,
            channel=self.channel if clip.channel is None else clip.channel,
            storage=self.storage,
            deadline=time.monotonic() + self._time_limit(clip, longest),
            content=content,
            most_seconds=longest if clip.duration is None else LONGEST_SECONDS,
        )
