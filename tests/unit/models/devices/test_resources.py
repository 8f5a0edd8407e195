"""What a worker may use: what the flags mean, and how a worker takes its part or refuses it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
import torch

from beam_asr.errors import ModelLoadError, ResourceError
from beam_asr.models import engine
from beam_asr.models.devices import gpu_memory, gpu_slots, resources
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo import loading
from beam_asr.settings import Resources

GB = 10**9
L4_BYTES = 23_660 * 10**6  # what CUDA tells of an L4, of 24 GB


# What the flags mean.


@pytest.mark.parametrize(
    ("requested", "counts"),
    [
        (Resources(), (1, 1, 1)),
        (Resources(gpus=1), (1, 1, 1)),
        (Resources(gpus=4), (4, 1, 4)),
        (Resources(gpus=0.5), (1, 2, 2)),
        (Resources(gpus=0.33), (1, 3, 3)),
        (Resources(gpus=0.25, model_copies=4), (1, 4, 4)),
        (Resources(model_copies=3), (1, 3, 3)),
        (Resources(gpus=4, model_copies=2), (4, 2, 8)),
    ],
)
def test_so_many_cards_copies_and_processes_are_meant(requested, counts):
    assert (requested.gpu_count, requested.copies, requested.processes) == counts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gpus": 0.5, "model_copies": 3}, ["gpus=0.5 has 2", "model_copies=3 has 3"]),
        ({"gpus": 1.5}, ["gpus is 1.5"]),
        ({"gpus": 0.7}, ["gpus is 0.7"]),
        ({"gpus": 0}, ["gpus is 0"]),
        ({"gpus": -1}, ["gpus is -1"]),
        ({"cpus": 0}, ["cpus is 0"]),
        ({"gpu_memory_gb": 0.0}, ["gpu_memory_gb is 0"]),
        ({"model_copies": 0}, ["model_copies is 0"]),
    ],
)
def test_what_cannot_be_meant_is_refused(given, said):
    with pytest.raises(ValueError, match=r"gpu|cpu|copies") as refused:
        Resources(**given)
    for each in said:
        assert each in str(refused.value)


@pytest.mark.parametrize(
    ("requested", "said"),
    [
        (Resources(gpus=2), "`gpus=2` asks for a GPU"),
        (Resources(gpu_memory_gb=8), "`gpu_memory_gb=8` asks for a GPU"),
        (Resources(gpus=0.5, gpu_memory_gb=8), "`gpus=0.5` `gpu_memory_gb=8` asks"),
    ],
)
def test_what_needs_a_gpu_does_not_go_with_the_cpu(requested, said):
    for device in ("auto", "cuda"):
        resources.check(requested, device)
    with pytest.raises(ValueError, match=f"{said}.*`device=cpu`"):
        resources.check(requested, "cpu")
    resources.check(Resources(cpus=2, model_copies=2), "cpu")


def test_they_travel_to_workers():
    requested = Resources(gpus=4, cpus=2, gpu_memory_gb=8.5, model_copies=2)
    assert pickle.loads(pickle.dumps(requested)) == requested
    assert hash(requested) == hash(Resources(gpus=4, cpus=2, gpu_memory_gb=8.5, model_copies=2))


# CPUs.


def test_a_process_computes_in_as_many_threads_as_it_may():
    code = (
        "import os, sys; from beam_asr.models.devices import resources\n"
        "assert 'torch' not in sys.modules\n"
        "resources.use_cpus(1); import torch\n"
        "print(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])"
    )
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert said.stdout.split() == ["1", "1"], said.stderr


def test_more_cpus_than_there_are_are_refused_before_a_model_is_loaded():
    there = resources.available_cpus()
    said = f"`cpus={there + 1}` was requested, but this worker may run on {there}"
    with pytest.raises(ModelLoadError, match=said):
        engine.load(ModelSpec("no-such-model", "cpu", resources=Resources(cpus=there + 1)))


# The GPU's memory. There is no GPU here: what torch returns of one, and gets, is stood in for.


class Gpus:
    """Cards of some sizes, of which one process has what torch reserved."""

    def __init__(self, *totals: int, taken: int = 0, reserved: int = 0):
        self.totals, self.taken, self.reserved = totals, taken, reserved
        self.fractions: dict[int, float] = {}
        self.current = 0

    def install(self, monkeypatch) -> Gpus:
        for name in (
            "device_count", "current_device", "mem_get_info", "memory_reserved", "set_device",
            "set_per_process_memory_fraction", "get_per_process_memory_fraction", "is_available",
            "get_device_properties", "empty_cache",
        ):  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        return self

    def is_available(self) -> bool:
        return True

    def empty_cache(self) -> None:
        pass

    def device_count(self) -> int:
        return len(self.totals)

    def current_device(self) -> int:
        return self.current

    def set_device(self, index: int) -> None:
        self.current = index

    def get_device_properties(self, index: int):
        return type("Properties", (), {"uuid": f"{os.getpid()}-{id(self)}-{index}"})

    def mem_get_info(self, device) -> tuple[int, int]:
        total = self.totals[torch.cuda._utils._get_device_index(device, optional=True)]
        return total - self.taken, total

    def memory_reserved(self, _device) -> int:
        return self.reserved

    def set_per_process_memory_fraction(self, fraction: float, device) -> None:
        index = torch.cuda._utils._get_device_index(device)  # as torch does: refuses a bare "cuda"
        assert 0 <= fraction <= 1
        self.fractions[index] = fraction

    def get_per_process_memory_fraction(self, device) -> float:
        return self.fractions.get(torch.cuda._utils._get_device_index(device), 1.0)


CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("copies", "part", "fraction"),
    [(1, None, None), (2, None, 1 / 2), (1, 8, 8 * GB / L4_BYTES), (2, 8, 8 * GB / L4_BYTES)],
)
def test_a_process_takes_its_part_of_the_memory(monkeypatch, copies, part, fraction):
    gpus = Gpus(L4_BYTES).install(monkeypatch)
    gpu_memory.limit_process_memory(CUDA, copies, part)
    assert gpus.fractions == ({} if fraction is None else {0: pytest.approx(fraction)})
    assert gpu_memory.free(CUDA) == pytest.approx((fraction or 1) * L4_BYTES)


def test_the_part_is_of_the_card_that_the_process_took(monkeypatch):
    gpus = Gpus(16 * GB, 80 * GB).install(monkeypatch)
    gpu_memory.limit_process_memory(torch.device("cuda", 1), 2, 20)
    assert gpus.fractions == {1: pytest.approx(20 / 80)}
    assert gpu_memory.free(torch.device("cuda", 1)) == pytest.approx(20 * GB)


@pytest.mark.parametrize(
    ("copies", "part", "taken", "said"),
    [
        (1, 30, 0, "`gpu_memory_gb=30` is more than the 23.66 GB of this worker's GPU"),
        (2, 12, 0, "`gpu_memory_gb=12` for each of 2 processes is more than the 23.66 GB"),
        (1, 12, 15 * GB, "more than the 8.66 GB that are free of the 23.66 GB"),
    ],
)
def test_memory_that_is_not_there_is_refused_with_its_figures(
    monkeypatch, copies, part, taken, said
):
    Gpus(L4_BYTES, taken=taken).install(monkeypatch)
    with pytest.raises(ResourceError, match=said):
        gpu_memory.limit_process_memory(CUDA, copies, part)


def test_what_another_model_of_the_process_has_is_its_own(monkeypatch):
    gpus = Gpus(L4_BYTES, taken=15 * GB, reserved=14 * GB).install(monkeypatch)
    gpu_memory.limit_process_memory(CUDA, 1, 20)
    assert gpus.fractions == {0: pytest.approx(20 * GB / L4_BYTES)}


def test_on_a_cpu_no_part_is_taken():
    gpu_memory.limit_process_memory(torch.device("cpu"), 4, None)


# The card.


def test_a_process_has_the_only_card_without_asking_which(monkeypatch):
    Gpus(L4_BYTES).install(monkeypatch)
    for requested in (Resources(), Resources(gpus=1), Resources(gpus=0.5)):
        assert str(loading._choose_device("auto", requested)) == "cuda"


def test_a_process_takes_one_of_several_cards_and_makes_it_its_current_one(monkeypatch):
    gpus = Gpus(L4_BYTES, L4_BYTES).install(monkeypatch)
    monkeypatch.setattr(gpu_slots, "_held", {})
    # Another process has the first.
    other = gpu_slots._bind(gpu_slots.visible()[0], 0)
    assert str(loading._choose_device("cuda", Resources(gpus=2))) == "cuda:1"
    assert gpus.current == 1
    other.close()
    assert str(loading._choose_device("cuda", Resources(gpus=2))) == "cuda:1"


def test_more_cards_than_there_are_are_refused(monkeypatch):
    Gpus(L4_BYTES, L4_BYTES).install(monkeypatch)
    with pytest.raises(ModelLoadError, match=r"`gpus=4` was requested, but torch sees 2 "):
        engine.load(ModelSpec("no-such-model", "cuda", resources=Resources(gpus=4)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("requested", [Resources(gpus=1), Resources(gpu_memory_gb=8)])
def test_a_requested_gpu_is_not_replaced_by_the_cpu(requested):
    with pytest.raises(
        ModelLoadError, match=f"{requested.requested_gpu} was requested, but torch sees no"
    ):
        engine.load(ModelSpec("no-such-model", "auto", resources=requested))


def test_memory_that_is_not_there_is_an_error_of_the_load(monkeypatch):
    Gpus(L4_BYTES).install(monkeypatch)
    with pytest.raises(ModelLoadError, match=r"`gpu_memory_gb=40` is more than the 23\.66 GB"):
        engine.load(ModelSpec("no-such-model", resources=Resources(gpu_memory_gb=40)))
