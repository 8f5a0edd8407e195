"""Fixtures: real models, real clips, and the job as a user runs it."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from beam_asr.cli import main
from beam_asr.inputs import json_lines
from beam_asr.outputs.journal import Journal
from beam_asr.storage.storage import Storage
from tests.emulators import (  # noqa: F401
    az_bucket,
    az_store,
    bucket,
    gs_bucket,
    gs_store,
    s3_bucket,
    s3_store,
)
from tests.fork_server import ForkServer
from tests.servers import forbidden, http_server  # noqa: F401

# By default an example may take 200 ms, which on a busy machine says nothing of the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

REPOSITORY = Path(__file__).parent.parent
SAMPLES = REPOSITORY / "samples"
SAMPLE_MODEL = SAMPLES / "model.nemo"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Callable[[str], Path]:
    """Gives the ``.nemo`` of a tiny random model of a decoder family, built once."""
    from tests import tiny_models

    folder = tmp_path_factory.mktemp("models")
    return functools.cache(lambda family: tiny_models.build(family, folder))


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory) -> Iterator[ForkServer]:
    """Runs the job in processes of its own, which can be killed."""
    server = ForkServer(tmp_path_factory.mktemp("runs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def prompts() -> Path:
    """The folder of Debian's 568 recorded English prompts, with their manifests."""
    if not shutil.which("apt-get"):
        pytest.skip("the recorded prompts come from Debian's packages, and apt-get is not here")
    folder = REPOSITORY / ".cache" / "prompts"
    subprocess.run(["bash", str(REPOSITORY / "tests/fetch_prompts.sh"), str(folder)], check=True)
    return folder


def read_records(folder: Path, kind: str) -> list[dict]:
    """All records of the shards of one kind, compressed or not."""
    return [
        json.loads(line)
        for shard in sorted(folder.glob(f"{kind}-*"))
        for line in json_lines.lines_in(Storage(), str(shard))
    ]


def journaled(out: Path) -> set[str]:
    """The ids of the rows whose outcome is in the journal, in files that are whole."""
    kept = Journal(str(out), Storage())
    names = [name for name in kept.names() if name.endswith(".jsonl")]
    return {each.row_id for name in names for each in kept.read(name) if each.recognition}


def transcripts_of(manifest: Path, model: Path, out: Path) -> list[dict]:
    """What the job, with no flag but those it needs, makes of a manifest."""
    flags = [f"--input={manifest}", f"--output={out}", f"--model_name={model}"]
    assert main.main(["transcribe", *flags]) == 0
    return read_records(out, "transcripts")


def write_manifest(path: Path, rows: list[dict | str]) -> Path:
    """A manifest of these rows; a string is taken as a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def transcribe(capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs ``beam-asr transcribe`` in this process; gives status, output and errors."""

    def run(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.main(["transcribe", *map(str, args)])
        return status, *capsys.readouterr()

    return run
