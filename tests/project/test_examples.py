"""examples/: each of them runs; that of Flink does so in tests/runners/test_examples.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support import dataflow_stub
from tests.support.job_files import REPOSITORY, SAMPLES, environment, read_records

EXAMPLES = REPOSITORY / "examples"
NOTEBOOK = EXAMPLES / "quick_start.ipynb"
IMAGE = "us-central1-docker.pkg.dev/my-project/images/beam-asr:1"
MODEL = "nvidia/parakeet-tdt-0.6b-v3"

pytestmark = pytest.mark.model


@pytest.fixture
def project(tmp_path):
    """A folder as the repository: with samples/ and examples/ in it."""
    for folder in (SAMPLES, EXAMPLES):
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path


def run(folder: Path, *command: object, **variables: str) -> str:
    """Runs a command with the tests' Python first on its path; returns what it prints."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment(**variables),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def usage(name: str) -> str:
    """Returns the command that an example begins with, on one line."""
    text = re.sub(r"\\\n#?\s*", "", (EXAMPLES / name).read_text(encoding="utf-8"))
    return re.search(r"^(?:#   )?(python .*)$", text, re.M)[1]


def test_the_pipeline_of_ones_own(project):
    run(project, "bash", "-c", usage("own_pipeline.py"))
    rows = read_records(project / "out/own", "transcripts")
    assert len(rows) == 12
    (four,) = [row for row in rows if row["audio_filepath"].endswith("digits_4.flac")]
    assert (four["pred_text"], four["hidden"]) == ("#", 1)
    assert (project / "out/own/_SUCCESS").exists()


def test_the_pipeline_of_beam_yaml(project):
    run(project, "bash", "-c", usage("pipeline.yaml"))
    rows = read_records(project / "out/yaml/transcripts", "transcripts")
    assert rows
    assert all(row["word_count"] == len(row["pred_text"].split()) >= 4 for row in rows)
    assert (project / "out/yaml/failures/_SUCCESS").exists()


def test_the_notebook_runs_whole(project):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(project)}}
    )  # fmt: skip
    client.execute()
    cells = {cell["id"]: cell for cell in notebook.cells}
    assert cells["transcribe"]["outputs"][-1]["data"]["text/plain"] == "12"
    assert "<td>four</td>" in cells["table"]["outputs"][-1]["data"]["text/html"]
    assert re.fullmatch(r"WER \d+\.\d%\n", cells["score"]["outputs"][-1]["text"])


def test_the_notebook_is_kept_without_outputs():
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_the_job_on_dataflow_is_launched(gs_bucket, project):
    gs_bucket.filesystem().put_file(
        str(SAMPLES / "manifest.jsonl"), f"{gs_bucket.uri}/manifest.jsonl"
    )
    endpoint = gs_bucket.storage_options["gs"]["endpoint_url"]
    with dataflow_stub.running() as service:
        run(
            project, "examples/dataflow.sh", f"{gs_bucket.uri}/manifest.jsonl",
            f"{gs_bucket.uri}/out", f"--storage_options={json.dumps(gs_bucket.storage_options)}",
            f"--dataflow_endpoint={service.endpoint}", "--no_auth",
            PROJECT="my-project", BUCKET=gs_bucket.uri.removeprefix("gs://"), IMAGE=IMAGE,
            MODEL=MODEL, WORKERS="3", STORAGE_EMULATOR_HOST=endpoint,
        )  # fmt: skip
    (job,) = service.jobs
    (pool,) = job["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert (pool["machineType"], pool["diskSizeGb"]) == ("g2-standard-8", 100)
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 3
    services = job["environment"]["serviceOptions"]
    assert services == ["worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"]


@pytest.mark.parametrize("script", ["dataflow.sh", "flink.sh"])
def test_each_flag_of_a_launch_is_explained(script):
    """By the comment before it; those of the runner's name and kind explain themselves."""
    lines = (EXAMPLES / script).read_text(encoding="utf-8").splitlines()
    flags = lines[lines.index("flags=(") + 1 : lines.index(")")]
    named = [line for line in flags if line.strip().strip('"').startswith("--")]
    assert len(named) >= 8
    without = [
        line
        for before, line in zip(["", *flags], flags, strict=False)
        if line in named and not before.strip().startswith("#")
    ]
    kinds = ("--runner=", "--region=", "--environment_config=")
    assert [each for each in without if not each.strip().strip('"').startswith(kinds)] == []


def test_the_page_lists_every_example():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\]\(([\w.]+)\)", page))
    assert listed == {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
