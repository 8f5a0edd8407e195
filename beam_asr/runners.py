"""What each runner needs to be told, and how the job ends there."""

from __future__ import annotations

from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from beam_asr import dataflow

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


def settle(options: PipelineOptions, accelerator: str | None, model_copies: int) -> None:
    """Completes Beam's options for the runner.

    Args:
        options: changed in place.
        accelerator: the GPU of the model's step alone, for Dataflow.
        model_copies: worker processes that share a GPU.

    Raises:
        ValueError: the options do not go together.
    """
    dataflow.settle(options, accelerator, model_copies)
    streaming = options.view_as(StandardOptions).streaming
    if is_local(options):
        if streaming:
            raise ValueError(
                "an input without an end (--watch, Pub/Sub) needs a runner that streams, as the "
                "DirectRunner does not: --runner=PrismRunner on one machine, Flink, or Dataflow"
            )
        options.view_as(StandardOptions).runner = LOCAL
        if model_copies > 1:
            _share_locally(options.view_as(DirectOptions), model_copies)
    elif name(options) == "flink":
        _settle_flink(options, model_copies)
    elif name(options) != "dataflow" and model_copies > 1:
        raise ValueError(
            f"--model_copies={model_copies} needs a runner that starts so many processes: the "
            "DirectRunner, Flink or Dataflow"
        )


def _settle_flink(options: PipelineOptions, model_copies: int) -> None:
    portable = options.view_as(PortableOptions)
    if model_copies > 1:
        _check_same(model_copies, "--sdk_worker_parallelism", int(portable.sdk_worker_parallelism))
        portable.sdk_worker_parallelism = model_copies
    if ends_with_launcher(options) and not portable.environment_cache_millis:
        portable.environment_cache_millis = LOOPBACK_CACHE_MILLISECONDS


def _share_locally(direct: DirectOptions, model_copies: int) -> None:
    _check_same(model_copies, "--direct_num_workers", direct.direct_num_workers)
    if direct.direct_running_mode not in ("in_memory", "multi_processing"):
        raise ValueError(
            f"--model_copies={model_copies} needs processes, and "
            f"--direct_running_mode={direct.direct_running_mode} has none: leave one of them out"
        )
    direct.direct_num_workers = model_copies
    direct.direct_running_mode = "multi_processing"


def _check_same(model_copies: int, flag: str, given: int) -> None:
    if given not in (1, model_copies):
        raise ValueError(
            f"--model_copies={model_copies} and {flag}={given} differ, and both say how many "
            "processes there are: leave one of them out"
        )
