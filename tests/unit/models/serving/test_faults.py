"""What goes wrong around the model: what costs one clip, and what ends the process."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from beam_asr import errors
from beam_asr.errors import ClipTooLongError, ModelError, NotFiniteError
from beam_asr.models import engine, error_tensors
from beam_asr.models.devices import gpu_faults, gpu_memory
from beam_asr.models.engine import ModelSpec
from beam_asr.models.nemo.families import ctc, generic, multitask, transducer
from beam_asr.models.serving import isolation
from tests.support.job_files import REPOSITORY
from tests.support.tiny_models import speechlike
from tests.support.waiting import MAX_SECONDS

RATE = 16_000
HEADS = [
    ("ctc_bpe", None),
    ("rnnt_bpe", None),
    ("tdt_bpe", None),
    ("hybrid_rnnt_ctc_bpe_prompt", None),
    ("hybrid_tdt_ctc_bpe", "ctc"),
    ("aed_multitask", None),
    ("ctc_bpe", "other"),  # through transcribe()
]
HELP = (
    "\nSearch for `cudaErrorX' in https://docs.nvidia.com/cuda/cuda-runtime-api for more "
    "information.\nCUDA kernel errors might be asynchronously reported at some other API call, so "
    "the stacktrace below might be incorrect.\nFor debugging consider passing "
    "CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


def cuda_error(words):
    return torch.AcceleratorError(f"CUDA error: {words}{HELP}")


def with_code(code):
    error = torch.AcceleratorError("CUDA error: ...")
    error.error_code = code
    return error


def followed_by(first, second):
    try:
        try:
            raise first
        except Exception:
            raise second  # noqa: B904
    except Exception as error:
        return error


def never():
    raise AssertionError("the device must not be used")


@pytest.mark.parametrize(
    "error",
    [
        cuda_error("an illegal memory access was encountered"),
        cuda_error("device-side assert triggered"),
        cuda_error("unspecified launch failure"),
        cuda_error("the launch timed out and was terminated"),
        cuda_error("uncorrectable ECC error encountered"),
        cuda_error("unknown error"),
        RuntimeError("CUDA error: misaligned address"),  # as torch raised it before 2.8
        RuntimeError("CUDA driver error: unspecified launch failure"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost."),
        RuntimeError("GPU 0000:01:00.0 has fallen off the bus."),
        with_code(700),
        followed_by(cuda_error("device-side assert triggered"), ValueError("cannot clean up")),
    ],
    ids=str,
)
def test_a_device_is_lost_by_errors_that_stay(error):
    assert gpu_faults.is_lost(error, never)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
        RuntimeError("CUDA failure! 700"),
        cuda_error("invalid configuration argument"),
        cuda_error("an error that is not known yet"),
    ],
    ids=str,
)
def test_other_errors_of_a_device_lead_to_a_check_of_it(error):
    assert gpu_faults.is_lost(error, lambda: False)
    assert not gpu_faults.is_lost(error, lambda: True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device that answers")
def test_a_device_that_is_not_there_does_not_answer():
    assert gpu_faults.is_lost(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"))


EXHAUSTED = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    cuda_error("out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", EXHAUSTED, ids=repr)
def test_memory_that_is_exhausted_is_no_lost_device(error):
    assert gpu_memory.is_exhausted(error)
    assert not gpu_faults.is_lost(error, never)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("poison"),
        RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu"),
        RuntimeError("an illegal memory access was encountered in a text, not on a device"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_other_errors_are_the_clips(error):
    assert not gpu_faults.is_lost(error, never)
    assert not gpu_memory.is_exhausted(error)


def test_the_codes_and_words_of_lost_devices_are_those_of_the_installed_cuda():
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else []
    libraries = [each for folder in folders for each in Path(folder).rglob("libcudart.so.*")]
    if not libraries:
        pytest.skip("the CUDA runtime is not installed; its words cannot be compared")
    words = ctypes.CDLL(str(libraries[0])).cudaGetErrorString
    words.restype = ctypes.c_char_p
    assert {code: words(code).decode() for code in gpu_faults.STICKY} == gpu_faults.STICKY


class Wordy(Exception):
    """Words its message itself, as many classes do."""

    def __str__(self):
        return "w" * 10_000_000


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("x" * 10_000_000),
        RuntimeError(f"bad states: {torch.zeros(100, 100)} at layer 3"),
        ValueError("bad states", torch.zeros(100, 100), np.zeros(1000)),
        KeyError("k" * 1000),
        OSError(5, "i" * 1000),
        Wordy(),
        Speechless(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_message_becomes_one_short_line(error):
    name = type(error).__name__
    small = error_tensors.without_tensors(error)
    assert isinstance(small, Exception)
    assert type(small).__name__ == name
    assert 0 < len(str(small)) <= errors.MAX_CHARACTERS
    assert "\n" not in str(small)
    assert "0." not in str(small), "the numbers of a tensor"
    assert all(isinstance(each, str) for each in small.args)


def test_what_is_said_beside_a_tensor_stays():
    message = f"bad states: {torch.zeros(0, 4)} at layer 3"
    assert (
        str(error_tensors.without_tensors(ValueError(message)))
        == "bad states: tensor(...) at layer 3"
    )


@pytest.mark.parametrize("error", [ValueError("poison"), OSError(5, "no"), KeyError("k")], ids=repr)
def test_a_short_message_stays_as_it_is(error):
    before = str(error), error.args
    assert error_tensors.without_tensors(error) is error
    assert (str(error), error.args) == before


def test_an_error_that_is_kept_holds_no_tensor_of_its_calls():
    def fails():
        states = torch.zeros(10)
        held.append(weakref.ref(states))
        raise RuntimeError("CUDA out of memory")

    def wraps():
        try:
            fails()
        except RuntimeError as error:
            raise ValueError("wrapped") from error

    held: list = []
    with pytest.raises(ValueError, match="wrapped") as raised:
        wraps()
    assert held[0]() is not None
    error_tensors.release_frames(raised.value)
    assert held[0]() is None


# The families, with real models.


@pytest.fixture(scope="module", params=HEADS, ids=str)
def model(request, tiny_model):
    family, decoder = request.param
    if decoder != "other":
        return engine.load(ModelSpec(str(tiny_model(family)), "cpu", decoder))
    through_transcribe = engine.load(ModelSpec(str(tiny_model(family)), "cpu"))
    through_transcribe._family = generic.GenericFamily(through_transcribe._model)
    return through_transcribe


def recognized(model, clips):
    """The text of each clip, or the error that it ends with."""
    results = [result for result, _ in isolation.apply_bisecting(model.transcribe, clips)]
    return [getattr(result, "text", result) for result in results]


GOOD = [speechlike(1.5 + 0.5 * seed, seed=seed) for seed in range(5)]


def loud(seconds):
    """Near silence with a bang, the loudest thing after normalization."""
    noise = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    gain = np.full(len(noise), 1e-6)
    gain[len(noise) // 2 :][:320] = 1.0
    return (gain * noise).astype(np.float32)


def overflow_if_loud(model):
    """Gives a first channel of the encoder weights by which only a bang becomes infinite."""
    layers = [each for each in model._model.encoder.pre_encode.conv if hasattr(each, "weight")]
    first, second = layers[:2]
    with torch.inference_mode():
        first.weight[0] = first.bias[0] = 0.0
        first.weight[0, 0, 1, 1] = 3.4e38 / 10
        # What is finite there has no weight in the next layer.
        (second.weight[:, 0] if second.groups == 1 else second.weight[0]).zero_()


def test_a_clip_of_nan_or_infinity_fails_alone(model):
    expected = recognized(model, GOOD)
    assert len(set(expected)) == len(GOOD), "the texts do not differ"
    bad = [speechlike(2.2, seed=9) for _ in range(2)]
    bad[0][1000], bad[1][20_000] = np.nan, np.inf
    texts = recognized(model, [GOOD[0], bad[0], *GOOD[1:4], bad[1], GOOD[4]])
    assert [type(texts.pop(place)) for place in (5, 1)] == [NotFiniteError] * 2
    assert texts == expected
    assert model.encode(bad).tensors[0].isfinite().all(), "the decoder gets nothing of it"


def test_a_clip_at_which_the_weights_overflow_fails_alone(model):
    overflow_if_loud(model)
    expected = recognized(model, GOOD)
    assert len(set(expected)) == len(GOOD), "the texts do not differ"
    bad, *others = recognized(model, [loud(6.0), *GOOD])
    assert type(bad) is NotFiniteError
    assert others == expected


def frames(*lengths):
    return torch.tensor(lengths)


def test_padding_may_hold_anything():
    states = torch.ones(2, 4, 6)
    states[0, :, 3:] = torch.nan
    states[1, 2, 5] = -torch.inf
    reported = transducer.Transducer.finite(None, states, frames(3, 6))
    assert reported.tolist() == [True, False]
    assert transducer.Transducer.finite(None, states, frames(4, 5)).tolist() == [False, True]
    by_frame = states.permute(0, 2, 1)
    mask = torch.tensor([[1.0] * 3 + [0.0] * 3, [1.0] * 6])
    assert multitask.Multitask.finite(None, by_frame, mask).tolist() == [True, False]
    assert ctc.Ctc.finite(None, by_frame, frames(3, 6)).tolist() == [True, True]
    assert ctc.Ctc.finite(None, by_frame, frames(4, 6)).tolist() == [False, True]


def test_of_ctc_a_token_may_be_ruled_out_but_not_all_of_them():
    log_probs = torch.full((3, 5, 4), -1.0)
    log_probs[0, :, 2] = -torch.inf
    log_probs[1, 3] = -torch.inf
    log_probs[2, 3, 0] = torch.inf
    assert ctc.Ctc.finite(None, log_probs, frames(5, 5, 5)).tolist() == [True, False, False]


# What ends the process.

HOST = """
    import sys, threading, time
    import numpy as np, torch
    from beam_asr import process
    from beam_asr.models.serving import host as model_host
    from beam_asr.models import engine
    from beam_asr.models.nemo.recognizer import Recognition

    class Model:
        sample_rate, default_batch_seconds, batch_overhead_seconds = 10, 40.0, 2.0
        max_clip_seconds = segment_seconds = 40.0
        weight_bytes, prompt_fields = 0, frozenset()

        def warm_up(self, batch_size):
            self.work("warm up")

        def encode(self, waveforms, _prompt):
            self.work("encode", waveforms[0][0])
            return waveforms

        def decode(self, waveforms):
            self.work("decode", waveforms[0][0])
            return [Recognition("recognized")] * len(waveforms)

        def describe(self):
            return {}

        def work(self, half, name=None):
            if half == sys.argv[1]:
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    class Saver:
        def save(self):
            print("saved")

    def submit(name, clips=1):
        names = [f"gs://clips/{name}-{number}.wav" for number in range(clips)]
        return host.submit([np.full(10, name)] * clips, names=names)

    saver = Saver()
    process.register(saver)
    engine.load = lambda *_, **__: Model()
    host = model_host.ModelHost(model_host.ModelSpec("any", batch_timeout=4.0))
"""


def run_host(script, *args):
    code = textwrap.dedent(HOST) + textwrap.dedent(script)
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=MAX_SECONDS
    )


def assert_ended(done, *words):
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["saved"], "what was done is saved, and nothing else happens"
    for each in (*words, "No row was turned into a failure", "`resume`"):
        assert each in done.stderr


@pytest.mark.parametrize("half", ["encode", "decode", "warm up"])
def test_a_lost_device_ends_the_process_and_no_row_fails(half):
    done = run_host(
        """
        host.warm_up(16)
        try:
            print(submit(1, clips=30).result())
        except BaseException as error:
            print("the caller got", repr(error))
        """,
        half,
    )
    clips = [] if half == "warm up" else ["gs://clips/1-0.wav", "26 more"]
    assert_ended(done, "device is lost", "device-side assert triggered", *clips)


@pytest.mark.parametrize("half", ["encode", "decode"])
def test_a_pass_that_is_stuck_ends_the_process(half):
    done = run_host(
        """
        Model.work = lambda _, half, name=None: half == sys.argv[1] and threading.Event().wait()
        submit(1, clips=2).result()
        print("the caller got something")
        """,
        half,
    )
    assert_ended(done, "4 s", "`batch_timeout`", "gs://clips/1-0.wav, gs://clips/1-1.wav")


def test_a_pass_that_takes_long_by_both_halves_ends_the_process_and_names_its_neighbour():
    done = run_host(
        """
        seconds = {("encode", 1): 2.4, ("decode", 1): 2.4}
        Model.work = lambda _, half, name=None: time.sleep(seconds.get((half, name), 0.0))
        first, second = submit(1), submit(2)
        first.result()
        print("the caller got something")
        """,
        "",
    )
    assert_ended(done, "on gs://clips/1-0.wav", "also started on gs://clips/2-0.wav")


def test_neither_waiting_nor_the_work_on_others_counts_as_time_of_a_pass():
    """Each batch works for 3.2 s of the 6 s that it may; the first ends after 6.4, the last 9.6."""
    done = run_host(
        """
        host = model_host.ModelHost(model_host.ModelSpec("any", batch_timeout=6.0))
        seconds = {("encode", 0): 1.6, ("decode", 0): 1.6, ("encode", 1): 3.2}
        seconds |= {("encode", 2): 1.6, ("decode", 2): 1.6}
        Model.work = lambda _, half, name=None: time.sleep(seconds.get((half, name), 0.0))
        for each in [submit(name) for name in range(3)]:
            each.result()
        print("all done")
        """,
        "",
    )
    assert done.stdout == "all done\n", done.stderr
    assert done.returncode == 0


def test_neither_loading_nor_warming_up_is_a_pass():
    done = run_host(
        """
        def load(*_, **__):
            time.sleep(1.0)
            return Model()

        engine.load = load
        Model.work = lambda *_: time.sleep(1.0)
        model_host.ModelHost(model_host.ModelSpec("any", batch_timeout=0.1)).warm_up(16)
        print("all done")
        """,
        "",
    )
    assert done.stdout == "all done\n", done.stderr
    assert done.returncode == 0


def test_a_model_thread_that_cannot_go_on_ends_the_process():
    done = run_host(
        """
        def broken(*_):
            raise OSError("no more of anything")

        host._limit.record_success = broken
        submit(1).result()
        print("the caller got something")
        """,
        "",
    )
    assert_ended(done, "model's thread", "OSError: no more of anything")


def test_the_docs_name_the_failures_of_the_model():
    page = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `model` |")]
    for each in ModelError.__subclasses__():
        assert any(f"`{each.__name__}`" in row for row in rows)
    assert ClipTooLongError in ModelError.__subclasses__()
