"""Who is measured: each loads a model, gets ready for clips, transcribes them, and tells the texts.

Only `run` is timed. Everything heavy is imported where it is used, for each contestant lives in a
process and perhaps in an environment of its own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks import corpora

NEMO_BATCH = 16
BUDGETS = (20, 40, 80, 160)  # padded seconds in a batch
BATCH_SIZE = 128  # most clips in a batch: the default of our command line


class Contestant(Protocol):
    def prepare(self, manifest: Path) -> None:
        """Everything that is not to be timed."""

    def run(self) -> None:
        """From the clips to their texts; this is timed."""

    def texts(self) -> list[str]:
        """What the last run recognized, in the manifest's order."""

    def notes(self) -> dict[str, Any]:
        """What else the last run tells of itself."""


class Job:
    """Our whole job, from a manifest on disk to JSONL on disk, by its command line.

    Its first run loads the model, which stays in the process for the next ones.
    """

    def __init__(self, model: str):
        self._model = model
        self._folder = tempfile.TemporaryDirectory()
        self._runs = 0

    def prepare(self, manifest: Path) -> None:
        self._manifest = manifest

    def run(self) -> None:
        from beam_asr.cli import main

        self._runs += 1
        self._output = Path(self._folder.name) / str(self._runs)
        given = {"input": self._manifest, "output": self._output, "model_name": self._model}
        status = main.main(["transcribe", *(f"--{flag}={value}" for flag, value in given.items())])
        if status != 0:
            raise RuntimeError(f"the job ended with status {status}")

    def texts(self) -> list[str]:
        shards = sorted(self._output.glob("transcripts-*.jsonl"))
        lines = [line for shard in shards for line in shard.read_text().splitlines()]
        recognized = {row["audio_filepath"]: row["pred_text"] for row in map(json.loads, lines)}
        rows = map(json.loads, self._manifest.read_text().splitlines())
        return [recognized[row["audio_filepath"]] for row in rows]

    def notes(self) -> dict[str, Any]:
        summary = json.loads((self._output / "summary.json").read_text())
        wait, work = summary["model_wait_seconds"], summary["model_seconds"]
        return {
            "padding_efficiency": summary["padding_efficiency"],
            "share_of_waiting": round(wait / (wait + work), 4),
        }


class Floor:
    """The same model on waveforms in memory, in the best batches over all clips, nothing else."""

    def __init__(self, model: str, budget: float):
        from beam_asr.models import engine
        from beam_asr.models.engine import ModelSpec

        self._model = engine.load(ModelSpec(model))
        self._budget = budget

    def prepare(self, manifest: Path) -> None:
        from beam_asr.audio.reading import AudioRequest, read_audio

        rate = self._model.sample_rate
        clips = corpora.clips(manifest)
        request = AudioRequest(sample_rate=rate)
        self._waveforms = [read_audio(clip.path, request) for clip in clips]

    def run(self) -> None:
        from beam_asr.models import engine
        from beam_asr.models.serving import batch_plan

        rate = self._model.sample_rate
        seconds = [engine.padded_clip_seconds(each, rate) for each in self._waveforms]
        self._texts = [""] * len(seconds)
        overhead = self._model.batch_overhead_seconds
        for batch in batch_plan.plan_batches(seconds, self._budget, BATCH_SIZE, overhead):
            recognized = self._model.transcribe([self._waveforms[index] for index in batch])
            for index, recognition in zip(batch, recognized, strict=True):
                self._texts[index] = recognition.text

    def texts(self) -> list[str]:
        return self._texts

    def notes(self) -> dict[str, Any]:
        return {}


class Nemo:
    """NeMo's own `transcribe(paths)`, in the manifest's order or the longest clip first."""

    def __init__(self, model: str, batch_size: int, by_length: bool):
        from nemo.collections.asr.models import ASRModel
        from nemo.utils import logging
        from omegaconf import open_dict

        logging.setLevel(logging.ERROR)
        self._model = ASRModel.restore_from(model)
        if "validation_ds" not in self._model.cfg:  # of paths, transcribe() reads it
            with open_dict(self._model.cfg):
                self._model.cfg.validation_ds = {}
        self._batch_size = batch_size
        self._by_length = by_length

    def prepare(self, manifest: Path) -> None:
        clips = corpora.clips(manifest)
        self._order = list(range(len(clips)))
        if self._by_length:
            self._order.sort(key=lambda index: -clips[index].seconds)
        self._paths = [clips[index].path for index in self._order]

    def run(self) -> None:
        self._recognized = self._model.transcribe(
            self._paths, batch_size=self._batch_size, verbose=False
        )

    def texts(self) -> list[str]:
        # Transducers may give (best, all).
        best = self._recognized[0] if isinstance(self._recognized, tuple) else self._recognized
        recognized = dict(zip(self._order, best, strict=True))
        return [getattr(recognized[n], "text", recognized[n]) for n in range(len(recognized))]

    def notes(self) -> dict[str, Any]:
        return {}


def _curator(model: str) -> Contestant:
    from benchmarks.curator_stage import Curator  # imports what is in Curator's environment alone

    return Curator(model, NEMO_BATCH)


CONTESTANTS: dict[str, Callable[[str], Contestant]] = {
    "job": Job,
    **{f"floor-{budget}": lambda model, b=budget: Floor(model, b) for budget in BUDGETS},
    "nemo-shuffled": lambda model: Nemo(model, NEMO_BATCH, by_length=False),
    "nemo-sorted": lambda model: Nemo(model, NEMO_BATCH, by_length=True),
    "nemo-single": lambda model: Nemo(model, 1, by_length=False),
    "curator": _curator,
}
