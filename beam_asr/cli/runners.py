"""Registers the runners, with how each is configured and how a job ends there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions

from beam_asr.cli.messages import as_flags
from beam_asr.errors import SetupError
from beam_asr.records.registry import Registry
from beam_asr.settings import Resources

# Other names that Beam takes. The DirectRunner is a switch that ends with the FnApiRunner.
SPELLINGS = {"": "fnapi", "direct": "fnapi", "testdataflow": "dataflow"}


def refuse_processes(
    options: PipelineOptions,  # noqa: ARG001
    accelerator: str | None,  # noqa: ARG001
    resources: Resources,
) -> None:
    """Refuses more than one process, for a runner that is not known to start them.

    Raises:
        SetupError: more are requested.
    """
    if resources.processes > 1:
        raise SetupError(
            f"{as_flags(resources.requested_processes)} needs a runner that starts several "
            "processes: the DirectRunner, Flink or Dataflow"
        )


def is_loopback(options: PipelineOptions) -> bool:
    """Returns whether the workers are threads of the launching process, as a flag requests."""
    return options.view_as(PortableOptions).environment_type == "LOOPBACK"


def may_wait(options: PipelineOptions) -> bool:
    """Returns whether the launching process stays until the job's end, as no flag forbids."""
    return not options.view_as(StandardOptions).no_wait_until_finish


def no_address(result: Any, options: PipelineOptions) -> None:
    """Returns None: no page shows a job."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunnerProfile:
    """Describes how a runner is configured and what it can do; the defaults suit an unknown one.

    Attributes:
        apply_defaults: completes Beam's options, in place, given the GPU of the model's step alone
            and what a worker may use of its machine; raises SetupError if they do not go together.
        ends_with_launcher: whether the workers end with the launching process.
        waits: whether the launching process stays until the job has ended.
        address: where a job that was started is shown, given its result; None if nowhere.
        is_local: whether the job runs in this process or its children, and sees its files.
        has_own_flags: whether its job server takes flags that only it knows, as Flink's
            ``--max_bundle_size``.
        shares_disk: whether its workers may have this machine's disk.
        reads_pubsub: whether it has a source for Pub/Sub.
        takes_accelerator: whether ``--accelerator`` gives the model's step a GPU.
    """

    apply_defaults: Callable[[PipelineOptions, str | None, Resources], None] = refuse_processes
    ends_with_launcher: Callable[[PipelineOptions], bool] = is_loopback
    waits: Callable[[PipelineOptions], bool] = may_wait
    address: Callable[[Any, PipelineOptions], str | None] = no_address
    is_local: bool = False
    has_own_flags: bool = False
    shares_disk: bool = True
    reads_pubsub: bool = False
    takes_accelerator: bool = False


RUNNERS: Registry[RunnerProfile] = Registry(
    "beam_asr.runners",
    {
        "fnapi": "beam_asr.cli.direct:PROFILE",
        "prism": "beam_asr.cli.portable:PRISM",
        "flink": "beam_asr.cli.flink:PROFILE",
        "spark": "beam_asr.cli.portable:JOB_SERVER",
        "portable": "beam_asr.cli.portable:JOB_SERVER",
        "dataflow": "beam_asr.cli.dataflow:PROFILE",
    },
)
UNKNOWN = RunnerProfile()


def name(options: PipelineOptions) -> str:
    """Returns the runner's name, in any spelling that Beam takes, as ``flink``."""
    runner = options.view_as(StandardOptions).runner or ""
    spelling = runner.rpartition(".")[2].lower().removesuffix("runner")
    return SPELLINGS.get(spelling, spelling)


def profile_of(options: PipelineOptions) -> RunnerProfile:
    """Returns the profile of the runner that these options name.

    Raises:
        SetupError: another package adds the runner, and cannot be imported.
    """
    return RUNNERS.get(name(options), UNKNOWN)


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
    profile = profile_of(options)
    if accelerator is not None and not profile.takes_accelerator:
        runner = options.view_as(StandardOptions).runner or "this machine's"
        raise SetupError(
            f"--accelerator={accelerator} asks Dataflow for a GPU, but the runner is {runner}: "
            "leave it out, the job takes the GPU that the machine has"
        )
    profile.apply_defaults(options, accelerator, resources)


def check_same_processes(resources: Resources, flag: str, value: int) -> None:
    """Refuses two flags that give different numbers of processes.

    Raises:
        SetupError: it names both.
    """
    if value not in (1, resources.processes):
        processes = f" ({resources.processes} processes)" if resources.gpus is not None else ""
        raise SetupError(
            f"{as_flags(resources.requested_processes)}{processes} and {flag}={value} differ, and "
            "both say how many processes there are: leave one of them out"
        )
