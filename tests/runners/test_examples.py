"""examples/flink.sh brings a job to a real Flink."""

from __future__ import annotations

import subprocess

from tests.runners import flink, workers
from tests.support.job_files import REPOSITORY, SAMPLE_MODEL, SAMPLES, environment, read_records


def test_the_launch_on_flink(cluster, flink_jar, fork_server, tmp_path):
    pool = workers.WorkerPool(fork_server, fork_server.environment(), tmp_path, by_boot=False)
    out = tmp_path / "out"
    command = [
        str(REPOSITORY / "examples" / "flink.sh"), str(SAMPLES / "manifest.jsonl"), str(out),
        f"--flink_job_server_jar={flink_jar}",
    ]  # fmt: skip
    variables = {
        "FLINK_MASTER": cluster.address,
        "FLINK_VERSION": flink.FLINK_VERSION,
        "MODEL": str(SAMPLE_MODEL),
        "PARALLELISM": "2",
        "WORKER_POOL": pool.address,
        "JAVA_TOOL_OPTIONS": " ".join(flink.SHORT_LIVED),
    }
    try:
        done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True)
    finally:
        pool.close()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "_SUCCESS").exists()
    assert len(read_records(out, "transcripts")) == 12
    assert cluster.jobs()[0]["state"] == "FINISHED"
