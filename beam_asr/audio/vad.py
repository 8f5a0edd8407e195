"""Detects voice activity frame by frame, and quiet clips without speech."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soxr

logger = logging.getLogger(__name__)
RATE = 16_000  # Hz
FRAME_SAMPLES = 512  # the network's input at this rate
MIN_LEVEL_DB = -120.0
# The network's input is a frame with the last samples of the previous one, its memory an LSTM's;
# silero_vad/sequence_vad.py of the package has the same numbers.
_CONTEXT_SAMPLES = 64
_STATE_SHAPE = (1, 1, 128)
_CHUNK_FRAMES = 512  # in one call, 16 s
_CHUNK_SAMPLES = _CHUNK_FRAMES * FRAME_SAMPLES
# Each section is processed by a separate thread, from an empty memory, which is warmed up with the
# last seconds before the section.
_SECTION_CHUNKS = 8  # two minutes, 9 MB
_WARM_FRAMES = 128  # 4 s
# The network dominates the cost of planning. Where pauses are clearly quieter than speech, it runs
# on a part of the chunk only; if it finds speech there, every frame that is not silent counts as
# speech.
_NOTHING_DB = -90.0  # the last bit of 16
_SILENT_DB = 45.0  # below what is loud in a chunk; whispering is not
_LOUD_PERCENT = 95
_CLEAR_SHARE = 0.05  # of a chunk's frames must be silent
_CLEARLY_DB = 6.0  # most of them by at least this
_PROBE_FRAMES = 48  # 1.5 s, around the loudest frame
_PROBE_WARM_FRAMES = 16
_PROBE_SPEECH = 0.5
_PROBE_SPEECH_FRAMES = 10  # a syllable or two
# Below about -50 dBFS the network misses speech, so a quieter chunk is amplified. That does not
# turn noise into speech.
_LOUD_ENOUGH_DB = -30.0  # of the loudest frame of a chunk
_MAX_GAIN_DB = 50.0
# Of the detector that uses the level alone.
_BLOCK_FRAMES = 31  # a second
_FLOOR_BLOCKS = 31  # half a minute, in which somebody who speaks pauses
_FLOOR_PERCENT = 10  # of frames are taken for silence
_ABOVE_FLOOR_DB = 8.0
_SURELY_SILENT_DB = -70.0
_MAYBE_SPEECH_DB = -30.0  # speech may be under a loud and steady sound, so that counts as speech
_SLOPE_DB = 2.0
_SMOOTH_FRAMES = 5


class Activity(NamedTuple):
    """Holds the speech and level of a recording, in frames of 32 ms; the last may be shorter.

    Attributes:
        speech: float32 of shape (frames,), the probability that somebody speaks, 0 to 1.
        level: float32 of shape (frames,), the root mean square in dBFS without the frame's mean
            (a microphone's offset), at least -120.
        seconds: the exact length of the audio.
    """

    speech: np.ndarray
    level: np.ndarray
    seconds: float


class Detector:
    """Detects speech in one recording, which is added in blocks of any length.

    It holds two minutes of samples for each processor, and eight bytes for each frame so far.
    The blocks' lengths do not change the result.

    The network of Silero decides where it can be loaded, else the level alone.
    """

    def __init__(self) -> None:
        self._session = _session()
        self._chunk = np.zeros(_CHUNK_SAMPLES, np.float32)
        self._held = 0
        self._samples = 0
        self._levels: list[np.ndarray] = []
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)
        self._warm: np.ndarray | None = None
        self._section: list[_Chunk] = []
        self._sections: list[Future[np.ndarray]] = []

    def add(self, block: np.ndarray) -> None:
        """Adds the next samples: finite float32 of shape (samples,), mono, at 16 kHz."""
        while len(block):
            part, block = np.split(block, [_CHUNK_SAMPLES - self._held])
            self._chunk[self._held : self._held + len(part)] = part
            self._held += len(part)
            if self._held == _CHUNK_SAMPLES:
                self._take_chunk()

    def finish(self) -> Activity:
        """Returns the activity of all samples. Nothing may be added after it."""
        if self._held:
            self._take_chunk()
        level = np.concatenate([np.empty(0, np.float32), *self._levels])
        if self._session is None:
            speech = _speech_by_level(level)
        else:
            self._submit_section(self._session)
            sections = [section.result() for section in self._sections]
            speech = np.concatenate([np.empty(0, np.float32), *sections])
        return Activity(speech, level, self._samples / RATE)

    def _take_chunk(self) -> None:
        count, self._held = self._held, 0
        self._samples += count
        self._chunk[count:] = 0
        frames = self._chunk.reshape(-1, FRAME_SAMPLES)[: -(-count // FRAME_SAMPLES)]
        level = _level(frames, count)
        self._levels.append(level)
        if self._session is not None:
            self._section.append(_Chunk(self._inputs(frames, level), level))
            if len(self._section) == _SECTION_CHUNKS:
                self._submit_section(self._session)

    def _submit_section(self, session: Any) -> None:
        """Submits the section to a thread."""
        if not self._section:
            return
        chunks, self._section = self._section, []
        task = functools.partial(_probabilities, session, chunks, self._warm)
        self._warm = chunks[-1].inputs[-_WARM_FRAMES:]
        self._sections.append(_session_threads().submit(task))
        if len(self._sections) > _THREADS:
            self._sections[-_THREADS - 1].result()  # to bound the samples in memory

    def _inputs(self, frames: np.ndarray, level: np.ndarray) -> np.ndarray:
        inputs = np.empty((len(frames), _CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)
        inputs[:, _CONTEXT_SAMPLES:] = frames
        inputs[0, :_CONTEXT_SAMPLES] = self._context
        inputs[1:, :_CONTEXT_SAMPLES] = frames[:-1, -_CONTEXT_SAMPLES:]
        self._context = frames[-1, -_CONTEXT_SAMPLES:].copy()
        inputs *= 10 ** (np.clip(_LOUD_ENOUGH_DB - level.max(), 0, _MAX_GAIN_DB) / 20)
        return inputs


class _Chunk(NamedTuple):
    """A chunk's inputs to the network, and its frames' levels in dBFS."""

    inputs: np.ndarray
    level: np.ndarray


def _probabilities(session: Any, chunks: list[_Chunk], warm: np.ndarray | None) -> np.ndarray:
    """Returns the probabilities of a section's frames; ``warm`` are the inputs before it."""
    memory: _Memory | None = None
    results = []
    for chunk in chunks:
        probabilities = _clear_chunk_speech(session, chunk)
        if probabilities is not None:
            memory = None
        else:
            if memory is None:
                _, memory = _run_network(
                    session, chunk.inputs[:0] if warm is None else warm, _NO_MEMORY
                )
            probabilities, memory = _run_network(session, chunk.inputs, memory)
        results.append(probabilities)
        warm = chunk.inputs[-_WARM_FRAMES:]
    return np.concatenate(results)


def _clear_chunk_speech(session: Any, chunk: _Chunk) -> np.ndarray | None:
    """Returns 1 for frames that are not silent, for a chunk with speech and clear pauses.

    Returns 0 for a silent chunk, and None for any other, which the network must process whole.
    """
    if chunk.level.max() <= _NOTHING_DB:
        return np.zeros(len(chunk.level), np.float32)
    threshold = np.percentile(chunk.level, _LOUD_PERCENT) - _SILENT_DB
    sounds = chunk.level >= threshold
    if np.mean(~sounds) < _CLEAR_SHARE or np.median(chunk.level[~sounds]) > threshold - _CLEARLY_DB:
        return None
    first = max(0, int(chunk.level.argmax()) - _PROBE_FRAMES // 2 - _PROBE_WARM_FRAMES)
    probe = chunk.inputs[first : first + _PROBE_WARM_FRAMES + _PROBE_FRAMES]
    probabilities, _ = _run_network(session, probe, _NO_MEMORY)
    speech = probabilities[min(first, _PROBE_WARM_FRAMES) :] >= _PROBE_SPEECH
    return sounds.astype(np.float32) if speech.sum() >= _PROBE_SPEECH_FRAMES else None


_Memory = tuple[np.ndarray, np.ndarray]
_NO_MEMORY = (np.zeros(_STATE_SHAPE, np.float32), np.zeros(_STATE_SHAPE, np.float32))


def _run_network(session: Any, inputs: np.ndarray, memory: _Memory) -> tuple[np.ndarray, _Memory]:
    """Returns the probabilities of frames, and the memory after them, from a memory."""
    if not len(inputs):
        return np.empty(0, np.float32), memory
    probabilities, hidden, cell = session.run(
        ["speech_probs", "hn", "cn"], {"input": inputs, "h": memory[0], "c": memory[1]}
    )
    return np.asarray(probabilities, np.float32).reshape(-1), (hidden, cell)


def _level(frames: np.ndarray, samples: int) -> np.ndarray:
    """Returns the level of frames that hold ``samples`` in all; zeros pad the last one."""
    counts = np.full(len(frames), FRAME_SAMPLES)
    counts[-1] -= len(frames) * FRAME_SAMPLES - samples
    means = frames.sum(axis=1, dtype=np.float64) / counts
    squares = np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / counts
    power = np.maximum(squares - means**2, 10 ** (MIN_LEVEL_DB / 10))
    return (10 * np.log10(power)).astype(np.float32)


def _speech_by_level(level: np.ndarray) -> np.ndarray:
    """Returns the probability of speech, by how far the level is above the noise floor nearby."""
    if not len(level):
        return level
    blocks = np.pad(level, (0, -len(level) % _BLOCK_FRAMES), "edge").reshape(-1, _BLOCK_FRAMES)
    quiet = np.percentile(blocks, _FLOOR_PERCENT, axis=1)
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(quiet, _FLOOR_BLOCKS // 2, "reflect" if len(quiet) > _FLOOR_BLOCKS else "edge"),
        _FLOOR_BLOCKS,
    )
    floor = np.percentile(around, _FLOOR_PERCENT, axis=1).repeat(_BLOCK_FRAMES)[: len(level)]
    threshold = np.clip(floor + _ABOVE_FLOOR_DB, _SURELY_SILENT_DB, _MAYBE_SPEECH_DB)
    likely = 1 / (1 + np.exp((threshold - level) / _SLOPE_DB))
    smooth = np.convolve(likely, np.full(_SMOOTH_FRAMES, 1 / _SMOOTH_FRAMES))
    edge = _SMOOTH_FRAMES // 2
    return np.clip(smooth[edge : edge + len(level)], 0, 1).astype(np.float32)


_THREADS = os.cpu_count() or 1
_session_lock = threading.Lock()


@functools.cache
def _session_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "beam-asr-listen")


def _session() -> Any:
    """Returns the process's one session of the network, for all threads; None if unavailable."""
    with _session_lock:
        return _load_session()


@functools.cache
def _load_session() -> Any:
    try:
        onnxruntime = importlib.import_module("onnxruntime")
        # Found without an import: silero_vad itself imports torch.
        package = importlib.util.find_spec("silero_vad")
        if package is None or not package.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'silero_vad'")
        folder = Path(package.submodule_search_locations[0])
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(
            str(folder / "data" / "silero_vad_16k_sequence.onnx"),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # onnxruntime's own errors share no narrower class
        logger.warning(
            "Silero VAD cannot be loaded (%r), so only the level separates speech from silence, "
            "which is worse in noise. Install silero-vad and onnxruntime.",
            error,
        )
        return None


# Full scale is 1. Speech is hardly ever recorded so low. A louder clip goes to the model without
# detection, which would cost more for all clips than it saves.
QUIET = 0.008
LOUD = 0.5  # the peak that a quiet clip is raised to, as detectors expect common levels
SPEECH = 0.5  # probability


def is_silence(waveform: np.ndarray, sample_rate: int) -> bool:
    """Returns whether a clip is quiet, and nobody speaks in it.

    Args:
        waveform: float32 of shape ``(samples,)``.
        sample_rate: in Hz.
    """
    peak = float(np.abs(waveform).max(initial=0.0))
    if not 0.0 < peak < QUIET:
        return False
    raised = waveform * np.float32(LOUD / peak)
    detector = Detector()
    detector.add(raised if sample_rate == RATE else soxr.resample(raised, sample_rate, RATE))
    return not (detector.finish().speech >= SPEECH).any()
