"""Launchers that are killed, sleep, take over, append and lose files, in any order, lose no row.

The model is one that says its own name, so that a text of another run shows.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beam_asr import process
from beam_asr.audio import reading
from beam_asr.cli import main
from beam_asr.models.serving import batcher
from beam_asr.outputs import journal, row_index
from beam_asr.transforms import write_manifest
from tests.support import naming_model

ROWS = 12
STEPS = ["begin", "batch", "chunk", "shard", "index", "sums", "success", "removal"]


class EndedError(RuntimeError):
    """Ends a run at a step."""


class Fault:
    """Does something, once, at the nth time that a run comes to a step."""

    def __init__(self) -> None:
        self.step, self.left, self.action = "", 0, lambda: None

    def set(self, step: str, times: int, action: Callable[[], None]) -> None:
        self.step, self.left, self.action = step, times, action

    def at(self, step: str) -> None:
        if step == self.step:
            self.left -= 1
            if self.left == 0:
                self.step = ""
                self.action()


def end() -> None:
    raise EndedError


FAULT = Fault()


@pytest.fixture(autouse=True, scope="module")
def small_and_observed() -> Iterator[None]:
    """Small chunks, a model that costs nothing, and steps at which faults may come."""

    def noticed(owner: Any, name: str, step: str) -> None:
        function = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            FAULT.at(step)
            return function(*args, **kwargs)

        patch.setattr(owner, name, wrapped)

    with pytest.MonkeyPatch.context() as patch:
        naming_model.install(patch)
        silence = np.full(naming_model.RATE, 0.1, np.float32)
        patch.setattr(reading, "read_audio", lambda *_args, **_kwargs: silence)
        patch.setattr(process, "save_all", lambda: None)  # as if the process were killed
        noticed(batcher.Batcher, "_collect", "batch")
        noticed(journal.Journal, "begin", "begin")
        noticed(journal.Journal, "write", "chunk")
        noticed(write_manifest.OutputTarget, "write_shard", "shard")
        noticed(row_index.RowIndex, "write_rows", "index")
        noticed(row_index.RowIndex, "add", "sums")
        noticed(write_manifest.failure_limit, "check_failures", "success")
        noticed(journal.Journal, "remove", "removal")
        yield


MANIFESTS = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS)
MODELS = st.sampled_from(["org/one", "org/two"])
MODES = st.sampled_from(["--resume", "--append", "--overwrite"])


class Folder(RuleBasedStateMachine):
    """An output folder, and what it must hold."""

    @initialize()
    def begin(self) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.out = self.place / "out"
        self.rows: Counter[int] | None = None  # of the finished output; None before the first
        self.model = ""
        self.launched = self.finished = 0

    def teardown(self) -> None:
        FAULT.step = ""
        shutil.rmtree(self.place)

    def launch(self, manifest: list[int], model: str, mode: str) -> int:
        """Runs the job; what it says that it did must be there."""
        self.launched += 1
        listed = self.place / f"{self.launched}.jsonl"
        listed.write_text(
            "".join(
                json.dumps({"audio_filepath": f"/{n}.wav", "duration": 1.0, "n": n}) + "\n"
                for n in manifest
            )
        )
        flags = [f"--input={listed}", f"--output={self.out}", f"--model_name={model}", mode]
        before, rows = self.finished, Counter(manifest)
        unfinished = self.part_of_unfinished_run()
        appends = unfinished > 0 if unfinished is not None else mode == "--append"
        status = main.main(["transcribe", *flags])
        if status == 0:
            assert self.finished == before, "a run finished in a folder of a later one"
            self.finished += 1
            if appends and mode != "--overwrite" and self.rows is not None:
                assert model == self.model
                rows |= self.rows
            self.rows, self.model = rows, model
            self.check()
        return status

    def part_of_unfinished_run(self) -> int | None:
        """Returns which run of those that append is unfinished: 0 replaces all; None if none is."""
        try:
            return json.loads((self.out / "_journal" / "run.json").read_text())["part"]
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """The output is finished, with each row once and the text of its model."""
        assert (self.out / "_SUCCESS").exists()
        records = [
            json.loads(line)
            for shard in self.out.glob("transcripts-*")
            for line in shard.read_text().splitlines()
        ]
        assert Counter(record["n"] for record in records) == self.rows
        assert {record["pred_text"] for record in records} == {self.model}
        summary = json.loads((self.out / "summary.json").read_text())
        assert summary["rows_in"] == summary["transcribed"] == len(records)

    @rule(manifest=MANIFESTS, model=MODELS, mode=MODES)
    def run(self, manifest: list[int], model: str, mode: str) -> None:
        self.launch(manifest, model, mode)

    @rule(
        manifest=MANIFESTS,
        model=MODELS,
        mode=MODES,
        step=st.sampled_from(STEPS),
        times=st.integers(1, 4),
    )
    def killed(self, manifest: list[int], model: str, mode: str, step: str, times: int) -> None:
        FAULT.set(step, times, end)
        status = self.launch(manifest, model, mode)
        if status:
            self.release()

    @rule(
        first=MANIFESTS,
        second=MANIFESTS,
        models=st.tuples(MODELS, MODELS),
        modes=st.tuples(MODES, MODES),
        step=st.sampled_from(STEPS[:-1]),
        times=st.integers(1, 3),
    )
    def sleeps(
        self,
        first: list[int],
        second: list[int],
        models: tuple[str, str],
        modes: tuple[str, str],
        step: str,
        times: int,
    ) -> None:
        """A run that sleeps beyond the lease, while another takes its folder."""

        def taken_over() -> None:
            self.release()
            self.launch(second, models[1], modes[1])

        FAULT.set(step, times, taken_over)
        self.launch(first, models[0], modes[0])
        self.release()

    @rule(data=st.data())
    def lost(self, data: st.DataObject) -> None:
        """A file of the journal is lost, or cut short."""
        files = sorted((self.out / "_journal" / "windows").glob("*"))
        if files:
            file = data.draw(st.sampled_from(files))
            content = file.read_bytes()
            cut = data.draw(st.integers(0, len(content)))
            file.write_bytes(content[:cut]) if cut % 3 else file.unlink()

    @rule(manifest=MANIFESTS, model=MODELS)
    def finished_in_the_end(self, manifest: list[int], model: str) -> None:
        """Whatever came before, one of three commands ends with the work done."""
        FAULT.step = ""
        assert 0 in (
            self.launch(manifest, model, mode) for mode in ("--resume", "--append", "--overwrite")
        )

    @invariant()
    def what_says_that_it_is_finished_is(self) -> None:
        journaled = self.out / "_journal" / "run.json"
        if (self.out / "_SUCCESS").exists() and not journaled.exists() and self.rows is not None:
            self.check()

    def release(self) -> None:
        """Has the lock's holder look dead, as after ten minutes without a sign of life."""
        for lock in (self.out / "_journal").glob("lock.json*"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                held = json.loads(lock.read_text())
                held |= {"process": None, "host": "elsewhere", "beat": "2020-01-01T00:00:00+00:00"}
                lock.write_text(json.dumps(held))


Folder.TestCase.settings = hypothesis.settings(
    max_examples=12,
    stateful_step_count=8,
    deadline=None,
    derandomize="RANDOM_ORDERS" not in os.environ,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
test_any_order_of_runs = Folder.TestCase


def test_a_run_that_ends_before_it_has_a_journal_leaves_the_results_finished(tmp_path):
    def run(n: int, *flags: str) -> int:
        listed = tmp_path / f"{n}.jsonl"
        listed.write_text(json.dumps({"audio_filepath": f"/{n}.wav", "duration": 1.0}) + "\n")
        where = [f"--input={listed}", f"--output={tmp_path / 'out'}", "--model_name=org/one"]
        return main.main(["transcribe", *where, *flags])

    assert run(1) == 0
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    FAULT.set("begin", 1, end)
    assert run(2, "--append") == 1
    left = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != "_journal")
    assert left == before
    assert run(2, "--append") == 0
    assert json.loads((tmp_path / "out/summary.json").read_text())["rows_in"] == 2
