"""What Dataflow needs to be told for a model on a GPU, and what cannot go together there.

A launch calls ``settle`` before anything is started, the model's step takes its resource hint from
``hint``, and ``launcher_waits`` says whether the launching process stays.

Beam's options are all that is imported, nothing of Google's. The facts are those of Dataflow's
documentation ("Use GPUs", "Right fitting", "Use NVIDIA MPS", "FlexRS") and of Compute Engine's
machine types.
"""

from __future__ import annotations

import re
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

ONE_PROCESS = "no_use_multiple_sdk_containers"
MANY_PROCESSES = "use_multiple_sdk_containers"
WORKER_ACCELERATOR = "worker_accelerator="
SHARE_GPU = "use_nvidia_mps"

# Of the bundles that a process works on at a time. The end of one waits for the model's last
# results, during which another one keeps the GPU busy. Each may hold an hour of waveforms, some
# 230 MB, so there are not more.
HARNESS_THREADS = 2


def runner_name(beam_options: PipelineOptions) -> str:
    """The runner's name as it is given, in lower case and without "Runner"; empty if none is."""
    runner = beam_options.view_as(StandardOptions).runner or ""
    return runner.rpartition(".")[2].lower().removesuffix("runner")


def is_dataflow(beam_options: PipelineOptions) -> bool:
    """Whether the job goes to Dataflow, in any spelling of the runner's name that Beam takes."""
    return runner_name(beam_options) in ("dataflow", "testdataflow")


def is_template_launch(beam_options: PipelineOptions) -> bool:
    """Whether this writes a template instead of starting a job.

    The launcher of a Flex Template runs its program so, and starts the job itself from what was
    written, when the program has ended.
    """
    return bool(beam_options.view_as(GoogleCloudOptions).template_location)


def launcher_waits(beam_options: PipelineOptions) -> bool:
    """Whether the launching process stays until the job has ended."""
    leaves = beam_options.view_as(StandardOptions).no_wait_until_finish
    return not leaves and not is_template_launch(beam_options)


def address(result: Any, beam_options: PipelineOptions) -> str | None:
    """Where a job that was begun is shown; None if it is none of Dataflow's."""
    if not is_dataflow(beam_options) or is_template_launch(beam_options):
        return None
    cloud = beam_options.view_as(GoogleCloudOptions)
    return (
        f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{result.job_id()}"
        f"?project={cloud.project}"
    )


def settle(beam_options: PipelineOptions, accelerator: str | None, model_copies: int) -> None:
    """Completes Beam's options for Dataflow; those of other runners stay as they are.

    Args:
        beam_options: changed in place.
        accelerator: the GPU of the model's step alone, as ``type:nvidia-l4;count:1;...``.
        model_copies: processes that share a GPU, each with a model of its own.

    Raises:
        ValueError: the options do not go together; it says which, and what to do.
    """
    if not is_dataflow(beam_options):
        if accelerator is not None:
            runner = beam_options.view_as(StandardOptions).runner or "this machine's"
            raise ValueError(
                f"--accelerator={accelerator} asks Dataflow for a GPU, but the runner is {runner}: "
                "leave it out, the job takes the GPU that the machine has"
            )
        return
    _check_accelerators(beam_options, accelerator)
    if model_copies > 1:
        _check_copies(beam_options, accelerator, model_copies)
        _share_worker_accelerator(beam_options)
    debug = beam_options.view_as(DebugOptions)
    if model_copies > 1:
        debug.add_experiment(MANY_PROCESSES)
    elif MANY_PROCESSES not in (debug.experiments or []):
        debug.add_experiment(ONE_PROCESS)
    if debug.number_of_worker_harness_threads is None:
        debug.number_of_worker_harness_threads = HARNESS_THREADS
    setup = beam_options.view_as(SetupOptions)
    if _image(beam_options) and setup.sdk_location == "default":
        # Else Beam looks for an SDK to stage, over the one that the image has.
        setup.sdk_location = "container"


def hint(accelerator: str | None, model_copies: int) -> str | None:
    """The resource hint ``accelerator`` of the model's step, or None for no hint."""
    if accelerator is None or model_copies == 1:
        return accelerator
    return _shared(accelerator)


def vcpus(machine_type: str) -> int | None:
    """The virtual CPUs of a machine type, where its name tells them."""
    if match := re.search(r"(?:^|-)custom-(\d+)-\d+(?:-ext)?$", machine_type):
        return int(match[1])
    if match := re.fullmatch(r"a2-(?:highgpu|ultragpu)-(\d+)g", machine_type):
        return 12 * int(match[1])  # named by its GPUs
    if match := re.search(r"-(?:standard|highmem|highcpu)-(\d+)$", machine_type):
        return int(match[1])
    return None


def _image(beam_options: PipelineOptions) -> str | None:
    worker = beam_options.view_as(WorkerOptions)
    return worker.sdk_container_image or worker.worker_harness_container_image


def _services(beam_options: PipelineOptions) -> list[str]:
    return beam_options.view_as(GoogleCloudOptions).dataflow_service_options or []


def _experiments(beam_options: PipelineOptions) -> list[str]:
    return beam_options.view_as(DebugOptions).experiments or []


def _worker_accelerators(beam_options: PipelineOptions) -> list[str]:
    """The GPUs that all workers are to have; experiments are where it stood in older releases."""
    given = [*_services(beam_options), *_experiments(beam_options)]
    return [each for each in given if each.startswith(WORKER_ACCELERATOR)]


def _check_accelerators(beam_options: PipelineOptions, accelerator: str | None) -> None:
    of_workers = _worker_accelerators(beam_options)
    if accelerator is not None and of_workers:
        raise ValueError(
            f"--accelerator={accelerator} gives a GPU to the workers of the model's step, and "
            f"{of_workers[0]} to all workers: Dataflow does not take both, choose one"
        )
    goal = beam_options.view_as(GoogleCloudOptions).flexrs_goal
    asked = f"--accelerator={accelerator}" if accelerator else "".join(of_workers[:1])
    if goal and asked:
        raise ValueError(f"{asked} asks for a GPU, and --flexrs_goal={goal} has none: choose one")


def _check_copies(
    beam_options: PipelineOptions, accelerator: str | None, model_copies: int
) -> None:
    """Refuses copies that would not be what Dataflow starts: one process for each vCPU."""
    asked = f"--model_copies={model_copies}"
    if ONE_PROCESS in _experiments(beam_options):
        raise ValueError(
            f"{asked} needs a process for each, and the experiment {ONE_PROCESS} allows one: "
            "leave one of them out"
        )
    prime = "enable_prime"
    if prime in _services(beam_options) or prime in _experiments(beam_options):
        raise ValueError(
            f"{asked} needs NVIDIA's MPS, which {prime} has not: leave one of them out"
        )
    for spec in [accelerator] if accelerator else _worker_accelerators(beam_options):
        count = re.search(r"\bcount:(\d+)", spec)
        if count and int(count[1]) != 1:
            raise ValueError(
                f"{asked} shares one GPU by NVIDIA's MPS, which Dataflow has for workers with a "
                f"single GPU only, but {spec} asks for {count[1]}: give count:1"
            )
    machine_type = _machine_type(beam_options, accelerator)
    processes = vcpus(machine_type or "")
    if processes is not None and processes != model_copies:
        raise ValueError(
            f"{asked}, but a worker of machine type {machine_type} has {processes} vCPUs, and "
            f"Dataflow starts a process, and so a model, for each: give --model_copies={processes},"
            f" or a machine type with {model_copies} vCPUs"
        )


def _machine_type(beam_options: PipelineOptions, accelerator: str | None) -> str | None:
    """That of the workers of the model's step; right fitting may give them one of their own."""
    if own := re.search(r";machine_type:([^;]+)", accelerator or ""):
        return own[1]
    return beam_options.view_as(WorkerOptions).machine_type


def _share_worker_accelerator(beam_options: PipelineOptions) -> None:
    for given in (_services(beam_options), _experiments(beam_options)):
        given[:] = [_shared(e) if e.startswith(WORKER_ACCELERATOR) else e for e in given]


def _shared(spec: str) -> str:
    return spec if SHARE_GPU in spec.split(";") else f"{spec};{SHARE_GPU}"
