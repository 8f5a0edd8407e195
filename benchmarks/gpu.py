"""Speed and fidelity on a GPU, by one command on a machine that has no package registry.

Where there is a registry, this collects what such a machine lacks as wheels (48 MiB), in the folder
.gpu, which git ignores and which has to be carried there with the repository:

    python benchmarks/gpu.py wheels

There, at the root of the repository, with a Python 3.12 that has torch, within ten minutes:

    PYTHONUNBUFFERED=1 python3 benchmarks/gpu.py run --minutes 9 --out $OUT/gpu.json

`--models tdt` leaves the time for all repetitions of one model. What has been measured is in the
file after each part, and what could not be is among its notes. On a CPU `run --small --minutes 3`
shows whether everything works.

    job             our whole job: manifest and FLAC files on disk to JSONL on disk, model loaded
    floor           our recognizer on waveforms in memory, the best batches over all clips
    nemo-16         NeMo's transcribe(paths, batch_size=16), in the manifest's order
    nemo-128        batches of 128, the longest clip first, one process that reads
    nemo-128-8      the same, with eight processes that read

Each is a process that has loaded the model, and they take turns. On a GPU all use bf16.

The models have Parakeet's shape and random weights; of the synthetic clips they make about as many
tokens as of speech. Such weights decide narrowly and one token changes all that follow, so what
bf16 does to texts is measured with the sample model, which is trained.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import functools
import gc
import importlib.util
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / ".gpu"
RATE = 16_000
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 40.0
TOKENS_A_SECOND = 3.0  # of English speech, about
RUNS = 3

# ------------------------------------------------------------------------------------------ wheels

MOST_WHEELS_MIB = 50
TARGET = {"python_version": "3.12", "python_full_version": "3.12.3"}  # the machine's
PLATFORMS = ["manylinux2014_x86_64", *(f"manylinux_2_{n}_x86_64" for n in range(39, 4, -1))]
NO_WHEEL = "antlr4-python3-runtime"  # pure Python: one is built
# What the machine has of the lock. Not its lightning: with 2.6, NeMo 3.0.0 cannot be imported.
PRESENT = """
    absl-py aiohappyeyeballs aiohttp aiosignal annotated-doc anyio attrs certifi charset-normalizer
    click cloudpickle colorama cuda-* einops filelock frozenlist fsspec grpcio h11 hf-xet httpcore
    httpx huggingface-hub humanize idna jinja2 joblib lazy-loader lightning-utilities llvmlite lxml
    markdown markdown-it-py markupsafe mdurl ml-dtypes mpmath msgpack multidict narwhals networkx
    numba numpy nvidia-* onnx packaging pandas pillow pluggy portalocker propcache protobuf pyarrow
    pygments pyparsing python-dateutil pytorch-lightning pyyaml regex requests rich sacrebleu
    safetensors scikit-learn scipy sentencepiece setuptools shellingham six sortedcontainers sympy
    tabulate tensorboard tensorboard-data-server threadpoolctl tokenizers toolz torch torchmetrics
    tqdm transformers triton typer typing-extensions urllib3 werkzeug wrapt xxhash yarl"""
LEFT_OUT = {
    "35 MiB: libsndfile reads FLAC, and STAND_IN takes the import": "av",
    "20 MiB, of training": "wandb cwevals",
    "of Google Cloud: Beam does without": """
        google-* googleapis-common-protos gcsfs grpc-* grpcio-status cachetools distro
        docstring-parser keyring keyrings-* jaraco-* jeepney secretstorage more-itertools
        oauth2client oauthlib requests-oauthlib pyasn1 pyasn1-modules rsa websockets
        opentelemetry-*""",
    "of databases: Beam does without": """
        asn1crypto cloud-sql-python-connector dnspython pg8000 pymongo pymysql python-tds scramp
        sqlparse""",
    "of NVIDIA's object store": "aistore msgspec",
    "of a newer huggingface-hub than the machine's": "httpx2 httpcore2 truststore",
    "faster, but there is another way": "mmh3 orjson jsonpickle",
    "of training and scoring": "indic-numtowords text-unidecode text2num whisper-normalizer",
    "of compiling with cffi": "pycparser",
}
STAND_IN = {  # for PyAV: what importing beam_asr.audio.reading touches
    "__init__": "from av import error, logging\n\n\nclass AudioFrame:\n    pass\n",
    "error": "class FFmpegError(Exception):\n    pass\n",
    "logging": "def set_level(level):\n    pass\n",
}


def wheels(folder: Path) -> None:
    """Fills a folder with the locked requirements that the machine lacks."""
    shutil.rmtree(folder, ignore_errors=True)
    wanted = _lacking()
    pip = [sys.executable, "-m", "pip", "--quiet"]
    built = [*pip, "wheel", "--no-deps", "-w", folder, wanted.pop(NO_WHEEL)]
    subprocess.run(built, check=True)
    only = ["--no-deps", "--only-binary=:all:", "--python-version=3.12", "--implementation=cp"]
    platforms = [f"--platform={name}" for name in PLATFORMS]
    subprocess.run(
        [*pip, "download", *only, *platforms, "-d", folder, *wanted.values()], check=True
    )
    sizes = {wheel.name: wheel.stat().st_size / 2**20 for wheel in folder.iterdir()}
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        print(f"{sizes[name]:7.2f} MiB  {name}")
    print(f"{sum(sizes.values()):7.2f} MiB  together, {len(sizes)} wheels, in {folder}")
    if sum(sizes.values()) > MOST_WHEELS_MIB:
        sys.exit(f"more than {MOST_WHEELS_MIB} MiB: leave something out")


def _lacking() -> dict[str, str]:
    """Requirements by name: of the lock, what the machine has not and is not left out."""
    from packaging.requirements import Requirement

    patterns = " ".join([PRESENT, *LEFT_OUT.values()]).split()
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    locked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        each.name: f"{each.name}{each.specifier}"
        for each in locked
        if each.marker is None or each.marker.evaluate(TARGET)
        if not any(fnmatch.fnmatch(each.name, pattern) for pattern in patterns)
    }


def _install(site: Path) -> None:
    """Lets this process and those that it starts import NeMo, from the wheels if need be."""
    site.mkdir()
    if importlib.util.find_spec("nemo") is None:
        files = sorted(WHEELS.glob("*.whl"))
        if not files:
            sys.exit(f"no NeMo here, and no wheels in {WHEELS}: see the top of this file")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*pip, "--no-compile", "--target", site, *files], check=True)
    if importlib.util.find_spec("av") is None:
        (site / "av").mkdir()
        for name, text in STAND_IN.items():
            (site / "av" / f"{name}.py").write_text(text)
    os.environ |= {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"}
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"  # on what killed processes leave
    sys.path[:1] = [str(site), str(ROOT)]  # and not the modules beside this file


# ---------------------------------------------------------- called in processes: machine and audio


def describe() -> str:
    """The machine, for the results' heading."""
    from benchmarks import machine

    text = machine.describe("apache-beam", "nemo_toolkit", "torch", "numpy", "lightning")
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no GPU
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version"]
        found = subprocess.run([*query, "--format=csv,noheader"], capture_output=True, check=True)
        text = f"{found.stdout.decode().strip()} (driver); {text}"
    return text


def write_audio(folder: str, seconds: float, unique_minutes: int) -> dict[str, float]:
    """Writes clips until there are so many seconds; those of earlier calls stay.

    They are cut from some minutes of synthetic speech, at lengths that are log-uniform.
    """
    import numpy as np

    root, started = Path(folder), time.monotonic()
    lengths, held = [], 0.0
    while held < seconds:
        share = np.random.default_rng([len(lengths), 1]).random()
        length = SHORTEST_SECONDS * (LONGEST_SECONDS / SHORTEST_SECONDS) ** share
        lengths.append(round(RATE * length) / RATE)
        held += lengths[-1]
    with ProcessPoolExecutor() as pool:
        if not (root / "unique.npy").exists():
            minutes = list(pool.map(_minute, range(unique_minutes)))
            np.save(root / "unique.npy", np.concatenate(minutes))
        pieces = [(root, n, lengths[n : n + 100]) for n in range(0, len(lengths), 100)]
        size = sum(pool.map(_write_clips, pieces))
    rows = [{"audio_filepath": _name(n), "duration": length} for n, length in enumerate(lengths)]
    (root / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    took = time.monotonic() - started
    return {"seconds": held, "clips": len(rows), "bytes": size, "took_seconds": took}


def _minute(seed: int) -> Any:
    from tests.support import tiny_models

    return tiny_models.speechlike(60.0, seed)


def _name(clip: int) -> str:
    return f"clips/{clip // 1000:03d}/{clip:06d}.flac"


def _write_clips(piece: tuple[Path, int, list[float]]) -> int:
    """Bytes of clips from a number on, of these lengths."""
    import numpy as np
    import soundfile

    root, first, lengths = piece
    unique, size = np.load(root / "unique.npy", mmap_mode="r"), 0
    for clip, seconds in enumerate(lengths, first):
        path, samples = root / _name(clip), round(seconds * RATE)
        if not path.exists():
            random = np.random.default_rng([clip, 2])
            start = random.integers(len(unique) - samples)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, unique[start : start + samples] * random.uniform(0.5, 2.0), RATE)
        size += path.stat().st_size
    return size


# --------------------------------------------------------------------- called in processes: models

PARAKEET = {  # of 0.6B
    "features": 128,
    "vocabulary": 1024,
    "prediction": {"pred_hidden": 640, "pred_rnn_layers": 2},
    "encoder": {"n_layers": 24, "d_model": 1024, "n_heads": 8, "subsampling_conv_channels": 256},
}
SMALL = {
    "features": 80,
    "vocabulary": 128,
    "prediction": {"pred_hidden": 32, "pred_rnn_layers": 1},
    "encoder": {"n_layers": 2, "d_model": 64, "n_heads": 4, "subsampling_conv_channels": 16},
}


def build(kind: str, path: str, small: bool) -> dict[str, float]:
    """Builds a ``ctc`` or ``tdt`` model and saves it."""
    import torch
    from omegaconf import open_dict

    from tests.support import tiny_models

    started, shape = time.monotonic(), SMALL if small else PARAKEET
    features, more = shape["features"], {"ff_expansion_factor": 4, "use_bias": False}
    encoder = tiny_models._encoder(features, **shape["encoder"], **more)
    torch.manual_seed(6)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        cfg = tiny_models._common(features, encoder)
        cfg["tokenizer"] = tiny_models._bpe(Path(folder), _made_up_text(), shape["vocabulary"])
        model, bias, tokens = (_ctc if kind == "ctc" else _tdt)(cfg, shape)
        rate = _set_rate(bias, shape["vocabulary"], tokens)
        with open_dict(model.cfg):  # transcribe() of paths reads it
            model.cfg.validation_ds = {"manifest_filepath": None, "sample_rate": RATE}
        model.save_to(path)
    return {
        "million_parameters": sum(each.numel() for each in model.parameters()) / 1e6,
        "tokens_a_second": rate,
        "took_seconds": time.monotonic() - started,
    }


def _made_up_text() -> str:
    """Words, some more frequent, for a tokenizer to learn from."""
    import numpy as np

    random = np.random.default_rng(3)
    syllables = [start + vowel for start in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    words = ["".join(random.choice(syllables, random.integers(1, 5))) for _ in range(3000)]
    chosen = (len(words) * random.random((2000, 12)) ** 3).astype(int)
    return "\n".join(" ".join(words[number] for number in line) for line in chosen)


def _ctc(cfg: dict, shape: dict) -> tuple[Any, Any, Callable[[], int]]:
    """The model, the biases of its tokens, and how many of those it finds in some audio."""
    from tests.support import tiny_models

    cfg["decoder"] = tiny_models._ctc_decoder([]) | {"feat_in": shape["encoder"]["d_model"]}
    cfg["decoding"] = tiny_models._ctc_decoding()
    model = tiny_models._make("EncDecCTCModelBPE", cfg)
    encoded, frames = tiny_models._encode(model)
    tiny_models._calibrate_ctc(model.decoder, tiny_models._valid(encoded, frames), has_unk=True)

    def tokens() -> int:
        log_probs = model.decoder(encoder_output=encoded)
        found = model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=frames)
        return sum(len(model.tokenizer.text_to_ids(each.text)) for each in found)

    return model, model.decoder.decoder_layers[0].bias, tokens


def _tdt(cfg: dict, shape: dict) -> tuple[Any, Any, Callable[[], int]]:
    """As ``_ctc``."""
    from tests.support import tiny_models

    durations, width = tiny_models._DURATIONS, shape["prediction"]["pred_hidden"]
    cfg |= tiny_models._transducer(durations)
    widths = {"pred_hidden": width, "joint_hidden": width}
    cfg["model_defaults"] |= {"enc_hidden": shape["encoder"]["d_model"], **widths}
    cfg["decoder"]["prednet"] |= shape["prediction"]
    cfg["joint"]["jointnet"]["joint_hidden"] = width
    cfg["decoding"]["greedy"]["max_symbols"] = 10
    # None is computed, and NeMo's other one needs numba's compiler for the GPU.
    cfg["loss"] = {"loss_name": "tdt_pytorch", "tdt_pytorch_kwargs": {"durations": durations}}
    model = tiny_models._make("EncDecRNNTBPEModel", cfg)
    encoded, frames = tiny_models._encode(model)
    tiny_models._calibrate_transducer(model, encoded, frames, has_unk=True, blank=0.6)

    def tokens() -> int:
        found = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames)
        return sum(len(each.y_sequence) for each in found)

    return model, model.joint.joint_net[-1].bias, tokens


def _set_rate(bias: Any, blank: int, tokens: Callable[[], int]) -> float:
    """Finds the blank's bias by which there are as many tokens a second as in speech."""
    from tests.support import tiny_models

    seconds = float(tiny_models._batch()[1].sum()) / RATE
    start, step = float(bias[blank]), 20.0
    bias[blank] = start
    for _ in range(11):
        step /= 2
        bias[blank] += step if tokens() > TOKENS_A_SECOND * seconds else -step
    return tokens() / seconds


# ---------------------------------------------------------------- called in processes: contestants


@functools.cache
def _host(model: str, precision: str = "auto") -> Any:
    from beam_asr.models import engine
    from beam_asr.models.serving import pool as model_pool

    return model_pool.host(engine.ModelSpec(model, precision=precision))


@functools.cache
def _nemo(model: str) -> Any:
    import torch
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return ASRModel.restore_from(model, map_location=device)


@functools.cache
def _waveforms(manifest: str) -> list[Any]:
    from beam_asr.audio.reading import AudioRequest, read_audio
    from benchmarks import corpora

    read = functools.partial(read_audio, request=AudioRequest(sample_rate=RATE))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(read, [clip.path for clip in corpora.clips(Path(manifest))]))


def _hear(host: Any, waveforms: Sequence[Any]) -> list[str]:
    """Our recognizer's texts; it has the next batch at hand before it is done with one."""
    from beam_asr.cli.options import parse_args
    from beam_asr.models import engine
    from beam_asr.models.serving import batch_plan

    flags = parse_args(["transcribe", "--input=-", "--output=-", "--model_name=-"])  # defaults
    batch_size = flags.batching.batch_size
    host.warm_up(batch_size)
    taken = [engine.padded_clip_seconds(waveform, RATE) for waveform in waveforms]
    budget, overhead = host.default_batch_seconds, host.batch_overhead_seconds
    plan = batch_plan.plan_batches(taken, budget, batch_size, overhead)
    given = [host.submit([waveforms[clip] for clip in batch]) for batch in plan]
    texts = [""] * len(waveforms)
    for batch, done in zip(plan, given, strict=True):
        for clip, recognition in zip(batch, done.result().results, strict=True):
            texts[clip] = recognition.text
    return texts


def fidelity(model: str, manifest: str) -> dict[str, Any]:
    """How our texts differ from NeMo's, NeMo's from its own, and bf16's from fp32's."""
    from nemo.collections.asr.metrics.wer import word_error_rate

    waveforms = _waveforms(manifest)
    texts = {"ours fp32": _hear(_host(model, "fp32"), waveforms)}
    for size in (16, 1):
        recognized = _nemo(model).transcribe(waveforms, batch_size=size, verbose=False)
        texts[f"NeMo fp32, batches of {size}"] = [each.text for each in recognized]
    texts["ours bf16"] = _hear(_host(model, "bf16"), waveforms)  # last: it lets torch take TF32
    ours, sixteen, single, rounded = texts
    return {
        "clips": len(waveforms),
        "characters_a_second": sum(map(len, texts[ours])) / sum(map(len, waveforms)) * RATE,
        "empty": texts[ours].count(""),
        "pairs": [
            {
                "texts": (one, other),
                "equal": sum(map(str.__eq__, texts[one], texts[other])) / len(waveforms),
                "wer": word_error_rate(texts[one], texts[other]),
            }
            for one, other in ((ours, sixteen), (ours, single), (sixteen, single), (rounded, ours))
        ],
        "examples": {name: recognized[:2] for name, recognized in texts.items()},
    }


# What is timed, and what else it tells of itself afterwards.
Contestant = tuple[Callable[[], Any], Callable[[], dict[str, Any]]]


def _job(model: str, manifest: str) -> Contestant:
    from benchmarks.contestants import Job

    job = Job(model)
    job.prepare(Path(manifest))

    def notes() -> dict[str, Any]:
        summary = json.loads((job._output / "summary.json").read_text())
        (described,) = summary["models"]
        described.pop("model")  # a temporary path
        return {
            **job.notes(),
            "failed": summary["failed"],
            "batches": summary["batches"],
            **described,
        }

    return job.run, notes


def _floor(model: str, manifest: str) -> Contestant:
    host, waveforms = _host(model), _waveforms(manifest)
    reported = ("default_batch_seconds", "batch_overhead_seconds")
    return lambda: _hear(host, waveforms), lambda: {name: getattr(host, name) for name in reported}


def _transcribe(
    model: str, manifest: str, batch_size: int, by_length: bool, readers: int
) -> Contestant:
    import torch

    from benchmarks import corpora

    theirs, clips = _nemo(model), corpora.clips(Path(manifest))
    if by_length:
        clips.sort(key=lambda clip: -clip.seconds)
    if torch.cuda.is_available():
        theirs.to(torch.bfloat16)
    options = {"batch_size": batch_size, "num_workers": readers, "verbose": False}
    return lambda: theirs.transcribe([clip.path for clip in clips], **options), dict


CONTESTANTS: dict[str, Callable[[str, str], Contestant]] = {
    "job": _job,
    "floor": _floor,
    "nemo-16": functools.partial(_transcribe, batch_size=16, by_length=False, readers=0),
    "nemo-128": functools.partial(_transcribe, batch_size=128, by_length=True, readers=1),
    "nemo-128-8": functools.partial(_transcribe, batch_size=128, by_length=True, readers=8),
}
SHARES = {"job": 1.0, "floor": 0.5, "nemo-16": 0.25, "nemo-128": 0.25, "nemo-128-8": 0.25}


def load(model: str, nemo: bool) -> None:
    (_nemo if nemo else _host)(model)


def contest(name: str, model: str, manifest: str) -> dict[str, Any]:
    """One timed run, from what is on disk or in memory to texts."""
    import torch

    from benchmarks import machine

    run, notes = CONTESTANTS[name](model, manifest)
    cuda = torch.cuda if torch.cuda.is_available() else None
    if cuda:
        cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # where it cannot be forgotten, it is the process's
        machine.forget_peak()
    with _sampled() as busy:
        started = time.monotonic()
        run()
        seconds = time.monotonic() - started
    result = {
        "seconds": seconds,
        "gpu_busy": statistics.mean(busy) / 100 if busy else None,
        "gpu_allocated_gb": cuda and cuda.max_memory_allocated() / 1e9,
        "gpu_reserved_gb": cuda and cuda.max_memory_reserved() / 1e9,
        "rss_gb": machine.peak_mb() / 1e3,
        "notes": notes(),
    }
    gc.collect()
    if cuda:
        cuda.empty_cache()  # the others are on the same GPU
    return result


@contextlib.contextmanager
def _sampled() -> Iterator[list[int]]:
    """Fills a list with the percentages of time in which the GPU ran a kernel, by NVML."""
    percents: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        with contextlib.suppress(Exception):  # no GPU, or no NVML
            import pynvml

            pynvml.nvmlInit()
            gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not ended.wait(0.1):
                percents.append(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield percents
    finally:
        ended.set()
        sampler.join()


# --------------------------------------------------------------------------------------- processes

NEMO = "nemo.collections.asr.models"
KINDS = {"job": f"apache_beam {NEMO}", "floor": NEMO, "nemo": NEMO}  # and what they import


class FailedError(RuntimeError):
    """A call has failed, its process has died, or it took too long; says how."""


class Worker:
    """A process that makes calls; after one that it did not survive, another."""

    def __init__(self, log: Path, imports: str):
        self._log, self._imports = log, imports
        log.touch()
        self._pool: ProcessPoolExecutor | None = None

    def start(self, function: Callable[..., Any] = dict, /, **arguments: Any) -> Future[Any]:
        if self._pool is None:
            begin = (self._log, self._imports)
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, begin)
        return self._pool.submit(_call, function, arguments)

    def result(self, call: Future[Any], limit: float) -> Any:
        """What a call gives, within so many seconds.

        Raises:
            FailedError: it gives nothing.
        """
        try:
            return call.result(max(1.0, limit))
        except FailedError:
            raise
        except Exception as error:  # too late, or the process has died
            self.stop()
            said = " ".join(self._log.read_text().split())[-300:]
            how = f"{type(error).__name__}, after {limit:.0f} s at most; {said}"
            raise FailedError(how) from error

    def stop(self) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with the processes that read for it
                process.kill()  # it may not have come to have a group
            self._pool.shutdown()
            self._pool = None


def _begin(log: Path, imports: str) -> None:
    os.setsid()
    set_start_method("fork", force=True)  # torch's readers are given what cannot be pickled
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name in imports.split():
        importlib.import_module(name)


def _call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return function(**arguments)
    except Exception as error:
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise FailedError(text) from None


# -------------------------------------------------------------------------------------------- a run


class Bench:
    """A run: its processes, its audio, its end, and what is known so far.

    Attributes:
        known: the parts of the report.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        self._args, self._folder, self._audio = args, folder, folder / "audio"
        self._began = time.monotonic()
        self._ends = self._began + 60 * args.minutes - 10  # which it takes to tidy up
        self.known: dict[str, Any] = {"machine": "?", "models": {}, "notes": []}
        self._audio.mkdir()
        names = {"audio": "", "prepare": NEMO}
        for model in args.models:
            names |= {f"{model}-{kind}": imports for kind, imports in KINDS.items()}
        self._workers = {name: Worker(folder / f"{name}.log", names[name]) for name in names}

    def run(self) -> None:
        try:
            # To import NeMo takes long; where there are cores, all do it at once.
            early = self._workers if (os.cpu_count() or 1) >= 8 else ["prepare"]
            for name in early:
                self._workers[name].start()
            self.known["machine"] = self._ask("audio", 120, describe)
            self._write_audio(self._args.first_audio)
            built = [model for model in self._args.models if self._build(model)]
            self._compare("sample", ROOT / "samples/model.nemo", ROOT / "samples/manifest.jsonl")
            self._workers["prepare"].stop()
            for number, model in enumerate(built):
                now = time.monotonic()
                self._measure(model, now + (self._ends - now) / (len(built) - number))
        except FailedError as error:
            self._note(f"cut short: {error}")
        finally:
            for worker in self._workers.values():
                worker.stop()

    def _ask(self, to: str, limit: float, function: Any, /, **arguments: Any) -> Any:
        worker, left = self._workers[to], self._ends - time.monotonic()
        return worker.result(worker.start(function, **arguments), min(limit, left))

    def _note(self, text: str) -> None:
        self.known["notes"].append(text)
        self._save(text)

    def _save(self, why: str, value: Any = "") -> None:
        text = f"{why} {json.dumps(value)[:300]}" if value else why
        print(f"{time.monotonic() - self._began:4.0f} s  {text}", file=sys.stderr, flush=True)
        if self._args.out is not None:
            self._args.out.write_text(json.dumps(self.known, indent=1))

    def _about(self, model: str) -> dict[str, Any]:
        return self.known["models"].setdefault(model, {})

    def _write_audio(self, seconds: float) -> None:
        """Sees to it that there is so much audio, or as fills half of what is free on the disk."""
        if "audio" in self.known:
            written = self.known["audio"]
            free = shutil.disk_usage(self._audio).free / written["bytes"] * written["seconds"]
            seconds = min(seconds, written["seconds"] + free / 2)
        options = {"folder": str(self._audio), "unique_minutes": self._args.unique_minutes}
        self.known["audio"] = self._ask("audio", 180, write_audio, seconds=seconds, **options)
        self._save("audio", self.known["audio"])

    def _part(self, seconds: float = math.inf, clips: int | None = None) -> tuple[str, float]:
        """A manifest of the first clips, and the seconds in it."""
        rows, held = [], 0.0
        for line in (self._audio / "all.jsonl").read_text().splitlines()[:clips]:
            if held >= seconds:
                break
            rows.append(line)
            held += json.loads(line)["duration"]
        part = self._audio / f"part-{len(rows)}.jsonl"
        part.write_text("\n".join(rows) + "\n")
        return str(part), held

    def _path(self, model: str) -> str:
        return str(self._folder / f"{model}.nemo")

    def _build(self, model: str) -> bool:
        """Builds a model and looks at its texts; says whether there is one."""
        options = {"kind": model, "path": self._path(model), "small": self._args.small}
        try:
            self._about(model)["build"] = self._ask("prepare", 240, build, **options)
        except FailedError as error:
            self._note(f"{model}, building it: {error}")
            return False
        self._save(model, self._about(model)["build"])
        self._compare(model, self._path(model), self._part(clips=self._args.compared)[0])
        return True

    def _compare(self, model: str, path: Any, manifest: Any) -> None:
        options = {"model": str(path), "manifest": str(manifest)}
        try:
            self._about(model)["texts"] = self._ask("prepare", 180, fidelity, **options)
            self._save(f"{model}, its texts", self._about(model)["texts"])
        except FailedError as error:
            self._note(f"{model}, its texts: {error}")

    def _measure(self, model: str, ends: float) -> None:
        self._load(model)
        parts, takes = {}, {}
        for name in CONTESTANTS:
            try:
                rate = self._rate(model, name)
                self._about(model).setdefault("rough_rtfx", {})[name] = round(rate)
                least = self._args.first_audio / 8
                seconds = max(self._args.seconds * SHARES[name] * rate, least)
                if name == "job" and seconds > self.known["audio"]["seconds"]:
                    self._write_audio(min(seconds, self._args.most_audio))
                parts[name] = self._part(seconds)
                takes[name] = parts[name][1] / rate
            except FailedError as error:
                self._note(f"{model}, {name}, before it was measured: {error}")
        runs = self._about(model)["runs"] = {name: [] for name in parts}
        for name in RUNS * list(parts):
            started = time.monotonic()
            if started + 1.2 * takes[name] > ends:
                continue
            try:
                run = self._contest(model, name, parts[name][0], ends - started)
            except FailedError as error:
                self._note(f"{model}, {name}: {error}")
                continue
            takes[name] = time.monotonic() - started
            runs[name].append({"audio_seconds": parts[name][1], **run})
            self._save(f"{model}, {name}", run)
        if fewer := [f"{name} {len(made)}" for name, made in runs.items() if len(made) < RUNS]:
            rough = self._about(model).get("rough_rtfx")
            self._note(f"{model}: fewer runs than {RUNS}: {', '.join(fewer)}; rough RTFx {rough}")
        for kind in KINDS:
            self._workers[f"{model}-{kind}"].stop()

    def _load(self, model: str) -> None:
        """Has the contestants load a model, all at one time."""
        path, workers = self._path(model), [self._workers[f"{model}-{kind}"] for kind in KINDS]
        calls = [
            worker.start(load, model=path, nemo=kind == "nemo")
            for kind, worker in zip(KINDS, workers, strict=True)
        ]
        for worker, call in zip(workers, calls, strict=True):
            with contextlib.suppress(FailedError):  # it will fail again, and be noted, when timed
                worker.result(call, min(150, self._ends - time.monotonic()))

    def _rate(self, model: str, name: str) -> float:
        """About how many seconds of audio a contestant transcribes a second; it is warm then."""
        part, seconds = self._part(self._args.first_audio / 16)
        self._contest(model, name, part, 180)
        while True:
            took = self._contest(model, name, part, 120)["seconds"]
            if took > 1 or seconds >= self._args.first_audio / 2:
                return seconds / took
            part, seconds = self._part(4 * seconds)

    def _contest(self, model: str, name: str, part: str, limit: float) -> dict[str, Any]:
        options = {"name": name, "model": self._path(model), "manifest": part}
        return self._ask(f"{model}-{name.split('-')[0]}", limit, contest, **options)


# ------------------------------------------------------------------------------------------ tables


def tables(known: dict[str, Any]) -> list[str]:
    """What is known, for RESULTS.md."""
    lines = [f"`python benchmarks/gpu.py run`: {known['machine']}", ""]
    for model, about in known["models"].items():
        shape = "as it was trained"
        if built := about.get("build"):
            size, rate = built["million_parameters"], built["tokens_a_second"]
            shape = f"{size:.1f}M parameters, random weights, {rate:.1f} tokens a second"
        lines += [f"Model {model}, {shape}:", ""]
        lines += _speeds({name: runs for name, runs in about.get("runs", {}).items() if runs})
        lines += _texts(about["texts"]) if "texts" in about else []
    return [*lines, *(f"- {note}" for note in known["notes"])]


def _speeds(runs_of: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| contestant | RTFx, median (least to most) | runs | audio s | seconds | GPU busy "
        "| GPU GB allocated | GPU GB reserved | RSS GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    reported = []
    for name, runs in runs_of.items():
        rates = sorted(run["audio_seconds"] / run["seconds"] for run in runs)
        row = [name, f"{statistics.median(rates):.0f} ({rates[0]:.0f} to {rates[-1]:.0f})"]
        row += [str(len(runs)), f"{runs[0]['audio_seconds']:.0f}"]
        for field in ("seconds", "gpu_busy", "gpu_allocated_gb", "gpu_reserved_gb", "rss_gb"):
            values = [run[field] for run in runs if run[field] is not None]
            row.append(f"{statistics.median(values):.2f}" if values else "-")
        lines.append(f"| {' | '.join(row)} |")
        notes = ", ".join(f"{key} {value}" for key, value in runs[-1]["notes"].items())
        reported += [f"`{name}` says: {notes}.", ""] if notes else []
    return [*lines, "", *reported] if runs_of else []


def _texts(texts: dict[str, Any]) -> list[str]:
    lines = [
        f"Texts of {texts['clips']} clips, {texts['characters_a_second']:.1f} characters a second, "
        f"{texts['empty']} empty:",
        "",
        "| texts | beside | equal | WER |",
        "| --- | --- | --- | --- |",
    ]
    for pair in texts["pairs"]:
        equal, wer = f"{100 * pair['equal']:.1f} %", f"{100 * pair['wer']:.2f} %"
        lines.append(f"| {' | '.join([*pair['texts'], equal, wer])} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    collect = commands.add_parser("wheels", help="collect what the machine lacks")
    collect.add_argument("--folder", type=Path, default=WHEELS)
    run = commands.add_parser("run", help="measure")
    run.add_argument("--out", type=Path, help="JSON of what has been measured so far")
    run.add_argument("--small", action="store_true", help="tiny models, little audio")
    run.add_argument("--minutes", type=float, default=8.0, help="most that it may take")
    run.add_argument("--models", type=lambda text: text.split(","), default=["tdt", "ctc"])
    run.add_argument("--seconds", type=float, help="that a run of the job shall take")
    run.add_argument("--most-audio", type=float, default=400_000.0, help="seconds of it")
    args = parser.parse_args()
    if args.command == "wheels":
        wheels(args.folder)
    else:
        args.seconds = args.seconds or (2.0 if args.small else 30.0)
        args.unique_minutes, args.first_audio = (1, 120.0) if args.small else (20, 40_000.0)
        args.compared = 20 if args.small else 200
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _install(Path(folder) / "site")
            bench = Bench(args, Path(folder))
            bench.run()
        print(*tables(bench.known), sep="\n")


if __name__ == "__main__":
    main()
