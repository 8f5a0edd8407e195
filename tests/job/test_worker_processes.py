"""What worker processes download, load and keep: one model each, for as long as they live."""

from __future__ import annotations

import json
import math
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.worker import sdk_worker
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.utils.timestamp import Timestamp

from beam_asr import Transcribe
from beam_asr.models import engine, files
from beam_asr.models.serving import pool as model_pool
from beam_asr.records.row import Row
from beam_asr.records.work import Clip
from beam_asr.storage.storage import Storage
from beam_asr.transforms.recognize import RecognizeChunk
from tests.support.job_files import SAMPLE_MODEL, SAMPLES, read_records
from tests.support.waiting import MAX_SECONDS, wait_until

PROCESSES = "--direct_running_mode=multi_processing"
CLIP = SAMPLES / "digits_4.flac"

BYTES_A_SECOND = 3e6  # so that a download lasts until the last process wants it

DOWNLOAD = """
import sys
from beam_asr.models import files as model_files
from beam_asr.storage.storage import Storage
print(model_files.local_copy(Storage(), sys.argv[1]))
"""


@contextmanager
def slowly(address: str) -> Iterator[str]:
    """The address of a slow way to a server."""

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            host, _, port = address.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port))) as server, suppress(OSError):
                threading.Thread(target=_pass_on, args=(self.request, server)).start()
                _pass_on(server, self.request, BYTES_A_SECOND)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Way) as way:
        way.daemon_threads = True
        threading.Thread(target=way.serve_forever, daemon=True).start()
        yield "http://{}:{}".format(*way.server_address)
        way.shutdown()


def _pass_on(source: socket.socket, target: socket.socket, rate: float = math.inf) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            time.sleep(len(data) / rate)
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def job(fork_server, tmp_path):
    """Transcribes the samples in processes of their own; gives the run and its records."""

    def run(*flags: object, model: object = SAMPLE_MODEL, **variables: str):
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        run = fork_server.run(
            f"--input={SAMPLES / 'manifest.jsonl'}",
            f"--output={out}",
            f"--model_name={model}",
            *flags,
            env={**fork_server.environment(), **variables},
        )
        assert run.status(MAX_SECONDS) == 0, run.output()
        assert read_records(out, "failures") == []
        return run, sorted(json.dumps(each) for each in read_records(out, "transcripts"))

    return run


# -------------------------------------------------------------------------------- processes


def test_processes_that_start_at_once_download_the_model_once(
    job, gs_bucket, tmp_path, monkeypatch
):
    uri = f"{gs_bucket.uri}/sample.nemo"
    gs_bucket.filesystem().pipe_file(uri, SAMPLE_MODEL.read_bytes())

    def reads() -> int:
        """Requests for a part of the model's content, so far."""
        lines = gs_bucket.log.read_text().splitlines()
        return sum("sample.nemo?alt=media" in line for line in lines)

    monkeypatch.setenv(files.CACHE, str(tmp_path / "other cache"))
    files.local_copy(Storage(gs_bucket.storage_options), uri)
    one_download = reads()
    assert one_download > 0

    cache = {files.CACHE: str(tmp_path / "cache")}
    counts = [reads()]
    with slowly(gs_bucket.storage_options["gs"]["endpoint_url"]) as address:
        options = {"gs": {**gs_bucket.storage_options["gs"], "endpoint_url": address}}
        flags = [PROCESSES, "--direct_num_workers=3", f"--storage_options={json.dumps(options)}"]
        for _ in range(2):
            run, recognized = job(*flags, model=uri, **cache)
            assert len(set(run.loaded())) == 3
            assert len(recognized) == 12
            counts.append(reads())
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    # Each launch reads some of the content, by which it knows the model again.
    assert first - second == one_download
    assert len(list((tmp_path / "cache").glob("*.nemo"))) == 1


def test_a_process_killed_while_it_downloads_leaves_the_model_to_the_one_that_waits(
    http_server, tmp_path, monkeypatch
):
    content = SAMPLE_MODEL.read_bytes()
    http_server.files["m.nemo"] = content
    url = http_server.behave("m.nemo", latency=1)
    monkeypatch.setenv(files.CACHE, str(tmp_path))

    def download() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", DOWNLOAD, url], stdout=subprocess.PIPE, text=True
        )

    def running() -> bool:
        return any(each.is_file() and each.stat().st_size for each in tmp_path.rglob("*"))

    started = [download()]
    try:
        wait_until(running)
        http_server.behave("m.nemo", stall=0.1)
        started.append(download())
        time.sleep(2)  # in which it comes to wait, or takes what is there if it does not wait
        started[0].kill()
        started[0].wait()
        assert running(), "it was killed before or after its download"
        http_server.behave("m.nemo")
        said, _ = started[1].communicate(timeout=MAX_SECONDS)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert Path(said.strip()).read_bytes() == content


def test_worker_processes_load_the_model_once_each_and_the_launcher_never(job):
    run, recognized = job(PROCESSES, "--direct_num_workers=2")
    assert len(set(run.loaded())) == len(run.loaded()) == 2
    assert run.pid not in run.loaded()
    assert len(recognized) == 12


def test_two_copies_of_the_model_hear_what_one_hears(job):
    one, expected = job()
    assert one.loaded() == [one.pid]
    two, recognized = job("--model_copies=2")
    assert len(set(two.loaded())) == len(two.loaded()) == 2
    assert two.pid not in two.loaded()
    assert recognized == expected


# ----------------------------------------------------------------------- within a process


@pytest.fixture
def loads(monkeypatch):
    """The thread of each load of a model in this process, in which none is loaded yet."""
    load, made = engine.load, []

    def noted(*args, **kwargs):
        made.append(threading.get_ident())
        return load(*args, **kwargs)

    monkeypatch.setattr(engine, "load", noted)
    monkeypatch.setattr(model_pool, "pool", model_pool.ModelPool())
    return made


def test_threads_that_ask_at_once_share_one_load(loads):
    together = threading.Barrier(6)

    def ask(_: int):
        together.wait()
        return model_pool.host(engine.ModelSpec(str(SAMPLE_MODEL), "cpu"))

    with ThreadPoolExecutor(6) as pool:
        hosts = set(pool.map(ask, range(6)))
    assert len(hosts) == 1
    assert len(loads) == 1


def test_the_model_stays_when_beam_takes_down_what_is_idle(loads, monkeypatch):
    """Beam does so after a minute, here after every bundle."""
    events = []

    def note(name: str) -> None:
        method = getattr(RecognizeChunk, name)

        def noted(self):
            events.append(name)
            method(self)

        monkeypatch.setattr(RecognizeChunk, name, noted)

    note("setup")
    note("teardown")
    release = sdk_worker.BundleProcessorCache.release

    def released(self, instruction_id):
        release(self, instruction_id)
        for idle in self.cached_bundle_processors.values():
            self._shutdown_cached_bundle_processors(idle)

    monkeypatch.setattr(sdk_worker.BundleProcessorCache, "release", released)
    settings = Transcribe(model_name=str(SAMPLE_MODEL), device="cpu")._settings[0]
    window = [Clip(Row.of({"audio_filepath": str(CLIP)}), str(CLIP), 0.0, None)]
    model_pool.host(settings.spec)  # loaded before the first impulse is due
    now = Timestamp.now()
    pipeline = beam.Pipeline(runner="FnApiRunner")
    # With no shuffle between, a bundle of impulses is a bundle of windows.
    _ = (
        pipeline
        | PeriodicImpulse(now, now + 2, 1)
        | beam.Map(lambda _: window)
        | beam.ParDo(RecognizeChunk(settings)).with_outputs("transcripts", "failures", "statistics")
    )
    result = pipeline.run()
    result.wait_until_finish()
    assert events[:4] == ["setup", "teardown"] * 2

    def counted(name: str) -> int:
        counters = result.metrics().query(MetricsFilter().with_name(name))["counters"]
        return sum(each.committed for each in counters)

    assert counted("batches") == 2
    assert counted("model_loads") == len(loads) == 1
