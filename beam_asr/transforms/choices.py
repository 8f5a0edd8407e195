"""Looks up and checks the choices of settings that name an entry of a registry."""

from __future__ import annotations

import importlib
from typing import Any

from beam_asr.errors import SetupError
from beam_asr.records.setting_fields import Setting

# Module and attribute of the registry of each kind of choice.
REGISTRIES = {
    "formats": "beam_asr.outputs.formats.registry:FORMATS",
    "engines": "beam_asr.models.engine:ENGINES",
    "text_steps": "beam_asr.transcripts.post_processing:TEXT_STEPS",
}


def choices(setting: Setting) -> tuple[str, ...]:
    """Returns the values that a setting can have; empty if any is allowed, or none is installed."""
    if not setting.choices_of:
        return setting.choices
    module, _, attribute = REGISTRIES[setting.choices_of].partition(":")
    return tuple(getattr(importlib.import_module(module), attribute))


def check_choice(setting: Setting, value: Any) -> None:
    """Checks a value against the registry of its setting.

    Raises:
        SetupError: names the setting, the value, and what is allowed.
    """
    known = choices(setting)
    if value not in known:
        raise SetupError(f"{setting.name} is {value!r}, but must be one of {', '.join(known)}")
