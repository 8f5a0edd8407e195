"""Configures Flink: its worker processes, and how long they live."""

from __future__ import annotations

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from beam_asr.cli.runners import RunnerProfile, check_same_processes
from beam_asr.errors import SetupError
from beam_asr.settings import Resources

# Flink ends workers with each step, and while it does so it may miss why a step has failed. Workers
# that are threads of the launcher hold nothing that another job needs, so they stay alive.
LOOPBACK_CACHE_MILLISECONDS = 60_000
# A checkpoint ends the bundle at work and, without this, lets the watermark pass the bundle's
# outputs, which then come too late for their window: its rows are lost. Python's options lack it.
WHOLE_BUNDLES = "--finish_bundle_before_checkpointing"


def ends_with_launcher(options: PipelineOptions) -> bool:
    """Returns whether the workers are threads of the launching process."""
    environment = options.view_as(PortableOptions).environment_type
    if environment is None:
        master = options.view_as(FlinkRunnerOptions).flink_master
        return master in ("[local]", "[auto]")  # then Beam's default is LOOPBACK
    return bool(environment == "LOOPBACK")


def apply_flink_defaults(
    options: PipelineOptions,
    accelerator: str | None,  # noqa: ARG001
    resources: Resources,
) -> None:
    """Completes Beam's options for Flink.

    Raises:
        SetupError: the options do not go together.
    """
    portable = options.view_as(PortableOptions)
    if options.view_as(StandardOptions).streaming and WHOLE_BUNDLES not in options._flags:
        options._flags.append(WHOLE_BUNDLES)
    if resources.requested_processes:
        check_same_processes(
            resources, "--sdk_worker_parallelism", int(portable.sdk_worker_parallelism)
        )
        portable.sdk_worker_parallelism = resources.processes
    if resources.processes > 1:
        _check_processes(options, resources)
    if ends_with_launcher(options) and not portable.environment_cache_millis:
        portable.environment_cache_millis = LOOPBACK_CACHE_MILLISECONDS


def _check_processes(options: PipelineOptions, resources: Resources) -> None:
    """Refuses processes that Flink would not start, or would leave without work.

    Beam's DefaultJobBundleFactory gives the processes of a task manager to the parts of its steps
    in turn, so a step needs as many parts there as there are processes.
    """
    requested, processes = resources.requested_processes, resources.processes
    if ends_with_launcher(options):
        raise SetupError(
            f"{requested} needs processes, and the workers here (LOOPBACK) are threads of this "
            "one: name a cluster by --flink_master, or leave Flink out, since "
            "--runner=DirectRunner starts them on this machine"
        )
    parallelism = options.view_as(FlinkRunnerOptions).parallelism
    if parallelism < processes:
        parallelism_flag = (
            f"--parallelism={parallelism}" if parallelism > 0 else "--parallelism is not given"
        )
        raise SetupError(
            f"{requested} starts {processes} processes for each task manager, and some of them "
            f"would have no work: {parallelism_flag}, so give {processes} times the number of task "
            f"managers, each of which needs {processes} slots (taskmanager.numberOfTaskSlots)"
        )


PROFILE = RunnerProfile(
    apply_defaults=apply_flink_defaults,
    ends_with_launcher=ends_with_launcher,
    has_own_flags=True,
)
