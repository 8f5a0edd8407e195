"""What each runner gets, what is refused before anything starts, and how a job ends there."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from beam_asr.cli import launch, main, runners
from beam_asr.cli.options import TranscribeOptions, parse_args
from beam_asr.cli.runners import RunnerProfile
from beam_asr.models.devices.resources import available_cpus
from beam_asr.records.registry import Registry
from beam_asr.settings import Resources
from tests.support.job_files import SAMPLE_MODEL, SAMPLES
from tests.support.windows import window_folder

L4 = "type:nvidia-l4;count:1;install-nvidia-driver"
PUBSUB = "pubsub://projects/my-project/subscriptions/rows"


CLUSTER = ["--runner=FlinkRunner", "--flink_master=m:8081"]


def settled(*flags: str, streaming: bool = False, **requested) -> PipelineOptions:
    beam_options = PipelineOptions(list(flags))
    beam_options.view_as(StandardOptions).streaming = streaming
    runners.apply_runner_defaults(beam_options, None, Resources(**requested))
    return beam_options


@pytest.fixture
def command(tmp_path):
    """The command line of a job that could begin, and its folder of inputs."""
    (tmp_path / "in").mkdir()
    return [
        "transcribe",
        f"--input={tmp_path}/in/*.jsonl",
        f"--output={tmp_path}/out",
        f"--model_name={SAMPLE_MODEL}",
    ]


def with_input(command: list[str], address: str) -> list[str]:
    """A command with another input."""
    return [f"--input={address}" if arg.startswith("--input=") else arg for arg in command]


@pytest.fixture
def requested(command, tmp_path) -> TranscribeOptions:
    (tmp_path / "in" / "m.jsonl").write_text((SAMPLES / "manifest.jsonl").read_text())
    return parse_args(command)


# Names.


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "fnapi"),
        (["--runner=DirectRunner"], "fnapi"),
        (["--runner=direct"], "fnapi"),
        (["--runner=FnApiRunner"], "fnapi"),
        (["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"], "fnapi"),
        (["--runner=PrismRunner"], "prism"),
        (["--runner=flink"], "flink"),
        (["--runner=FlinkRunner"], "flink"),
        (["--runner=PortableRunner"], "portable"),
        (["--runner=TestDataflowRunner"], "dataflow"),
    ],
)
def test_a_runner_is_known_by_any_name_that_beam_takes(flags, name):
    beam_options = PipelineOptions(flags)
    assert runners.name(beam_options) == name
    assert runners.profile_of(beam_options).is_local == (name == "fnapi")


def test_a_package_adds_a_runner_and_any_other_has_the_default_profile(tmp_path, monkeypatch):
    metadata = tmp_path / "conveyor-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: conveyor\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[beam_asr.runners]\nconveyor = conveyor:PROFILE\n")
    (tmp_path / "conveyor.py").write_text(
        "from beam_asr.cli.runners import RunnerProfile\n"
        "PROFILE = RunnerProfile(reads_pubsub=True, shares_disk=False)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(runners, "RUNNERS", Registry(runners.RUNNERS.group, {}))
    added = runners.profile_of(PipelineOptions(["--runner=conveyor.ConveyorRunner"]))
    assert added.reads_pubsub
    assert not added.shares_disk
    assert runners.profile_of(PipelineOptions(["--runner=SamzaRunner"])) == RunnerProfile()


# How a job ends.


@pytest.mark.parametrize(
    ("flags", "ends"),
    [
        ([], True),
        (["--runner=DirectRunner"], True),
        (["--runner=PrismRunner"], True),
        (["--runner=PrismRunner", "--environment_type=DOCKER"], False),
        (["--runner=FlinkRunner"], True),
        (["--runner=FlinkRunner", "--flink_master=[local]"], True),
        (["--runner=FlinkRunner", "--flink_master=[auto]"], True),
        (["--runner=FlinkRunner", "--flink_master=[local]", "--environment_type=EXTERNAL"], False),
        (["--runner=FlinkRunner", "--flink_master=jobs:8081"], False),
        (["--runner=FlinkRunner", "--flink_master=jobs:8081", "--environment_type=LOOPBACK"], True),
        (["--runner=PortableRunner"], False),
        (["--runner=PortableRunner", "--environment_type=LOOPBACK"], True),
        (["--runner=DataflowRunner"], False),
    ],
)
def test_it_is_known_whether_the_workers_end_with_the_launcher(flags, ends):
    beam_options = PipelineOptions(flags)
    assert runners.profile_of(beam_options).ends_with_launcher(beam_options) is ends


def test_a_launcher_stays_unless_a_flag_has_it_leave_or_only_writes_a_template():
    def waits(*flags: str) -> bool:
        beam_options = PipelineOptions(list(flags))
        return runners.profile_of(beam_options).waits(beam_options)

    assert waits()
    assert waits("--runner=FlinkRunner")
    assert not waits("--no_wait_until_finish")
    assert not waits("--runner=DataflowRunner", "--template_location=gs://b/t")
    assert not waits("--runner=DataflowRunner", "--no_wait_until_finish")


# What is settled.


@pytest.mark.parametrize("flags", [[], ["--runner=DirectRunner"], ["--runner=direct"]])
def test_on_one_machine_nothing_tries_to_download_a_runner(flags):
    assert settled(*flags).view_as(StandardOptions).runner == "FnApiRunner"


@pytest.mark.parametrize("workers", [[], ["--direct_num_workers=4"]])
@pytest.mark.parametrize(
    "requested", [{"model_copies": 4}, {"gpus": 4}, {"gpus": 2, "model_copies": 2}, {"gpus": 0.25}]
)
def test_models_on_one_machine_are_in_processes_of_their_own(workers, requested):
    direct = settled(*workers, **requested).view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (4, "multi_processing")


@pytest.mark.parametrize("requested", [{}, {"gpus": 1}])
def test_a_single_model_leaves_the_workers_as_requested(requested):
    direct = settled("--direct_num_workers=2", **requested).view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (2, "in_memory")


def test_processes_that_were_requested_without_gpus_stay():
    flags = ["--direct_num_workers=3", "--direct_running_mode=multi_processing"]
    direct = settled(*flags, gpu_memory_gb=8).view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (3, "multi_processing")
    with pytest.raises(ValueError, match=r"--gpus=1 \(1 processes\) and --direct_num_workers=3 "):
        settled(*flags, gpus=1)


def test_flink_has_a_process_for_each_model_and_keeps_none_that_could_have_died():
    portable = settled(*CLUSTER).view_as(PortableOptions)
    assert int(portable.sdk_worker_parallelism) == 1
    assert int(portable.environment_cache_millis) == 0
    for requested in ({"model_copies": 4}, {"gpus": 4}, {"gpus": 2, "model_copies": 2}):
        portable = settled(*CLUSTER, "--parallelism=8", **requested).view_as(PortableOptions)
        assert int(portable.sdk_worker_parallelism) == 4


def test_workers_within_the_launcher_live_on_from_step_to_step():
    portable = settled("--runner=FlinkRunner", gpus=1).view_as(PortableOptions)
    assert int(portable.environment_cache_millis) > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--runner=PrismRunner"], "needs a runner that starts several processes"),
        (["--runner=PortableRunner"], "needs a runner that starts several processes"),
        (["--runner=FlinkRunner", "--parallelism=3"], "LOOPBACK"),
        ([*CLUSTER, "--environment_type=LOOPBACK", "--parallelism=3"], "LOOPBACK"),
        ([*CLUSTER, "--sdk_worker_parallelism=2"], "--sdk_worker_parallelism=2"),
        ([*CLUSTER, "--sdk_worker_parallelism=0"], "--sdk_worker_parallelism=0"),
        (CLUSTER, "--parallelism is not given, so give 3 times the number of task managers"),
        ([*CLUSTER, "--parallelism=2"], "no work: --parallelism=2, so give 3 times"),
        (["--direct_running_mode=multi_threading"], "--direct_running_mode=multi_threading"),
        (["--direct_num_workers=2"], "--direct_num_workers=2"),
    ],
)
@pytest.mark.parametrize("requested", [{"model_copies": 3}, {"gpus": 3}])
def test_processes_that_the_runner_would_not_start_or_not_use_are_refused(flags, said, requested):
    with pytest.raises(ValueError, match=f"={3}.*{said}"):
        settled(*flags, **requested)


@pytest.mark.parametrize("runner", ["PrismRunner", "PortableRunner", "FlinkRunner"])
def test_what_a_worker_sees_to_itself_is_for_any_runner(runner):
    settled(f"--runner={runner}", gpus=1, cpus=1, gpu_memory_gb=8)


def test_more_cpus_than_this_machine_has_are_refused():
    there = available_cpus()
    settled(cpus=there)
    with pytest.raises(ValueError, match=f"--cpus={there + 1} for a worker process is more than"):
        settled(cpus=there + 1)
    with pytest.raises(ValueError, match=f"--cpus={there} for each of 2 worker processes"):
        settled(cpus=there, gpus=2)
    flags = ["--direct_num_workers=3", "--direct_running_mode=multi_processing"]
    with pytest.raises(ValueError, match=f"--cpus={there} for each of 3 worker processes"):
        settled(*flags, cpus=there)
    settled(*CLUSTER, cpus=there + 1)  # of other machines


def test_options_of_flink_that_a_user_chose_stay():
    flags = ["--runner=flink", "--environment_cache_millis=5", "--sdk_worker_parallelism=2"]
    portable = settled(*flags).view_as(PortableOptions)
    assert int(portable.environment_cache_millis) == 5
    assert int(portable.sdk_worker_parallelism) == 2


@pytest.mark.parametrize("runner", ["PrismRunner", "FlinkRunner", "PortableRunner"])
def test_other_runners_stream(runner):
    beam_options = settled(f"--runner={runner}", streaming=True)
    assert beam_options.view_as(StandardOptions).runner == runner


# What the job gets, and what it is refused.


def test_a_check_gives_beam_what_the_job_runs_with(requested, command):
    beam_options = launch.check(requested)
    standard = beam_options.view_as(StandardOptions)
    assert (standard.runner, bool(standard.streaming)) == ("FnApiRunner", False)
    beam_options = launch.check(parse_args([*command, "--runner=FlinkRunner", "--watch"]))
    assert beam_options.view_as(StandardOptions).streaming


@pytest.mark.parametrize("flags", [[], ["--runner=DirectRunner"], ["--runner=FnApiRunner"]])
def test_watching_needs_a_runner_that_streams_and_the_refusal_names_some(
    command, flags, capsys, tmp_path
):
    assert main.main([*command, "--watch=5", *flags]) == 2
    said = capsys.readouterr().err
    for named in ("--watch", "--runner=PrismRunner", "Flink", "Dataflow"):
        assert named in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [[], ["--runner=PrismRunner"], ["--runner=FlinkRunner"]])
def test_only_dataflow_reads_messages(command, flags, capsys):
    assert main.main([*with_input(command, PUBSUB), *flags]) == 2
    said = capsys.readouterr().err
    assert PUBSUB in said
    assert "--runner=DataflowRunner" in said
    in_bucket = [*with_input(command, PUBSUB), "--output=memory://bucket/out"]
    on_dataflow = launch.check(parse_args([*in_bucket, "--runner=DataflowRunner"]))
    assert on_dataflow.view_as(StandardOptions).streaming


def test_messages_are_not_watched_for(command, capsys):
    args = [*with_input(command, PUBSUB), "--runner=DataflowRunner", "--watch"]
    assert main.main(args) == 2
    assert "--watch" in capsys.readouterr().err


def test_inputs_that_are_not_there_yet_are_watched_for(command):
    assert launch.check(parse_args([*command, "--watch", "--runner=PrismRunner"]))


def test_a_stream_goes_on_in_a_folder_with_resume_alone(command, capsys, tmp_path):
    window_folder(tmp_path / "out", "20260101T000000Z-1", ["m.jsonl"])
    args = [*command, "--watch", "--runner=PrismRunner"]
    assert main.main(args) == 2
    said = capsys.readouterr().err
    assert "--resume" in said
    assert not any(refused in said for refused in ("--overwrite", "--append"))
    assert launch.check(parse_args([*args, "--resume"]))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tarred_audio=t_{0..3}.tar"], "--tarred_audio is not for an input without an end"),
        (["--overwrite"], "--overwrite is not for an input without an end"),
        (["--resume", "--no_retry_failures"], "--no_retry_failures is not for an input without"),
    ],
)
@pytest.mark.parametrize("messages", [False, True])
def test_what_only_an_input_with_an_end_has_is_refused(command, messages, flags, said, capsys):
    if messages:
        args = [*with_input(command, PUBSUB), "--runner=DataflowRunner"]
    else:
        args = [*command, "--watch=5", "--runner=PrismRunner"]
    assert main.main([*args, *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([f"--accelerator={L4}"], "the runner is this machine's"),
        ([f"--accelerator={L4}", "--runner=FlinkRunner"], "the runner is FlinkRunner"),
        (
            ["--model_copies=2", "--direct_num_workers=3"],
            "--model_copies=2 and --direct_num_workers=3 differ",
        ),
        (["--modelcopies=2"], "unknown flag --modelcopies"),
        (["--model_copy=2"], "did you mean --model_copies?"),
        (["--watched"], "did you mean --watch?"),
        (["--paralelism=2"], "did you mean --parallelism?"),
    ],
)
@pytest.mark.usefixtures("requested")
def test_what_cannot_be_is_refused_with_status_2_and_named(command, flags, said, capsys, tmp_path):
    assert main.main([*command, *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_flag_that_only_a_job_server_knows_is_passed_to_one_and_else_refused(command, capsys):
    flag = "--max_bundle_time_mills=1000"
    launch.check(parse_args([*command, "--watch", "--runner=FlinkRunner", flag]))
    assert main.main([*command, "--watch", "--runner=PrismRunner", flag]) == 2
    assert "unknown flag --max_bundle_time_mills" in capsys.readouterr().err
    assert main.main([*command, "--watch", "--runner=FlinkRunner", "--max_paralelism=2"]) == 2
    assert "did you mean --max_parallelism?" in capsys.readouterr().err


@pytest.mark.usefixtures("requested")
def test_a_checkpoint_of_flink_waits_for_the_outputs_of_a_bundle(command):
    """Its watermark would pass them otherwise, and they would come too late for their window."""
    flag = "--finish_bundle_before_checkpointing"

    def known_to_job_server(args: list[str]) -> dict:
        options = launch.check(parse_args([*command, "--runner=FlinkRunner", *args]))
        return options.get_all_options(
            add_extra_args_fn=lambda parser: parser.add_argument(flag, action="store_true")
        )

    assert known_to_job_server(["--watch"])[flag.removeprefix("--")]
    assert known_to_job_server(["--watch", flag])[flag.removeprefix("--")]
    assert not known_to_job_server([])[flag.removeprefix("--")]


@pytest.mark.parametrize("address", ["pubsub://my-project/rows", "pubsub://projects/p/topics/a/b"])
def test_an_address_of_pubsub_that_is_none_is_refused(command, address, capsys):
    in_bucket = [*with_input(command, address), "--output=memory://bucket/out"]
    assert main.main([*in_bucket, "--runner=DataflowRunner"]) == 2
    said = capsys.readouterr().err
    assert address in said
    assert "pubsub://projects/PROJECT/subscriptions/NAME" in said
