"""The choices of settings that name an entry of a registry."""

from __future__ import annotations

import importlib
from typing import Any

from beam_asr.errors import SetupError
from beam_asr.records.setting_fields import Setting

# Where the names of each kind of choice are: tables, or tuples of names.
REGISTRIES = {
    "formats": (
        "beam_asr.outputs.formats.registry:FORMATS",
        "beam_asr.outputs.formats.shard_files:FORMATS",
    ),
    "engines": ("beam_asr.models.engine:ENGINES",),
}


def choices(setting: Setting) -> tuple[str, ...]:
    """The values that a setting can have; empty if it can have any."""
    if not setting.choices_of:
        return setting.choices
    names: list[str] = []
    for place in REGISTRIES[setting.choices_of]:
        module, _, attribute = place.partition(":")
        names += getattr(importlib.import_module(module), attribute)
    return tuple(names)


def check_choice(setting: Setting, value: Any) -> None:
    """Checks a value against the registry of its setting.

    Raises:
        SetupError: names the setting, the value, and what is allowed.
    """
    known = choices(setting)
    if value not in known:
        raise SetupError(f"{setting.name} is {value!r}, but must be one of {', '.join(known)}")
