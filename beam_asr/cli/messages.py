"""Messages as the command line says them: with settings as flags."""

from __future__ import annotations

from beam_asr import errors
from beam_asr.records.setting_fields import Setting, all_settings
from beam_asr.settings import GROUPS


def flag_of(setting: Setting) -> str:
    """Returns the flag of a setting; that of a switch which is on by default turns it off."""
    return f"--no_{setting.name}" if setting.default is True else f"--{setting.name}"


# Settings that have a flag of the same name.
FLAGS = frozenset(each.name for each in all_settings(GROUPS) if flag_of(each) == f"--{each.name}")


def as_flags(message: str) -> str:
    """Returns a message of the library with its settings as flags."""
    return errors.with_flags(message, FLAGS)
