"""Clips to waveforms: many at a time, each within a time limit, and what failed told apart."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

from beam_asr import audio, read_pool
from beam_asr.audio_errors import AudioTimeoutError
from beam_asr.manifest import Clip
from beam_asr.read_pool import StalledError
from beam_asr.storage import Storage

CONTENTS_AHEAD = 8  # files of a tar that are held at a time


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

    def read(
        self, clips: Iterable[Clip], sample_rate: int
    ) -> Iterator[tuple[Clip, np.ndarray | Exception]]:
        """Each clip with its waveform, or with why it has none, in their order.

        Args:
            sample_rate: of the waveforms, in Hz; they are float32 of shape ``(samples,)``.
        """
        reads = ((clip, partial(self._read, clip, sample_rate)) for clip in clips)
        yield from self._run(reads)

    def decode(
        self, contents: Iterable[tuple[Clip, bytes]], sample_rate: int
    ) -> Iterator[tuple[Clip, np.ndarray | Exception]]:
        """As ``read``, of clips whose files are here already."""
        reads = (
            (clip, partial(self._read, clip, sample_rate, content)) for clip, content in contents
        )
        yield from self._run(reads, CONTENTS_AHEAD)

    def _run(self, reads: Iterable, ahead: int | None = None) -> Iterator:
        pool = read_pool.pool(self.concurrency)
        for clip, outcome in pool.run(reads, self.timeout_seconds, ahead):
            if isinstance(outcome, StalledError):
                outcome = AudioTimeoutError(
                    f"{clip.audio}: could not be read within {self.timeout_seconds:g} s, and its "
                    "storage does not answer. Mend the storage, or raise --audio_timeout."
                )
            yield clip, outcome

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
