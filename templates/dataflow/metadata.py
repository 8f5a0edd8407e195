"""Writes metadata.json, the parameters of the Flex Template, from the flags of beam-asr.

    python templates/dataflow/metadata.py > templates/dataflow/metadata.json

The fields are those of ParameterMetadata in the Dataflow REST API, v1b3.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from main import transcribe_parser

from beam_asr.cli import options

GROUPS = {
    "Input and output": "input tarred_audio output filepath_key pred_text_key num_shards "
    "compression resume no_retry_failures overwrite max_failure_fraction watch output_window",
    "Model": "model_name models route_key unmapped decoder precision device batch_size "
    "max_batch_seconds batch_timeout source_lang target_lang task pnc",
    "Resources": "gpus model_copies cpus gpu_memory_gb accelerator",
    "Long audio and what is written": "segmentation max_segment_seconds attention partial "
    "timestamps confidence n_best formats",
    "Scores and filters": "reference_key normalizer quality keep min_duration max_duration "
    "required_sample_rate required_channels audio_checks",
    "Reading": "channel audio_timeout max_concurrent_reads storage_options allowed_audio_prefixes",
}
# Beam's, of which `gcloud dataflow flex-template run` has no flag of its own.
WORKERS = {
    "dataflow_service_options": (
        "The GPU of all workers, worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver, "
        "and other options of the service; comma-separated",
        {},
    ),
    "disk_size_gb": (
        "Disk of a worker in GB; it holds the image, the model and what is being read",
        {"paramType": "NUMBER", "regexes": ["^[1-9][0-9]*$"], "defaultValue": "100"},
    ),
    "number_of_worker_harness_threads": (
        "Bundles that a worker process has in hand at a time; 2 by default",
        {"paramType": "NUMBER", "regexes": ["^[1-9][0-9]*$"]},
    ),
    "sdk_container_image": ("Image of the workers; by default that of the template itself", {}),
    "default_sdk_harness_log_level": (
        "What workers log",
        {
            "paramType": "ENUM",
            "enumOptions": [
                {"value": level, "label": level} for level in ("DEBUG", "INFO", "WARNING", "ERROR")
            ],
        },
    ),
}

NUMBER = r"[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?"
URI = r"[a-zA-Z][a-zA-Z0-9+.-]*://.+"
# What the parser of each kind of value takes, as far as a pattern can say it.
PATTERNS = {
    options._count: "[1-9][0-9]*",
    options._shards: "[1-9][0-9]*",
    options._channel: "[0-9]+",
    options._seconds: NUMBER,
    options._segment_seconds: NUMBER,
    options._fraction: NUMBER,
    options._gpus: NUMBER,
    options._accelerator: options.ACCELERATOR.pattern,
}
# A path of the machine that launches says nothing to the workers.
REMOTE = ("input", "output", "tarred_audio")


def metadata() -> dict[str, Any]:
    """The whole file.

    Raises:
        KeyError: a flag is in no group.
    """
    parser = transcribe_parser()
    actions = {flag.lstrip("-"): each for each in parser._actions for flag in each.option_strings}
    for name in ("h", "help"):
        del actions[name]
    grouped = [(name, group) for group, names in GROUPS.items() for name in names.split()]
    if missing := set(actions) - {name for name, _ in grouped}:
        raise KeyError(f"flags in no group: {', '.join(sorted(missing))}")
    parameters = [parameter(name, group, actions[name], parser) for name, group in grouped]
    for name, (help_text, more) in WORKERS.items():
        parameters.append(
            {
                "name": name,
                "label": label(name),
                "helpText": help_text,
                "groupName": "Workers",
                "isOptional": True,
                "paramType": "TEXT",
                **more,
            }
        )
    # Those that must be given come first.
    parameters.sort(key=lambda each: each["isOptional"])
    return {
        "name": "Batch speech recognition with NVIDIA NeMo",
        "description": parser.description,
        "parameters": parameters,
    }


def parameter(
    name: str, group: str, action: argparse.Action, parser: argparse.ArgumentParser
) -> dict[str, Any]:
    """What the template says of a flag."""
    text = parser._get_formatter()._expand_help(action)
    found: dict[str, Any] = {
        "name": name,
        "label": label(name),
        "helpText": text[0].upper() + text[1:],
        "groupName": group,
        "isOptional": not action.required,
        "paramType": "TEXT",
    }
    if action.nargs == 0:
        return {**found, "paramType": "BOOLEAN", "defaultValue": "false"}
    if action.choices:
        found["paramType"] = "ENUM"
        found["enumOptions"] = [{"value": each, "label": each} for each in action.choices]
    elif action.type in PATTERNS:
        if action.type is not options._accelerator:
            found["paramType"] = "NUMBER"
        found["regexes"] = [f"^{PATTERNS[action.type]}$"]
    elif name in REMOTE:
        found["regexes"] = [f"^{URI}$"]
    if action.default:
        default = action.default
        found["defaultValue"] = f"{default:g}" if isinstance(default, float) else str(default)
    return found


def label(name: str) -> str:
    return name.replace("_", " ").capitalize()


if __name__ == "__main__":
    print(json.dumps(metadata(), indent=2))
