"""Writes metadata.json, the parameters of the Flex Template, from the settings of beam-asr.

    python templates/dataflow/metadata.py > templates/dataflow/metadata.json

The fields are those of ParameterMetadata in the Dataflow REST API, v1b3.
"""

from __future__ import annotations

import json
from typing import Any

from beam_asr.cli import flag_values, options
from beam_asr.cli.messages import flag_of
from beam_asr.records.setting_fields import Groups, Setting, all_settings
from beam_asr.settings import GROUPS
from beam_asr.transforms.choices import choices

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
# A path of the machine that launches says nothing to the workers.
REMOTE = ("input", "output", "tarred_audio")


def metadata(groups: Groups = GROUPS) -> dict[str, Any]:
    """The whole file."""
    parameters = [parameter(each) for each in all_settings(groups)]
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
        "description": options.DESCRIPTION,
        "parameters": parameters,
    }


def parameter(setting: Setting) -> dict[str, Any]:
    """What the template says of a setting."""
    text = options.help_of(setting)
    name = flag_of(setting).removeprefix("--")
    found: dict[str, Any] = {
        "name": name,
        "label": label(name),
        "helpText": text[0].upper() + text[1:],
        "groupName": setting.title,
        "isOptional": not setting.required,
        "paramType": "TEXT",
    }
    if setting.value_type is bool:
        return {**found, "paramType": "BOOLEAN", "defaultValue": "false"}
    known = choices(setting)
    if known and setting.value_type is str:
        found["paramType"] = "ENUM"
        found["enumOptions"] = [{"value": each, "label": each} for each in known]
    elif pattern := pattern_of(setting):
        found["regexes"] = [f"^{pattern}$"]
        if setting.value_type in (int, float) and not setting.words:
            found["paramType"] = "NUMBER"
    if setting.default:
        default = setting.default
        found["defaultValue"] = f"{default:g}" if isinstance(default, float) else str(default)
    return found


def pattern_of(setting: Setting) -> str | None:
    """What its flag takes, as far as a pattern can say it; None for any text."""
    if setting.format == "accelerator":
        return flag_values.ACCELERATOR.pattern
    if setting.value_type is int:
        number = "[1-9][0-9]*" if setting.minimum else "[0-9]+"
        return f"({'|'.join([number, *setting.words])})" if setting.words else number
    if setting.value_type is float:
        return NUMBER
    return URI if setting.name in REMOTE else None


def label(name: str) -> str:
    return name.replace("_", " ").capitalize()


if __name__ == "__main__":
    print(json.dumps(metadata(), indent=2))
