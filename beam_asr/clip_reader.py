"""Clips to waveforms: many at a time, each within a time limit, and what failed told apart."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from beam_asr import audio, read_pool
from beam_asr.audio_errors import AudioTimeoutError
from beam_asr.manifest import Clip
from beam_asr.read_pool import Read, StalledError
from beam_asr.storage import Storage

AHEAD_SECONDS = 20 * 60  # of audio that is read and not yet taken
UNKNOWN_SECONDS = 15  # that a clip without a duration is at first taken for
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


@dataclasses.dataclass(frozen=True)
class ClipReader:
    """How the audio of rows is read.

    Attributes:
        storage: how storages are opened, and which may be.
        channel: the channel to take where a row names none, from 0; None averages them.
        timeout_seconds: how long a file may take.
        concurrency: most files that are read at one time in a process.
    """

    storage: Storage
    channel: int | None
    timeout_seconds: float
    concurrency: int

    def read(self, clips: Iterable[Clip], sample_rate: int) -> Iterator[Heard]:
        """Each clip with its waveform, or with why it has none, in their order.

        They are read ahead of being taken, some number and some minutes of audio.

        Args:
            sample_rate: of the waveforms, in Hz.
        """
        reads = ((clip, partial(self._read, clip, sample_rate)) for clip in clips)
        return self._run(reads, sample_rate, 2 * self.concurrency)

    def decode(self, contents: Iterable[tuple[Clip, bytes]], sample_rate: int) -> Iterator[Heard]:
        """As ``read``, of clips whose files are here already."""
        reads = (
            (clip, partial(self._read, clip, sample_rate, content)) for clip, content in contents
        )
        return self._run(reads, sample_rate, CONTENTS_AHEAD)

    def _run(
        self,
        reads: Iterable[tuple[Clip, Callable[[], np.ndarray]]],
        sample_rate: int,
        most: int,
    ) -> Iterator[Heard]:
        pool = read_pool.pool(self.concurrency)
        begun: deque[tuple[Clip, Read[np.ndarray], float]] = deque()
        ahead = 0.0
        longest = float(UNKNOWN_SECONDS)  # what a clip without a duration may turn out to be
        for clip, read in reads:
            expected = longest if clip.duration is None else clip.duration
            while begun and (len(begun) >= most or ahead + expected > AHEAD_SECONDS):
                first, started, seconds = begun.popleft()
                ahead -= seconds
                heard = self._heard(first, started)
                if isinstance(heard.waveform, np.ndarray):
                    longest = max(longest, len(heard.waveform) / sample_rate)
                yield heard
            begun.append((clip, pool.start(read), expected))
            ahead += expected
        while begun:
            first, started, _ = begun.popleft()
            yield self._heard(first, started)

    def _heard(self, clip: Clip, read: Read[np.ndarray]) -> Heard:
        outcome = read.result(self.timeout_seconds)
        if isinstance(outcome, StalledError):
            outcome = AudioTimeoutError(
                f"{clip.audio}: could not be read within {self.timeout_seconds:g} s, and its "
                "storage does not answer. Mend the storage, or raise --audio_timeout."
            )
        return Heard(clip, outcome, read.seconds)

    def _read(self, clip: Clip, sample_rate: int, content: bytes | None = None) -> np.ndarray:
        return audio.read_audio(
            clip.audio,
            sample_rate=sample_rate,
            offset=clip.offset,
            duration=clip.duration,
            channel=self.channel if clip.channel is None else clip.channel,
            storage=self.storage,
            deadline=time.monotonic() + self.timeout_seconds,
            content=content,
        )
