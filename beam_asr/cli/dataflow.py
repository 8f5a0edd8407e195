"""Configures Dataflow for models on GPUs, and refuses options that conflict there.

It imports Beam's options, and no package of Google's. The facts are those of Dataflow's
documentation ("Use GPUs", "Right fitting", "Use NVIDIA MPS", "FlexRS") and of Compute Engine's
machine types.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)

from beam_asr.cli.messages import as_flags
from beam_asr.cli.runners import RunnerProfile, may_wait
from beam_asr.errors import SetupError
from beam_asr.models.devices.resources import shares_gpu
from beam_asr.settings import Resources

ONE_PROCESS = "no_use_multiple_sdk_containers"
MANY_PROCESSES = "use_multiple_sdk_containers"
WORKER_ACCELERATOR = "worker_accelerator="
# By Dataflow's names of GPUs. Source: Compute Engine's page on GPU machine types.
GPU_MEMORY_GB = {
    "nvidia-tesla-p4": 8,
    "nvidia-tesla-p100": 16,
    "nvidia-tesla-t4": 16,
    "nvidia-tesla-v100": 16,
    "nvidia-l4": 24,
    "nvidia-tesla-a100": 40,
    "nvidia-a100-80gb": 80,
    "nvidia-h100-80gb": 80,
    "nvidia-h100-mega-80gb": 80,
    "nvidia-rtx-pro-6000": 96,
}
# The number of bundles that a process works on at a time. The end of one waits for the model's last
# results; meanwhile another one keeps the GPU busy. Each may hold an hour of waveforms, some
# 230 MB, so there are no more.
HARNESS_THREADS = 2


def is_template_launch(beam_options: PipelineOptions) -> bool:
    """Returns whether this writes a template instead of starting a job.

    The launcher of a Flex Template runs its program this way, and starts the job itself from the
    template, when the program has ended.
    """
    return bool(beam_options.view_as(GoogleCloudOptions).template_location)


def launcher_waits(beam_options: PipelineOptions) -> bool:
    """Returns whether the launching process stays until the job has ended."""
    return may_wait(beam_options) and not is_template_launch(beam_options)


def address(result: Any, beam_options: PipelineOptions) -> str | None:
    """Returns where a job that was started is shown; None if only a template was written."""
    if is_template_launch(beam_options):
        return None
    cloud = beam_options.view_as(GoogleCloudOptions)
    return (
        f"https://console.cloud.google.com/dataflow/jobs/{cloud.region}/{result.job_id()}"
        f"?project={cloud.project}"
    )


def apply_dataflow_defaults(
    beam_options: PipelineOptions, accelerator: str | None, resources: Resources
) -> None:
    """Completes Beam's options for Dataflow.

    Args:
        beam_options: changed in place.
        accelerator: the GPU of the model's step alone, as ``type:nvidia-l4;count:1;...``.
        resources: what a worker may use of its machine.

    Raises:
        SetupError: the options do not go together; it says which, and what to do.
    """
    _check_installed()
    _check_accelerators(beam_options, accelerator)
    _check_gpus(beam_options, accelerator, resources)
    if resources.copies > 1:
        _check_copies(beam_options, accelerator, resources)
        _share_worker_accelerator(beam_options)
    if resources.processes > 1:
        _check_processes(beam_options, accelerator, resources)
    if resources.cpus is not None:
        _check_cpus(beam_options, accelerator, resources)
    debug = beam_options.view_as(DebugOptions)
    if resources.processes > 1:
        debug.add_experiment(MANY_PROCESSES)
    elif MANY_PROCESSES not in (debug.experiments or []):
        debug.add_experiment(ONE_PROCESS)
    if debug.number_of_worker_harness_threads is None:
        debug.number_of_worker_harness_threads = HARNESS_THREADS
    setup = beam_options.view_as(SetupOptions)
    if _image(beam_options) and setup.sdk_location == "default":
        # Otherwise Beam looks for an SDK to stage over that of the image.
        setup.sdk_location = "container"


def _check_installed() -> None:
    """Raises SetupError unless Google's packages are installed, which are an extra of Beam's."""
    with contextlib.suppress(ModuleNotFoundError, ValueError):  # of the packages around it
        if importlib.util.find_spec("google.cloud.storage") is not None:
            return
    raise SetupError(
        "the DataflowRunner needs Google's packages, which are not installed: "
        "pip install 'beam-asr[gcp]'"
    )


def vcpus(machine_type: str) -> int | None:
    """Returns the number of virtual CPUs of a machine type; None if its name does not say."""
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
    """Returns the GPUs of all workers; in older releases an experiment requests them."""
    options = [*_services(beam_options), *_experiments(beam_options)]
    return [option for option in options if option.startswith(WORKER_ACCELERATOR)]


def _check_accelerators(beam_options: PipelineOptions, accelerator: str | None) -> None:
    worker_accelerators = _worker_accelerators(beam_options)
    if accelerator is not None and worker_accelerators:
        raise SetupError(
            f"--accelerator={accelerator} gives a GPU to the workers of the model's step, and "
            f"{worker_accelerators[0]} to all workers: Dataflow does not take both, choose one"
        )
    goal = beam_options.view_as(GoogleCloudOptions).flexrs_goal
    requested = f"--accelerator={accelerator}" if accelerator else "".join(worker_accelerators[:1])
    if goal and requested:
        raise SetupError(
            f"{requested} asks for a GPU, and --flexrs_goal={goal} has none: choose one"
        )


def _check_gpus(
    beam_options: PipelineOptions, accelerator: str | None, resources: Resources
) -> None:
    """Refuses GPUs, and parts of their memory, that differ from those of the workers."""
    requested = as_flags(resources.requested_gpu)
    if not requested:
        return
    specs = [accelerator] if accelerator else _worker_accelerators(beam_options)
    if not specs:
        raise SetupError(
            f"{requested} needs workers with a GPU, of a type that only you can choose: give it by "
            f"--accelerator, as type:nvidia-l4;count:{resources.gpu_count};install-nvidia-driver"
        )
    spec = specs[0]
    if resources.gpus is not None and _count(spec) != resources.gpu_count:
        raise SetupError(
            f"--gpus={resources.gpus:g} uses {resources.gpu_count} of a worker's GPUs, and {spec} "
            f"gives it {_count(spec)}: make them the same"
        )
    gpu = re.search(r"\btype:([a-z0-9-]+)", spec)
    memory = GPU_MEMORY_GB.get(gpu[1]) if gpu else None
    part = resources.gpu_memory_gb
    if gpu and memory is not None and part is not None and part * resources.copies > memory:
        shared = f" for each of {resources.copies} processes" if resources.copies > 1 else ""
        raise SetupError(
            f"--gpu_memory_gb={part:g}{shared} is more than the {memory} GB of a {gpu[1]}: give "
            "less, or another GPU"
        )


def _count(spec: str) -> int:
    """Returns the number of GPUs of a worker."""
    count = re.search(r"\bcount:(\d+)", spec)
    return int(count[1]) if count else 1


def _check_copies(
    beam_options: PipelineOptions, accelerator: str | None, resources: Resources
) -> None:
    """Refuses copies on one GPU where Dataflow lacks the MPS that shares it."""
    requested = as_flags(resources.requested_processes)
    prime = "enable_prime"
    if prime in _services(beam_options) or prime in _experiments(beam_options):
        raise SetupError(
            f"{requested} needs NVIDIA's MPS, which {prime} has not: leave one of them out"
        )
    for spec in [accelerator] if accelerator else _worker_accelerators(beam_options):
        if _count(spec) != 1:
            raise SetupError(
                f"{requested} shares a GPU by NVIDIA's MPS, which Dataflow has for workers with a "
                f"single GPU only, but {spec} asks for {_count(spec)}: give count:1"
            )


def _check_processes(
    beam_options: PipelineOptions, accelerator: str | None, resources: Resources
) -> None:
    """Refuses a number of processes that Dataflow would not start: it starts one for each vCPU."""
    requested = as_flags(resources.requested_processes)
    if ONE_PROCESS in _experiments(beam_options):
        raise SetupError(
            f"{requested} needs a process for each model, and the experiment {ONE_PROCESS} allows "
            "one: leave one of them out"
        )
    machine_type = _machine_type(beam_options, accelerator)
    processes = vcpus(machine_type or "")
    if processes is None or processes == resources.processes:
        return
    several = resources.gpu_count > 1
    remedy = "count:1 and more workers," if several else f"--model_copies={processes},"
    raise SetupError(
        f"{requested}, but a worker of machine type {machine_type} has {processes} vCPUs, and "
        f"Dataflow starts a process, and so a model, for each: give {remedy} or a machine type "
        f"with {resources.processes} vCPUs"
    )


def _check_cpus(
    beam_options: PipelineOptions, accelerator: str | None, resources: Resources
) -> None:
    """Refuses more CPUs than the workers have; their machine type alone decides."""
    machine_type = _machine_type(beam_options, accelerator)
    needed = (resources.cpus or 0) * resources.processes
    requested = f"--cpus={resources.cpus}"
    if resources.processes > 1:
        requested += f" for each of {resources.processes} processes"
    if machine_type is None:
        raise SetupError(
            f"{requested} is up to the machine type, of which none is given: give --machine_type "
            f"with {needed} vCPUs or more"
        )
    available = vcpus(machine_type)
    if available is not None and available < needed:
        raise SetupError(
            f"{requested} is more than the {available} vCPUs of a worker of machine type "
            f"{machine_type}: give less, or a machine type with {needed} vCPUs or more"
        )


def _machine_type(beam_options: PipelineOptions, accelerator: str | None) -> str | None:
    """Returns that of the model step's workers; right fitting can set another one for them."""
    if match := re.search(r";machine_type:([^;]+)", accelerator or ""):
        return match[1]
    return beam_options.view_as(WorkerOptions).machine_type


def _share_worker_accelerator(beam_options: PipelineOptions) -> None:
    for options in (_services(beam_options), _experiments(beam_options)):
        options[:] = [
            shares_gpu(option) if option.startswith(WORKER_ACCELERATOR) else option
            for option in options
        ]


PROFILE = RunnerProfile(
    apply_defaults=apply_dataflow_defaults,
    waits=launcher_waits,
    address=address,
    shares_disk=False,
    reads_pubsub=True,
    takes_accelerator=True,
)
