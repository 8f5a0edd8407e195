"""What Dataflow gets: Beam's own client sends the real job to a stand-in for the service.

The files are staged in an emulator of Google Cloud Storage. What Dataflow makes of a job is not
tested.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
)
from apache_beam.portability.api import beam_runner_api_pb2

from beam_asr.cli import dataflow, options, runners
from beam_asr.cli.messages import flag_of
from beam_asr.errors import SetupError
from beam_asr.models.devices import resources
from beam_asr.records.setting_fields import all_settings
from beam_asr.settings import GROUPS, Resources
from tests.support import dataflow_stub
from tests.support.job_files import REPOSITORY, SAMPLES

TEMPLATES = REPOSITORY / "templates" / "dataflow"
L4 = "type:nvidia-l4;count:1;install-nvidia-driver"
TWO_L4 = L4.replace("count:1", "count:2")
FOR_ALL = f"--dataflow_service_options=worker_accelerator={L4}"
IMAGE = "us-central1-docker.pkg.dev/my-project/images/beam-asr:1"
MODEL = "nvidia/parakeet-tdt-0.6b-v3"
SECRET = "that-nobody-may-read"
ACCELERATOR_HINT = "beam:resources:accelerator:v1"


# The options, without a job.


def settled(*flags: str, accelerator: str | None = None, **requested) -> PipelineOptions:
    beam_options = PipelineOptions(["--runner=DataflowRunner", *flags])
    dataflow.apply_dataflow_defaults(beam_options, accelerator, Resources(**requested))
    return beam_options


def test_without_packages_of_google_it_is_refused_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(SetupError, match=r"pip install 'beam-asr\[gcp\]'"):
        settled()


def experiments(beam_options: PipelineOptions) -> list[str]:
    return beam_options.view_as(DebugOptions).experiments or []


@pytest.mark.parametrize(
    "runner",
    [
        "DataflowRunner", "dataflow", "dataflowrunner", "TestDataflowRunner",
        "apache_beam.runners.dataflow.dataflow_runner.DataflowRunner",
    ],
)  # fmt: skip
def test_dataflow_is_known_in_every_spelling_that_beam_takes(runner):
    assert runners.name(PipelineOptions([f"--runner={runner}"])) == "dataflow"


@pytest.mark.parametrize(
    "runner", [["FnApiRunner"], ["FlinkRunner", "--flink_master=m:8081"], ["PortableRunner"]]
)
def test_other_runners_options_stay_as_they_are(runner):
    name, *flags = runner
    beam_options = PipelineOptions([f"--runner={name}", f"--sdk_container_image={IMAGE}", *flags])
    before = beam_options.get_all_options()
    runners.apply_runner_defaults(beam_options, None, Resources())
    assert beam_options.get_all_options() == before


def test_by_default_a_worker_is_one_process_with_two_threads_and_the_images_own_beam():
    beam_options = settled(f"--sdk_container_image={IMAGE}")
    assert experiments(beam_options) == ["no_use_multiple_sdk_containers"]
    assert beam_options.view_as(DebugOptions).number_of_worker_harness_threads == 2
    assert beam_options.view_as(SetupOptions).sdk_location == "container"


def test_what_the_user_chose_is_kept():
    beam_options = settled(
        "--experiments=use_multiple_sdk_containers",
        "--number_of_worker_harness_threads=5",
        f"--sdk_container_image={IMAGE}",
        "--sdk_location=/a/beam.tar.gz",
    )
    assert experiments(beam_options) == ["use_multiple_sdk_containers"]
    assert beam_options.view_as(DebugOptions).number_of_worker_harness_threads == 5
    assert beam_options.view_as(SetupOptions).sdk_location == "/a/beam.tar.gz"
    assert settled().view_as(SetupOptions).sdk_location == "default"


def test_copies_of_the_model_share_the_gpu_in_processes_of_their_own():
    beam_options = settled(FOR_ALL, "--machine_type=g2-standard-8", model_copies=8)
    assert experiments(beam_options) == ["use_multiple_sdk_containers"]
    services = beam_options.view_as(GoogleCloudOptions).dataflow_service_options
    assert services == [f"worker_accelerator={L4};use_nvidia_mps"]
    assert resources.accelerator_hint(L4, 8) == f"{L4};use_nvidia_mps"
    assert resources.accelerator_hint(f"{L4};use_nvidia_mps", 8) == f"{L4};use_nvidia_mps"
    assert resources.accelerator_hint(L4, 1) == L4
    assert resources.accelerator_hint(None, 8) is None


@pytest.mark.parametrize(
    ("flags", "accelerator", "copies", "said"),
    [
        ([FOR_ALL], L4, 1, "choose one"),
        ([f"--experiments=worker_accelerator={L4}"], L4, 1, "choose one"),
        (["--flexrs_goal=COST_OPTIMIZED"], L4, 1, "--flexrs_goal=COST_OPTIMIZED has none"),
        (["--flexrs_goal=COST_OPTIMIZED", FOR_ALL], None, 1, "--flexrs_goal=COST_OPTIMIZED has"),
        (["--machine_type=g2-standard-8"], None, 4, "--model_copies=8, or a machine type with 4"),
        (["--machine_type=n1-standard-4"], f"{L4};machine_type:g2-standard-8", 4, "g2-standard-8"),
        (["--machine_type=a2-highgpu-1g"], None, 8, "has 12 vCPUs"),
        (["--experiments=no_use_multiple_sdk_containers"], None, 2, "leave one of them out"),
        (["--dataflow_service_options=enable_prime"], None, 2, "enable_prime"),
        ([FOR_ALL.replace("count:1", "count:2")], None, 2, "give count:1"),
        ([], TWO_L4, 2, "give count:1"),
    ],
)
def test_what_cannot_go_together_is_refused(flags, accelerator, copies, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        settled(*flags, accelerator=accelerator, model_copies=copies)


def test_a_part_of_a_gpu_is_that_of_a_copy():
    flags = [FOR_ALL, "--machine_type=g2-standard-8"]
    parts = settled(*flags, gpus=0.125, gpu_memory_gb=3, cpus=1)
    assert parts.get_all_options() == settled(*flags, model_copies=8).get_all_options()


def test_several_gpus_have_a_process_each_without_what_one_is_shared_by():
    two = FOR_ALL.replace("nvidia-l4;count:1", "nvidia-tesla-t4;count:2")
    beam_options = settled(two, "--machine_type=n1-standard-2", gpus=2)
    assert experiments(beam_options) == ["use_multiple_sdk_containers"]
    assert beam_options.view_as(GoogleCloudOptions).dataflow_service_options == [
        two.partition("=")[2]
    ]


def test_one_gpu_is_what_a_worker_has_anyway():
    assert experiments(settled(FOR_ALL, gpus=1)) == ["no_use_multiple_sdk_containers"]
    assert experiments(settled(accelerator=L4, gpus=1, gpu_memory_gb=24)) == [
        "no_use_multiple_sdk_containers"
    ]


@pytest.mark.parametrize(
    ("flags", "accelerator", "requested", "said"),
    [
        ([], None, {"gpus": 1}, "--gpus=1 needs workers with a GPU"),
        ([], None, {"gpus": 4}, "--accelerator, as type:nvidia-l4;count:4;install-nvidia-driver"),
        ([], None, {"gpu_memory_gb": 8}, "--gpu_memory_gb=8 needs workers with a GPU"),
        ([FOR_ALL], None, {"gpus": 2}, "--gpus=2 uses 2 of a worker's GPUs, and worker_accel"),
        ([], L4, {"gpus": 2}, f"and {L4} gives it 1"),
        ([], TWO_L4, {"gpus": 1}, "gives it 2"),
        ([], TWO_L4, {"gpus": 0.5}, "gives it 2"),
        (
            ["--machine_type=g2-standard-24"], TWO_L4, {"gpus": 2},
            "has 24 vCPUs, and Dataflow starts a process, and so a model, for each: give count:1 "
            "and more workers, or a machine type with 2 vCPUs",
        ),
        (["--machine_type=g2-standard-8"], L4, {"gpus": 0.5}, "give --model_copies=8, or"),
        ([], TWO_L4, {"gpus": 2, "model_copies": 2}, "give count:1"),
        (
            ["--experiments=no_use_multiple_sdk_containers"], TWO_L4, {"gpus": 2},
            "leave one of them out",
        ),
        ([], L4, {"gpu_memory_gb": 30}, "--gpu_memory_gb=30 is more than the 24 GB of a nvidia-l4"),
        (
            [FOR_ALL], None, {"gpus": 0.5, "gpu_memory_gb": 13},
            "--gpu_memory_gb=13 for each of 2 processes is more than the 24 GB",
        ),
        ([], L4, {"cpus": 4}, "give --machine_type with 4 vCPUs or more"),
        (["--machine_type=g2-standard-8"], L4, {"cpus": 9}, "is more than the 8 vCPUs of a worker"),
        (
            ["--machine_type=n1-standard-16"], f"{L4};machine_type:g2-standard-4", {"cpus": 8},
            "than the 4 vCPUs of a worker of machine type g2-standard-4",
        ),
        (
            ["--machine_type=g2-standard-8"], L4, {"cpus": 2, "model_copies": 8},
            "--cpus=2 for each of 8 processes",
        ),
    ],
)  # fmt: skip
def test_resources_that_workers_would_not_have_are_refused(flags, accelerator, requested, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        settled(*flags, accelerator=accelerator, **requested)


def test_a_gpu_or_a_machine_that_is_not_known_is_left_to_the_worker():
    new = "type:nvidia-of-tomorrow;count:1"
    settled("--machine_type=a9-megagpu-1g", accelerator=new, gpus=1, gpu_memory_gb=500, cpus=64)


def test_only_dataflow_gives_an_accelerator():
    with pytest.raises(ValueError, match="the runner is FlinkRunner"):
        runners.apply_runner_defaults(PipelineOptions(["--runner=FlinkRunner"]), L4, Resources())


@pytest.mark.parametrize(
    ("machine_type", "count"),
    [
        ("n1-standard-4", 4), ("g2-standard-96", 96), ("n2-highmem-16", 16), ("a2-highgpu-4g", 48),
        ("a2-ultragpu-1g", 12), ("n1-custom-6-23040", 6), ("custom-2-4096-ext", 2),
        ("a3-megagpu-8g", None), ("e2-medium", None), ("", None),
    ],
)  # fmt: skip
def test_the_vcpus_of_a_machine_are_those_that_its_name_tells(machine_type, count):
    assert dataflow.vcpus(machine_type) == count


# The job, as Beam sends it.


class Launch:
    """A manifest in a bucket, and flags that bring a job to the stand-ins."""

    def __init__(self, bucket, service, run):
        self.bucket, self.service, self.run = bucket, service, run
        self.files = bucket.filesystem()
        self.files.put_file(str(SAMPLES / "manifest.jsonl"), f"{bucket.uri}/manifest.jsonl")
        stores = {**bucket.storage_options, "s3": {"key": "a-key", "secret": SECRET}}
        self.job = [
            f"--input={bucket.uri}/manifest.jsonl",
            f"--output={bucket.uri}/out",
            f"--model_name={MODEL}",
            f"--storage_options={json.dumps(stores)}",
        ]
        self.beam = [
            "--runner=DataflowRunner",
            f"--dataflow_endpoint={service.endpoint}",
            "--project=my-project",
            "--region=us-central1",
            "--job_name=my-job",
            f"--temp_location={bucket.uri}/temp",
            f"--staging_location={bucket.uri}/staging",
            f"--sdk_container_image={IMAGE}",
            "--no_auth",
        ]

    def __call__(self, *flags: str) -> tuple[int, str, str]:
        return self.run(*self.job, *self.beam, *flags)

    def staged(self) -> dict[str, str]:
        """The names of the staged files, and where they are."""
        self.files.invalidate_cache()
        found = self.files.find(f"{self.bucket.uri}/staging")
        return {path.rpartition("/")[2]: path for path in found}

    def graph(self) -> beam_runner_api_pb2.Pipeline:
        """The graph that the workers get."""
        graph = self.files.cat_file(self.staged()["pipeline.pb"])
        return beam_runner_api_pb2.Pipeline.FromString(graph)


@pytest.fixture
def launch(gs_bucket, transcribe, monkeypatch):
    monkeypatch.setenv(
        "STORAGE_EMULATOR_HOST", gs_bucket.storage_options["gs"]["endpoint_url"]
    )  # that of Beam's own client
    with dataflow_stub.running() as service:
        yield Launch(gs_bucket, service, transcribe)


def steps_with_hints(graph: beam_runner_api_pb2.Pipeline) -> dict[str, str]:
    """The steps that ask for an accelerator, and which."""
    environments = graph.components.environments
    return {
        step.unique_name: environments[step.environment_id]
        .resource_hints[ACCELERATOR_HINT]
        .decode()
        for step in graph.components.transforms.values()
        if step.environment_id
        and ACCELERATOR_HINT in environments[step.environment_id].resource_hints
    }


def displayed(graph: beam_runner_api_pb2.Pipeline) -> bytes:
    """What the monitoring pages show of the steps."""
    return b"".join(
        each.payload for step in graph.components.transforms.values() for each in step.display_data
    )


def recorded(graph: beam_runner_api_pb2.Pipeline) -> dict:
    """The options that the last step writes into the summary."""
    (finish,) = [
        step
        for step in graph.components.transforms.values()
        if step.unique_name == "WriteManifest/Finish"
    ]
    payload = beam_runner_api_pb2.ParDoPayload.FromString(finish.spec.payload)
    args = pickler.loads(payload.do_fn.payload)[1]
    (details,) = [each for each in args if isinstance(each, dict) and "options" in each]
    return details["options"]


def test_a_job_requests_what_its_flags_say(launch):
    status, _, errors = launch(
        FOR_ALL, "--machine_type=g2-standard-8", "--disk_size_gb=100", "--max_num_workers=3",
        "--no_use_public_ips", "--service_account_email=a@b.example", "--experiments=a_mode=x",
        "--no_wait_until_finish",
    )  # fmt: skip
    assert status == 0, errors
    (job,) = launch.service.jobs
    assert job["name"] == "my-job"
    assert job["type"] == 1  # JOB_TYPE_BATCH
    environment = job["environment"]
    assert environment["version"]["job_type"] == "FNAPI_BATCH"
    assert environment["serviceOptions"] == [f"worker_accelerator={L4}"]
    assert environment["serviceAccountEmail"] == "a@b.example"
    assert {"no_use_multiple_sdk_containers", "a_mode=x"} <= set(environment["experiments"])
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    (pool,) = environment["workerPools"]
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert pool["machineType"] == "g2-standard-8"
    assert pool["diskSizeGb"] == 100
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 3
    assert pool["ipConfiguration"] == 2  # WORKER_IP_PRIVATE
    assert pool["numThreadsPerWorker"] == 2
    assert steps_with_hints(launch.graph()) == {}


def test_right_fitting_gives_the_gpu_to_the_step_of_the_model_and_no_other(launch):
    status, _, errors = launch(
        f"--accelerator={L4}", "--machine_type=n1-standard-4", "--no_wait_until_finish"
    )
    assert status == 0, errors
    graph = launch.graph()
    assert steps_with_hints(graph) == {
        f"Transcribe/{step}/ParDo(RecognizeChunk)": L4
        for step in ("Transcribe", "TranscribeSegments")
    }
    assert len(graph.components.environments) == 2
    (job,) = launch.service.jobs
    assert "serviceOptions" not in job["environment"]
    (pool,) = job["environment"]["workerPools"]
    assert {each["containerImage"] for each in pool["sdkHarnessContainerImages"]} == {IMAGE}
    # The hint belongs to the environment of the same name in the graph.
    requested = {each["environmentId"] for each in pool["sdkHarnessContainerImages"]}
    assert requested == set(graph.components.environments)


def test_a_job_that_watches_its_input_is_a_streaming_one(launch):
    status, _, errors = launch(FOR_ALL, "--watch=30", "--no_wait_until_finish")
    assert status == 0, errors
    (job,) = launch.service.jobs
    assert job["type"] == 2  # JOB_TYPE_STREAMING
    assert job["environment"]["version"]["job_type"] == "FNAPI_STREAMING"


@pytest.mark.parametrize("flag", ["--output=out", "--input=/data/m.jsonl"])
def test_what_workers_could_not_reach_is_refused(launch, flag):
    status, _, errors = launch(flag)
    assert status == 2
    assert f"{flag} is of this machine's disk" in errors
    assert launch.service.requests == []


def test_messages_are_read_by_the_services_own_source(launch):
    name = "projects/my-project/subscriptions/rows"
    job = [flag for flag in launch.job if not flag.startswith("--input=")]
    flags = [*job, *launch.beam, FOR_ALL, "--no_wait_until_finish"]
    status, _, errors = launch.run(f"--input=pubsub://{name}", *flags)
    assert status == 0, errors
    assert launch.service.jobs[0]["type"] == 2  # JOB_TYPE_STREAMING
    (source,) = [
        beam_runner_api_pb2.PubSubReadPayload.FromString(step.spec.payload)
        for step in launch.graph().components.transforms.values()
        if step.spec.urn == "beam:transform:pubsub_read:v1"
    ]
    assert source.subscription == name
    status, _, errors = launch.run(f"--input=pubsub://{name}", "--watch", *flags, "--resume")
    assert status == 2
    assert "--watch looks for files" in errors


def test_nothing_of_the_launching_session_and_no_beam_is_staged(launch):
    launch("--no_wait_until_finish")
    # The last is the launcher's list of packages, which workers compare with their own.
    assert set(launch.staged()) == {"pipeline.pb", "submission_environment_dependencies.txt"}


def test_every_flag_travels_with_the_job_and_no_secret_is_shown(launch):
    flags = [
        f"--allowed_audio_prefixes={launch.bucket.uri}", "--audio_timeout=7", "--batch_size=9",
        "--batch_timeout=11", "--channel=1", "--compression=zstd", "--decoder=ctc",
        "--device=cuda", "--filepath_key=text", "--max_batch_seconds=13", "--num_shards=17",
        "--max_concurrent_reads=19", "--max_failure_fraction=0.5", "--overwrite",
        "--precision=fp32", "--pred_text_key=recognized", "--no_wait_until_finish",
    ]  # fmt: skip
    status, out, errors = launch(*flags)
    assert status == 0, errors
    requested = options.parse_args(["transcribe", *launch.job, *launch.beam, *flags])
    expected = requested.values
    expected["storage_options"] = {"gs": ["endpoint_url", "token"], "s3": ["key", "secret"]}
    graph = launch.graph()
    assert recorded(graph) == expected
    (job,) = launch.service.jobs
    sent = job["environment"]["sdkPipelineOptions"]["options"]
    assert sent["sdk_container_image"] == IMAGE
    assert sent["save_main_session"] is False
    assert sent["pipelineUrl"] == f"gs://{launch.staged()['pipeline.pb']}"
    assert SECRET not in json.dumps(job)
    assert SECRET.encode() not in displayed(graph)
    assert SECRET not in out + errors


def test_a_template_is_written_and_nothing_is_started_or_waited_for(launch):
    location = f"{launch.bucket.uri}/launches/job_object"
    status, _, errors = launch(FOR_ALL, f"--template_location={location}")
    assert status == 0, errors
    assert launch.service.requests == []
    job = json.loads(launch.files.cat_file(location))
    assert job["name"] == "my-job"
    assert job["environment"]["serviceOptions"] == [f"worker_accelerator={L4}"]
    assert job["environment"]["workerPools"][0]["workerHarnessContainerImage"] == IMAGE
    assert launch.files.exists(job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"])
    # The job that will be started from it has the folder.
    status, _, errors = launch(FOR_ALL, f"--template_location={location}")
    assert status == 2
    assert "another run writes into the folder" in errors


def test_a_job_that_is_not_waited_for_is_left_to_itself(launch):
    status, _, errors = launch("--no_wait_until_finish")
    assert status == 0, errors
    assert [request.partition(" ")[0] for request in launch.service.requests] == ["POST"]


@pytest.mark.parametrize("started", [False, True])
def test_a_job_that_failed_is_reported(launch, started):
    launch.service.state = "JOB_STATE_FAILED"
    launch.service.error = "Workflow failed. Causes: no zone has the GPU."
    if started:
        launch.files.pipe_file(f"{launch.bucket.uri}/out/_journal/run.json", b"{}")
    status, _, errors = launch(*(["--resume"] if started else []))
    assert status == 1
    assert "no zone has the GPU" in errors
    assert ("To go on: beam-asr transcribe" in errors) == started


def test_what_cannot_go_together_is_wrong_usage(launch):
    status, _, errors = launch(FOR_ALL, f"--accelerator={L4}")
    assert status == 2
    assert "choose one" in errors
    assert launch.service.requests == []


# The Flex Template.


def module(name: str):
    """A file of the template's folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, TEMPLATES / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def main():
    return module("main")


@pytest.fixture(scope="module")
def parameters() -> dict[str, dict]:
    metadata = json.loads((TEMPLATES / "metadata.json").read_text())
    return {each["name"]: each for each in metadata["parameters"]}


def test_metadata_is_what_the_flags_make_of_it():
    made = subprocess.run(
        [sys.executable, TEMPLATES / "metadata.py"], check=True, capture_output=True, text=True
    ).stdout
    assert made == (TEMPLATES / "metadata.json").read_text(), (
        "run python templates/dataflow/metadata.py > templates/dataflow/metadata.json"
    )


def test_every_flag_is_a_parameter(parameters):
    assert {flag_of(each).lstrip("-") for each in all_settings(GROUPS)} <= set(parameters)
    required = {name for name, each in parameters.items() if not each["isOptional"]}
    assert required == {"input", "output"}  # and a model, by one of two flags
    for each in parameters.values():
        assert each["label"]
        assert each["helpText"]
        assert each["groupName"]


REQUIRED = {"input": "gs://b/m", "output": "gs://b/o", "model_name": "m"}
# For each parameter a value that is not the default one, and what comes of it.
GIVEN = {
    "input": ("gs://b/a,pubsub://c", ("gs://b/a", "pubsub://c")),
    "output": ("s3://b/out", "s3://b/out"),
    "model_name": (MODEL, MODEL),
    "tarred_audio": ("gs://b/_OP_0..3_CL_.tar", ("gs://b/_OP_0..3_CL_.tar",)),
    "filepath_key": ("path", "path"),
    "pred_text_key": ("recognized", "recognized"),
    "num_shards": ("12", 12),
    "compression": ("zstd", "zstd"),
    "order": ("input", "input"),
    "absolute_paths": ("true", True),
    "resume": ("true", True),
    "overwrite": ("True", True),
    "max_failure_fraction": ("0.25", 0.25),
    "watch": ("30", 30.0),
    "output_window": ("1.5e3", 1500.0),
    "decoder": ("ctc", "ctc"),
    "precision": ("bf16", "bf16"),
    "device": ("cuda", "cuda"),
    "batch_size": ("7", 7),
    "max_batch_seconds": ("900", 900.0),
    "batch_timeout": ("60", 60.0),
    "model_copies": ("8", 8),
    "accelerator": (L4, L4),
    "models": ("en=gs://b/en.nemo,es=gs://b/es.nemo", ("en=gs://b/en.nemo", "es=gs://b/es.nemo")),
    "route_key": ("domain", "domain"),
    "unmapped": ("fail", "fail"),
    "source_lang": ("es", "es"),
    "target_lang": ("en-US", "en-US"),
    "task": ("translate", "translate"),
    "pnc": ("no", "no"),
    "gpus": ("0.5", 0.5),
    "cpus": ("2", 2),
    "gpu_memory_gb": ("7.5", 7.5),
    "reference_key": ("text", "text"),
    "normalizer": ("whisper", "whisper"),
    "quality": ("true", True),
    "metrics": ("bleu,chrf", ("bleu", "chrf")),
    "report": ("true", True),
    "quiet": ("true", True),
    "verbose": ("true", True),
    "dry_run": ("true", True),
    "limit": ("100", 100),
    "keep": ("wer <= 0.3 and duration < 30", "wer <= 0.3 and duration < 30"),
    "min_duration": ("0.5", 0.5),
    "max_duration": ("60", 60.0),
    "required_sample_rate": ("16000", 16000),
    "required_channels": ("1", 1),
    "audio_checks": ("filter", "filter"),
    "segmentation": ("fixed", "fixed"),
    "max_segment_seconds": ("25.5", 25.5),
    "attention": ("chunked", "chunked"),
    "partial": ("keep", "keep"),
    "timestamps": ("word,char", ("word", "char")),
    "confidence": ("row", "row"),
    "n_best": ("5", 5),
    "text_steps": ("casing,numbers", ("casing", "numbers")),
    "formats": ("srt,vtt", ("srt", "vtt")),
    "channel": ("each", "each"),
    "channel_key": ("side", "side"),
    "audio_timeout": ("9.5", 9.5),
    "max_concurrent_reads": ("3", 3),
    "storage_options": ('{"s3": {"anon": true}}', {"s3": {"anon": True}}),
    "allowed_audio_prefixes": ("gs://b,gs://c", ("gs://b", "gs://c")),
}
# What goes with another flag alone.
WITH = {
    "unmapped": {"models": "en=gs://b/en.nemo"},
    "normalizer": {"reference_key": "text"},
    "metrics": {"reference_key": "text"},
}
GIVEN_TO_BEAM = {
    "dataflow_service_options": (f"worker_accelerator={L4}", [f"worker_accelerator={L4}"]),
    "disk_size_gb": ("200", 200),
    "number_of_worker_harness_threads": ("4", 4),
    "sdk_container_image": (IMAGE, IMAGE),
    "default_sdk_harness_log_level": ("DEBUG", "DEBUG"),
}


def parsed(main, **given: str) -> options.TranscribeOptions:
    return options.parse_args(main.command_line([f"--{k}={v}" for k, v in given.items()]))


def accepts(parameter: dict, value: str) -> bool:
    """Whether the service takes the value, before the job is launched."""
    listed = [option["value"] for option in parameter.get("enumOptions", [])]
    fits = all(re.fullmatch(regex, value) for regex in parameter.get("regexes", []))
    return fits and (value in listed or not listed)


def test_every_parameter_arrives(main, parameters):
    for name, (value, expected) in GIVEN.items():
        assert accepts(parameters[name], value), name
        usual = parsed(main, **REQUIRED, **WITH.get(name, {}))
        found = parsed(main, **{**REQUIRED, **WITH.get(name, {}), name: value})
        assert found.values == {**usual.values, name: expected}
        assert found != usual
    usual = parsed(main, **REQUIRED)
    kept = parsed(main, **REQUIRED, resume="true", no_retry_failures="true")
    assert kept.values == {**usual.values, "resume": True, "retry_failures": False}
    added = parsed(main, **REQUIRED, append="true", overwrite="false")
    assert added.values == {**usual.values, "append": True}
    for name, (value, expected) in GIVEN_TO_BEAM.items():
        assert accepts(parameters[name], value), name
        beam_args = parsed(main, **REQUIRED, **{name: value}).beam_args
        assert PipelineOptions(beam_args).get_all_options()[name] == expected
    assert parsed(main, **REQUIRED, engine="nemo") == usual  # there is no other
    assert {*GIVEN, *GIVEN_TO_BEAM, "no_retry_failures", "append", "engine"} == set(parameters)


def test_a_parameter_that_is_left_as_the_form_has_it_changes_nothing(main, parameters):
    usual = parsed(main, **REQUIRED)
    for name, parameter in parameters.items():
        if name not in REQUIRED and name not in GIVEN_TO_BEAM:
            default = parameter.get("defaultValue", "")
            assert parsed(main, **REQUIRED, **{name: default}) == usual


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output", "/tmp/out"), ("input", "manifest.jsonl"), ("num_shards", "0"),
        ("channel", "-1"), ("channel", "left"), ("max_failure_fraction", "some"),
        ("accelerator", "nvidia-l4"), ("device", "tpu"),
    ],
)  # fmt: skip
def test_the_form_refuses_what_cannot_be(parameters, name, value):
    assert not accepts(parameters[name], value)


def test_switches_of_the_launcher_are_turned_into_flags(main, monkeypatch):
    monkeypatch.setenv("BEAM_ASR_IMAGE", IMAGE)
    # What the launcher gives beside the parameters, as far as public logs of launches show it.
    given = [
        "--job_name=j", "--machine_type=g2-standard-8", "--network=n", "--subnetwork=s",
        "--project=p", "--region=r", "--runner=DataflowRunner", "--service_account_email=e",
        "--staging_location=gs://b/s", "--temp_location=gs://b/t", "--max_num_workers=2",
        "--template_location=gs://b/j", '--labels={\n   "a" : "b"\n}\n',
        "--enable_streaming_engine=true", "--input=gs://b/i", "--output=gs://b/o",
        "--model_name=m", "--resume=false", "--overwrite=true", "--decoder=",
    ]  # fmt: skip
    args = main.command_line(given)
    assert args[0] == "transcribe"
    assert "--overwrite" in args
    assert "--enable_streaming_engine" in args
    assert not [arg for arg in args if arg.startswith(("--resume", "--decoder"))]
    assert args[-1] == f"--sdk_container_image={IMAGE}"
    parsed = options.parse_args(args)
    assert (parsed.outputs.overwrite, parsed.outputs.resume) == (True, False)
    assert parsed.model.decoder is None
    assert PipelineOptions(parsed.beam_args).view_as(GoogleCloudOptions).project == "p"
    own = main.command_line([*given, "--sdk_container_image=mine"])
    assert [arg for arg in own if "sdk_container_image" in arg] == ["--sdk_container_image=mine"]
    with pytest.raises(SystemExit, match="--resume is 'maybe', but must be true or false"):
        main.command_line(["--resume=maybe"])


def test_the_templates_program_writes_a_job_for_the_image_that_it_runs_in(launch):
    location = f"{launch.bucket.uri}/launches/job_object"
    flags = [arg for arg in launch.beam if not arg.startswith("--sdk_container_image")]
    flags.remove("--no_auth")
    ended = subprocess.run(
        [
            sys.executable, TEMPLATES / "main.py", *launch.job, *flags, FOR_ALL, "--no_auth=true",
            f"--template_location={location}", "--resume=false", "--overwrite=true",
        ],
        env={**os.environ, "BEAM_ASR_IMAGE": IMAGE},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    job = json.loads(launch.files.cat_file(location))
    assert job["environment"]["workerPools"][0]["workerHarnessContainerImage"] == IMAGE
    assert recorded(launch.graph())["overwrite"] is True


# The scripts, with a gcloud that only writes down how it was called.


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    log = tmp_path / "calls"
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(log)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("right_fitting", ["", "1"])
@pytest.mark.parametrize(
    ("gpu", "machine", "kind"),
    [("l4", "g2-standard-8", "nvidia-l4"), ("a100", "a2-highgpu-1g", "nvidia-tesla-a100")],
)
def test_run_starts_a_job_with_a_gpu(
    gcloud, main, parameters, monkeypatch, gpu, machine, kind, right_fitting
):
    monkeypatch.setenv("GPU", gpu)
    monkeypatch.setenv("RIGHT_FITTING", right_fitting)
    monkeypatch.setenv("TEMPLATE", "gs://b/template.json")
    monkeypatch.setenv("REGION", "us-central1")
    inputs = "gs://b/one.jsonl,gs://b/two.jsonl"
    subprocess.run(
        [
            TEMPLATES / "run.sh", "my-job", "--temp-location=gs://b/temp", "--",
            f"input={inputs}", "output=gs://b/out", f"model_name={MODEL}",
        ],
        check=True,
    )  # fmt: skip
    (call,) = gcloud()
    assert call[:4] == ["dataflow", "flex-template", "run", "my-job"]
    assert "--temp-location=gs://b/temp" in call
    (joined,) = [arg for arg in call if arg.startswith("--parameters=^|^")]
    given = joined.removeprefix("--parameters=^|^").split("|")
    assert {each.partition("=")[0] for each in given} <= set(parameters)
    (of_workers,) = [arg for arg in call if arg.startswith("--worker-machine-type=")]
    flags = [f"--{each}" for each in given]
    flags += [
        "--runner=DataflowRunner",
        of_workers.replace("--worker-machine-type", "--machine_type"),
    ]
    parsed = options.parse_args(main.command_line(flags))
    assert parsed.inputs.input == tuple(inputs.split(","))
    beam_options = PipelineOptions(parsed.beam_args)
    dataflow.apply_dataflow_defaults(beam_options, parsed.resources.accelerator, parsed.resources)
    services = beam_options.view_as(GoogleCloudOptions).dataflow_service_options or []
    if right_fitting:
        assert f"type:{kind};count:1;machine_type:{machine};" in parsed.resources.accelerator
        assert services == []
        assert of_workers == "--worker-machine-type=n1-standard-4"
    else:
        assert parsed.resources.accelerator is None
        assert services == [f"worker_accelerator=type:{kind};count:1;install-nvidia-driver"]
        assert of_workers == f"--worker-machine-type={machine}"


def test_build_makes_the_image_and_the_template_of_it(gcloud, monkeypatch):
    monkeypatch.setenv("IMAGE", IMAGE)
    monkeypatch.setenv("TEMPLATE", "gs://b/template.json")
    monkeypatch.setenv("MODEL", MODEL)
    subprocess.run([TEMPLATES / "build.sh"], check=True)
    image, template = gcloud()
    assert image[:3] == ["builds", "submit", "."]
    assert f"--substitutions=_IMAGE={IMAGE},_MODEL={MODEL}" in image
    (config,) = [arg.partition("=")[2] for arg in image if arg.startswith("--config=")]
    assert (REPOSITORY / config).exists()
    assert template[:4] == ["dataflow", "flex-template", "build", "gs://b/template.json"]
    assert f"--image={IMAGE}" in template
    (metadata,) = [arg.partition("=")[2] for arg in template if "metadata-file" in arg]
    assert (REPOSITORY / metadata).samefile(TEMPLATES / "metadata.json")


def test_the_command_line_of_the_docs_is_accepted():
    text = (REPOSITORY / "docs" / "dataflow.md").read_text()
    (example,) = re.findall(r"```sh\n(beam-asr .*?)```", text, re.DOTALL)
    _, *args = shlex.split(example.replace("\\\n", " "))
    requested = options.parse_args(args)
    beam_options = PipelineOptions(requested.beam_args)
    dataflow.apply_dataflow_defaults(
        beam_options, requested.resources.accelerator, requested.resources
    )
    assert not dataflow.launcher_waits(beam_options)
    assert set(beam_options.get_all_options(drop_default=True)) >= {
        arg.lstrip("-").partition("=")[0] for arg in requested.beam_args
    }
