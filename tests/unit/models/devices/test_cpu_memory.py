"""A pass that a CPU's memory cannot hold is refused before the kernel kills the process for it."""

from __future__ import annotations

import logging
import math
import resource
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from beam_asr.models import engine
from beam_asr.models.devices import cpu_memory, gpu_memory
from beam_asr.models.devices.cpu_memory import PROBE_SECONDS, CpuMemoryGuard, MemoryModel
from beam_asr.models.engine import ModelSpec
from beam_asr.models.serving import isolation
from tests.support.job_files import SAMPLE_MODEL, SAMPLES
from tests.support.tiny_models import speechlike

RATE = 16_000
GIB = 2.0**30
LENGTHS = [20.0, 40.0, 60.0]
HOURS = 3600.0

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells, and only it kills")


@pytest.fixture(scope="module")
def model(tiny_model):
    return engine.load(ModelSpec(str(tiny_model("ctc_bpe")), "cpu"))


def growth_of(*steps) -> MemoryModel:
    """That of a pass whose steps take so many bytes each, as functions of the seconds."""
    return MemoryModel(LENGTHS, [[round(step(s)) for step in steps] for s in LENGTHS])


def subsampling(seconds: float) -> float:
    return 1e5 + 1e7 * seconds


def attention(seconds: float) -> float:
    return 2e6 * seconds + 25e3 * seconds**2


# ------------------------------------------------------------------------ how a pass grows


def test_attention_is_foreseen_although_subsampling_takes_more_of_a_short_clip():
    growth = growth_of(subsampling, attention)
    assert subsampling(60.0) > 2 * attention(60.0)
    for seconds in (1.0, 60.0, 300.0):
        assert growth.bytes_for(seconds) == pytest.approx(subsampling(seconds), rel=0.01)
    for seconds in (400.0, 6 * HOURS, 48 * HOURS):
        assert growth.bytes_for(seconds) == pytest.approx(attention(seconds), rel=0.01)


def test_a_model_without_attention_is_not_taken_for_one():
    assert growth_of(subsampling).bytes_for(12 * HOURS) == pytest.approx(4.32e11, rel=0.01)


@pytest.mark.parametrize("multiple", [2, 8, 16, 128, 256])
def test_lengths_that_are_rounded_up_look_like_no_attention(multiple):
    def chunks(seconds):  # a frame is 80 ms
        return 1e6 * multiple * math.ceil(round(seconds / 0.08 + 1) / multiple)

    growth = MemoryModel(PROBE_SECONDS, [[chunks(seconds)] for seconds in PROBE_SECONDS])
    assert growth.bytes_for(6 * HOURS) == pytest.approx(chunks(6 * HOURS), rel=0.01)


def test_where_a_longer_clip_takes_other_steps_the_highest_of_all_count():
    traces = [[1, round(attention(s)), *[0] * round(s)] for s in LENGTHS]
    assert MemoryModel(LENGTHS, traces).bytes_for(600.0) == pytest.approx(
        attention(600.0), rel=0.01
    )


def test_what_shrinks_for_short_clips_does_not_count_as_less_than_nothing_for_long_ones():
    growth = growth_of(lambda s: 1e6 * s - 10.0 * s**2, lambda _: 1e6)
    assert growth.bytes_for(24 * HOURS) >= 8e10


# ------------------------------------------------------------------------ what a pass holds


def test_a_trace_counts_what_is_made_and_still_held():
    import torch

    weights = torch.ones(1000, 1000)

    def function():
        with torch.inference_mode():
            first = torch.zeros(1000, 100)  # 400 kB
            second = weights.t() @ first  # as much; the view of the weights takes nothing
            view = first.view(-1)[:10]
            del first  # its view holds it
            third = second[:500].clone()  # 200 kB
            del second, view
            return third.reshape(-1, 1) + 1  # 200 kB

    trace = cpu_memory.live_bytes(function)
    assert trace[0] == 0
    assert max(trace) == 1_000_000
    assert trace[-1] == 400_000


def test_a_trace_sees_what_an_operation_does_inside():
    import torch

    signal = torch.zeros(1, 160_000)
    window = torch.hann_window(512)

    def spectrogram():
        with torch.inference_mode():
            return torch.stft(signal, 512, 160, window=window, return_complex=True)

    # 1001 windows of 512 samples, and 257 complex numbers for each
    assert max(cpu_memory.live_bytes(spectrogram)) >= 4 * 1001 * 512 + 8 * 1001 * 257


def test_a_trace_counts_no_other_thread():
    import torch

    held = []

    def function():
        other = threading.Thread(target=lambda: held.append(torch.zeros(1_000_000)))
        other.start()
        other.join()
        return torch.zeros(10)

    assert max(cpu_memory.live_bytes(function)) == 40


def test_attention_is_foreseen_although_a_model_makes_a_table_for_the_first_longer_clip():
    import torch

    tables = []

    def encode_noise(seconds):
        if seconds > 50.0 and not tables:
            tables.append(torch.zeros(10))
        torch.empty(round(100_000 * seconds), dtype=torch.uint8)
        return torch.empty(round(250 * seconds**2), dtype=torch.uint8)

    growth = MemoryModel.measure(encode_noise)
    assert growth.bytes_for(60.0) == pytest.approx(100_000 * 60.0, rel=0.01)
    assert growth.bytes_for(6 * HOURS) == pytest.approx(250 * (6 * HOURS) ** 2, rel=0.01)


# ------------------------------------------------------------------------ what can be had


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {
    "proc/meminfo": "MemTotal:       24684084 kB\nMemAvailable:    8388608 kB\nHugePages: 0\n"
}
V2 = {"proc/self/cgroup": "0::/pods/one\n"}
V1 = {"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n"}
GROUP = "sys/fs/cgroup/pods/one"
V1_TOP = "sys/fs/cgroup/memory"


def group(folder: str, limit: str, usage: str, statistics: str = "") -> dict[str, str]:
    names = ("memory.max", "memory.current", "memory.stat")
    if folder.startswith(V1_TOP):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    contents = (limit, usage, statistics)
    return {f"{folder}/{name}": f"{text}\n" for name, text in zip(names, contents, strict=True)}


@pytest.mark.parametrize(
    ("groups", "available"),
    [
        pytest.param({}, 8 * GIB, id="a machine without groups"),
        pytest.param(V2, 8 * GIB, id="a group without files"),
        pytest.param(V2 | group(GROUP, "max", "123456"), 8 * GIB, id="v2 without a limit"),
        pytest.param(V2 | group(GROUP, "4294967296", "1073741824"), 3 * GIB, id="v2"),
        pytest.param(
            V2
            | group(
                GROUP,
                "4294967296",
                "4294967296",
                "anon 1000\nfile 3000000000\nactive_file 1073741824\ninactive_file 1073741824",
            ),
            2 * GIB,
            id="v2 full of cached files",
        ),
        pytest.param(
            V2
            | group(GROUP, "4294967296", "0")
            | group("sys/fs/cgroup/pods", "4294967296", "2147483648"),
            2 * GIB,
            id="v2 in a fuller group",
        ),
        pytest.param(
            V2 | group("sys/fs/cgroup", "4294967296", "3221225472"),
            1 * GIB,
            id="v2 seen from within a container",
        ),
        pytest.param(V2 | group(GROUP, "17179869184", "0"), 8 * GIB, id="v2 above the machine's"),
        pytest.param(V2 | group(GROUP, "1073741824", "1073745920"), 0.0, id="v2 above its limit"),
        pytest.param(
            V1 | group(f"{V1_TOP}/docker/abc", "4294967296", "1073741824"), 3 * GIB, id="v1"
        ),
        pytest.param(
            V1
            | group(
                V1_TOP,
                "4294967296",
                "4294967296",
                "cache 9\nactive_file 9\ntotal_active_file 1073741824\ntotal_inactive_file 0",
            ),
            1 * GIB,
            id="v1 within a container, full of cached files",
        ),
        pytest.param(
            V1 | group(V1_TOP, "9223372036854771712", "18062663680"), 8 * GIB, id="v1 unlimited"
        ),
    ],
)
def test_the_least_that_the_machine_and_the_groups_leave_can_be_had(tmp_path, groups, available):
    assert cpu_memory.available(files(tmp_path, MACHINE | groups)) == available


def test_where_the_system_tells_nothing_there_is_no_end(tmp_path):
    assert cpu_memory.available(tmp_path) == math.inf


@on_linux
def test_this_machine_tells_what_can_be_had():
    assert 0 < cpu_memory.available() < 2**50


# ------------------------------------------------------------------------ what is refused


@pytest.fixture
def guard(monkeypatch):
    """Of a model that takes a MiB for each second, on a machine of 1,000 MiB."""
    import torch

    monkeypatch.setattr(cpu_memory, "available", lambda: 1000 * 2.0**20)
    probes = []

    def encode_noise(seconds):
        probes.append(seconds)
        return torch.empty(round(seconds * 2**20), dtype=torch.uint8)

    guard = CpuMemoryGuard(encode_noise)
    guard.probes = probes
    return guard


def test_ordinary_batches_cost_nothing(guard, monkeypatch):
    monkeypatch.setattr(cpu_memory, "available", lambda: 0.0)
    guard.check(4, 10.0)
    guard.check(1, 120.0)
    assert guard.probes == []


def test_a_pass_may_take_most_of_the_memory_and_not_all_of_it(guard):
    guard.check(1, 690.0)
    guard.check(2, 345.0)
    guard.check(69, 10.0)
    with pytest.raises(
        MemoryError, match=r"of a clip of 710 s would take about 0\.7 GiB .* 70% of the 1\.0"
    ):
        guard.check(1, 710.0)
    with pytest.raises(MemoryError, match=r"of 2 clips of up to 355 s would"):
        guard.check(2, 355.0)
    with pytest.raises(MemoryError, match=r"of 71 clips of up to 10 s would"):
        guard.check(71, 10.0)
    with pytest.raises(MemoryError, match=r"of a clip of 7200 s \(2\.0 h\) would take"):
        guard.check(1, 7200.0)
    assert len(set(guard.probes)) == 3, "the model is measured by three lengths"
    assert len(guard.probes) == 4, "and once"


def test_where_nothing_is_known_of_the_memory_nothing_is_refused(guard, monkeypatch):
    monkeypatch.setattr(cpu_memory, "available", lambda: math.inf)
    guard.check(1000, 12 * HOURS)
    assert guard.probes == []


def test_a_model_that_cannot_be_measured_is_used_without_the_guard(monkeypatch, caplog):
    monkeypatch.setattr(cpu_memory, "available", lambda: 0.0)
    tries = []

    def encode_noise(seconds):
        tries.append(seconds)
        raise ValueError("no noise, please")

    guard = CpuMemoryGuard(encode_noise)
    with caplog.at_level(logging.WARNING, "beam_asr.models.devices.cpu_memory"):
        guard.check(1, 600.0)
        guard.check(1, 600.0)
    assert len(tries) == 1
    assert "ValueError: no noise, please" in caplog.text


@on_linux
@pytest.mark.parametrize("hours", [6, 12])
def test_a_recording_of_hours_is_refused_before_anything_is_allocated(model, hours):
    model.encode([speechlike(61.44)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    recording = np.zeros(hours * 3600 * RATE, np.float32)  # never touched, it takes no memory
    with pytest.raises(MemoryError, match=rf"{hours}\.0 h.*GiB that can be had.*Cut the audio"):
        model.encode([recording])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 1024 * (after - before) < recording.nbytes / 2


def test_a_clip_that_does_not_fit_fails_alone(model, monkeypatch):
    clips = [speechlike(5.0, seed=1), np.zeros(600 * RATE, np.float32), speechlike(5.0, seed=2)]
    expected = model.transcribe([clips[0], clips[2]])
    monkeypatch.setattr(cpu_memory, "available", lambda: 2 * GIB)
    first, refused, last = isolation.apply_bisecting(model.transcribe, clips)
    assert isinstance(refused[0], MemoryError)
    assert gpu_memory.is_exhausted(refused[0])
    assert [first[0], last[0]] == expected


@on_linux
def test_a_long_clip_that_fits_says_what_it_says_without_the_guard(monkeypatch):
    speech = [soundfile.read(path, dtype="float32")[0] for path in sorted(SAMPLES.glob("*.flac"))]
    clip = np.resize(np.concatenate(speech), 150 * RATE)
    ours = engine.load(ModelSpec(str(SAMPLE_MODEL), "cpu"))
    with monkeypatch.context() as unguarded:
        unguarded.setattr(cpu_memory, "available", lambda: math.inf)
        expected = ours.transcribe([clip])
    assert len(expected[0].text.split()) > 50
    assert ours.transcribe([clip]) == expected


@on_linux
def test_what_is_foreseen_is_what_a_pass_takes(model):
    foreseen = MemoryModel.measure(model._encode_noise).bytes_for(240.0)
    clip = speechlike(240.0)
    before = begin_peak()
    model.encode([clip])
    assert 0.5 < foreseen / (peak() - before) < 2


def test_a_model_with_local_attention_takes_twice_as_much_for_twice_as_long_a_clip(tiny_model):
    ours = engine.load(ModelSpec(str(tiny_model("aed_multitask")), "cpu"))
    ours._model.change_attention_model("rel_pos_local_attn", [128, 128])
    growth = MemoryModel.measure(ours._encode_noise)
    assert growth.bytes_for(12 * HOURS) == pytest.approx(2 * growth.bytes_for(6 * HOURS), rel=0.01)
    assert growth.bytes_for(HOURS) < 4 * GIB


def begin_peak() -> int:
    """Bytes that the process has resident; from now on the peak counts."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not let a process reset its peak of memory")
    return resident("VmRSS:")


def peak() -> int:
    return resident("VmHWM:")


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
