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

# A worker of Flink's that has nothing to do for a moment, as between two steps, lives on. Longer,
# and the model of a job that has ended would hold its GPU's memory when the next one begins.
FLINK_CACHE_MILLISECONDS = 60_000


def name(options: PipelineOptions) -> str:
    """The runner's name without "Runner", in lower case, in any spelling that Beam takes."""
    runner = options.view_as(StandardOptions).runner or LOCAL
    short = runner.rpartition(".")[2].lower().removesuffix("runner")
    return {"direct": "fnapi", "testdataflow": "dataflow"}.get(short, short)


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
    portable = options.view_as(PortableOptions)
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
        if not portable.environment_cache_millis:
            portable.environment_cache_millis = FLINK_CACHE_MILLISECONDS
        if model_copies > 1:
            portable.sdk_worker_parallelism = model_copies


def _share_locally(direct: DirectOptions, model_copies: int) -> None:
    if direct.direct_num_workers not in (1, model_copies):
        raise ValueError(
            f"--model_copies={model_copies} and --direct_num_workers={direct.direct_num_workers} "
            "differ, and both say how many processes there are: leave one of them out"
        )
    direct.direct_num_workers = model_copies
    direct.direct_running_mode = "multi_processing"
