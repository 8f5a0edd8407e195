"""Which card each process takes, with real processes and made-up cards."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from beam_asr.cli import runners
from beam_asr.models.devices import gpu_slots
from beam_asr.settings import Resources

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="processes tell each other of cards by Linux' abstract sockets"
)

# Takes a card, says which, and keeps it until its input ends.
WORKER = """
import os, sys
from beam_asr.models.devices import gpu_slots
devices, (group, copies), patience = sys.argv[1].split(","), sys.argv[2].split("x"), sys.argv[3]
print(gpu_slots.take(devices, int(group), int(copies), float(patience)), flush=True)
if "fork" in sys.argv and not os.fork():
    print(gpu_slots.take(devices, int(group), int(copies), float(patience)), flush=True)
    os._exit(0)
sys.stdin.read()
"""


class Machine:
    """Cards that no other test has, and the processes on them."""

    def __init__(self, count: int):
        self.devices = [f"{uuid.uuid4()}" for _ in range(count)]
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, shape: str, count: int = 1, patience: float = 0, *more: str) -> list[int]:
        """The cards that so many new processes take at one time.

        Args:
            shape: cards of a job x copies on each.
        """
        started = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, ",".join(self.devices), shape, str(patience), *more],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        self.processes += started
        return [self.read(process) for process in started]

    @staticmethod
    def read(process: subprocess.Popen[str]) -> int:
        assert process.stdout is not None
        return int(process.stdout.readline())

    def kill(self, index: int) -> None:
        process = self.processes.pop(index)
        process.kill()
        process.wait()


@pytest.fixture
def machine() -> Iterator:
    made: list[Machine] = []

    def make(count: int) -> Machine:
        made.append(Machine(count))
        return made[-1]

    yield make
    for each in made:
        for process in each.processes:
            process.kill()
        for process in each.processes:
            process.communicate()


def test_each_process_has_a_card_of_its_own(machine):
    assert sorted(machine(4).start("4x1", 4)) == [0, 1, 2, 3]


def test_copies_are_spread_over_the_cards_evenly(machine):
    four = machine(2)
    assert sorted(four.start("2x2", 2)) == [0, 1]
    assert sorted(four.start("2x2", 2)) == [0, 1]


def test_copies_of_one_card_are_not_spread_over_others(machine):
    assert machine(4).start("1x3", 3) == [0, 0, 0]


def test_another_job_takes_the_cards_that_are_left(machine):
    shared = machine(4)
    assert Counter(shared.start("2x2", 4)) == {0: 2, 1: 2}
    assert Counter(shared.start("2x2", 4)) == {2: 2, 3: 2}


def test_a_card_is_free_as_soon_as_its_process_is_killed(machine):
    two = machine(2)
    first, second = two.start("2x1", 2)
    two.kill(0)
    assert two.start("2x1") == [first]
    two.kill(0)
    assert two.start("2x1") == [second]


def test_when_all_are_taken_a_process_shares_one(machine):
    two = machine(2)
    two.start("2x1", 2)
    assert sorted(two.start("2x1", 2)) == [0, 1]
    assert sorted(two.start("2x1", 2)) == [0, 1]


def test_a_process_waits_for_one_that_is_about_to_end(machine):
    two = machine(2)
    of_second = two.start("2x1", 2).index(1)
    waiting = threading.Timer(1.0, two.kill, [of_second])
    waiting.start()
    assert two.start("2x1", 1, 60) == [1]  # to share one, it would take the first
    waiting.join()


def test_a_process_that_was_forked_off_takes_another_card(machine):
    two = machine(2)
    (own,) = two.start("2x1", 1, 0, "fork")
    assert two.read(two.processes[0]) == 1 - own
    # And it left its parent's alone.
    assert two.start("2x1", 1, 60) == [1 - own]


def test_a_process_takes_one_card_however_often_and_from_wherever_it_asks(monkeypatch):
    monkeypatch.setattr(gpu_slots, "_held", {})
    devices = [f"{uuid.uuid4()}" for _ in range(3)]
    together = threading.Barrier(8)

    def ask(_: int) -> int:
        together.wait()
        return gpu_slots.take(devices, 3, 1, 0)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {0}
    assert gpu_slots.take(devices[::-1], 3, 1, 0) == 2  # as another model of it may see them


def test_where_processes_cannot_tell_each_other_it_is_the_first_card(monkeypatch, caplog):
    monkeypatch.setattr(gpu_slots, "_held", {})
    caplog.set_level(logging.WARNING, logger=gpu_slots.__name__)  # others quieten the root
    monkeypatch.setattr(sys, "platform", "darwin")
    assert gpu_slots.take(["a", "b"], 2, 1) == 0
    assert "cannot tell each other" in caplog.text


class Take(beam.DoFn):
    """Writes down which process an element is in, and which card that has."""

    def __init__(self, devices: list[str], folder: Path):
        self._devices = devices
        self._folder = folder

    def process(self, _element: int) -> None:
        taken = gpu_slots.take(self._devices, 2, 1)
        with (self._folder / str(os.getpid())).open("a") as file:
            file.write(f"{taken}\n")


def test_the_workers_of_a_job_have_a_card_each(tmp_path):
    devices = [f"{uuid.uuid4()}" for _ in range(2)]
    options = PipelineOptions([])
    runners.apply_runner_defaults(options, None, Resources(gpus=2))
    with beam.Pipeline(options=options) as pipeline:
        elements = pipeline | beam.Create(range(16)) | beam.Reshuffle()
        elements | beam.ParDo(Take(devices, tmp_path))
    taken = [each.read_text().split() for each in tmp_path.iterdir()]
    assert sum(map(len, taken)) == 16
    assert sorted(map(set, taken), key=str) == [{"0"}, {"1"}]
