"""Reads a file of settings, for ``--config``: YAML with the names of flags, without dashes.

input: [gs://bucket/a.jsonl, gs://bucket/b.jsonl]
output: gs://bucket/out
model_name: nvidia/parakeet-tdt-0.6b-v3
timestamps: word
overwrite: true
runner: FlinkRunner     # flags of Beam, too
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from beam_asr.errors import UsageError
from beam_asr.records.setting_fields import all_settings
from beam_asr.settings import GROUPS


def arguments(path: str, given: Collection[str]) -> list[str]:
    """Returns the arguments that a file of settings stands for.

    Args:
        path: path or URI of the file.
        given: the flags of the command line, which replace those of the file.

    Raises:
        UsageError: the file cannot be read, or is not a YAML mapping of names to values.
    """
    return [
        argument
        for name, value in _content(path).items()
        for argument in _arguments_of(str(name).replace("-", "_"), value)
        if argument.partition("=")[0] not in given
    ]


def _content(path: str) -> Mapping[Any, Any]:
    import yaml

    from beam_asr.storage.storage import Storage

    try:
        content = yaml.safe_load(Storage().read(path))
    except FileNotFoundError:
        raise UsageError(f"--config={path}: no such file") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"--config={path} is not YAML: {problem}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--config={path} is not a text: {error}") from None
    if not isinstance(content, Mapping):
        raise UsageError(
            f"--config={path} must hold names of flags and their values, as 'output: out'"
        )
    return content


def _arguments_of(name: str, value: Any) -> Iterator[str]:
    """Yields the arguments of a setting, or of a flag of Beam's."""
    setting = next((each for each in all_settings(GROUPS) if each.name == name), None)
    if value is None:
        return
    if isinstance(value, bool):
        default = setting is not None and setting.default is True
        if value != default:
            yield f"--no_{name}" if default else f"--{name}"
        return
    if isinstance(value, Mapping):
        if setting is not None and setting.value_type is tuple:  # as of --models
            value = [f"{key}={each}" for key, each in value.items()]
        else:
            value = json.dumps(value)
    for each in value if isinstance(value, list) else [value]:
        yield f"--{name}={each}"
