"""What each runner needs to be told, and how the job ends there."""

from __future__ import annotations

from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from beam_asr.cli import dataflow
from beam_asr.cli.messages import as_flags
from beam_asr.errors import SetupError
from beam_asr.models.devices.resources import available_cpus
from beam_asr.settings import Resources

# The DirectRunner is a switch that first tries to download a runner of Beam's; on one machine this
# is the one it ends with, and it needs no network.
LOCAL = "FnApiRunner"

# Flink ends workers with each step, and while it does so it may miss why a step has failed. Those
# that are threads of the launcher hold nothing that another job could want, so they live on.
LOOPBACK_CACHE_MILLISECONDS = 60_000


def name(options: PipelineOptions) -> str:
    """The runner's name without "Runner", in lower case, in any spelling that Beam takes."""
    given = dataflow.runner_name(options)
    return {"": "fnapi", "direct": "fnapi", "testdataflow": "dataflow"}.get(given, given)


def has_own_flags(options: PipelineOptions) -> bool:
    """Whether a job server takes flags that only it knows, as Flink's ``--max_bundle_size``."""
    return name(options) in ("flink", "portable", "spark")


def is_local(options: PipelineOptions) -> bool:
    """Whether the job runs in this process or its children, and sees this machine's files."""
    return name(options) == "fnapi"


def ends_with_launcher(options: PipelineOptions) -> bool:
    """Whether the workers end with this process, whatever the runner is."""
    if is_local(options):
        return True
    environment = options.view_as(PortableOptions).environment_type
    if environment is None and name(options) == "flink":
        master = options.view_as(FlinkRunnerOptions).flink_master
        return master in ("[local]", "[auto]")  # then Beam's default is LOOPBACK
    return environment == "LOOPBACK" or (environment is None and name(options) == "prism")


def waits(options: PipelineOptions) -> bool:
    """Whether this process stays until the job has ended."""
    return dataflow.launcher_waits(options)


def apply_runner_defaults(
    options: PipelineOptions, accelerator: str | None, resources: Resources
) -> None:
    """Completes Beam's options for the runner.

    Args:
        options: changed in place.
        accelerator: the GPU of the model's step alone, for Dataflow.
        resources: what a worker may use of its machine.

    Raises:
        SetupError: the options do not go together.
    """
    dataflow.apply_dataflow_defaults(options, accelerator, resources)
    streaming = options.view_as(StandardOptions).streaming
    if is_local(options):
        if streaming:
            raise SetupError(
                "an input without an end (--watch, Pub/Sub) needs a runner that streams, as the "
                "DirectRunner does not: --runner=PrismRunner on one machine, Flink, or Dataflow"
            )
        options.view_as(StandardOptions).runner = LOCAL
        _apply_local_defaults(options.view_as(DirectOptions), resources)
    elif name(options) == "flink":
        _apply_flink_defaults(options, resources)
    elif name(options) != "dataflow" and resources.processes > 1:
        raise SetupError(
            f"{as_flags(resources.asked_processes)} needs a runner that starts so many processes: "
            "the DirectRunner, Flink or Dataflow"
        )


def _apply_local_defaults(direct: DirectOptions, resources: Resources) -> None:
    if resources.processes > 1:
        if direct.direct_running_mode not in ("in_memory", "multi_processing"):
            raise SetupError(
                f"{as_flags(resources.asked_processes)} needs processes, and --direct_running_mode="
                f"{direct.direct_running_mode} has none: leave one of them out"
            )
        direct.direct_running_mode = "multi_processing"
    in_processes = direct.direct_running_mode == "multi_processing"
    if in_processes and resources.asked_processes:
        _check_same(resources, "--direct_num_workers", direct.direct_num_workers)
        direct.direct_num_workers = resources.processes
    processes = (direct.direct_num_workers or available_cpus()) if in_processes else 1
    if resources.cpus is not None and resources.cpus * processes > available_cpus():
        raise SetupError(
            f"--cpus={resources.cpus} for {_counted(processes)} is more than the "
            f"{available_cpus()} of this machine: give fewer"
        )


def _apply_flink_defaults(options: PipelineOptions, resources: Resources) -> None:
    portable = options.view_as(PortableOptions)
    if resources.asked_processes:
        _check_same(resources, "--sdk_worker_parallelism", int(portable.sdk_worker_parallelism))
        portable.sdk_worker_parallelism = resources.processes
    if resources.processes > 1:
        _check_flink_uses(options, resources)
    if ends_with_launcher(options) and not portable.environment_cache_millis:
        portable.environment_cache_millis = LOOPBACK_CACHE_MILLISECONDS


def _check_flink_uses(options: PipelineOptions, resources: Resources) -> None:
    """Refuses processes that Flink would not start, or give no work.

    Beam's DefaultJobBundleFactory gives the processes of a task manager to the parts of its steps
    in turn, so a step needs as many parts there as there are processes.
    """
    asked, processes = as_flags(resources.asked_processes), resources.processes
    if ends_with_launcher(options):
        raise SetupError(
            f"{asked} needs processes, and the workers here (LOOPBACK) are threads of this one: "
            "name a cluster by --flink_master, or leave Flink out, since --runner=DirectRunner "
            "starts them on this machine"
        )
    parallelism = options.view_as(FlinkRunnerOptions).parallelism
    if parallelism < processes:
        given = f"--parallelism={parallelism}" if parallelism > 0 else "--parallelism is not given"
        raise SetupError(
            f"{asked} starts {processes} processes for each task manager, and some of them would "
            f"have no work: {given}, so give {processes} times the number of task managers, each "
            f"of which needs {processes} slots (taskmanager.numberOfTaskSlots)"
        )


def _check_same(resources: Resources, flag: str, given: int) -> None:
    if given not in (1, resources.processes):
        processes = f" ({resources.processes} processes)" if resources.gpus is not None else ""
        raise SetupError(
            f"{as_flags(resources.asked_processes)}{processes} and {flag}={given} differ, and both "
            "say how many processes there are: leave one of them out"
        )


def _counted(processes: int) -> str:
    return f"each of {processes} worker processes" if processes > 1 else "a worker process"
