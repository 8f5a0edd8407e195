"""Long recordings made of the recorded prompts, of which it is known who says what and when."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import NamedTuple

import jiwer
import numpy as np
import soundfile

from beam_asr.audio.reading import AudioRequest, read_audio

RATE = 16_000
FRAME = RATE // 100
NOISE = 3e-4  # -70 dBFS


class Place(NamedTuple):
    """A prompt in a recording.

    Attributes:
        start: of its sound, in seconds from the recording's beginning.
        end: of its sound.
        text: what it says.
        audio: its file's name.
    """

    start: float
    end: float
    text: str
    audio: str


def write(
    path: Path, prompts: Path, seconds: float, pauses: tuple[float, float] | None, seed: int = 0
) -> list[Place]:
    """Writes a recording, prompt after prompt in an order of chance.

    Args:
        path: of the FLAC to write, at 16 kHz.
        prompts: folder of the prompts.
        seconds: at least so long.
        pauses: the least and the most seconds of faint noise between two; None is no pause.
    """
    chance, noise = random.Random(seed), np.random.default_rng(seed)
    rows = [json.loads(line) for line in (prompts / "all.jsonl").read_text().splitlines()]
    known: dict[str, np.ndarray] = {}
    places, at, order = [], 0, []
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        while at < seconds * RATE:
            order = order or chance.sample(rows, len(rows))
            row = order.pop()
            name = row["audio_filepath"]
            if name not in known:
                known[name] = read_audio(str(prompts / name), AudioRequest(sample_rate=RATE))
            start, end = sound_of(known[name])
            places.append(Place((at + start) / RATE, (at + end) / RATE, row["text"], name))
            file.write(known[name])
            at += len(known[name])
            if pauses is not None:
                samples = round(chance.uniform(*pauses) * RATE)
                file.write(noise.standard_normal(samples).astype(np.float32) * NOISE)
                at += samples
    return places


def sound_of(clip: np.ndarray) -> tuple[int, int]:
    """The first and the last sample of what is within 34 dB of a clip's loudest frame."""
    frames = len(clip) // FRAME
    level = np.square(clip[: frames * FRAME].reshape(frames, FRAME)).mean(axis=1)
    (loud,) = np.nonzero(level > level.max() * 4e-4)
    return int(loud[0]) * FRAME, int(loud[-1] + 1) * FRAME


def place_errors(places: list[Place], words: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds by which the first and the last words of prompts are late."""
    said = [word for each in places for word in each.text.split()]
    aligned = jiwer.process_words(" ".join(said), " ".join(word["word"] for word in words))
    of_said = {
        chunk.ref_start_idx + step: words[chunk.hyp_start_idx + step]
        for chunk in aligned.alignments[0]
        if chunk.type == "equal"
        for step in range(chunk.ref_end_idx - chunk.ref_start_idx)
    }
    starts, ends, first = [], [], 0
    for each in places:
        last = first + len(each.text.split()) - 1
        if first in of_said:
            starts.append(of_said[first]["start"] - each.start)
        if last in of_said:
            ends.append(of_said[last]["end"] - each.end)
        first = last + 1
    return np.array(starts), np.array(ends)
