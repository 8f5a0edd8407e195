"""NeMo Curator's ASR stage on clips: runs in the environment that `curator_env` makes.

The stage is driven as Curator's executors drive it: `setup` once, then `process_batch` on batches
of tasks in the manifest's order. What is timed is that alone: the stage reads the files
(torchaudio), resamples, transcribes (NeMo's `transcribe` on arrays) and writes the texts into the
tasks. Curator's reader, writer and Ray are left out, in its favor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nemo_curator.models.asr.nemo_asr import NeMoASRAdapter
from nemo_curator.stages.audio.inference.asr.stage import ASRStage
from nemo_curator.stages.resources import Resources
from nemo_curator.tasks import AudioTask

from benchmarks import corpora


class LocalNeMoASRAdapter(NeMoASRAdapter):
    """Curator's adapter for a file: as it is, it takes names on a hub alone."""

    def _load_checkpoint(self, device: Any) -> Any:
        from nemo.collections.asr.models import ASRModel

        return ASRModel.restore_from(self.model_id, map_location=device)


class Curator:
    def __init__(self, model: str, batch_size: int):
        self._stage = ASRStage(
            adapter_target=f"{__name__}.{LocalNeMoASRAdapter.__name__}",
            model_id=model,
            audio_filepath_key="audio_filepath",
            batch_size=batch_size,
            fail_on_audio_error=True,  # a clip that is not read must not count as a fast one
            resources=Resources(gpus=0.0),
        )
        self._stage.setup()

    def prepare(self, manifest: Path) -> None:
        tasks = [AudioTask(data={"audio_filepath": c.path}) for c in corpora.clips(manifest)]
        size = self._stage.batch_size
        self._batches = [tasks[start : start + size] for start in range(0, len(tasks), size)]

    def run(self) -> None:
        self._done = [task for batch in self._batches for task in self._stage.process_batch(batch)]

    def texts(self) -> list[str]:
        return [task.data["pred_text"] for task in self._done]

    def notes(self) -> dict[str, Any]:
        return {}
