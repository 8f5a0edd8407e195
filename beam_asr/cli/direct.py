"""Configures the DirectRunner: a job in this process, or in processes of this machine."""

from __future__ import annotations

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from beam_asr.cli.messages import as_flags
from beam_asr.cli.runners import RunnerProfile, check_same_processes
from beam_asr.errors import SetupError
from beam_asr.models.devices.resources import available_cpus
from beam_asr.settings import Resources

# The DirectRunner is a switch that first tries to download another runner of Beam's; on one machine
# it ends with this one, which needs no network.
LOCAL = "FnApiRunner"


def apply_local_defaults(
    options: PipelineOptions,
    accelerator: str | None,  # noqa: ARG001
    resources: Resources,
) -> None:
    """Completes Beam's options for a job on this machine.

    Raises:
        SetupError: the options do not go together.
    """
    if options.view_as(StandardOptions).streaming:
        raise SetupError(
            "an input without an end (--watch, Pub/Sub) needs a runner that streams, as the "
            "DirectRunner does not: --runner=PrismRunner on one machine, Flink, or Dataflow"
        )
    options.view_as(StandardOptions).runner = LOCAL
    _apply_processes(options.view_as(DirectOptions), resources)


def _apply_processes(direct: DirectOptions, resources: Resources) -> None:
    if resources.processes > 1:
        if direct.direct_running_mode not in ("in_memory", "multi_processing"):
            raise SetupError(
                f"{as_flags(resources.asked_processes)} needs processes, and --direct_running_mode="
                f"{direct.direct_running_mode} has none: leave one of them out"
            )
        direct.direct_running_mode = "multi_processing"
    in_processes = direct.direct_running_mode == "multi_processing"
    if in_processes and resources.asked_processes:
        check_same_processes(resources, "--direct_num_workers", direct.direct_num_workers)
        direct.direct_num_workers = resources.processes
    processes = (direct.direct_num_workers or available_cpus()) if in_processes else 1
    if resources.cpus is not None and resources.cpus * processes > available_cpus():
        raise SetupError(
            f"--cpus={resources.cpus} for {_counted(processes)} is more than the "
            f"{available_cpus()} of this machine: give fewer"
        )


def _counted(processes: int) -> str:
    return f"each of {processes} worker processes" if processes > 1 else "a worker process"


PROFILE = RunnerProfile(
    apply_defaults=apply_local_defaults,
    ends_with_launcher=lambda options: True,  # noqa: ARG005
    is_local=True,
)
