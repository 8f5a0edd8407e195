"""Words messages for the command line, with settings as flags."""

from __future__ import annotations

from beam_asr import errors
from beam_asr.records.setting_fields import Setting, all_settings
from beam_asr.settings import GROUPS


def flag_of(setting: Setting) -> str:
    """Returns the flag of a setting; that of a switch which is on by default turns it off."""
    return f"--no_{setting.name}" if setting.default is True else f"--{setting.name}"


# Settings that have a flag of the same name.
FLAGS = frozenset(
    setting.name for setting in all_settings(GROUPS) if flag_of(setting) == f"--{setting.name}"
)


def as_flags(message: str) -> str:
    """Returns a message of the library with its settings as flags."""
    return errors.with_flags(message, FLAGS)
